use crate::SqliteStore;
use boxpool::Result;
use std::path::Path;
use std::time::Duration;

/// How a store is opened. The defaults are right for almost everybody.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    pub(crate) fsync: bool,
    pub(crate) lock_wait: Duration,
    pub(crate) check: bool,
    pub(crate) bytes_max: Option<u64>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { fsync: true, lock_wait: Duration::from_secs(5), check: true, bytes_max: None }
    }
}

impl SqliteOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a write is on the disk before it is answered. On unless switched off, which is for data that may be lost:
    /// a crash of the machine may then even leave a damaged file.
    #[must_use]
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// How long a call waits for other processes that write before it fails with `Busy`. 5 seconds by default.
    #[must_use]
    pub fn lock_wait(mut self, limit: Duration) -> Self {
        self.lock_wait = limit;
        self
    }

    /// Whether the whole file is checked for damage when it is opened, which takes about a second for each gigabyte. On by
    /// default. Without it damage is found when it is met.
    #[must_use]
    pub fn check(mut self, on: bool) -> Self {
        self.check = on;
        self
    }

    /// The file does not grow beyond so many bytes: writes then fail with `NoCapacity`. The log beside it needs room of
    /// its own. Unlimited by default.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Opens the store in `file`, making it if there is none. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// - `Corrupt` when the file is damaged, another program's, or of a newer version. It is left untouched.
    /// - `NotFound` when its directory does not exist; `Unauthorized` when file or directory cannot be written.
    /// - `NoCapacity` when the disk is full; `Busy` when another process keeps it locked.
    pub fn open(&self, file: impl AsRef<Path>) -> Result<SqliteStore> {
        SqliteStore::with_options(file.as_ref(), self.clone())
    }
}
