//! Seeded randomness for spreading picks and naming things. Not for secrets.

use std::sync::atomic::{AtomicU64, Ordering};

/// A generator that the whole node shares: SplitMix64 (Steele, Lea & Flood 2014), one atomic step a draw.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        finish(self.0.fetch_add(GOLDEN_GAMMA, Ordering::Relaxed).wrapping_add(GOLDEN_GAMMA))
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&self, bound: usize) -> usize {
        // Lemire's multiply-shift; the bias at pool sizes is below 2^-40.
        let wide = u128::from(self.next()) * bound as u128;
        (wide >> 64) as usize
    }

    /// 16 lower-case hex digits.
    pub(crate) fn suffix(&self) -> String {
        format!("{:016x}", self.next())
    }
}

fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A weight for a pair of texts, the same on every node (FNV-1a, finished as SplitMix64).
pub(crate) fn mix(a: &str, b: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in a.bytes().chain([0xff]).chain(b.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    finish(hash)
}
