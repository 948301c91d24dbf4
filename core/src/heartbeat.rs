//! Saying that this node is alive, seeing who else is, and holding the maintainer's lease.
//!
//! One write a period for the node and one for the lease, however many boxes there are. If the process dies here, the
//! others see the heartbeat stand still.

use crate::error::{ErrorKind, Result};
use crate::id::NodeId;
use crate::planted::{self, Bug};
use crate::pool::Breakers;
use crate::record::{Envelope, LeaseRecord, NodeRecord};
use crate::records::{Held, lease_key, node_key};
use crate::shared::Shared;
use crate::stock::{INSTANCES, VOLUMES};
use crate::store::Version;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) const MAINTAINER: &str = "maintainer";

/// Records of nodes that were dead for so many times the limit are removed.
const FORGET_AFTER: u32 = 60;

impl Shared {
    pub(crate) async fn register(&self) -> Result<()> {
        let record = NodeRecord {
            id: self.node.clone(),
            started_at: self.now(),
            beat: 0,
            waiting: 0,
            instances_taken: 0,
            volumes_taken: 0,
            golden: self.golden.as_ref().map(|builder| builder.generation().to_owned()),
            envelope: Envelope::new(),
        };
        let begun = Instant::now();
        self.records.insert(&node_key(&self.node), record).await?;
        self.state().touch.confirm(begun);
        Ok(())
    }

    pub(crate) async fn unregister(&self) -> Result<()> {
        let key = node_key(&self.node);
        let mut again = true;
        loop {
            let Some(held) = self.records.get::<NodeRecord>(&key).await? else { return Ok(()) };
            match self.records.delete(&key, &held.version).await {
                // A heartbeat that was under way when the worker stopped has landed since. There is no other after it.
                Err(error) if error.kind() == ErrorKind::Conflict && again => again = false,
                answer => return answer,
            }
        }
    }

    pub(crate) async fn keep_alive(self: Arc<Self>) {
        let mut lease = LeaseWatch::default();
        loop {
            let begun = Instant::now();
            if let Err(error) = self.beat(begun).await {
                tracing::warn!(error = %crate::Report(&error), "heartbeat failed");
            }
            if let Err(error) = self.see_others().await {
                tracing::warn!(error = %crate::Report(&error), "could not read who is alive");
            }
            if let Err(error) = self.hold_lease(&mut lease).await
                && error.kind() != ErrorKind::Conflict
            {
                tracing::warn!(error = %crate::Report(&error), "could not hold the maintainer's lease");
            }
            tokio::time::sleep_until(begun + self.config.heartbeat_every).await;
        }
    }

    async fn beat(&self, begun: Instant) -> Result<()> {
        let key = node_key(&self.node);
        match self.records.get::<NodeRecord>(&key).await? {
            Some(held) => {
                let mut record = held.record.clone();
                record.beat += 1;
                record.waiting = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
                (record.instances_taken, record.volumes_taken) = {
                    let state = self.state();
                    (state.instance_pace.taken(), state.volume_pace.taken())
                };
                #[cfg(feature = "planted")]
                planted::note_beat(&self.node, self.now());
                self.records.update(&key, &held.version, record).await?;
            }
            // Others gave this node up long ago and tidied up. What it did is theirs now; it begins again.
            None => return self.register().await,
        }
        // Counted from before the write: others may have seen it that early.
        self.state().touch.confirm(begun);
        Ok(())
    }

