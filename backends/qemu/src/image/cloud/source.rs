//! Where a cloud image comes from, and how it is known to be the right one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::error::{ImageError, IoContext};

/// Ubuntu 24.04's own image, small edition.
const UBUNTU: &str =
    "https://cloud-images.ubuntu.com/minimal/releases/noble/release/ubuntu-24.04-minimal-cloudimg-amd64.img";

/// Publishes sums beside its images.
const UBUNTU_SERVER: &str = "https://cloud-images.ubuntu.com/";

/// A distribution's disk image for clouds: qcow2 or raw, with an ext4 root, systemd and OpenSSH; Ubuntu's and Debian's are such.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CloudImage {
    pub(super) place: Place,
    pub(super) check: Check,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Url(String),
    File {
        path: PathBuf,
        /// Bytes and time of last change. A hash of a gigabyte at every start of a program would cost seconds; whoever
        /// wants to be sure names the sum.
        stamp: Stamp,
    },
}

/// Tells a file from another that was put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    size: u64,
    changed: (i64, i64),
}

/// How it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Check {
    None,
    /// 64 lower-case hex digits.
    Sha256(String),
    /// Against the file `SHA256SUMS` in the same directory.
    SumsBeside,
}

impl CloudImage {
    /// The image at `place`, an `https://` or `http://` URL or the absolute path of a file. If `sha256` is given, the image
    /// must have it; images of Ubuntu's server are checked against the sums published there in any case.
    ///
    /// A file is looked at here, and its size and time become part of the recipe; a URL is not asked yet.
    ///
    /// # Errors
    /// If `place` is neither, the sum is none, or the file cannot be found.
    pub fn new(place: &str, sha256: Option<&str>) -> Result<Self, ImageError> {
        let refuse = |reason: String| Err(ImageError::InvalidRecipe { reason });
        if let Some(sum) = sha256.filter(|sum| !is_sha256(sum)) {
            return refuse(format!("{sum} is no sha256: that has 64 hex digits"));
        }
        let sum = sha256.map(str::to_ascii_lowercase);
        if ["https://", "http://"].iter().any(|scheme| place.starts_with(scheme)) {
            if place.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return refuse("the image's URL has white space in it".to_owned());
            }
            let check = match sum {
                Some(sum) => Check::Sha256(sum),
                None if place.starts_with(UBUNTU_SERVER) => Check::SumsBeside,
                None => Check::None,
            };
            return Ok(Self { place: Place::Url(place.to_owned()), check });
        }
        let path = PathBuf::from(place);
        if !path.is_absolute() {
            return refuse(format!("the image {place} is neither an https:// or http:// URL nor an absolute path"));
        }
        let check = sum.map_or(Check::None, Check::Sha256);
        let stamp = match &check {
            // The sum says it all, also when the file is gone.
            Check::Sha256(_) => Stamp { size: 0, changed: (0, 0) },
            _ => stamp(&path)?,
        };
        Ok(Self { place: Place::File { path, stamp }, check })
    }

    /// Ubuntu's current one, small edition.
    ///
    /// # Errors
    /// If the sum is none.
    pub fn ubuntu(sha256: Option<&str>) -> Result<Self, ImageError> {
        Self::new(UBUNTU, sha256)
    }

    /// What tells this image from others, for a digest.
    pub(in super::super) fn identity(&self) -> String {
        match (&self.check, &self.place) {
            (Check::Sha256(sum), _) => format!("sha256 {sum}"),
            (_, Place::Url(url)) => format!("url {url}"),
            (_, Place::File { path, stamp }) => format!("file {} {stamp:?}", path.display()),
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match &self.place {
            Place::Url(url) => url.clone(),
            Place::File { path, .. } => path.display().to_string(),
        }
    }
}

pub(super) fn stamp(path: &Path) -> Result<Stamp, ImageError> {
    let data = path.metadata().on("find the image", path)?;
    if !data.is_file() {
        return Err(ImageError::InvalidRecipe { reason: format!("the image {} is not a file", path.display()) });
    }
    Ok(Stamp { size: data.len(), changed: (data.mtime(), data.mtime_nsec()) })
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";

    #[test]
    fn ubuntus_images_are_checked_against_the_sums_beside_them() {
        assert_eq!(CloudImage::ubuntu(None).unwrap().check, Check::SumsBeside);
        assert_eq!(CloudImage::new("http://mirror.example/x.img", None).unwrap().check, Check::None);
        let checked = CloudImage::new(UBUNTU, Some(SUM)).unwrap();
        assert_eq!(checked.check, Check::Sha256(SUM.to_ascii_lowercase()));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        for (place, sum) in
            [("x.img", None), ("ftp://x/y", None), ("https://x/ y", None), (UBUNTU, Some("12")), ("/", None)]
        {
            let error = CloudImage::new(place, sum).unwrap_err();
            assert!(matches!(error, ImageError::InvalidRecipe { .. }), "{place}: {error}");
        }
        let error = CloudImage::new("/no/such/image", None).unwrap_err();
        assert!(error.to_string().contains("find the image /no/such/image"), "{error}");
    }

    #[test]
    fn another_file_at_the_same_path_is_another_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, "one").unwrap();
        let name = path.to_str().unwrap();
        let (first, summed) = (CloudImage::new(name, None).unwrap(), CloudImage::new(name, Some(SUM)).unwrap());
        std::fs::write(&path, "another").unwrap();
        assert_ne!(CloudImage::new(name, None).unwrap().identity(), first.identity());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(CloudImage::new(name, Some(SUM)).unwrap().identity(), summed.identity());
        assert_eq!(CloudImage::new("https://elsewhere/", Some(SUM)).unwrap().identity(), summed.identity());
    }
}
