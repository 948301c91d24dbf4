//! What the index keeps of a free entry: as much as a claim needs to write the whole record, in as little memory as that takes.
//! A pool may have a million free volumes.

use crate::clock::Timestamp;
use crate::id::{InstanceId, SnapshotId, UserId, VolumeId};
use crate::record::{Envelope, InstanceRecord, InstanceStatus, VolumeRecord, VolumeStatus};
use crate::records::Held;
use crate::store::Version;
use serde_json::Value;
use std::collections::BTreeMap;

/// A free record without its id, which is the index's key.
#[derive(Debug, Clone)]
pub(crate) struct Free {
    version: Box<str>,
    created_at: Timestamp,
    schema: u32,
    /// Whose box was on it last.
    pub(crate) last_user: Option<UserId>,
    rest: Option<Box<Rest>>,
}

/// What the records of a pool have in common as a rule.
#[derive(Debug, Clone)]
struct Rest {
    generation: String,
    source: Option<SnapshotId>,
    unknown: BTreeMap<String, Value>,
}

/// A record that can be free.
pub(crate) trait CanBeFree: Sized {
    /// What names it.
    type Id;

    /// What is kept of it in a pool of that generation; `None` when it is not free.
    fn kept(held: Held<Self>, generation: &str) -> Option<(Self::Id, Free)>;

    /// The record again. The mark of its last writer is not in it: that is of no use to the next one.
    fn whole(id: Self::Id, free: Free, generation: &str) -> Held<Self>;
}

impl CanBeFree for InstanceRecord {
    type Id = InstanceId;

    fn kept(held: Held<Self>, generation: &str) -> Option<(InstanceId, Free)> {
        let Held { record, version } = held;
        if !record.is_open() {
            return None;
        }
        let Self { id, generation: of_record, created_at, last_user, envelope, .. } = record;
        let free = Free::new(version, created_at, envelope, (of_record, None), generation);
        Some((id, Free { last_user, ..free }))
    }

    fn whole(id: InstanceId, free: Free, generation: &str) -> Held<Self> {
        let (created_at, last_user) = (free.created_at, free.last_user.clone());
        let (version, generation, _, envelope) = free.parts(generation);
        let status = InstanceStatus::Free;
        let record = Self { id, status, generation, created_at, last_user, cordon: None, envelope };
        Held { record, version }
    }
}

impl CanBeFree for VolumeRecord {
    type Id = VolumeId;

    fn kept(held: Held<Self>, generation: &str) -> Option<(VolumeId, Free)> {
        let Held { record, version } = held;
        if record.status != VolumeStatus::Free {
            return None;
        }
        let Self { id, generation: of_record, source, created_at, envelope, .. } = record;
        Some((id, Free::new(version, created_at, envelope, (of_record, source), generation)))
    }

    fn whole(id: VolumeId, free: Free, generation: &str) -> Held<Self> {
        let created_at = free.created_at;
        let (version, generation, source, envelope) = free.parts(generation);
        let record = Self { id, status: VolumeStatus::Free, generation, source, created_at, envelope };
        Held { record, version }
    }
}

impl Free {
    fn new(
        version: Version,
        created_at: Timestamp,
        envelope: Envelope,
        (generation, source): (String, Option<SnapshotId>),
        of_pool: &str,
    ) -> Self {
        let Envelope { schema, unknown, .. } = envelope;
        let usual = generation == of_pool && source.is_none() && unknown.is_empty();
        let rest = (!usual).then(|| Box::new(Rest { generation, source, unknown }));
        Self { version: version.0.into_boxed_str(), created_at, schema, last_user: None, rest }
    }

    fn parts(self, of_pool: &str) -> (Version, String, Option<SnapshotId>, Envelope) {
        let usual = || Rest { generation: of_pool.to_owned(), source: None, unknown: BTreeMap::new() };
        let Rest { generation, source, unknown } = self.rest.map_or_else(usual, |rest| *rest);
        let envelope = Envelope { schema: self.schema, mark: String::new(), unknown };
        (Version(self.version.into()), generation, source, envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(generation: &str, source: Option<&str>) -> VolumeRecord {
        VolumeRecord {
            id: VolumeId::new("v-1").unwrap(),
            status: VolumeStatus::Free,
            generation: generation.into(),
            source: source.map(|id| SnapshotId::new(id).unwrap()),
            created_at: Timestamp(7),
            envelope: Envelope::new(),
        }
    }

    #[test]
    fn a_record_comes_out_of_the_index_as_it_went_in() {
        let mut newer = volume("g1", None);
        newer.envelope.schema = 1;
        newer.envelope.unknown.insert("colour".into(), Value::from("blue"));
        for record in [volume("g1", None), volume("g2", None), volume("g1", Some("s")), newer] {
            let held = Held { record: record.clone(), version: Version("3".into()) };
            let (id, free) = VolumeRecord::kept(held, "g1").unwrap();
            let whole = VolumeRecord::whole(id, free, "g1");
            assert_eq!((whole.record, whole.version), (record, Version("3".into())));
        }
        let instance = InstanceRecord {
            id: InstanceId::new("i00001-a").unwrap(),
            status: InstanceStatus::Free,
            generation: "1".into(),
            created_at: Timestamp(7),
            cordon: None,
            last_user: Some(UserId::new("ada").unwrap()),
            envelope: Envelope::new(),
        };
        let held = Held { record: instance.clone(), version: Version("3".into()) };
        let (id, free) = InstanceRecord::kept(held, "1").unwrap();
        assert_eq!(InstanceRecord::whole(id, free, "1").record, instance);
    }

    #[test]
    fn what_is_not_free_is_not_kept() {
        let record = VolumeRecord { status: VolumeStatus::Quarantined { why: String::new() }, ..volume("g1", None) };
        assert!(VolumeRecord::kept(Held { record, version: Version("1".into()) }, "g1").is_none());
    }
}