    async fn see_others(self: &Arc<Self>) -> Result<()> {
        let from = Instant::now();
        let nodes = self.records.scan_all::<NodeRecord>(None).await?;
        let versions = nodes.iter().map(|(_, held)| (held.record.id.clone(), held.version.clone()));
        let (forgotten, live) = {
            let mut state = self.state();
            let before = state.liveness.live();
            state.liveness.observe(from, versions);
            let live = state.liveness.live();
            if before.iter().any(|node| !live.contains(node)) {
                self.look_now.notify_one();
            }
            state.free_instances.set_live(live.clone(), &self.random);
            state.free_volumes.set_live(live.clone(), &self.random);
            let others = || nodes.iter().map(|(_, held)| &held.record).filter(|record| record.id != self.node);
            let waiting = others().filter(|record| live.contains(&record.id)).map(|record| record.waiting);
            let waiting = waiting.fold(0, u32::saturating_add);
            state.waiting_elsewhere = if planted::is(Bug::WaitersElsewhereUnseen) { 0 } else { waiting };
            let instances = others().map(|record| record.instances_taken).fold(0, u64::saturating_add);
            let volumes = others().map(|record| record.volumes_taken).fold(0, u64::saturating_add);
            if state.instance_pace.heard(instances) || state.waiting_elsewhere > 0 {
                self.count_if_lacking(&INSTANCES, &mut state);
            }
            if state.volume_pace.heard(volumes) {
                self.count_if_lacking(&VOLUMES, &mut state);
            }
            (state.liveness.long_dead(FORGET_AFTER), live)
        };
        self.offer_room();
        self.gauge("boxpool_nodes_live", u32::try_from(live.len()).unwrap_or(u32::MAX));
        for (key, held) in nodes {
            if held.record.id != self.node && forgotten.contains(&held.record.id) {
                // Conflict: it came back.
                let _ = self.records.delete(&key, &held.version).await;
            }
        }
        Ok(())
    }

    async fn hold_lease(&self, watch: &mut LeaseWatch) -> Result<()> {
        let key = lease_key(MAINTAINER);
        let begun = Instant::now();
        let found = self.records.get::<LeaseRecord>(&key).await?;
        {
            let mut state = self.state();
            state.pause = found.as_ref().and_then(|held| held.record.pause.clone());
            state.breakers = found.as_ref().map(|held| Breakers::told(&held.record)).unwrap_or_default();
        }
        let Some(held) = found else {
            let record = LeaseRecord::new(self.node.clone());
            match self.records.insert(&key, record).await {
                Ok(_) => self.state().lease_confirmed = Some(begun),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            return Ok(());
        };
        if self.is_draining() {
            if held.record.holder == self.node {
                self.state().lease_confirmed = None;
                // The record stays: what a person ordered, and how quiet the pools were, outlive this node.
                if !held.record.given_up {
                    let record = LeaseRecord { given_up: true, ..self.handed_on(&held.record) };
                    self.records.update(&key, &held.version, record).await?;
                }
            }
            return Ok(());
        }
        let ours = held.record.holder == self.node;
        let expired = !planted::is(Bug::LeaseNeverExpires)
            && (held.record.given_up
                || self.is_dead(&held.record.holder)
                || watch.stands_still(&held, self.config.dead_after));
        if ours || expired {
            let past = if ours { self.handed_on(&held.record) } else { held.record.clone() };
            let beat = held.record.beat + 1;
            let record = LeaseRecord { holder: self.node.clone(), beat, given_up: false, ..past };
            self.records.update(&key, &held.version, record).await?;
            self.state().lease_confirmed = Some(begun);
            if !ours {
                {
                    let mut state = self.state();
                    state.instance_pace.take_up(held.record.instances);
                    state.volume_pace.take_up(held.record.volumes);
                    state.forecast.forget();
                }
                tracing::info!(from = %held.record.holder, "this node is the maintainer now");
                self.refill_instances.notify_one();
                self.refill_volumes.notify_one();
            }
        } else {
            self.state().lease_confirmed = None;
        }
        Ok(())
    }
}

impl Shared {
    /// What the maintainer fails at.
    pub(crate) fn breakers(&self) -> Breakers {
        let maintainer = self.is_maintainer();
        let state = self.state();
        if maintainer {
            return Breakers::of(&state.instance_pace.past(), &state.volume_pace.past());
        }
        state.breakers.clone()
    }

