//! What the pool needs of the thing that runs a box on an instance.

use crate::error::Result;
use crate::id::{BoxRef, Epoch, InstanceId, VolumeId};
use crate::provider::Device;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How to open a byte stream to the SSH server inside a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointAddress {
    /// A TCP address that this node can reach.
    Tcp(SocketAddr),
    /// A unix socket on this node's machine.
    Unix(PathBuf),
    /// A TCP address as the instance's own machine sees it, such as its loopback. The runtime that gave it out knows the
    /// way there.
    On {
        /// The machine.
        instance: InstanceId,
        /// The address on it.
        address: SocketAddr,
    },
}

/// Where and how a running box is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where its SSH server listens.
    pub address: EndpointAddress,
    /// The login inside the box.
    pub login: String,
    /// Its pinned host key, one line in OpenSSH's format (`ssh-ed25519 AAAA…`). Never connect to anything else.
    pub host_key: String,
}

/// Which guest is meant: a box's volume on an instance, in one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guest {
    /// Where it runs or is to run.
    pub instance: InstanceId,
    /// The volume that holds it.
    pub volume: VolumeId,
    /// How the volume is found on the instance; `None` when the caller does not know (it recovers another's work).
    pub device: Option<Device>,
    /// Whose box it is. Its name becomes the guest's host name.
    pub owner: BoxRef,
    /// The fencing token. The runtime writes it durably on the volume before it acts, and refuses every older one.
    pub epoch: Epoch,
    /// Its volume is a copy of another box's, and it is not known to have been up yet: what is on the volume may still be the other's.
    /// Before anybody is told where it is reached it has a host key, a machine id and a random seed of its own, and the other's
    /// host name no more.
    pub copied: bool,
}

impl Guest {
    /// A guest whose device is not known.
    #[must_use]
    pub fn new(instance: InstanceId, volume: VolumeId, owner: BoxRef, epoch: Epoch) -> Self {
        Self { instance, volume, device: None, owner, epoch, copied: false }
    }

    /// Says how the volume is found on the instance.
    #[must_use]
    pub fn on_device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Says whether its volume is a copy of another box's, and was never up.
    #[must_use]
    pub fn copied(mut self, copied: bool) -> Self {
        self.copied = copied;
        self
    }
}

/// How a guest came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartedBy {
    /// Its saved memory was loaded: every process goes on.
    Resume,
    /// It booted from its disk: there was no saved memory, or it did not fit the disk.
    Boot,
    /// It ran already.
    Adoption,
}

/// A guest that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// How it came to run.
    pub by: StartedBy,
}

/// What became of a guest that was to be suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspended {
    /// Its memory is durable on the volume, paired with its disk.
    Saved,
    /// It did not run; the volume is as it was.
    NotRunning,
}

/// What a guest is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestStatus {
    /// It runs and is reached there.
    Running(Endpoint),
    /// No guest of that volume runs on that instance.
    NotRunning,
    /// Something is there that does not answer.
    Unresponsive(String),
}

/// Whether anything of a box is left on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleared {
    /// Looked, and nothing is left: no guest, no volume, no file.
    Clean,
    /// Something is left, or it cannot be told: the instance must not serve another box.
    Doubtful(String),
}

/// Runs boxes on instances.
///
/// Each call with an epoch older than the newest that the volume has seen fails with `Fenced` and changes nothing, so
/// that a node which wakes up late cannot act. An equal or newer epoch is accepted and remembered, also where the volume is
/// not attached at that moment: a late attach and start of an older epoch must be refused after it. A backend that can write
/// the epoch only to attached volumes must keep it on the instance as well.
#[async_trait]
pub trait GuestRuntime: Send + Sync + 'static {
    /// Runs the guest: resumes its saved memory, else boots it. A guest of the same volume that already runs there is
    /// adopted. `Ok` means that its SSH server answers or will answer within seconds.
    ///
    /// A guest never runs twice: a second call, at once or later, adopts.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when the instance or the volume is not there; `NoCapacity` when the host lacks room (the
    /// detail says what is missing); `UnknownOutcome` or `TimedOut` when the guest may run.
    async fn start(&self, guest: &Guest) -> Result<Started>;

    /// Saves the guest's memory on its volume, paired with the disk, and ends it. The pair that was saved before stays
    /// usable until this one is complete. Repeating it after a lost answer finishes it, or finds `NotRunning`.
    ///
    /// # Errors
    /// `Fenced`; `NoCapacity` when the volume has no room: the guest goes on running; `TimedOut` when it hangs.
    async fn suspend(&self, guest: &Guest) -> Result<Suspended>;

    /// Ends the guest at once; its memory is lost, its disk is as after a power cut. One that does not run is success.
    ///
    /// # Errors
    /// `Fenced`; `TimedOut` when it cannot be shown that the guest is gone.
    async fn stop(&self, guest: &Guest) -> Result<()>;

    /// Ends the guest in good order and drops the memory that was saved: the next start boots. The guest is asked to shut
    /// itself down, and is ended as by [`GuestRuntime::stop`] when it has not done so `within` that time, or cannot be asked. Of
    /// one that does not run only the saved memory is dropped; when there is none, that is success too.
    ///
    /// `Ok` means that it does not run and that nothing saved before can be resumed.
    ///
    /// # Errors
    /// `Fenced`; `NotFound` when the volume is not on that instance and the runtime must reach it there; `TimedOut` when it
    /// cannot be shown that the guest is gone. After an error the memory may still be there.
    async fn shut_down(&self, guest: &Guest, within: Duration) -> Result<()>;

    /// What the guest is doing. Changes nothing, except that it may remember the epoch.
    ///
    /// # Errors
    /// `Fenced`; `Unavailable` when the instance cannot be asked.
    async fn status(&self, guest: &Guest) -> Result<GuestStatus>;

    /// Looks whether anything of any box is left on the instance, and removes what can be removed without harm to a
    /// volume. A running guest or an attached volume is doubtful, never removed. An absent instance is clean.
    ///
    /// # Errors
    /// `Unavailable` when the instance cannot be asked.
    async fn clear(&self, instance: &InstanceId) -> Result<Cleared>;
}
