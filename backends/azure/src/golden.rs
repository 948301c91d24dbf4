//! The golden snapshot, built on a temporary machine: machine and empty disk → disk attached → prepared on the machine →
//! detached → snapshot → OS image → machine and disk gone.
//!
//! Everything temporary has a name that is made of the generation, so whoever goes on after a death finds it: each step
//! first looks whether it is done. The snapshot is made of a disk that is whole, so where there is a snapshot only the
//! clearing away is left.

use crate::hosts::AzureHosts;
use crate::names::SCRATCH;
use async_trait::async_trait;
use boxpool::{
    Attach, Attached, Detached, Device, Epoch, Error, ErrorKind, GoldenBuilder, InstanceId, InstanceProvider,
    InstanceSpec, InstanceState, Permit, Report, Result, SnapshotId, VolumeId, VolumeProvider, VolumeSource,
    VolumeSpec, VolumeState,
};
use boxpool_qemu::{Host, Hosts};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a machine may take to be ready: cloud-init installs packages.
const MACHINE_LIMIT: Duration = Duration::from_secs(1_200);
/// A disk comes and goes, a snapshot is copied: minutes in bad cases.
const DISK_LIMIT: Duration = Duration::from_secs(600);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Fills the data disk.
#[async_trait]
pub trait Prepare: Send + Sync + 'static {
    /// What it makes, in few words: another text is another edition. At most 32 characters of `a-z 0-9`.
    fn digest(&self) -> &str;

    /// Fills the disk that shows under one of `paths` on the machine, and leaves it taken off. Called again after a death in
    /// the middle, so it must go on from, or begin anew with, what it finds.
    ///
    /// # Errors
    /// Whatever stood in the way; tried again.
    async fn prepare(&self, host: Arc<dyn Host>, paths: &[PathBuf]) -> Result<()>;
}

/// Builds golden snapshots on temporary machines.
pub struct AzureGolden {
    pub(crate) hosts: AzureHosts,
    prepare: Arc<dyn Prepare>,
    disk_bytes: u64,
}

impl AzureGolden {
    /// A builder whose data disk has `disk_bytes`, which is the least that a volume has then.
    ///
    /// # Errors
    /// `Invalid` when the digest has other characters than it may.
    pub fn new(hosts: AzureHosts, prepare: Arc<dyn Prepare>, disk_bytes: u64) -> Result<Self> {
        let digest = prepare.digest();
        let plain = digest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !plain || !(1..=32).contains(&digest.len()) {
            return Err(Error::new(ErrorKind::Invalid, "set up golden snapshot", digest.escape_debug())
                .with_detail("its digest has 1 to 32 lower-case letters and digits"));
        }
        Ok(Self { hosts, prepare, disk_bytes })
    }

    fn volumes(&self) -> &dyn VolumeProvider {
        self.hosts.cloud()
    }

    fn scratch(&self) -> Result<(InstanceId, VolumeId)> {
        let name = format!("{SCRATCH}{}", self.generation());
        let bad = |error| Error::new(ErrorKind::Invalid, "name temporary resource", &name).with_source(error);
        Ok((InstanceId::new(&name).map_err(bad)?, VolumeId::new(&name).map_err(bad)?))
    }

    async fn is_taken(&self, id: &SnapshotId) -> Result<Option<bool>> {
        let act = "find golden snapshot";
        Ok(self.hosts.cloud().inner.found_snapshot(act, id).await?.map(|found| found.is_ready()))
    }

    pub(crate) async fn machine_ready(&self, id: &InstanceId, permit: &Permit) -> Result<Arc<dyn Host>> {
        let mut wait = Wait::new("build golden snapshot: machine", MACHINE_LIMIT);
        loop {
            permit.check().await?;
            let view = InstanceProvider::ensure(&self.hosts, &InstanceSpec::new(id.clone(), self.generation())).await?;
            match view.state {
                InstanceState::Running => return self.hosts.host(id).await,
                InstanceState::Stopped => drop(self.hosts.start(id).await?),
                InstanceState::Failed(why) => {
                    tracing::warn!(instance = %id, %why, "the temporary machine failed; another one is made");
                    InstanceProvider::delete(&self.hosts, id).await?;
                }
                _ => {}
            }
            wait.pause(id).await?;
        }
    }

    async fn disk_ready(&self, id: &VolumeId, permit: &Permit) -> Result<()> {
        let mut wait = Wait::new("build golden snapshot: disk", DISK_LIMIT);
        loop {
            permit.check().await?;
            let spec = VolumeSpec::new(id.clone(), VolumeSource::Empty { bytes: self.disk_bytes });
            match self.volumes().ensure(&spec).await?.state {
                VolumeState::Ready => return Ok(()),
                VolumeState::Failed(_) => self.volumes().delete(id).await?,
                _ => {}
            }
            wait.pause(id).await?;
        }
    }

    async fn attached(&self, attach: &Attach, permit: &Permit) -> Result<Device> {
        let mut wait = Wait::new("build golden snapshot: attach", DISK_LIMIT);
        loop {
            permit.check().await?;
            match self.volumes().attach(attach).await {
                Ok(Attached::Yes(device)) => return Ok(device),
                Ok(Attached::Pending) => {}
                Err(error) if error.kind() == ErrorKind::Busy => {}
                Err(error) => return Err(error),
            }
            wait.pause(&attach.volume).await?;
        }
    }

