//! One box on one node: a task with a mailbox, so that what this node does to a box happens one after the other.
//!
//! An actor lives while the node holds sessions on its box, lingers, or has something to do for it, and holds nothing
//! that the store does not: when the process dies here, its record names it, and another node finishes the step.

use crate::error::{Error, ErrorKind, Result};
use crate::id::{BoxId, BoxName, BoxRef, Epoch, InstanceId, SnapshotId, UserId};
use crate::parking::AwayBox;
use crate::planted::{self, Bug};
use crate::progress::Progress;
use crate::record::{BoxRecord, Mode, Placement, PlacementEvent, SnapshotRecord};
use crate::records::{Held, box_key};
use crate::runtime::{Endpoint, Guest};
use crate::saga::{Guard, Travel};
use crate::shared::{BoxKey, Shared};
use crate::signal::Signal;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How often the record is looked at while another node moves the box.
pub(crate) const WATCH_OTHER_EVERY: Duration = Duration::from_millis(100);

pub(crate) enum Message {
    Create {
        wanted: Wanted,
        done: oneshot::Sender<Result<BoxRecord>>,
    },
    /// A step of the box's way to another region.
    Travel {
        step: Travel,
        deadline: Instant,
        done: oneshot::Sender<Result<Option<BoxRecord>>>,
    },
    /// Have the box's disk copied into a snapshot, while nothing runs on it.
    CopyDisk {
        of: BoxRef,
        to: SnapshotId,
        deadline: Instant,
        done: oneshot::Sender<Result<BoxRecord>>,
    },
    Connect(Connect),
    Release {
        session: u64,
        done: Option<oneshot::Sender<()>>,
    },
    /// Delete the box: for good, or so that its owner can have it back for a while.
    Delete {
        /// Only this incarnation of the name.
        only: Option<BoxId>,
        for_good: bool,
        deadline: Instant,
        done: oneshot::Sender<Result<()>>,
    },
    /// The time in which its owner could have it back is over.
    Purge,
    Undelete {
        deadline: Instant,
        done: oneshot::Sender<Result<BoxRecord>>,
    },
    /// Somebody else may connect, or may no more.
    Share {
        with: UserId,
        allowed: bool,
        deadline: Instant,
        done: oneshot::Sender<Result<BoxRecord>>,
    },
    /// Shut the guest down, and drop its memory.
    Stop {
        /// And grow its volume to so many bytes while it is down.
        grow_to: Option<u64>,
        deadline: Instant,
        done: oneshot::Sender<Result<BoxRecord>>,
    },
    /// Call the box something else.
    Rename {
        to: BoxName,
        /// What must hold when it begins.
        unless: Guard,
        deadline: Instant,
        done: oneshot::Sender<Result<BoxRecord>>,
    },
    /// What happens when the last session ends.
    SetMode {
        mode: Mode,
        deadline: Instant,
        done: oneshot::Sender<Result<BoxRecord>>,
    },
    /// Bring the box up if it is to run without a session and does not.
    KeepUp,
    /// Make room: somebody waits for an instance, or it is worth more elsewhere.
    Yield,
    /// Its owner is expected: attach its volume to an instance.
    PreAttach,
    /// Look at the record and finish what is half done.
    Recover,
    /// The box was not seen to run as its sessions think, held by this node: look whether they are over.
    Verify,
    /// Leave now, whoever is connected.
    Drain,
}

impl Message {
    fn meant(&self) -> Meant {
        match self {
            Self::Create { .. } | Self::Connect(_) | Self::KeepUp | Self::Release { .. } => Meant::Any,
            Self::Delete { only: Some(id), .. } => Meant::Only(id.clone()),
            Self::Travel { .. }
            | Self::CopyDisk { .. }
            | Self::Delete { .. }
            | Self::Purge
            | Self::Undelete { .. }
            | Self::Share { .. }
            | Self::Stop { .. }
            | Self::Rename { .. }
            | Self::SetMode { .. }
            | Self::Yield
            | Self::PreAttach
            | Self::Recover
            | Self::Verify
            | Self::Drain => Meant::First,
        }
    }
}

