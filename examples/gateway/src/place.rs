//! The state directory: made with mode 0700, and checked before anything is put there.

use boxpool::{Error, ErrorKind, Result};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where one gateway, or several on one machine, keep their things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// Makes the directory if it is not there, and checks that it can be written.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn ensure(path: &Path) -> Result<Self> {
        let fail = |what: &str, error: std::io::Error| {
            let detail = format!("the state directory {} {what}: {error}", path.display());
            Error::new(ErrorKind::Permanent, "open state directory", path.display()).with_detail(detail)
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| fail("cannot be made", error))?;
        let path = fs::canonicalize(path).map_err(|error| fail("cannot be found", error))?;
        let probe = path.join(format!(".write-probe-{}", std::process::id()));
        fs::write(&probe, b"")
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|error| fail("cannot be written", error))?;
        Ok(Self(path))
    }

    /// The directory as it is, without making or checking it.
    #[must_use]
    pub fn existing(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file or directory in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_directory_is_made_for_its_owner_only_and_a_file_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        Place::ensure(&path).unwrap();
        Place::ensure(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        fs::write(dir.path().join("file"), "x").unwrap();
        let error = Place::ensure(&dir.path().join("file/below")).unwrap_err();
        assert!(error.detail().contains("state directory"), "{error}");
    }
}
