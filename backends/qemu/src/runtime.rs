//! The guest runtime: start or resume, suspend, shut down, stop, status, clear.
//!
//! Every call takes the volume's lock first, checks the epoch, and then looks at what is there before it acts, because
//! whoever acted before may have died at any point:
//!
//! | found | `start` | `suspend` |
//! | --- | --- | --- |
//! | no QEMU | load the saved memory if it fits the disk, else boot | nothing to do |
//! | QEMU running | adopt | stop, save, commit, quit |
//! | QEMU paused, a fitting memory is saved | quit it, load | quit it: the save was complete |
//! | QEMU paused, none is saved | let it run | save, commit, quit |
//! | QEMU loading | kill it, begin again | kill it: the saved memory is untouched |
//! | QEMU that does not answer | kill it, boot | error |
//!
//! The epoch is durable before a guest may run, not before QEMU is there: `start` writes it down while QEMU loads the
//! memory, paused, and waits for both before it says `cont`. All the while it holds the volume's lock, so no other epoch is
//! looked at in between. If the process dies before the epoch is written, what it leaves is a paused QEMU, which the next
//! caller, of whatever epoch, ends.
//!
//! A start that fails for a reason that says nothing about the saved memory keeps that memory. Only QEMU's own refusal to
//! load it leads to a boot.

use crate::LocalQemu;
use crate::host::{Command, Lock, must};
use crate::layout::VolumeDir;
use crate::process::Loaded;
use crate::qmp::Qmp;
use crate::saved::{AttachedTo, Meta, Saved};
use async_trait::async_trait;
use boxpool::{
    Cleared, Effect, Endpoint, EndpointAddress, Epoch, Error, ErrorKind, Guest, GuestRuntime, GuestStatus, InstanceId,
    Result, Started, StartedBy, Suspended,
};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// How long an operation waits for another on the same volume or machine: longer than a boot may take ([`BOOT_LIMIT`]), so that
/// who asks for a guest that is just coming up has it then. On a machine with much else to do that has taken more than a minute.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(270);
/// A Debian guest boots in 10 to 14 seconds under TCG on an idle core; twenty at once on two cores take longer.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// An epoch that has been checked and is not written down yet.
struct Fence(Option<Epoch>);

impl Fence {
    /// Writes it down. Called again it does nothing.
    async fn close(&mut self, qemu: &LocalQemu, volume: &VolumeDir) -> Result<()> {
        if let Some(epoch) = self.0 {
            qemu.record_epoch(volume, epoch).await?;
            self.0 = None;
        }
        Ok(())
    }
}

/// What became of a guest that was to be resumed.
enum Resumed {
    Runs(SocketAddr),
    /// QEMU does not take this memory, and says why.
    Refused(String),
}

