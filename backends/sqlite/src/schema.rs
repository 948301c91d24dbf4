//! The file's schema: whose file it is, which version it has, and how an older one becomes a newer one.
//!
//! A file is looked at before it is opened for writing, so that one that is foreign, damaged or newer stays as it is, byte
//! for byte.

use crate::failure::failure;
use boxpool::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::path::Path;

/// "BxPl": marks the file as ours (`PRAGMA application_id`, at byte 68 of the file).
pub(crate) const APPLICATION_ID: i32 = 0x4278_506c;

/// Each step brings the file from the version of its index to the next; `PRAGMA user_version` counts them.
const STEPS: [&str; 1] = ["
    CREATE TABLE record (
        kind      TEXT NOT NULL,
        partition TEXT NOT NULL,
        row       TEXT NOT NULL,
        version   INTEGER NOT NULL,
        value     TEXT NOT NULL,
        PRIMARY KEY (kind, partition, row)
    ) WITHOUT ROWID;
    -- Never goes back, so that no version is ever used twice.
    CREATE TABLE sequence (next INTEGER NOT NULL);
    INSERT INTO sequence (next) VALUES (1);
"];

/// Refuses a file that must not be touched. Opens it for reading only.
pub(crate) fn inspect(path: &Path) -> Result<()> {
    let name = path.display().to_string();
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() > 0 => {}
        Ok(found) if found.is_file() => return Ok(()), // empty: as good as none
        Ok(_) => {
            let detail = "there is something there that is not a file; choose another place for the state file";
            return Err(Error::new(ErrorKind::Invalid, "open state file", name).with_detail(detail));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let detail = format!("it cannot be looked at: {error}");
            return Err(Error::new(ErrorKind::Unauthorized, "open state file", name).with_detail(detail));
        }
    }
    let corrupt = |detail: String| Err(Error::new(ErrorKind::Corrupt, "open state file", &name).with_detail(detail));
    // The header says whose file it is without SQLite touching anything beside it.
    let mut header = [0_u8; 100];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut header));
    if read.is_err() || &header[..16] != b"SQLite format 3\0" {
        return corrupt("it is not a state file; it was left as it is. Move it away, or choose another place".into());
    }
    let word = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let has_log =
        path.with_file_name(format!("{}-wal", path.file_name().unwrap_or_default().to_string_lossy())).exists();
    // With a log beside it the newest header may be in there; SQLite tells below.
    let (application, version) = if has_log {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|error| failure("open state file", &name, error, false))?;
        let ask = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
        let asked = ask("application_id").and_then(|application| Ok((application, ask("user_version")?)));
        asked.map_err(|error| failure("open state file", &name, error, false))?
    } else {
        (word(68), word(60))
    };
    if application != APPLICATION_ID && (application, version) != (0, 0) {
        return corrupt("it is another program's database; it was left as it is. Choose another place".into());
    }
    let newest = i32::try_from(STEPS.len()).unwrap_or(i32::MAX);
    if version > newest {
        return corrupt(format!(
            "it was written by a newer version (schema {version}, this one knows {newest}); it was left as it is. Upgrade this program"
        ));
    }
    Ok(())
}

/// Brings the file to the newest version. Several processes may do so at once.
pub(crate) fn migrate(connection: &mut Connection, name: &str) -> Result<()> {
    migrate_with(connection, name, &STEPS)
}

fn migrate_with(connection: &mut Connection, name: &str, steps: &[&str]) -> Result<()> {
    let run = |connection: &mut Connection| -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        for step in steps.iter().skip(version as usize) {
            transaction.execute_batch(step)?;
        }
        let newest = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        if version < newest {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", newest)?;
        }
        transaction.commit()
    };
    run(connection).map_err(|error| failure("prepare state file", name, error, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_is_brought_up_step_by_step_and_keeps_its_content() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y DEFAULT 7"];
        migrate_with(&mut connection, "test", &steps[..1]).unwrap();
        connection.execute("INSERT INTO a VALUES (1)", []).unwrap();
        migrate_with(&mut connection, "test", &steps).unwrap();
        migrate_with(&mut connection, "test", &steps).unwrap();
        let row: (i32, i32) =
            connection.query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (1, 7));
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x); THIS IS NOT SQL"];
        assert!(migrate_with(&mut connection, "test", &steps).is_err());
        let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let tables: i32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!((version, tables), (0, 0));
    }
}
