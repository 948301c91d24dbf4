//! What the operator of a gateway has: records of what happens, a view of what there is, and a hand in it.

use crate::audit::{self, AuditLog, Line, Who};
use crate::closer::Closer;
use crate::lobby::admin::AdminKeys;
use crate::meter::{CONNECTIONS, TURNED_AWAY};
use crate::overview::Overview;
use crate::sessions::Sessions;
use crate::tally::{Counts, Tallies};
use crate::visit::{Visit, VisitId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// How far the gateway's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// An administrator wants it to stop.
    DrainAsked,
    Stopping,
}

/// The operator's part of a gateway.
pub struct Operator {
    /// Where logins, channels and connections are told.
    pub audit: AuditLog,
    /// Who is logged in.
    pub sessions: Sessions,
    /// What there is in the pools, when there are pools to look at: one for each region, the first one first.
    pub overviews: Vec<Arc<Overview>>,
    /// Which keys may give the commands for administrators.
    pub admins: AdminKeys,
    tallies: Arc<Tallies>,
    visits: AtomicU64,
    stage: watch::Sender<Stage>,
}

impl Default for Operator {
    fn default() -> Self {
        Self::new(AuditLog::default())
    }
}

impl Operator {
    /// One that tells `audit` what happens.
    #[must_use]
    pub fn new(audit: AuditLog) -> Self {
        Self {
            audit,
            sessions: Sessions::default(),
            overviews: Vec::new(),
            admins: AdminKeys::default(),
            tallies: Arc::default(),
            visits: AtomicU64::new(0),
            stage: watch::Sender::new(Stage::Serving),
        }
    }

    /// The same, with a view of the pool, or of one more.
    #[must_use]
    pub fn seeing(mut self, overview: Arc<Overview>) -> Self {
        self.overviews.push(overview);
        self
    }

    /// The same, with administrators.
    #[must_use]
    pub fn obeying(mut self, admins: AdminKeys) -> Self {
        self.admins = admins;
        self
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.tallies.read(self.sessions.bytes())
    }

    /// Counts a connection that has come.
    #[must_use]
    pub fn visit(&self, peer: SocketAddr, closer: Closer) -> Arc<Visit> {
        let number = self.count_connection();
        Visit::new(VisitId(number), peer, closer, self.audit.clone(), Arc::clone(&self.tallies))
    }

    /// Tells of a connection that is not let in.
    pub fn turned_away(&self, peer: SocketAddr) {
        let number = self.count_connection();
        metrics::counter!(TURNED_AWAY).increment(1);
        self.tallies.refused.fetch_add(1, Ordering::Relaxed);
        let who = Who { connection: VisitId(number).to_string(), peer: peer.to_string(), ..Who::default() };
        let reason = Some("turned_away");
        self.audit.write(Line::Login(audit::Login {
            outcome: "refused",
            reason,
            who,
            offered: Vec::new(),
            took_ms: 0,
        }));
    }

    fn count_connection(&self) -> u64 {
        metrics::counter!(CONNECTIONS).increment(1);
        self.tallies.connections.fetch_add(1, Ordering::Relaxed);
        self.visits.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Asks the gateway to stop, as SIGTERM does.
    pub fn ask_drain(&self) {
        self.stage.send_if_modified(|stage| {
            let serving = *stage == Stage::Serving;
            if serving {
                *stage = Stage::DrainAsked;
            }
            serving
        });
    }

    /// Returns when the gateway was asked to stop.
    pub async fn drain_asked(&self) {
        let mut stage = self.stage.subscribe();
        // The sender lives as long as `self`.
        let _ = stage.wait_for(|stage| *stage != Stage::Serving).await;
    }

    /// Notes that the stop has begun.
    pub fn begin_stop(&self) {
        self.stage.send_replace(Stage::Stopping);
    }

    /// Whether the gateway stops, or was asked to.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stage.borrow() != Stage::Serving
    }
}