impl LocalQemu {
    pub(crate) async fn locked(&self, volume: &VolumeDir) -> Result<Box<dyn Lock>> {
        if self.size(&volume.dir).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, "find volume", volume.dir.display())
                .with_detail("there is no such volume here"));
        }
        self.inner.host.lock(&volume.lock(), LOCK_LIMIT).await
    }

    fn endpoint(meta: &Meta, address: SocketAddr) -> Endpoint {
        Endpoint { address: EndpointAddress::Tcp(address), login: meta.login.clone(), host_key: meta.host_key.clone() }
    }

    async fn check_attached(&self, volume: &VolumeDir, guest: &Guest) -> Result<()> {
        let attached: Option<AttachedTo> = self.load(&volume.attached()).await?;
        if attached.is_some_and(|to| to.instance == guest.instance) {
            return Ok(());
        }
        let detail = format!("the volume is not attached to {}", guest.instance);
        Err(Error::new(ErrorKind::NotFound, "start box", &guest.volume).with_detail(detail))
    }

    /// Refuses to start a guest for whose memory the disk has no room: QEMU would be killed in the middle of a write.
    async fn check_room(&self, volume: &VolumeDir, meta: &Meta) -> Result<()> {
        let used = self.inner.host.look(&volume.mem()).await?.map_or(0, |facts| facts.allocated_bytes);
        let memory = u64::from(meta.machine.memory_mib) << 20;
        self.require_room(&volume.dir, memory.saturating_sub(used)).await
    }

    pub(crate) async fn require_room(&self, at: &std::path::Path, needed: u64) -> Result<()> {
        let free = self.inner.host.free_bytes(at).await?;
        let wanted = needed + self.inner.keep_free_bytes;
        if free >= wanted {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        let detail = format!(
            "the disk of {} has {} MiB free and {} MiB are needed; free {} MiB there",
            self.inner.layout.state.display(),
            mib(free),
            mib(wanted),
            mib(wanted - free) + 1
        );
        Err(Error::new(ErrorKind::NoCapacity, "check disk space", at.display()).with_detail(detail))
    }

    /// From now on the disk moves: what was saved before does not fit any more.
    async fn disk_moves(&self, volume: &VolumeDir, meta: &mut Meta) -> Result<()> {
        let moved = Meta { disk_generation: meta.disk_generation + 1, ..meta.clone() };
        self.save(&volume.meta(), &moved).await?;
        *meta = moved;
        Ok(())
    }

    async fn resume(&self, volume: &VolumeDir, meta: &mut Meta, fence: &mut Fence) -> Result<Resumed> {
        let load = async {
            let kernel = self.inner.layout.snapshot(&meta.snapshot);
            let mut qmp = self.spawn(volume, &meta.machine, &kernel, Some(&volume.state())).await?;
            if let Loaded::Refused(why) = self.load_memory(volume, &mut qmp).await? {
                return Ok(Err(why));
            }
            // Asked while it is paused: once it runs it wants the processor for itself.
            let address = self.port(volume, &mut qmp).await?;
            Ok::<_, Error>(Ok((qmp, address)))
        };
        let (loaded, fenced) = tokio::join!(load, fence.close(self, volume));
        fenced?;
        let (mut qmp, address) = match loaded? {
            Ok(loaded) => loaded,
            Err(why) => return Ok(Resumed::Refused(why)),
        };
        self.disk_moves(volume, meta).await?;
        qmp.call("cont", Value::Null).await?;
        // The saved memory is used up. Its files stay until the next save takes their place: the generation tells that
        // they fit no more, and removing them now would make the caller wait.
        Ok(Resumed::Runs(address))
    }

    /// Ends a QEMU whose start failed, if its memory is saved all the same. One that holds the only copy is left to the
    /// next start, which lets it run.
    async fn abandon(&self, volume: &VolumeDir, error: Error) -> Error {
        let safe = match self.meta(volume).await {
            Ok(meta) => self.loadable(volume, &meta).await.unwrap_or(false),
            Err(_) => false,
        };
        if safe && self.end(volume).await.is_ok() {
            return error;
        }
        error.with_effect(Effect::Unknown)
    }

    async fn boot(&self, volume: &VolumeDir, meta: &mut Meta) -> Result<SocketAddr> {
        let kernel = self.inner.layout.snapshot(&meta.snapshot);
        self.disk_moves(volume, meta).await?;
        self.inner.host.remove(&[volume.saved(), volume.state(), volume.mem()]).await?;
        let size = format!("{}M", meta.machine.memory_mib);
        must(&*self.inner.host, "boot box", Command::new("truncate").args(["-s", &size]).arg(volume.mem())).await?;
        let mut qmp = self.spawn(volume, &meta.machine, &kernel, None).await?;
        let address = self.port(volume, &mut qmp).await?;
        self.await_ready(volume, &mut qmp, BOOT_LIMIT).await?;
        Ok(address)
    }

    /// Makes a fresh copy its own machine: host key, name, machine id, random seed.
    async fn identify(&self, volume: &VolumeDir, meta: &mut Meta, guest: &Guest) -> Result<()> {
        let Some(key) = self.inner.host.read(&volume.host_key()).await? else {
            let detail = "its host key is missing, so it cannot be made its own machine";
            return Err(Error::new(ErrorKind::Corrupt, "identify box", &guest.volume).with_detail(detail));
        };
        self.hook(volume, "/usr/lib/boxpool/identify", &[guest.owner.name.to_string()], &key).await?;
        meta.identified = true;
        self.save(&volume.meta(), meta).await?;
        self.inner.host.remove(&[volume.host_key()]).await
    }

    /// The clock of a resumed guest stands where it was suspended. Set in a task beside the caller's way, which waits for the
    /// guest's agent for its usual limit and no longer: SSH does not need the clock.
    fn set_clock(&self, volume: &VolumeDir) {
        let (this, volume) = (self.clone(), volume.clone());
        tokio::spawn(async move {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let seconds = now.as_secs().to_string();
            if let Err(error) = this.hook(&volume, "/usr/lib/boxpool/wake", &[seconds], b"").await {
                tracing::debug!(volume = %volume.dir.display(), error = %boxpool::Report(&error), "a guest's clock was not set");
            }
        });
    }

    async fn bring_up(
        &self,
        volume: &VolumeDir,
        meta: &mut Meta,
        fence: &mut Fence,
    ) -> Result<(StartedBy, SocketAddr)> {
        if let Some(pid) = self.pid(volume).await? {
            fence.close(self, volume).await?;
            match self.state_of_living(volume).await {
                Ok(Some((state, mut qmp))) => match state.as_str() {
                    "running" => return Ok((StartedBy::Adoption, self.port(volume, &mut qmp).await?)),
                    "inmigrate" => {
                        drop(qmp);
                        self.kill(volume, pid).await?;
                    }
                    _ if self.loadable(volume, meta).await? => {
                        drop(qmp);
                        self.end(volume).await?;
                    }
                    // In the middle of a suspend, or right before it was let run: its memory is all there is.
                    _ => {
                        let address = self.port(volume, &mut qmp).await?;
                        self.disk_moves(volume, meta).await?;
                        qmp.call("cont", Value::Null).await?;
                        self.set_clock(volume);
                        return Ok((StartedBy::Adoption, address));
                    }
                },
                Ok(None) | Err(_) => {
                    tracing::warn!(volume = %volume.dir.display(), pid, "QEMU does not answer; it is killed");
                    self.kill(volume, pid).await?;
                }
            }
        }
        self.check_room(volume, meta).await?;
        if self.loadable(volume, meta).await? {
            match self.resume(volume, meta, fence).await {
                Ok(Resumed::Runs(address)) => {
                    self.set_clock(volume);
                    return Ok((StartedBy::Resume, address));
                }
                // The disk is whole, so the box boots. Told, not hidden.
                Ok(Resumed::Refused(why)) => {
                    tracing::error!(volume = %volume.dir.display(), %why, "QEMU does not take the saved memory; the box boots");
                    self.end(volume).await?;
                }
                // Nothing was said about the memory, so it is kept: trying again may help.
                Err(error) => return Err(self.abandon(volume, error).await),
            }
        }
        fence.close(self, volume).await?;
        Ok((StartedBy::Boot, self.boot(volume, meta).await?))
    }

    async fn start_in_epoch(&self, volume: &VolumeDir, guest: &Guest, fence: &mut Fence) -> Result<Started> {
        self.check_attached(volume, guest).await?;
        let mut meta = self.meta(volume).await?;
        let (by, address) = self.bring_up(volume, &mut meta, fence).await?;
        if !meta.identified {
            self.identify(volume, &mut meta, guest).await?;
        }
        Ok(Started { endpoint: Self::endpoint(&meta, address), by })
    }

    async fn state_of_living(&self, volume: &VolumeDir) -> Result<Option<(String, Qmp)>> {
        let Some(mut qmp) = self.qmp_of_living(volume).await? else { return Ok(None) };
        Ok(Some((qmp.run_state().await?, qmp)))
    }

    /// Saves a guest that QEMU holds, and ends QEMU. What is committed stays; what is not leaves the guest running.
    pub(crate) async fn save_and_end(&self, volume: &VolumeDir, meta: &Meta) -> Result<Suspended> {
        let Some(pid) = self.pid(volume).await? else { return Ok(Suspended::NotRunning) };
        let mut qmp = self.must_qmp(volume).await?;
        let state = qmp.run_state().await?;
        if state == "inmigrate" {
            drop(qmp);
            self.kill(volume, pid).await?;
            return Ok(Suspended::NotRunning);
        }
        if state != "running" && self.loadable(volume, meta).await? {
            drop(qmp);
            self.end(volume).await?;
            return Ok(Suspended::Saved);
        }
        if let Err(error) = self.commit_memory(volume, meta, &mut qmp).await {
            if let Err(stuck) = self.run_on(volume, &mut qmp).await {
                tracing::error!(volume = %volume.dir.display(), error = %boxpool::Report(&stuck), "a guest could not be let run again");
            }
            return Err(error);
        }
        drop(qmp);
        self.end(volume).await?;
        Ok(Suspended::Saved)
    }

    /// Lets a guest run whose save failed. What was recorded of the save goes first, as the write that failed may have
    /// been the commit: a memory that looks whole must not outlive the disk it fits.
    async fn run_on(&self, volume: &VolumeDir, qmp: &mut Qmp) -> Result<()> {
        let host = &*self.inner.host;
        host.remove(&[volume.saved()]).await?;
        must(host, "undo save", Command::new("sync").arg(&volume.dir)).await?;
        qmp.call("cont", Value::Null).await.map(drop)
    }

    async fn commit_memory(&self, volume: &VolumeDir, meta: &Meta, qmp: &mut Qmp) -> Result<()> {
        let host = &*self.inner.host;
        self.require_room(&volume.dir, 0).await?;
        self.hold_still(volume, qmp).await?;
        let partial = volume.dir.join("state.partial");
        self.save_state(volume, qmp, &partial).await?;
        must(
            host,
            "save memory",
            Command::new("sync")
                .args([partial.as_path(), &volume.mem(), &volume.disk()])
                .limit(Duration::from_secs(90)),
        )
        .await?;
        let state_bytes = self.size(&partial).await?.unwrap_or(0);
        must(host, "save memory", Command::new("mv").arg("-fT").args([partial, volume.state()])).await?;
        // The commit: from here on the pair is whole.
        self.save(&volume.saved(), &Saved { disk_generation: meta.disk_generation, state_bytes }).await
    }
}

