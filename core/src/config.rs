//! How a pool is set up.

use crate::plan::WarmTarget;
use crate::provider::VolumeSource;
use std::num::NonZeroU32;
use std::time::Duration;

/// How long each kind of wait may last. Every wait has a limit; the error names the one that ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One call to the state store.
    pub store_call: Duration,
    /// When the state store has answered nothing for so long while it was asked, who comes is refused at once, as `Unavailable`,
    /// until it answers again. A store's slow answers must not be taken for it, nor a disk that is busy for a moment.
    pub store_silence: Duration,
    /// One call to a provider. Such calls only begin work, or look; what they begin has limits of its own.
    pub provider_call: Duration,
    /// Attaching a volume, polls included. Azure: 10–15 s as a rule, over 120 s in 0.8 % of cases.
    pub attach: Duration,
    /// Detaching a volume, polls included, before the ladder goes on to stopping the instance.
    pub detach: Duration,
    /// Starting a guest.
    pub start: Duration,
    /// Saving a guest's memory.
    pub suspend: Duration,
    /// How long a guest that is stopped may take to shut itself down before it is ended.
    pub shut_down: Duration,
    /// A guest that does not answer is asked again for so long before it is ended and started anew: its memory is lost then.
    pub unresponsive: Duration,
    /// Ending a guest, asking for its status, clearing an instance.
    pub guest_call: Duration,
    /// Making an instance until it is ready, and deleting one.
    pub instance_ready: Duration,
    /// Making a volume until it is ready, and deleting one.
    pub volume_ready: Duration,
    /// One attempt to build, verify or delete a golden snapshot. The next one goes on where it stopped.
    pub golden: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            store_call: seconds(10),
            store_silence: seconds(5),
            provider_call: seconds(60),
            attach: seconds(180),
            detach: seconds(180),
            start: seconds(120),
            suspend: seconds(120),
            shut_down: seconds(45),
            unresponsive: seconds(15),
            guest_call: seconds(30),
            instance_ready: seconds(600),
            volume_ready: seconds(300),
            golden: seconds(3_600),
        }
    }
}

/// What becomes of an instance after it served a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Recycle {
    /// It serves again once it was shown that nothing of the box is left; deleted on doubt.
    #[default]
    ReuseWhenClean,
    /// It is always deleted.
    Destroy,
}

/// All settings of a pool, with defaults that suit one host.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolConfig {
    /// What new volumes are filled with.
    pub volume_source: VolumeSource,
    /// Edition of `volume_source`: free volumes of another one are retired.
    pub volume_generation: String,
    /// Edition of the instance template: free instances of another one are retired.
    pub instance_generation: String,
    /// How many instances are kept.
    pub instances: WarmTarget,
    /// How many volumes are kept ready; `max_total` counts the bound ones too.
    pub volumes: WarmTarget,
    /// How long a box goes on running after its last session.
    pub linger: Duration,
    /// A box parked for longer gives its instance back even when nobody waits. It is measured with wall clocks; a box that was parked
    /// by one that is ahead counts as parked since it was first seen by one that is not.
    pub park_limit: Duration,
    /// At most this share of `instances.max_total` is held by boxes that nobody is at: 0 to 1. 1, the default, for no such limit. What is
    /// above gives its instance back although nobody waits, as the parking policy ranks it; none is attached ahead beyond it.
    pub held_share: f64,
    /// How long a connect may take, waiting for capacity included, unless the request says otherwise.
    pub connect_deadline: Duration,
    /// At most so many connects of this node wait for capacity; more are refused at once.
    pub max_waiting: usize,
    /// How often this node says that it is alive.
    pub heartbeat_every: Duration,
    /// A node whose heartbeat did not change for so long, as seen here, is dead. At least four times the above.
    pub dead_after: Duration,
    /// How often the pools are counted, beside whenever something is taken or somebody waits.
    pub maintain_every: Duration,
    /// How often half-done work is looked for.
    pub reconcile_every: Duration,
    /// How often every box and volume record and the cloud's own lists are looked through.
    pub census_every: Duration,
    /// All nodes together read about so many records a second, and no more, for each of what they do again and again: looking for
    /// half-done work, looking through everything, and counting the pools at rest. With so many records or nodes that this would not
    /// do, they do it less often than the three settings above say; but once an hour, and at once when a node is seen to be gone
    /// or an instance is to be emptied. Half of it is the maintainer's, so that nothing is left longer with many nodes than with
    /// two. While somebody waits for an instance, their node looks for free ones at this rate by itself. Ten records of a page
    /// count as one that is read by itself. 2,000, the default, is a tenth of what a storage account of Azure serves.
    ///
    /// The gauge `boxpool_pass_interval_seconds` says how far apart a node's looks for half-done work are.
    pub reads_per_second: NonZeroU32,
    /// A cloud resource without a record is left alone for so long.
    pub orphan_grace: Duration,
    /// What becomes of an instance after it served a box.
    pub recycle: Recycle,
    /// For so long an owner may have back a box that was deleted. Zero, the default: deleted is gone. It is measured with wall
    /// clocks: a node whose clock is ahead removes boxes earlier by as much.
    pub retention: Duration,
    /// How long each kind of wait may last.
    pub limits: Limits,
}

