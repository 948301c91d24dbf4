//! Looks at the machine and says what is there and what is missing. Changes nothing.

use crate::config::{Config, Recipe};
use crate::hostkey::{HOST_KEY_FILE, read_key};
use crate::place::Place;
use boxpool::Report;
use serde::Serialize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but.
    Warning,
    /// The gateway cannot run like this.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub detail: String,
}

impl Finding {
    /// A finding.
    pub fn new(what: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { what: what.into(), verdict, detail: detail.into() }
    }
}

/// Free space below which a warning is given.
const ROOM_WANTED: u64 = 8 << 30;

/// A program that boxes need, the Debian package that has it, and whether only the making of a golden snapshot needs it.
const PROGRAMS: &[(&str, &str, bool)] = &[
    ("qemu-system-x86_64", "qemu-system-x86", false),
    ("qemu-img", "qemu-utils", false),
    ("socat", "socat", false),
    ("ssh-keygen", "openssh-client", false),
    ("setsid", "util-linux", false),
    ("ssh", "openssh-client", true),
    ("xz", "xz-utils", true),
    ("apt-get", "apt", true),
    ("dpkg-deb", "dpkg", true),
    ("mke2fs", "e2fsprogs", true),
    ("cpio", "cpio", true),
    ("mmdebstrap", "mmdebstrap", true),
    ("newuidmap", "uidmap", true),
];

/// The same, for those of which a cloud image is made.
const CLOUD_IMAGE_PROGRAMS: &[(&str, &str, bool)] =
    &[("curl", "curl", true), ("debugfs", "e2fsprogs", true), ("resize2fs", "e2fsprogs", true), ("zstd", "zstd", true)];

/// Looks at everything. `path` is the search path for programs.
#[must_use]
pub fn examine(config: &Config, state_dir: &Path, path: &str) -> Vec<Finding> {
    let mut found = programs(PROGRAMS, path);
    if config.boxes.recipe == Recipe::CloudImage {
        found.extend(programs(CLOUD_IMAGE_PROGRAMS, path));
        found.extend(image(config.boxes.image.as_deref()));
    }
    found.push(state_directory(state_dir));
    found.extend(room(state_dir));
    found.push(host_key(state_dir));
    found.push(address(config));
    if let Err(error) = config.registration() {
        found.push(Finding::new("allow-list", Verdict::Bad, Report(&error).to_string()));
    }
    found
}

/// QEMU's version, and whether this machine's processor can run boxes itself.
pub async fn machine(scratch: &Path) -> Finding {
    let what = "QEMU";
    match boxpool_qemu::check_up(scratch).await {
        Err(error) => Finding::new(what, Verdict::Bad, Report(&error).to_string()),
        Ok(found) => {
            let (major, minor) = found.qemu_version;
            match found.accel {
                boxpool_qemu::Accel::Kvm => {
                    Finding::new(what, Verdict::Good, format!("version {major}.{minor}, with KVM"))
                }
                boxpool_qemu::Accel::Tcg => {
                    let why = "KVM is absent or does not run 64-bit code here, so boxes run in software, 7 to 14 times slower";
                    Finding::new(what, Verdict::Warning, format!("version {major}.{minor}; {why}"))
                }
            }
        }
    }
}

fn programs(wanted: &[(&str, &str, bool)], path: &str) -> Vec<Finding> {
    wanted
        .iter()
        .map(|(program, package, only_making)| match find(program, path) {
            Some(at) => Finding::new(*program, Verdict::Good, at.display().to_string()),
            None => {
                let verdict = if *only_making { Verdict::Warning } else { Verdict::Bad };
                let purpose = if *only_making { " (needed to make the golden snapshot)" } else { "" };
                Finding::new(
                    *program,
                    verdict,
                    format!("not found{purpose}; install it with: apt-get install {package}"),
                )
            }
        })
        .collect()
}

/// The cloud image, if it is a file of this machine.
fn image(place: Option<&str>) -> Option<Finding> {
    let path = Path::new(place.filter(|place| place.starts_with('/'))?);
    let (verdict, detail) = match std::fs::File::open(path).and_then(|file| file.metadata()) {
        Ok(meta) if meta.is_file() => (Verdict::Good, path.display().to_string()),
        Ok(_) => (Verdict::Bad, format!("{} is not a file", path.display())),
        Err(error) => (Verdict::Bad, format!("{} cannot be read: {error}", path.display())),
    };
    Some(Finding::new("cloud image", verdict, detail))
}

