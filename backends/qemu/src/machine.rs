//! The machine that a box is: what is pinned in its snapshots, and QEMU's command line for it.
//!
//! Saved state fits only a machine of the same shape, so every part that matters is in [`Machine`] and is stored with the
//! volume; device addresses are explicit, so that a newer QEMU does not move them.

use crate::accel::Accel;
use crate::host::{Command, Host, must};
use crate::mac::Mac;
use boxpool::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::Path;

/// What a guest may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing: it is reached, and reaches nobody.
    #[default]
    Isolated,
    /// The world, and **every service on the host's own loopback address** (QEMU's user network cannot tell them apart).
    /// Only for hosts that run nothing else.
    Open,
}

/// The shape of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// QEMU's machine type, with its version.
    pub machine: String,
    /// What executes it.
    pub accel: Accel,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// What it may reach.
    pub network: Network,
    /// Its network card's address. Not written where it is the golden snapshot's, as versions before this had no other.
    #[serde(default, skip_serializing_if = "Mac::is_golden")]
    pub mac: Mac,
}

/// Kernel arguments, from measurements: no timer check and no mitigations, which a loaded host makes fail or slow under TCG.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet loglevel=3 reboot=t panic=-1 mitigations=off random.trust_cpu=on no_timer_check";

/// The oldest QEMU that is known to work.
const OLDEST: (u32, u32) = (6, 2);

/// The version of the QEMU on a host.
///
/// # Errors
/// `NotFound` when there is none, `Permanent` when it is too old.
pub(crate) async fn qemu_version(host: &dyn Host) -> Result<(u32, u32)> {
    let output = must(host, "find QEMU", Command::new("qemu-system-x86_64").arg("--version")).await?;
    let version = output.stdout.split_whitespace().skip_while(|word| *word != "version").nth(1).and_then(|version| {
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    match version {
        Some(version) if version >= OLDEST => Ok(version),
        found => {
            let detail = format!("found {found:?}, needed is {}.{} or newer", OLDEST.0, OLDEST.1);
            Err(Error::new(ErrorKind::Permanent, "find QEMU", "qemu-system-x86_64").with_detail(detail))
        }
    }
}

impl Machine {
    /// The machine type to use with a QEMU of that version: the newest that newer ones still load.
    #[must_use]
    pub fn type_for(version: (u32, u32)) -> &'static str {
        if version >= (7, 2) { "pc-q35-7.2" } else { "pc-q35-6.2" }
    }

    /// QEMU's arguments. `run` holds its sockets; `volume` holds `disk.qcow2` and `mem`; `kernel` holds `vmlinux` and `initrd.cpio`.
    #[must_use]
    pub fn arguments(&self, volume: &Path, kernel: &Path, run: &Path, incoming: bool) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
        // A comma ends an option's value; two of them stand for one.
        let path = |folder: &Path, file: &str| folder.join(file).to_string_lossy().replace(',', ",,");
        let memory = self.memory_mib;
        let legacy = if self.machine == "pc-q35-6.2" { "" } else { ",i8042=off" };
        add(&["-name", "box", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
        add(&["-pidfile", &run.join("pid").to_string_lossy()]);
        let devices_off = format!("vmport=off,smm=off{legacy},sata=off,smbus=off");
        add(&["-machine", &format!("{},accel={},memory-backend=ram,{devices_off}", self.machine, self.accel)]);
        add(&["-cpu", if self.accel == Accel::Kvm { "host" } else { "qemu64" }]);
        add(&["-smp", &self.cpus.to_string(), "-m", &format!("{memory}M")]);
        let backend = format!("memory-backend-file,id=ram,size={memory}M,mem-path={},share=on", path(volume, "mem"));
        add(&["-object", &backend]);
        add(&["-kernel", &kernel.join("vmlinux").to_string_lossy()]);
        add(&["-initrd", &kernel.join("initrd.cpio").to_string_lossy(), "-append", KERNEL_ARGUMENTS]);
        let file = format!("driver=file,node-name=f0,filename={},discard=unmap", path(volume, "disk.qcow2"));
        add(&["-blockdev", &file]);
        add(&["-blockdev", "driver=qcow2,node-name=d0,file=f0,discard=unmap,detect-zeroes=unmap"]);
        add(&["-device", "virtio-blk-pci,id=blk0,drive=d0,addr=0x3"]);
        let restrict = if self.network == Network::Isolated { "on" } else { "off" };
        // Port 0: the kernel picks one that is free; it is asked for afterwards.
        add(&["-netdev", &format!("user,id=n0,restrict={restrict},hostfwd=tcp:127.0.0.1:0-10.0.2.15:22")]);
        add(&["-device", &format!("virtio-net-pci,id=net0,netdev=n0,mac={},romfile=,addr=0x4", self.mac)]);
        add(&[
            "-object",
            "rng-random,id=rng,filename=/dev/urandom",
            "-device",
            "virtio-rng-pci,id=rng0,rng=rng,addr=0x5",
        ]);
        add(&["-device", "virtio-balloon-pci,id=bal0,free-page-reporting=on,addr=0x6"]);
        add(&["-device", "vmgenid,id=vg,guid=auto", "-device", "virtio-serial-pci,id=ser0,addr=0x7"]);
        add(&["-chardev", &format!("socket,id=qga,path={},server=on,wait=off", path(run, "qga.sock"))]);
        add(&["-device", "virtserialport,bus=ser0.0,nr=1,chardev=qga,name=org.qemu.guest_agent.0"]);
        // A ring, not a file: a guest must not be able to fill the host's disk.
        add(&["-chardev", "ringbuf,id=con,size=65536", "-serial", "chardev:con"]);
        add(&["-qmp", &format!("unix:{},server=on,wait=off", path(run, "qmp.sock"))]);
        add(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
        if incoming {
            add(&["-incoming", "defer"]);
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxpool::VolumeId;

    #[test]
    fn what_was_written_before_cards_differed_is_read_and_named_as_it_was() {
        let written = r#"{"machine":"pc-q35-7.2","accel":"tcg","memory_mib":192,"cpus":1,"network":"isolated"}"#;
        let machine: Machine = serde_json::from_str(written).unwrap();
        assert_eq!(machine.mac, Mac::GOLDEN);
        assert_eq!(serde_json::to_string(&machine).unwrap(), written, "golden snapshots are named by it");

        let copy = Machine { mac: Mac::of(&VolumeId::new("v-1").unwrap()), ..machine };
        let again: Machine = serde_json::from_str(&serde_json::to_string(&copy).unwrap()).unwrap();
        assert_eq!(again, copy);
    }
}