impl PoolConfig {
    /// The default of [`reads_per_second`](Self::reads_per_second).
    // Unwrapped by the compiler: a zero would not compile.
    pub const READS_PER_SECOND: NonZeroU32 = NonZeroU32::new(2_000).unwrap();

    /// Settings with the required part given.
    #[must_use]
    pub fn new(volume_source: VolumeSource, volume_generation: impl Into<String>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            volume_source,
            volume_generation: volume_generation.into(),
            instance_generation: "1".into(),
            instances: WarmTarget::new(1, 4, 8),
            volumes: WarmTarget::new(1, 4, 10_000),
            linger: seconds(10),
            park_limit: seconds(24 * 3600),
            held_share: 1.0,
            connect_deadline: seconds(300),
            max_waiting: 1_000,
            heartbeat_every: seconds(2),
            dead_after: seconds(10),
            maintain_every: seconds(2),
            reconcile_every: seconds(3),
            census_every: seconds(60),
            reads_per_second: Self::READS_PER_SECOND,
            orphan_grace: seconds(600),
            recycle: Recycle::default(),
            retention: Duration::ZERO,
            limits: Limits::default(),
        }
    }

    /// How long this node may go without a confirmed heartbeat before it stops acting, so that it has stopped before others
    /// take it for dead.
    pub(crate) fn fence_after(&self) -> Duration {
        self.dead_after / 2
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.instances.check("instances")?;
        self.volumes.check("volumes")?;
        if self.volumes.goal.is_some() {
            return Err("volumes: there is no goal for volumes; keep as many as are bound while one is made".into());
        }
        if self.volumes.max_reserve > 0 {
            return Err("volumes: max_reserve must be 0; a volume cannot be stopped".into());
        }
        if self.dead_after < self.heartbeat_every * 4 {
            return Err(format!(
                "dead_after {:?} is less than four heartbeats of {:?}; one lost heartbeat must not kill a node",
                self.dead_after, self.heartbeat_every
            ));
        }
        let periods = [self.heartbeat_every, self.maintain_every, self.reconcile_every, self.census_every];
        if periods.iter().any(Duration::is_zero) {
            let names = "heartbeat_every, maintain_every, reconcile_every and census_every";
            return Err(format!("{names} must be longer than zero"));
        }
        if !(0.0..=1.0).contains(&self.held_share) {
            return Err(format!("held_share {} must be between 0 and 1", self.held_share));
        }
        if self.max_waiting == 0 {
            return Err("max_waiting must be at least 1".into());
        }
        Ok(())
    }
}
