//! Numbers drawn from a seed and from what they are for, in the shapes that people's habits have.

use crate::engine::{Draw, Hash};

/// Nobody stays longer than this, in seconds.
const LONGEST_STAY: f64 = 12.0 * 3_600.0;

#[derive(Debug, Clone, Copy)]
pub(super) struct Luck {
    key: Hash,
    draw: Draw,
}

impl Luck {
    pub(super) fn new(seed: u64) -> Self {
        Self::keyed(Hash::new(seed).text("arrivals"))
    }

    fn keyed(key: Hash) -> Self {
        Self { key, draw: key.draw() }
    }

    /// What is drawn for that and nothing else.
    pub(super) fn of(self, what: &str, n: u64) -> Self {
        Self::keyed(self.key.text(what).number(n))
    }

    /// Evenly in 0..1.
    pub(super) fn share(&mut self) -> f64 {
        self.draw.share()
    }

    pub(super) fn chance(&mut self, of: f64) -> bool {
        self.draw.chance(of)
    }

    /// An index below `n`, which is at least 1.
    pub(super) fn one_of(&mut self, n: usize) -> usize {
        self.draw.between(0, n as u64 - 1) as usize
    }

    /// About normal, with mean 0 and deviation 1: four even numbers, so that every machine draws the same.
    pub(super) fn normal(&mut self) -> f64 {
        let even = self.share() + self.share() + self.share() + self.share();
        (even - 2.0) * 3_f64.sqrt()
    }

    /// Log-normal around a median, with deviation 1 of the logarithm.
    pub(super) fn length(&mut self, median: f64) -> f64 {
        (median * self.normal().exp()).min(LONGEST_STAY)
    }

    /// Exponential, with mean `1 / rate`.
    pub(super) fn gap(&mut self, rate: f64) -> f64 {
        -(1.0 - self.share()).ln() / rate
    }

    /// Has the second parts change places (Fisher and Yates).
    pub(super) fn shuffle_second<A, B>(&mut self, list: &mut [(A, B)]) {
        for last in (1..list.len()).rev() {
            let other = self.one_of(last + 1);
            if other < last {
                let (left, right) = list.split_at_mut(last);
                std::mem::swap(&mut left[other].1, &mut right[0].1);
            }
        }
    }
}
