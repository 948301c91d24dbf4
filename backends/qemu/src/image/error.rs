//! Why an image could not be built, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boxpool::ErrorKind;

/// A failed build. What was finished stays in the directory, and the next call continues from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A program or file that the build needs is not installed.
    #[error("{tool} is missing: install it with `apt-get install {package}`")]
    MissingTool {
        /// The program, or the path of the file.
        tool: String,
        /// The Debian or Ubuntu package that has it.
        package: &'static str,
    },
    /// Not enough free disk space.
    #[error("{} has {free} bytes free and the build needs {needed}: free {} more", path.display(), needed - free)]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// Free for this user.
        free: u64,
        /// The most the build will use there at one time.
        needed: u64,
    },
    /// The package mirror did not answer, or not with what was asked.
    #[error("packages could not be fetched from {mirror}; check the network or name another mirror: {last_lines}")]
    MirrorUnreachable {
        /// The mirror of the recipe.
        mirror: String,
        /// The end of what the tool said.
        last_lines: String,
    },
    /// A cloud image could not be fetched.
    #[error(
        "{url} could not be fetched; check the network, or fetch it elsewhere and name the file as the image: {last_lines}"
    )]
    Download {
        /// The image, or the list of sums beside it.
        url: String,
        /// The end of what the tool said.
        last_lines: String,
    },
    /// A cloud image is not the one that was meant, or arrived damaged.
    #[error("{what} has sha256 {found} and not {wanted}: {advice}")]
    Checksum {
        /// The image.
        what: String,
        /// The sum it has.
        found: String,
        /// The sum it should have.
        wanted: String,
        /// What was done, and what to do.
        advice: &'static str,
    },
    /// A cloud image that no box can be made of.
    #[error("{image}: {flaw}")]
    Unusable {
        /// The image.
        image: String,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A user that is not root and has no range of subordinate user ids.
    #[error(
        "user {user} has no subordinate ids, which the Debian image needs: run `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` as root, or build as root"
    )]
    NoSubordinateIds {
        /// The user's name or number.
        user: String,
    },
    /// The recipe cannot be built as it is.
    #[error("recipe: {reason}")]
    InvalidRecipe {
        /// Which rule it breaks.
        reason: String,
    },
    /// The directory holds the image of another recipe. It may be in use, so it is left alone.
    #[error("{} holds image {found}, not {wanted}: choose another directory or delete it", path.display())]
    OtherImage {
        /// The directory.
        path: PathBuf,
        /// Digest of the image there.
        found: String,
        /// Digest of the recipe.
        wanted: String,
    },
    /// A program failed.
    #[error("{tool} failed ({status}) {doing}: {last_lines}")]
    Tool {
        /// The program.
        tool: String,
        /// What it was asked to do.
        doing: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it said.
        last_lines: String,
    },
    /// A wait reached its limit.
    #[error("{doing} did not end within {limit:?}")]
    TimedOut {
        /// What was waited for.
        doing: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// A fetched package does not hold what it should.
    #[error("{what}: {problem}")]
    Unexpected {
        /// The file or package.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What keeps a cloud image from being made into a box.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// Neither a qcow2 nor a raw disk.
    #[error("is no disk image but {found}: name a qcow2 or a raw disk")]
    NotAnImage {
        /// What it seems to be.
        found: String,
    },
    /// A qcow2 that only says how it differs from another file, which could be any file of this machine.
    #[error("takes its content from another file ({file}): flatten it with `qemu-img convert` first")]
    NotWhole {
        /// That file.
        file: String,
    },
    /// No partition has an ext4 file system with a distribution in it.
    #[error("has no ext4 root file system (found: {found}): name an image with one, such as Ubuntu's or Debian's")]
    NoRoot {
        /// What its partitions hold.
        found: String,
    },
    /// Made for other processors.
    #[error("is made for {found}, and boxes need x86_64: name the edition for amd64")]
    Architecture {
        /// Which.
        found: String,
    },
    /// No kernel whose modules are there as well.
    #[error(
        "has no kernel (a /boot/vmlinuz-RELEASE with /lib/modules/RELEASE): name an edition with one, not one for containers"
    )]
    NoKernel,
    /// Its kernel cannot do what boxes need.
    #[error("its kernel {release} has no {driver}, needed for {purpose}: name an image with another kernel")]
    KernelLacks {
        /// The kernel.
        release: String,
        /// The module.
        driver: &'static str,
        /// What for.
        purpose: &'static str,
    },
    /// Something that is not put in by the build is missing.
    #[error("has no {what}, so nobody could enter it: name an image with one, such as Ubuntu's or Debian's")]
    Lacks {
        /// The package or program.
        what: &'static str,
    },
    /// It does not fit in the disk.
    #[error("its file system has {needed} bytes and the disk only {disk}: make the disk larger")]
    TooLarge {
        /// Bytes of its file system.
        needed: u64,
        /// Bytes of the disk.
        disk: u64,
    },
}

/// Adds the operation and the path to an [`io::Result`].
pub(super) trait IoContext<T> {
    fn on(self, operation: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn on(self, operation: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Io { operation, path: path.to_owned(), source })
    }
}

impl ImageError {
    /// What a caller can do about it, in the library's own terms.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            ImageError::MissingTool { .. } => ErrorKind::NotFound,
            ImageError::DiskFull { .. } => ErrorKind::NoCapacity,
            ImageError::MirrorUnreachable { .. } | ImageError::Download { .. } => ErrorKind::Unavailable,
            ImageError::Checksum { .. } => ErrorKind::Corrupt,
            ImageError::Unusable { .. } => ErrorKind::Invalid,
            ImageError::NoSubordinateIds { .. } => ErrorKind::Unauthorized,
            ImageError::InvalidRecipe { .. } => ErrorKind::Invalid,
            ImageError::OtherImage { .. } => ErrorKind::AlreadyExists,
            ImageError::TimedOut { .. } => ErrorKind::TimedOut,
            ImageError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            ImageError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => ErrorKind::NoCapacity,
            ImageError::Tool { .. } | ImageError::Unexpected { .. } | ImageError::Io { .. } => ErrorKind::Permanent,
        }
    }

    pub(super) fn unexpected(what: impl Into<String>, problem: impl Into<String>) -> Self {
        ImageError::Unexpected { what: what.into(), problem: problem.into() }
    }
}

impl From<ImageError> for boxpool::Error {
    fn from(error: ImageError) -> Self {
        let detail = error.to_string();
        boxpool::Error::new(error.kind(), "build image", "recipe").with_detail(detail).with_source(error)
    }
}