    async fn detached(&self, attach: &Attach, permit: &Permit) -> Result<()> {
        let mut wait = Wait::new("build golden snapshot: detach", DISK_LIMIT);
        loop {
            permit.check().await?;
            match self.volumes().detach(attach).await {
                Ok(Detached::Yes) => return Ok(()),
                Ok(Detached::Pending) => {}
                Err(error) if error.kind() == ErrorKind::Busy => {}
                Err(error) => return Err(error),
            }
            wait.pause(&attach.volume).await?;
        }
    }

    async fn taken(&self, volume: &VolumeId, id: &SnapshotId, permit: &Permit) -> Result<()> {
        let mut wait = Wait::new("build golden snapshot: copy", DISK_LIMIT);
        loop {
            permit.check().await?;
            // Disks that are made of it are nobody's copies.
            if self.hosts.cloud().inner.copy(volume, id, |_| Vec::new()).await?.ready {
                return Ok(());
            }
            wait.pause(id).await?;
        }
    }

    /// Machine first: a disk that is attached cannot go.
    async fn clear_away(&self) -> Result<()> {
        let (instance, volume) = self.scratch()?;
        let mut wait = Wait::new("clear away what a golden snapshot was built with", MACHINE_LIMIT);
        loop {
            let machine = InstanceProvider::get(&self.hosts, &instance).await?;
            match machine.map(|view| view.state) {
                None => break,
                Some(InstanceState::Deleting) => {}
                Some(_) => match InstanceProvider::delete(&self.hosts, &instance).await {
                    Err(error) if error.kind() != ErrorKind::Busy => return Err(error),
                    _ => {}
                },
            }
            wait.pause(&instance).await?;
        }
        loop {
            let disk = self.volumes().get(&volume).await?;
            match disk.map(|view| view.state) {
                None => return Ok(()),
                Some(VolumeState::Deleting) => {}
                Some(_) => match self.volumes().delete(&volume).await {
                    Err(error) if error.kind() != ErrorKind::Busy => return Err(error),
                    _ => {}
                },
            }
            wait.pause(&volume).await?;
        }
    }
}

#[async_trait]
impl GoldenBuilder for AzureGolden {
    fn generation(&self) -> &str {
        self.prepare.digest()
    }

    async fn build(&self, id: &SnapshotId, permit: &Permit) -> Result<()> {
        permit.check().await?;
        let (instance, volume) = self.scratch()?;
        match self.is_taken(id).await? {
            Some(true) => {}
            // Being copied from a disk that is whole.
            Some(false) => self.taken(&volume, id, permit).await?,
            None => {
                let attach = Attach::new(volume.clone(), instance.clone(), Epoch(1));
                let host = self.machine_ready(&instance, permit).await?;
                self.disk_ready(&volume, permit).await?;
                let device = self.attached(&attach, permit).await?;
                permit.check().await?;
                self.prepare.prepare(host, &self.hosts.paths(&device)?).await?;
                self.detached(&attach, permit).await?;
                self.taken(&volume, id, permit).await?;
            }
        }
        if self.hosts.cloud().inner.makes_image() {
            match self.image_made(id, &instance, permit).await {
                Err(error) if is_for_good(&error) => {
                    tracing::warn!(snapshot = %id, error = %Report(&error), "no image could be made; machines install what they need themselves");
                }
                made => made?,
            }
        }
        permit.check().await?;
        self.clear_away().await?;
        self.hosts.cloud().inner.take_up_image(id).await
    }

    async fn verify(&self, id: &SnapshotId) -> Result<bool> {
        let whole = self.is_taken(id).await? == Some(true);
        if whole {
            self.hosts.cloud().inner.take_up_image(id).await?;
        }
        Ok(whole)
    }

    async fn discard(&self, id: &SnapshotId) -> Result<()> {
        self.clear_away().await?;
        self.image_gone(id).await?;
        let mut wait = Wait::new("delete golden snapshot", DISK_LIMIT);
        while self.is_taken(id).await?.is_some() {
            self.volumes().delete_snapshot(id).await?;
            wait.pause(id).await?;
        }
        Ok(())
    }

    fn is_scratch(&self, name: &str) -> bool {
        name.starts_with(SCRATCH)
    }
}

/// Whether asking again would bring the same: the image cannot be made of such a machine, or not by us. Boxes do without it.
fn is_for_good(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unauthorized | ErrorKind::Permanent | ErrorKind::TimedOut)
}

/// Pauses between looks, and their end.
pub(crate) struct Wait {
    what: &'static str,
    limit: Duration,
    deadline: Instant,
    pause: Duration,
}

impl Wait {
    pub(crate) fn new(what: &'static str, limit: Duration) -> Self {
        Self { what, limit, deadline: Instant::now() + limit, pause: Duration::from_millis(100) }
    }

    pub(crate) async fn pause(&mut self, resource: &(dyn std::fmt::Display + Sync)) -> Result<()> {
        if Instant::now() + self.pause >= self.deadline {
            let detail = format!("it was not done within {:?}", self.limit);
            return Err(Error::new(ErrorKind::TimedOut, self.what, resource).with_detail(detail));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
