//! How large the disks of one user may be, taken together.
//!
//! Boxes that are deleted and can be had back do not count until they are. Within one gateway the limit is exact: what is
//! being made, grown or had back counts from the moment it is asked for. Gateways tell each other only by the boxes' own
//! records, so two of them that are asked at the same moment may let one too many grow.

use crate::boxes::{BoxSummary, SnapshotSummary};
use crate::lock::lock;
use crate::size::Size;
use boxpool::{BoxName, Error, ErrorKind, Result, UserId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The disks of each user take only so much.
pub struct DiskLimit {
    /// Of a disk that was never grown.
    fresh: Size,
    most: Size,
    asked: Asked,
}

/// What is being made, grown or had back here.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<u64, Growth>>>);

/// Which box is to have how many bytes.
struct Growth {
    owner: UserId,
    name: BoxName,
    bytes: u64,
}

/// Its entry there, for as long as it is being done.
pub struct Claim {
    asked: Asked,
    number: u64,
}

impl DiskLimit {
    /// At most `most` for each user, where a fresh disk has `fresh`.
    #[must_use]
    pub fn new(fresh: Size, most: Size) -> Self {
        Self { fresh, most, asked: Asked::default() }
    }

    /// What a fresh disk has.
    #[must_use]
    pub fn fresh(&self) -> Size {
        self.fresh
    }

    /// The box, with the size of its disk.
    #[must_use]
    pub fn sized(&self, mut each: BoxSummary) -> BoxSummary {
        each.disk_bytes.get_or_insert(self.fresh.0);
        each
    }

    /// The snapshot, with the size of its disk.
    #[must_use]
    pub fn sized_snapshot(&self, mut kept: SnapshotSummary) -> SnapshotSummary {
        kept.disk_bytes.get_or_insert(self.fresh.0);
        kept
    }

    /// Counts what the box is to have, beside the `boxes` that are there.
    ///
    /// # Errors
    /// `Unauthorized` when it is too much.
    pub fn claim(
        &self,
        operation: &'static str,
        owner: &UserId,
        name: &BoxName,
        bytes: u64,
        boxes: Vec<BoxSummary>,
    ) -> Result<Claim> {
        let there = boxes.into_iter().map(|each| (each.name, each.disk_bytes.unwrap_or(self.fresh.0))).collect();
        self.asked.claim(owner, name, bytes, there, self.most).map_err(|others| {
            let detail = format!(
                "that would make {} of disks, where you may have {}; delete a box first",
                Size(others.saturating_add(bytes)),
                self.most
            );
            Error::new(ErrorKind::Unauthorized, operation, name).with_detail(detail)
        })
    }
}

impl Asked {
    /// Counts what the box is to have, unless it is too much with what is `there` and asked for.
    ///
    /// # Errors
    /// What the others have.
    fn claim(
        &self,
        owner: &UserId,
        name: &BoxName,
        bytes: u64,
        mut there: BTreeMap<String, u64>,
        most: Size,
    ) -> std::result::Result<Claim, u64> {
        let mut all = lock(&self.0);
        for each in all.values().filter(|each| each.owner == *owner) {
            let known = there.entry(each.name.to_string()).or_default();
            *known = (*known).max(each.bytes);
        }
        there.remove(name.as_str());
        let others = there.values().fold(0, |sum: u64, each| sum.saturating_add(*each));
        if others.saturating_add(bytes) > most.0 {
            return Err(others);
        }
        let number = all.last_key_value().map_or(0, |(last, _)| last + 1);
        all.insert(number, Growth { owner: owner.clone(), name: name.clone(), bytes });
        Ok(Claim { asked: self.clone(), number })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.asked.0).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_and_what_is_asked_for_count_together_and_each_box_once() {
        let (asked, ada) = (Asked::default(), UserId::new("ada").unwrap());
        let claim = |owner: &UserId, name: &str, bytes, there: &[(&str, u64)]| {
            let there = there.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
            asked.claim(owner, &BoxName::new(name).unwrap(), bytes, there, Size(10))
        };
        let first = claim(&ada, "one", 6, &[]).ok().unwrap();
        assert_eq!(claim(&ada, "two", 5, &[]).err(), Some(6), "asked for, and not there yet");
        assert!(claim(&ada, "two", 4, &[("one", 6)]).is_ok(), "it counts once");
        assert!(claim(&ada, "one", 10, &[("one", 6)]).is_ok(), "it is the box that grows");
        assert!(claim(&UserId::new("bob").unwrap(), "two", 10, &[]).is_ok());
        drop(first);
        assert!(claim(&ada, "two", 10, &[]).is_ok());
        assert_eq!(claim(&ada, "two", 2, &[("one", 9)]).err(), Some(9));
        assert!(claim(&ada, "two", u64::MAX, &[("one", u64::MAX)]).is_err());
        assert!(asked.0.lock().unwrap().is_empty());
    }
}
