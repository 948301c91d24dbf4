//! Files that are either whole or absent, also after the machine lost power.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::error::{ImageError, IoContext};

/// A name to write `target` under; [`finish`] gives it its own. What a killed build left behind under such a name
/// is removed by [`sweep`].
pub(super) fn partial(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    // A tool that outlived its killed build must not write into the file of the next one.
    name.push(format!(".{}.partial", std::process::id()));
    PathBuf::from(name)
}

/// Makes the whole file or directory `partial` appear as `target`.
pub(super) fn finish(partial: &Path, target: &Path) -> Result<(), ImageError> {
    if partial.is_dir() {
        for entry in std::fs::read_dir(partial).on("list", partial)? {
            sync(&entry.on("list", partial)?.path())?;
        }
    }
    sync(partial)?;
    std::fs::rename(partial, target).on("finish", target)?;
    sync_parent(target)
}

/// Writes a small file that is whole or absent.
pub(super) fn write(target: &Path, content: &[u8]) -> Result<(), ImageError> {
    let partial = partial(target);
    std::fs::write(&partial, content).on("write", &partial)?;
    finish(&partial, target)
}

/// Gives a finished file a second name, replacing whatever had it.
pub(super) fn publish(from: &Path, to: &Path) -> Result<(), ImageError> {
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).on("replace", to),
        _ => {}
    }
    std::fs::hard_link(from, to).on("publish", to)?;
    sync_parent(to)
}

/// Removes what killed builds left half written. Only for the holder of the directory's lock.
pub(super) fn sweep(dir: &Path) -> Result<(), ImageError> {
    for entry in std::fs::read_dir(dir).on("list", dir)? {
        let path = entry.on("list", dir)?.path();
        if path.extension().is_some_and(|extension| extension == "partial") {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.on("delete", &path)?;
        }
    }
    Ok(())
}

/// Bytes that are free for this user where `path` is.
pub(super) fn free(path: &Path) -> Result<u64, ImageError> {
    let space = rustix::fs::statvfs(path).map_err(std::io::Error::from).on("inspect", path)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Bytes in a file or in all files below a directory, as far as they can be seen now.
pub(super) fn size(path: &Path) -> u64 {
    let Ok(data) = path.symlink_metadata() else { return 0 };
    if !data.is_dir() {
        return data.len();
    }
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| size(&entry.path())).sum()
}

fn sync(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|file| file.sync_all()).on("sync", path)
}

fn sync_parent(path: &Path) -> Result<(), ImageError> {
    match path.parent() {
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}
