//! Fetches packages of the guest's release with the host's apt, which verifies them; nothing of the host's own
//! configuration, lists or package state is read or changed, so that any Debian or Ubuntu host will do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ImageError, IoContext};
use super::recipe::Recipe;
use super::tool::Tool;

/// The release keys, at the same path on the host and in the guest.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt of its own in a directory.
pub(super) struct Apt {
    root: PathBuf,
    mirror: String,
}

impl Apt {
    /// Prepares `root` and fetches the lists of packages.
    pub(super) async fn update(root: PathBuf, recipe: &Recipe) -> Result<Apt, ImageError> {
        for dir in ["etc/preferences.d", "etc/apt.conf.d", "lists/partial", "archives/partial"] {
            let dir = root.join(dir);
            std::fs::create_dir_all(&dir).on("create", &dir)?;
        }
        let at = root.display();
        let config = format!(
            r#"Dir "{at}";
Dir::Etc "{at}/etc";
Dir::Etc::sourcelist "{at}/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::State "{at}";
Dir::State::lists "{at}/lists";
Dir::State::status "{at}/status";
Dir::Cache "{at}";
Dir::Cache::archives "{at}/archives";
Dir::Log "{at}";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"#
        );
        write(&root.join("apt.conf"), &config)?;
        write(&root.join("status"), "")?;
        write(&root.join("etc/sources.list"), &recipe.sources())?;
        let apt = Apt { root, mirror: recipe.mirror.clone() };
        apt.tool("apt-get", "fetching the lists of packages")
            .args(["update", "-q", "--error-on=any"])
            .run()
            .await
            .map_err(|error| apt.blame_mirror(error))?;
        Ok(apt)
    }

    /// The newest kernel that the metapackage `linux-image-amd64` names.
    pub(super) async fn kernel_package(&self) -> Result<String, ImageError> {
        let text = self
            .tool("apt-cache", "finding the kernel")
            .args(["depends", "--important", "linux-image-amd64"])
            .run()
            .await?;
        let text = String::from_utf8_lossy(&text);
        let name = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|name| {
            name.starts_with("linux-image-") && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
        name.map(str::to_owned)
            .ok_or_else(|| ImageError::unexpected("linux-image-amd64", "depends on no kernel package"))
    }

    /// Fetches exactly these packages, without what they depend on. Two downloads need two directories.
    pub(super) async fn download(&self, packages: &[&str], dir: &Path) -> Result<Vec<PathBuf>, ImageError> {
        std::fs::create_dir_all(dir).on("create", dir)?;
        self.tool("apt-get", "fetching packages")
            .args(["download", "-q"])
            .args(packages)
            .current_dir(dir)
            .limit(Duration::from_secs(900))
            .run()
            .await
            .map_err(|error| self.blame_mirror(error))?;
        packages.iter().map(|package| find(dir, package)).collect()
    }

    fn tool(&self, program: &str, doing: &'static str) -> Tool {
        Tool::new(program, "apt", doing).env("APT_CONFIG", self.root.join("apt.conf"))
    }

    fn blame_mirror(&self, error: ImageError) -> ImageError {
        blame_mirror(&self.mirror, error)
    }
}

/// Reads from the end of a tool's output whether the mirror was at fault.
pub(super) fn blame_mirror(mirror: &str, error: ImageError) -> ImageError {
    const SIGNS: [&str; 7] = [
        "Failed to fetch",
        "Could not resolve",
        "Temporary failure resolving",
        "Could not connect",
        "Unable to connect",
        "Cannot initiate the connection",
        "does not have a Release file",
    ];
    match error {
        ImageError::Tool { last_lines, .. } if SIGNS.iter().any(|sign| last_lines.contains(sign)) => {
            ImageError::MirrorUnreachable { mirror: mirror.to_owned(), last_lines }
        }
        other => other,
    }
}

fn find(dir: &Path, package: &str) -> Result<PathBuf, ImageError> {
    let prefix = format!("{package}_");
    for entry in std::fs::read_dir(dir).on("list", dir)? {
        let entry = entry.on("list", dir)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&prefix) && name.ends_with(".deb") {
            return Ok(entry.path());
        }
    }
    Err(ImageError::unexpected(package, "was not fetched"))
}

fn write(path: &Path, text: &str) -> Result<(), ImageError> {
    std::fs::write(path, text).on("write", path)
}
