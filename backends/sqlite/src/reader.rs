//! The readers: threads with a connection each. In WAL mode they never wait for the writer, and each read begins at the
//! newest commit of any process.

use crate::failure::failed;
use crate::options::SqliteOptions;
use boxpool::{Cursor, Entry, Error, ErrorKind, Key, Page, Result, Stored, Table, Version};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// A page never holds more records than this, whatever is asked for: some 30 MB at the most.
const PAGE_MAX: usize = 1_000;

/// A read that waits, and where its answer goes.
#[derive(Debug)]
pub(crate) enum Read {
    Get { key: Key, answer: oneshot::Sender<Result<Option<Stored>>> },
    Scan { scan: Scan, answer: oneshot::Sender<Result<Page<Entry>>> },
}

#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) table: Table,
    pub(crate) partition: Option<String>,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) limit: usize,
}

pub(crate) struct Reader {
    pub(crate) file: PathBuf,
    /// Shared by all readers; held only while one waits for the next read.
    pub(crate) queue: Arc<Mutex<Receiver<Read>>>,
}

impl Reader {
    /// Works until the store is dropped and the queue is empty.
    pub(crate) fn run(self, connection: &Connection) {
        let next = || self.queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        while let Ok(read) = next() {
            match read {
                Read::Get { key, answer } if !answer.is_closed() => {
                    let found = get(connection, &key).map_err(|error| failed("get", &key, &self.file, error));
                    let _ = answer.send(found);
                }
                Read::Scan { scan, answer } if !answer.is_closed() => {
                    let _ = answer.send(self.scan(connection, &scan));
                }
                Read::Get { .. } | Read::Scan { .. } => {}
            }
        }
    }

    fn scan(&self, connection: &Connection, scan: &Scan) -> Result<Page<Entry>> {
        let after = match &scan.cursor {
            // No key has empty parts, so this lies before every record.
            None => (scan.partition.clone().unwrap_or_default(), String::new()),
            Some(Cursor(text)) => serde_json::from_str(text).map_err(|error| {
                Error::new(ErrorKind::Invalid, "scan", scan.table.as_str())
                    .with_detail("the cursor does not come from a scan of this store")
                    .with_source(error)
            })?,
        };
        let limit = scan.limit.clamp(1, PAGE_MAX);
        let mut items = entries(connection, scan, &after, limit)
            .map_err(|error| failed("scan", scan.table.as_str(), &self.file, error))?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| more)
            .map(|Entry { key, .. }| Cursor(serde_json::json!([key.partition, key.row]).to_string()));
        Ok(Page { items, next })
    }

    pub(crate) fn configure(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
        connection.busy_timeout(options.lock_wait)?;
        connection.pragma_update(None, "query_only", true)
    }
}

fn get(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Stored>> {
    connection
        .prepare_cached("SELECT version, value FROM records WHERE collection = ?1 AND partition = ?2 AND row = ?3")?
        .query_row(params![key.table.as_str(), key.partition, key.row], |row| stored(row, 0))
        .optional()
}

/// One record more than `limit`, which tells whether there is a next page.
fn entries(
    connection: &Connection,
    scan: &Scan,
    after: &(String, String),
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let entry = |row: &Row<'_>| {
        let key = Key::new(scan.table, row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        Ok(Entry { key, stored: stored(row, 2)? })
    };
    let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    match &scan.partition {
        Some(partition) => connection
            .prepare_cached(
                "SELECT partition, row, version, value FROM records
                 WHERE collection = ?1 AND partition = ?2 AND (partition, row) > (?3, ?4) ORDER BY row LIMIT ?5",
            )?
            .query_map(params![scan.table.as_str(), partition, after.0, after.1, most], entry)?
            .collect(),
        None => connection
            .prepare_cached(
                "SELECT partition, row, version, value FROM records
                 WHERE collection = ?1 AND (partition, row) > (?2, ?3) ORDER BY partition, row LIMIT ?4",
            )?
            .query_map(params![scan.table.as_str(), after.0, after.1, most], entry)?
            .collect(),
    }
}

fn stored(row: &Row<'_>, first: usize) -> rusqlite::Result<Stored> {
    Ok(Stored { version: Version(row.get::<_, i64>(first)?.to_string()), value: row.get(first + 1)? })
}
