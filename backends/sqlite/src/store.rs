//! The store: two threads and their mailboxes.

use crate::failure::failure;
use crate::reader::{self, Read};
use crate::schema;
use crate::writer::{self, Write};
use async_trait::async_trait;
use boxpool::{
    Cursor, Effect, Entry, Error, ErrorKind, Key, Page, Result, StateStore, Stored, Table, Version, check_record,
};
use rusqlite::{Connection, OpenFlags};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// How the file is used.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// Whether a write is answered only when it is on the disk. `false` is for measurements: after a power cut the last writes may be gone.
    pub durable: bool,
    /// How long a write waits for another process.
    pub busy_limit: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { durable: true, busy_limit: Duration::from_secs(5) }
    }
}

/// A [`StateStore`] in one SQLite file.
///
/// Several stores, in one process or many, may share the file. Dropping the store finishes the writes that were asked for.
pub struct SqliteStore {
    path: PathBuf,
    // Taken apart in `drop`: a thread ends when its mailbox closes.
    writes: Option<Sender<Write>>,
    reads: Option<Sender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens the file, or makes it (mode 0600), and brings it to the newest schema.
    ///
    /// # Errors
    /// `Corrupt` when it is damaged, foreign or newer: it is left untouched, byte for byte. `Unauthorized` when it cannot be written or its
    /// directory does not exist.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, SqliteOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(path, &options)).await;
        opened.unwrap_or_else(|panic| {
            Err(Error::new(ErrorKind::Permanent, "open state file", "store").with_source(panic))
        })
    }

    fn open_blocking(path: PathBuf, options: &SqliteOptions) -> Result<Self> {
        let name = path.display().to_string();
        schema::inspect(&path)?;
        make_private(&path)?;
        let mut connection = connect(&path, options)?;
        schema::migrate(&mut connection, &name)?;
        let reading = connect(&path, options)?;
        let (writes, incoming_writes) = mpsc::channel();
        let (reads, incoming_reads) = mpsc::channel();
        let (write_name, read_name) = (name.clone(), name.clone());
        let spawn = |what: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(what.to_owned())
                .spawn(body)
                .map_err(|error| Error::new(ErrorKind::Unavailable, "open state file", &name).with_source(error))
        };
        let writer = spawn("boxpool-writer", Box::new(move || writer::run(connection, &write_name, &incoming_writes)))?;
        let reader = spawn("boxpool-reader", Box::new(move || reader::run(&reading, &read_name, &incoming_reads)))?;
        Ok(Self { path, writes: Some(writes), reads: Some(reads), threads: vec![writer, reader] })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn ask_writer(&self, write: Write) {
        if let Some(writes) = &self.writes {
            // A closed mailbox is seen by the caller: its answer never comes.
            let _ = writes.send(write);
        }
    }

    fn ask_reader(&self, read: Read) {
        if let Some(reads) = &self.reads {
            let _ = reads.send(read);
        }
    }
}

/// The file is made by us before SQLite sees it, so that nobody else can read it at any moment.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| {
        let detail = match error.kind() {
            std::io::ErrorKind::NotFound => "its directory does not exist; make it".to_owned(),
            std::io::ErrorKind::StorageFull => "the disk is full; make room there".to_owned(),
            _ => format!("it cannot be written ({error}); make it and its directory writable for this user"),
        };
        Error::new(ErrorKind::Unauthorized, "open state file", path.display()).with_detail(detail).with_source(error)
    })
}

fn connect(path: &Path, options: &SqliteOptions) -> Result<Connection> {
    let name = path.display().to_string();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(options.busy_limit)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", if options.durable { "FULL" } else { "OFF" })?;
        Ok(connection)
    };
    open().map_err(|error| failure("open state file", &name, error, false))
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.writes = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            // A panic in there has been printed; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Waits for a thread's answer. None comes when the thread is gone; then a write may or may not have been done.
async fn answered<T>(operation: &'static str, key: &Key, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    answer.await.unwrap_or_else(|_| {
        let error = Error::new(ErrorKind::Unavailable, operation, key).with_detail("the store has stopped");
        Err(error.with_effect(Effect::Unknown))
    })
}

#[async_trait]
impl StateStore for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        let (answer, receiver) = oneshot::channel();
        self.ask_reader(Read::Get { key: key.clone(), answer });
        answered("read record", key, receiver).await
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        check_record("insert record", key, value)?;
        let (answer, receiver) = oneshot::channel();
        self.ask_writer(Write::Insert { key: key.clone(), value: value.to_owned(), answer });
        answered("insert record", key, receiver).await
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        check_record("update record", key, value)?;
        let (answer, receiver) = oneshot::channel();
        let (key_, version) = (key.clone(), version.clone());
        self.ask_writer(Write::Update { key: key_, version, value: value.to_owned(), answer });
        answered("update record", key, receiver).await
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        let (answer, receiver) = oneshot::channel();
        self.ask_writer(Write::Delete { key: key.clone(), version: version.clone(), answer });
        answered("delete record", key, receiver).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        let (answer, receiver) = oneshot::channel();
        let (partition, cursor) = (partition.map(str::to_owned), cursor.cloned());
        self.ask_reader(Read::Scan { table, partition, cursor, limit, answer });
        answered("scan table", &Key::new(table, "*", "*"), receiver).await
    }
}
