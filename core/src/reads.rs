//! How often whole tables are read when nothing asks for it. What that costs grows with the records, and with the nodes that do it; so
//! the more there is of both, the less often it is done, and all nodes together never read much more than
//! [`PoolConfig::reads_per_second`](crate::PoolConfig::reads_per_second) for it.

use crate::shared::Shared;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::time::Instant;

/// So many records on pages cost as much as one that is read by itself. In processor time, with the SQLite file: 3.5 µs and 30 to 50.
/// A service counts them as fewer still: with Azure Tables a page of a thousand is one transaction.
const ON_PAGES: u64 = 10;

/// However much there is to read, it is read once in so long.
const LONGEST: Duration = Duration::from_secs(3_600);

/// How much was read at one go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    alone: u64,
    on_pages: u64,
}

impl Reads {
    pub(crate) fn on_page(records: usize) -> Self {
        Self { alone: 0, on_pages: records as u64 }
    }

    /// Records on pages were read, too.
    pub(crate) fn add_on_page(&mut self, records: usize) {
        self.on_pages += records as u64;
    }

    /// So many were read by themselves, too.
    pub(crate) fn add_alone(&mut self, records: usize) {
        self.alone += records as u64;
    }

    /// For how long that is enough, at so many reads a second.
    pub(crate) fn last_for(self, per_second: NonZeroU32) -> Duration {
        let per_second = u64::from(per_second.get());
        let tenths = self.alone.saturating_mul(ON_PAGES).saturating_add(self.on_pages);
        let millis = tenths.saturating_mul(1_000 / ON_PAGES) / per_second;
        Duration::from_millis(millis).min(LONGEST)
    }
}

/// When it was read last, and how much that was.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LastReading {
    begun: Option<Instant>,
    pub(crate) reads: Reads,
}

impl LastReading {
    /// It begins anew. Until it is known how much it is, it is taken to be as much as before.
    pub(crate) fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// When it is to begin again if so much time is to lie between.
    pub(crate) fn next(&self, rest: Duration) -> Option<Instant> {
        Some(self.begun? + rest)
    }

    /// Whether so much time has passed since it began.
    pub(crate) fn is_over(&self, rest: Duration) -> bool {
        self.next(rest).is_none_or(|next| next <= Instant::now())
    }
}

/// For how many such nodes as this one the reads must suffice. Half of them are the maintainer's, so that what is left half-done is found
/// as soon with many nodes as with two.
fn nodes_like_this(live: usize, maintainer: bool) -> u32 {
    let others = u32::try_from(live.saturating_sub(1)).unwrap_or(u32::MAX);
    match others {
        0 => 1,
        _ if maintainer => 2,
        _ => others.saturating_mul(2),
    }
}

impl Shared {
    /// For how long this node does not read that much again, unless somebody waits for it.
    pub(crate) fn rest_after(&self, reads: Reads) -> Duration {
        let maintainer = self.is_maintainer();
        let live = self.state().liveness.live().len();
        let rest = reads.last_for(self.config.reads_per_second).saturating_mul(nodes_like_this(live, maintainer));
        rest.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_records_on_a_page_are_a_read() {
        let mut reads = Reads::on_page(20_000);
        assert_eq!(reads.last_for(NonZeroU32::new(1_000).unwrap()), Duration::from_secs(2));
        reads.add_alone(1_000);
        reads.add_on_page(10_000);
        assert_eq!(reads.last_for(NonZeroU32::new(1_000).unwrap()), Duration::from_secs(4));
        assert_eq!(Reads::default().last_for(NonZeroU32::MIN), Duration::ZERO);
        assert_eq!(Reads::on_page(usize::MAX).last_for(NonZeroU32::MIN), LONGEST);
    }

    #[test]
    fn all_nodes_together_read_as_much_as_one_alone_and_the_maintainer_half_of_it() {
        assert_eq!([nodes_like_this(0, false), nodes_like_this(1, true)], [1, 1]);
        for live in [2, 3, 16] {
            let others = (live - 1) as f64 / f64::from(nodes_like_this(live, false));
            assert_eq!(others, 0.5, "{live}");
            assert_eq!(nodes_like_this(live, true), 2);
        }
    }
}
