//! Instances that are machines of their own: how each one's host is found, and a volume's device on it.

use crate::host::Host;
use async_trait::async_trait;
use boxpool::{Device, Error, ErrorKind, InstanceId, Result, VolumeId};
use std::path::PathBuf;
use std::sync::Arc;

/// Finds the machine of an instance, and devices on it.
#[async_trait]
pub trait Hosts: Send + Sync + 'static {
    /// The machine, once it is ready to run boxes. Whoever answers is surely that machine: an SSH host is known by a host
    /// key that was pinned when the machine was made.
    ///
    /// # Errors
    /// `NotFound`: there is no such machine. `Unavailable`: it does not answer, or is not ready yet.
    async fn host(&self, instance: &InstanceId) -> Result<Arc<dyn Host>>;

    /// The paths under which a device may show on its machine, as these differ from one kind of machine to the next. At most
    /// one of them exists. A device says its path itself unless the backend has another way to tell.
    ///
    /// # Errors
    /// `Corrupt` when the device is not one of this backend's.
    fn paths(&self, device: &Device) -> Result<Vec<PathBuf>> {
        let path = PathBuf::from(&device.0);
        if path.is_absolute() {
            return Ok(vec![path]);
        }
        Err(Error::new(ErrorKind::Corrupt, "find device", device).with_detail("it is not the path of a block device"))
    }

    /// The volumes of which a device's volume was made as a copy: the one that was copied and, where that was a copy too, the ones before. What
    /// is on it may still be theirs. It is the provider's own knowledge that counts: a disk does not tell whether it is a copy.
    ///
    /// # Errors
    /// `Corrupt` when the device is not one of this backend's.
    fn copied_from(&self, device: &Device) -> Result<Vec<VolumeId>> {
        let _ = device;
        Ok(Vec::new())
    }

    /// Folders of the machine that have an entry for each volume that is attached, mounted or not. A machine with an entry in
    /// one of them is not clean.
    fn attached_in(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}
