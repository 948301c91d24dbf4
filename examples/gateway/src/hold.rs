//! A hold keeps a box up for one SSH connection: one pool session, shared by all channels that use the box.
//!
//! The hold's task asks the pool for the session, tells every watcher how far it is, keeps the session while anyone has
//! the hold, and gives it back when the last one let go. When the process dies the pool notices that by itself.

use crate::boxes::{Boxes, Wish};
use crate::exit::{ExitCode, Refusal};
use crate::limits::Running;
use boxpool::{BoxName, Endpoint, Epoch, Progress, Report, UserId};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long giving a session back may take; the pool finds one that was not given back by itself.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);

/// How the connect ended.
#[derive(Debug, Clone)]
enum Outcome {
    Coming,
    Up(Arc<Endpoint>, Epoch),
    Failed(Refusal),
}

/// A box that is kept up while this exists.
#[derive(Debug)]
pub struct Hold {
    owner: UserId,
    name: BoxName,
    progress: watch::Receiver<Progress>,
    outcome: watch::Receiver<Outcome>,
    spent: Arc<AtomicBool>,
    _held: mpsc::Sender<Infallible>,
}

impl Hold {
    /// Begins to bring the box up, for its owner or for `guest`. `distrust` is the epoch of an earlier hold whose box did not answer. `running` is
    /// dropped when the session has been given back.
    pub fn take(
        boxes: Arc<dyn Boxes>,
        (owner, name): (UserId, BoxName),
        guest: Option<UserId>,
        limit: Duration,
        distrust: Option<Epoch>,
        running: Running,
    ) -> Arc<Self> {
        let (progress_told, progress) = boxpool::progress();
        let (told, outcome) = watch::channel(Outcome::Coming);
        let (held, let_go) = mpsc::channel(1);
        let spent = Arc::new(AtomicBool::new(false));
        let wish = Wish { owner: owner.clone(), name: name.clone(), guest, limit, progress: progress_told, distrust };
        tokio::spawn(keep(boxes, wish, told, let_go, Arc::clone(&spent), running));
        Arc::new(Self { owner, name, progress, outcome, spent, _held: held })
    }

    /// Whose box.
    #[must_use]
    pub fn owner(&self) -> &UserId {
        &self.owner
    }

    /// Which box.
    #[must_use]
    pub fn name(&self) -> &BoxName {
        &self.name
    }

    /// What is being waited for, and every change.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until the box can be dialled. It may be a moment before the pool has it on record that the box is up:
    /// [`Hold::up`] must follow before anything is started in the box.
    ///
    /// # Errors
    /// Why it could not be had. The wait ends by the limit the hold was taken with.
    pub async fn reachable(&self) -> Result<Arc<Endpoint>, Refusal> {
        let mut progress = self.progress();
        let dialled_early = async {
            loop {
                let step = progress.borrow_and_update().clone();
                if let Progress::Reachable(endpoint) = step {
                    return Arc::new(endpoint);
                }
                if progress.changed().await.is_err() {
                    break;
                }
            }
            std::future::pending().await // the pool tells no more; the outcome follows
        };
        tokio::select! {
            endpoint = dialled_early => Ok(endpoint),
            up = self.up() => up,
        }
    }

    /// Waits until the box is up.
    ///
    /// # Errors
    /// Why it could not be had. The wait ends by the limit the hold was taken with.
    pub async fn up(&self) -> Result<Arc<Endpoint>, Refusal> {
        let mut outcome = self.outcome.clone();
        let stopped = || Refusal::new(ExitCode::Failed, "the gateway stopped bringing the box up");
        let seen = outcome.wait_for(|outcome| !matches!(outcome, Outcome::Coming)).await;
        match seen.as_deref() {
            Ok(Outcome::Up(endpoint, _)) => Ok(Arc::clone(endpoint)),
            Ok(Outcome::Failed(refusal)) => Err(refusal.clone()),
            Ok(Outcome::Coming) | Err(_) => Err(stopped()),
        }
    }

    /// Notes that the box's SSH server does not answer: this hold is used by nobody new. Answers the epoch to distrust.
    pub fn mark_unreachable(&self) -> Option<Epoch> {
        self.spent.store(true, Ordering::Release);
        match &*self.outcome.borrow() {
            Outcome::Up(_, epoch) => Some(*epoch),
            Outcome::Coming | Outcome::Failed(_) => None,
        }
    }

    /// Whether a new channel may use it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.spent.load(Ordering::Acquire) && !matches!(&*self.outcome.borrow(), Outcome::Failed(_))
    }
}

async fn keep(
    boxes: Arc<dyn Boxes>,
    wish: Wish,
    told: watch::Sender<Outcome>,
    mut let_go: mpsc::Receiver<Infallible>,
    spent: Arc<AtomicBool>,
    _running: Running,
) {
    let (owner, name) = (wish.owner.clone(), wish.name.clone());
    let connected = tokio::select! {
        connected = boxes.connect(wish) => connected,
        _ = let_go.recv() => return, // nobody wants it any more
    };
    let session = match connected {
        Ok(session) => session,
        Err(error) => {
            tracing::warn!(box_name = %name, %owner, error = %Report(&error), "box could not be connected");
            told.send_replace(Outcome::Failed(Refusal::from(&error)));
            return;
        }
    };
    told.send_replace(Outcome::Up(Arc::new(session.endpoint().clone()), session.epoch()));
    // Ends when the last hold is dropped: nothing is ever sent.
    let gone = tokio::select! {
        _ = let_go.recv() => false,
        () = session.ended() => true,
    };
    if gone {
        spent.store(true, Ordering::Release);
        let _ = let_go.recv().await;
    }
    if tokio::time::timeout(RELEASE_LIMIT, session.release()).await.is_err() {
        tracing::warn!(box_name = %name, %owner, "giving the session back took too long");
    }
}
