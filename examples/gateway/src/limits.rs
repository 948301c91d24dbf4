//! Counting: connections that have not logged in, by address and in all, and work that still runs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Connections that may not have logged in yet, at once.
#[derive(Debug, Clone)]
pub struct PreAuth(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_per_address: usize,
    counts: Mutex<(usize, HashMap<IpAddr, usize>)>,
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
    pub fn new(most: usize, most_per_address: usize) -> Self {
        Self(Arc::new(Shared { most, most_per_address, counts: Mutex::default() }))
    }

    /// Counts a connection from `address`.
    ///
    /// # Errors
    /// A sentence that says which limit is reached.
    pub fn admit(&self, address: IpAddr) -> Result<Permit, &'static str> {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.0 >= self.0.most {
            return Err("too many connections are logging in; try again in a moment");
        }
        let from_here = counts.1.entry(address).or_default();
        if *from_here >= self.0.most_per_address {
            return Err("too many connections from your address are logging in; try again in a moment");
        }
        *from_here += 1;
        counts.0 += 1;
        Ok(Permit { shared: Arc::clone(&self.0), address })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0 -= 1;
        if let Some(count) = counts.1.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.1.remove(&self.address);
            }
        }
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

    #[test]
    fn each_address_and_all_together_are_limited_and_a_place_comes_back() {
        let limit = PreAuth::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = limit.admit(a).unwrap();
        let _second = limit.admit(a).unwrap();
        assert!(limit.admit(a).unwrap_err().contains("your address"));
        let _third = limit.admit(b).unwrap();
        assert!(!limit.admit(b).unwrap_err().contains("your address"));
        drop(first);
        limit.admit(a).unwrap();
    }
}
