//! What a world costs: how long machines, volumes and snapshots were there, and what that is at given prices.
//!
//! Only what is counted exactly is priced: each time the world moves on, the time since it moved last is added for everything
//! that was there.

use super::world::{Phase, State};
use std::collections::HashSet;
use std::time::Duration;

/// What things cost, in any one currency.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Prices {
    /// A machine that runs, comes or goes, for an hour.
    pub machine_hour: f64,
    /// A machine that is stopped, for an hour: its OS disk.
    pub stopped_machine_hour: f64,
    /// A GiB of a volume, for 730 hours.
    pub volume_gib_month: f64,
    /// A GiB of a snapshot, for 730 hours.
    pub snapshot_gib_month: f64,
    /// Ten thousand calls to the state store.
    pub store_calls_10k: f64,
}

impl Default for Prices {
    /// Examples, in the order of what clouds ask: two processors for 0.10 an hour, an OS disk of 2.40 and a GiB of a fast
    /// disk for 0.15 a month, of a snapshot for 0.05, and 0.0004 for ten thousand calls. Put in your own.
    fn default() -> Self {
        Self {
            machine_hour: 0.10,
            stopped_machine_hour: 2.40 / HOURS_A_MONTH,
            volume_gib_month: 0.15,
            snapshot_gib_month: 0.05,
            store_calls_10k: 0.0004,
        }
    }
}

/// As clouds count: 365 days of 24 hours, a twelfth.
const HOURS_A_MONTH: f64 = 730.0;
const HOUR_MS: f64 = 3_600_000.0;
const GIB: f64 = (1_u64 << 30) as f64;

/// How much of everything a world has used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Machines that ran, came or went: their times, added up.
    pub machines: Duration,
    /// The same for stopped ones.
    pub stopped_machines: Duration,
    /// Machines that ran without a guest on them: what is kept warm.
    pub idle_machines: Duration,
    /// Bytes of volumes, each times the milliseconds it was there.
    pub volume_byte_ms: f64,
    /// The same for snapshots.
    pub snapshot_byte_ms: f64,
    /// Calls to the state store.
    pub store_calls: u64,
}

impl Usage {
    /// What was used after `earlier`, an earlier count of the same world.
    #[must_use]
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            machines: self.machines.saturating_sub(earlier.machines),
            stopped_machines: self.stopped_machines.saturating_sub(earlier.stopped_machines),
            idle_machines: self.idle_machines.saturating_sub(earlier.idle_machines),
            volume_byte_ms: self.volume_byte_ms - earlier.volume_byte_ms,
            snapshot_byte_ms: self.snapshot_byte_ms - earlier.snapshot_byte_ms,
            store_calls: self.store_calls.saturating_sub(earlier.store_calls),
        }
    }

    /// What it costs at these prices.
    #[must_use]
    pub fn bill(&self, prices: &Prices) -> Bill {
        let hours = |time: Duration| time.as_millis() as f64 / HOUR_MS;
        let months = |byte_ms: f64| byte_ms / GIB / HOUR_MS / HOURS_A_MONTH;
        Bill {
            machines: hours(self.machines) * prices.machine_hour
                + hours(self.stopped_machines) * prices.stopped_machine_hour,
            volumes: months(self.volume_byte_ms) * prices.volume_gib_month,
            snapshots: months(self.snapshot_byte_ms) * prices.snapshot_gib_month,
            store: self.store_calls as f64 / 10_000.0 * prices.store_calls_10k,
        }
    }
}

/// What a world costs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Bill {
    /// Machines, running and stopped.
    pub machines: f64,
    /// Volumes.
    pub volumes: f64,
    /// Snapshots.
    pub snapshots: f64,
    /// The state store.
    pub store: f64,
}

impl Bill {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.machines + self.volumes + self.snapshots + self.store
    }
}

/// The count so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meter {
    usage: Usage,
    counted_to: u64,
}

impl State {
    /// Brings the world's time to `now`, and counts what was there since it moved last. Before anything changes.
    pub(crate) fn move_to(&mut self, now: u64) {
        if self.metered {
            self.count_to(now);
        }
        self.now = now;
    }

    fn count_to(&mut self, now: u64) {
        let passed = Duration::from_millis(now.saturating_sub(self.meter.counted_to));
        // Most events happen at the same moment as another one.
        if passed.is_zero() {
            return;
        }
        self.meter.counted_to = now;
        let busy: HashSet<_> = self.guests.keys().map(|(_, on)| on).collect();
        let ms = passed.as_millis() as f64;
        let usage = &mut self.meter.usage;
        for (id, machine) in &self.instances {
            if matches!(machine.phase, Phase::Stopped) {
                usage.stopped_machines += passed;
                continue;
            }
            usage.machines += passed;
            if machine.phase == Phase::Running && !busy.contains(id) {
                usage.idle_machines += passed;
            }
        }
        usage.volume_byte_ms += self.volumes.values().map(|volume| volume.bytes as f64 * ms).sum::<f64>();
        usage.snapshot_byte_ms += self.snapshots.values().map(|snapshot| snapshot.bytes as f64 * ms).sum::<f64>();
    }

    pub(crate) fn used(&mut self, now: u64, store_calls: u64) -> Usage {
        self.count_to(now);
        Usage { store_calls, ..self.meter.usage }
    }
}
