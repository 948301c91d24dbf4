//! Looks at the machine and says what is there and what is missing. Changes nothing.

use crate::config::Config;
use crate::hostkey::{HOST_KEY_FILE, read_key};
use crate::place::Place;
use boxpool::Report;
use serde::Serialize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

/// Looks at what the gateway itself needs: state directory, keys, address, allow-list.
#[must_use]
pub fn examine(config: &Config, state_dir: &Path) -> Vec<Finding> {
    let mut found = vec![state_directory(state_dir)];
    found.extend(room(state_dir));
    found.push(host_key(state_dir));
    found.push(address(config));
    if let Err(error) = config.registration() {
        found.push(Finding::new("allow-list", Verdict::Bad, Report(&error).to_string()));
    }
    found
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
    // Passing through is fine: QEMU's own user must.
    if meta.permissions().mode() & 0o066 != 0 {
        return Finding::new(what, Verdict::Warning, format!("{shown} is open to others; run: chmod 711 {shown}"));
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
    fn looking_changes_nothing_and_names_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let findings = examine(&Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() }, &state);
        assert!(is_fit(&findings) && as_text(&findings).lines().count() == findings.len(), "{findings:?}");
        assert!(!state.exists());
        std::fs::write(&state, "in the way").unwrap();
        let findings = examine(&Config::default(), &state);
        assert!(!is_fit(&findings) && as_text(&findings).contains("not a directory"), "{findings:?}");
    }
}
