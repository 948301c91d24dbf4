//! The two files a machine is started with besides its disk: the kernel and the initramfs.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::apt::Apt;
use super::error::{ImageError, IoContext};
use super::guest;
use super::initramfs::Cpio;
use super::kernel;
use super::tool::Tool;

pub(super) const VMLINUX: &str = "vmlinux";
pub(super) const INITRD: &str = "initrd.cpio";
/// Holds the kernel's release; also tells a finished directory from an empty one.
pub(super) const RELEASE: &str = "release";

/// In the order of their dependencies, which the kernel package does not state before `depmod` runs.
/// `virtio_ring` goes before `virtio` on 6.1.
const MODULES: &[&str] = &[
    "crc16",
    "crc32c_generic",
    "libcrc32c",
    "mbcache",
    "jbd2",
    "ext4",
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio-rng",
    "virtio_console",
    "virtio_balloon",
    "qemu_fw_cfg",
];

/// Makes kernel and initramfs in `out`, a new directory, using `scratch`, an empty one.
pub(super) async fn make(apt: &Apt, scratch: &Path, out: &Path) -> Result<(), ImageError> {
    let package = apt.kernel_package().await?;
    let debs = apt.download(&[&package, "busybox-static"], &scratch.join("debs")).await?;
    // Straight out of the packages: unpacking all of the modules would write half a gigabyte.
    let wanted = MODULES.iter().map(|name| format!("*/{name}.ko")).chain(["./boot/vmlinuz-*".to_owned()]);
    take(&debs[0], scratch, wanted).await?;
    take(&debs[1], scratch, ["./bin/busybox".to_owned()]).await?;

    let (mut bzimage, mut modules) = (None, Vec::new());
    walk(scratch, &mut |path, name| {
        if name.starts_with("vmlinuz-") {
            bzimage = Some((path.to_owned(), name.trim_start_matches("vmlinuz-").to_owned()));
        } else if let Some(module) = name.strip_suffix(".ko") {
            modules.push((module.to_owned(), path.to_owned()));
        }
    })?;
    let in_order = MODULES.iter().map(|name| {
        let found = modules.iter().find(|(module, _)| module == name).cloned();
        found.ok_or_else(|| ImageError::unexpected(&package, format!("has no module {name}")))
    });
    let modules = in_order.collect::<Result<Vec<_>, _>>()?;
    let (bzimage, release) = bzimage.ok_or_else(|| ImageError::unexpected(&package, "holds no kernel"))?;

    std::fs::create_dir_all(out).on("create", out)?;
    kernel::extract(&bzimage, &out.join(VMLINUX), &scratch.join("payload")).await?;
    write_initramfs(&out.join(INITRD), &scratch.join("bin/busybox"), &modules)?;
    std::fs::write(out.join(RELEASE), release).on("write", &out.join(RELEASE))
}

async fn take(deb: &Path, scratch: &Path, members: impl IntoIterator<Item = String>) -> Result<(), ImageError> {
    Tool::new("sh", "dash", "unpacking the kernel package")
        .args(["-c", "deb=$1; shift; dpkg-deb --fsys-tarfile \"$deb\" | tar -x --wildcards \"$@\"", "sh"])
        .arg(deb)
        .args(members)
        .current_dir(scratch)
        .limit(Duration::from_secs(180))
        .run()
        .await
        .map(|_| ())
}

/// Writes the initramfs that loads `modules`, given by name and file, in this order.
pub(super) fn write_initramfs(path: &Path, busybox: &Path, modules: &[(String, PathBuf)]) -> Result<(), ImageError> {
    let archive = || {
        let mut cpio = Cpio::new(BufWriter::new(File::create(path)?));
        for dir in ["bin", "dev", "modules", "root"] {
            cpio.dir(dir)?;
        }
        // The kernel opens it before init has mounted anything.
        cpio.char_device("dev/console", 5, 1)?;
        cpio.file("bin/busybox", 0o755, &std::fs::read(busybox)?)?;
        cpio.file("init", 0o755, guest::INITRAMFS_INIT.as_bytes())?;
        let mut order = String::new();
        for (name, file) in modules {
            cpio.file(&format!("modules/{name}.ko"), 0o644, &std::fs::read(file)?)?;
            order += &format!("{name}.ko\n");
        }
        cpio.file("modules/order", 0o644, order.as_bytes())?;
        cpio.finish()
    };
    archive().on("write", path).map(|_| ())
}

fn walk(dir: &Path, see: &mut dyn FnMut(&Path, &str)) -> Result<(), ImageError> {
    for entry in std::fs::read_dir(dir).on("list", dir)? {
        let entry = entry.on("list", dir)?;
        let kind = entry.file_type().on("inspect", &entry.path())?;
        if kind.is_dir() {
            walk(&entry.path(), see)?;
        } else if kind.is_file() {
            see(&entry.path(), &entry.file_name().to_string_lossy());
        }
    }
    Ok(())
}
