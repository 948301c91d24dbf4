//! Finds the distribution in an image: its root file system, its kernel and that kernel's modules.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::error::{Flaw, ImageError, IoContext};
use super::super::files;
use super::super::tool::Tool;
use super::disk::Disk;
use super::ext4::{Ext4, Node};
use super::partition::{self, Part};
use super::{initramfs_part, modules};

/// Names in the directory that an image is unpacked to.
pub(super) const ROOT: &str = "root.ext4";
pub(super) const KERNEL: &str = "vmlinuz";
pub(super) const RELEASE: &str = "release";
/// Names of the modules' files, in the order of loading.
pub(super) const ORDER: &str = "order";

/// No image has more file systems worth a look.
const FILE_SYSTEMS_MAX: usize = 4;
/// A system's root is larger than that, and so is its `/boot`.
const PART_MIN: u64 = 4 << 20;

/// Unpacks the disk in `image` to the new directory `out`: root file system, kernel and modules.
pub(super) async fn unpack(image: &Path, name: &str, scratch: &Path, out: &Path) -> Result<(), ImageError> {
    let unusable = |flaw| ImageError::Unusable { image: name.to_owned(), flaw };
    std::fs::create_dir_all(out).on("create", out)?;
    let disk = Disk::open(image, name).await?;
    // The root file system, a copy of it that is made a box, and the disk that this becomes.
    let (free, needed) = (files::free(scratch)?, disk.content.saturating_mul(3).saturating_add(128 << 20));
    if free < needed {
        return Err(ImageError::DiskFull { path: scratch.to_owned(), free, needed });
    }
    let (candidates, others) = file_systems(&disk, scratch).await?;

    let (mut root, mut boot) = (None, None);
    for (index, part) in candidates.into_iter().enumerate() {
        let file = scratch.join(format!("part-{index}.ext4"));
        disk.copy(part, &file).await?;
        let system = Ext4::new(file.clone(), scratch.join("ext4"))?;
        system.check().await?;
        let found = system.look(["/usr", "/etc/passwd"].map(str::to_owned)).await?;
        // Ubuntu has its kernel in a file system of its own.
        if root.is_none() && found.len() == 2 {
            root = Some(system);
        } else if boot.is_none() && !kernels(&system, "").await?.is_empty() {
            boot = Some(system);
        } else {
            std::fs::remove_file(&file).on("delete", &file)?;
        }
    }
    let root = root.ok_or_else(|| unusable(Flaw::NoRoot { found: others }))?;
    check_system(&root, scratch).await?.map_or(Ok(()), |flaw| Err(unusable(flaw)))?;

    let (release, kernel) =
        take_kernel(&root, boot.as_ref(), scratch).await?.ok_or_else(|| unusable(Flaw::NoKernel))?;
    let order = take_modules(&root, &release, scratch, out).await?.map_err(unusable)?;
    std::fs::rename(&kernel, out.join(KERNEL)).on("take", &kernel)?;
    std::fs::write(out.join(ORDER), order.join("\n")).on("write", &out.join(ORDER))?;
    std::fs::write(out.join(RELEASE), &release).on("write", &out.join(RELEASE))?;
    std::fs::rename(&root.file, out.join(ROOT)).on("take", &root.file)
}

/// The ext4 file systems of a disk, the largest first, and in words what else is there.
async fn file_systems(disk: &Disk, scratch: &Path) -> Result<(Vec<Part>, String), ImageError> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for part in disk.parts(scratch).await?.into_iter().filter(|part| part.size >= PART_MIN) {
        let head = disk.head(part, scratch).await?;
        if partition::is_ext(&head) {
            found.push(part);
            others.push("ext4 without /usr or /etc/passwd");
        } else if let Some(name) = partition::other_file_system(&head) {
            others.push(name);
        }
    }
    found.sort_by_key(|part| std::cmp::Reverse(part.size));
    found.truncate(FILE_SYSTEMS_MAX);
    others.sort_unstable();
    others.dedup();
    let others = if others.is_empty() { "no known file system".to_owned() } else { others.join(", ") };
    Ok((found, others))
}

/// What keeps a box from being made of it.
async fn check_system(root: &Ext4, scratch: &Path) -> Result<Option<Flaw>, ImageError> {
    let needed = [
        ("/bin/bash", "bash"),
        ("/lib/systemd/systemd", "systemd"),
        ("/usr/sbin/sshd", "OpenSSH server (package openssh-server)"),
        ("/lib/systemd/system/ssh.service", "unit ssh.service"),
    ];
    let found = root.look(needed.map(|(path, _)| path.to_owned())).await?;
    if let Some((_, what)) = needed.iter().find(|(path, _)| !found.contains_key(*path)) {
        return Ok(Some(Flaw::Lacks { what }));
    }
    let place = scratch.join("programs");
    root.take(&["/bin/bash".to_owned()], &place).await?;
    let bash = std::fs::read(place.join("bash")).unwrap_or_default();
    Ok(match machine(&bash) {
        Some("x86_64") => None,
        found => Some(Flaw::Architecture { found: found.unwrap_or("an unknown processor").to_owned() }),
    })
}

