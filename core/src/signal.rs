//! A value that many wait for.
//!
//! Tokio's `watch` wakes its receivers in an order that it draws at random, which no seed governs: two who wait in line would
//! go on in another order in every run. Here who waited first is woken first.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Cheap to clone; every clone is the same signal.
pub(crate) struct Signal<T>(Arc<Inner<T>>);

struct Inner<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy> Signal<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Inner { value: Mutex::new(value), changed: Notify::new() }))
    }

    pub(crate) fn get(&self) -> T {
        *self.value()
    }

    /// Changes the value and wakes all who wait, to look at it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value());
        self.0.changed.notify_waiters();
    }

    pub(crate) fn set(&self, value: T) {
        self.update(|old| *old = value);
    }

    /// Waits for a value of that kind, and returns it. Dropping it is safe. A change that is undone before the waiter runs may
    /// be missed.
    pub(crate) async fn wait_for(&self, mut wanted: impl FnMut(T) -> bool) -> T {
        loop {
            // Made before the look: what changes after it is not missed.
            let changed = self.0.changed.notified();
            let value = self.get();
            if wanted(value) {
                return value;
            }
            changed.await;
        }
    }

    fn value(&self) -> MutexGuard<'_, T> {
        // The values are plain data: whoever panicked has set one or not.
        self.0.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Signal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiters::Waiters;
    use std::time::Duration;

    #[tokio::test]
    async fn who_waited_first_is_woken_first() {
        let waiters = Arc::new(Waiters::new(100));
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (mut ticket, woken) = (waiters.stand().unwrap(), Arc::clone(&woken));
            tasks.spawn(async move {
                ticket.rung().await;
                woken.lock().unwrap().push(number);
                ticket
            });
        }
        tokio::task::yield_now().await;
        waiters.ring();
        let tickets = tasks.join_all().await;
        assert_eq!(*woken.lock().unwrap(), (0..50).collect::<Vec<_>>());
        assert_eq!(tickets.len(), 50);
    }

    #[tokio::test]
    async fn a_change_before_the_wait_is_seen() {
        let signal = Signal::new(1);
        signal.clone().set(2);
        let got = tokio::time::timeout(Duration::from_secs(5), signal.wait_for(|value| value == 2)).await;
        assert_eq!(got, Ok(2));
    }
}