/// Which incarnations of the name a message is about: what is begun with one does not go on with the next.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    Any,
    /// The one that is seen first.
    First,
    Only(BoxId),
}

/// What a new box is to be.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Which incarnation of its name, if that was said before.
    pub(crate) id: Option<BoxId>,
    /// The snapshot that it is to be a copy of.
    pub(crate) copy_of: Option<SnapshotRecord>,
    /// The box that it is to become, which another region has, and the attempt to move it.
    pub(crate) brought: Option<(Box<BoxRecord>, String)>,
}

pub(crate) struct Connect {
    /// Only this incarnation of the name.
    pub(crate) only: Option<BoxId>,
    /// Who connects, if it is not the owner.
    pub(crate) guest: Option<UserId>,
    /// The endpoint of this epoch did not answer the caller.
    pub(crate) distrust: Option<Epoch>,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Arrival>>,
    /// Set once the box was seen to be there for whoever connects.
    pub(crate) admitted: Arc<AtomicBool>,
}

/// What a connect brings home.
pub(crate) struct Arrival {
    pub(crate) owner: BoxRef,
    pub(crate) endpoint: Endpoint,
    pub(crate) epoch: Epoch,
    pub(crate) instance: InstanceId,
    pub(crate) session: u64,
    pub(crate) via: Via,
    pub(crate) timings: Timings,
    pub(crate) ended: Signal<Option<Epoch>>,
}

/// From which state a connect brought the box up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Via {
    /// It ran already.
    Running,
    /// It was parked: resumed without a cloud call.
    Parked,
    /// It was detached: instance claimed, volume attached, guest resumed or booted.
    Detached,
}

/// How long each part of a connect took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Waiting for an instance to become free, or for another node.
    pub waited: Duration,
    /// Attaching the volume.
    pub attached: Duration,
    /// Starting or resuming the guest.
    pub started: Duration,
    /// All of it, from the request to the answer.
    pub total: Duration,
}

/// The desk's end of an actor.
pub(crate) struct Handle {
    mailbox: Sender,
    watchers: Arc<Watchers>,
    served: Arc<AtomicU64>,
}

impl Handle {
    /// In which epoch its sessions take the box to run, unless there are none or they know that they are over.
    pub(crate) fn served(&self) -> Option<Epoch> {
        Some(Epoch(self.served.load(Ordering::Relaxed))).filter(|epoch| *epoch != NONE_SERVED)
    }

    pub(crate) fn send(&self, message: Message) {
        // The actor leaves the desk before it drops its mailbox, under the desk's lock: it is there.
        let _ = self.mailbox.send(Box::new(message));
    }

    pub(crate) fn watch(&self, watcher: watch::Sender<Progress>) {
        self.watchers.add(watcher);
    }
}

/// Who wants to know how the box comes up.
#[derive(Default)]
pub(crate) struct Watchers {
    list: Mutex<(Option<Progress>, Vec<watch::Sender<Progress>>)>,
}

impl Watchers {
    fn add(&self, watcher: watch::Sender<Progress>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = &list.0 {
            watcher.send_replace(progress.clone());
        }
        list.1.push(watcher);
    }

    fn tell(&self, progress: Option<Progress>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.1.retain(|watcher| !watcher.is_closed());
        if let Some(progress) = &progress {
            for watcher in &list.1 {
                watcher.send_replace(progress.clone());
            }
        }
        list.0 = progress;
    }
}

/// A box that never was on an instance serves nobody.
const NONE_SERVED: Epoch = Epoch(0);

/// A box's record, as an actor hands it on from one step to the next: it is larger than what most of them keep of it.
pub(crate) type HeldBox = Arc<Held<BoxRecord>>;

/// Messages are boxed: a channel has room for many from the start, of whatever size they are.
type Sender = mpsc::UnboundedSender<Box<Message>>;
type Receiver = mpsc::UnboundedReceiver<Box<Message>>;