/// The processor that an ELF is for.
fn machine(elf: &[u8]) -> Option<&'static str> {
    if !elf.starts_with(b"\x7fELF") {
        return None;
    }
    match elf.get(18..20)? {
        [62, 0] => Some("x86_64"),
        [183, 0] => Some("arm64"),
        [3, 0] => Some("32-bit x86"),
        [40, 0] => Some("32-bit ARM"),
        [243, 0] => Some("RISC-V"),
        [21, 0] | [0, 21] => Some("PowerPC"),
        [0, 22] => Some("s390x"),
        _ => None,
    }
}

/// Releases of the kernels in a directory.
async fn kernels(system: &Ext4, directory: &str) -> Result<Vec<String>, ImageError> {
    let names = system.list(&format!("{directory}/")).await?;
    Ok(names.iter().filter_map(|name| name.strip_prefix("vmlinuz-")).map(str::to_owned).collect())
}

/// Takes the newest kernel that has its modules: its release, and its file.
async fn take_kernel(
    root: &Ext4,
    boot: Option<&Ext4>,
    scratch: &Path,
) -> Result<Option<(String, PathBuf)>, ImageError> {
    let mut found: Vec<_> = kernels(root, "/boot").await?.into_iter().map(|release| (release, root, "/boot")).collect();
    if let Some(boot) = boot {
        found.extend(kernels(boot, "").await?.into_iter().map(|release| (release, boot, "")));
    }
    let deps = found.iter().map(|(release, ..)| format!("/lib/modules/{release}/modules.dep"));
    let with_modules = root.look(deps).await?;
    found.retain(|(release, ..)| with_modules.get(&format!("/lib/modules/{release}/modules.dep")) == Some(&Node::File));
    let newest = found.into_iter().max_by(|(a, ..), (b, ..)| numbers(a).cmp(&numbers(b)).then(a.cmp(b)));
    let Some((release, system, directory)) = newest else { return Ok(None) };
    let name = format!("vmlinuz-{release}");
    let place = scratch.join("kernel");
    system.take(&[format!("{directory}/{name}")], &place).await?;
    let file = place.join(&name);
    if !file.exists() {
        return Err(ImageError::unexpected(name, "is not a plain file in this image"));
    }
    Ok(Some((release, file)))
}

