//! What every guest has and a cloud image may lack: a static busybox for the hooks, and the guest agent, which comes with its
//! own libraries. Both are Debian's, taken out of verified packages; no program of the image is run to install them.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::apt::Apt;
use super::super::elf;
use super::super::error::{ImageError, IoContext};
use super::super::tiny::{LOADER, take, take_libraries, unpack};

pub(in super::super) const PACKAGES: &[&str] = &[
    "busybox-static",
    "libc6",
    "libglib2.0-0",
    "libnuma1",
    "libpcre2-8-0",
    "libudev1",
    "liburing2",
    "qemu-guest-agent",
    "zlib1g",
];

pub(super) const BUSYBOX: &str = "busybox";
pub(super) const AGENT: &str = "qemu-ga";

/// Puts busybox, the agent and its libraries into the new directory `out`.
pub(in super::super) async fn make(apt: &Apt, scratch: &Path, out: &Path) -> Result<(), ImageError> {
    let debs = apt.download(PACKAGES, &scratch.join("debs")).await?;
    let unpacked = scratch.join("unpacked");
    for dir in [&unpacked, out] {
        std::fs::create_dir_all(dir).on("create", dir)?;
    }
    unpack(&debs, &unpacked).await?;
    let busybox = unpacked.join("bin").join(BUSYBOX);
    if elf::needed(&std::fs::read(&busybox).on("read", &busybox)?).is_none_or(|needed| !needed.is_empty()) {
        return Err(ImageError::unexpected("busybox-static", "holds no static busybox"));
    }
    take(&busybox, &out.join(BUSYBOX))?;
    let mut wanted = BTreeSet::from([LOADER.to_owned()]);
    wanted.extend(take(&unpacked.join("usr/sbin").join(AGENT), &out.join(AGENT))?);
    take_libraries(&unpacked, out, wanted)
}
