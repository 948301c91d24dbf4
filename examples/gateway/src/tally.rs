//! Counts since the start, and how fast they rise.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How far back rates look.
const SPAN: Duration = Duration::from_secs(300);

/// Counts since the start, changed as things happen.
#[derive(Debug, Default)]
pub struct Tallies {
    /// Connections that came.
    pub connections: AtomicU64,
    /// Logins.
    pub logins: AtomicU64,
    /// Connections that ended without a login.
    pub refused: AtomicU64,
    /// Channels that were opened.
    pub channels: AtomicU64,
    /// Bytes that came, on connections that have ended.
    pub bytes_in: AtomicU64,
    /// Bytes that went, on connections that have ended.
    pub bytes_out: AtomicU64,
}

impl Tallies {
    /// All of them now, with the bytes of connections that are still there.
    #[must_use]
    pub fn read(&self, live: (u64, u64)) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            connections: load(&self.connections),
            logins: load(&self.logins),
            refused: load(&self.refused),
            channels: load(&self.channels),
            bytes_in: load(&self.bytes_in) + live.0,
            bytes_out: load(&self.bytes_out) + live.1,
        }
    }
}

/// [`Tallies`] at one moment; or how much they rose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that came.
    pub connections: u64,
    /// Logins.
    pub logins: u64,
    /// Connections that ended without a login.
    pub refused: u64,
    /// Channels that were opened.
    pub channels: u64,
    /// Bytes that came.
    pub bytes_in: u64,
    /// Bytes that went.
    pub bytes_out: u64,
}

/// Earlier counts, the oldest first.
#[derive(Debug, Default)]
pub struct Rates(VecDeque<(Instant, Counts)>);

impl Rates {
    /// Notes the counts of `now`, and forgets those of long ago.
    pub fn note(&mut self, now: Instant, counts: Counts) {
        // The newest of the old ones is kept, so that the whole span is covered.
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= SPAN) {
            self.0.pop_front();
        }
        self.0.push_back((now, counts));
    }

    /// How much the counts rose, and since when; `None` before anything was noted.
    #[must_use]
    pub fn rise(&self, now: Instant, counts: Counts) -> Option<(Counts, Duration)> {
        let (since, before) = self.0.front()?;
        let rise = Counts {
            connections: counts.connections.saturating_sub(before.connections),
            logins: counts.logins.saturating_sub(before.logins),
            refused: counts.refused.saturating_sub(before.refused),
            channels: counts.channels.saturating_sub(before.channels),
            bytes_in: counts.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: counts.bytes_out.saturating_sub(before.bytes_out),
        };
        Some((rise, now.duration_since(*since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_look_back_over_the_span_and_no_further() {
        let (start, mut rates) = (Instant::now(), Rates::default());
        let at = |second: u64| start + Duration::from_secs(second);
        let counts = |logins: u64| Counts { logins, ..Counts::default() };
        assert_eq!(rates.rise(at(0), counts(0)), None);
        rates.note(at(0), counts(0));
        assert_eq!(rates.rise(at(10), counts(5)), Some((counts(5), Duration::from_secs(10))));
        for second in (10..=1000).step_by(10) {
            rates.note(at(second), counts(second));
        }
        assert_eq!(rates.rise(at(1000), counts(1000)), Some((counts(300), Duration::from_secs(300))));
        assert!(rates.0.len() < 40);
    }
}
