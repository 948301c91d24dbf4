//! What an image is made of. Everything that determines the image is in here and in its digest.

use sha2::{Digest, Sha256};

use super::error::ImageError;
use super::guest;

/// Raised whenever the builder's code changes what comes out; the texts of the guest's files count by themselves.
const VERSION: u32 = 1;

/// The distribution release both recipes are made of. Its kernel (6.1) is the one that boots reliably under
/// TCG, and it has the virtual machine generation id, without which clones would share their random numbers.
pub(super) const SUITE: &str = "bookworm";

/// Where packages come from when the recipe names no mirror.
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";

/// The userland of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Userland {
    /// Debian 12 with systemd, apt and the usual tools; login user `box` with `sudo`.
    Debian,
    /// Busybox, bash and OpenSSH; login user `root`. For tests and small hosts.
    Tiny,
}

impl Userland {
    /// The user to log in as.
    #[must_use]
    pub fn login(self) -> &'static str {
        match self {
            Userland::Debian => "box",
            Userland::Tiny => "root",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Userland::Debian => "debian",
            Userland::Tiny => "tiny",
        }
    }
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    pub(super) userland: Userland,
    pub(super) authorized_key: String,
    pub(super) disk_bytes: u64,
    pub(super) extra_packages: Vec<String>,
    pub(super) mirror: String,
    pub(super) security_mirror: Option<String>,
}

impl Recipe {
    /// An image of `userland` that lets the holder of `authorized_key` in: one line as in `authorized_keys`.
    #[must_use]
    pub fn new(userland: Userland, authorized_key: impl Into<String>) -> Self {
        Recipe {
            userland,
            authorized_key: authorized_key.into(),
            disk_bytes: match userland {
                Userland::Debian => 8 << 30,
                Userland::Tiny => 512 << 20,
            },
            extra_packages: Vec::new(),
            mirror: MIRROR.to_owned(),
            security_mirror: Some(SECURITY_MIRROR.to_owned()),
        }
    }

    /// The size the guest sees of its disk; only what is written takes room.
    #[must_use]
    pub fn disk_bytes(mut self, bytes: u64) -> Self {
        self.disk_bytes = bytes;
        self
    }

    /// One more Debian package. Only the Debian userland has a package manager to put it in.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.extra_packages.push(name.into());
        self
    }

    /// Another mirror of Debian. Not part of the digest: mirrors hold the same packages.
    #[must_use]
    pub fn mirror(mut self, url: impl Into<String>) -> Self {
        self.mirror = url.into();
        self
    }

    /// Another mirror of Debian's security updates; `None` builds without them.
    #[must_use]
    pub fn security_mirror(mut self, url: Option<String>) -> Self {
        self.security_mirror = url;
        self
    }

    /// The userland.
    #[must_use]
    pub fn userland(&self) -> Userland {
        self.userland
    }

    /// Sha-256, in hex, of everything that determines the image but the package versions of the day.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut sum = self.packages_sum();
        field(&mut sum, "key", self.authorized_key.trim());
        field(&mut sum, "disk", &self.disk_bytes.to_string());
        for file in guest::files(self) {
            field(&mut sum, &file.path, &file.text);
            field(&mut sum, "mode", &file.mode.to_string());
        }
        field(&mut sum, "initramfs", guest::INITRAMFS_INIT);
        field(&mut sum, "customise", guest::CUSTOMISE);
        hex(sum)
    }

    /// Digest of what the packages phase depends on, so that a change of key or configuration fetches nothing again.
    pub(super) fn packages_digest(&self) -> String {
        hex(self.packages_sum())
    }

    fn packages_sum(&self) -> Sha256 {
        let mut sum = Sha256::new();
        field(&mut sum, "version", &VERSION.to_string());
        field(&mut sum, "userland", self.userland.name());
        field(&mut sum, "suite", SUITE);
        field(&mut sum, "security", if self.security_mirror.is_some() { "yes" } else { "no" });
        for package in self.packages() {
            field(&mut sum, "package", package);
        }
        sum
    }

    /// The packages asked for by name.
    pub(super) fn packages(&self) -> Vec<&str> {
        let base = match self.userland {
            Userland::Debian => super::debian::PACKAGES,
            Userland::Tiny => super::tiny::PACKAGES,
        };
        base.iter().copied().chain(self.extra_packages.iter().map(String::as_str)).collect()
    }

    /// Refuses what would be misread by a tool or build an image nobody can enter.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        let refuse = |reason: &str| Err(ImageError::InvalidRecipe { reason: reason.to_owned() });
        let key = self.authorized_key.trim();
        if key.is_empty() || key.contains(['\n', '\r', '\0']) || !key.contains(' ') {
            return refuse("the authorized key must be one line such as `ssh-ed25519 AAAA…`");
        }
        let least: u64 = match self.userland {
            Userland::Debian => 2 << 30,
            Userland::Tiny => 128 << 20,
        };
        if self.disk_bytes < least || !self.disk_bytes.is_multiple_of(4096) {
            return refuse("the disk must be a multiple of 4096 bytes, of at least 128 MiB (tiny) or 2 GiB (Debian)");
        }
        if self.userland == Userland::Tiny && !self.extra_packages.is_empty() {
            return refuse("the tiny userland takes no extra packages");
        }
        let name_is_safe = |name: &String| {
            name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c))
        };
        if !self.extra_packages.iter().all(name_is_safe) {
            return refuse("a package name has lower-case letters, digits and +-. only");
        }
        let mirrors = [Some(&self.mirror), self.security_mirror.as_ref()];
        if mirrors
            .into_iter()
            .flatten()
            .any(|url| !url.contains("://") || url.contains(|c: char| c.is_whitespace() || c == '"'))
        {
            return refuse("a mirror is a URL such as http://deb.debian.org/debian");
        }
        Ok(())
    }

    /// Lines of a `sources.list`. The keyring has the same path on the host and in the guest.
    pub(super) fn sources(&self) -> String {
        let keyring = super::apt::KEYRING;
        let mut lines = format!("deb [signed-by={keyring}] {} {SUITE} main\n", self.mirror);
        if let Some(security) = &self.security_mirror {
            lines += &format!("deb [signed-by={keyring}] {security} {SUITE}-security main\n");
        }
        lines
    }
}

/// Digest of what the kernel phase depends on.
pub(super) fn kernel_digest(recipe: &Recipe) -> String {
    let mut sum = Sha256::new();
    field(&mut sum, "version", &VERSION.to_string());
    field(&mut sum, "suite", SUITE);
    field(&mut sum, "security", if recipe.security_mirror.is_some() { "yes" } else { "no" });
    field(&mut sum, "initramfs", guest::INITRAMFS_INIT);
    hex(sum)
}

fn field(sum: &mut Sha256, name: &str, value: &str) {
    // Lengths keep two different lists of fields from reading the same.
    sum.update(format!("{}:{name}={}:", name.len(), value.len()));
    sum.update(value);
}

fn hex(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
