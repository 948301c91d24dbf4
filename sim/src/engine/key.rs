//! Keyed randomness: what is drawn for a call depends on the seed and on which call it is, never on what was drawn
//! before. So taking one operation out of a history leaves every other one's luck as it was, and histories shrink well.

/// A hash that is the same on every machine and in every version: FNV-1a, finished as SplitMix64.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn new(seed: u64) -> Self {
        Self(0xcbf2_9ce4_8422_2325 ^ finish(seed))
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // The length closes the text, so that ("a", "bc") is not ("ab", "c").
        self.number(bytes.len() as u64)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn number(self, number: u64) -> Self {
        Self((self.0 ^ finish(number.wrapping_add(0x9e37_79b9_7f4a_7c15))).wrapping_mul(0x0100_0000_01b3))
    }

    pub(crate) fn draw(self) -> Draw {
        Draw(finish(self.0))
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A short private sequence of random numbers (SplitMix64, Steele, Lea & Flood 2014).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    /// Evenly in 0..1.
    pub(crate) fn share(&mut self) -> f64 {
        // 53 bits: as many as the fraction holds.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1).max(1);
        low + ((u128::from(self.next()) * u128::from(span)) >> 64) as u64
    }

    pub(crate) fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.share() < of
    }

    /// One of the list, which is not empty.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.between(0, list.len() as u64 - 1) as usize]
    }
}
