//! Counting: connections that have not logged in, by address and in all, addresses whose logins fail again and again, and
//! work that still runs.

use crate::lock::lock;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Addresses whose failed logins are remembered. Beyond that all are forgotten, so that a flood takes no memory.
const FAILURES_MAX: usize = 10_000;

/// Connections that may not have logged in yet, at once.
#[derive(Debug, Clone)]
pub struct PreAuth(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_per_address: usize,
    ban: Ban,
    counts: Mutex<Counts>,
}

/// When an address may not log in for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// After so many connections that offered keys and did not log in; zero: never.
    pub after: u32,
    /// For so long; failures that are further apart than this are not counted together.
    pub lasts: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
    failures: HashMap<IpAddr, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

/// One connection that is counted until this is dropped.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl PreAuth {
    /// At most `most` in all, and `most_per_address` from one address.
    #[must_use]
    pub fn new(most: usize, most_per_address: usize, ban: Ban) -> Self {
        Self(Arc::new(Shared { most, most_per_address, ban, counts: Mutex::default() }))
    }

    /// Counts a connection from `address` at the time `now`.
    ///
    /// # Errors
    /// A sentence that says which limit is reached.
    pub fn admit(&self, address: IpAddr, now: Instant) -> Result<Permit, &'static str> {
        let (shared, address) = (&self.0, site(address));
        let mut counts = lock(&shared.counts);
        if counts.failures.get(&address).is_some_and(|failures| shared.ban.holds(*failures, now)) {
            return Err("too many logins from your address have failed; try again later");
        }
        if counts.all >= shared.most {
            return Err("too many connections are logging in; try again in a moment");
        }
        let from_here = counts.by_address.entry(address).or_default();
        if *from_here >= shared.most_per_address {
            return Err("too many connections from your address are logging in; try again in a moment");
        }
        *from_here += 1;
        counts.all += 1;
        Ok(Permit { shared: Arc::clone(shared), address })
    }
}

impl Ban {
    fn holds(self, failures: Failures, now: Instant) -> bool {
        self.after > 0 && failures.count >= self.after && self.is_recent(failures, now)
    }

    fn is_recent(self, failures: Failures, now: Instant) -> bool {
        now.saturating_duration_since(failures.last) < self.lasts
    }
}

impl Permit {
    /// The connection ended without a login although it offered keys. Answers whether its address is banned now.
    pub fn failed(self, now: Instant) -> bool {
        let ban = self.shared.ban;
        if ban.after == 0 {
            return false;
        }
        let mut counts = lock(&self.shared.counts);
        let failures = &mut counts.failures;
        if failures.len() >= FAILURES_MAX && !failures.contains_key(&self.address) {
            failures.retain(|_, each| ban.is_recent(*each, now));
            if failures.len() >= FAILURES_MAX {
                failures.clear();
            }
        }
        let each = failures.entry(self.address).or_insert(Failures { count: 0, last: now });
        let before = if ban.is_recent(*each, now) { each.count } else { 0 };
        *each = Failures { count: before.saturating_add(1), last: now };
        ban.holds(*each, now)
    }

    /// The connection logged in: what failed from its address before is forgotten.
    pub fn succeeded(self) {
        lock(&self.shared.counts).failures.remove(&self.address);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.shared.counts);
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// What is counted as one address: whoever has one of IPv6 has the 2^64 beside it as well.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Work that runs; a stop waits until it has ended.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<watch::Sender<usize>>);

/// One piece of work, until this is dropped.
#[derive(Debug)]
pub struct Running(Arc<watch::Sender<usize>>);

impl Activity {
    /// Counts one more piece of work.
    #[must_use]
    pub fn begin(&self) -> Running {
        self.0.send_modify(|count| *count += 1);
        Running(Arc::clone(&self.0))
    }

    /// How much runs.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until nothing runs; `false` when `limit` passed first.
    pub async fn ended(&self, limit: Duration) -> bool {
        let mut count = self.0.subscribe();
        tokio::time::timeout(limit, count.wait_for(|count| *count == 0)).await.is_ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(60);

    fn limit(most: usize, most_per_address: usize, after: u32) -> PreAuth {
        PreAuth::new(most, most_per_address, Ban { after, lasts: LASTS })
    }

    #[test]
    fn each_address_and_all_together_are_limited_and_a_place_comes_back() {
        let (limit, now) = (limit(3, 2, 0), Instant::now());
        let (a, b): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = limit.admit(a, now).unwrap();
        let _second = limit.admit(a, now).unwrap();
        assert!(limit.admit(a, now).unwrap_err().contains("your address"));
        let _third = limit.admit(b, now).unwrap();
        assert!(!limit.admit(b, now).unwrap_err().contains("your address"));
        drop(first);
        limit.admit(a, now).unwrap();
    }

    #[test]
    fn an_address_whose_logins_fail_waits_and_a_login_forgives() {
        let (limit, now) = (limit(9, 9, 2), Instant::now());
        let (a, b): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8:0:1::1".parse().unwrap());
        assert!(!limit.admit(a, now).unwrap().failed(now));
        limit.admit(a, now).unwrap().succeeded();
        assert!(!limit.admit(a, now).unwrap().failed(now));
        // Another address of the same network counts with it.
        assert!(limit.admit("2001:db8::2".parse().unwrap(), now).unwrap().failed(now));
        assert!(limit.admit(a, now).unwrap_err().contains("have failed"));
        limit.admit(b, now).unwrap();
        assert!(!limit.admit(a, now + LASTS).unwrap().failed(now + LASTS), "it begins anew");
    }

    #[test]
    fn without_a_number_nobody_is_banned() {
        let (limit, now) = (limit(9, 9, 0), Instant::now());
        let a: IpAddr = [127, 0, 0, 1].into();
        for _ in 0..100 {
            assert!(!limit.admit(a, now).unwrap().failed(now));
        }
    }
}
