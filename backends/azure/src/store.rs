//! The state store on Azure Tables.
//!
//! **Layout.** Each table of the pool is an Azure table, each partition of the store a partition of that table, each
//! record one row with two properties: the record's text and the mark of the write that put it there. The pool's own
//! partitions are small and many — a user's boxes, one instance, one volume, one node, one role — so the load on one
//! partition is that of one user or one machine, far from the 2,000 operations a second that the service aims at for a
//! partition, and the service may spread the partitions over as many servers as the account's 20,000 need. The one
//! partition that a whole pool writes to is the pool's own events, a few a minute. No salt is put before the keys: a scan
//! goes through all partitions in the order of their names, and the price is paid there, where pages end at the borders
//! of partition servers and may come empty; a scan follows them.
//!
//! **Writes** are sent once. When the answer is lost the row is read: our mark means that it happened; the version that
//! we knew means that it has not, and then the very same write is sent again, because of the two only one can win.
//! Anything else leaves the outcome open, and the caller is told so. If the process dies at any point the row holds the
//! write or does not; nothing else is kept.
//!
//! **Statuses, not codes**: the service's errors carry codes in shapes that depend on the request, and emulators differ.
//! 404 on an insert is a missing table, which is then made; 409 an existing row; 412 another version; 404 no row.

use crate::errors::{Act, Failure};
use crate::key;
use crate::options::TablesOptions;
use crate::retry::{pause, reading};
use crate::sdk::tables::{Row, Tables, Token};
use crate::transport::Transport;
use async_trait::async_trait;
use boxpool::{
    Cursor, Effect, Entry, Error, ErrorKind, Key, Page, Result, StateStore, Stored, Table, Version, check_record,
};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The service returns no more rows at once.
const MAX_PAGE: usize = 1_000;
/// How often a write is sent whose answers are lost.
const WRITE_TRIES: u32 = 4;
/// A [`StateStore`] in the tables of an Azure storage account, shared by any number of processes.
///
/// One store belongs to one runtime: its connections do.
pub struct TableStore {
    tables: Tables,
    prefix: String,
    /// Begins every mark: no two stores share it.
    writer: String,
    writes: AtomicU64,
}

impl fmt::Debug for TableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl TableStore {
    /// A store with these options. Asks the network for nothing yet; tables are made when they are first written to.
    ///
    /// # Errors
    /// `Invalid` says which option breaks which rule; `Unauthorized` that no credential can be made.
    pub fn open(options: &TablesOptions) -> Result<Self> {
        let transport = Transport::to(&options.endpoint, options.proxy, None)?;
        Self::with_transport(options, &transport)
    }

    /// The same, with a limit on each request other than half a minute.
    ///
    /// # Errors
    /// As [`TableStore::open`].
    pub fn open_with_limit(options: &TablesOptions, request_limit: Duration) -> Result<Self> {
        let transport = Transport::to(&options.endpoint, options.proxy, Some(request_limit))?;
        Self::with_transport(options, &transport)
    }

