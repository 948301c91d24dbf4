//! The tiny userland: a few programs of Debian packages with the libraries they are linked with, and busybox.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::apt::Apt;
use super::elf;
use super::error::{ImageError, IoContext};
use super::recipe::Recipe;
use super::tool::Tool;

pub(super) const PACKAGES: &[&str] = &[
    "bash",
    "busybox-static",
    "libaudit1",
    "libbsd0",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcom-err2",
    "libcrypt1",
    "libedit2",
    "libgcrypt20",
    "libglib2.0-0",
    "libgpg-error0",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "liblz4-1",
    "liblzma5",
    "libmd0",
    "libnsl2",
    "libnuma1",
    "libpam0g",
    "libpcre2-8-0",
    "libselinux1",
    "libssl3",
    "libsystemd0",
    "libtinfo6",
    "libtirpc3",
    "libudev1",
    "liburing2",
    "libwrap0",
    "libx11-6",
    "libxau6",
    "libxcb1",
    "libxdmcp6",
    "libxext6",
    "libxmuu1",
    "libzstd1",
    "ncurses-base",
    "openssh-client",
    "openssh-server",
    "openssh-sftp-server",
    "qemu-guest-agent",
    "xauth",
    "zlib1g",
];

/// Programs to take along, where the packages have them. All end in the same place, under `/usr`.
const PROGRAMS: &[&str] = &[
    "bin/bash",
    "bin/busybox",
    "usr/bin/scp",
    "usr/bin/sftp",
    "usr/bin/ssh",
    "usr/bin/ssh-add",
    "usr/bin/ssh-agent",
    "usr/bin/ssh-keygen",
    "usr/bin/xauth",
    "usr/lib/openssh/sftp-server",
    "usr/sbin/qemu-ga",
    "usr/sbin/sshd",
];

/// Where libraries of the packages are.
const LIBRARY_DIRS: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
pub(super) const LOADER: &str = "ld-linux-x86-64.so.2";

/// Writes the archive of the root directory to `tar`, using `scratch`, an empty directory.
pub(super) async fn packages(apt: &Apt, recipe: &Recipe, scratch: &Path, tar: &Path) -> Result<(), ImageError> {
    let debs = apt.download(recipe.packages(), &scratch.join("debs")).await?;
    let (unpacked, root) = (scratch.join("unpacked"), scratch.join("root"));
    for dir in [&unpacked, &root] {
        std::fs::create_dir_all(dir).on("create", dir)?;
    }
    unpack(&debs, &unpacked).await?;
    let applets = Tool::new("./bin/busybox", "busybox-static", "listing what busybox can do")
        .arg("--list-full")
        .current_dir(&unpacked)
        .limit(Duration::from_secs(20))
        .run()
        .await?;
    assemble(&unpacked, &root, &String::from_utf8_lossy(&applets))?;
    Tool::new("tar", "tar", "packing the userland")
        .args(["--create", "--sort=name", "--mode=go+rX", "--numeric-owner", "--owner=0", "--group=0", "--file"])
        .arg(tar)
        .arg("--directory")
        .arg(&root)
        .arg(".")
        .run()
        .await?;
    Ok(())
}

/// Unpacks packages over each other.
pub(super) async fn unpack(debs: &[PathBuf], into: &Path) -> Result<(), ImageError> {
    // One shell for all: starting dpkg-deb is most of the work.
    Tool::new("sh", "dash", "unpacking packages")
        .args(["-ec", "for deb in \"$@\"; do dpkg-deb -x \"$deb\" .; done", "sh"])
        .args(debs)
        .current_dir(into)
        .run()
        .await
        .map(|_| ())
}

