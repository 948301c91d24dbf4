//! The embedded state store of boxpool: one SQLite file, shared by any number of processes on one machine.
//!
//! Every write is on the disk before it is answered (`synchronous = FULL` with a write-ahead log). Writes that arrive
//! together are committed together, so that sixty-four claims at once cost a few disk flushes and not sixty-four.
//!
//! ```
//! # async fn example(dir: &std::path::Path) -> boxpool::Result<()> {
//! use boxpool::{Key, StateStore, Table};
//! use boxpool_sqlite::SqliteStore;
//! const NOTES: Table = Table::new("notes");
//!
//! let store = SqliteStore::open(dir.join("state.sqlite")).await?;
//! let version = store.insert(&Key::new(NOTES, "a", "b"), "1").await?;
//! store.update(&Key::new(NOTES, "a", "b"), &version, "2").await?;
//! # Ok(())
//! # }
//! ```

mod failure;
mod reader;
mod schema;
mod store;
mod writer;

pub use store::{SqliteOptions, SqliteStore};