#[async_trait]
impl GuestRuntime for LocalQemu {
    async fn start(&self, guest: &Guest) -> Result<Started> {
        let volume = self.inner.layout.volume(&guest.volume);
        let _lock = self.locked(&volume).await?;
        let is_new = self.check_epoch("start box", &volume, guest.epoch).await?;
        let mut fence = Fence(is_new.then_some(guest.epoch));
        let started = self.start_in_epoch(&volume, guest, &mut fence).await;
        // Remembered also when nothing came of it.
        fence.close(self, &volume).await?;
        started
    }

    async fn suspend(&self, guest: &Guest) -> Result<Suspended> {
        let volume = self.inner.layout.volume(&guest.volume);
        let _lock = match self.locked(&volume).await {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Suspended::NotRunning),
            Err(error) => return Err(error),
        };
        self.fence("suspend box", &volume, guest.epoch).await?;
        let meta = self.meta(&volume).await?;
        self.save_and_end(&volume, &meta).await
    }

    async fn stop(&self, guest: &Guest) -> Result<()> {
        let volume = self.inner.layout.volume(&guest.volume);
        let _lock = match self.locked(&volume).await {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.fence("stop box", &volume, guest.epoch).await?;
        self.end(&volume).await
    }

    async fn shut_down(&self, guest: &Guest, within: Duration) -> Result<()> {
        let volume = self.inner.layout.volume(&guest.volume);
        let _lock = match self.locked(&volume).await {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.fence("shut box down", &volume, guest.epoch).await?;
        if self.pid(&volume).await?.is_some() {
            match self.power_down(&volume, within).await {
                Ok(true) => {}
                Ok(false) => tracing::warn!(owner = %guest.owner, "the guest did not shut itself down; it is ended"),
                Err(error) => {
                    tracing::warn!(owner = %guest.owner, error = %boxpool::Report(&error), "the guest could not be asked to shut itself down; it is ended");
                }
            }
            self.end(&volume).await?;
        }
        self.inner.host.remove(&[volume.saved(), volume.state(), volume.mem()]).await
    }

    async fn status(&self, guest: &Guest) -> Result<GuestStatus> {
        let volume = self.inner.layout.volume(&guest.volume);
        let _lock = match self.locked(&volume).await {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(GuestStatus::NotRunning),
            Err(error) => return Err(error),
        };
        self.fence("ask box", &volume, guest.epoch).await?;
        let attached: Option<AttachedTo> = self.load(&volume.attached()).await?;
        let here = attached.is_some_and(|to| to.instance == guest.instance);
        if !here || self.pid(&volume).await?.is_none() {
            return Ok(GuestStatus::NotRunning);
        }
        match self.state_of_living(&volume).await {
            Ok(Some((state, mut qmp))) if state == "running" => {
                let meta = self.meta(&volume).await?;
                Ok(GuestStatus::Running(Self::endpoint(&meta, self.port(&volume, &mut qmp).await?)))
            }
            Ok(Some((state, _))) => Ok(GuestStatus::Unresponsive(format!("QEMU is {state}"))),
            Ok(None) => Ok(GuestStatus::NotRunning),
            Err(error) => Ok(GuestStatus::Unresponsive(error.to_string())),
        }
    }

    async fn clear(&self, instance: &InstanceId) -> Result<Cleared> {
        match self.volume_on(instance).await? {
            Some(volume) => Ok(Cleared::Doubtful(format!("volume {volume} is still on it"))),
            None => Ok(Cleared::Clean),
        }
    }
}
