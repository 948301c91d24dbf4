//! Every call to a provider ends: within its limit, or as `TimedOut`.
//!
//! The pool sees its providers only through these, so that no caller can forget.

use crate::error::Result;
use crate::id::{InstanceId, SnapshotId, VolumeId};
use crate::provider::{
    Attach, Attached, Detached, InstanceProvider, InstanceSpec, InstanceView, SnapshotView, VolumeProvider, VolumeSpec,
    VolumeView,
};
use crate::shared::limited;
use crate::store::{Cursor, Page};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// A provider whose calls each take so long at most.
pub(crate) struct Limited<P: ?Sized> {
    limit: Duration,
    inner: Arc<P>,
}

impl<P: ?Sized> Limited<P> {
    pub(crate) fn new(inner: Arc<P>, limit: Duration) -> Self {
        Self { limit, inner }
    }
}

#[async_trait]
impl InstanceProvider for Limited<dyn InstanceProvider> {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        limited(self.limit, "create instance", &spec.id, self.inner.ensure(spec)).await
    }

    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        limited(self.limit, "find instance", id, self.inner.get(id)).await
    }

    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<InstanceView>> {
        limited(self.limit, "list instances", &"all", self.inner.list(cursor)).await
    }

    async fn start(&self, id: &InstanceId) -> Result<InstanceView> {
        limited(self.limit, "start instance", id, self.inner.start(id)).await
    }

    async fn stop(&self, id: &InstanceId) -> Result<InstanceView> {
        limited(self.limit, "stop instance", id, self.inner.stop(id)).await
    }

    async fn delete(&self, id: &InstanceId) -> Result<()> {
        limited(self.limit, "delete instance", id, self.inner.delete(id)).await
    }
}

#[async_trait]
impl VolumeProvider for Limited<dyn VolumeProvider> {
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView> {
        limited(self.limit, "create volume", &spec.id, self.inner.ensure(spec)).await
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        limited(self.limit, "find volume", id, self.inner.get(id)).await
    }

    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<VolumeView>> {
        limited(self.limit, "list volumes", &"all", self.inner.list(cursor)).await
    }

    async fn attach(&self, attach: &Attach) -> Result<Attached> {
        limited(self.limit, "attach volume", &attach.volume, self.inner.attach(attach)).await
    }

    async fn detach(&self, attach: &Attach) -> Result<Detached> {
        limited(self.limit, "detach volume", &attach.volume, self.inner.detach(attach)).await
    }

    async fn force_detach(&self, attach: &Attach) -> Result<Detached> {
        limited(self.limit, "detach volume by force", &attach.volume, self.inner.force_detach(attach)).await
    }

    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        limited(self.limit, "take snapshot", volume, self.inner.snapshot(volume, id)).await
    }

    async fn list_snapshots(&self, cursor: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        limited(self.limit, "list snapshots", &"all", self.inner.list_snapshots(cursor)).await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        limited(self.limit, "delete snapshot", id, self.inner.delete_snapshot(id)).await
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        limited(self.limit, "delete volume", id, self.inner.delete(id)).await
    }

    async fn resize(&self, id: &VolumeId, bytes: u64) -> Result<()> {
        limited(self.limit, "resize volume", id, self.inner.resize(id, bytes)).await
    }
}