fn assemble(unpacked: &Path, root: &Path, applets: &str) -> Result<(), ImageError> {
    const DIRS: [&str; 17] = [
        "dev",
        "etc",
        "home",
        "mnt",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "var/empty",
        "var/log",
        "usr/bin",
        "usr/sbin",
        "usr/lib/boxpool",
        "usr/lib/openssh",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib64",
    ];
    for dir in DIRS {
        let dir = root.join(dir);
        std::fs::create_dir_all(&dir).on("create", &dir)?;
    }
    mode(&root.join("root"), 0o700)?;
    mode(&root.join("tmp"), 0o1777)?;
    for name in ["bin", "sbin", "lib", "lib64"] {
        link(&format!("usr/{name}"), &root.join(name))?;
    }
    link("/run", &root.join("var/run"))?;
    link("/usr/bin/busybox", &root.join("usr/lib/boxpool/busybox"))?;
    link("/proc/self/mounts", &root.join("etc/mtab"))?;

    let mut wanted = BTreeSet::from([LOADER.to_owned()]);
    for program in PROGRAMS {
        let place = if program.starts_with("usr/") { (*program).to_owned() } else { format!("usr/{program}") };
        wanted.extend(take(&unpacked.join(program), &root.join(place))?);
    }
    take_libraries(unpacked, &root.join("usr/lib/x86_64-linux-gnu"), wanted)?;
    link(&format!("/usr/lib/x86_64-linux-gnu/{LOADER}"), &root.join("usr/lib64").join(LOADER))?;
    copy_tree(&unpacked.join("lib/terminfo"), &root.join("usr/lib/terminfo"))?;

    for applet in applets.lines() {
        let place = root.join("usr").join(applet.trim_start_matches("usr/"));
        // busybox has no say where a real program was taken along, nor outside the usual places.
        let usual = place.parent().is_some_and(|dir| dir.ends_with("usr/bin") || dir.ends_with("usr/sbin"));
        if usual && place.symlink_metadata().is_err() {
            link("/usr/bin/busybox", &place)?;
        }
    }
    link("/usr/bin/busybox", &root.join("usr/sbin/init")).or_else(|error| match error {
        ImageError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        error => Err(error),
    })
}

/// Copies libraries and the libraries these need into one directory.
pub(super) fn take_libraries(unpacked: &Path, to: &Path, mut wanted: BTreeSet<String>) -> Result<(), ImageError> {
    let mut places: BTreeMap<String, PathBuf> = BTreeMap::new();
    for dir in LIBRARY_DIRS {
        let dir = unpacked.join(dir);
        for entry in std::fs::read_dir(&dir).on("list", &dir)? {
            let entry = entry.on("list", &dir)?;
            places.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
        }
    }
    let mut taken = BTreeSet::new();
    while let Some(name) = wanted.pop_first() {
        if !taken.insert(name.clone()) {
            continue;
        }
        let Some(place) = places.get(&name) else {
            return Err(ImageError::unexpected(name, "is needed by a program and in none of the packages"));
        };
        wanted.extend(take(place, &to.join(&name))?);
    }
    Ok(())
}

/// Copies one program or library (through links) and returns the names of the libraries it needs.
pub(super) fn take(from: &Path, to: &Path) -> Result<Vec<String>, ImageError> {
    let content = std::fs::read(from).on("read", from)?;
    let needed =
        elf::needed(&content).ok_or_else(|| ImageError::unexpected(from.display().to_string(), "is not an ELF"))?;
    std::fs::write(to, content).on("write", to)?;
    mode(to, 0o755)?;
    Ok(needed)
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), ImageError> {
    std::fs::create_dir_all(to).on("create", to)?;
    for entry in std::fs::read_dir(from).on("list", from)? {
        let entry = entry.on("list", from)?;
        let place = to.join(entry.file_name());
        if entry.file_type().on("inspect", &entry.path())?.is_dir() {
            copy_tree(&entry.path(), &place)?;
        } else {
            // Links become copies: there are a few small ones.
            std::fs::copy(entry.path(), &place).on("copy", &entry.path())?;
        }
    }
    Ok(())
}

fn link(to: &str, at: &Path) -> Result<(), ImageError> {
    symlink(to, at).on("link", at)
}

fn mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).on("set the mode of", path)
}
