use crate::failure::{cannot_open, failed};
use crate::open::{Identity, connect, prepare};
use crate::options::SqliteOptions;
use crate::reader::{Read, Reader, Scan};
use crate::schema::STEPS;
use crate::writer::{Change, Write, Writer};
use async_trait::async_trait;
use boxpool::{
    Cursor, Effect, Entry, Error, ErrorKind, Key, Page, Result, StateStore, Stored, Table, Version, check_record,
};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Enough that a long scan does not hold up short reads.
const READERS: usize = 2;

/// A [`StateStore`] in one SQLite file that several processes of one machine may share.
///
/// It runs three threads of its own, one that writes and two that read; dropping the store finishes what is queued and
/// joins them. The file must lie on a local file system.
#[derive(Debug)]
pub struct SqliteStore {
    file: PathBuf,
    // Taken when the store is dropped, which ends the threads.
    writes: Option<Sender<Write>>,
    reads: Option<Sender<Read>>,
    writer: Option<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens the store in `file` with the default options, making it if there is none. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// As [`SqliteOptions::open`].
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        SqliteOptions::new().open(file)
    }

    pub(crate) fn with_options(file: &Path, options: SqliteOptions) -> Result<Self> {
        // Absolute: the process may change its directory, and no name is then mistaken for a `file:` address.
        let file = std::path::absolute(file).map_err(|error| cannot_open(file, error))?;
        prepare(&file, &options, STEPS)?;
        let identity = Identity::of(&file).map_err(|error| cannot_open(&file, error))?;

        // All connections are made before any thread, so that whatever fails is told here.
        let connection = connect(&file, &options)?;
        let mut reading = Vec::new();
        for _ in 0..READERS {
            let connection = connect(&file, &options)?;
            Reader::configure(&connection, &options)
                .map_err(|error| failed("open store", file.display(), &file, error))?;
            reading.push(connection);
        }
        let (writes, write_queue) = channel();
        let (reads, read_queue): (Sender<Read>, Receiver<Read>) = channel();
        let mut store =
            Self { file: file.clone(), writes: Some(writes), reads: Some(reads), writer: None, readers: Vec::new() };

        let writer = Writer { file: file.clone(), identity, options, queue: write_queue };
        store.writer = Some(store.spawn("boxpool-sqlite-writer", move || writer.run(connection))?);
        let read_queue = Arc::new(Mutex::new(read_queue));
        for connection in reading {
            let reader = Reader { file: file.clone(), queue: read_queue.clone() };
            let thread = store.spawn("boxpool-sqlite-reader", move || reader.run(&connection))?;
            store.readers.push(thread);
        }
        Ok(store)
    }

    /// The file, as an absolute path.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
        std::thread::Builder::new().name(name.into()).spawn(work).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "open store", self.file.display())
                .with_detail("no thread can be started")
                .with_source(error)
        })
    }

    async fn write(&self, key: &Key, change: Change) -> Result<Option<Version>> {
        let operation = change.operation();
        let (answer, answered) = oneshot::channel();
        let gone = |effect| {
            Error::new(ErrorKind::Unavailable, operation, key)
                .with_detail("the thread that writes the store has ended; restart this process")
                .with_effect(effect)
        };
        let write = Write { key: key.clone(), change, answer };
        let sent = self.writes.as_ref().is_some_and(|writes| writes.send(write).is_ok());
        if !sent {
            return Err(gone(Effect::None));
        }
        answered.await.unwrap_or_else(|_| Err(gone(Effect::Unknown)))
    }

    async fn read<T>(
        &self,
        operation: &'static str,
        resource: &str,
        read: impl FnOnce(oneshot::Sender<Result<T>>) -> Read,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let sent = self.reads.as_ref().is_some_and(|reads| reads.send(read(answer)).is_ok());
        match answered.await {
            Ok(answer) if sent => answer,
            _ => Err(Error::new(ErrorKind::Unavailable, operation, resource)
                .with_detail("the threads that read the store have ended; restart this process")),
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // One after the other, the writer last: SQLite takes the log into the file when the last connection closes, and of
        // several that close at the same moment none may be the last.
        self.reads = None;
        for thread in self.readers.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
        self.writes = None;
        if let Some(thread) = self.writer.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl StateStore for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.read("get", &key.to_string(), |answer| Read::Get { key: key.clone(), answer }).await
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        check_record("insert", key, value)?;
        let written = self.write(key, Change::Insert { value: value.to_owned() }).await?;
        Ok(written.expect("a write that succeeded has a version"))
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        check_record("update", key, value)?;
        let written = self.write(key, Change::Update { version: version.clone(), value: value.to_owned() }).await?;
        Ok(written.expect("a write that succeeded has a version"))
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.write(key, Change::Delete { version: version.clone() }).await.map(drop)
    }

    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        let scan = Scan { table, partition: partition.map(str::to_owned), cursor: cursor.cloned(), limit };
        self.read("scan", table.as_str(), |answer| Read::Scan { scan, answer }).await
    }
}
