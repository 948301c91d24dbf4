//! The one thread that writes. It takes all writes that wait, does each in its own right (one that loses its
//! compare-and-swap does not undo the others), commits them together, and answers when the commit is on the disk.

use crate::failure::failure;
use boxpool::{Error, ErrorKind, Key, Result, Version};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::sync::mpsc::Receiver;
use tokio::sync::oneshot;

/// So many writes at most go into one commit: the first must not wait for the thousandth.
const GROUP: usize = 256;

pub(crate) enum Write {
    Insert { key: Key, value: String, answer: oneshot::Sender<Result<Version>> },
    Update { key: Key, version: Version, value: String, answer: oneshot::Sender<Result<Version>> },
    Delete { key: Key, version: Version, answer: oneshot::Sender<Result<()>> },
}

/// An answer that goes out when the commit is done.
enum Done {
    Wrote(oneshot::Sender<Result<Version>>, Result<Version>, Key),
    Deleted(oneshot::Sender<Result<()>>, Result<()>, Key),
}

pub(crate) fn run(mut connection: Connection, name: &str, writes: &Receiver<Write>) {
    while let Ok(first) = writes.recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = writes.try_recv()
        {
            group.push(next);
        }
        commit(&mut connection, name, group);
    }
}

fn commit(connection: &mut Connection, name: &str, group: Vec<Write>) {
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => return refuse_all(group, name, error),
    };
    let done: Vec<Done> = group.into_iter().map(|write| apply(&transaction, name, write)).collect();
    let committed = transaction.commit();
    for done in done {
        // What had failed by itself stays failed; what had been done shares the commit's fate. A caller that has gone away
        // does not hear of it.
        match (done, &committed) {
            (Done::Wrote(answer, outcome, _), Ok(())) => drop(answer.send(outcome)),
            (Done::Deleted(answer, outcome, _), Ok(())) => drop(answer.send(outcome)),
            (Done::Wrote(answer, outcome, key), Err(error)) => {
                drop(answer.send(outcome.and_then(|_| Err(not_committed(&key, error)))));
            }
            (Done::Deleted(answer, outcome, key), Err(error)) => {
                drop(answer.send(outcome.and_then(|()| Err(not_committed(&key, error)))));
            }
        }
    }
}

fn not_committed(key: &Key, error: &rusqlite::Error) -> Error {
    failure("write record", &key.to_string(), copy_of(error), true)
}

/// One error, told to several callers.
fn copy_of(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}

fn refuse_all(group: Vec<Write>, name: &str, error: rusqlite::Error) {
    let refusal = || failure("write record", name, copy_of(&error), false);
    for write in group {
        match write {
            Write::Insert { answer, .. } | Write::Update { answer, .. } => drop(answer.send(Err(refusal()))),
            Write::Delete { answer, .. } => drop(answer.send(Err(refusal()))),
        }
    }
}

fn apply(connection: &Connection, name: &str, write: Write) -> Done {
    match write {
        Write::Insert { key, value, answer } => {
            let outcome = insert(connection, name, &key, &value);
            Done::Wrote(answer, outcome, key)
        }
        Write::Update { key, version, value, answer } => {
            let outcome = update(connection, name, &key, &version, &value);
            Done::Wrote(answer, outcome, key)
        }
        Write::Delete { key, version, answer } => {
            let outcome = delete(connection, name, &key, &version);
            Done::Deleted(answer, outcome, key)
        }
    }
}

fn present(connection: &Connection, key: &Key) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT version FROM record WHERE kind = ?1 AND partition = ?2 AND row = ?3")?
        .query_row(params![key.table.as_str(), key.partition, key.row], |row| row.get(0))
        .optional()
}

fn next_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("UPDATE sequence SET next = next + 1 RETURNING next")?.query_row([], |row| row.get(0))
}

fn insert(connection: &Connection, name: &str, key: &Key, value: &str) -> Result<Version> {
    let broken = |error| failure("insert record", name, error, false);
    if present(connection, key).map_err(broken)?.is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, "insert record", key));
    }
    let put = || {
        let version = next_version(connection)?;
        connection
            .prepare_cached("INSERT INTO record (kind, partition, row, version, value) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![key.table.as_str(), key.partition, key.row, version, value])?;
        Ok(Version(version.to_string()))
    };
    put().map_err(broken)
}

fn update(connection: &Connection, name: &str, key: &Key, held: &Version, value: &str) -> Result<Version> {
    let broken = |error| failure("update record", name, error, false);
    match present(connection, key).map_err(broken)? {
        None => return Err(Error::new(ErrorKind::NotFound, "update record", key)),
        Some(version) if version.to_string() != held.0 => {
            return Err(Error::new(ErrorKind::Conflict, "update record", key));
        }
        Some(_) => {}
    }
    let put = || {
        let version = next_version(connection)?;
        connection
            .prepare_cached(
                "UPDATE record SET version = ?4, value = ?5 WHERE kind = ?1 AND partition = ?2 AND row = ?3",
            )?
            .execute(params![key.table.as_str(), key.partition, key.row, version, value])?;
        Ok(Version(version.to_string()))
    };
    put().map_err(broken)
}

fn delete(connection: &Connection, name: &str, key: &Key, held: &Version) -> Result<()> {
    let broken = |error| failure("delete record", name, error, false);
    match present(connection, key).map_err(broken)? {
        None => return Ok(()),
        Some(version) if version.to_string() != held.0 => {
            return Err(Error::new(ErrorKind::Conflict, "delete record", key));
        }
        Some(_) => {}
    }
    let remove = || {
        connection
            .prepare_cached("DELETE FROM record WHERE kind = ?1 AND partition = ?2 AND row = ?3")?
            .execute(params![key.table.as_str(), key.partition, key.row])
    };
    remove().map(drop).map_err(broken)
}
