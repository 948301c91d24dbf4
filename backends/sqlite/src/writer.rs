//! The writer: one thread that takes every write waiting at the moment and commits them together.
//!
//! While one commit waits for the disk, the next writes gather; the more callers there are, the more share one fsync. Each
//! write keeps its own outcome: a lost compare-and-swap changes nothing and rolls nobody else back. Nothing is answered
//! before the commit is durable.
//!
//! If the process dies before the commit, none of the batch happened, and nobody was told so; if it dies after it, all of
//! it did, and callers who were not told find their own mark in the record.

use crate::failure::{commit_is_in_doubt, failed};
use crate::open::{Identity, connect};
use crate::options::SqliteOptions;
use crate::schema::{STEPS, newest, version as schema_version};
use boxpool::{Error, ErrorKind, Key, Result, Version};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// At most so many writes share a commit, so that none waits for all of a long queue.
const BATCH_MAX: usize = 256;

/// One change of one record.
#[derive(Debug)]
pub(crate) enum Change {
    Insert { value: String },
    Update { version: Version, value: String },
    Delete { version: Version },
}

impl Change {
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::Insert { .. } => "insert",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
        }
    }
}

/// A change that waits, and where its answer goes. Its caller may have gone.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: Key,
    pub(crate) change: Change,
    pub(crate) answer: oneshot::Sender<Result<Option<Version>>>,
}

/// What one change came to, inside a transaction that is not committed yet.
enum Outcome {
    Written(Version),
    Deleted,
    Unchanged,
    Refused(ErrorKind),
}

pub(crate) struct Writer {
    pub(crate) file: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) options: SqliteOptions,
    pub(crate) queue: Receiver<Write>,
}

impl Writer {
    /// Works until the store is dropped and the queue is empty.
    pub(crate) fn run(self, connection: Connection) {
        let mut connection = Some(connection);
        while let Ok(first) = self.queue.recv() {
            let usable = match connection.take() {
                Some(usable) => Ok(usable),
                None => connect(&self.file, &self.options),
            };
            match usable {
                Ok(usable) => {
                    self.commit_all(&usable, vec![first]);
                    // A connection that cannot even roll back is given up, and the next write opens another.
                    if usable.is_autocommit() || usable.execute_batch("ROLLBACK").is_ok() {
                        connection = Some(usable);
                    }
                }
                Err(error) => {
                    let _ = first.answer.send(Err(error));
                }
            }
        }
    }

