//! Wrappers over any state store: one counts and notes what is asked of it, the other makes it fail on demand.

use async_trait::async_trait;
use boxpool::{Cursor, Entry, Error, ErrorKind, Key, Page, Result, StateStore, Stored, Table, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreAccess {
    /// `StateStore::get`.
    Get,
    /// `StateStore::insert`.
    Insert,
    /// `StateStore::update`.
    Update,
    /// `StateStore::delete`.
    Delete,
    /// `StateStore::scan`.
    Scan,
}

impl StoreAccess {
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Scan => "scan",
        }
    }

    /// Whether it changes records.
    #[must_use]
    pub fn is_write(self) -> bool {
        match self {
            Self::Insert | Self::Update | Self::Delete => true,
            Self::Get | Self::Scan => false,
        }
    }
}

/// One call that reached a [`CountingStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreCall {
    /// What was asked.
    pub access: StoreAccess,
    /// Of which table.
    pub table: Table,
}

/// How often each thing was asked of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `get`.
    pub get: u64,
    /// Calls of `insert`.
    pub insert: u64,
    /// Calls of `update`.
    pub update: u64,
    /// Calls of `delete`.
    pub delete: u64,
    /// Calls of `scan`.
    pub scan: u64,
}

impl Counts {
    /// All durable writes asked for, lost races included.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.insert + self.update + self.delete
    }

    fn of(calls: &[StoreCall]) -> Self {
        let mut counts = Self::default();
        for call in calls {
            *match call.access {
                StoreAccess::Get => &mut counts.get,
                StoreAccess::Insert => &mut counts.insert,
                StoreAccess::Update => &mut counts.update,
                StoreAccess::Delete => &mut counts.delete,
                StoreAccess::Scan => &mut counts.scan,
            } += 1;
        }
        counts
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, counts| Self {
            get: sum.get + counts.get,
            insert: sum.insert + counts.insert,
            update: sum.update + counts.update,
            delete: sum.delete + counts.delete,
            scan: sum.scan + counts.scan,
        })
    }
}

/// A state store that notes every call and passes it on.
#[derive(Debug)]
pub struct CountingStore<S: ?Sized> {
    calls: Mutex<Vec<StoreCall>>,
    inner: Arc<S>,
}

impl<S: StateStore + ?Sized> CountingStore<S> {
    /// Counts what is asked of `inner` through this wrapper.
    #[must_use]
    pub fn new(inner: Arc<S>) -> Self {
        Self { calls: Mutex::default(), inner }
    }

    /// The store underneath, to look at records without being counted.
    #[must_use]
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// How often each thing was asked so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of(&self.calls())
    }

    /// A place in the list of calls, for [`CountingStore::counts_since`] and [`CountingStore::calls_since`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.calls().len()
    }

    /// How often each thing was asked since `mark`.
    #[must_use]
    pub fn counts_since(&self, mark: usize) -> Counts {
        Counts::of(self.calls().get(mark..).unwrap_or_default())
    }

    /// What was asked since `mark`, in order.
    #[must_use]
    pub fn calls_since(&self, mark: usize) -> Vec<StoreCall> {
        self.calls().get(mark..).unwrap_or_default().to_vec()
    }

    fn calls(&self) -> MutexGuard<'_, Vec<StoreCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, access: StoreAccess, table: Table) {
        self.calls().push(StoreCall { access, table });
    }
}

#[async_trait]
impl<S: StateStore + ?Sized> StateStore for CountingStore<S> {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.note(StoreAccess::Get, key.table);
        self.inner.get(key).await
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.note(StoreAccess::Insert, key.table);
        self.inner.insert(key, value).await
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.note(StoreAccess::Update, key.table);
        self.inner.update(key, version, value).await
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.note(StoreAccess::Delete, key.table);
        self.inner.delete(key, version).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        self.note(StoreAccess::Scan, table);
        self.inner.scan(table, partition, cursor, limit).await
    }
}