    /// The lease with what this node, the maintainer, knows of the pools.
    fn handed_on(&self, lease: &LeaseRecord) -> LeaseRecord {
        let state = self.state();
        LeaseRecord { instances: state.instance_pace.past(), volumes: state.volume_pace.past(), ..lease.clone() }
    }
}

/// Whether others may take this node for dead, as its own heartbeats tell.
#[derive(Debug)]
pub(crate) struct Touch {
    /// How long after a heartbeat the next one must be confirmed.
    limit: Duration,
    /// Before the last confirmed heartbeat was written: others may have seen it that early.
    last: Instant,
    /// Since when no heartbeat was missing.
    since: Instant,
}

impl Touch {
    pub(crate) fn new(limit: Duration) -> Self {
        let now = Instant::now();
        Self { limit, last: now, since: now }
    }

    /// A heartbeat that was begun then is in the store.
    fn confirm(&mut self, begun: Instant) {
        if !self.is_kept() {
            self.since = Instant::now();
        }
        self.last = begun;
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.last.elapsed() < self.limit
    }

    /// Whether it was kept from then until now: nobody can have taken this node for dead in between.
    pub(crate) fn is_kept_since(&self, then: Instant) -> bool {
        self.is_kept() && self.since <= then
    }
}

/// What this node has seen of the lease.
#[derive(Default)]
struct LeaseWatch(Option<(NodeId, Version, Instant)>);

impl LeaseWatch {
    /// Whether a live node's lease was not renewed for so long before our eyes (its maintainer hangs).
    fn stands_still(&mut self, held: &Held<LeaseRecord>, limit: Duration) -> bool {
        match &self.0 {
            Some((holder, version, since)) if *holder == held.record.holder && *version == held.version => {
                since.elapsed() >= limit
            }
            _ => {
                self.0 = Some((held.record.holder.clone(), held.version.clone(), Instant::now()));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Held<LeaseRecord> {
        let holder = NodeId::new(holder).unwrap();
        let record = LeaseRecord::new(holder);
        Held { record, version: Version(version.to_owned()) }
    }

    #[tokio::test(start_paused = true)]
    async fn touch_is_kept_while_each_heartbeat_comes_in_time() {
        let second = Duration::from_secs(1);
        let mut touch = Touch::new(second * 5);
        let begun = Instant::now();
        tokio::time::advance(second * 4).await;
        assert!(touch.is_kept_since(begun));
        touch.confirm(begun + second * 3);
        tokio::time::advance(second * 3).await;
        assert!(touch.is_kept_since(begun), "it counts from before the write");
        tokio::time::advance(second).await;
        assert!(!touch.is_kept());
        touch.confirm(begun + second * 7);
        assert!(touch.is_kept());
        assert!(!touch.is_kept_since(begun), "it was lost in between");
        assert!(touch.is_kept_since(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_stands_still_when_one_version_of_one_holder_was_seen_for_so_long() {
        let (limit, half) = (Duration::from_secs(10), Duration::from_secs(5));
        let mut watch = LeaseWatch::default();
        assert!(!watch.stands_still(&lease("a", "1"), limit), "seen for the first time");
        tokio::time::advance(half).await;
        assert!(!watch.stands_still(&lease("a", "1"), limit));
        tokio::time::advance(half).await;
        assert!(watch.stands_still(&lease("a", "1"), limit));
        assert!(!watch.stands_still(&lease("a", "2"), limit), "it was renewed");
        tokio::time::advance(half).await;
        assert!(!watch.stands_still(&lease("a", "3"), limit));
        tokio::time::advance(half).await;
        assert!(!watch.stands_still(&lease("a", "4"), limit), "renewed again and again");
        assert!(!watch.stands_still(&lease("b", "4"), limit), "another holds it");
        tokio::time::advance(limit).await;
        assert!(watch.stands_still(&lease("b", "4"), limit));
    }
}
