//! Rename a box in whatever region it lives. Its name is its home's key, so two homes stand for it meanwhile: the new name is taken
//! first (`Arriving`), the old home says so (`Renaming`), the region [renames the box](crate::Pool::rename_box), and what the box is
//! called there decides which of the two homes stays.
//!
//! Whoever takes over writes the old home's record, and then has the region write the box's record: so the rename that was asked
//! for before has come about by then or never does.

use super::{Front, Home, Site, homes};
use crate::actor::Message;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::id::{BoxName, BoxRef, UserId};
use crate::record::{BoxRecord, HomeEvent, HomeRecord, HomeStatus};
use crate::records::Held;
use crate::saga::{Guard, Travel};
use std::sync::Arc;

const WHAT: &str = "rename box";

impl Front {
    pub(super) async fn rename(self: &Arc<Self>, user: &UserId, name: &BoxName, to: &BoxName) -> Result<Home> {
        if name == to {
            return Err(Error::new(ErrorKind::Invalid, WHAT, name).with_detail("that is its name"));
        }
        let (held, _place) = self.settled(WHAT, user, name).await?;
        let taken = || {
            let detail = format!(
                "a box named {to} exists already, in this or another region, or was deleted and can still be had back"
            );
            Error::new(ErrorKind::AlreadyExists, WHAT, name).with_detail(detail)
        };
        let _new_place = self.enter(user, to).ok_or_else(taken)?;
        if self.found(user, to).await?.is_some() && !self.forget_if_gone(user, to).await? {
            return Err(taken());
        }
        let site = self.site(&held.record.region)?;
        let node = site.pool.shared.node.clone();
        let owner = BoxRef { name: to.clone(), ..held.record.owner.clone() };
        let status = HomeStatus::Arriving { from: name.clone(), node: node.clone() };
        let region = held.record.region.clone();
        let arriving = match self.insert(owner, region, status).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(taken()),
            answer => answer?,
        };
        let held = match self.step(&held, &HomeEvent::Rename { to: to.clone(), node }).await {
            Ok(held) => held,
            Err(error) => {
                self.forget(&arriving).await?;
                return Err(error);
            }
        };
        let unless = self.both_ours(&held.record, &arriving.record);
        let renamed = self.rename_there(site, &held.record.owner, to, unless).await;
        match (renamed, self.conclude_rename(&held).await) {
            (_, Ok(Some(home))) => Ok(Home::of(home.record)),
            (Ok(_), Ok(None)) => Err(homes::absent(WHAT, name)),
            (Err(error), Ok(None)) => Err(error),
            (Ok(_), Err(error)) | (Err(error), Err(_)) => Err(error.with_effect(Effect::Unknown)),
        }
    }

    async fn rename_there(&self, site: &Site, owner: &BoxRef, to: &BoxName, unless: Guard) -> Result<BoxRecord> {
        let BoxRef { owner: user, name, .. } = owner;
        let to = to.clone();
        site.pool.ask(WHAT, user, name, |deadline, done| Message::Rename { to, unless, deadline, done }).await
    }

    /// That both homes' records still say that this front is at them.
    fn both_ours(self: &Arc<Self>, old: &HomeRecord, new: &HomeRecord) -> Guard {
        let (old, new) = (self.still_ours(old), self.still_ours(new));
        Guard::new(move || {
            let (old, new) = (old.clone(), new.clone());
            Box::pin(async move {
                old.check().await?;
                new.check().await
            })
        })
    }

    /// `Renaming`, by us: the box has one of the two names, and the home of the other one goes. Answers with the home when it has
    /// the new one.
    pub(super) async fn conclude_rename(&self, held: &Held<HomeRecord>) -> Result<Option<Held<HomeRecord>>> {
        let HomeStatus::Renaming { to, node } = &held.record.status else { return Ok(None) };
        let (old, region) = (&held.record.owner, &held.record.region);
        let new = BoxRef { name: to.clone(), ..old.clone() };
        let site = self.site(region)?;
        let keeps = site.travel(old, Travel::Stay { id: old.id.clone(), attempt: String::new() }).await?.is_some();
        let arriving = self.home_of(&new.owner, to).await?.filter(|home| home.record.owner == new);
        if !keeps && site.has(&new).await?.is_some() {
            let home = match arriving {
                Some(home) if home.record.status == HomeStatus::Settled => home,
                Some(home) => self.step(&home, &HomeEvent::Renamed).await?,
                None => self.insert(new, region.clone(), HomeStatus::Settled).await?,
            };
            self.forget(held).await?;
            return Ok(Some(home));
        }
        if let Some(home) = arriving {
            self.forget(&home).await?;
        }
        if keeps {
            self.step(held, &HomeEvent::GivenUp { node: node.clone() }).await?;
        } else {
            self.forget(held).await?;
        }
        Ok(None)
    }

    /// `Arriving`, by us: the box's home when the box is called so, or else nothing. As long as the old home says that the rename is
    /// under way it is concluded from there.
    pub(super) async fn look_whether_arrived(&self, held: &Held<HomeRecord>) -> Result<()> {
        let HomeStatus::Arriving { from, .. } = &held.record.status else { return Ok(()) };
        let owner = &held.record.owner;
        let old = self.home_of(&owner.owner, from).await?.filter(|old| old.record.owner.id == owner.id);
        if let Some(old) = old
            && matches!(&old.record.status, HomeStatus::Renaming { to, .. } if *to == owner.name)
        {
            return match self.left_behind(&old) {
                Some(place) => Box::pin(self.recover(old, &place)).await,
                None => Ok(()),
            };
        }
        if self.site(&held.record.region)?.has(owner).await?.is_some() {
            return self.step(held, &HomeEvent::Renamed).await.map(drop);
        }
        self.forget(held).await
    }
}
