//! Machines as hosts for boxes: where each one is, by which key it is known, and whether it is ready.
//!
//! A machine that Azure calls running has booted its kernel; it can run boxes when its cloud-init has said so. Until that was
//! seen once, it is shown as being made.

use crate::bodies::ID_TAG;
use crate::cloud::AzureCloud;
use crate::cloud_init::READY_FILE;
use crate::errors::Act;
use crate::host_key::HOST_KEY_TAG;
use crate::options::Secret;
use crate::volumes::AzureDevice;
use async_trait::async_trait;
use boxpool::{
    Cursor, Device, Error, ErrorKind, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView, Page,
    Result, VolumeId,
};
use boxpool_qemu::{Host, Hosts, SshAddress, SshHost};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A machine that boots may not answer at all.
const READY_LIMIT: Duration = Duration::from_secs(5);

/// How machines are entered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostAccess {
    /// The private key, in OpenSSH's format and without a passphrase, whose public part is
    /// [`MachineOptions::ssh_public_key`](crate::MachineOptions::ssh_public_key).
    pub key: Secret,
    /// Where their SSH servers listen.
    pub port: u16,
}

impl HostAccess {
    /// With this private key, on port 22.
    #[must_use]
    pub fn new(key: Secret) -> Self {
        Self { key, port: 22 }
    }
}

/// The machines of a pool as hosts. An [`InstanceProvider`] that shows a machine as running when it is ready for boxes.
///
/// Clones share their connections.
#[derive(Clone)]
pub struct AzureHosts {
    inner: Arc<Inner>,
}

struct Inner {
    cloud: AzureCloud,
    access: HostAccess,
    known: Mutex<BTreeMap<InstanceId, Known>>,
}

struct Known {
    host: Arc<SshHost>,
    ready: bool,
}

impl fmt::Debug for AzureHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureHosts").field("cloud", &self.inner.cloud).finish_non_exhaustive()
    }
}

impl AzureHosts {
    /// The hosts of a cloud.
    #[must_use]
    pub fn new(cloud: AzureCloud, access: HostAccess) -> Self {
        Self { inner: Arc::new(Inner { cloud, access, known: Mutex::default() }) }
    }

