//! Look through all homes, and through the boxes of the regions: go on with what dead fronts left, and put right what belongs to no
//! home. Safe to repeat, and to run on every front at once; it does not retry inside, the next pass is the retry. Only the front whose
//! pool maintains a region looks through the boxes of it.

use super::{Front, Site};
use crate::error::{ErrorKind, Result};
use crate::id::{BoxId, Region};
use crate::record::{BoxRecord, HoldPart, HomeRecord, HomeStatus};
use crate::records::{Held, box_key};
use crate::saga::Travel;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Front {
    pub(super) async fn survey(self: &Arc<Self>) -> Result<()> {
        // The boxes before the homes: a home is made before its box, and goes after it.
        let mut boxes = BTreeMap::new();
        for (region, site) in &self.sites {
            let shared = &site.pool.shared;
            if shared.check_in_touch("look through homes").is_ok() && shared.is_maintainer() {
                let all = shared.records.scan_all::<BoxRecord>(None).await?;
                boxes.insert(region, all.into_iter().map(|(_, held)| held.record).collect::<Vec<_>>());
            }
        }
        let homes = self.records.scan_all::<HomeRecord>(None).await?;
        for (_, held) in &homes {
            self.look_at_home(held);
        }
        for (region, all) in &boxes {
            let known: BTreeSet<&BoxId> = all.iter().map(|record| &record.owner.id).collect();
            for (_, held) in homes.iter().filter(|(_, held)| held.record.region == **region) {
                if held.record.status == HomeStatus::Settled && !known.contains(&held.record.owner.id) {
                    self.told(self.forget_if_gone(&held.record.owner.owner, &held.record.owner.name).await.map(drop));
                }
            }
        }
        let homes: BTreeMap<_, _> = homes.into_iter().map(|(key, held)| ((key.partition, key.row), held)).collect();
        for (region, all) in boxes {
            for record in all {
                let key = (record.owner.owner.as_str().to_owned(), record.owner.name.as_str().to_owned());
                let outcome = self.look_at_box(region, &record, homes.get(&key)).await;
                self.told(outcome);
            }
        }
        Ok(())
    }

    fn told(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            tracing::info!(error = %crate::Report(&error), "a box's home was not put right; the next pass tries again");
        }
    }

    /// A home that nobody is at work on. It may take long, so it is not waited for.
    fn look_at_home(self: &Arc<Self>, held: &Held<HomeRecord>) {
        let Some(site) = self.sites.get(&held.record.region) else { return };
        let Some(place) = self.left_behind(held) else { return };
        let (front, held) = (Arc::clone(self), held.clone());
        site.pool.shared.spawn(async move {
            match front.recover(held, &place).await {
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                outcome => front.told(outcome),
            }
        });
    }

    async fn look_at_box(&self, region: &Region, record: &BoxRecord, home: Option<&Held<HomeRecord>>) -> Result<()> {
        let site = self.site(region)?;
        let lives_here = |home: &Held<HomeRecord>| {
            home.record.owner.id == record.owner.id && home.record.region == *region && record.hold.is_none()
        };
        if home.is_some_and(lives_here) {
            return Ok(());
        }
        // Both may have changed since; and what is read now of the box is older than what is read of its home.
        let owner = &record.owner;
        let key = box_key(&owner.owner, &owner.name);
        let found = site.pool.shared.records.get::<BoxRecord>(&key).await?;
        let Some(found) = found.filter(|found| found.record.owner == *owner) else { return Ok(()) };
        let home = self.home_of(&owner.owner, &owner.name).await?;
        match &found.record.hold {
            Some(hold) if home.as_ref().and_then(|home| home.record.status.attempt()) == Some(&hold.attempt) => Ok(()),
            Some(hold) if hold.part == HoldPart::Leaving => {
                let step = Travel::Stay { id: owner.id.clone(), attempt: hold.attempt.clone() };
                site.travel(owner, step).await.map(drop)
            }
            Some(hold) => {
                tracing::warn!(%owner, %region, "what is left of a move that was given up is removed");
                metrics::counter!("boxpool_orphans_total", "of" => "box").increment(1);
                site.travel(owner, Travel::Discard { attempt: hold.attempt.clone() }).await.map(drop)
            }
            None if found.record.placement.worker().is_some() => Ok(()),
            None => self.look_at_stray(region, site, &found.record, home.as_ref()).await,
        }
    }

    /// A box that is at rest and held by no move. It has a home that says so, or had none, or its name is another's.
    async fn look_at_stray(
        &self,
        region: &Region,
        site: &Site,
        record: &BoxRecord,
        home: Option<&Held<HomeRecord>>,
    ) -> Result<()> {
        let owner = &record.owner;
        let Some(home) = home else { return self.settle_stray(region, owner).await };
        let is_home = Self::is_of(Some(home), &owner.id);
        if is_home && home.record.region == *region {
            return Ok(());
        }
        let under_way = home.record.status != HomeStatus::Settled;
        if !is_home && !under_way && record.brought_up.is_none() && record.holders.is_empty() {
            // A create that came late; its front was told that it had failed, and the name was given away.
            tracing::warn!(%owner, %region, "a box that was never used, and whose name is another's, is removed");
            return site.pool.delete_this(owner, true).await;
        }
        if !under_way {
            tracing::error!(%owner, %region, home = %home.record.region, "a box is in a region where its name is another's; it is kept for a person to look at");
        }
        Ok(())
    }
}
