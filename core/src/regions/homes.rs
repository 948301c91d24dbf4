//! The records of the homes: made before a box is, and gone after it is. Whoever comes across one that nobody is at work on any more
//! goes on with it.

use super::{Front, Site};
use crate::actor::{Message, WATCH_OTHER_EVERY, Wanted};
use crate::busy::BusyGuard;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::id::{BoxId, BoxName, BoxRef, Region, SnapshotName, UserId};
use crate::planted::{self, Bug};
use crate::pool::BoxView;
use crate::record::{BoxRecord, Envelope, HomeEvent, HomeRecord, HomeStatus};
use crate::records::{Held, home_key};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// After so long a connect that was refused because the box is on its way may be tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

pub(super) fn absent(operation: &'static str, name: &BoxName) -> Error {
    Error::new(ErrorKind::NotFound, operation, name).with_detail("there is no such box")
}

impl Site {
    /// How long what is done with a box here may take.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.pool.shared.config.limits.volume_ready
    }

    /// The box as this region has it, if it has that very one and it is not on its way.
    pub(super) async fn has(&self, owner: &BoxRef) -> Result<Option<BoxRecord>> {
        let found = self.pool.shared.box_called(&owner.owner, &owner.name).await?;
        Ok(found.filter(|record| record.owner.id == owner.id))
    }
}

impl Front {
    pub(super) async fn home_of(&self, user: &UserId, name: &BoxName) -> Result<Option<Held<HomeRecord>>> {
        self.records.get(&home_key(user, name)).await
    }

    /// The home of a box; one that was made behind the front's back gets one now.
    pub(super) async fn found(&self, user: &UserId, name: &BoxName) -> Result<Option<Held<HomeRecord>>> {
        if let Some(held) = self.home_of(user, name).await? {
            return Ok(Some(held));
        }
        for (region, site) in &self.sites {
            // The box before its home: a home is made before its box, and goes after it.
            let Some(record) = site.pool.shared.box_called(user, name).await? else { continue };
            let held = self.home_of(user, name).await?;
            if held.is_none() && record.hold.is_none() && record.placement.worker().is_none() {
                self.settle_stray(region, &record.owner).await?;
            }
        }
        self.home_of(user, name).await
    }

    pub(super) async fn step(&self, held: &Held<HomeRecord>, event: &HomeEvent) -> Result<Held<HomeRecord>> {
        let BoxRef { owner, name, .. } = &held.record.owner;
        let record = held.record.after(event).map_err(|illegal| {
            Error::new(ErrorKind::Conflict, "change home", &held.record.owner).with_source(illegal)
        })?;
        self.records.update(&home_key(owner, name), &held.version, record).await
    }

    pub(super) async fn forget(&self, held: &Held<HomeRecord>) -> Result<()> {
        let BoxRef { owner, name, .. } = &held.record.owner;
        self.records.delete(&home_key(owner, name), &held.version).await
    }

    pub(super) async fn insert(&self, owner: BoxRef, region: Region, status: HomeStatus) -> Result<Held<HomeRecord>> {
        let created_at = self.site(&region)?.pool.shared.now();
        let key = home_key(&owner.owner, &owner.name);
        let record = HomeRecord { owner, region, status, created_at, envelope: Envelope::new() };
        self.records.insert_once(&key, record).await
    }

    /// This front's place at a home, unless another of its tasks has it.
    pub(super) fn enter(&self, user: &UserId, name: &BoxName) -> Option<BusyGuard> {
        // No user's id has a slash.
        self.busy.enter(&format!("{user}/{name}"))
    }

    /// The home when nothing is under way with it, and this front's place at it. It is that of the box which bore the name when this was asked. What nobody is at work on any more is brought to an
    /// end first; what another front is at work on is waited for.
    pub(super) async fn settled(
        &self,
        operation: &'static str,
        user: &UserId,
        name: &BoxName,
    ) -> Result<(Held<HomeRecord>, BusyGuard)> {
        let (mut deadline, mut meant) = (None, None);
        loop {
            let guard = self.enter(user, name);
            let held = self.found(user, name).await?.ok_or_else(|| absent(operation, name))?;
            let id = &held.record.owner.id;
            if meant.get_or_insert_with(|| id.clone()) != id && !planted::is(Bug::FollowsTheName) {
                let detail = "it was deleted meanwhile; there is another box of that name now";
                return Err(Error::new(ErrorKind::NotFound, operation, name).with_detail(detail));
            }
            let site = self.site(&held.record.region)?;
            site.pool.shared.check_in_touch(operation)?;
            if let (Some(guard), HomeStatus::Settled) = (guard, &held.record.status) {
                return Ok((held, guard));
            }
            let deadline = *deadline.get_or_insert_with(|| site.deadline());
            self.wait_or_recover(operation, &held, &held.record.status, deadline).await?;
        }
    }

