//! One use of a running box.

use crate::actor::{Arrival, Message, Timings, Via};
use crate::id::{BoxRef, Epoch, InstanceId};
use crate::runtime::Endpoint;
use crate::shared::{BoxKey, Shared};
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A hold on a running box: while there is one, the box is not suspended.
///
/// Give it back with [`Session::release`]. Dropping it does the same without waiting; a note is left for the pool's
/// worker. If the process dies, the node's heartbeat stops and the others act on that.
pub struct Session {
    shared: Arc<Shared>,
    arrival: Arrival,
    released: bool,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, arrival: Arrival) -> Self {
        Self { shared, arrival, released: false }
    }

    /// Which box.
    #[must_use]
    pub fn owner(&self) -> &BoxRef {
        &self.arrival.owner
    }

    /// How it is reached.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.arrival.endpoint
    }

    /// In which epoch; give it to [`ConnectRequest::distrust`](crate::ConnectRequest::distrust) when the endpoint does not answer.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.arrival.epoch
    }

    /// Where it runs.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        &self.arrival.instance
    }

    /// From which state the box was brought up.
    #[must_use]
    pub fn via(&self) -> Via {
        self.arrival.via
    }

    /// How long each part of the connect took.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.arrival.timings
    }

    /// Waits until this node knows that the guest of this session is gone: deleted, lost, or taken elsewhere. It may be gone
    /// for a while before: what another node did is seen with the next look at all instances
    /// ([`PoolConfig::reconcile_every`](crate::PoolConfig::reconcile_every), later in a large pool), a guest that died by itself when somebody connects. A broken
    /// connection tells sooner.
    pub async fn ended(&self) {
        let epoch = self.arrival.epoch;
        self.arrival.ended.wait_for(|gone| gone.is_some_and(|gone| gone >= epoch)).await;
    }

    /// Gives the session back. When it was the last one the box lingers and is then suspended.
    pub async fn release(mut self) {
        self.released = true;
        let (done, answer) = oneshot::channel();
        self.give_back(Some(done));
        // An error means that the worker has ended; then the heartbeat's end tells the others.
        let _ = answer.await;
    }

    fn give_back(&self, done: Option<oneshot::Sender<()>>) {
        let key: BoxKey = (self.arrival.owner.owner.clone(), self.arrival.owner.name.clone());
        self.shared.tell(&key, Message::Release { session: self.arrival.session, done });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.released {
            self.give_back(None);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("owner", &self.arrival.owner)
            .field("instance", &self.arrival.instance)
            .field("epoch", &self.arrival.epoch)
            .finish_non_exhaustive()
    }
}
