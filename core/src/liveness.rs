//! Who is alive, judged by the observer's own clock: a heartbeat version that has not changed for `dead_after`, as seen
//! from here, belongs to a dead node. No two machines' clocks are ever compared.

use crate::id::NodeId;
use crate::store::Version;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What this node has seen of the others' heartbeats.
#[derive(Debug)]
pub(crate) struct Liveness {
    dead_after: Duration,
    seen: BTreeMap<NodeId, (Version, Instant)>,
    /// When the node table was first read in full: before that, absence proves nothing.
    complete: bool,
}

impl Liveness {
    pub(crate) fn new(dead_after: Duration) -> Self {
        Self { dead_after, seen: BTreeMap::new(), complete: false }
    }

    /// Takes in a full reading of the node table.
    pub(crate) fn observe(&mut self, now: Instant, nodes: impl IntoIterator<Item = (NodeId, Version)>) {
        let mut seen = BTreeMap::new();
        for (node, version) in nodes {
            let since = match self.seen.get(&node) {
                Some((last, since)) if *last == version => *since,
                _ => now,
            };
            seen.insert(node, (version, since));
        }
        self.seen = seen;
        self.complete = true;
    }

    /// Whether that node is dead. One whose record is gone has left properly: it registered before it did anything.
    pub(crate) fn is_dead(&self, now: Instant, node: &NodeId) -> bool {
        match self.seen.get(node) {
            Some((_, since)) => now.duration_since(*since) >= self.dead_after,
            None => self.complete,
        }
    }

    /// The nodes that are not known to be dead.
    pub(crate) fn live(&self, now: Instant) -> Vec<NodeId> {
        self.seen.keys().filter(|node| !self.is_dead(now, node)).cloned().collect()
    }

    /// Nodes that have been dead for at least `times` the limit: their records can go.
    pub(crate) fn long_dead(&self, now: Instant, times: u32) -> Vec<NodeId> {
        let limit = self.dead_after * times;
        let long = |(_, since): &(Version, Instant)| now.duration_since(*since) >= limit;
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

        liveness.observe(Instant::now(), [beat(2)]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(liveness.is_dead(Instant::now(), &node));

        liveness.observe(Instant::now(), [beat(3)]);
        assert!(!liveness.is_dead(Instant::now(), &node), "it was only slow");

        liveness.observe(Instant::now(), []);
        assert!(liveness.is_dead(Instant::now(), &node), "it left and took its record along");
    }
}