/// What happens to one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// It fails with this kind and changes nothing.
    Refuse(ErrorKind),
    /// It is done, and the caller is told `UnknownOutcome`.
    LoseAnswer,
    /// The call never returns, and the write is not done: what a process that dies before it leaves behind, once the
    /// caller's future is dropped.
    HangBefore,
    /// The write is done, and the call never returns: what a process that dies right after it leaves behind.
    HangAfter,
}

/// A state store that fails on demand.
#[derive(Debug)]
pub struct FaultStore<S: ?Sized> {
    script: Mutex<StoreScript>,
    inner: Arc<S>,
}

#[derive(Debug, Default)]
struct StoreScript {
    writes: u64,
    at: BTreeMap<u64, WriteFault>,
    outage: bool,
    tables_down: BTreeSet<Table>,
}

impl<S: StateStore + ?Sized> FaultStore<S> {
    /// A store that does what `inner` does until told otherwise.
    #[must_use]
    pub fn new(inner: Arc<S>) -> Self {
        Self { script: Mutex::default(), inner }
    }

    /// The store underneath, to look at records during an outage.
    #[must_use]
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// How many writes were asked for so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.script().writes
    }

    /// Has `fault` happen to the n-th write, counted from 1 over the whole life of this wrapper.
    pub fn fault_at(&self, write: u64, fault: WriteFault) {
        self.script().at.insert(write, fault);
    }

    /// Has `fault` happen to the n-th write from now; 1 is the next.
    pub fn fault_in(&self, write: u64, fault: WriteFault) {
        let mut script = self.script();
        let at = script.writes.saturating_add(write);
        script.at.insert(at, fault);
    }

    /// Takes back all faults and ends every outage.
    pub fn heal(&self) {
        let mut script = self.script();
        script.at.clear();
        script.tables_down.clear();
        script.outage = false;
    }

    /// While on, every call fails with `Unavailable` and changes nothing.
    pub fn outage(&self, on: bool) {
        self.script().outage = on;
    }

    /// The same for one table only.
    pub fn table_outage(&self, table: Table, on: bool) {
        let mut script = self.script();
        if on {
            script.tables_down.insert(table)
        } else {
            script.tables_down.remove(&table)
        };
    }

    fn script(&self) -> MutexGuard<'_, StoreScript> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call and looks up what is to happen to it.
    fn next(&self, access: StoreAccess, table: Table, resource: &str) -> Result<Option<WriteFault>> {
        let mut script = self.script();
        let mut fault = None;
        if access.is_write() {
            script.writes += 1;
            let number = script.writes;
            fault = script.at.remove(&number);
        }
        if script.outage || script.tables_down.contains(&table) {
            return Err(Error::new(ErrorKind::Unavailable, access.as_str(), resource)
                .with_detail("the store cannot be reached (simulated)"));
        }
        Ok(fault)
    }

    async fn write<T>(
        &self,
        access: StoreAccess,
        key: &Key,
        write: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let resource = key.to_string();
        match self.next(access, key.table, &resource)? {
            None => write.await,
            Some(WriteFault::Refuse(kind)) => {
                Err(Error::new(kind, access.as_str(), resource).with_detail(format!("{kind} (simulated)")))
            }
            Some(WriteFault::LoseAnswer) => {
                // Also when it was refused: the caller cannot know.
                let _ = write.await;
                Err(Error::new(ErrorKind::UnknownOutcome, access.as_str(), resource)
                    .with_detail("the answer was lost (simulated)"))
            }
            Some(WriteFault::HangBefore) => std::future::pending().await,
            Some(WriteFault::HangAfter) => {
                let _ = write.await;
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl<S: StateStore + ?Sized> StateStore for FaultStore<S> {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.next(StoreAccess::Get, key.table, &key.to_string())?;
        self.inner.get(key).await
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.write(StoreAccess::Insert, key, self.inner.insert(key, value)).await
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.write(StoreAccess::Update, key, self.inner.update(key, version, value)).await
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.write(StoreAccess::Delete, key, self.inner.delete(key, version)).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        self.next(StoreAccess::Scan, table, table.as_str())?;
        self.inner.scan(table, partition, cursor, limit).await
    }
}
