//! What goes wrong, and when: a script of faults keyed by operation and n-th call, and how long each operation takes.
//!
//! A script names calls by their number, never by time or chance, so that the same test meets the same fault. This is
//! for tests of one call; whole histories are told by [`Fate`](crate::Fate) and [`Faults`](crate::Faults).

use boxpool::ErrorKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// An operation of a store, a provider or a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `StateStore::get`.
    StoreGet,
    /// `StateStore::insert`.
    StoreInsert,
    /// `StateStore::update`.
    StoreUpdate,
    /// `StateStore::delete`.
    StoreDelete,
    /// `StateStore::scan`.
    StoreScan,
    /// `InstanceProvider::ensure`.
    InstanceEnsure,
    /// `InstanceProvider::get`.
    InstanceGet,
    /// `InstanceProvider::list`.
    InstanceList,
    /// `InstanceProvider::start`.
    InstanceStart,
    /// `InstanceProvider::stop`.
    InstanceStop,
    /// `InstanceProvider::delete`.
    InstanceDelete,
    /// `VolumeProvider::ensure`.
    VolumeEnsure,
    /// `VolumeProvider::get`.
    VolumeGet,
    /// `VolumeProvider::list`.
    VolumeList,
    /// `VolumeProvider::attach`.
    Attach,
    /// `VolumeProvider::detach`.
    Detach,
    /// `VolumeProvider::force_detach`.
    ForceDetach,
    /// `VolumeProvider::snapshot`.
    Snapshot,
    /// `VolumeProvider::list_snapshots`.
    SnapshotList,
    /// `VolumeProvider::delete_snapshot`.
    SnapshotDelete,
    /// `VolumeProvider::delete`.
    VolumeDelete,
    /// `VolumeProvider::resize`.
    VolumeResize,
    /// `GuestRuntime::start`.
    GuestStart,
    /// `GuestRuntime::suspend`.
    GuestSuspend,
    /// `GuestRuntime::stop`.
    GuestStop,
    /// `GuestRuntime::status`.
    GuestStatus,
    /// `GuestRuntime::clear`.
    Clear,
    /// `GuestRuntime::shut_down`.
    GuestShutDown,
    /// `SnapshotCopier::copy_snapshot`.
    SnapshotCopy,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Operation; 29] = [
        Self::StoreGet,
        Self::StoreInsert,
        Self::StoreUpdate,
        Self::StoreDelete,
        Self::StoreScan,
        Self::InstanceEnsure,
        Self::InstanceGet,
        Self::InstanceList,
        Self::InstanceStart,
        Self::InstanceStop,
        Self::InstanceDelete,
        Self::VolumeEnsure,
        Self::VolumeGet,
        Self::VolumeList,
        Self::Attach,
        Self::Detach,
        Self::ForceDetach,
        Self::Snapshot,
        Self::SnapshotList,
        Self::SnapshotDelete,
        Self::VolumeDelete,
        Self::VolumeResize,
        Self::GuestStart,
        Self::GuestSuspend,
        Self::GuestStop,
        Self::GuestStatus,
        Self::Clear,
        Self::GuestShutDown,
        Self::SnapshotCopy,
    ];

    /// Whether it is asked of the state store.
    #[must_use]
    pub fn is_store(self) -> bool {
        matches!(self, Self::StoreGet | Self::StoreInsert | Self::StoreUpdate | Self::StoreDelete | Self::StoreScan)
    }

    /// Whether it only looks.
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(
            self,
            Self::StoreGet
                | Self::StoreScan
                | Self::InstanceGet
                | Self::InstanceList
                | Self::VolumeGet
                | Self::VolumeList
                | Self::SnapshotList
                | Self::GuestStatus
        )
    }

    /// Whether it lists and may therefore lag behind.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Self::InstanceList | Self::VolumeList | Self::SnapshotList)
    }

    /// Whether its backend must not send it again on its own, since nobody could tell the second one from a new one: the insert of
    /// a record, and the stop of a machine.
    #[must_use]
    pub fn is_sent_once(self) -> bool {
        matches!(self, Self::StoreInsert | Self::InstanceStop)
    }

    /// The operation as a verb phrase, as it stands in errors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StoreGet => "read record",
            Self::StoreInsert => "insert record",
            Self::StoreUpdate => "update record",
            Self::StoreDelete => "delete record",
            Self::StoreScan => "scan table",
            Self::InstanceEnsure => "ensure instance",
            Self::InstanceGet => "get instance",
            Self::InstanceList => "list instances",
            Self::InstanceStart => "start instance",
            Self::InstanceStop => "stop instance",
            Self::InstanceDelete => "delete instance",
            Self::VolumeEnsure => "ensure volume",
            Self::VolumeGet => "get volume",
            Self::VolumeList => "list volumes",
            Self::Attach => "attach volume",
            Self::Detach => "detach volume",
            Self::ForceDetach => "force-detach volume",
            Self::Snapshot => "snapshot volume",
            Self::SnapshotList => "list snapshots",
            Self::SnapshotDelete => "delete snapshot",
            Self::SnapshotCopy => "copy snapshot",
            Self::VolumeDelete => "delete volume",
            Self::VolumeResize => "resize volume",
            Self::GuestStart => "start guest",
            Self::GuestSuspend => "suspend guest",
            Self::GuestStop => "stop guest",
            Self::GuestStatus => "ask guest",
            Self::Clear => "clear instance",
            Self::GuestShutDown => "shut guest down",
        }
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this kind and has no effect.
    Refuse(ErrorKind),
    /// The call has its effect, and the caller is told `UnknownOutcome`.
    LoseAnswer,
    /// Nothing happens for so long; then the call goes on as usual.
    HangBefore(Duration),
    /// The call has its effect, and its answer comes so much later.
    HangAfter(Duration),
    /// What the call begins is not done at once: the next so many looks at it find it under way. An attach or detach
    /// with `Pending(2)` answers `Pending` twice more after this call.
    Pending(u32),
}

/// Faults, latencies and call counts of one world.
#[derive(Debug, Default)]
pub(super) struct Script {
    faults: BTreeMap<(Operation, u64), Fault>,
    always: BTreeMap<Operation, Fault>,
    latency: BTreeMap<Operation, Duration>,
    calls: BTreeMap<Operation, u64>,
}

/// What the script holds for one call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prospect {
    pub(super) latency: Duration,
    pub(super) fault: Option<Fault>,
}

impl Script {
    /// Counts a call and looks up what is to happen to it.
    pub(super) fn next(&mut self, operation: Operation) -> Prospect {
        let count = self.calls.entry(operation).or_default();
        *count += 1;
        let fault = self.faults.remove(&(operation, *count)).or_else(|| self.always.get(&operation).copied());
        Prospect { latency: self.latency.get(&operation).copied().unwrap_or_default(), fault }
    }

    pub(super) fn calls(&self, operation: Operation) -> u64 {
        self.calls.get(&operation).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, operation: Operation, call: u64, fault: Fault) {
        self.faults.insert((operation, call), fault);
    }

    pub(super) fn set_always(&mut self, operation: Operation, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.always.insert(operation, fault),
            None => self.always.remove(&operation),
        };
    }

    pub(super) fn set_latency(&mut self, operation: Operation, latency: Duration) {
        self.latency.insert(operation, latency);
    }

    pub(super) fn heal(&mut self) {
        self.faults.clear();
        self.always.clear();
    }
}
