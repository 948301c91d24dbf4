//! Bootable guests from Debian 12's packages, without a download from anywhere else: kernel, first programs, disk.
//!
//! Three parts, each a file that is there as a whole or not at all: the packages (`packages.tar`), the kernel with its
//! ramdisk, the disk. A build that was cut short goes on with what it has.

use crate::golden::Progress;
use crate::host::{Command, Host, last_of, must};
use boxpool::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;

const KERNEL_SCRIPT: &str = include_str!("kernel.sh");
const DISK_SCRIPT: &str = include_str!("disk.sh");
/// Raised when the recipe changes in a way that its parts do not show.
const RECIPE_VERSION: u32 = 1;
/// The release that guests are made of. Its kernel 6.1 is the one that QEMU 7.2 runs without faults under TCG.
const SUITE: &str = "bookworm";
/// Downloading and unpacking packages on a slow line.
const PACKAGES_LIMIT: Duration = Duration::from_secs(1_800);

/// What a guest is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Debian 12 with systemd, for people: login `box`, with sudo.
    Debian,
    /// Debian 12's basic programs and an SSH server, without a service manager: boots in a third of the time. Login `root`.
    Tiny,
}

impl Kind {
    fn packages(self) -> &'static str {
        match self {
            Self::Tiny => "openssh-server,openssh-client,qemu-guest-agent,iproute2,procps,rsync",
            Self::Debian => {
                "openssh-server,openssh-client,qemu-guest-agent,iproute2,procps,rsync,systemd-sysv,dbus,sudo,ca-certificates,\
                 curl,wget,less,nano,vim-tiny,tmux,xauth,iputils-ping,kmod,file,git"
            }
        }
    }

    /// The account to log in to.
    #[must_use]
    pub fn login(self) -> &'static str {
        match self {
            Self::Debian => "box",
            Self::Tiny => "root",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Tiny => "tiny",
        }
    }
}

/// Everything that determines a guest's disk, and where its packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// What it is made of.
    pub kind: Kind,
    /// Size of its disk, in bytes. It takes room only as it is written to.
    pub disk_bytes: u64,
    /// The public key that may log in, one line in OpenSSH's format.
    pub authorized_key: String,
    /// Where Debian's packages come from. Not part of the digest: every mirror has the same.
    pub mirror: String,
}

