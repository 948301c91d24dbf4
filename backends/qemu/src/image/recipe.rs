//! What an image is made of. Everything that determines the image is in here and in its digest.

use sha2::{Digest, Sha256};

use super::cloud::{self, CloudImage};
use super::error::ImageError;
use super::guest;

/// Raised whenever the builder's code changes what comes out; the texts of the guest's files count by themselves.
const VERSION: u32 = 1;

/// The distribution release both recipes are made of. Its kernel (6.1) is the one that boots reliably under
/// TCG, and it has the virtual machine generation id, without which clones would share their random numbers.
pub(super) const SUITE: &str = "bookworm";

/// The project's own mirror, which also has the security updates.
const DEBIAN_ORG: &str = "deb.debian.org/debian";

/// What a guest is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Debian 12 with systemd, apt and the usual tools; login user `box` with `sudo`.
    Debian,
    /// Busybox, bash and OpenSSH; login user `root`. For tests and small hosts.
    Tiny,
    /// A distribution's own image for clouds, with its own kernel; login user `box` with `sudo`.
    Cloud(CloudImage),
}

impl Kind {
    /// The user to log in as.
    #[must_use]
    pub fn login(&self) -> &'static str {
        match self {
            Kind::Debian | Kind::Cloud(_) => "box",
            Kind::Tiny => "root",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Kind::Debian => "debian",
            Kind::Tiny => "tiny",
            Kind::Cloud(_) => "cloud",
        }
    }
}

/// Everything that determines an image, and where its packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// What it is made of.
    pub kind: Kind,
    /// Size of its disk as the guest sees it, in bytes. It takes room only as it is written to.
    pub disk_bytes: u64,
    /// The public key that may log in, one line in OpenSSH's format.
    pub authorized_key: String,
    /// Where Debian's packages come from. Not part of the digest: every mirror has the same.
    pub mirror: String,
}

impl Recipe {
    /// Sha-256, in hex, of everything that determines the image but the package versions of the day.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut sum = self.packages_sum();
        field(&mut sum, "key", &self.key());
        field(&mut sum, "disk", &self.disk_bytes.to_string());
        for file in guest::files(self) {
            field(&mut sum, &file.path, &file.text);
            field(&mut sum, "mode", &file.mode.to_string());
        }
        field(&mut sum, "initramfs", guest::INITRAMFS_INIT);
        match &self.kind {
            Kind::Cloud(image) => {
                field(&mut sum, "image", &image.identity());
                field(&mut sum, "masked", guest::MASKED);
                field(&mut sum, "agent", guest::AGENT_WRAPPER);
            }
            Kind::Debian | Kind::Tiny => field(&mut sum, "customise", guest::CUSTOMISE),
        }
        hex(sum)
    }

    /// Digest of what the packages phase depends on, so that a change of key or configuration fetches nothing again.
    pub(super) fn packages_digest(&self) -> String {
        hex(self.packages_sum())
    }

    fn packages_sum(&self) -> Sha256 {
        let mut sum = Sha256::new();
        field(&mut sum, "version", &VERSION.to_string());
        field(&mut sum, "userland", self.kind.name());
        field(&mut sum, "suite", SUITE);
        for package in self.packages() {
            field(&mut sum, "package", package);
        }
        sum
    }

    /// The packages asked for by name.
    pub(super) fn packages(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Debian => super::debian::PACKAGES,
            Kind::Tiny => super::tiny::PACKAGES,
            Kind::Cloud(_) => cloud::PACKAGES,
        }
    }

    /// The key without its comment, which says nothing about who may log in.
    pub(super) fn key(&self) -> String {
        self.authorized_key.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Refuses what would be misread by a tool or build an image nobody can enter.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        let refuse = |reason: &str| Err(ImageError::InvalidRecipe { reason: reason.to_owned() });
        let key = self.authorized_key.trim();
        if key.is_empty() || key.contains(['\n', '\r', '\0']) || !key.contains(' ') {
            return refuse("the authorized key must be one line such as `ssh-ed25519 AAAA…`");
        }
        let least: u64 = match self.kind {
            Kind::Debian => 1 << 30,
            Kind::Tiny | Kind::Cloud(_) => 128 << 20,
        };
        if self.disk_bytes < least || !self.disk_bytes.is_multiple_of(4096) {
            return refuse("the disk must be a multiple of 4096 bytes, of at least 128 MiB, or 1 GiB for Debian");
        }
        let known = ["http://", "https://", "file:/"].iter().any(|scheme| self.mirror.starts_with(scheme));
        if !known || self.mirror.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
            return refuse("the mirror is a URL such as http://deb.debian.org/debian");
        }
        Ok(())
    }

    /// Lines of a `sources.list`. The keyring has the same path on the host and in the guest.
    pub(super) fn sources(&self) -> String {
        let keyring = super::apt::KEYRING;
        let mut lines = format!("deb [signed-by={keyring}] {} {SUITE} main\n", self.mirror);
        // Another mirror need not have them.
        if self.mirror.ends_with(DEBIAN_ORG) {
            lines += &format!("deb [signed-by={keyring}] {}-security {SUITE}-security main\n", self.mirror);
        }
        lines
    }
}

/// Digest of which image this is.
pub(super) fn image_digest(image: &CloudImage) -> String {
    let mut sum = Sha256::new();
    field(&mut sum, "version", &VERSION.to_string());
    field(&mut sum, "image", &image.identity());
    hex(sum)
}

/// Digest of what the kernel phase depends on.
pub(super) fn kernel_digest(kind: &Kind) -> String {
    let mut sum = Sha256::new();
    field(&mut sum, "version", &VERSION.to_string());
    field(&mut sum, "suite", SUITE);
    if let Kind::Cloud(image) = kind {
        field(&mut sum, "image", &image.identity());
    }
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
