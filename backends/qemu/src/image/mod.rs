//! Builds bootable guest images out of Debian packages, or of a distribution's cloud image.
//!
//! [`make`] leaves three files in a directory: `disk.qcow2`, `vmlinux` and `initrd.cpio`, and beside them `image.json`,
//! which is written last. A directory with a fitting `image.json` is finished; the next call returns at once.
//!
//! If the process dies here, the phases that were finished ([`Phase`]) are kept in `parts/` under names that carry what
//! they depend on, and the next call continues after them. What was half written has a name ending in `.partial` and
//! is thrown away, except a cloud image's download, which is continued. A file lock keeps two builds out of one directory: the second waits, and finds the image finished.
//!
//! No privileges are needed: nothing is mounted and no program of the guest runs on the host as root, except that
//! installing Debian's packages runs their scripts in a chroot, as root or in a user namespace.

mod apt;
mod boot;
mod cloud;
mod debian;
mod disk;
mod elf;
mod error;
mod files;
mod guest;
mod initramfs;
mod kernel;
mod progress;
mod recipe;
mod tiny;
mod tool;

use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use cloud::CloudImage;
pub use error::{Flaw, ImageError};
pub use progress::{Phase, PhaseState, Progress};
pub use recipe::{Kind, Recipe};

use boxpool::ErrorKind;

use crate::golden;
use crate::host::{Command, Host};
use apt::Apt;
use error::IoContext;

const MANIFEST: &str = "image.json";
const DISK: &str = "disk.qcow2";
/// How long to wait for another build in the same directory.
const LOCK_LIMIT: Duration = Duration::from_secs(3600);
/// How often a running phase is reported.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// A finished image. Its files are never changed again, so disks may be layered over it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// The directory of its files.
    pub dir: PathBuf,
    /// Digest of the recipe it was built from.
    pub digest: String,
    /// Release of its kernel, as `uname -r` says it.
    pub kernel_release: String,
    /// The user to log in as.
    pub login: String,
    /// The size of its disk as the guest sees it.
    pub disk_bytes: u64,
}

impl Image {
    /// The image in `dir`, if there is a finished one.
    ///
    /// # Errors
    /// If the directory cannot be read, or its files are not those that were built.
    pub fn open(dir: &Path) -> Result<Option<Image>, ImageError> {
        let path = dir.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.on("read", &path)?,
        };
        let damaged = |problem: String| ImageError::unexpected(path.display().to_string(), problem);
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        for (name, size) in manifest.sizes() {
            let file = dir.join(name);
            let found = file.metadata().on("inspect", &file)?.len();
            if found != size {
                return Err(damaged(format!("{name} has {found} bytes instead of {size}: delete the directory")));
            }
        }
        Ok(Some(Image {
            dir: dir.to_owned(),
            digest: manifest.digest,
            kernel_release: manifest.kernel_release,
            login: manifest.login,
            disk_bytes: manifest.disk_bytes,
        }))
    }

    /// The disk, a qcow2 without a backing file.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.join(DISK)
    }

    /// The kernel: an ELF, or a bzImage if it is a cloud image's own.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join(boot::VMLINUX)
    }

    /// The initramfs.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.dir.join(boot::INITRD)
    }
}

/// `image.json`.
#[derive(Serialize, Deserialize)]
struct Manifest {
    digest: String,
    kernel_release: String,
    login: String,
    disk_bytes: u64,
    disk_file_bytes: u64,
    kernel_file_bytes: u64,
    initrd_file_bytes: u64,
}

