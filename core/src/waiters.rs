//! Who waits for an instance, in order of arrival.
//!
//! Fair within a node: nobody overtakes, and a newcomer stands behind even when something is free at that very moment.
//! Between nodes there is no order; each takes what it finds.

use crate::planted::{self, Bug};
use crate::signal::Signal;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// The line.
#[derive(Debug)]
pub(crate) struct Waiters {
    line: Mutex<Line>,
    /// Changes whenever somebody should look again: a place in line or an instance became free.
    bell: Signal<u64>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Line {
    tickets: VecDeque<u64>,
    next: u64,
}

impl Waiters {
    pub(crate) fn new(limit: usize) -> Self {
        Self { line: Mutex::new(Line::default()), bell: Signal::new(0), limit }
    }

    /// Stands in line; `None` when the line is full. Dropping the ticket leaves the line.
    pub(crate) fn stand(self: &Arc<Self>) -> Option<Ticket> {
        let mut line = self.line();
        if line.tickets.len() >= self.limit {
            return None;
        }
        let number = line.next;
        line.next += 1;
        line.tickets.push_back(number);
        Some(Ticket { waiters: Arc::clone(self), number, heard: self.bell.get() })
    }

    pub(crate) fn len(&self) -> usize {
        self.line().tickets.len()
    }

    /// Says that an instance may be free.
    pub(crate) fn ring(&self) {
        self.bell.update(|count| *count = count.wrapping_add(1));
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // The line stays consistent when a holder panics: each change is one call.
        self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A place in line.
#[derive(Debug)]
pub(crate) struct Ticket {
    waiters: Arc<Waiters>,
    number: u64,
    heard: u64,
}

impl Ticket {
    /// 1 is next.
    pub(crate) fn position(&self) -> usize {
        // Tickets stand in ascending order.
        let line = self.waiters.line();
        let ahead = line.tickets.partition_point(|ticket| *ticket < self.number);
        if planted::is(Bug::LastComeFirstServed) { line.tickets.len() - ahead } else { ahead + 1 }
    }

    /// Waits until the bell rings after the last look.
    pub(crate) async fn rung(&mut self) {
        let heard = self.heard;
        self.heard = self.waiters.bell.wait_for(|count| count != heard).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = self.waiters.line();
        if let Ok(place) = line.tickets.binary_search(&self.number) {
            line.tickets.remove(place);
        }
        drop(line);
        self.waiters.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_overtakes_and_who_leaves_makes_room() {
        let waiters = Arc::new(Waiters::new(3));
        let (a, b, c) = (waiters.stand().unwrap(), waiters.stand().unwrap(), waiters.stand().unwrap());
        assert_eq!((a.position(), b.position(), c.position()), (1, 2, 3));
        assert!(waiters.stand().is_none(), "the line is full");
        drop(b);
        assert_eq!((a.position(), c.position()), (1, 2));
        let d = waiters.stand().unwrap();
        drop(a);
        assert_eq!((c.position(), d.position()), (1, 2));
    }

    #[tokio::test]
    async fn a_ring_before_the_wait_is_not_lost() {
        let waiters = Arc::new(Waiters::new(3));
        let mut ticket = waiters.stand().unwrap();
        waiters.ring();
        tokio::time::timeout(std::time::Duration::from_secs(5), ticket.rung()).await.unwrap();
    }
}
