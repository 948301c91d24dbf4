//! Which instances, or volumes, are free: an in-memory hint that a compare-and-swap confirms.
//!
//! Picking costs the same for ten entries and for a million: entries lie in a vector, a map tells where, and removal
//! swaps the last one into the hole. Concurrent gateways are kept apart in two ways. Each entry prefers one live node
//! (highest random weight, Thaler & Ravishankar 1998), and a node takes from its own share first; beyond that it picks
//! at random, not "the first".

use crate::id::NodeId;
use crate::random::{Random, mix};
use std::collections::BTreeMap;

/// Free entries with what is known of each.
#[derive(Debug)]
pub(crate) struct FreeIndex<K, V> {
    me: NodeId,
    live: Vec<NodeId>,
    mine: Share<K, V>,
    others: Share<K, V>,
}

#[derive(Debug)]
struct Share<K, V> {
    entries: Vec<(K, V)>,
    places: BTreeMap<K, usize>,
}

impl<K: Ord + Clone, V> Share<K, V> {
    fn new() -> Self {
        Self { entries: Vec::new(), places: BTreeMap::new() }
    }

    fn insert(&mut self, key: K, value: V) {
        if let Some(&place) = self.places.get(&key) {
            self.entries[place].1 = value;
        } else {
            self.places.insert(key.clone(), self.entries.len());
            self.entries.push((key, value));
        }
    }

    fn remove(&mut self, key: &K) -> Option<(K, V)> {
        let place = self.places.remove(key)?;
        let entry = self.entries.swap_remove(place);
        if let Some((moved, _)) = self.entries.get(place) {
            self.places.insert(moved.clone(), place);
        }
        Some(entry)
    }

    fn take_any(&mut self, random: &Random) -> Option<(K, V)> {
        if self.entries.is_empty() {
            return None;
        }
        let key = self.entries[random.below(self.entries.len())].0.clone();
        self.remove(&key)
    }
}

impl<K: Ord + Clone + AsRef<str>, V> FreeIndex<K, V> {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { live: vec![me.clone()], me, mine: Share::new(), others: Share::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.mine.entries.len() + self.others.entries.len()
    }

    /// Adds an entry, or replaces what is known of it.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.prefers_me(&key) {
            self.others.remove(&key);
            self.mine.insert(key, value);
        } else {
            self.mine.remove(&key);
            self.others.insert(key, value);
        }
    }

    /// Forgets an entry.
    pub(crate) fn remove(&mut self, key: &K) -> Option<(K, V)> {
        self.mine.remove(key).or_else(|| self.others.remove(key))
    }

    /// Takes one out, from this node's share while it has any.
    pub(crate) fn take(&mut self, random: &Random) -> Option<(K, V)> {
        self.mine.take_any(random).or_else(|| self.others.take_any(random))
    }

    /// Replaces everything by what a scan has seen.
    pub(crate) fn replace(&mut self, entries: impl IntoIterator<Item = (K, V)>) {
        self.mine = Share::new();
        self.others = Share::new();
        for (key, value) in entries {
            self.insert(key, value);
        }
    }

    /// Says which nodes are alive, this one included; the shares follow.
    pub(crate) fn set_live(&mut self, mut live: Vec<NodeId>) {
        live.sort();
        if live == self.live {
            return;
        }
        self.live = live;
        let (mine, others) = (std::mem::take(&mut self.mine.entries), std::mem::take(&mut self.others.entries));
        self.replace(mine.into_iter().chain(others));
    }

    fn prefers_me(&self, key: &K) -> bool {
        let weight = |node: &NodeId| mix(node.as_str(), key.as_ref());
        let best = self.live.iter().max_by_key(|node| (weight(node), node.as_str()));
        best.is_none_or(|best| *best == self.me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(n: usize) -> NodeId {
        NodeId::new(format!("n{n}")).unwrap()
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_plain_map(
            steps in proptest::collection::vec((0u8..4, 0u16..40), 0..200), seed in any::<u64>(),
        ) {
            let random = Random::seeded(seed);
            let mut index: FreeIndex<String, u16> = FreeIndex::new(node(0));
            index.set_live((0..3).map(node).collect());
            let mut model = BTreeMap::new();
            for (step, n) in steps {
                let key = format!("k{n}");
                match step {
                    0 | 1 => { index.insert(key.clone(), n); model.insert(key, n); }
                    2 => prop_assert_eq!(index.remove(&key).map(|(_, v)| v), model.remove(&key)),
                    _ => match index.take(&random) {
                        Some((key, value)) => prop_assert_eq!(model.remove(&key), Some(value)),
                        None => prop_assert!(model.is_empty()),
                    },
                }
                prop_assert_eq!(index.len(), model.len());
            }
            // Never "empty" while one is free.
            while let Some((key, _)) = index.take(&random) { prop_assert!(model.remove(&key).is_some()); }
            prop_assert!(model.is_empty());
        }
    }

    #[test]
    fn concurrent_gateways_take_different_entries_while_their_shares_last() {
        let live: Vec<NodeId> = (0..8).map(node).collect();
        let mut taken = std::collections::BTreeSet::new();
        for (n, me) in live.iter().enumerate() {
            let mut index: FreeIndex<String, ()> = FreeIndex::new(me.clone());
            index.set_live(live.clone());
            index.replace((0..1000).map(|k| (format!("k{k}"), ())));
            let random = Random::seeded(n as u64);
            for _ in 0..60 {
                let (key, ()) = index.take(&random).unwrap();
                assert!(taken.insert(key), "two gateways picked the same entry");
            }
        }
    }
}
