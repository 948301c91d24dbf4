//! Who is alive, judged by the observer's own clock: a heartbeat version that did not change between two readings which lie
//! `dead_after` apart belongs to a dead node. No two machines' clocks are ever compared.
//!
//! Who was cut off from the store cannot tell whether the others are dead or were cut off with it and still are. So whoever has stood still over a time
//! in which nothing was read is spared for as long again as that time was, and only then watched as anybody is.

use crate::id::NodeId;
use crate::planted::{self, Bug};
use crate::store::Version;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Names that nobody asked for any more are dropped after so long.
const FORGET_STRANGERS: Duration = Duration::from_secs(3_600);

/// So many times `dead_after` one that stands still is spared at most, however often the store goes away: else a store that
/// comes and goes would keep a dead node alive.
const MOST_SPARED: u32 = 60;

/// What this node has seen of the others' heartbeats.
#[derive(Debug)]
pub(crate) struct Liveness {
    dead_after: Duration,
    seen: BTreeMap<NodeId, Seen>,
    /// When the last full reading of the node table began.
    read_from: Option<Instant>,
    /// Names that were not in a reading, and when they were first asked for: they may be newer than the reading.
    strangers: BTreeMap<NodeId, Instant>,
}

/// A heartbeat as it was read last.
#[derive(Debug, Clone)]
struct Seen {
    version: Version,
    /// Since when it stands still for all we know; ahead of us while its node is spared.
    since: Instant,
    /// For how long it was spared already.
    spared: Duration,
}

impl Seen {
    fn spare(&mut self, now: Instant, outage: Duration, most: Duration) {
        let grace = outage.min(most.saturating_sub(self.spared));
        if !grace.is_zero() {
            self.spared += grace;
            self.since = now + grace;
        }
    }
}

impl Liveness {
    pub(crate) fn new(dead_after: Duration) -> Self {
        Self { dead_after, seen: BTreeMap::new(), read_from: None, strangers: BTreeMap::new() }
    }

    /// Takes in a full reading of the node table, which began at `from`.
    pub(crate) fn observe(&mut self, from: Instant, nodes: impl IntoIterator<Item = (NodeId, Version)>) {
        let now = Instant::now();
        let outage = self.unread_until(from).filter(|_| !planted::is(Bug::LivenessCountsUnreadTime));
        let mut seen = BTreeMap::new();
        for (node, version) in nodes {
            let known = self.seen.get(&node).filter(|known| known.version == version).cloned();
            let mut entry = known.unwrap_or(Seen { version, since: now, spared: Duration::ZERO });
            if let Some(outage) = outage
                && self.watched(entry.since) < self.dead_after
            {
                entry.spare(now, outage, self.dead_after * MOST_SPARED);
            }
            seen.insert(node, entry);
        }
        self.strangers.retain(|node, asked| !seen.contains_key(node) && now.duration_since(*asked) < FORGET_STRANGERS);
        self.seen = seen;
        self.read_from = Some(from);
    }

    /// Whether that node is dead. One whose record is gone has left properly, since it registered before it did anything;
    /// but only a reading that began after its name was met can show that it is gone and not new.
    pub(crate) fn is_dead(&mut self, now: Instant, node: &NodeId) -> bool {
        if let Some(seen) = self.seen.get(node) {
            return self.watched(seen.since) >= self.dead_after;
        }
        let met = *self.strangers.entry(node.clone()).or_insert(now);
        self.read_from.is_some_and(|from| from > met)
    }

    /// How long nothing was read before a reading that began at `from`, if that was so long that this node had ceased to act.
    fn unread_until(&self, from: Instant) -> Option<Duration> {
        let unread = from.saturating_duration_since(self.read_from?);
        (unread >= self.dead_after / 2).then_some(unread)
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
        let alive = |seen: &Seen| self.watched(seen.since) < self.dead_after;
        self.seen.iter().filter(|(_, seen)| alive(seen)).map(|(node, _)| node.clone()).collect()
    }

    /// Nodes that have been dead for at least `times` the limit: their records can go.
    pub(crate) fn long_dead(&self, times: u32) -> Vec<NodeId> {
        let limit = self.dead_after * times;
        let long = |seen: &Seen| self.watched(seen.since) >= limit;
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

        let seconds = Duration::from_secs;
        liveness.observe(Instant::now(), [beat(1)]);
        for second in 1..=18 {
            tokio::time::advance(seconds(1)).await;
            liveness.observe(Instant::now(), [beat(if second < 9 { 1 } else { 2 })]);
        }
        assert!(!liveness.is_dead(Instant::now(), &node), "it beat nine seconds ago");

        tokio::time::advance(seconds(1)).await;
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
    async fn who_stands_still_over_an_outage_is_spared_as_long_again_and_no_longer() {
        let (dead_after, outage) = (Duration::from_secs(10), Duration::from_secs(300));
        let [dead, still, back] = ["dead", "still", "back"].map(|name| NodeId::new(name).unwrap());
        let mut liveness = Liveness::new(dead_after);
        let see = |liveness: &mut Liveness, of_still: &str, of_back: &str| {
            let version = |text: &str| Version(text.to_owned());
            let all =
                [(dead.clone(), version("1")), (still.clone(), version(of_still)), (back.clone(), version(of_back))];
            liveness.observe(Instant::now(), all);
        };
        for second in 0..=10 {
            see(&mut liveness, &second.to_string(), &second.to_string());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(liveness.is_dead(Instant::now(), &dead));
        tokio::time::advance(outage).await;
        see(&mut liveness, "10", "10");
        assert!(liveness.is_dead(Instant::now(), &dead), "it was before");
        assert_eq!(liveness.live(), [back.clone(), still.clone()]);
        let ended = Instant::now();
        while !liveness.is_dead(Instant::now(), &still) {
            tokio::time::advance(Duration::from_secs(1)).await;
            see(&mut liveness, "10", "11");
        }
        assert_eq!(ended.elapsed(), outage + Duration::from_secs(1) + dead_after);
        assert!(liveness.is_dead(Instant::now(), &back), "one beat since, and then none: it is watched as anybody is");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_comes_and_goes_does_not_keep_a_dead_node_alive_for_ever() {
        let node = NodeId::new("n1").unwrap();
        let mut liveness = Liveness::new(Duration::from_secs(10));
        let begun = Instant::now();
        liveness.observe(begun, [(node.clone(), Version("1".into()))]);
        while !liveness.is_dead(Instant::now(), &node) {
            tokio::time::advance(Duration::from_secs(30)).await;
            liveness.observe(Instant::now(), [(node.clone(), Version("1".into()))]);
            assert!(begun.elapsed() < Duration::from_secs(1_000));
        }
        assert!(begun.elapsed() > Duration::from_secs(10) * MOST_SPARED);
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
