//! What the pool's resources are called in Azure, and back.
//!
//! A resource is `<pool>-<id>`: the pool's name has no hyphen, so nothing is called the same in two pools. Names in Azure
//! do not tell upper case from lower case, so ids here have none. Resources that were there before the pool keep their
//! names; their ids say so: `vm:<name>`, `disk:<name>`, in lower case. In the former a colon stands for each hyphen, since the
//! pool seats instances by what is before an id's first hyphen, and two machines must not share a seat.
//!
//! | what | rule of Azure | here |
//! | --- | --- | --- |
//! | virtual machine, and its host name | at most 64; letters, digits, hyphens; no hyphen at the end | pool 1–16, id 1–40 |
//! | OS disk | at most 80; letters, digits, `_`, `-` | machine's name and `-os` |
//! | network interface | at most 80 | machine's name and `-nic` |
//! | data disk, snapshot | at most 80; letters, digits, `_`, `-` | pool 1–16, id 1–60 |

use boxpool::{Error, ErrorKind, InstanceId, Result, SnapshotId, VolumeId};
use std::fmt;

const MAX_MACHINE_ID: usize = 40;
const MAX_DISK_ID: usize = 60;

/// A pool's name: 1 to 16 lower-case letters and digits, a letter first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolName(String);

impl PoolName {
    pub(crate) fn new(text: &str) -> Result<Self> {
        let fits = (1..=16).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::new(ErrorKind::Invalid, "name pool", text.escape_debug())
            .with_detail("a pool's name has 1 to 16 lower-case letters and digits, a letter first"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn machine(&self, id: &InstanceId) -> Result<String> {
        match id.as_str().strip_prefix("vm:") {
            // One name has one id.
            Some(name) if name.contains('-') => foreign("", "instance", id),
            Some(name) => foreign(&name.replace(':', "-"), "instance", id),
            None => self.own(id.as_str(), MAX_MACHINE_ID, "instance"),
        }
    }

    pub(crate) fn disk(&self, id: &VolumeId) -> Result<String> {
        match id.as_str().strip_prefix("disk:") {
            Some(name) => foreign(name, "volume", id),
            None => self.own(id.as_str(), MAX_DISK_ID, "volume"),
        }
    }

    pub(crate) fn snapshot(&self, id: &SnapshotId) -> Result<String> {
        self.own(id.as_str(), MAX_DISK_ID, "snapshot")
    }

    /// The id of a machine with that name, whosever it is.
    pub(crate) fn instance_of(&self, name: &str) -> Option<InstanceId> {
        let name = name.to_ascii_lowercase();
        let theirs = || format!("vm:{}", name.replace('-', ":"));
        let id = self.id_of(&name, MAX_MACHINE_ID).map_or_else(theirs, str::to_owned);
        InstanceId::new(id).ok()
    }

    /// The id of a disk with that name, whosever it is.
    pub(crate) fn volume_of(&self, name: &str) -> Option<VolumeId> {
        let name = name.to_ascii_lowercase();
        let id = self.id_of(&name, MAX_DISK_ID).map_or_else(|| format!("disk:{name}"), str::to_owned);
        VolumeId::new(id).ok()
    }

    /// The id of one of this pool's snapshots.
    pub(crate) fn snapshot_of(&self, name: &str) -> Option<SnapshotId> {
        SnapshotId::new(self.id_of(&name.to_ascii_lowercase(), MAX_DISK_ID)?).ok()
    }

    fn own(&self, id: &str, longest: usize, what: &'static str) -> Result<String> {
        if is_own_id(id, longest) {
            return Ok(format!("{}-{id}", self.0));
        }
        let rule = format!(
            "on Azure an id has 1 to {longest} lower-case letters, digits and hyphens, no hyphen at either end"
        );
        Err(Error::new(ErrorKind::Invalid, "name resource", format_args!("{what} {id}")).with_detail(rule))
    }

    fn id_of<'a>(&self, name: &'a str, longest: usize) -> Option<&'a str> {
        name.strip_prefix(&self.0)?.strip_prefix('-').filter(|id| is_own_id(id, longest))
    }
}

fn is_own_id(id: &str, longest: usize) -> bool {
    (1..=longest).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !id.starts_with('-')
        && !id.ends_with('-')
}

fn foreign(name: &str, what: &'static str, id: impl fmt::Display) -> Result<String> {
    check_foreign(name).map_err(|rule| {
        Error::new(ErrorKind::Invalid, "name resource", format_args!("{what} {id}")).with_detail(rule)
    })?;
    Ok(name.to_ascii_lowercase())
}

/// Names of others go into addresses: nothing in them may change the address.
pub(crate) fn check_foreign(name: &str) -> Result<(), &'static str> {
    let fits = (1..=80).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && !name.contains("..");
    if fits { Ok(()) } else { Err("a name has 1 to 80 letters, digits, `_`, `.` and `-`, and no two dots in a row") }
}

