//! Which records were seen when their tables were read last: eight bytes for each.
//!
//! Of a name only its hash is kept. One that was not seen and has the hash of one that was would be taken for seen: one chance in 18 million,
//! if a million strangers are asked about among a million.

use crate::random::mix;

/// Names, as they are read.
#[derive(Debug, Default)]
pub(crate) struct Known(Vec<u64>);

/// Names that can be asked about.
#[derive(Debug)]
pub(crate) struct OrderedKnown(Vec<u64>);

impl Known {
    pub(crate) fn add(&mut self, name: &str) {
        self.0.push(mix("", name));
    }

    pub(crate) fn ordered(mut self) -> OrderedKnown {
        self.0.sort_unstable();
        OrderedKnown(self.0)
    }
}

impl OrderedKnown {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.binary_search(&mix("", name)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_known_and_nothing_else() {
        let mut known = Known::default();
        (0..1_000).for_each(|n| known.add(&format!("v-{n:016x}")));
        let known = known.ordered();
        assert!((0..2_000).all(|n| known.has(&format!("v-{n:016x}")) == (n < 1_000)));
    }
}
