//! The state store: records under keys, changed by single-record compare-and-swap and by nothing else.
//!
//! There are no transactions over several records on purpose: Azure Tables has none across partitions, and what works
//! on the weakest store works on all.

use crate::error::{Error, ErrorKind, Result};
use async_trait::async_trait;
use std::fmt;

/// A table's name: 3 to 40 lower-case letters, as every known store allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(&'static str);

impl Table {
    /// Names a table. Checked at compile time when used in a `const`.
    ///
    /// # Panics
    /// When the name is not 3 to 40 lower-case letters: a programming error, never outside input.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(bytes.len() >= 3 && bytes.len() <= 40, "a table name has 3 to 40 letters");
        let mut i = 0;
        while i < bytes.len() {
            assert!(bytes[i].is_ascii_lowercase(), "a table name has lower-case letters only");
            i += 1;
        }
        Self(name)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.0
    }
}

/// Longest partition or row text, in bytes. Azure Tables allows 512 UTF-16 units for each.
pub const MAX_KEY_PART_BYTES: usize = 400;

/// Longest record, in bytes of UTF-8. Azure Tables allows 32 Ki UTF-16 units in one property.
pub const MAX_VALUE_BYTES: usize = 30 * 1024;

/// Where a record lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which table.
    pub table: Table,
    /// Records of one partition are near each other; some stores scan them cheaply.
    pub partition: String,
    /// Unique within the partition.
    pub row: String,
}

impl Key {
    /// A key; `partition` and `row` may hold any text up to [`MAX_KEY_PART_BYTES`], and a store encodes what it must.
    pub fn new(table: Table, partition: impl Into<String>, row: impl Into<String>) -> Self {
        Self { table, partition: partition.into(), row: row.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.table.as_str(), self.partition.escape_debug(), self.row.escape_debug())
    }
}

/// A store's opaque mark for compare-and-swap. Differs after every change of a record, also when the value is the same,
/// and is not used again when a record is deleted and inserted anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub String);

/// A record as it is stored: JSON text and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The mark to give to [`StateStore::update`] or [`StateStore::delete`].
    pub version: Version,
    /// The JSON text, as it was written.
    pub value: String,
}

/// One entry of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lives.
    pub key: Key,
    /// What is there.
    pub stored: Stored,
}

/// Where the next page begins: opaque, from [`Page::next`] of the same scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found. May be empty although `next` is set.
    pub items: Vec<T>,
    /// Where to go on; `None` when the listing is complete.
    pub next: Option<Cursor>,
}

/// Where all authority lives.
///
/// Every call is atomic for one record, and durable when it returns `Ok`. A call whose future is dropped may or may not
/// have happened. When the outcome is not known the error's effect is [`Effect::Unknown`](crate::Effect); the pool then
/// reads the record again and recognises its own write by the mark in it.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// The record at `key`, as the latest completed write left it (never a stale copy); `None` when there is none.
    async fn get(&self, key: &Key) -> Result<Option<Stored>>;

    /// Writes a record where there is none. Sent at most once: nothing under this call may send it again on its own, since the
    /// record may have been deleted when the second one arrives, and would be there again.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one: it is unchanged. `Invalid` when the key or value is too large.
    async fn insert(&self, key: &Key, value: &str) -> Result<Version>;

    /// Replaces the record if it still has `version`.
    ///
    /// # Errors
    /// `Conflict` when it has another version, `NotFound` when there is none; either way nothing changed.
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version>;

    /// Deletes the record if it still has `version`. Absent is success: deleting twice is safe.
    ///
    /// # Errors
    /// `Conflict` when it has another version: it is unchanged.
    async fn delete(&self, key: &Key, version: &Version) -> Result<()>;

    /// A page of at most `limit` (at least 1) records of `table`, of one `partition` or of all, in ascending order of (partition, row)
    /// by bytes, beginning after the page that `cursor` came from.
    ///
    /// A record that is not touched during a scan of all pages is seen exactly once; one inserted or deleted meanwhile
    /// is seen at most once.
    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>>;
}

/// Checks what every store must refuse; stores call it first in `insert` and `update`.
///
/// # Errors
/// `Invalid` when the key is too long or holds a NUL or a control character, or the value is too long.
pub fn check_record(operation: &'static str, key: &Key, value: &str) -> Result<()> {
    let refuse = |why: String| Err(Error::new(ErrorKind::Invalid, operation, key).with_detail(why));
    for part in [&key.partition, &key.row] {
        if part.is_empty() || part.len() > MAX_KEY_PART_BYTES {
            return refuse(format!("partition and row have 1 to {MAX_KEY_PART_BYTES} bytes"));
        }
        if part.chars().any(char::is_control) {
            return refuse("partition and row have no control characters".into());
        }
    }
    if value.len() > MAX_VALUE_BYTES {
        return refuse(format!("the record has {} bytes; at most {MAX_VALUE_BYTES} fit", value.len()));
    }
    Ok(())
}
