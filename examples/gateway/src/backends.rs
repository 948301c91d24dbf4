//! What the program's boxes are made of: the embedded store, and QEMU on this machine.

use crate::config::Config;
use crate::place::Place;
use crate::serve::{Backends, Keys};
use boxpool::{Error, ErrorKind, Result, StateStore};
use boxpool_sqlite::SqliteStore;
use std::sync::Arc;

/// The store's file in the state directory.
pub const STORE_FILE: &str = "state.sqlite";

/// Opens the store, or makes it.
///
/// # Errors
/// The store's own.
pub async fn open_store(place: &Place) -> Result<Arc<dyn StateStore>> {
    Ok(Arc::new(SqliteStore::open(place.join(STORE_FILE)).await?))
}

/// Opens everything, and makes what is missing.
///
/// # Errors
/// The backends' own.
pub async fn open(_config: &Config, place: &Place, _keys: &Keys) -> Result<Backends> {
    let _store = open_store(place).await?;
    Err(Error::new(ErrorKind::Unavailable, "open", "qemu")
        .with_detail("the QEMU backend is not part of this build yet"))
}