impl Manifest {
    fn sizes(&self) -> [(&'static str, u64); 3] {
        [(DISK, self.disk_file_bytes), (boot::VMLINUX, self.kernel_file_bytes), (boot::INITRD, self.initrd_file_bytes)]
    }
}

/// Makes the image of `recipe` in `dir`, or finds it there.
///
/// May be called again after any failure, also by another process, and continues after the last finished phase.
/// Dropping the future ends the programs it started.
///
/// # Errors
/// [`ImageError`] says what to install, to free or to change.
pub async fn make(recipe: &Recipe, dir: &Path, progress: &(dyn Fn(Progress) + Sync)) -> Result<Image, ImageError> {
    recipe.check()?;
    std::fs::create_dir_all(dir).on("create", dir)?;
    let dir = &dir.canonicalize().on("find", dir)?;
    let _lock = lock(dir).await?;
    let digest = recipe.digest();
    match Image::open(dir)? {
        Some(image) if image.digest == digest => return Ok(image),
        Some(image) => {
            return Err(ImageError::OtherImage { path: dir.clone(), found: image.digest, wanted: digest });
        }
        None => {}
    }
    let work = Work::prepare(recipe, dir, progress)?;
    work.packages_and_kernel().await?;
    let disk = work.disk(&digest).await?;
    work.publish(&disk, digest)?;
    Image::open(dir)?.ok_or_else(|| ImageError::unexpected(dir.display().to_string(), "the image vanished"))
}

/// [`make`] as a step of building a golden snapshot.
///
/// The work is done on this machine, so `host` must see the same files: that is asked first.
pub(crate) async fn build(
    host: &dyn Host,
    recipe: &Recipe,
    folder: &Path,
    progress: &(dyn Fn(golden::Progress) + Send + Sync),
) -> boxpool::Result<()> {
    let failed = |error: ImageError| {
        boxpool::Error::new(error.kind(), "build image", folder.display())
            .with_detail(error.to_string())
            .with_source(error)
    };
    recipe.check().map_err(failed)?;
    std::fs::create_dir_all(folder).on("create", folder).map_err(failed)?;
    let mark = folder.join(format!("seen-from-{}", std::process::id()));
    std::fs::write(&mark, "").on("write", &mark).map_err(failed)?;
    let seen = host.run(Command::new("test").arg("-f").arg(&mark)).await;
    std::fs::remove_file(&mark).on("delete", &mark).map_err(failed)?;
    if !seen?.success {
        let detail =
            "images are built on this machine, and the host does not see its files: build there, or share the folder";
        return Err(boxpool::Error::new(ErrorKind::Invalid, "build image", folder.display()).with_detail(detail));
    }
    let report = |report: Progress| progress(golden::Progress::new(report.phase.name(), report.to_string()));
    make(recipe, folder, &report).await.map(|_| ()).map_err(failed)
}

/// One call of [`make`] in a locked directory.
struct Work<'a> {
    recipe: &'a Recipe,
    dir: &'a Path,
    parts: PathBuf,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Work<'a> {
    fn prepare(recipe: &'a Recipe, dir: &'a Path, progress: &'a (dyn Fn(Progress) + Sync)) -> Result<Self, ImageError> {
        check_host(recipe, dir)?;
        let parts = dir.join("parts");
        std::fs::create_dir_all(&parts).on("create", &parts)?;
        files::sweep(&parts)?;
        files::sweep(dir)?;
        let work = Work { recipe, dir, parts, progress };
        let (path, needed) = (dir.to_owned(), space_needed(recipe));
        // What an earlier call finished has been paid for.
        let free = files::free(dir)?;
        if free.saturating_add(files::size(&work.parts)) < needed {
            return Err(ImageError::DiskFull { path, free, needed });
        }
        Ok(work)
    }

    fn packages_file(&self) -> PathBuf {
        self.parts.join(format!("packages-{}.tar", &self.recipe.packages_digest()[..16]))
    }

    fn kernel_dir(&self) -> PathBuf {
        self.parts.join(format!("kernel-{}", &recipe::kernel_digest(&self.recipe.kind)[..16]))
    }

    fn image_file(&self, image: &CloudImage) -> PathBuf {
        self.parts.join(format!("image-{}.img", &recipe::image_digest(image)[..16]))
    }

    /// Root file system, kernel and modules of a cloud image.
    fn unpacked_dir(&self, image: &CloudImage) -> PathBuf {
        self.parts.join(format!("unpacked-{}", &recipe::image_digest(image)[..16]))
    }

