//! Which volumes are bound to boxes that do not name them: a join of all volumes with all boxes, in 16 bytes for each volume.
//!
//! Of a bound volume a fingerprint of it and its box is kept, and its name as a number where it is one that the pool made up. Every box
//! then strikes out the fingerprint of what it names. Two pairs with one fingerprint (one chance in 40 million among a million volumes)
//! would hide a volume that no box names: one volume is kept too long then, and nothing is ever lost.

use crate::id::{BoxRef, VolumeId};
use crate::random::mix;
use std::collections::BTreeMap;

/// Bound volumes, as they are read.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    all: Vec<(u64, u64)>,
    /// Names that the pool did not make up: of disks that were adopted.
    others: BTreeMap<u64, VolumeId>,
}

/// Bound volumes, to be struck out by the boxes that name them.
#[derive(Debug)]
pub(crate) struct OrderedBound {
    all: Vec<(u64, u64)>,
    named: Vec<u64>,
    others: BTreeMap<u64, VolumeId>,
}

impl Bound {
    pub(crate) fn add(&mut self, volume: &VolumeId, owner: &BoxRef) {
        let print = fingerprint(volume, owner);
        match number_of(volume) {
            Some(number) => self.all.push((print, number)),
            None => {
                self.others.insert(print, volume.clone());
            }
        }
    }

    pub(crate) fn ordered(mut self) -> OrderedBound {
        self.all.sort_unstable();
        let named = vec![0; self.all.len().div_ceil(64)];
        OrderedBound { all: self.all, named, others: self.others }
    }
}

impl OrderedBound {
    /// That box names that volume.
    pub(crate) fn named(&mut self, volume: &VolumeId, owner: &BoxRef) {
        let print = fingerprint(volume, owner);
        self.others.remove(&print);
        let first = self.all.partition_point(|(other, _)| *other < print);
        let same = self.all[first..].iter().take_while(|(other, _)| *other == print).count();
        for place in first..first + same {
            self.named[place / 64] |= 1 << (place % 64);
        }
    }

    /// Those that no box has named, by name.
    pub(crate) fn unnamed(self) -> Vec<VolumeId> {
        let left = (0..self.all.len()).filter(|place| self.named[place / 64] & (1 << (place % 64)) == 0);
        let made_up = left.filter_map(|place| VolumeId::new(name_of(self.all[place].1)).ok());
        let mut all: Vec<VolumeId> = made_up.chain(self.others.into_values()).collect();
        all.sort();
        all
    }
}

fn fingerprint(volume: &VolumeId, owner: &BoxRef) -> u64 {
    let of_box = mix(owner.name.as_str(), owner.id.as_str());
    mix(volume.as_str(), owner.owner.as_str()) ^ of_box.rotate_left(32)
}

fn name_of(number: u64) -> String {
    format!("v-{number:016x}")
}

/// The number in a name that the pool made up.
fn number_of(volume: &VolumeId) -> Option<u64> {
    let number = u64::from_str_radix(volume.as_str().strip_prefix("v-")?, 16).ok()?;
    (name_of(number) == volume.as_str()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BoxId, BoxName, UserId};

    fn owner(n: u64) -> BoxRef {
        BoxRef {
            owner: UserId::new(format!("u{}", n % 10)).unwrap(),
            name: BoxName::new(format!("b{n}")).unwrap(),
            id: BoxId::new(format!("b-{n}")).unwrap(),
        }
    }

    #[test]
    fn only_what_no_box_names_is_left_whatever_its_name() {
        let volumes: Vec<VolumeId> = (0..1_000_u64)
            .map(|n| VolumeId::new(if n % 7 == 0 { format!("disk{n}") } else { format!("v-{n:016x}") }).unwrap())
            .collect();
        let mut bound = Bound::default();
        for (n, volume) in (0..).zip(&volumes) {
            bound.add(volume, &owner(n));
        }
        let mut bound = bound.ordered();
        for (n, volume) in (0..).zip(&volumes) {
            // Another volume, or another box of that name, is not it.
            let (volume, box_) = match n {
                14 | 15 => (VolumeId::new("v-0123456789abcdef").unwrap(), owner(n)),
                21 | 22 => (volume.clone(), BoxRef { id: BoxId::new("b-anew").unwrap(), ..owner(n) }),
                _ => (volume.clone(), owner(n)),
            };
            bound.named(&volume, &box_);
        }
        let mut left: Vec<&VolumeId> = [14, 15, 21, 22].iter().map(|n: &usize| &volumes[*n]).collect();
        left.sort();
        assert_eq!(bound.unnamed().iter().collect::<Vec<_>>(), left);
    }

    #[test]
    fn a_name_is_a_number_only_where_it_is_written_as_the_pool_writes_it() {
        for name in ["v-1", "v-000000000000000G", "v-00000000000000AB", "x-0000000000000001"] {
            assert_eq!(number_of(&VolumeId::new(name).unwrap()), None, "{name}");
        }
        assert_eq!(number_of(&VolumeId::new("v-00000000000000ab").unwrap()), Some(0xab));
    }
}