/// What the ids of what a golden snapshot is built with begin with.
pub(crate) const SCRATCH: &str = "golden-";

/// The OS disk of a machine.
pub(crate) fn os_disk(machine: &str) -> String {
    format!("{machine}-os")
}

/// The network interface of a machine.
pub(crate) fn interface(machine: &str) -> String {
    format!("{machine}-nic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool() -> PoolName {
        PoolName::new("pool7").unwrap()
    }

    #[test]
    fn a_pool_has_a_short_name_without_hyphens() {
        for good in ["a", "pool7", "abcdefghijklmnop"] {
            assert!(PoolName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "7pool", "my-pool", "Pool", "abcdefghijklmnopq", "pöl", "a_b", "a/b"] {
            assert_eq!(PoolName::new(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn resources_of_the_pool_are_named_after_it() {
        let id = InstanceId::new("i00017-ab3").unwrap();
        let machine = pool().machine(&id).unwrap();
        assert_eq!(machine, "pool7-i00017-ab3");
        assert_eq!(
            (os_disk(&machine), interface(&machine)),
            ("pool7-i00017-ab3-os".into(), "pool7-i00017-ab3-nic".into())
        );
        assert_eq!(pool().disk(&VolumeId::new("v-0123").unwrap()).unwrap(), "pool7-v-0123");
        assert_eq!(pool().snapshot(&SnapshotId::new("golden-1").unwrap()).unwrap(), "pool7-golden-1");
    }

    #[test]
    fn the_longest_names_fit() {
        let pool = PoolName::new("abcdefghijklmnop").unwrap();
        let machine = pool.machine(&InstanceId::new("a".repeat(MAX_MACHINE_ID)).unwrap()).unwrap();
        assert!(machine.len() <= 64, "host names have at most 64");
        assert!(os_disk(&machine).len() <= 80 && interface(&machine).len() <= 80);
        assert!(pool.disk(&VolumeId::new("a".repeat(MAX_DISK_ID)).unwrap()).unwrap().len() <= 80);
        assert!(pool.machine(&InstanceId::new("a".repeat(MAX_MACHINE_ID + 1)).unwrap()).is_err());
        assert!(pool.disk(&VolumeId::new("a".repeat(MAX_DISK_ID + 1)).unwrap()).is_err());
    }

    #[test]
    fn ids_that_azure_would_mix_up_or_refuse_are_refused() {
        for bad in ["A", "a-", "a.b", "a_b", "a:b", "vm:..", "vm:a..b", "vm::a", "vm:a-b"] {
            let refused = pool().machine(&InstanceId::new(bad).unwrap()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{bad}");
        }
        for bad in ["A", "a-", "a.b", "disk:..", "disk:"] {
            assert!(pool().disk(&VolumeId::new(bad).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn others_keep_their_names_in_lower_case() {
        let id = pool().instance_of("Customers_VM").unwrap();
        assert_eq!(id.as_str(), "vm:customers_vm");
        assert_eq!(pool().machine(&id).unwrap(), "customers_vm");
        let id = pool().instance_of("Customers-VM-1").unwrap();
        assert_eq!(id.as_str(), "vm:customers:vm:1", "what is before a hyphen would be its seat");
        assert_eq!(pool().machine(&id).unwrap(), "customers-vm-1");
        let id = pool().volume_of("Data.Disk").unwrap();
        assert_eq!(pool().disk(&id).unwrap(), "data.disk");
        assert!(pool().snapshot_of("somebody-elses").is_none());
    }

    proptest! {
        #[test]
        fn an_id_comes_back_from_its_name_in_any_case(id in "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?") {
            let instance = InstanceId::new(id.clone()).unwrap();
            let name = pool().machine(&instance).unwrap();
            prop_assert_eq!(pool().instance_of(&name.to_ascii_uppercase()), Some(instance));
            let volume = VolumeId::new(id.clone()).unwrap();
            prop_assert_eq!(pool().volume_of(&pool().disk(&volume).unwrap()), Some(volume));
            let snapshot = SnapshotId::new(id).unwrap();
            prop_assert_eq!(pool().snapshot_of(&pool().snapshot(&snapshot).unwrap()), Some(snapshot));
        }

        #[test]
        fn two_pools_share_no_name(one in "[a-z][a-z0-9]{0,6}", other in "[a-z][a-z0-9]{0,6}", id in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", also in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?") {
            prop_assume!(one != other);
            let name = |pool: &str, id: &str| PoolName::new(pool).unwrap().machine(&InstanceId::new(id).unwrap()).unwrap();
            prop_assert_ne!(name(&one, &id), name(&other, &also));
        }
    }
}