    async fn packages_and_kernel(&self) -> Result<(), ImageError> {
        let (tar, kernel) = (self.packages_file(), self.kernel_dir());
        if tar.exists() && kernel.exists() {
            self.report(Phase::Packages, PhaseState::Reused, &tar, Instant::now());
            self.report(Phase::Kernel, PhaseState::Reused, &kernel, Instant::now());
            return Ok(());
        }
        let apt = async || {
            let root = self.parts.join("apt");
            self.scratch(&root).await?;
            Apt::update(root, self.recipe).await
        };
        match &self.recipe.kind {
            Kind::Tiny => {
                let apt = apt().await?;
                let scratch = self.parts.join("packages.work");
                tokio::try_join!(
                    self.phase(Phase::Packages, &tar, async |partial| {
                        self.scratch(&scratch).await?;
                        tiny::packages(&apt, self.recipe, &scratch, partial).await
                    }),
                    self.kernel(&kernel, async || Ok(&apt)),
                )?;
            }
            Kind::Debian => {
                tokio::try_join!(
                    self.phase(Phase::Packages, &tar, async |partial| debian::packages(self.recipe, partial).await),
                    async {
                        let apt = apt().await?;
                        self.kernel(&kernel, async || Ok(&apt)).await
                    },
                )?;
            }
            Kind::Cloud(image) => {
                let unpacked = self.unpacked_dir(image);
                tokio::try_join!(
                    self.phase(Phase::Packages, &tar, async |partial| {
                        let scratch = self.parts.join("packages.work");
                        self.scratch(&scratch).await?;
                        cloud::make_tools(&apt().await?, &scratch, partial).await
                    }),
                    self.unpack(image, &unpacked),
                )?;
                self.phase(Phase::Kernel, &kernel, async |partial| cloud::make_boot(&unpacked, &tar, partial)).await?;
            }
        }
        Ok(())
    }

    /// Fetches a cloud image and takes out of it what is needed.
    async fn unpack(&self, image: &CloudImage, unpacked: &Path) -> Result<(), ImageError> {
        if unpacked.exists() {
            self.report(Phase::Unpack, PhaseState::Reused, unpacked, Instant::now());
            return Ok(());
        }
        let (file, start) = (self.image_file(image), Instant::now());
        if file.exists() {
            self.report(Phase::Image, PhaseState::Reused, &file, start);
        } else if image.is_remote() {
            let download = cloud::download_name(&file);
            self.reporting(Phase::Image, &download, start, image.fetch(&download)).await?;
            files::finish(&download, &file)?;
            self.report(Phase::Image, PhaseState::Finished, &file, start);
        }
        self.phase(Phase::Unpack, unpacked, async |partial| {
            let scratch = self.parts.join("unpack.work");
            self.scratch(&scratch).await?;
            image.unpack(&file, &scratch, partial).await?;
            self.scratch(&scratch).await
        })
        .await?;
        // What is needed of it has been taken out.
        if image.is_remote() {
            std::fs::remove_file(&file).on("delete", &file)?;
        }
        Ok(())
    }

    async fn kernel<'b>(
        &self,
        kernel: &Path,
        apt: impl AsyncFnOnce() -> Result<&'b Apt, ImageError>,
    ) -> Result<(), ImageError> {
        self.phase(Phase::Kernel, kernel, async |partial| {
            let scratch = self.parts.join("kernel.work");
            self.scratch(&scratch).await?;
            boot::make(apt().await?, &scratch, partial).await
        })
        .await
    }

    async fn disk(&self, digest: &str) -> Result<PathBuf, ImageError> {
        let disk = self.parts.join(format!("disk-{}.qcow2", &digest[..16]));
        self.phase(Phase::Disk, &disk, async |partial| {
            let scratch = self.parts.join("disk.work");
            self.scratch(&scratch).await?;
            let packages = self.packages_file();
            match &self.recipe.kind {
                Kind::Debian | Kind::Tiny => disk::make(self.recipe, &packages, &scratch, partial).await,
                Kind::Cloud(image) => {
                    let unpacked = self.unpacked_dir(image);
                    cloud::make_disk(image, self.recipe, &unpacked, &packages, &scratch, partial).await
                }
            }
        })
        .await?;
        Ok(disk)
    }

    /// Gives the finished parts their names, the manifest last, and removes what is no longer needed.
    fn publish(&self, disk: &Path, digest: String) -> Result<(), ImageError> {
        let kernel = self.kernel_dir();
        for name in [boot::VMLINUX, boot::INITRD] {
            files::publish(&kernel.join(name), &self.dir.join(name))?;
        }
        files::publish(disk, &self.dir.join(DISK))?;
        let release = kernel.join(boot::RELEASE);
        let manifest = Manifest {
            digest,
            kernel_release: std::fs::read_to_string(&release).on("read", &release)?,
            login: self.recipe.kind.login().to_owned(),
            disk_bytes: self.recipe.disk_bytes,
            disk_file_bytes: files::size(disk),
            kernel_file_bytes: files::size(&kernel.join(boot::VMLINUX)),
            initrd_file_bytes: files::size(&kernel.join(boot::INITRD)),
        };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| ImageError::unexpected(MANIFEST, error.to_string()))?;
        files::write(&self.dir.join(MANIFEST), &text)?;
        // The image is finished; a crash from here on leaves only litter in `parts`.
        std::fs::remove_dir_all(&self.parts).on("delete", &self.parts)
    }

    /// Runs `make` to produce `target` under a partial name, unless an earlier call has.
    async fn phase(
        &self,
        phase: Phase,
        target: &Path,
        make: impl AsyncFnOnce(&Path) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let start = Instant::now();
        if target.exists() {
            self.report(phase, PhaseState::Reused, target, start);
            return Ok(());
        }
        let partial = files::partial(target);
        self.reporting(phase, &partial, start, make(&partial)).await?;
        files::finish(&partial, target)?;
        self.report(phase, PhaseState::Finished, target, start);
        Ok(())
    }

    async fn reporting<T>(&self, phase: Phase, path: &Path, start: Instant, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut beat = tokio::time::interval(REPORT_EVERY);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beat.tick() => self.report(phase, PhaseState::Running, path, start),
            }
        }
    }

    fn report(&self, phase: Phase, state: PhaseState, path: &Path, start: Instant) {
        (self.progress)(Progress { phase, state, bytes: files::size(path), elapsed: start.elapsed() });
    }

    /// An empty directory at `path`, whatever a killed build left there.
    async fn scratch(&self, path: &Path) -> Result<(), ImageError> {
        debian::delete_tree(path).await?;
        std::fs::create_dir_all(path).on("create", path)
    }
}

