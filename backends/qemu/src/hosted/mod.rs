//! Boxes on machines of their own: each volume is a disk that is attached to the machine, and one box runs on a machine.
//!
//! ```text
//! on the machine                        on the volume, which is mounted at /mnt/userdata while its guest runs
//!   /var/lib/boxpool/lock                 volume             the id of the volume
//!   /var/lib/boxpool/epochs/<volume>      snapshots/<id>/    the golden snapshot that the disk was copied with
//!   /mnt/userdata/                        volumes/<id>/ …    as on a local host (`layout`)
//! ```
//!
//! A start mounts the disk, a suspend or stop takes it off, so that a machine without a guest holds nothing of anybody.
//! Both find out what is there before they act, because whoever acted before may have died at any point: a disk that is
//! mounted stays mounted for the next start, and a guest that runs is adopted.
//!
//! The epoch is kept twice: on the volume, where it goes along to the next machine, and on the machine, which refuses an
//! older caller also while the disk is away.

mod copied;
mod mount;
mod prepare;

use crate::host::{Command, Host, Lock, must};
use crate::hosts::Hosts;
use crate::runtime::LOCK_LIMIT;
use crate::saved::AttachedTo;
use crate::{Accel, LocalQemu, Network, QemuOptions};
use async_trait::async_trait;
use boxpool::{
    Cleared, Endpoint, EndpointAddress, Epoch, Error, ErrorKind, Guest, GuestRuntime, GuestStatus, InstanceId, Result,
    Started, Suspended, VolumeId,
};
use mount::Mounted;
pub use prepare::prepare_disk;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How boxes are run on machines of their own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostedOptions {
    /// Where the box's disk is mounted.
    pub mount_point: PathBuf,
    /// What the machine itself remembers.
    pub memory_dir: PathBuf,
    /// The user that QEMU runs as.
    pub user: String,
    /// KVM or TCG; found out on each machine when not given.
    pub accel: Option<Accel>,
    /// What guests may reach.
    pub network: Network,
    /// So much of a volume is always left free.
    pub keep_free_bytes: u64,
    /// How long an attached disk may take to show on its machine.
    pub device_limit: Duration,
}

impl Default for HostedOptions {
    fn default() -> Self {
        Self {
            mount_point: "/mnt/userdata".into(),
            memory_dir: "/var/lib/boxpool".into(),
            user: "boxpool".into(),
            accel: None,
            network: Network::Isolated,
            keep_free_bytes: 64 << 20,
            device_limit: Duration::from_secs(30),
        }
    }
}

/// The guest runtime for instances that are machines of their own. Cheap to clone.
#[derive(Clone)]
pub struct HostedQemu {
    inner: Arc<Inner>,
}

struct Inner {
    hosts: Arc<dyn Hosts>,
    options: HostedOptions,
}

/// A volume's disk, and what is known of it besides what is on it.
struct Disk<'a> {
    volume: &'a VolumeId,
    /// Where it may show; `None` when that is not known.
    paths: Option<Vec<PathBuf>>,
    /// Whose name plate may be on it, until it is this volume's own.
    copied_from: Vec<VolumeId>,
}

/// A machine, and who asked for it.
struct Place<'a> {
    host: Arc<dyn Host>,
    options: &'a HostedOptions,
}

impl HostedQemu {
    /// A runtime for the machines that `hosts` finds.
    #[must_use]
    pub fn new(hosts: Arc<dyn Hosts>, options: HostedOptions) -> Self {
        Self { inner: Arc::new(Inner { hosts, options }) }
    }

    /// Connects to an address as the instance's machine sees it, such as a guest's port on its loopback.
    ///
    /// # Errors
    /// As [`Hosts::host`]; `Unavailable` when nobody listens there.
    pub async fn open(&self, instance: &InstanceId, address: SocketAddr) -> Result<Box<dyn crate::Stream>> {
        self.inner.hosts.host(instance).await?.open_tcp(address).await
    }