pub(crate) fn start(shared: Arc<Shared>, key: BoxKey) -> (Handle, impl Future<Output = ()> + Send + 'static) {
    let (sender, mailbox) = mpsc::unbounded_channel();
    let (watchers, shown) = (Arc::new(Watchers::default()), Arc::<AtomicU64>::default());
    let actor = Actor {
        shared,
        key,
        mailbox,
        watchers: Arc::clone(&watchers),
        held: None,
        sessions: BTreeSet::new(),
        meant: Meant::Any,
        served: None,
        shown: Arc::clone(&shown),
        linger_until: None,
        ran_since: None,
        uncounted: 0,
        ended: Signal::new(None),
    };
    (Handle { mailbox: sender, watchers, served: shown }, actor.run())
}

pub(crate) struct Actor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: BoxKey,
    mailbox: Receiver,
    watchers: Arc<Watchers>,
    /// The record as this node last read or wrote it: a hint that a compare-and-swap confirms.
    pub(crate) held: Option<HeldBox>,
    /// Which incarnations of the name the message at hand is about.
    meant: Meant,
    pub(crate) sessions: BTreeSet<u64>,
    /// Which incarnation of the name, and in which epoch, the newest of them is on.
    served: Option<(BoxId, Epoch)>,
    /// The epoch of that, as the desk sees it.
    shown: Arc<AtomicU64>,
    /// Set while the box runs on our account without a session.
    pub(crate) linger_until: Option<Instant>,
    pub(crate) ran_since: Option<Instant>,
    /// Sessions that the record does not count yet.
    uncounted: u64,
    /// The newest epoch whose guest is known to be gone: sessions on it are over.
    pub(crate) ended: Signal<Option<Epoch>>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        // An actor goes while sessions are open only when the worker has ended: nobody here knows more of their guests.
        self.ended.set(Some(Epoch(u64::MAX)));
    }
}

impl Actor {
    async fn run(mut self) {
        loop {
            let alarm = self.linger_until.filter(|_| self.sessions.is_empty());
            let message = tokio::select! {
                biased;
                message = self.mailbox.recv() => message,
                () = until(alarm) => {
                    Box::pin(self.leave_after_linger()).await;
                    None
                }
            };
            // In boxes of their own: else every box that is up takes as much memory, while it is idle, as the largest step.
            if let Some(message) = message {
                Box::pin(self.handle(*message)).await;
            }
            self.show_lingering();
            self.shown.store(self.serves().unwrap_or(NONE_SERVED).0, Ordering::Relaxed);
            let idle = self.sessions.is_empty() && self.linger_until.is_none();
            if idle && self.shared.close_actor(&self.key, || self.mailbox.is_empty()) {
                return;
            }
        }
    }

    /// Each step has a box of its own, so that a connect to a box that is up, of which there are most, takes 5 KiB while it lasts and
    /// not as much as the largest step.
    async fn handle(&mut self, message: Message) {
        self.meant = if planted::is(Bug::FollowsTheName) { Meant::Any } else { message.meant() };
        match message {
            Message::Create { wanted, done } => {
                let answer = Box::pin(self.create(wanted)).await;
                let _ = done.send(answer);
            }
            Message::Travel { step, deadline, done } => {
                let answer = Box::pin(self.travel(step, deadline)).await;
                let _ = done.send(answer);
            }
            Message::CopyDisk { of, to, deadline, done } => {
                let answer = Box::pin(self.copy_disk(&of, &to, deadline)).await;
                let _ = done.send(answer);
            }
            Message::Connect(connect) => Box::pin(self.connect(connect)).await,
            Message::Release { session, done } => {
                self.release(session);
                done.map(|done| done.send(()));
            }
            Message::Delete { for_good, deadline, done, .. } => {
                let keeps = !for_good && !self.shared.config.retention.is_zero();
                let answer =
                    if keeps { Box::pin(self.retain(deadline)).await } else { Box::pin(self.delete(deadline)).await };
                let _ = done.send(answer);
            }
            Message::Purge => Box::pin(self.purge()).await,
            Message::Undelete { deadline, done } => {
                let answer = Box::pin(self.undelete(deadline)).await;
                let _ = done.send(answer);
            }
            Message::Share { with, allowed, deadline, done } => {
                let answer = Box::pin(self.share(with, allowed, deadline)).await;
                let _ = done.send(answer);
            }
            Message::Stop { grow_to, deadline, done } => {
                let answer = Box::pin(self.stop(grow_to, deadline)).await;
                let _ = done.send(answer);
            }
            Message::Rename { to, unless, deadline, done } => {
                let answer = Box::pin(self.rename(&to, &unless, deadline)).await;
                let _ = done.send(answer);
            }
            Message::SetMode { mode, deadline, done } => {
                let answer = Box::pin(self.set_mode(mode, deadline)).await;
                let _ = done.send(answer);
            }
            Message::KeepUp => Box::pin(self.keep_up()).await,
            Message::Yield => Box::pin(self.make_room()).await,
            Message::PreAttach => Box::pin(self.preattach()).await,
            Message::Recover => Box::pin(self.recover()).await,
            Message::Verify => {
                if self.serves().is_some() {
                    Box::pin(self.recover()).await;
                }
            }
            Message::Drain => {
                self.sessions.clear();
                self.linger_until = None;
                if planted::is(Bug::DrainLeavesHolds) {
                    return;
                }
                Box::pin(self.leave()).await;
            }
        }
    }

