use super::fault::Operation;
use super::world::{Scene, SimWorld, State};
use crate::engine::Caller;
use async_trait::async_trait;
use boxpool::record::{BOXES, EVENTS, GoldenState, INSTANCES, Placement, VOLUMES};
use boxpool::{Cursor, Entry, Error, ErrorKind, Key, Page, Result, StateStore, Stored, Table, Version};
use futures::FutureExt;
use std::sync::Arc;

/// A simulated state store: atomic for one record and never stale, as the trait promises, but slow, lossy and sometimes
/// away.
#[derive(Debug, Clone)]
pub struct SimStore {
    world: Arc<SimWorld>,
    caller: Option<Caller>,
}

impl SimStore {
    /// The records of `world`.
    #[must_use]
    pub fn new(world: Arc<SimWorld>) -> Self {
        Self { world, caller: None }
    }

    pub(crate) fn of(world: Arc<SimWorld>, caller: Caller) -> Self {
        Self { world, caller: Some(caller) }
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        key: &Key,
        effect: impl Fn(&mut Scene<'_>) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let resource = format!("{}/{}", key.table.as_str(), key.row);
        // What the record is for, in words that do not change when something else is left out of a history.
        let role = if key.table == BOXES {
            Some(format!("{}/{}", key.partition, key.row))
        } else if key.table == VOLUMES {
            None
        } else if key.table == INSTANCES {
            Some(key.row.clone())
        } else {
            Some(key.table.as_str().to_owned())
        };
        self.world.call_as(self.caller, operation, resource, role, effect).await
    }

    /// For readers of the trace: what a write said. And for the engine: whose a volume is.
    fn remark(&self, key: &Key, value: &str) {
        let (Some(engine), Some(caller)) = (self.world.engine(), self.caller) else { return };
        engine.writes(value);
        if key.table == BOXES
            && let Some(volume) = volume_named_in(value)
        {
            engine.set_role(volume, &format!("{}/{}", key.partition, key.row));
        }
        engine.remark(Some(caller.gateway), || summary(key, value));
    }
}

/// The volume that a box's record names. Read without taking the whole record apart: this is done for every write.
fn volume_named_in(record: &str) -> Option<&str> {
    const BEFORE: &str = "\"volume\":\"";
    let rest = &record[record.find(BEFORE)? + BEFORE.len()..];
    rest.split('"').next()
}

/// The part of a record that tells what is going on.
fn summary(key: &Key, value: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(value).unwrap_or_default();
    let part = |name: &str| record.get(name).map(ToString::to_string).unwrap_or_default();
    let told = if key.table == BOXES {
        format!("epoch {} {} {} held by {}", part("epoch"), part("placement"), part("volume"), part("holders"))
    } else if key.table == EVENTS {
        format!("{} {} {} {}", part("kind"), part("owner"), part("instance"), part("detail"))
    } else {
        part("status")
    };
    format!("asks to write {}/{}: {told}", key.table.as_str(), key.row)
}

/// The store underneath never waits.
fn at_once<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    answer.now_or_never().unwrap_or_else(|| {
        Err(Error::new(ErrorKind::Permanent, "call store", "records").with_detail("the store underneath waited"))
    })
}

impl State {
    /// A golden snapshot of an older edition, as another version of the program left it.
    pub(crate) fn leave_golden(&mut self, generation: &str, snapshot: &boxpool::SnapshotId) {
        let key = Key::new(boxpool::record::GOLDENS, "golden", generation);
        let record = boxpool::record::GoldenRecord {
            generation: generation.to_owned(),
            state: GoldenState::Ready { snapshot: snapshot.clone() },
            build: 1,
            created_at: boxpool::Timestamp(0),
            envelope: boxpool::record::Envelope::new(),
        };
        if let Ok(text) = serde_json::to_string(&record)
            && at_once(self.store.clone().insert(&key, &text)).is_ok()
        {
            self.wrote(&key, Some(&text));
        }
    }

    /// No box is there for its owner in two regions.
    fn look_elsewhere(&mut self, key: &Key, others: &[Arc<SimWorld>]) {
        if key.table != BOXES || others.is_empty() {
            return;
        }
        let Some(owner) = self.oracle.books.boxes.get(key).map(|record| record.owner.clone()) else { return };
        if self.box_of(&owner.id).is_some() && others.iter().any(|other| other.state().box_of(&owner.id).is_some()) {
            self.violate(format!("I3: {owner} is there in two regions"));
        }
    }

    fn wrote(&mut self, key: &Key, value: Option<&str>) {
        let before = self.oracle.books.boxes.get(key).map(|record| record.placement.word());
        for wrong in self.oracle.wrote(key, value, self.now) {
            self.violate(wrong);
        }
        if let Some(record) = self.oracle.books.goldens.get(key)
            && let GoldenState::Ready { snapshot } = &record.state
            && !self.has_ready_snapshot(snapshot)
        {
            let wrong = format!("contract: golden snapshot {snapshot} is said to be ready and is not");
            self.violate(wrong);
        }
        // A box that is said to rest does.
        let Some(record) = self.oracle.books.boxes.get(key) else { return };
        let rests = matches!(record.placement, Placement::Parked { .. } | Placement::Detached);
        if rests
            && before != Some(record.placement.word())
            && self.guests.values().any(|guest| guest.owner.id == record.owner.id)
        {
            self.violate(format!("I1: {} is {} and its guest runs", record.owner, record.placement.word()));
        }
    }
}

#[async_trait]
impl StateStore for SimStore {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        let wanted = key.clone();
        let effect = move |scene: &mut Scene<'_>| at_once(scene.state.store.clone().get(&wanted));
        self.call(Operation::StoreGet, key, effect).await
    }

    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.remark(key, value);
        let (wanted, value, others) = (key.clone(), value.to_owned(), self.world.others());
        let effect = move |scene: &mut Scene<'_>| {
            let version = at_once(scene.state.store.clone().insert(&wanted, &value))?;
            scene.state.wrote(&wanted, Some(&value));
            scene.state.look_elsewhere(&wanted, &others);
            Ok(version)
        };
        self.call(Operation::StoreInsert, key, effect).await
    }

    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.remark(key, value);
        let (wanted, version, value) = (key.clone(), version.clone(), value.to_owned());
        let others = self.world.others();
        let effect = move |scene: &mut Scene<'_>| {
            let version = at_once(scene.state.store.clone().update(&wanted, &version, &value))?;
            scene.state.wrote(&wanted, Some(&value));
            scene.state.look_elsewhere(&wanted, &others);
            Ok(version)
        };
        self.call(Operation::StoreUpdate, key, effect).await
    }

    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        let (wanted, version) = (key.clone(), version.clone());
        let effect = move |scene: &mut Scene<'_>| {
            at_once(scene.state.store.clone().delete(&wanted, &version))?;
            scene.state.wrote(&wanted, None);
            Ok(())
        };
        self.call(Operation::StoreDelete, key, effect).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        let (of, after) = (partition.map(str::to_owned), cursor.cloned());
        let effect = move |scene: &mut Scene<'_>| {
            // Small pages, so that things change between them.
            let limit = limit.min(scene.state.limits.page_size);
            at_once(scene.state.store.clone().scan(table, of.as_deref(), after.as_ref(), limit))
        };
        let key = Key::new(table, partition.unwrap_or("*"), "*");
        let role = Some(table.as_str().to_owned());
        self.world.call_as(self.caller, Operation::StoreScan, key.to_string(), role, effect).await
    }
}