/// The program's place on the search path; the system's own directories are looked at as well.
#[must_use]
pub fn find(program: &str, path: &str) -> Option<PathBuf> {
    let places = path.split(':').chain(["/usr/sbin", "/sbin"]).filter(|place| !place.is_empty());
    places
        .map(|place| Path::new(place).join(program))
        .find(|file| std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

fn state_directory(path: &Path) -> Finding {
    let shown = path.display();
    let what = "state directory";
    let Ok(meta) = std::fs::metadata(path) else {
        return Finding::new(what, Verdict::Good, format!("{shown} is not there yet; the first start makes it"));
    };
    if !meta.is_dir() {
        return Finding::new(what, Verdict::Bad, format!("{shown} is not a directory"));
    }
    if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err() || is_read_only(path) {
        return Finding::new(what, Verdict::Bad, format!("{shown} cannot be written"));
    }
    // Its group may pass through: QEMU's own user must.
    if meta.permissions().mode() & 0o067 != 0 {
        return Finding::new(what, Verdict::Warning, format!("{shown} is open to others; run: chmod 710 {shown}"));
    }
    Finding::new(what, Verdict::Good, shown.to_string())
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Free space where the state directory is or will be.
fn room(path: &Path) -> Option<Finding> {
    let there = path.ancestors().find(|place| place.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let detail = format!("{} GiB free", free >> 30);
    Some(if free < ROOM_WANTED {
        Finding::new("disk space", Verdict::Warning, format!("{detail}; a box can take more than that"))
    } else {
        Finding::new("disk space", Verdict::Good, detail)
    })
}

fn host_key(state_dir: &Path) -> Finding {
    let what = "host key";
    match read_key(&Place::existing(state_dir).join(HOST_KEY_FILE)) {
        Ok(Some(key)) => Finding::new(what, Verdict::Good, key.fingerprint(russh::keys::HashAlg::Sha256).to_string()),
        Ok(None) => Finding::new(what, Verdict::Good, "not there yet; the first start makes it"),
        Err(error) => Finding::new(what, Verdict::Bad, Report(&error).to_string()),
    }
}

fn address(config: &Config) -> Finding {
    let (what, shown) = ("address", config.listen);
    match std::net::TcpListener::bind(shown) {
        Ok(_) if shown.ip().is_loopback() => {
            Finding::new(what, Verdict::Good, format!("{shown} is free; only this machine can reach it"))
        }
        Ok(_) => Finding::new(what, Verdict::Good, format!("{shown} is free")),
        Err(error) => Finding::new(what, Verdict::Warning, format!("{shown} cannot be used now: {error}")),
    }
}

/// The findings as lines of text.
#[must_use]
pub fn as_text(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let mark = match finding.verdict {
            Verdict::Good => "good   ",
            Verdict::Warning => "warning",
            Verdict::Bad => "BAD    ",
        };
        format!("{mark}  {:<20}  {}\n", finding.what, finding.detail)
    };
    findings.iter().map(line).collect()
}

/// Whether the gateway can run.
#[must_use]
pub fn is_fit(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let findings = examine(&Config::default(), &state, dir.path().to_str().unwrap());
        let qemu = findings.iter().find(|finding| finding.what == "qemu-system-x86_64").unwrap();
        assert_eq!(qemu.verdict, Verdict::Bad);
        assert!(qemu.detail.contains("apt-get install qemu-system-x86"));
        assert!(!is_fit(&findings) && as_text(&findings).lines().count() == findings.len());
        assert!(!state.exists());
    }

    #[test]
    fn a_cloud_image_that_is_not_there_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, image) = (dir.path().to_str().unwrap(), dir.path().join("x.img"));
        let mut config = Config::default();
        config.boxes.recipe = Recipe::CloudImage;
        config.boxes.image = Some(image.to_str().unwrap().to_owned());
        let verdict = |config: &Config, what: &str| {
            let findings = examine(config, dir.path(), path);
            findings.into_iter().find(|finding| finding.what == what).map(|finding| finding.verdict)
        };
        assert_eq!(verdict(&config, "cloud image"), Some(Verdict::Bad));
        assert_eq!(verdict(&config, "curl"), Some(Verdict::Warning));
        std::fs::write(&image, "").unwrap();
        assert_eq!(verdict(&config, "cloud image"), Some(Verdict::Good));
        config.boxes.image = None;
        assert_eq!(verdict(&config, "cloud image"), None);
        assert_eq!(verdict(&Config::default(), "curl"), None);
    }

    #[test]
    fn a_program_is_found_only_when_it_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = (dir.path().to_str().unwrap(), dir.path().join("qemu-img"));
        std::fs::write(&file, "").unwrap();
        assert_eq!(find("qemu-img-of-nobody", path), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("qemu-img", path), Some(file));
    }
}