    fn disk<'a>(&self, guest: &'a Guest) -> Result<Disk<'a>> {
        let (mut paths, mut copied_from) = (None, Vec::new());
        if let Some(device) = &guest.device {
            paths = Some(self.inner.hosts.paths(device)?);
            if guest.copied {
                copied_from = self.inner.hosts.copied_from(device)?;
            }
        }
        Ok(Disk { volume: &guest.volume, paths, copied_from })
    }

    async fn place(&self, instance: &InstanceId) -> Result<Place<'_>> {
        Ok(Place { host: self.inner.hosts.host(instance).await?, options: &self.inner.options })
    }
}

/// A guest's address on its machine, for those who are elsewhere.
fn on_machine(instance: &InstanceId, endpoint: Endpoint) -> Endpoint {
    let address = match endpoint.address {
        EndpointAddress::Tcp(address) => EndpointAddress::On { instance: instance.clone(), address },
        other => other,
    };
    Endpoint { address, ..endpoint }
}

impl Place<'_> {
    /// One operation at a time: none must see a disk half mounted, or taken off under its feet.
    async fn alone(&self) -> Result<Box<dyn Lock>> {
        let epochs = self.epochs();
        must(&*self.host, "prepare machine", Command::new("install").args(["-d", "-m", "0700"]).arg(&epochs)).await?;
        self.host.lock(&self.options.memory_dir.join("lock"), LOCK_LIMIT).await
    }

    fn epochs(&self) -> PathBuf {
        self.options.memory_dir.join("epochs")
    }

    /// Refuses an older epoch and remembers a newer one for this machine. Only while alone.
    async fn fence(&self, operation: &'static str, volume: &VolumeId, epoch: Epoch) -> Result<()> {
        let file = self.epochs().join(volume.as_str());
        let seen = match self.host.read(&file).await? {
            None => Epoch(0),
            Some(text) => String::from_utf8_lossy(&text).trim().parse().map(Epoch).map_err(|error| {
                let detail = format!("{} does not hold an epoch ({error}); it was left as it is", file.display());
                Error::new(ErrorKind::Corrupt, operation, volume).with_detail(detail)
            })?,
        };
        if epoch < seen {
            let detail = format!("epoch {epoch} is over: {seen} was seen");
            return Err(Error::new(ErrorKind::Fenced, operation, volume).with_detail(detail));
        }
        if epoch > seen {
            self.host.put(&file, epoch.to_string().as_bytes(), 0o600).await?;
        }
        Ok(())
    }

    /// QEMU on the volume that is mounted.
    async fn qemu(&self) -> Result<LocalQemu> {
        let mut options = QemuOptions::new(&self.options.mount_point);
        options.accel = self.options.accel;
        options.user.clone_from(&self.options.user);
        options.network = self.options.network;
        options.keep_free_bytes = self.options.keep_free_bytes;
        LocalQemu::open_on(Arc::clone(&self.host), options).await
    }

    /// QEMU on a volume's disk, which is mounted for it, and is the volume's own from then on.
    async fn qemu_on(&self, disk: &Disk<'_>) -> Result<LocalQemu> {
        mount::mount(self, disk).await?;
        let qemu = self.qemu().await?;
        if !disk.copied_from.is_empty() {
            copied::make_own(self, &qemu, disk).await?;
        }
        Ok(qemu)
    }

    /// The box on the volume that is mounted.
    async fn start_mounted(&self, qemu: LocalQemu, guest: &Guest) -> Result<Started> {
        let golden = mount::golden_of(&qemu, &guest.volume).await?;
        mount::fill(self, &qemu, &guest.volume, golden).await?;
        // The service that attached the disk has it at one machine at a time; what the volume says of an earlier one is over.
        let volume = qemu.inner.layout.volume(&guest.volume);
        let on = AttachedTo { instance: guest.instance.clone(), epoch: guest.epoch };
        {
            let _lock = qemu.locked(&volume).await?;
            qemu.fence("start box", &volume, guest.epoch).await?;
            if qemu.load::<AttachedTo>(&volume.attached()).await?.is_none_or(|to| to.instance != guest.instance) {
                qemu.save(&volume.attached(), &on).await?;
            }
        }
        let started = qemu.start(guest).await?;
        Ok(Started { endpoint: on_machine(&guest.instance, started.endpoint), by: started.by })
    }

    /// Whether it is this volume that is mounted.
    async fn is_mounted(&self, volume: &VolumeId) -> Result<bool> {
        match mount::mounted(self).await? {
            Mounted::Nothing => Ok(false),
            Mounted::Volume(found) => Ok(found == *volume),
            Mounted::Unknown(_) => Ok(false),
        }
    }
}