fn check_host(recipe: &Recipe, dir: &Path) -> Result<(), ImageError> {
    let refuse = |reason: String| Err(ImageError::InvalidRecipe { reason });
    if std::env::consts::ARCH != "x86_64" {
        return refuse(format!("images are for x86_64 and cannot be built on {}", std::env::consts::ARCH));
    }
    if dir.to_str().is_none_or(|text| text.contains(['"', '\n'])) {
        return refuse(format!("the directory {} has characters in its name that apt cannot take", dir.display()));
    }
    let tools = [
        ("apt-get", "apt"),
        ("apt-cache", "apt"),
        ("dpkg-deb", "dpkg"),
        ("tar", "tar"),
        ("xz", "xz-utils"),
        ("mke2fs", "e2fsprogs"),
        ("debugfs", "e2fsprogs"),
        ("qemu-img", "qemu-utils"),
    ];
    tool::check_installed(&tools)?;
    if !Path::new(apt::KEYRING).exists() {
        return Err(ImageError::MissingTool { tool: apt::KEYRING.to_owned(), package: "debian-archive-keyring" });
    }
    if let Kind::Cloud(image) = &recipe.kind {
        tool::check_installed(&[("e2fsck", "e2fsprogs"), ("resize2fs", "e2fsprogs")])?;
        if image.is_remote() {
            tool::check_installed(&[("curl", "curl")])?;
        }
    }
    if recipe.kind == Kind::Debian {
        tool::check_installed(&[("mmdebstrap", "mmdebstrap")])?;
        if !rustix::process::getuid().is_root() {
            tool::check_installed(&[("unshare", "util-linux"), ("newuidmap", "uidmap")])?;
            debian::check_subordinate_ids()?;
        }
    }
    Ok(())
}

/// The most that is used at one time, measured and rounded up.
fn space_needed(recipe: &Recipe) -> u64 {
    match recipe.kind {
        Kind::Debian => 2 << 30,
        Kind::Tiny => 512 << 20,
        // For the tools and the download; how large the unpacked image is, is seen when it is there.
        Kind::Cloud(_) => 1 << 30,
    }
}

async fn lock(dir: &Path) -> Result<File, ImageError> {
    let path = dir.join("lock");
    let file = File::create(&path).on("create", &path)?;
    let start = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_LIMIT => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(ImageError::TimedOut { doing: "another build in the same directory", limit: LOCK_LIMIT });
            }
            Err(error) => return Err(std::io::Error::from(error)).on("lock", &path),
        }
    }
}
