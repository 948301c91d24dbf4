//! Which modules of a kernel the initramfs needs, in the order they must be loaded: read from `modules.dep` and
//! `modules.builtin`, which every installed kernel has.

use std::collections::BTreeSet;

/// A driver the guest needs or can use.
pub(super) struct Driver {
    /// The module's name, with `_` where file names may have `-`.
    name: &'static str,
    /// Why a guest without it is of no use; none if it can be done without.
    needed_for: Option<&'static str>,
}

const fn needed(name: &'static str, needed_for: &'static str) -> Driver {
    Driver { name, needed_for: Some(needed_for) }
}

const fn useful(name: &'static str) -> Driver {
    Driver { name, needed_for: None }
}

/// In this order, each after what it depends on.
const DRIVERS: &[Driver] = &[
    // ext4 asks for it by the name of its algorithm, which is no dependency between modules.
    useful("crc32c_generic"),
    needed("ext4", "its root file system"),
    needed("virtio_pci", "the machine's devices"),
    needed("virtio_blk", "its disk"),
    needed("virtio_net", "its network"),
    needed("virtio_console", "the guest agent"),
    needed("vmgenid", "random numbers that differ between copies (Linux 5.18 and newer have it)"),
    useful("virtio_rng"),
    useful("virtio_balloon"),
    useful("qemu_fw_cfg"),
];

/// Paths below the kernel's module directory, to be loaded in this order; or the first driver that is absent, and what
/// for it is needed.
pub(super) fn order(dep: &str, builtin: &str) -> Result<Vec<String>, (&'static str, &'static str)> {
    let lines: Vec<(&str, Vec<&str>)> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, dependencies)| (module.trim(), dependencies.split_whitespace().collect()))
        .collect();
    let (mut order, mut taken) = (Vec::new(), BTreeSet::new());
    for driver in DRIVERS {
        if builtin.lines().any(|path| name(path) == driver.name) {
            continue;
        }
        match (lines.iter().find(|(path, _)| name(path) == driver.name), driver.needed_for) {
            (Some((path, dependencies)), _) => {
                // depmod lists the innermost dependency last.
                for path in dependencies.iter().rev().chain([path]) {
                    if taken.insert(*path) {
                        order.push((*path).to_owned());
                    }
                }
            }
            (None, Some(purpose)) => return Err((driver.name, purpose)),
            (None, None) => {}
        }
    }
    Ok(order)
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.zst` is `virtio_rng`.
pub(super) fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path).trim();
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko.zst: kernel/lib/crc16.ko.zst kernel/fs/jbd2/jbd2.ko.zst\n\
        kernel/fs/jbd2/jbd2.ko.zst:\n\
        kernel/drivers/char/hw_random/virtio-rng.ko.zst: kernel/drivers/virtio/virtio.ko.zst\n\
        kernel/drivers/net/virtio_net.ko.zst: kernel/drivers/virtio/virtio.ko.zst\n\
        kernel/drivers/virtio/virtio.ko.zst:\n";
    const BUILTIN: &str = "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/block/virtio_blk.ko\n\
        kernel/drivers/char/virtio_console.ko\nkernel/drivers/virt/vmgenid.ko\n";

    #[test]
    fn dependencies_go_first_and_nothing_goes_twice() {
        assert_eq!(
            order(DEP, BUILTIN).unwrap(),
            [
                "kernel/fs/jbd2/jbd2.ko.zst",
                "kernel/lib/crc16.ko.zst",
                "kernel/fs/ext4/ext4.ko.zst",
                "kernel/drivers/virtio/virtio.ko.zst",
                "kernel/drivers/net/virtio_net.ko.zst",
                "kernel/drivers/char/hw_random/virtio-rng.ko.zst",
            ]
        );
    }

    #[test]
    fn an_absent_driver_is_named() {
        let old = BUILTIN.replace("kernel/drivers/virt/vmgenid.ko\n", "");
        assert_eq!(order(DEP, &old).unwrap_err().0, "vmgenid");
        assert_eq!(order("", "").unwrap_err().0, "ext4");
    }
}
