//! A distribution's cloud image as the userland of a guest.
//!
//! The image is fetched ([`fetch`]) or found, its root file system is copied out of it with its kernel and modules
//! ([`system`]), the builder's own files are put into that with `debugfs` ([`ext4`]), and it becomes the whole disk. Nothing is
//! mounted, nothing of the image is executed on the host, and no privileges are needed.

mod accounts;
mod disk;
mod ext4;
mod fetch;
mod modules;
mod partition;
mod source;
mod system;
mod tools;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use source::CloudImage;
pub(super) use tools::{PACKAGES, make as make_tools};

use super::boot;
use super::error::{Flaw, ImageError, IoContext};
use super::guest;
use super::recipe::Recipe;
use super::tool::Tool;
use ext4::{Change, Ext4, Node};
use source::{Check, Place};

/// Where a download is kept until it is whole; unlike other unfinished files it is continued.
pub(super) fn download_name(image: &Path) -> PathBuf {
    image.with_extension("download")
}

impl CloudImage {
    /// Whether it is fetched from elsewhere.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::Url(_))
    }

    /// Fetches the image into `download`, if it is elsewhere, and checks it.
    pub(super) async fn fetch(&self, download: &Path) -> Result<(), ImageError> {
        let Place::Url(url) = &self.place else { return Ok(()) };
        if self.check == Check::None {
            tracing::warn!(url, "the image is not checked; name its sha256 to be sure that it is the right one");
        }
        fetch::fetch(url, &self.check, download).await
    }

    /// Takes root file system, kernel and modules out of the image, which was fetched to `fetched` or is a file that is
    /// checked now.
    pub(super) async fn unpack(&self, fetched: &Path, scratch: &Path, out: &Path) -> Result<(), ImageError> {
        let Place::File { path, stamp } = &self.place else {
            return system::unpack(fetched, &self.name(), scratch, out).await;
        };
        let changed = || {
            let problem = "was changed while it was read, or since it was named: try again";
            Err(ImageError::unexpected(self.name(), problem))
        };
        let before = source::stamp(path)?;
        match &self.check {
            Check::Sha256(wanted) => {
                let found = fetch::sha256(path.clone()).await?;
                if found != *wanted {
                    let (what, wanted) = (self.name(), wanted.clone());
                    let advice = "name the right file, or its own sum";
                    return Err(ImageError::Checksum { what, found, wanted, advice });
                }
            }
            Check::None | Check::SumsBeside if before != *stamp => return changed(),
            Check::None | Check::SumsBeside => {}
        }
        system::unpack(path, &self.name(), scratch, out).await?;
        if source::stamp(path)? == before { Ok(()) } else { changed() }
    }
}

/// The module's name in the directory of an unpacked image.
fn initramfs_part(module: &str) -> String {
    format!("{module}.ko")
}

/// Makes the two files a machine is started with, of an unpacked image and the tools.
pub(super) fn make_boot(unpacked: &Path, tools: &Path, out: &Path) -> Result<(), ImageError> {
    std::fs::create_dir_all(out).on("create", out)?;
    let read = |name: &str| std::fs::read_to_string(unpacked.join(name)).on("read", &unpacked.join(name));
    let modules: Vec<_> =
        read(system::ORDER)?.lines().map(|name| (name.to_owned(), unpacked.join(initramfs_part(name)))).collect();
    // As it is: distributions pack their kernels in many ways, and it takes the guest no longer.
    let kernel = std::fs::read(unpacked.join(system::KERNEL)).on("read", &unpacked.join(system::KERNEL))?;
    if kernel.get(0x202..0x206) != Some(b"HdrS") {
        return Err(ImageError::unexpected("the image's kernel", "is not a bzImage"));
    }
    std::fs::write(out.join(boot::VMLINUX), kernel).on("write", &out.join(boot::VMLINUX))?;
    boot::write_initramfs(&out.join(boot::INITRD), &tools.join(tools::BUSYBOX), &modules)?;
    std::fs::write(out.join(boot::RELEASE), read(system::RELEASE)?).on("write", &out.join(boot::RELEASE))
}