    /// What is under way with a home ends by itself, or is brought to an end; then look again.
    pub(super) async fn wait_or_recover(
        &self,
        operation: &'static str,
        held: &Held<HomeRecord>,
        status: &HomeStatus,
        deadline: Instant,
    ) -> Result<()> {
        let outcome = match self.left_behind(held) {
            Some(guard) => self.recover(held.clone(), &guard).await,
            None => Ok(()),
        };
        if Instant::now() >= deadline {
            let detail = format!("the box is {}; try again in a while", status.words());
            let error = Error::new(ErrorKind::Busy, operation, &held.record.owner.name).with_detail(detail);
            return Err(error.with_retry_after(TRY_AGAIN));
        }
        if let Err(error) = outcome {
            tracing::info!(owner = %held.record.owner, error = %crate::Report(&error), "what was under way with a box's home is not at its end yet");
        }
        tokio::time::sleep(WATCH_OTHER_EVERY).await;
        Ok(())
    }

    /// This front's place at a home that nobody is at work on: its front is dead, or it is this one, which has failed.
    pub(super) fn left_behind(&self, held: &Held<HomeRecord>) -> Option<BusyGuard> {
        let HomeRecord { owner, region, status, .. } = &held.record;
        let shared = &self.sites.get(region)?.pool.shared;
        let node = status.worker()?;
        if planted::is(Bug::NoRecoveryOfHomes) {
            return None;
        }
        if *node != shared.node && !shared.is_dead(node) || shared.check_in_touch("recover home").is_err() {
            return None;
        }
        self.enter(&owner.owner, &owner.name)
    }

    /// Brings a home that nobody is at work on to rest. From the first write on whoever was at work on it is too late.
    pub(super) async fn recover(&self, held: Held<HomeRecord>, _place: &BusyGuard) -> Result<()> {
        // Another task of this front may have been quicker.
        let BoxRef { owner: user, name, .. } = held.record.owner.clone();
        let now = self.home_of(&user, &name).await?;
        let Some(held) = now.filter(|now| now.version == held.version) else { return Ok(()) };
        let node = self.site(&held.record.region)?.pool.shared.node.clone();
        if held.record.status.worker() != Some(&node) {
            tracing::info!(owner = %held.record.owner, status = held.record.status.words(), "goes on with what a dead front left");
            metrics::counter!("boxpool_takeovers_total", "of" => "home").increment(1);
        }
        let held = self.step(&held, &HomeEvent::TakeOver { node }).await?;
        match &held.record.status {
            HomeStatus::Settled => Ok(()),
            HomeStatus::Creating { .. } => self.look_whether_created(&held).await.map(drop),
            HomeStatus::Moving { .. } => self.give_move_up(held).await,
            HomeStatus::Moved { .. } => self.clear_old_home(&held).await.map(drop),
            HomeStatus::Renaming { .. } => self.conclude_rename(&held).await.map(drop),
            HomeStatus::Arriving { .. } => self.look_whether_arrived(&held).await,
            HomeStatus::Deleting { .. } => self.finish_delete(&held).await,
        }
    }

