//! What is told of one wake.

use crate::audit::{AuditLog, Line, Wake};
use crate::lock::lock;
use crate::meter::WAKES;
use crate::visit::millis;
use crate::wake::BoxRef;
use crate::wake::answer::Outcome;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What wakes a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A connection to a port of the gateway.
    Http,
    /// A time.
    Schedule,
}

impl Who {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Http, Self::Schedule];

    /// As one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Schedule => "schedule",
        }
    }

    /// How its wakes may end.
    #[must_use]
    pub fn outcomes(self) -> &'static [Outcome] {
        use Outcome::{Held, Idle, Left, Lost, NoServer, NotUp, Served, Stopping, TooLong};
        match self {
            Self::Http => &[Served, Left, Idle, Lost, Stopping, NotUp, TooLong, NoServer],
            Self::Schedule => &[Held, Stopping, NotUp, TooLong],
        }
    }
}

/// One wake, told of when this is dropped: however it ends, it is told.
pub struct Record {
    audit: AuditLog,
    who: Who,
    peer: Option<SocketAddr>,
    target: BoxRef,
    began: Instant,
    reached: Option<Duration>,
    outcome: Outcome,
    heard: AtomicU64,
    said: AtomicU64,
    moved: Mutex<Instant>,
}

impl Record {
    /// A wake by `who` that begins. Until something else is said it counts as ended by the gateway's stop.
    #[must_use]
    pub fn new(audit: AuditLog, who: Who, peer: Option<SocketAddr>, target: BoxRef) -> Self {
        let (began, outcome) = (Instant::now(), Outcome::Stopping);
        let (heard, said, moved) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(began));
        Self { audit, who, peer, target, began, reached: None, outcome, heard, said, moved }
    }

    /// The box has answered.
    pub fn reached(&mut self) {
        self.reached = Some(self.began.elapsed());
        self.moved();
    }

    /// How it ended.
    pub fn ends(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// The client sent so many bytes.
    pub fn heard(&self, bytes: usize) {
        self.heard.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved();
    }

    /// The client was sent so many bytes.
    pub fn said(&self, bytes: usize) {
        self.said.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved();
    }

    fn moved(&self) {
        *lock(&self.moved) = Instant::now();
    }

    /// Returns when no byte has moved for `limit`.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let end = *lock(&self.moved) + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (who, outcome) = (self.who.word(), self.outcome.word());
        metrics::counter!(WAKES, "who" => who, "outcome" => outcome).increment(1);
        self.audit.write(Line::Wake(Wake {
            who,
            peer: self.peer.map(|peer| peer.to_string()),
            account: self.target.owner.to_string(),
            name: self.target.name.to_string(),
            outcome,
            bytes_in: self.heard.load(Ordering::Relaxed),
            bytes_out: self.said.load(Ordering::Relaxed),
            reached_ms: self.reached.map(millis),
            took_ms: millis(self.began.elapsed()),
        }));
    }
}
