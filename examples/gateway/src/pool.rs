//! The pool behind the gateway.

use crate::boxes::{BoxEvent, BoxSession, BoxSummary, Boxes, PoolNumbers, ShareSummary, SnapshotSummary, Wish};
use crate::page;
use crate::size::Size;
use async_trait::async_trait;
use boxpool::record::{EventRecord, Mode, Share};
use boxpool::{
    BoxName, BoxSnapshot, BoxView, Clock, ConnectRequest, Endpoint, Epoch, Pool, Result, Session, SnapshotName,
    SystemClock, UserId,
};
use std::time::Duration;

pub(crate) fn summary(view: &BoxView) -> BoxSummary {
    BoxSummary {
        name: view.name.to_string(),
        state: view.state().to_owned(),
        created: view.created_at,
        last_used: view.used_at,
        disk_bytes: view.grown_to,
        keepalive: view.mode == Mode::KeepRunning,
        connects: view.usage.connects,
        ran_ms: u64::try_from(view.usage.ran(SystemClock.now()).as_millis()).unwrap_or(u64::MAX),
        shares: view.shares.iter().map(|(account, share)| shared(account, share)).collect(),
        deleted_until: view.deleted_until,
        brought_up: view.brought_up,
        region: None,
    }
}

fn kept_as(kept: &BoxSnapshot) -> SnapshotSummary {
    SnapshotSummary {
        name: kept.name.to_string(),
        of: kept.of.name.to_string(),
        state: kept.state().to_owned(),
        created: kept.created_at,
        disk_bytes: kept.grown_to,
        region: None,
    }
}

fn shared(account: &UserId, share: &Share) -> ShareSummary {
    let Share { added_at: added, used_at: last_used, connects } = *share;
    ShareSummary { account: account.clone(), added, last_used, connects }
}

/// An event of a box as its owner may see it: not where it ran.
fn told(event: EventRecord) -> Option<BoxEvent> {
    let kind = page::kind(&event);
    let EventRecord { at, owner, epoch, took_ms, detail, .. } = event;
    owner.map(|owner| BoxEvent { at, kind, incarnation: owner.id, epoch, took_ms, detail })
}

pub(crate) fn request(wish: Wish) -> ConnectRequest {
    let mut request = ConnectRequest::new(wish.owner, wish.name).deadline(wish.limit).progress(wish.progress);
    if let Some(guest) = wish.guest {
        request = request.by(guest);
    }
    if let Some(epoch) = wish.distrust {
        request = request.distrust(epoch);
    }
    request
}

#[async_trait]
impl Boxes for Pool {
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.create_box(owner, name).await.map(|view| summary(&view))
    }

    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        Ok(self.list_boxes(owner).await?.iter().map(summary).collect())
    }

    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>> {
        Ok(self.get_box(owner, name).await?.as_ref().map(summary))
    }

    async fn start(&self, owner: &UserId, name: &BoxName, limit: Duration) -> Result<BoxSummary> {
        self.start_box(owner, name, limit).await.map(|view| summary(&view))
    }

    async fn stop(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.stop_box(owner, name).await.map(|view| summary(&view))
    }

    async fn resize(&self, owner: &UserId, name: &BoxName, size: Size) -> Result<BoxSummary> {
        self.resize_box(owner, name, size.0).await.map(|view| summary(&view))
    }

    async fn rename(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        self.rename_box(owner, name, to).await.map(|view| summary(&view))
    }

    async fn keep(&self, owner: &UserId, name: &BoxName, on: bool) -> Result<BoxSummary> {
        let mode = if on { Mode::KeepRunning } else { Mode::SuspendOnLeave };
        self.set_mode(owner, name, mode).await.map(|view| summary(&view))
    }

    async fn delete(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.delete_box(owner, name).await
    }

    async fn purge(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.purge_box(owner, name).await
    }

    async fn undelete(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        self.undelete_box(owner, name).await.map(|view| summary(&view))
    }

    async fn list_deleted(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        Ok(Pool::list_deleted(self, owner).await?.iter().map(summary).collect())
    }

    async fn take_snapshot(&self, owner: &UserId, name: &BoxName, called: &SnapshotName) -> Result<SnapshotSummary> {
        Pool::take_snapshot(self, owner, name, called).await.map(|kept| kept_as(&kept))
    }

    async fn list_snapshots(&self, owner: &UserId) -> Result<Vec<SnapshotSummary>> {
        Ok(Pool::list_snapshots(self, owner).await?.iter().map(kept_as).collect())
    }

    async fn delete_snapshot(&self, owner: &UserId, called: &SnapshotName) -> Result<()> {
        Pool::delete_snapshot(self, owner, called).await
    }

    async fn restore(&self, owner: &UserId, from: &SnapshotName, to: &BoxName) -> Result<BoxSummary> {
        self.restore_box(owner, from, to).await.map(|view| summary(&view))
    }

    async fn duplicate(&self, owner: &UserId, name: &BoxName, to: &BoxName) -> Result<BoxSummary> {
        self.duplicate_box(owner, name, to).await.map(|view| summary(&view))
    }

    async fn share(&self, owner: &UserId, name: &BoxName, with: &UserId, allowed: bool) -> Result<BoxSummary> {
        self.share_box(owner, name, with, allowed).await.map(|view| summary(&view))
    }

    async fn events(&self, owner: &UserId, name: &BoxName, limit: usize) -> Result<Vec<BoxEvent>> {
        let events = self.box_events(owner, name, limit).await?;
        Ok(events.into_iter().filter_map(told).collect())
    }

    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>> {
        Ok(Box::new(Pool::connect(self, request(wish)).await?))
    }

    async fn status(&self) -> Result<PoolNumbers> {
        let status = Pool::status(self);
        Ok(PoolNumbers {
            instances_free: status.free_instances,
            volumes_free: status.free_volumes,
            parked: status.parked,
            waiting: status.waiting,
            gateways: status.live_nodes,
            draining: status.draining,
        })
    }
}

#[async_trait]
impl BoxSession for Session {
    fn endpoint(&self) -> &Endpoint {
        Session::endpoint(self)
    }

    fn epoch(&self) -> Epoch {
        Session::epoch(self)
    }

    async fn ended(&self) {
        Session::ended(self).await;
    }

    async fn release(self: Box<Self>) {
        Session::release(*self).await;
    }
}
