//! Turns an archive of a root directory into a disk, without mounting anything.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::getuid;

use super::debian::{delete_tree, root_shell};
use super::error::{ImageError, IoContext};
use super::guest::{self, GuestFile};
use super::recipe::{Kind, Recipe};
use super::tool::Tool;

/// Unpacks, lays the builder's own files over it, and lets `mke2fs` copy the tree into a file system.
/// The inode tables are finished here, where zeros are holes, and not by every guest in its first minutes.
/// `$1` archive, `$2` overlay, `$3` tree, `$4` file of the file system, `$5` its KiB, `$6` customise script or nothing.
const MAKE: &str = r#"set -eu
mkdir -m 0755 "$3"
tar -C "$3" --numeric-owner --exclude='./dev/*' -xpf "$1"
cp -a --no-preserve=ownership "$2/." "$3/"
[ -z "$6" ] || sh "$6" "$3"
mke2fs -q -F -t ext4 -d "$3" -L boxroot -m 0 -E root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0 "$4" "${5}k"
"#;

/// Writes the disk of `recipe` to `qcow2` out of the packages in `tar`; `scratch` is an empty directory.
pub(super) async fn make(recipe: &Recipe, tar: &Path, scratch: &Path, qcow2: &Path) -> Result<(), ImageError> {
    let (overlay, tree, raw) = (scratch.join("overlay"), scratch.join("tree"), scratch.join("disk.raw"));
    let files = guest::files(recipe);
    lay_out(&files, &overlay)?;
    let customise = match recipe.kind {
        Kind::Debian => {
            let script = scratch.join("customise");
            std::fs::write(&script, guest::CUSTOMISE).on("write", &script)?;
            script
        }
        Kind::Tiny | Kind::Cloud(_) => PathBuf::new(),
    };
    let shell = match recipe.kind {
        Kind::Debian => root_shell("making the file system"),
        // Its files all belong to root, which is set right below; no namespace is needed.
        Kind::Tiny | Kind::Cloud(_) => Tool::new("sh", "dash", "making the file system"),
    };
    shell
        .args(["-c", MAKE, "sh"])
        .args([tar, &overlay, &tree, &raw])
        .arg((recipe.disk_bytes / 1024).to_string())
        .arg(customise)
        .limit(Duration::from_secs(600))
        .run()
        .await?;
    match recipe.kind {
        Kind::Tiny if !getuid().is_root() => own_by_root(&tree, &raw, scratch).await?,
        _ => {}
    }
    Tool::new("qemu-img", "qemu-utils", "converting the disk")
        .args(["convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "lazy_refcounts=off,cluster_size=65536"])
        .args([&raw, qcow2])
        .limit(Duration::from_secs(300))
        .run()
        .await?;
    delete_tree(&tree).await
}

fn lay_out(files: &[GuestFile], overlay: &Path) -> Result<(), ImageError> {
    for file in files {
        let path = overlay.join(&file.path);
        for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(overlay)) {
            if !dir.exists() {
                std::fs::create_dir_all(dir).on("create", dir)?;
            }
            // Copied onto the directories of the packages: not to depend on our umask.
            let mode = if dir == overlay.join("root") { 0o700 } else { 0o755 };
            std::fs::set_permissions(dir, Permissions::from_mode(mode)).on("set the mode of", dir)?;
        }
        std::fs::write(&path, &file.text).on("write", &path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(file.mode)).on("set the mode of", &path)?;
    }
    Ok(())
}

/// Gives every file of the file system to root, when it was made of files of ours.
async fn own_by_root(tree: &Path, raw: &Path, scratch: &Path) -> Result<(), ImageError> {
    let mut commands = String::new();
    list(tree, "", &mut commands)?;
    let script = scratch.join("owners");
    std::fs::write(&script, commands).on("write", &script)?;
    Tool::new("debugfs", "e2fsprogs", "setting the owner of files")
        .arg("-w")
        .arg("-f")
        .args([&script, raw])
        .run()
        .await
        .map(|_| ())
}

fn list(dir: &Path, inside: &str, commands: &mut String) -> Result<(), ImageError> {
    for entry in std::fs::read_dir(dir).on("list", dir)? {
        let entry = entry.on("list", dir)?;
        let path = format!("{inside}/{}", entry.file_name().to_string_lossy());
        for field in ["uid", "gid"] {
            let _ = writeln!(commands, "sif \"{path}\" {field} 0");
        }
        if entry.file_type().on("inspect", &entry.path())?.is_dir() {
            list(&entry.path(), &path, commands)?;
        }
    }
    Ok(())
}
