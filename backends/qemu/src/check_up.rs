//! What QEMU and its accelerator are like here, found out without changing anything that stays.

use crate::{Accel, LocalHost, machine, probe};
use boxpool::Result;
use std::path::Path;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckUp {
    /// QEMU's version.
    pub qemu_version: (u32, u32),
    /// What would execute guests: KVM only where it truly runs 64-bit code.
    pub accel: Accel,
}

/// Looks at this machine. `scratch` is a folder for one small file, which stays there.
///
/// # Errors
/// `NotFound` when there is no QEMU, `Permanent` when it is too old.
pub async fn check_up(scratch: &Path) -> Result<CheckUp> {
    let qemu_version = machine::qemu_version(&LocalHost).await?;
    Ok(CheckUp { qemu_version, accel: probe(&LocalHost, scratch).await? })
}
