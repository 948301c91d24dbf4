//! Instances of this host: slots, each a folder that can hold one volume.

use crate::LocalQemu;
use crate::host::{Command, Lock, must};
use crate::layout::is_plain;
use crate::saved::AttachedTo;
use async_trait::async_trait;
use boxpool::{
    Cursor, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView, Page, Result, VolumeId,
};
use std::path::Path;
use std::time::Duration;

impl LocalQemu {
    pub(crate) async fn slot_locked(&self, id: &InstanceId) -> Result<Box<dyn Lock>> {
        self.inner.host.lock(&self.inner.layout.slots().join(format!(".{id}.lock")), Duration::from_secs(30)).await
    }

    pub(crate) async fn slot_exists(&self, id: &InstanceId) -> Result<bool> {
        Ok(self.size(&self.inner.layout.slot(id)).await?.is_some())
    }

    /// The volume that is on a slot. What the slot's own file says is believed only when the volume says the same.
    pub(crate) async fn volume_on(&self, id: &InstanceId) -> Result<Option<VolumeId>> {
        let Some(text) = self.inner.host.read(&self.inner.layout.slot(id).join("volume")).await? else {
            return Ok(None);
        };
        let Ok(volume) = VolumeId::new(String::from_utf8_lossy(&text).trim()) else { return Ok(None) };
        let attached: Option<AttachedTo> = self.load(&self.inner.layout.volume(&volume).attached()).await?;
        Ok(attached.filter(|to| to.instance == *id).map(|_| volume))
    }

    /// The names in a folder, sorted; those that begin with a dot are passed over.
    pub(crate) async fn names_in(&self, folder: &Path) -> Result<Vec<String>> {
        let output = must(&*self.inner.host, "list folder", Command::new("ls").arg("-1").arg(folder)).await?;
        Ok(output.stdout.lines().filter(|name| is_plain(Path::new(name))).map(str::to_owned).collect())
    }
}

#[async_trait]
impl InstanceProvider for LocalQemu {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        self.make_dir(&self.inner.layout.slot(&spec.id), "0700").await?;
        let mut view = InstanceView::new(spec.id.clone(), InstanceState::Running);
        view.generation.clone_from(&spec.generation);
        Ok(view)
    }

    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        let exists = self.slot_exists(id).await?;
        Ok(exists.then(|| InstanceView::new(id.clone(), InstanceState::Running)))
    }

    async fn list(&self, _cursor: Option<&Cursor>) -> Result<Page<InstanceView>> {
        let names = self.names_in(&self.inner.layout.slots()).await?;
        let ids = names.into_iter().filter_map(|name| InstanceId::new(name).ok());
        let items = ids.map(|id| InstanceView::new(id, InstanceState::Running)).collect();
        Ok(Page { items, next: None })
    }

    async fn start(&self, id: &InstanceId) -> Result<InstanceView> {
        self.get_existing(id).await
    }

    /// A slot costs nothing, so there is nothing to stop.
    async fn stop(&self, id: &InstanceId) -> Result<InstanceView> {
        self.get_existing(id).await
    }

    async fn delete(&self, id: &InstanceId) -> Result<()> {
        let _slot = self.slot_locked(id).await?;
        if let Some(volume) = self.volume_on(id).await? {
            // The machine goes, and with it the guest that runs on it; the volume stays.
            let volume = self.inner.layout.volume(&volume);
            if let Some(pid) = self.pid(&volume).await? {
                self.kill(&volume, pid).await?;
            }
        }
        must(&*self.inner.host, "delete slot", Command::new("rm").arg("-rf").arg(self.inner.layout.slot(id)))
            .await
            .map(drop)
    }
}

impl LocalQemu {
    async fn get_existing(&self, id: &InstanceId) -> Result<InstanceView> {
        let found = InstanceProvider::get(self, id).await?;
        found.ok_or_else(|| {
            let error = boxpool::Error::new(boxpool::ErrorKind::NotFound, "find instance", id);
            error.with_detail("there is no such slot here")
        })
    }
}