#[async_trait]
impl GuestRuntime for HostedQemu {
    async fn start(&self, guest: &Guest) -> Result<Started> {
        let place = self.place(&guest.instance).await?;
        let _alone = place.alone().await?;
        place.fence("start box", &guest.volume, guest.epoch).await?;
        let qemu = place.qemu_on(&self.disk(guest)?).await?;
        place.start_mounted(qemu, guest).await
    }

    async fn suspend(&self, guest: &Guest) -> Result<Suspended> {
        let place = self.place(&guest.instance).await?;
        let _alone = place.alone().await?;
        place.fence("suspend box", &guest.volume, guest.epoch).await?;
        if !place.is_mounted(&guest.volume).await? {
            return Ok(Suspended::NotRunning);
        }
        let suspended = place.qemu().await?.suspend(guest).await?;
        mount::unmount_at(&place).await?;
        Ok(suspended)
    }

    async fn stop(&self, guest: &Guest) -> Result<()> {
        let place = self.place(&guest.instance).await?;
        let _alone = place.alone().await?;
        place.fence("stop box", &guest.volume, guest.epoch).await?;
        if !place.is_mounted(&guest.volume).await? {
            return Ok(());
        }
        place.qemu().await?.stop(guest).await?;
        mount::unmount_at(&place).await
    }

    async fn shut_down(&self, guest: &Guest, within: Duration) -> Result<()> {
        let place = self.place(&guest.instance).await?;
        let _alone = place.alone().await?;
        place.fence("shut box down", &guest.volume, guest.epoch).await?;
        // What was saved lies on the disk, so that is mounted for this too.
        let qemu = match place.is_mounted(&guest.volume).await? {
            true => place.qemu().await?,
            false => place.qemu_on(&self.disk(guest)?).await?,
        };
        qemu.shut_down(guest, within).await?;
        mount::unmount_at(&place).await
    }

    async fn status(&self, guest: &Guest) -> Result<GuestStatus> {
        let place = self.place(&guest.instance).await?;
        let _alone = place.alone().await?;
        place.fence("ask box", &guest.volume, guest.epoch).await?;
        if !place.is_mounted(&guest.volume).await? {
            return Ok(GuestStatus::NotRunning);
        }
        Ok(match place.qemu().await?.status(guest).await? {
            GuestStatus::Running(endpoint) => GuestStatus::Running(on_machine(&guest.instance, endpoint)),
            other => other,
        })
    }

    async fn clear(&self, instance: &InstanceId) -> Result<Cleared> {
        let place = match self.place(instance).await {
            Ok(place) => place,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Cleared::Clean),
            Err(error) => return Err(error),
        };
        let _alone = place.alone().await?;
        if let Some(left) = mount::left(&place, &self.inner.hosts.attached_in()).await? {
            return Ok(Cleared::Doubtful(left));
        }
        // Epochs of long ago: no caller of theirs is left.
        let old = Command::new("find").arg(place.epochs()).args(["-type", "f", "-mtime", "+1", "-delete"]);
        must(&*place.host, "clear instance", old).await?;
        Ok(Cleared::Clean)
    }
}

/// The file on a volume that says whose it is.
fn name_plate(mount_point: &Path) -> PathBuf {
    mount_point.join("volume")
}