    /// Makes a box in a region by `make`, which is told which incarnation it is to be. The home's record is first.
    pub(super) async fn create<F: Future<Output = Result<BoxRecord>>>(
        &self,
        operation: &'static str,
        (user, name): (&UserId, &BoxName),
        region: &Region,
        make: impl FnOnce(BoxRef) -> F,
    ) -> Result<BoxView> {
        let shared = &self.site(region)?.pool.shared;
        shared.check_in_touch(operation)?;
        let taken = || {
            let detail = "a box of that name exists already, in this or another region, or was deleted and can still be had back";
            Error::new(ErrorKind::AlreadyExists, operation, name).with_detail(detail)
        };
        let _place = self.enter(user, name).ok_or_else(taken)?;
        if self.found(user, name).await?.is_some() && !self.forget_if_gone(user, name).await? {
            return Err(taken());
        }
        let owner = BoxRef { owner: user.clone(), name: name.clone(), id: shared.new_box_id()? };
        let status = HomeStatus::Creating { node: shared.node.clone() };
        let held = match self.insert(owner.clone(), region.clone(), status).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(taken()),
            answer => answer?,
        };
        let created = make(owner).await;
        match (created, self.look_whether_created(&held).await) {
            (Ok(record), Ok(_)) => Ok(BoxView::of(record)),
            (Err(error), Ok(None)) => Err(error),
            (Err(error), _) => Err(error.with_effect(Effect::Unknown)),
            (Ok(_), Err(error)) => Err(error.with_effect(Effect::Unknown)),
        }
    }

    pub(super) async fn create_new(&self, user: &UserId, name: &BoxName, region: &Region) -> Result<BoxView> {
        const WHAT: &str = "create box";
        let site = self.site(region)?;
        let make = |owner: BoxRef| async move {
            let (done, answer) = oneshot::channel();
            let wanted = Wanted { id: Some(owner.id), ..Wanted::default() };
            site.pool.shared.tell(&(owner.owner, owner.name), Message::Create { wanted, done });
            site.pool.answered(WHAT, name, answer).await
        };
        self.create(WHAT, (user, name), region, make).await
    }

    /// A box that is a copy of a snapshot of that region.
    pub(super) async fn restore(
        &self,
        user: &UserId,
        region: &Region,
        snapshot: &SnapshotName,
        to: &BoxName,
    ) -> Result<BoxView> {
        let shared = &self.site(region)?.pool.shared;
        let make = |owner: BoxRef| async move { shared.restore(user, snapshot, to, Some(owner.id)).await };
        self.create("restore snapshot", (user, to), region, make).await
    }

    /// A box that is a copy of another, where that lives.
    pub(super) async fn duplicate(&self, user: &UserId, of: &BoxName, to: &BoxName) -> Result<BoxView> {
        const WHAT: &str = "duplicate box";
        let home = self.found(user, of).await?.ok_or_else(|| absent(WHAT, of))?;
        let shared = &self.site(&home.record.region)?.pool.shared;
        let make = |owner: BoxRef| async move { shared.duplicate(user, of, to, Some(owner.id)).await };
        self.create(WHAT, (user, to), &home.record.region, make).await
    }

    /// The home of a box that was to be made: it has one when it is there. One that comes late is given a home again.
    async fn look_whether_created(&self, held: &Held<HomeRecord>) -> Result<Option<Held<HomeRecord>>> {
        if self.site(&held.record.region)?.has(&held.record.owner).await?.is_some() {
            return self.step(held, &HomeEvent::Created).await.map(Some);
        }
        self.forget(held).await.map(|()| None)
    }

    /// Removes a home whose box is gone: it was deleted so that its owner could have it back, and that time is over.
    pub(super) async fn forget_if_gone(&self, user: &UserId, name: &BoxName) -> Result<bool> {
        let Some(held) = self.home_of(user, name).await? else { return Ok(true) };
        if held.record.status != HomeStatus::Settled || self.has_box(&held).await? {
            return Ok(false);
        }
        self.forget(&held).await?;
        Ok(true)
    }

    async fn has_box(&self, held: &Held<HomeRecord>) -> Result<bool> {
        Ok(self.site(&held.record.region)?.has(&held.record.owner).await?.is_some())
    }

    pub(super) async fn delete(&self, user: &UserId, name: &BoxName, for_good: bool) -> Result<()> {
        let (held, _place) = self.settled("delete box", user, name).await?;
        let node = self.site(&held.record.region)?.pool.shared.node.clone();
        let held = self.step(&held, &HomeEvent::Delete { for_good, node }).await?;
        self.finish_delete(&held).await
    }

    async fn finish_delete(&self, held: &Held<HomeRecord>) -> Result<()> {
        let HomeStatus::Deleting { for_good, .. } = held.record.status else { return Ok(()) };
        let pool = &self.site(&held.record.region)?.pool;
        if let Err(error) = pool.delete_this(&held.record.owner, for_good).await
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        if self.has_box(held).await? {
            return self.step(held, &HomeEvent::Kept).await.map(drop);
        }
        self.forget(held).await
    }

    /// Gives a box a home that has none.
    pub(super) async fn settle_stray(&self, region: &Region, owner: &BoxRef) -> Result<()> {
        match self.insert(owner.clone(), region.clone(), HomeStatus::Settled).await {
            Ok(_) => {
                tracing::info!(%owner, %region, "a box that had no home has one now");
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the home is that box's.
    pub(super) fn is_of(held: Option<&Held<HomeRecord>>, id: &BoxId) -> bool {
        held.is_some_and(|held| held.record.owner.id == *id)
    }
}
