//! Who is alive, judged by the observer's own clock: a heartbeat version that did not change between two readings which lie
//! `dead_after` apart belongs to a dead node. Time in which nothing was read does not count: a node that was cut off itself
//! must not take the others for dead. No two machines' clocks are ever compared.

use crate::id::NodeId;
use crate::planted::{self, Bug};
use crate::store::Version;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Names that nobody asked for any more are dropped after so long.
const FORGET_STRANGERS: Duration = Duration::from_secs(3_600);

/// What this node has seen of the others' heartbeats.
#[derive(Debug)]
pub(crate) struct Liveness {
    dead_after: Duration,
    seen: BTreeMap<NodeId, (Version, Instant)>,
    /// When the last full reading of the node table began.
    read_from: Option<Instant>,
    /// Names that were not in a reading, and when they were first asked for: they may be newer than the reading.
    strangers: BTreeMap<NodeId, Instant>,
}

impl Liveness {
    pub(crate) fn new(dead_after: Duration) -> Self {
        Self { dead_after, seen: BTreeMap::new(), read_from: None, strangers: BTreeMap::new() }
    }

    /// Takes in a full reading of the node table, which began at `from`.
    pub(crate) fn observe(&mut self, from: Instant, nodes: impl IntoIterator<Item = (NodeId, Version)>) {
        let now = Instant::now();
        let mut seen = BTreeMap::new();
        for (node, version) in nodes {
            let since = match self.seen.get(&node) {
                Some((last, since)) if *last == version => *since,
                _ => now,
            };
            seen.insert(node, (version, since));
        }
        self.strangers.retain(|node, asked| !seen.contains_key(node) && now.duration_since(*asked) < FORGET_STRANGERS);
        self.seen = seen;
        self.read_from = Some(from);
    }

    /// Whether that node is dead. One whose record is gone has left properly, since it registered before it did anything;
    /// but only a reading that began after its name was met can show that it is gone and not new.
    pub(crate) fn is_dead(&mut self, now: Instant, node: &NodeId) -> bool {
        if let Some((_, since)) = self.seen.get(node) {
            return self.watched(*since) >= self.dead_after;
        }
        let met = *self.strangers.entry(node.clone()).or_insert(now);
        self.read_from.is_some_and(|from| from > met)
    }

    /// For how long a version was seen to stand still.
    fn watched(&self, since: Instant) -> Duration {
        if planted::is(Bug::NobodyIsEverDead) {
            return Duration::ZERO;
        }
        if planted::is(Bug::LivenessCountsUnreadTime) {
            return since.elapsed();
        }
        self.read_from.map_or(Duration::ZERO, |from| from.saturating_duration_since(since))
    }

    /// The nodes that are not known to be dead.
    pub(crate) fn live(&self) -> Vec<NodeId> {
        let alive = |(_, since): &(Version, Instant)| self.watched(*since) < self.dead_after;
        self.seen.iter().filter(|(_, seen)| alive(seen)).map(|(node, _)| node.clone()).collect()
    }

    /// Nodes that have been dead for at least `times` the limit: their records can go.
    pub(crate) fn long_dead(&self, times: u32) -> Vec<NodeId> {
        let limit = self.dead_after * times;
        let long = |(_, since): &(Version, Instant)| self.watched(*since) >= limit;
        self.seen.iter().filter(|(_, seen)| long(seen)).map(|(node, _)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_dead_only_after_its_heartbeat_stood_still_before_our_eyes() {
        let node = NodeId::new("n1").unwrap();
        let beat = |n: u32| (node.clone(), Version(n.to_string()));
        let mut liveness = Liveness::new(Duration::from_secs(10));
        assert!(!liveness.is_dead(Instant::now(), &node), "nothing was read yet");

        liveness.observe(Instant::now(), [beat(1)]);
        tokio::time::advance(Duration::from_secs(9)).await;
        liveness.observe(Instant::now(), [beat(2)]);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!liveness.is_dead(Instant::now(), &node), "it beat nine seconds ago");

        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!liveness.is_dead(Instant::now(), &node), "nobody has looked since");
        liveness.observe(Instant::now(), [beat(2)]);
        assert!(liveness.is_dead(Instant::now(), &node));

        liveness.observe(Instant::now(), [beat(3)]);
        assert!(!liveness.is_dead(Instant::now(), &node), "it was only slow");

        liveness.observe(Instant::now(), []);
        assert!(!liveness.is_dead(Instant::now(), &node), "it may have come back since that reading");
        tokio::time::advance(Duration::from_millis(1)).await;
        liveness.observe(Instant::now(), []);
        assert!(liveness.is_dead(Instant::now(), &node), "it left and took its record along");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_started_since_the_last_reading_is_not_taken_for_dead() {
        let node = NodeId::new("new").unwrap();
        let mut liveness = Liveness::new(Duration::from_secs(10));
        liveness.observe(Instant::now(), []);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!liveness.is_dead(Instant::now(), &node), "the reading is older than its name");
        liveness.observe(Instant::now() - Duration::from_millis(500), []);
        assert!(!liveness.is_dead(Instant::now(), &node), "this one had begun before, too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_either_alive_or_dead_at_the_very_limit_too() {
        let node = NodeId::new("n1").unwrap();
        let mut liveness = Liveness::new(Duration::from_secs(10));
        liveness.observe(Instant::now(), [(node.clone(), Version("1".into()))]);
        for second in 1..=20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            liveness.observe(Instant::now(), [(node.clone(), Version("1".into()))]);
            let dead = liveness.is_dead(Instant::now(), &node);
            assert_eq!(dead, second >= 10, "after {second} s");
            assert_eq!(liveness.live().is_empty(), dead, "after {second} s");
            assert_eq!(liveness.long_dead(2).is_empty(), second < 20, "after {second} s");
        }
    }
}
