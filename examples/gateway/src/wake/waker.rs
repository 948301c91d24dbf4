//! Brings one box up for whoever is let through to it.

use crate::exit::Refusal;
use crate::hold::Hold;
use crate::lock::lock;
use crate::proxy::reach::Bringer;
use crate::server::Gateway;
use crate::upstream::{DialError, Openings, Upstream};
use crate::wake::BoxRef;
use boxpool::{BoxName, Endpoint, Epoch, UserId};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Connections to the box that may be set up at once. An SSH server drops some beyond ten.
const DIALS_AT_ONCE: usize = 6;

/// One hold on a box, shared by all that need it at the time.
pub struct Waker {
    gateway: Arc<Gateway>,
    target: BoxRef,
    limit: Duration,
    hold: Mutex<Weak<Hold>>,
    dials: Semaphore,
}

impl Waker {
    /// Nothing is woken yet; a wake may take `limit`.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, target: BoxRef, limit: Duration) -> Self {
        Self { gateway, target, limit, hold: Mutex::default(), dials: Semaphore::new(DIALS_AT_ONCE) }
    }

    /// Which box.
    #[must_use]
    pub fn target(&self) -> &BoxRef {
        &self.target
    }

    /// The hold on the box that there is, or a new one, which begins to bring it up.
    #[must_use]
    pub fn hold(&self) -> Arc<Hold> {
        self.anew(None)
    }

    fn anew(&self, distrust: Option<Epoch>) -> Arc<Hold> {
        let mut last = lock(&self.hold);
        if let Some(hold) = last.upgrade().filter(|hold| hold.is_usable()) {
            return hold;
        }
        let (boxes, running) = (Arc::clone(&self.gateway.boxes), self.gateway.activity.begin());
        let BoxRef { owner, name } = self.target.clone();
        let hold = Hold::take(boxes, (owner, name), None, self.limit, distrust, running);
        *last = Arc::downgrade(&hold);
        hold
    }
}

impl Bringer for Waker {
    fn hold_of(&self, _: &UserId, _: &BoxName, distrust: Option<Epoch>) -> Result<Arc<Hold>, Refusal> {
        Ok(self.anew(distrust))
    }

    async fn dial(&self, endpoint: &Endpoint, openings: Openings) -> Result<Upstream, DialError> {
        let _permit = self.dials.acquire().await.map_err(|_| DialError::Unreachable("nobody waits for it".into()))?;
        self.gateway.dialer.dial(endpoint, None, openings).await
    }
}