/// `6.8.0-45-generic` is newer than `6.8.0-9-generic`.
fn numbers(release: &str) -> Vec<u64> {
    let parts = release.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

/// Takes the modules that the initramfs needs, unpacked, into `out`; their names, in the order of loading.
async fn take_modules(
    root: &Ext4,
    release: &str,
    scratch: &Path,
    out: &Path,
) -> Result<Result<Vec<String>, Flaw>, ImageError> {
    let directory = format!("/lib/modules/{release}");
    let mut texts = Vec::new();
    for list in ["modules.dep", "modules.builtin"] {
        let text = root.read(&format!("{directory}/{list}")).await?.unwrap_or_default();
        texts.push(String::from_utf8_lossy(&text).into_owned());
    }
    let paths = match modules::order(&texts[0], &texts[1]) {
        Ok(paths) => paths,
        Err((driver, purpose)) => {
            return Ok(Err(Flaw::KernelLacks { release: release.to_owned(), driver, purpose }));
        }
    };
    let place = scratch.join("modules");
    let paths: Vec<String> = paths.iter().map(|path| format!("{directory}/{path}")).collect();
    root.take(&paths, &place).await?;
    let mut names = Vec::new();
    for path in paths {
        let name = modules::name(&path);
        let packed = place.join(path.rsplit('/').next().unwrap_or(&path));
        unpack_module(&packed, &out.join(initramfs_part(&name))).await?;
        names.push(name);
    }
    Ok(Ok(names))
}

async fn unpack_module(packed: &Path, to: &Path) -> Result<(), ImageError> {
    let (program, package) = match packed.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return std::fs::rename(packed, to).on("take", packed),
        Some("xz") => ("xz", "xz-utils"),
        Some("zst") => ("zstd", "zstd"),
        Some("gz") => ("gzip", "gzip"),
        _ => return Err(ImageError::unexpected(packed.display().to_string(), "is packed in an unknown way")),
    };
    Tool::new(program, package, "unpacking a module of the kernel")
        .args(["-d", "-c"])
        .stdin(std::fs::File::open(packed).on("open", packed)?)
        .stdout(std::fs::File::create(to).on("create", to)?)
        .limit(Duration::from_secs(60))
        .run()
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_found_by_its_numbers() {
        assert!(numbers("6.8.0-45-generic") > numbers("6.8.0-9-generic"));
        assert!(numbers("6.10.1") > numbers("6.8.0-45-generic"));
        assert!(numbers("6.1.0-99999999999999999999999") > numbers("6.1.0-1"));
    }

    /// A root directory that could become a box, but for what a test takes away.
    fn root(dir: &Path) -> PathBuf {
        let tree = dir.join("tree");
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[18] = 62;
        let modules = "lib/modules/6.8.0-9-generic";
        for (path, content) in [
            ("etc/passwd", &b"root:x:0:0::/root:/bin/bash\n"[..]),
            ("bin/bash", &elf),
            ("lib/systemd/systemd", b""),
            ("lib/systemd/system/ssh.service", b""),
            ("usr/sbin/sshd", b""),
            ("boot/vmlinuz-6.8.0-9-generic", b"kernel"),
            ("boot/vmlinuz-6.9.0-1-generic", b"without modules"),
            (&format!("{modules}/modules.dep"), b"kernel/ext4.ko.xz: kernel/jbd2.ko\nkernel/jbd2.ko:\n"),
            (
                &format!("{modules}/modules.builtin"),
                b"a/virtio_pci.ko\na/virtio_blk.ko\na/virtio_net.ko\na/virtio_console.ko\na/vmgenid.ko\n",
            ),
            (&format!("{modules}/kernel/jbd2.ko"), b"jbd2"),
            (&format!("{modules}/kernel/ext4.ko.xz"), &pack(b"ext4")),
        ] {
            let path = tree.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        tree
    }

    fn pack(content: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut xz = std::process::Command::new("xz");
        xz.args(["-c", "--check=crc32"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut xz = xz.spawn().unwrap();
        xz.stdin.take().unwrap().write_all(content).unwrap();
        xz.wait_with_output().unwrap().stdout
    }

    async fn unpacked(dir: &Path) -> Result<PathBuf, ImageError> {
        let (image, scratch, out) = (dir.join("image"), dir.join("scratch"), dir.join("out"));
        std::fs::create_dir_all(&scratch).unwrap();
        let tool = Tool::new("mke2fs", "e2fsprogs", "testing").args(["-q", "-F", "-t", "ext4", "-d"]);
        tool.arg(dir.join("tree")).arg(&image).arg("16m").run().await.unwrap();
        unpack(&image, "image", &scratch, &out).await.map(|()| out)
    }

    #[tokio::test]
    async fn a_disk_without_partitions_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        root(dir.path());
        let out = unpacked(dir.path()).await.unwrap();
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        assert_eq!((read(RELEASE).as_str(), read(KERNEL).as_str()), ("6.8.0-9-generic", "kernel"));
        assert_eq!((read(ORDER).as_str(), read("ext4.ko").as_str()), ("jbd2\next4", "ext4"));
        assert!(out.join(ROOT).exists());
    }

    #[tokio::test]
    async fn what_a_box_cannot_do_without_is_missed_by_its_name() {
        let cases: [(&str, Option<&[u8]>, &str); 7] = [
            ("etc/passwd", None, "has no ext4 root file system"),
            ("boot/vmlinuz-6.8.0-9-generic", None, "has no kernel"),
            ("lib/modules/6.8.0-9-generic/modules.dep", None, "has no kernel"),
            (
                "lib/modules/6.8.0-9-generic/modules.builtin",
                Some(b"a/virtio_pci.ko\n"),
                "6.8.0-9-generic has no virtio_blk",
            ),
            ("usr/sbin/sshd", None, "package openssh-server"),
            ("lib/systemd/systemd", None, "has no systemd"),
            ("bin/bash", Some(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0"), "is made for arm64"),
        ];
        for (path, content, reason) in cases {
            let dir = tempfile::tempdir().unwrap();
            let path = root(dir.path()).join(path);
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let error = unpacked(dir.path()).await.unwrap_err();
            assert!(matches!(error, ImageError::Unusable { .. }), "{error}");
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
    }

    #[test]
    fn programs_tell_their_processor() {
        assert_eq!(machine(&std::fs::read("/proc/self/exe").unwrap()), Some("x86_64"));
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[18] = 183;
        assert_eq!(machine(&elf), Some("arm64"));
        assert_eq!(machine(b"#!/bin/sh"), None);
    }
}
