//! Which instances, or volumes, are free: an in-memory hint that a compare-and-swap confirms.
//!
//! Picking costs the same for a hundred entries and for a million: entries lie in a vector in random order, kept so by
//! putting each new one at a random place (an inside-out Fisher-Yates shuffle), so that the last one is a random one. A map
//! tells where a key is, by the key's hash; it is a hint that the vector confirms, so that picking need not touch it, and that two keys with one
//! hash (one chance in ten million among a million) do no harm: one of them may be there twice, and be claimed once.
//!
//! Concurrent gateways are kept apart in two ways. Each entry prefers one live node, and a node takes from its own share first;
//! and each node has an order of its own. Which node an entry prefers is the one with the highest random weight (Thaler & Ravishankar 1998).
//! In what a scan has seen that is the highest among the nodes that are not preferred by their part already (bounded loads,
//! Mirrokni, Thorup & Zadimoghaddam 2018): where there are few more entries than nodes, plain weights would leave a third of the nodes without any.

#![allow(clippy::disallowed_types)] // the maps here are never iterated, so that their order cannot be seen

use crate::id::NodeId;
use crate::random::{Random, mix};
use std::collections::HashMap;

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
    /// Where a key was put, by its hash. May be stale: the entry there says whether it is. Never iterated, so its order cannot be seen.
    places: HashMap<u64, u32>,
}

fn hash<K: AsRef<str>>(key: &K) -> u64 {
    mix("", key.as_ref())
}

impl<K: Eq + AsRef<str>, V> Share<K, V> {
    fn new() -> Self {
        Self { entries: Vec::new(), places: HashMap::new() }
    }

    fn find(&self, key: &K) -> Option<usize> {
        let place = *self.places.get(&hash(key))? as usize;
        self.entries.get(place).is_some_and(|(found, _)| found == key).then_some(place)
    }

    fn insert(&mut self, key: K, value: V, random: &Random) {
        if let Some(place) = self.find(&key) {
            self.entries[place].1 = value;
            return;
        }
        if self.places.len() > 2 * self.entries.len() + 64 {
            self.places = (0..).zip(&self.entries).map(|(place, (key, _))| (hash(key), place)).collect();
        }
        let last = self.entries.len();
        self.entries.push((key, value));
        let place = random.below(last + 1);
        self.entries.swap(place, last);
        self.note(place);
        self.note(last);
    }

    fn note(&mut self, place: usize) {
        if let (Some((key, _)), Ok(at)) = (self.entries.get(place), u32::try_from(place)) {
            self.places.insert(hash(key), at);
        }
    }

    fn remove(&mut self, key: &K) -> Option<(K, V)> {
        let place = self.find(key)?;
        self.places.remove(&hash(key));
        let entry = self.entries.swap_remove(place);
        self.note(place);
        Some(entry)
    }

    /// The last one is a random one; its place in the map becomes stale.
    fn take_any(&mut self) -> Option<(K, V)> {
        self.entries.pop()
    }
}

impl<K: Eq + AsRef<str>, V> FreeIndex<K, V> {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { live: vec![me.clone()], me, mine: Share::new(), others: Share::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.mine.entries.len() + self.others.entries.len()
    }

    /// Adds an entry, or replaces what is known of it.
    pub(crate) fn insert(&mut self, key: K, value: V, random: &Random) {
        if self.prefers_me(&key) {
            self.others.remove(&key);
            self.mine.insert(key, value, random);
        } else {
            self.mine.remove(&key);
            self.others.insert(key, value, random);
        }
    }

    /// Forgets an entry.
    pub(crate) fn remove(&mut self, key: &K) -> Option<(K, V)> {
        self.mine.remove(key).or_else(|| self.others.remove(key))
    }

    /// Takes one out, from this node's share while it has any.
    pub(crate) fn take(&mut self) -> Option<(K, V)> {
        self.mine.take_any().or_else(|| self.others.take_any())
    }

    /// Replaces everything by what a scan has seen. Nodes that have seen the same, and the same nodes, come to the same shares.
    pub(crate) fn replace(&mut self, entries: impl IntoIterator<Item = (K, V)>, random: &Random) {
        self.mine = Share::new();
        self.others = Share::new();
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        entries.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
        let part = entries.len().div_ceil(self.live.len().max(1));
        let mut preferred = vec![0_usize; self.live.len()];
        for (key, value) in entries {
            let free = self.live.iter().zip(&preferred).enumerate().filter(|(_, (_, so_far))| **so_far < part);
            let best = free.max_by_key(|(_, (node, _))| (mix(node.as_str(), key.as_ref()), node.as_str()));
            let best = best.map(|(place, _)| place);
            let share = match best.map(|place| (&self.live[place], &mut preferred[place])) {
                Some((node, so_far)) => {
                    *so_far += 1;
                    if *node == self.me { &mut self.mine } else { &mut self.others }
                }
                None => &mut self.mine,
            };
            share.insert(key, value, random);
        }
        self.mine.entries.shrink_to_fit();
        self.others.entries.shrink_to_fit();
    }

