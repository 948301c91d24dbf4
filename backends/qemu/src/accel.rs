//! KVM where it truly works, else TCG.
//!
//! `/dev/kvm` opening proves nothing: under some hypervisors real-mode code runs and long mode hangs. So a tiny kernel is
//! run that enters long mode with paging, counts to three million and writes to a debug port; QEMU then ends with 33.
//! State saved under one accelerator is never loaded under another, so the answer is pinned in every snapshot.

use crate::host::{Command, Host};
use boxpool::{ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The processor itself.
    Kvm,
    /// QEMU's translator: everywhere, and 7 to 14 times slower.
    Tcg,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// A processor that works needs a few milliseconds; starting QEMU on a busy host may take most of this.
const PROBE_LIMIT: Duration = Duration::from_millis(2_500);

/// Finds out by running something. Takes up to 2.5 seconds where KVM is there and hangs.
///
/// # Errors
/// `NotFound` when there is no QEMU.
pub async fn probe(host: &dyn Host, scratch: &Path) -> Result<Accel> {
    let kvm = host.run(Command::new("test").args(["-r", "/dev/kvm", "-a", "-w", "/dev/kvm"])).await?;
    if !kvm.success {
        return Ok(Accel::Tcg);
    }
    let kernel = scratch.join("accel-probe.elf");
    host.put(&kernel, &probe_kernel(), 0o644).await?;
    let probe = Command::new("qemu-system-x86_64")
        .args(["-M", "pc,accel=kvm", "-m", "16", "-nodefaults", "-display", "none", "-no-reboot", "-kernel"])
        .arg(kernel.as_os_str())
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .limit(PROBE_LIMIT);
    match host.run(probe).await {
        // isa-debug-exit ends QEMU with (value << 1) | 1, and the kernel writes 16.
        Ok(output) if output.code == Some(33) => Ok(Accel::Kvm),
        Ok(_) => Ok(Accel::Tcg),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(Accel::Tcg),
        Err(error) => Err(error),
    }
}

/// [`probe`], once per boot of the host.
pub(crate) async fn remembered_probe(host: &dyn Host, run: &Path) -> Result<Accel> {
    let boot = host.read(Path::new("/proc/sys/kernel/random/boot_id")).await?.unwrap_or_default();
    let boot = String::from_utf8_lossy(&boot).trim().to_owned();
    let note = run.join("accel");
    let known = host.read(&note).await?.unwrap_or_default();
    match String::from_utf8_lossy(&known).split_once(' ') {
        Some((at, "kvm")) if at == boot => return Ok(Accel::Kvm),
        Some((at, "tcg")) if at == boot => return Ok(Accel::Tcg),
        _ => {}
    }
    let found = probe(host, run).await?;
    host.put(&note, format!("{boot} {found}").as_bytes(), 0o644).await?;
    Ok(found)
}

const LOAD_ADDRESS: u32 = 0x10_0000;
const HEADERS: u32 = 52 + 32;

/// The probe as a 32-bit ELF with a multiboot header, which QEMU's `-kernel` loads.
fn probe_kernel() -> Vec<u8> {
    let size = u32::try_from(PROBE_CODE.len()).unwrap_or_default();
    let mut elf = Vec::with_capacity(HEADERS as usize + PROBE_CODE.len());
    elf.extend_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0"); // 32-bit, little-endian, version 1
    for half in [2u16, 3] {
        elf.extend_from_slice(&half.to_le_bytes()); // executable, for the 386
    }
    for word in [1u32, LOAD_ADDRESS + PROBE_ENTRY, 52, 0, 0] {
        elf.extend_from_slice(&word.to_le_bytes()); // version, entry, program headers at 52, no sections, flags
    }
    for half in [52u16, 32, 1, 40, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes()); // sizes and counts of headers
    }
    for word in [1u32, HEADERS, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 7, 4] {
        elf.extend_from_slice(&word.to_le_bytes()); // one segment to load, readable, writable, executable
    }
    elf.extend_from_slice(&PROBE_CODE);
    elf
}

/// Where the code begins, after the 12 bytes of the multiboot header.
const PROBE_ENTRY: u32 = 12;

/// Position-dependent code for [`LOAD_ADDRESS`].
#[rustfmt::skip]
const PROBE_CODE: [u8; 158] = [
    // multiboot header: magic, flags, checksum
    0x02, 0xb0, 0xad, 0x1b, 0x00, 0x00, 0x00, 0x00, 0xfe, 0x4f, 0x52, 0xe4,
    // cli; zero three pages at 0x200000
    0xfa, 0xbf, 0x00, 0x00, 0x20, 0x00, 0x31, 0xc0, 0xb9, 0x00, 0x0c, 0x00, 0x00, 0xfc, 0xf3, 0xab,
    // page tables: PML4 -> PDPT -> PD -> one 2 MiB page at 0
    0xc7, 0x05, 0x00, 0x00, 0x20, 0x00, 0x03, 0x10, 0x20, 0x00,
    0xc7, 0x05, 0x00, 0x10, 0x20, 0x00, 0x03, 0x20, 0x20, 0x00,
    0xc7, 0x05, 0x00, 0x20, 0x20, 0x00, 0x83, 0x00, 0x00, 0x00,
    // cr3 = 0x200000; cr4 |= PAE
    0xb8, 0x00, 0x00, 0x20, 0x00, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0,
    // EFER |= LME
    0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30,
    // lgdt; cr0 |= PG | PE; ljmp to 64-bit code
    0x0f, 0x01, 0x15, 0x98, 0x00, 0x10, 0x00,
    0x0f, 0x20, 0xc0, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0,
    0xea, 0x72, 0x00, 0x10, 0x00, 0x08, 0x00,
    // count down from 3,000,000
    0xb9, 0xc0, 0xc6, 0x2d, 0x00, 0xff, 0xc9, 0x75, 0xfc,
    // out 0xf4, 16; hlt for ever
    0x66, 0xba, 0xf4, 0x00, 0xb0, 0x10, 0xee, 0xf4, 0xeb, 0xfd,
    // padding; GDT: null, 64-bit code; its pointer
    0x8d, 0x76, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,
    0x0f, 0x00, 0x88, 0x00, 0x10, 0x00,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::LocalHost;

    #[tokio::test]
    async fn the_probe_kernel_reaches_its_end_where_long_mode_works() {
        // TCG always works, so this shows that a wrong answer under KVM is KVM's fault.
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("probe.elf");
        std::fs::write(&kernel, probe_kernel()).unwrap();
        let run = Command::new("qemu-system-x86_64")
            .args(["-M", "pc,accel=tcg", "-m", "16", "-nodefaults", "-display", "none", "-no-reboot", "-kernel"])
            .arg(kernel.as_os_str())
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
        assert_eq!(LocalHost.run(run).await.unwrap().code, Some(33));
    }

    #[tokio::test]
    async fn the_probe_answers_within_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let answer = tokio::time::timeout(PROBE_LIMIT * 4, probe(&LocalHost, dir.path())).await;
        answer.expect("it has a limit").expect("there is a QEMU");
    }
}
