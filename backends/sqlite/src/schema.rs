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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::open::prepare;
    use crate::options::SqliteOptions;
    use boxpool::ErrorKind;

    const THREE: &[&str] = &[
        STEPS[0],
        "ALTER TABLE records ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",
        "CREATE INDEX by_note ON records (note); UPDATE records SET note = 'seen'",
    ];

    fn older_file() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("store.db");
        prepare(&file, &SqliteOptions::new(), &THREE[..1]).unwrap();
        let old = Connection::open(&file).unwrap();
        old.execute("INSERT INTO records VALUES ('things', 'p', 'r', 1, 'kept')", []).unwrap();
        (directory, file)
    }

    #[test]
    fn an_older_file_is_brought_up_to_date_and_keeps_its_records() {
        let (_directory, file) = older_file();

        prepare(&file, &SqliteOptions::new(), THREE).unwrap();

        let now = Connection::open(&file).unwrap();
        assert_eq!(version(&now).unwrap(), 3);
        let row: (String, String) =
            now.query_row("SELECT value, note FROM records", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, ("kept".into(), "seen".into()));
        drop(now);
        // Once more changes nothing; and the version that knows only the first schema refuses it now.
        prepare(&file, &SqliteOptions::new(), THREE).unwrap();
        let error = prepare(&file, &SqliteOptions::new(), &THREE[..1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn many_that_migrate_at_once_do_it_once() {
        let (_directory, file) = older_file();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..6).map(|_| scope.spawn(|| prepare(&file, &SqliteOptions::new(), THREE))).collect();
            for one in all {
                one.join().unwrap().unwrap();
            }
        });
        assert_eq!(version(&Connection::open(&file).unwrap()).unwrap(), 3);
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_version() {
        let (_directory, file) = older_file();
        let broken = &[THREE[0], THREE[1], "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1)"];

        prepare(&file, &SqliteOptions::new(), broken).unwrap_err();

        let now = Connection::open(&file).unwrap();
        assert_eq!(version(&now).unwrap(), 1);
        assert!(now.prepare("SELECT note FROM records").is_err());
        assert!(now.prepare("SELECT x FROM half").is_err());
    }
}
