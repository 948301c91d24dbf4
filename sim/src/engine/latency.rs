//! How long calls take, in virtual time.

use super::key::Draw;
use crate::backend::Operation;
use serde::{Deserialize, Serialize};

/// How long calls take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As a cloud: attach 9 s with a tail over a minute, a machine 43 s, a store call some milliseconds.
    #[default]
    Cloud,
    /// As one host: everything is done when the call returns, within 50 ms.
    Host,
    /// Each call from 1 ms to 8 s, evenly in its logarithm: orderings that neither of the others shows.
    Wild,
    /// Each box, on each gateway, is fast or slow as a whole, and now and then they change places: a schedule by priorities
    /// (PCT, Burckhardt et al. 2010, told in time instead of turns).
    Ranked,
}

/// The latency of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Latency {
    /// From the call to its effect.
    pub(crate) call: u64,
    /// From the effect until what it began is done, for calls that only begin.
    pub(crate) work: u64,
}

/// A median, and how far the 95th percentile lies above it; rarely, a tail.
struct Spread {
    median: f64,
    p95: f64,
    /// The share of cases in the tail, and where it begins; it reaches twice as far.
    tail: (f64, f64),
}

const fn spread(median: f64, p95: f64) -> Spread {
    Spread { median, p95, tail: (0.0, 0.0) }
}

impl Spread {
    fn draw(&self, draw: &mut Draw) -> u64 {
        if draw.chance(self.tail.0) {
            return draw.between(self.tail.1 as u64, 2 * self.tail.1 as u64);
        }
        // Log-normal. Four even draws make a normal one well enough; 1.645 is the normal's 95th percentile.
        let even = draw.share() + draw.share() + draw.share() + draw.share();
        let normal = (even - 2.0) * 3_f64.sqrt();
        let ms = self.median * (self.p95 / self.median).powf(normal / 1.645);
        (ms as u64).max(1)
    }
}

impl Pace {
    /// `rank` is drawn for who calls for what. `vital` calls (heartbeats, leases) are fast unless a fault says otherwise: a
    /// gateway that is taken for dead because everything is always slow teaches nothing.
    pub(crate) fn latency(self, operation: Operation, vital: bool, mut draw: Draw, mut rank: Draw) -> Latency {
        if vital && self != Self::Cloud {
            return Latency { call: draw.between(1, 50), work: 0 };
        }
        // Below the pool's limit for one call to the store.
        let longest = if operation.is_store() { 3_000 } else { 8_000 };
        match self {
            Self::Cloud => Latency {
                call: cloud_call(operation).draw(&mut draw),
                work: cloud_work(operation).map_or(0, |spread| spread.draw(&mut draw)),
            },
            Self::Host => {
                let call = if operation.is_store() { draw.between(1, 4) } else { draw.between(1, 50) };
                Latency { call, work: 0 }
            }
            Self::Wild => {
                let call = (longest as f64).powf(draw.share()) as u64;
                let work = if draw.chance(0.3) { 30_000_f64.powf(draw.share()) as u64 } else { 0 };
                Latency { call: call.max(1), work }
            }
            Self::Ranked => {
                let slow = *rank.pick(&[1, 3, 10, 30, 100, 300, 1_000, 3_000]);
                Latency { call: draw.between(slow, slow + slow / 2).min(longest), work: 0 }
            }
        }
    }
}

/// A request to Azure Resource Manager is answered in 100–300 ms; a Tables call in 5–20 ms; saving and loading memory
/// takes as long as 1–4 GiB take on a premium disk.
fn cloud_call(operation: Operation) -> Spread {
    match operation {
        Operation::StoreGet | Operation::StoreInsert | Operation::StoreUpdate | Operation::StoreDelete => {
            Spread { tail: (0.002, 300.0), ..spread(8.0, 25.0) }
        }
        Operation::StoreScan => spread(20.0, 80.0),
        Operation::GuestStart => Spread { tail: (0.01, 15_000.0), ..spread(1_200.0, 4_000.0) },
        Operation::GuestSuspend => Spread { tail: (0.01, 30_000.0), ..spread(3_000.0, 10_000.0) },
        Operation::GuestStop => spread(300.0, 1_500.0),
        Operation::GuestShutDown => Spread { tail: (0.01, 20_000.0), ..spread(3_000.0, 9_000.0) },
        Operation::GuestStatus => spread(60.0, 200.0),
        Operation::Clear => spread(150.0, 600.0),
        // Seen: 0.63 s from the call to the end.
        Operation::ForceDetach => spread(630.0, 1_200.0),
        _ => spread(180.0, 600.0),
    }
}

/// Measured by others on Azure between 2020 and 2026: attach 8.6–9.1 s, detach 6.3 s, with over 60 s in 5.5 % of cases on a
/// busy account; a machine 42.9 s; start from deallocated 75.6 s; deallocate 29.6 s; a disk copied from a snapshot 1–5 s.
fn cloud_work(operation: Operation) -> Option<Spread> {
    Some(match operation {
        Operation::InstanceEnsure => Spread { tail: (0.02, 180_000.0), ..spread(43_000.0, 80_000.0) },
        Operation::InstanceStart => spread(40_000.0, 75_000.0),
        Operation::InstanceStop => spread(29_600.0, 45_000.0),
        Operation::InstanceDelete => spread(19_600.0, 60_000.0),
        Operation::VolumeEnsure => spread(2_000.0, 5_000.0),
        Operation::VolumeDelete => spread(500.0, 2_000.0),
        Operation::Attach => Spread { tail: (0.055, 60_000.0), ..spread(9_000.0, 15_000.0) },
        Operation::Detach => Spread { tail: (0.055, 60_000.0), ..spread(6_300.0, 15_000.0) },
        Operation::Snapshot => spread(30_000.0, 120_000.0),
        Operation::SnapshotDelete => spread(300.0, 900.0),
        // Between regions: not measured, some minutes for some gigabytes.
        Operation::SnapshotCopy => spread(120_000.0, 600_000.0),
        _ => return None,
    })
}
