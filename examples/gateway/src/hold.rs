//! A hold keeps a box up for one SSH connection: one pool session, shared by all channels that use the box.
//!
//! The hold's task asks the pool for the session, tells every watcher how far it is, keeps the session while anyone has
//! the hold, and gives it back when the last one let go. When the process dies the pool's own expiry does that.

use crate::boxes::{Boxes, Progress};
use crate::exit::{ExitCode, Refusal};
use crate::limits::Running;
use boxpool::{BoxName, Endpoint, Report, UserId};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long giving a session back may take; after that the pool's expiry does it.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);

/// How far the box is.
#[derive(Debug, Clone)]
pub enum HoldState {
    /// It is coming up; a sentence says what it waits for.
    Coming(Option<String>),
    /// It is up.
    Ready(Arc<Endpoint>),
    /// It could not be had.
    Failed(Refusal),
}

/// A box that is kept up while this exists.
#[derive(Debug)]
pub struct Hold {
    name: BoxName,
    state: watch::Receiver<HoldState>,
    unreachable: Arc<AtomicBool>,
    _held: mpsc::Sender<Infallible>,
}

impl Hold {
    /// Begins to bring the box up. `running` is dropped when the session has been given back.
    pub fn take(boxes: Arc<dyn Boxes>, owner: UserId, name: BoxName, limit: Duration, running: Running) -> Arc<Self> {
        let (told, state) = watch::channel(HoldState::Coming(None));
        let (held, let_go) = mpsc::channel(1);
        let unreachable = Arc::new(AtomicBool::new(false));
        let kept = keep(boxes, owner, name.clone(), limit, told, let_go, Arc::clone(&unreachable));
        tokio::spawn(async move {
            kept.await;
            drop(running);
        });
        Arc::new(Self { name, state, unreachable, _held: held })
    }

    /// Which box.
    #[must_use]
    pub fn name(&self) -> &BoxName {
        &self.name
    }

    /// How far it is, and every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<HoldState> {
        self.state.clone()
    }

    /// Waits until the box is up.
    ///
    /// # Errors
    /// Why it could not be had. The wait ends by the limit the hold was taken with.
    pub async fn endpoint(&self) -> Result<Arc<Endpoint>, Refusal> {
        let mut state = self.watch();
        loop {
            match &*state.borrow_and_update() {
                HoldState::Coming(_) => {}
                HoldState::Ready(endpoint) => return Ok(Arc::clone(endpoint)),
                HoldState::Failed(refusal) => return Err(refusal.clone()),
            }
            if state.changed().await.is_err() {
                return Err(Refusal::new(ExitCode::Failed, "the gateway stopped bringing the box up"));
            }
        }
    }

    /// Notes that the box's SSH server does not answer: the pool is told, and this hold is used by nobody new.
    pub fn mark_unreachable(&self) {
        self.unreachable.store(true, Ordering::Release);
    }

    /// Whether a new channel may use it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.unreachable.load(Ordering::Acquire) && !matches!(&*self.state.borrow(), HoldState::Failed(_))
    }
}

async fn keep(
    boxes: Arc<dyn Boxes>,
    owner: UserId,
    name: BoxName,
    limit: Duration,
    told: watch::Sender<HoldState>,
    mut let_go: mpsc::Receiver<Infallible>,
    unreachable: Arc<AtomicBool>,
) {
    let told = Arc::new(told);
    let progress: Progress = {
        let told = Arc::clone(&told);
        Arc::new(move |sentence| {
            told.send_if_modified(|state| match state {
                HoldState::Coming(shown) if shown.as_deref() != Some(&sentence) => {
                    *shown = Some(sentence);
                    true
                }
                _ => false,
            });
        })
    };
    let connected = tokio::select! {
        connected = boxes.connect(&owner, &name, limit, progress) => connected,
        _ = let_go.recv() => return, // nobody wants it any more
    };
    let session = match connected {
        Ok(session) => session,
        Err(error) => {
            tracing::warn!(box_name = %name, %owner, error = %Report(&error), "box could not be connected");
            told.send_replace(HoldState::Failed(Refusal::from(&error)));
            return;
        }
    };
    told.send_replace(HoldState::Ready(Arc::new(session.endpoint().clone())));
    let _ = let_go.recv().await; // ends when the last hold is dropped: nothing is ever sent
    let reached = !unreachable.load(Ordering::Acquire);
    match tokio::time::timeout(RELEASE_LIMIT, session.release(reached)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(box_name = %name, %owner, error = %Report(&error), "session not given back; it will expire");
        }
        Err(_) => tracing::warn!(box_name = %name, %owner, "giving the session back took too long; it will expire"),
    }
}
