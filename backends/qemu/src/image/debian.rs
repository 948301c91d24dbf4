//! The Debian userland: a whole Debian 12 from mmdebstrap.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::getuid;

use super::apt::blame_mirror;
use super::error::ImageError;
use super::recipe::{Recipe, SUITE};
use super::tool::Tool;

pub(super) const PACKAGES: &[&str] = &[
    "bash",
    "bash-completion",
    "busybox-static",
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "less",
    "libpam-modules",
    "nano",
    "ncurses-term",
    "openssh-client",
    "openssh-server",
    "openssh-sftp-server",
    "procps",
    "qemu-guest-agent",
    "rsync",
    "sudo",
    "systemd-sysv",
    "tmux",
    "wget",
    "xauth",
];

/// Writes the archive of all packages, installed, to `tar`.
pub(super) async fn packages(recipe: &Recipe, tar: &Path) -> Result<(), ImageError> {
    let mut tool = Tool::new("mmdebstrap", "mmdebstrap", "installing packages")
        .arg(if getuid().is_root() { "--mode=root" } else { "--mode=unshare" })
        .args(["--variant=minbase", "--architectures=amd64", "--format=tar"])
        .arg(format!("--include={}", recipe.packages().join(",")))
        .args(["--aptopt=Apt::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\""])
        .args(
            ["man", "doc", "locale", "info", "lintian"].map(|dir| format!("--dpkgopt=path-exclude=/usr/share/{dir}/*")),
        )
        // The tree is an intermediate; a crash means starting over, not repairing it.
        .arg("--dpkgopt=force-unsafe-io")
        .arg(SUITE)
        .arg(tar)
        .args(recipe.sources().lines())
        .limit(Duration::from_secs(1800));
    // Root builds next to the result. The subordinate users of anyone else might not reach into that directory.
    if getuid().is_root()
        && let Some(dir) = tar.parent()
    {
        tool = tool.env("TMPDIR", dir);
    }
    tool.run().await.map_err(|error| blame_mirror(&recipe.mirror, error))?;
    Ok(())
}

/// What `/etc/subuid` must have for a plain user.
pub(super) fn check_subordinate_ids() -> Result<(), ImageError> {
    let uid = getuid();
    if uid.is_root() {
        return Ok(());
    }
    let number = uid.as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    let user = name.unwrap_or_else(|| number.clone());
    let has_range = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|line| line.split(':').next()).any(|owner| owner == user || owner == number)
    };
    if has_range("/etc/subuid") && has_range("/etc/subgid") {
        Ok(())
    } else {
        Err(ImageError::NoSubordinateIds { user })
    }
}

/// A shell that is root over the ids of the packages' files: the true one, or one of a user namespace.
pub(super) fn root_shell(doing: &'static str) -> Tool {
    if getuid().is_root() {
        Tool::new("sh", "dash", doing)
    } else {
        Tool::new("unshare", "util-linux", doing).args(["--map-auto", "--map-root-user", "sh"])
    }
}

/// Directories of the work that a namespace's root must be able to write and we must be able to delete.
pub(super) async fn delete_tree(tree: &Path) -> Result<(), ImageError> {
    // What only we have written needs no namespace, and so no subordinate ids.
    if !tree.exists() || tokio::fs::remove_dir_all(tree).await.is_ok() {
        return Ok(());
    }
    let tree: PathBuf = tree.to_owned();
    root_shell("deleting the unpacked packages").args(["-c", "rm -rf \"$1\"", "sh"]).arg(tree).run().await.map(|_| ())
}
