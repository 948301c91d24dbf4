//! What is told of one wake.

use crate::audit::{AuditLog, Line, Wake};
use crate::lock::lock;
use crate::visit::millis;
use crate::wake::BoxRef;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// One wake, told of when this is dropped: however it ends, it is told.
pub struct Record {
    audit: AuditLog,
    who: &'static str,
    peer: Option<SocketAddr>,
    target: BoxRef,
    began: Instant,
    reached: Option<Duration>,
    outcome: &'static str,
    heard: AtomicU64,
    said: AtomicU64,
    moved: Mutex<Instant>,
}

impl Record {
    /// A wake by `who` that begins. Until something else is said it counts as ended by the gateway's stop.
    #[must_use]
    pub fn new(audit: AuditLog, who: &'static str, peer: Option<SocketAddr>, target: BoxRef) -> Self {
        let (began, outcome) = (Instant::now(), "stopping");
        let (heard, said, moved) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(began));
        Self { audit, who, peer, target, began, reached: None, outcome, heard, said, moved }
    }

    /// The box has answered.
    pub fn reached(&mut self) {
        self.reached = Some(self.began.elapsed());
        self.moved();
    }

    /// How it ended, as one word.
    pub fn ends(&mut self, outcome: &'static str) {
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
        self.audit.write(Line::Wake(Wake {
            who: self.who,
            peer: self.peer.map(|peer| peer.to_string()),
            account: self.target.owner.to_string(),
            name: self.target.name.to_string(),
            outcome: self.outcome,
            bytes_in: self.heard.load(Ordering::Relaxed),
            bytes_out: self.said.load(Ordering::Relaxed),
            reached_ms: self.reached.map(millis),
            took_ms: millis(self.began.elapsed()),
        }));
    }
}