/// Writes the disk of `recipe` to `qcow2`, of an unpacked image and the tools.
pub(super) async fn make_disk(
    image: &CloudImage,
    recipe: &Recipe,
    unpacked: &Path,
    tools: &Path,
    scratch: &Path,
    qcow2: &Path,
) -> Result<(), ImageError> {
    let (root, raw) = (unpacked.join(system::ROOT), scratch.join("disk.raw"));
    let needed = root.metadata().on("inspect", &root)?.len();
    if needed > recipe.disk_bytes {
        let flaw = Flaw::TooLarge { needed, disk: recipe.disk_bytes };
        return Err(ImageError::Unusable { image: image.name(), flaw });
    }
    // A copy, so that a killed build finds the original as it was.
    Tool::new("cp", "coreutils", "copying the file system")
        .args(["--sparse=always", "--reflink=auto"])
        .args([&root, &raw])
        .limit(Duration::from_secs(600))
        .run()
        .await?;
    let system = Ext4::new(raw.clone(), scratch.join("ext4"))?;
    system.grow(recipe.disk_bytes).await?;
    let changes = changes(&system, recipe, tools).await?;
    system.change(&changes).await?;
    verify(&system, &changes).await?;
    system.check().await?;
    Tool::new("qemu-img", "qemu-utils", "converting the disk")
        .args(["convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "lazy_refcounts=off,cluster_size=65536"])
        .args([&raw, qcow2])
        .limit(Duration::from_secs(600))
        .run()
        .await?;
    std::fs::remove_file(&raw).on("delete", &raw)
}

/// A tool that reports its failures in words alone is asked once more.
async fn verify(system: &Ext4, changes: &[Change]) -> Result<(), ImageError> {
    let last: BTreeMap<&str, &Change> = changes.iter().map(|change| (change.path(), change)).collect();
    let found = system.look(last.keys().map(|path| (*path).to_owned())).await?;
    for (path, change) in last {
        let is_so = match (change, found.get(path)) {
            (Change::Remove { .. }, found) => found.is_none(),
            (Change::Write { .. }, found) => found == Some(&Node::File),
            (Change::Dir { .. }, found) => found == Some(&Node::Dir),
            (Change::Link { .. }, found) => found == Some(&Node::Other),
        };
        if !is_so {
            return Err(ImageError::unexpected(path, "could not be changed in the image's file system"));
        }
    }
    Ok(())
}

/// Everything that makes a box of the distribution.
async fn changes(system: &Ext4, recipe: &Recipe, tools: &Path) -> Result<Vec<Change>, ImageError> {
    let text = async |path: &str| {
        let content = system.read(path).await?.unwrap_or_default();
        Ok::<_, ImageError>(String::from_utf8_lossy(&content).into_owned())
    };
    let mut changes: Vec<Change> = guest::files(recipe)
        .into_iter()
        .map(|file| Change::Write {
            path: format!("/{}", file.path),
            mode: file.mode,
            owner: (0, 0),
            content: file.text.into_bytes(),
        })
        .collect();

    // The user and its home.
    let group = text("/etc/group").await?;
    let id = accounts::free_id(&text("/etc/passwd").await?, &group);
    for file in &accounts::FILES {
        changes.push(accounts::with_user(file, &text(file.path).await?, id, accounts::shadow_group(&group)));
    }
    changes.push(Change::Dir { path: "/home/box".to_owned(), owner: (id, id) });
    let mut home: BTreeMap<String, Vec<u8>> = BTreeMap::from([(".bashrc".to_owned(), Vec::new())]);
    for name in system.list("/etc/skel").await? {
        if let Some(content) = system.read(&format!("/etc/skel/{name}")).await? {
            home.insert(name, content);
        }
    }
    for (name, mut content) in home {
        if name == ".bashrc" {
            content.extend(guest::BASHRC.bytes());
        }
        changes.push(Change::Write { path: format!("/home/box/{name}"), mode: 0o644, owner: (id, id), content });
    }
    let mut bashrc = text("/root/.bashrc").await?;
    bashrc += guest::BASHRC;
    changes.push(Change::Write {
        path: "/root/.bashrc".to_owned(),
        mode: 0o644,
        owner: (0, 0),
        content: bashrc.into_bytes(),
    });

    changes.extend(services());
    let has_agent = !system.look(["/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"].map(str::to_owned)).await?.is_empty();
    changes.extend(bring(tools, !has_agent)?);
    for name in system.list("/etc/ssh").await?.iter().filter(|name| name.starts_with("ssh_host_")) {
        changes.push(Change::Remove { path: format!("/etc/ssh/{name}") });
    }
    Ok(changes)
}

/// Which services run, and which do not.
fn services() -> Vec<Change> {
    let link = |path: String, to: &str| Change::Link { path, to: to.to_owned() };
    let remove = |path: &str| Change::Remove { path: path.to_owned() };
    let system = "/etc/systemd/system";
    let mut changes = vec![
        link(format!("{system}/default.target"), "/lib/systemd/system/multi-user.target"),
        link(format!("{system}/multi-user.target.wants/ssh.service"), "/lib/systemd/system/ssh.service"),
        // Ubuntu's sshd waits for a socket of systemd's, in whose place the listening is here.
        remove("/etc/systemd/system/ssh.service.requires/ssh.socket"),
        remove("/etc/systemd/system/sockets.target.wants/ssh.socket"),
        remove("/etc/systemd/system/ssh.service.d/00-socket.conf"),
        remove("/etc/ssh/sshd_not_to_be_run"),
        remove("/var/lib/dbus/machine-id"),
        link("/var/lib/dbus/machine-id".to_owned(), "/etc/machine-id"),
        // The same in all copies.
        remove("/var/lib/systemd/random-seed"),
    ];
    for unit in ["boxpool-network", "boxpool-agent", "boxpool-ready"] {
        let wants = format!("{system}/multi-user.target.wants/{unit}.service");
        changes.push(link(wants, &format!("{system}/{unit}.service")));
    }
    for unit in guest::MASKED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        changes.push(link(format!("{system}/{unit}"), "/dev/null"));
    }
    changes
}

/// Busybox, and the agent if the image has none.
fn bring(tools: &Path, agent: bool) -> Result<Vec<Change>, ImageError> {
    let mut changes = Vec::new();
    for entry in std::fs::read_dir(tools).on("list", tools)? {
        let path = entry.on("list", tools)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = match name.as_str() {
            tools::BUSYBOX => "/usr/lib/boxpool/busybox".to_owned(),
            name if agent => format!("/usr/lib/boxpool/qemu-ga/{name}"),
            _ => continue,
        };
        let mode = path.metadata().on("inspect", &path)?.permissions().mode() & 0o777;
        changes.push(Change::Write {
            path: place,
            mode,
            owner: (0, 0),
            content: std::fs::read(&path).on("read", &path)?,
        });
    }
    if agent {
        let content = guest::AGENT_WRAPPER.as_bytes().to_vec();
        changes.push(Change::Write {
            path: "/usr/lib/boxpool/bin/qemu-ga".to_owned(),
            mode: 0o755,
            owner: (0, 0),
            content,
        });
    }
    // The order in which a directory is read is nobody's choice.
    changes.sort_by(|a, b| a.path().cmp(b.path()));
    Ok(changes)
}
