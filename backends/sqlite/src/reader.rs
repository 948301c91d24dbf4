//! The thread that reads, on a connection of its own: a read never waits for a write's disk flush, and sees every write that was answered.

use crate::failure::failure;
use boxpool::{Cursor, Entry, Error, ErrorKind, Key, Page, Result, Stored, Table, Version};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::mpsc::Receiver;
use tokio::sync::oneshot;

pub(crate) enum Read {
    Get {
        key: Key,
        answer: oneshot::Sender<Result<Option<Stored>>>,
    },
    Scan {
        table: Table,
        partition: Option<String>,
        cursor: Option<Cursor>,
        limit: usize,
        answer: oneshot::Sender<Result<Page<Entry>>>,
    },
}

pub(crate) fn run(connection: &Connection, name: &str, reads: &Receiver<Read>) {
    while let Ok(read) = reads.recv() {
        // A caller that has gone away does not hear of it.
        match read {
            Read::Get { key, answer } => drop(answer.send(get(connection, name, &key))),
            Read::Scan { table, partition, cursor, limit, answer } => {
                drop(answer.send(scan(connection, name, table, partition.as_deref(), cursor.as_ref(), limit)));
            }
        }
    }
}

fn get(connection: &Connection, name: &str, key: &Key) -> Result<Option<Stored>> {
    let read = || {
        connection
            .prepare_cached("SELECT version, value FROM record WHERE kind = ?1 AND partition = ?2 AND row = ?3")?
            .query_row(params![key.table.as_str(), key.partition, key.row], |row| {
                Ok(Stored { version: Version(row.get::<_, i64>(0)?.to_string()), value: row.get(1)? })
            })
            .optional()
    };
    read().map_err(|error| failure("read record", name, error, false))
}

fn scan(
    connection: &Connection,
    name: &str,
    table: Table,
    partition: Option<&str>,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Page<Entry>> {
    // The cursor is the last key seen, its parts joined by a character that keys cannot hold.
    let (after_partition, after_row) = match cursor.map(|cursor| cursor.0.split_once('\0')) {
        None => (partition.unwrap_or_default(), ""),
        Some(Some(parts)) => parts,
        Some(None) => {
            let detail = "the cursor is not one of this store's";
            return Err(Error::new(ErrorKind::Invalid, "scan table", table.as_str()).with_detail(detail));
        }
    };
    let limit = limit.max(1);
    // Rows are never empty, so "after the empty row" is the beginning. TEXT compares by bytes.
    let within = if partition.is_some() { "partition = ?2 AND row > ?3" } else { "(partition, row) > (?2, ?3)" };
    let query = format!(
        "SELECT partition, row, version, value FROM record WHERE kind = ?1 AND {within} ORDER BY partition, row LIMIT ?4"
    );
    let read = || {
        let mut statement = connection.prepare_cached(&query)?;
        let probe = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![table.as_str(), after_partition, after_row, probe], |row| {
            Ok(Entry {
                key: Key::new(table, row.get::<_, String>(0)?, row.get::<_, String>(1)?),
                stored: Stored { version: Version(row.get::<_, i64>(2)?.to_string()), value: row.get(3)? },
            })
        })?;
        rows.collect::<rusqlite::Result<Vec<Entry>>>()
    };
    let mut items = read().map_err(|error| failure("scan table", name, error, false))?;
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next = last.map(|entry| Cursor(format!("{}\0{}", entry.key.partition, entry.key.row)));
    Ok(Page { items, next })
}