    /// The cloud that the machines are in.
    #[must_use]
    pub fn cloud(&self) -> &AzureCloud {
        &self.inner.cloud
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Known>> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request for the machine and one for its interface, the first time; none afterwards, as an id is one machine's for good.
    async fn ssh(&self, id: &InstanceId) -> Result<Arc<SshHost>> {
        if let Some(known) = self.known().get(id) {
            return Ok(known.host.clone());
        }
        let act = Act::read("find host", id.as_str());
        let error = |kind, why: String| Error::new(kind, act.operation, id).with_detail(why);
        let inner = &self.inner.cloud.inner;
        let machine = inner.machine(act.operation, id).await?;
        let machine = machine.ok_or_else(|| error(ErrorKind::NotFound, "there is no such machine".into()))?;
        let pin = machine.common.tag(HOST_KEY_TAG).ok_or_else(|| {
            let why = format!(
                "machine {} has no tag {HOST_KEY_TAG}, so it cannot be known; set the tag to its host key (the line of \
                 /etc/ssh/ssh_host_ed25519_key.pub), beside {ID_TAG}",
                machine.common.name
            );
            error(ErrorKind::Permanent, why)
        })?;
        let address = match machine.interfaces.first() {
            Some(interface) => inner.arm.address(interface).await.map_err(|failure| act.failed(failure))?,
            None => None,
        };
        let host = address.ok_or_else(|| error(ErrorKind::Unavailable, "it has no address yet".into()))?;
        let address = SshAddress { host, port: self.inner.access.port, user: "root".into() };
        let host = Arc::new(SshHost::new(address, self.inner.access.key.reveal(), pin)?);
        let mut known = self.known();
        Ok(known.entry(id.clone()).or_insert(Known { host, ready: false }).host.clone())
    }

    /// Enters a machine that runs and looks whether it has said that it is ready for boxes; for machines that were not made here.
    ///
    /// # Errors
    /// `NotFound`; `Permanent` when no tag pins its host key; otherwise `Unavailable`; each says what is missing on the machine.
    pub async fn check_ready(&self, id: &InstanceId) -> Result<()> {
        let not_yet = |why: String| Error::new(ErrorKind::Unavailable, "look at host", id).with_detail(why);
        let look = async { self.ssh(id).await?.look(Path::new(READY_FILE)).await };
        match tokio::time::timeout(READY_LIMIT, look).await {
            Ok(Ok(Some(_))) => Ok(()),
            Ok(Ok(None)) => Err(not_yet(format!("it can be entered, and the file {READY_FILE} is not there"))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(not_yet(format!("its SSH server does not answer within {READY_LIMIT:?}"))),
        }
    }

    async fn is_ready(&self, id: &InstanceId) -> bool {
        if self.known().get(id).is_some_and(|known| known.ready) {
            return true;
        }
        let look = async { self.ssh(id).await?.look(Path::new(READY_FILE)).await };
        match tokio::time::timeout(READY_LIMIT, look).await {
            Ok(Ok(Some(_))) => {
                if let Some(known) = self.known().get_mut(id) {
                    known.ready = true;
                }
                true
            }
            Ok(Ok(None)) | Err(_) => false,
            Ok(Err(error)) => {
                tracing::debug!(instance = %id, error = %boxpool::Report(&error), "it runs and cannot be entered yet");
                false
            }
        }
    }

    async fn seen(&self, view: InstanceView) -> InstanceView {
        let mut view = view;
        match view.state {
            InstanceState::Running if !self.is_ready(&view.id).await => view.state = InstanceState::Creating,
            InstanceState::Stopping | InstanceState::Stopped | InstanceState::Deleting | InstanceState::Failed(_) => {
                self.forget(&view.id);
            }
            _ => {}
        }
        view
    }

    /// It may have another address when it comes back.
    fn forget(&self, id: &InstanceId) {
        self.known().remove(id);
    }
}

#[async_trait]
impl Hosts for AzureHosts {
    async fn host(&self, instance: &InstanceId) -> Result<Arc<dyn Host>> {
        let host = self.ssh(instance).await?;
        Ok(host)
    }

    /// As azure-vm-utils, the older agent and the NVMe controller name it: there the OS disk is namespace 1, and slot n is
    /// namespace n + 2.
    fn paths(&self, device: &Device) -> Result<Vec<PathBuf>> {
        let lun = AzureDevice::read(device)?.lun;
        Ok([
            format!("/dev/disk/azure/data/by-lun/{lun}"),
            format!("/dev/disk/azure/scsi1/lun{lun}"),
            format!("/dev/nvme0n{}", lun + 2),
        ]
        .map(PathBuf::from)
        .to_vec())
    }

    fn copied_from(&self, device: &Device) -> Result<Vec<VolumeId>> {
        Ok(AzureDevice::read(device)?.copied_from)
    }

    fn attached_in(&self) -> Vec<PathBuf> {
        ["/dev/disk/azure/data/by-lun", "/dev/disk/azure/scsi1"].map(PathBuf::from).to_vec()
    }
}

#[async_trait]
impl InstanceProvider for AzureHosts {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        Ok(self.seen(self.inner.cloud.ensure(spec).await?).await)
    }

    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        match InstanceProvider::get(&self.inner.cloud, id).await? {
            Some(view) => Ok(Some(self.seen(view).await)),
            None => {
                self.forget(id);
                Ok(None)
            }
        }
    }

    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<InstanceView>> {
        InstanceProvider::list(&self.inner.cloud, cursor).await
    }

    async fn start(&self, id: &InstanceId) -> Result<InstanceView> {
        Ok(self.seen(self.inner.cloud.start(id).await?).await)
    }

    async fn stop(&self, id: &InstanceId) -> Result<InstanceView> {
        self.forget(id);
        self.inner.cloud.stop(id).await
    }

    async fn delete(&self, id: &InstanceId) -> Result<()> {
        self.forget(id);
        InstanceProvider::delete(&self.inner.cloud, id).await
    }
}