    async fn connect(&mut self, mut connect: Connect) {
        if connect.reply.is_closed() {
            return;
        }
        let answer = self.arrive(&mut connect).await;
        self.all_told();
        let session = answer.as_ref().ok().map(|arrival| arrival.session);
        if let Ok(arrival) = &answer {
            self.served = Some((arrival.owner.id.clone(), arrival.epoch));
        }
        if let Err(error) = &answer {
            tracing::info!(owner = %self.key.0, name = %self.key.1, error = %crate::Report(error), "connect refused");
        }
        self.sessions.extend(session);
        self.uncounted += u64::from(session.is_some());
        if let (Some(guest), Some(_)) = (&connect.guest, session) {
            self.note_guest(guest).await;
        }
        if connect.reply.send(answer).is_err() {
            // The caller went away in the meantime: the box lingers as after any last session.
            session.into_iter().for_each(|session| self.release(session));
        }
    }

    fn release(&mut self, session: u64) {
        if planted::is(Bug::FirstToLeaveEndsAll) {
            self.sessions.retain(|open| *open == session);
        }
        if self.sessions.remove(&session) && self.sessions.is_empty() {
            self.linger_until = Some(Instant::now() + self.shared.config.linger);
        }
    }

    async fn leave_after_linger(&mut self) {
        self.linger_until = None;
        self.leave().await;
    }

    /// Lets the pool see that this box could make room.
    fn show_lingering(&mut self) {
        let record = self.held.as_ref().map(|held| &held.record);
        let entry = match record {
            Some(record)
                if self.sessions.is_empty() && self.linger_until.is_some() && record.mode == Mode::SuspendOnLeave =>
            {
                record.placement.instance().map(|_| AwayBox::of(record, self.shared.now()))
            }
            _ => None,
        };
        let mut state = self.shared.state();
        match (entry, record) {
            (Some(away), _) => drop(state.lingering.insert(away.owner.clone(), away)),
            (None, Some(record)) => drop(state.lingering.remove(&record.owner)),
            (None, None) => {
                state.lingering.retain(|owner, _| (&owner.owner, &owner.name) != (&self.key.0, &self.key.1))
            }
        }
    }

    pub(crate) fn tell(&self, progress: Progress) {
        self.watchers.tell(Some(progress));
    }

    /// The box does not come up any more: it has, or it could not.
    pub(crate) fn all_told(&self) {
        self.watchers.tell(None);
    }