impl Recipe {
    /// A digest of everything that determines the disk, in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut digest = Sha256::new();
        let size = self.disk_bytes.to_string();
        let version = RECIPE_VERSION.to_string();
        let parts =
            [&version, self.kind.word(), SUITE, self.kind.packages(), &size, &self.key(), KERNEL_SCRIPT, DISK_SCRIPT];
        for part in parts {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key without its comment, which says nothing about who may log in.
    fn key(&self) -> String {
        self.authorized_key.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    fn check(&self) -> Result<()> {
        let invalid = |detail: &str| Err(Error::new(ErrorKind::Invalid, "build image", "recipe").with_detail(detail));
        if self.disk_bytes < 1 << 30 {
            return invalid("a box's disk has at least 1 GiB");
        }
        if !(self.mirror.starts_with("http://")
            || self.mirror.starts_with("https://")
            || self.mirror.starts_with("file:/"))
        {
            return invalid("the mirror is a URL that begins with http://, https:// or file:/");
        }
        if self.mirror.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return invalid("the mirror's URL has no spaces");
        }
        Ok(())
    }
}

/// Makes `vmlinux`, `initrd.cpio` and `disk.qcow2` in `folder`, which is kept between attempts. What is there is not made again.
///
/// # Errors
/// `NotFound` names a missing program; `NoCapacity` a full disk; `Permanent` has the last of what a tool complained about.
pub(crate) async fn build(
    host: &dyn Host,
    recipe: &Recipe,
    folder: &Path,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<()> {
    recipe.check()?;
    let there = |name: &'static str| {
        let path = folder.join(name);
        async move { Ok::<_, Error>(host.run(Command::new("test").arg("-f").arg(path)).await?.success) }
    };
    if there("disk.qcow2").await? && there("vmlinux").await? && there("initrd.cpio").await? {
        return Ok(());
    }
    let root = must(host, "build image", Command::new("id").arg("-u")).await?.stdout.trim() == "0";

    if !there("packages.tar").await? {
        progress(Progress::new("packages", "downloading and unpacking Debian packages"));
        let partial = folder.join("packages.tar.partial");
        let mode = if root { "--mode=root" } else { "--mode=unshare" };
        let include = format!("--include={}", recipe.kind.packages());
        let unpack = Command::new("mmdebstrap")
            .args([mode, "--variant=minbase", "--format=tar", "--architectures=amd64", &include])
            .args([
                "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg",
                "--aptopt=Apt::Install-Recommends \"false\"",
            ])
            .args(["--aptopt=Acquire::Retries \"3\"", "--aptopt=Acquire::Languages \"none\""])
            .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"])
            .args(["--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=force-unsafe-io", "--quiet", SUITE])
            .arg(&partial)
            .arg(&recipe.mirror)
            .limit(PACKAGES_LIMIT);
        let output = host.run(unpack).await.map_err(|error| missing(error, "mmdebstrap"))?;
        if !output.success {
            let detail = format!(
                "mmdebstrap could not unpack Debian packages from {}: {}",
                recipe.mirror,
                last_of(&output.stderr)
            );
            return Err(Error::new(ErrorKind::Permanent, "build image", "packages").with_detail(detail));
        }
        must(host, "build image", Command::new("mv").arg(&partial).arg(folder.join("packages.tar"))).await?;
    }
    if !(there("vmlinux").await? && there("initrd.cpio").await?) {
        progress(Progress::new("kernel", "fetching Debian's kernel"));
        let script = Command::new("sh").args(["-c", KERNEL_SCRIPT, "kernel.sh", &recipe.mirror]);
        let script = script.arg(folder.join("kernel-work")).arg(folder).limit(PACKAGES_LIMIT);
        must(host, "build image", script).await?;
    }
    progress(Progress::new("disk", "making the disk"));
    let script = if root {
        Command::new("sh")
    } else {
        // Files of many owners can be made by a plain user in a namespace of their own (needs /etc/subuid).
        Command::new("unshare").args(["--map-auto", "--map-root-user", "sh"])
    };
    let script = script
        .args(["-c", DISK_SCRIPT, "disk.sh"])
        .args([folder.join("packages.tar"), folder.join("disk-work"), folder.join("disk.qcow2")])
        .args([recipe.disk_bytes.to_string(), recipe.kind.word().to_owned()])
        .stdin(recipe.key())
        .limit(Duration::from_secs(600));
    must(host, "build image", script).await?;
    Ok(())
}

fn missing(error: Error, program: &str) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let detail = format!("{program} is missing; install the package {program}");
    Error::new(ErrorKind::NotFound, "build image", program).with_detail(detail).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            kind: Kind::Tiny,
            disk_bytes: 1 << 31,
            authorized_key: "ssh-ed25519 AAAA key".into(),
            mirror: "http://deb.debian.org/debian".into(),
        }
    }

    #[test]
    fn the_digest_names_the_content_and_not_the_mirror() {
        let digest = recipe().digest();
        assert_eq!(Recipe { authorized_key: "ssh-ed25519 AAAA another comment".into(), ..recipe() }.digest(), digest);
        assert_eq!(Recipe { mirror: "http://mirror.example/debian".into(), ..recipe() }.digest(), digest);
        assert_ne!(Recipe { authorized_key: "ssh-ed25519 BBBB".into(), ..recipe() }.digest(), digest);
        assert_ne!(Recipe { kind: Kind::Debian, ..recipe() }.digest(), digest);
        assert_ne!(Recipe { disk_bytes: 1 << 32, ..recipe() }.digest(), digest);
    }

    #[tokio::test]
    async fn a_recipe_that_cannot_be_built_is_refused_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [Recipe { mirror: "ftp://x".into(), ..recipe() }, Recipe { disk_bytes: 5, ..recipe() }] {
            let error = build(&crate::LocalHost, &bad, dir.path(), &|_| {}).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