    fn with_transport(options: &TablesOptions, transport: &Transport) -> Result<Self> {
        options.check()?;
        let mut random = [0_u8; 9];
        getrandom::fill(&mut random).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "open store", &options.account)
                .with_detail("this machine gives no random numbers")
                .with_source(error)
        })?;
        let writer = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, random);
        let tables = Tables::open(&options.account, &options.endpoint, &options.access, transport)?;
        Ok(Self { tables, prefix: options.prefix.clone(), writer, writes: AtomicU64::new(0) })
    }

    /// Makes the tables that are missing, so that no first write has to. May be called by many at once.
    ///
    /// # Errors
    /// `Unauthorized`, `Unavailable`, `Throttled`.
    pub async fn make_tables(&self, tables: &[Table]) -> Result<()> {
        for table in tables {
            let name = self.name(*table);
            self.make_table(&name).await.map_err(|failure| Act::write("make table", &name).failed(failure))?;
        }
        Ok(())
    }

    async fn make_table(&self, name: &str) -> Result<(), Failure> {
        match reading(|| self.tables.create(name)).await {
            // "Exists", or "is being deleted": whoever writes next sees the latter as a missing table.
            Err(failure) if failure.status() == Some(409) => Ok(()),
            answer => answer,
        }
    }

    /// Which of these tables are not there yet; changes nothing.
    ///
    /// # Errors
    /// `Unauthorized`, `Unavailable`, `Throttled`.
    pub async fn missing_tables(&self, tables: &[Table]) -> Result<Vec<Table>> {
        let mut missing = Vec::new();
        for table in tables {
            let name = self.name(*table);
            match reading(|| self.tables.page(&name, None, None, 1)).await {
                Ok(_) => {}
                Err(failure) if failure.status() == Some(404) => missing.push(*table),
                Err(failure) => return Err(Act::read("look for table", &name).failed(failure)),
            }
        }
        Ok(missing)
    }

    /// Deletes tables **with all that is in them**; those that are missing are no error, so it may be called again. The service may refuse to
    /// make a table of the same name for a minute.
    ///
    /// # Errors
    /// `Unauthorized`, `Unavailable`, `Throttled`.
    pub async fn drop_tables(&self, tables: &[Table]) -> Result<()> {
        for table in tables {
            let name = self.name(*table);
            // Not there, so an attempt that lost its answer may be repeated as a read is.
            match reading(|| self.tables.drop(&name)).await {
                Err(failure) if failure.status() == Some(404) => {}
                answer => answer.map_err(|failure| Act::write("drop table", &name).failed(failure))?,
            }
        }
        Ok(())
    }

    fn name(&self, table: Table) -> String {
        format!("{}{}", self.prefix, table.as_str())
    }

    /// A mark that no other write has.
    fn mark(&self) -> String {
        format!("{}.{}", self.writer, self.writes.fetch_add(1, Ordering::Relaxed))
    }

    async fn read(&self, place: &Place) -> Result<Option<Row>, Failure> {
        match reading(|| self.tables.get(&place.table, &place.partition, &place.row)).await {
            Ok(row) => Ok(Some(row)),
            Err(failure) if failure.status() == Some(404) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn place(&self, key: &Key) -> Option<Place> {
        let fits = |part: &str| !part.is_empty() && part.len() <= boxpool::MAX_KEY_PART_BYTES;
        if !fits(&key.partition) || !fits(&key.row) {
            return None;
        }
        let (partition, row) = (key::encode(&key.partition)?, key::encode(&key.row)?);
        Some(Place { table: self.name(key.table), partition, row })
    }
}

/// Where a record lives in the account.
struct Place {
    table: String,
    partition: String,
    row: String,
}

/// A version is the mark of the write and the service's ETag. The ETag alone would do for compare-and-swap; with the mark
/// no two versions are ever equal, not even those of two rows that were written in the same instant.
fn version_of(mark: &str, etag: &str) -> Version {
    Version(format!("{mark} {etag}"))
}

/// The ETag in a version; `None` when this store never gave it.
fn etag_of(version: &Version) -> Option<&str> {
    let (_, etag) = version.0.split_once(' ')?;
    etag.starts_with("W/\"").then_some(etag)
}

/// What a look at the row says of a write whose answer was lost.
enum Found {
    Ours(Version),
    /// As it was before: it may be sent again.
    Untouched,
    /// Somebody else's, or gone: ours may have happened before that.
    Other,
}

impl TableStore {
    /// Looks whether a write in doubt has happened. `before` is the ETag it was to replace, `None` for an insert.
    async fn look(&self, place: &Place, mark: &str, before: Option<&str>) -> Result<Found, Failure> {
        Ok(match self.read(place).await? {
            Some(row) if row.mark == mark => Found::Ours(version_of(mark, &row.etag)),
            Some(row) if before == Some(row.etag.as_str()) => Found::Untouched,
            None if before.is_none() => Found::Untouched,
            Some(_) | None => Found::Other,
        })
    }

    /// Sends a write until its outcome is known. `settled` says what a refusal by status means when no earlier try is open.
    async fn write<F: Future<Output = Result<String, Failure>>>(
        &self,
        act: Act<'_>,
        place: &Place,
        mark: &str,
        before: Option<&str>,
        send: impl Fn() -> F,
        settled: impl Fn(&Failure) -> Option<ErrorKind>,
    ) -> Result<Version> {
        let mut in_doubt = false;
        let mut tries = 0;
        loop {
            let failure = match send().await {
                Ok(etag) => return Ok(version_of(mark, &etag)),
                Err(failure) => failure,
            };
            match settled(&failure) {
                Some(kind) if !in_doubt => return Err(Error::new(kind, act.operation, act.resource)),
                // Our own earlier try may be what refuses this one.
                Some(_) => {}
                None if failure.is_in_doubt() => in_doubt = true,
                // Surely nothing happened this time, but an earlier try is still open.
                None if in_doubt => {}
                None => return Err(act.failed(failure)),
            }
            tries += 1;
            let unknown =
                |why: String| Error::new(ErrorKind::UnknownOutcome, act.operation, act.resource).with_detail(why);
            match self.look(place, mark, before).await {
                Ok(Found::Ours(version)) => return Ok(version),
                // An insert is sent once: the record might be used and deleted before this one arrives after all.
                Ok(Found::Untouched) if before.is_none() => {
                    return Err(unknown(format!("{failure}; the record is not there, and may come to be")));
                }
                Ok(Found::Untouched) if tries < WRITE_TRIES => tokio::time::sleep(pause(tries)).await,
                Ok(Found::Untouched) => return Err(unknown(format!("{failure}; tried {tries} times"))),
                Ok(Found::Other) => {
                    return Err(unknown("the answer was lost, and the record has changed since; read it".into()));
                }
                Err(also) => return Err(unknown(format!("{failure}; and the record cannot be read: {also}"))),
            }
        }
    }
}

#[async_trait]
impl StateStore for TableStore {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        // What no record can have for a key, no record has.
        let Some(place) = self.place(key) else { return Ok(None) };
        let row = self.read(&place).await.map_err(|failure| Act::read("get", &key.to_string()).failed(failure))?;
        Ok(row.map(|row| Stored { version: version_of(&row.mark, &row.etag), value: row.value }))
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        check_record("insert", key, value)?;
        let place = self.place(key).ok_or_else(|| impossible_key("insert", key))?;
        let (resource, mark) = (key.to_string(), self.mark());
        let act = Act::write("insert", &resource);
        let row = place.holding(value, &mark);
        let send = || async {
            match self.tables.insert(&place.table, &row).await {
                Err(failure) if failure.status() == Some(404) => {
                    self.make_table(&place.table).await?;
                    self.tables.insert(&place.table, &row).await
                }
                answer => answer,
            }
        };
        let settled = |failure: &Failure| (failure.status() == Some(409)).then_some(ErrorKind::AlreadyExists);
        self.write(act, &place, &mark, None, send, settled).await
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        check_record("update", key, value)?;
        let place = self.place(key).ok_or_else(|| impossible_key("update", key))?;
        let (resource, mark) = (key.to_string(), self.mark());
        let act = Act::write("update", &resource);
        let Some(etag) = etag_of(version) else {
            let found = self.read(&place).await.map_err(|failure| Act::read("update", &resource).failed(failure))?;
            let kind = if found.is_some() { ErrorKind::Conflict } else { ErrorKind::NotFound };
            return Err(Error::new(kind, "update", key));
        };
        let row = place.holding(value, &mark);
        let send = || self.tables.update(&place.table, &row, etag);
        let settled = |failure: &Failure| match failure.status() {
            Some(412) => Some(ErrorKind::Conflict),
            Some(404) => Some(ErrorKind::NotFound),
            _ => None,
        };
        self.write(act, &place, &mark, Some(etag), send, settled).await
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        let Some(place) = self.place(key) else { return Ok(()) };
        let resource = key.to_string();
        let act = Act::write("delete", &resource);
        let conflict = |effect| Error::new(ErrorKind::Conflict, "delete", key).with_effect(effect);
        let mut in_doubt = false;
        for tries in 1..=WRITE_TRIES {
            let failure = match etag_of(version) {
                Some(etag) => match self.tables.delete(&place.table, &place.partition, &place.row, etag).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => Some(failure),
                },
                None => None,
            };
            match failure.as_ref().and_then(Failure::status) {
                Some(404) => return Ok(()),
                Some(412) if !in_doubt => return Err(conflict(Effect::None)),
                _ => {}
            }
            in_doubt |= failure.as_ref().is_some_and(Failure::is_in_doubt);
            let found = self.read(&place).await.map_err(|failure| act.failed(failure).with_effect(doubt(in_doubt)))?;
            match found {
                None => return Ok(()),
                Some(row) if etag_of(version) != Some(row.etag.as_str()) => return Err(conflict(doubt(in_doubt))),
                Some(_) => {}
            }
            match failure {
                Some(failure) if failure.is_in_doubt() && tries < WRITE_TRIES => {
                    tokio::time::sleep(pause(tries)).await;
                }
                Some(failure) => return Err(act.failed(failure).with_effect(doubt(in_doubt))),
                None => return Err(conflict(Effect::None)),
            }
        }
        Err(Error::new(ErrorKind::UnknownOutcome, "delete", key))
    }

    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        let empty = Page { items: Vec::new(), next: None };
        let encoded = match partition {
            Some(partition) => match key::encode(partition) {
                Some(encoded) => Some(encoded),
                None => return Ok(empty),
            },
            None => None,
        };
        let bad_cursor = |_| {
            Error::new(ErrorKind::Invalid, "scan", table.as_str())
                .with_detail("the cursor is not from a page of this scan")
        };
        let from: Option<Token> =
            cursor.map(|cursor| serde_json::from_str(&cursor.0)).transpose().map_err(bad_cursor)?;
        let name = self.name(table);
        let page = reading(|| self.tables.page(&name, encoded.as_deref(), from.as_ref(), limit.clamp(1, MAX_PAGE)));
        let (rows, next) = match page.await {
            Ok(page) => page,
            // Nobody has written to it yet.
            Err(failure) if failure.status() == Some(404) => return Ok(empty),
            Err(failure) => return Err(Act::read("scan", table.as_str()).failed(failure)),
        };
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let (Some(partition), Some(text)) = (key::decode(&row.partition), key::decode(&row.row)) else {
                let place = format!("{name}/{}/{}", row.partition.escape_debug(), row.row.escape_debug());
                return Err(Error::new(ErrorKind::Corrupt, "scan", place)
                    .with_detail("a row has a key that this store never writes; remove it if it is not the pool's"));
            };
            let stored = Stored { version: version_of(&row.mark, &row.etag), value: row.value };
            items.push(Entry { key: Key { table, partition, row: text }, stored });
        }
        let next = match next {
            Some(token) => {
                let text = serde_json::to_string(&token)
                    .map_err(|error| Error::new(ErrorKind::Permanent, "scan", table.as_str()).with_source(error))?;
                Some(Cursor(text))
            }
            None => None,
        };
        Ok(Page { items, next })
    }
}

fn doubt(in_doubt: bool) -> Effect {
    if in_doubt { Effect::Unknown } else { Effect::None }
}

fn impossible_key(operation: &'static str, key: &Key) -> Error {
    Error::new(ErrorKind::Invalid, operation, key).with_detail("the key holds a character that no key may hold")
}

impl Place {
    fn holding(&self, value: &str, mark: &str) -> Row {
        Row {
            partition: self.partition.clone(),
            row: self.row.clone(),
            value: value.to_owned(),
            mark: mark.to_owned(),
            etag: String::new(),
        }
    }
}