    /// Says which nodes are alive, this one included; the shares follow.
    pub(crate) fn set_live(&mut self, mut live: Vec<NodeId>, random: &Random) {
        live.sort();
        if live == self.live {
            return;
        }
        self.live = live;
        let (mine, others) = (std::mem::take(&mut self.mine.entries), std::mem::take(&mut self.others.entries));
        self.replace(mine.into_iter().chain(others), random);
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
    use std::collections::BTreeMap;

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
            index.set_live((0..3).map(node).collect(), &random);
            let mut model = BTreeMap::new();
            for (step, n) in steps {
                let key = format!("k{n}");
                match step {
                    0 | 1 => { index.insert(key.clone(), n, &random); model.insert(key, n); }
                    2 => prop_assert_eq!(index.remove(&key).map(|(_, v)| v), model.remove(&key)),
                    _ => match index.take() {
                        Some((key, value)) => prop_assert_eq!(model.remove(&key), Some(value)),
                        None => prop_assert!(model.is_empty()),
                    },
                }
                prop_assert_eq!(index.len(), model.len());
            }
            // Never "empty" while one is free.
            while let Some((key, _)) = index.take() { prop_assert!(model.remove(&key).is_some()); }
            prop_assert!(model.is_empty());
        }
    }

    #[test]
    fn as_many_gateways_as_entries_take_one_each() {
        let live: Vec<NodeId> = (0..64).map(node).collect();
        let mut taken = std::collections::BTreeSet::new();
        for (n, me) in live.iter().enumerate() {
            let mut index: FreeIndex<String, ()> = FreeIndex::new(me.clone());
            let random = Random::seeded(n as u64);
            // Whatever order a gateway has learned of them in.
            let mut entries: Vec<_> = (0..64).map(|k| (format!("k{k}"), ())).collect();
            entries.rotate_left(n);
            index.replace(entries, &random);
            index.set_live(live.clone(), &random);
            assert!(taken.insert(index.take().unwrap().0), "two gateways picked the same entry");
        }
    }

    #[test]
    fn memory_is_bounded_by_what_is_free_and_not_by_all_that_ever_was() {
        let random = Random::seeded(1);
        let mut index: FreeIndex<String, ()> = FreeIndex::new(node(0));
        for n in 0..10_000 {
            index.insert(format!("k{n}"), (), &random);
            if n >= 10 {
                index.take().unwrap();
            }
            let share = &index.mine;
            assert!(share.places.len() <= 2 * share.entries.len() + 66, "{} places", share.places.len());
        }
        // What is known of those that are there is still found.
        let keys: Vec<String> = index.mine.entries.iter().map(|(key, ())| key.clone()).collect();
        assert!(keys.iter().all(|key| index.remove(key).is_some()));
    }

    #[test]
    fn either_of_two_may_be_taken_first() {
        let first = |seed: u64| {
            let (random, mut index) = (Random::seeded(seed), FreeIndex::new(node(0)));
            index.insert("old".to_owned(), (), &random);
            index.insert("new".to_owned(), (), &random);
            index.take().unwrap().0
        };
        let taken: std::collections::BTreeSet<String> = (0..50).map(first).collect();
        assert_eq!(taken.len(), 2, "nodes that saw the same entries come would all reach for the same one");
    }

    #[test]
    fn concurrent_gateways_take_different_entries_while_their_shares_last() {
        let live: Vec<NodeId> = (0..8).map(node).collect();
        let mut taken = std::collections::BTreeSet::new();
        for (n, me) in live.iter().enumerate() {
            let mut index: FreeIndex<String, ()> = FreeIndex::new(me.clone());
            let random = Random::seeded(n as u64);
            index.set_live(live.clone(), &random);
            index.replace((0..1000).map(|k| (format!("k{k}"), ())), &random);
            for _ in 0..60 {
                let (key, ()) = index.take().unwrap();
                assert!(taken.insert(key), "two gateways picked the same entry");
            }
        }
    }
}
