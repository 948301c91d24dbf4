//! What stands behind the simulated machines and disks: nothing, or whatever a test puts there.

use async_trait::async_trait;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A machine that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineFacts {
    /// Its name.
    pub name: String,
    /// `Standard_D2s_v5` and its like.
    pub size: String,
    /// The id of the image that it boots, if one was given.
    pub image: Option<String>,
    /// What cloud-init reads, decoded.
    pub custom_data: Vec<u8>,
    /// The login that it is to have.
    pub admin: Option<String>,
    /// Public keys that may log in.
    pub ssh_keys: Vec<String>,
}

/// What a disk or snapshot is filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filling {
    /// Zeros.
    Empty {
        /// How many bytes.
        bytes: u64,
    },
    /// What that disk or snapshot, by name, holds now.
    CopyOf(String),
}

/// Real machines and disks behind the simulated ones. Each call is made when the simulated operation ends, and the operation ends
/// with what it says: an `Err` is the message of a failed operation. Names are those of the resources.
#[async_trait]
pub trait Machines: Send + Sync + 'static {
    /// A machine boots for the first time. Returns its address.
    async fn create(&self, machine: &MachineFacts) -> Result<Ipv4Addr, String>;
    /// A machine that was off boots.
    async fn start(&self, name: &str) -> Result<(), String>;
    /// A machine is switched off; when `deallocated` it leaves its host.
    async fn stop(&self, name: &str, deallocated: bool) -> Result<(), String>;
    /// A machine is gone. Its disks are not.
    async fn delete(&self, name: &str) -> Result<(), String>;
    /// A disk is plugged into a machine.
    async fn plug(&self, machine: &str, lun: i64, disk: &str) -> Result<(), String>;
    /// A disk is pulled out of a machine, which may be off or gone.
    async fn unplug(&self, machine: &str, lun: i64, disk: &str) -> Result<(), String>;
    /// A disk or snapshot is made.
    async fn fill(&self, name: &str, with: &Filling) -> Result<(), String>;
    /// A disk or snapshot is gone.
    async fn discard(&self, name: &str) -> Result<(), String>;
}

/// Nothing stands behind them: addresses are made up, and everything succeeds.
#[derive(Debug, Default)]
pub struct NoMachines(AtomicU32);

#[async_trait]
impl Machines for NoMachines {
    async fn create(&self, _: &MachineFacts) -> Result<Ipv4Addr, String> {
        // The first four addresses of a subnet are the service's own.
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 4;
        Ok(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number))
    }
    async fn start(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
    async fn stop(&self, _: &str, _: bool) -> Result<(), String> {
        Ok(())
    }
    async fn delete(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
    async fn plug(&self, _: &str, _: i64, _: &str) -> Result<(), String> {
        Ok(())
    }
    async fn unplug(&self, _: &str, _: i64, _: &str) -> Result<(), String> {
        Ok(())
    }
    async fn fill(&self, _: &str, _: &Filling) -> Result<(), String> {
        Ok(())
    }
    async fn discard(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