    /// The record: the hint when there is one, else what the store has.
    pub(crate) async fn load(&mut self) -> Result<HeldBox> {
        if let Some(held) = &self.held {
            return Ok(Arc::clone(held));
        }
        let key = box_key(&self.key.0, &self.key.1);
        let held = self.shared.records.get::<BoxRecord>(&key).await?;
        let is_served = |id: &BoxId| self.served.as_ref().is_none_or(|(served, _)| served == id);
        if held.as_ref().is_none_or(|held| !is_served(&held.record.owner.id)) {
            self.end_sessions();
        }
        let held = held.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find box", &self.key.1).with_detail("there is no such box")
        })?;
        let id = &held.record.owner.id;
        match &self.meant {
            Meant::Any => {}
            Meant::First => self.meant = Meant::Only(id.clone()),
            // It was deleted, and its owner has made another, while this node stood still or waited.
            Meant::Only(meant) if meant != id => {
                let detail = "it was deleted meanwhile; there is another box of that name now";
                return Err(Error::new(ErrorKind::NotFound, "find box", &self.key.1).with_detail(detail));
            }
            Meant::Only(_) => {}
        }
        self.note_epoch(held.record.epoch);
        let held = Arc::new(held);
        self.held = Some(Arc::clone(&held));
        Ok(held)
    }

    /// All sessions are over. Whoever comes from now on is on another guest, whose epoch may be lower: the next box of the name begins anew.
    pub(crate) fn end_sessions(&mut self) {
        self.sessions.clear();
        self.served = None;
        self.linger_until = None;
        std::mem::replace(&mut self.ended, Signal::new(None)).set(Some(Epoch(u64::MAX)));
    }

    /// In which epoch the sessions take the box to run, unless there are none or they know that they are over.
    pub(crate) fn serves(&self) -> Option<Epoch> {
        let epoch = self.served.as_ref().filter(|_| !self.sessions.is_empty()).map(|(_, epoch)| *epoch);
        epoch.filter(|_| self.ended.get() < epoch)
    }

    /// Whatever ran in an earlier epoch is gone, whoever has ended it.
    fn note_epoch(&self, epoch: Epoch) {
        let before = epoch.0.checked_sub(1).map(Epoch);
        if self.ended.get() < before {
            self.ended.set(before);
        }
    }

    /// Writes a changed record. After an error the hint is gone, so the next look is at the store.
    pub(crate) async fn write(&mut self, held: &Held<BoxRecord>, mut record: BoxRecord) -> Result<HeldBox> {
        self.held = None;
        let key = box_key(&self.key.0, &self.key.1);
        record.count(&held.record, self.uncounted, self.shared.now());
        let written = self.shared.records.update(&key, &held.version, record).await?;
        self.uncounted = 0;
        tracing::debug!(owner = %self.key.0, name = %self.key.1, placement = %written.record.placement, epoch = %written.record.epoch, "box moved");
        let written = Arc::new(written);
        self.held = Some(Arc::clone(&written));
        Ok(written)
    }

    /// Applies an event and writes the result.
    pub(crate) async fn step(&mut self, held: &Held<BoxRecord>, event: &PlacementEvent) -> Result<HeldBox> {
        let record = self.after(held, event)?;
        self.write(held, record).await
    }

    /// The record after an event; an event that does not apply means that the record is not what we thought.
    pub(crate) fn after(&mut self, held: &Held<BoxRecord>, event: &PlacementEvent) -> Result<BoxRecord> {
        held.record.after(event).map_err(|illegal| {
            self.held = None;
            Error::new(ErrorKind::Conflict, "move box", &held.record.owner).with_source(illegal)
        })
    }

    /// The guest of a box that is on an instance.
    pub(crate) fn guest(record: &BoxRecord, instance: &InstanceId) -> Guest {
        let guest = Guest::new(instance.clone(), record.volume.volume().clone(), record.owner.clone(), record.epoch)
            // Once it was up, what is on its volume is its own.
            .copied(record.copied_from.is_some() && record.brought_up.is_none());
        match &record.device {
            Some(device) => guest.on_device(device.clone()),
            None => guest,
        }
    }

    /// Whether the node at work on a step is out of it: dead, or ourselves, since an actor does one thing at a time. What has
    /// arrived under a new name anybody may settle.
    pub(crate) fn is_up_to_us(&self, placement: &Placement) -> bool {
        if matches!(placement, Placement::Arriving { .. }) {
            return true;
        }
        placement.worker().is_some_and(|node| {
            *node == self.shared.node || self.shared.is_dead(node) || planted::is(Bug::TakeOverWithoutLiveness)
        })
    }
}

async fn until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
