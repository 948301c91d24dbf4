//! The file's format: who it belongs to, its schema version, and the steps from each version to the next.

use rusqlite::{Connection, TransactionBehavior};

/// `boxp`: marks the file as a boxpool store.
pub(crate) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"boxp");

/// Step n leads from schema version n to n + 1. Released steps are never changed; new ones are added at the end.
pub(crate) const STEPS: &[&str] = &[
    // 0 → 1. Text compares by its bytes (SQLite's BINARY), which is the order that scans promise. The sequence gives
    // every write its version, across records, deletions and processes.
    "CREATE TABLE records (
         collection TEXT NOT NULL,
         partition TEXT NOT NULL,
         row TEXT NOT NULL,
         version INTEGER NOT NULL,
         value TEXT NOT NULL,
         PRIMARY KEY (collection, partition, row)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE sequence (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL) STRICT;
     INSERT INTO sequence (id, last) VALUES (1, 0);",
];

/// The schema version that `steps` lead to.
pub(crate) fn newest(steps: &[&str]) -> i64 {
    i64::try_from(steps.len()).unwrap_or(i64::MAX)
}

/// The schema version of the file.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// The mark of whoever made the file.
pub(crate) fn application(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA application_id", [], |row| row.get(0))
}

/// Brings the file to the newest of `steps`, all in one transaction: a process that dies here leaves the old version.
/// Processes that start at once do it once. Returns the version found under the lock.
pub(crate) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    let done = usize::try_from(found).unwrap_or(0);
    if done < steps.len() {
        for step in &steps[done..] {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", newest(steps))?;
    }
    transaction.commit()?;
    Ok(found)
}