    fn commit_all(&self, connection: &Connection, mut batch: Vec<Write>) {
        if let Err(error) = self.begin(connection) {
            let retry = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
            tracing::warn!(file = %self.file.display(), %error, retry, "cannot begin to write");
            for write in batch {
                let failure = self.failed(&write, clone_of(&error));
                let _ = write.answer.send(Err(failure));
            }
            return;
        }
        // Waiting for the lock took time: whatever gathered meanwhile comes along.
        while batch.len() < BATCH_MAX {
            match self.queue.try_recv() {
                Ok(write) => batch.push(write),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        // A caller that has gone cannot tell a write that was never done from one that was not done in time.
        batch.retain(|write| !write.answer.is_closed());

        match self.apply_all(connection, &batch) {
            Ok(outcomes) => self.finish(connection, batch, outcomes),
            Err(error) => {
                let _ = connection.execute_batch("ROLLBACK");
                if batch.len() == 1 {
                    for write in batch {
                        let failure = self.failed(&write, clone_of(&error));
                        let _ = write.answer.send(Err(failure));
                    }
                } else {
                    // One of them broke the transaction; alone, it breaks only its own.
                    for write in batch {
                        self.commit_one(connection, write);
                    }
                }
            }
        }
    }

    fn commit_one(&self, connection: &Connection, write: Write) {
        let applied = self.begin(connection).and_then(|()| self.apply_all(connection, std::slice::from_ref(&write)));
        match applied {
            Ok(outcomes) => self.finish(connection, vec![write], outcomes),
            Err(error) => {
                if !connection.is_autocommit() {
                    let _ = connection.execute_batch("ROLLBACK");
                }
                let failure = self.failed(&write, error);
                let _ = write.answer.send(Err(failure));
            }
        }
    }

    /// Takes the write lock, which other processes hold for short times.
    fn begin(&self, connection: &Connection) -> rusqlite::Result<()> {
        // SQLite's own wait backs off to a tenth of a second; asking anew keeps the delays short.
        connection.busy_timeout(Duration::from_millis(10))?;
        let until = Instant::now() + self.options.lock_wait;
        loop {
            match connection.execute_batch("BEGIN IMMEDIATE") {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until => {}
                begun => return begun,
            }
        }
    }

    fn apply_all(&self, connection: &Connection, batch: &[Write]) -> rusqlite::Result<Vec<Outcome>> {
        let mut sequence: i64 =
            connection.prepare_cached("SELECT last FROM sequence WHERE id = 1")?.query_row([], |row| row.get(0))?;
        let before = sequence;
        let mut outcomes = Vec::with_capacity(batch.len());
        for write in batch {
            outcomes.push(apply(connection, write, &mut sequence)?);
        }
        if sequence != before {
            connection.prepare_cached("UPDATE sequence SET last = ?1 WHERE id = 1")?.execute([sequence])?;
        }
        Ok(outcomes)
    }

    fn finish(&self, connection: &Connection, batch: Vec<Write>, outcomes: Vec<Outcome>) {
        if let Err(error) = self.still_ours(connection) {
            let _ = connection.execute_batch("ROLLBACK");
            for write in batch {
                let (operation, file) = (write.change.operation(), self.file.display());
                let detail = error.clone();
                let _ = write.answer.send(Err(Error::new(ErrorKind::Unavailable, operation, &write.key)
                    .with_detail(format!("{file} {detail}; restart this process"))));
            }
            return;
        }
        match connection.execute_batch("COMMIT") {
            Ok(()) => {
                for (write, outcome) in batch.into_iter().zip(outcomes) {
                    let answer = match outcome {
                        Outcome::Written(version) => Ok(Some(version)),
                        Outcome::Deleted | Outcome::Unchanged => Ok(None),
                        Outcome::Refused(kind) => Err(Error::new(kind, write.change.operation(), &write.key)),
                    };
                    let _ = write.answer.send(answer);
                }
            }
            Err(error) => {
                if !connection.is_autocommit() {
                    let _ = connection.execute_batch("ROLLBACK");
                }
                let in_doubt = commit_is_in_doubt(&error);
                tracing::error!(file = %self.file.display(), %error, in_doubt, "commit failed");
                for (write, outcome) in batch.into_iter().zip(outcomes) {
                    let would_change = matches!(outcome, Outcome::Written(_) | Outcome::Deleted);
                    let failure = if in_doubt && would_change {
                        Error::new(ErrorKind::UnknownOutcome, write.change.operation(), &write.key)
                            .with_detail(format!("{} failed while it was written", self.file.display()))
                            .with_source(clone_of(&error))
                    } else {
                        self.failed(&write, clone_of(&error))
                    };
                    let _ = write.answer.send(Err(failure));
                }
            }
        }
    }

    /// A write into a file that others do not see, or understand no more, would be lost.
    fn still_ours(&self, connection: &Connection) -> Result<(), String> {
        match Identity::of(&self.file) {
            Ok(identity) if identity == self.identity => {}
            Ok(_) => return Err("was replaced by another file".into()),
            Err(error) => return Err(format!("cannot be found any more ({error})")),
        }
        match schema_version(connection) {
            Ok(found) if found == newest(STEPS) => Ok(()),
            Ok(found) => Err(format!("was brought to schema {found} by a newer version")),
            Err(error) => Err(format!("does not tell its schema ({error})")),
        }
    }

    fn failed(&self, write: &Write, error: rusqlite::Error) -> Error {
        failed(write.change.operation(), &write.key, &self.file, error)
    }
}

/// An error tells many callers the same; it cannot be cloned itself.
fn clone_of(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => rusqlite::Error::SqliteFailure(*code, message.clone()),
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}

fn apply(connection: &Connection, write: &Write, sequence: &mut i64) -> rusqlite::Result<Outcome> {
    let Key { table, partition, row } = &write.key;
    let (table, next) = (table.as_str(), *sequence + 1);
    match &write.change {
        Change::Insert { value } => {
            let changed = connection
                .prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING")?
                .execute(params![table, partition, row, next, value])?;
            if changed == 0 {
                return Ok(Outcome::Refused(ErrorKind::AlreadyExists));
            }
        }
        Change::Update { version, value } => {
            let changed = connection
                .prepare_cached(
                    "UPDATE records SET version = ?4, value = ?5
                     WHERE collection = ?1 AND partition = ?2 AND row = ?3 AND version = ?6",
                )?
                .execute(params![table, partition, row, next, value, number_of(version)])?;
            if changed == 0 {
                let missing = if exists(connection, &write.key)? { ErrorKind::Conflict } else { ErrorKind::NotFound };
                return Ok(Outcome::Refused(missing));
            }
        }
        Change::Delete { version } => {
            let changed = connection
                .prepare_cached(
                    "DELETE FROM records WHERE collection = ?1 AND partition = ?2 AND row = ?3 AND version = ?4",
                )?
                .execute(params![table, partition, row, number_of(version)])?;
            return Ok(match changed {
                0 if exists(connection, &write.key)? => Outcome::Refused(ErrorKind::Conflict),
                0 => Outcome::Unchanged,
                _ => Outcome::Deleted,
            });
        }
    }
    *sequence = next;
    Ok(Outcome::Written(Version(next.to_string())))
}

/// The number of a version that this store gave. Any other text fits no record, all of which have numbers from 1.
fn number_of(version: &Version) -> i64 {
    version.0.parse().ok().filter(|number: &i64| number.to_string() == version.0).unwrap_or(-1)
}

fn exists(connection: &Connection, key: &Key) -> rusqlite::Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM records WHERE collection = ?1 AND partition = ?2 AND row = ?3")?
        .query_row(params![key.table.as_str(), key.partition, key.row], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}
