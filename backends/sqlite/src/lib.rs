//! The embedded state store of boxpool: one SQLite file, shared by all processes of one machine.
//!
//! ```
//! # async fn example() -> boxpool::Result<()> {
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let path = directory.path().join("boxpool.db");
//! use boxpool::{Key, StateStore, Table};
//! use boxpool_sqlite::SqliteStore;
//!
//! const NOTES: Table = Table::new("notes");
//! let store = SqliteStore::open(path)?;
//! let key = Key::new(NOTES, "alice", "first");
//! let version = store.insert(&key, r#"{"text":"hello"}"#).await?;
//! store.update(&key, &version, r#"{"text":"hello again"}"#).await?;
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(example()).expect("it works");
//! ```
//!
//! Every write is on the disk before it is answered, and concurrent writes share one fsync. An operator may look into the
//! file with the `sqlite3` tool while it is in use: one table, `records`, holds JSON text.

mod failure;
mod open;
mod options;
mod reader;
mod schema;
mod store;
mod writer;

pub use options::SqliteOptions;
pub use store::SqliteStore;
