//! What is there, what is missing, and what to do about it.

use crate::host::{Command, Host};
use crate::{LocalHost, LocalQemu, machine};
use boxpool::Result;

/// How a finding turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, less well.
    Poor,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it turned out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty when nothing need be done.
    pub advice: String,
}

impl Finding {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, found: found.into(), advice: String::new() }
    }
    fn with(self, verdict: Verdict, advice: impl Into<String>) -> Self {
        Self { verdict, advice: advice.into(), ..self }
    }
}

/// The programs that are used, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 14] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mmdebstrap", "mmdebstrap"),
    ("socat", "socat"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("mke2fs", "e2fsprogs"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// Looks for the programs alone, before anything is opened.
pub(crate) async fn programs(host: &dyn Host) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (program, package) in PROGRAMS {
        let found = host.run(Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program])).await?;
        findings.push(if found.success {
            Finding::good(program, found.stdout.trim())
        } else {
            Finding::good(program, "missing").with(Verdict::Bad, format!("apt-get install {package}"))
        });
    }
    Ok(findings)
}

impl LocalQemu {
    /// Looks for what is needed before a pool can be opened: programs and their versions.
    ///
    /// # Errors
    /// When not even a shell can be run.
    pub async fn check_programs() -> Result<Vec<Finding>> {
        let mut findings = programs(&LocalHost).await?;
        if let Err(error) = machine::qemu_version(&LocalHost).await {
            findings
                .push(Finding::good("QEMU's version", error.to_string()).with(Verdict::Bad, "install a newer QEMU"));
        }
        Ok(findings)
    }

    /// Looks at an opened host: accelerator, QEMU's user, disk space.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn check_up(&self) -> Result<Vec<Finding>> {
        let (major, minor) = self.inner.qemu_version;
        let mut findings = vec![Finding::good("QEMU's version", format!("{major}.{minor}"))];
        let accel = Finding::good("accelerator", self.inner.accel.to_string());
        findings.push(match self.inner.accel {
            crate::Accel::Kvm => accel,
            crate::Accel::Tcg => accel
                .with(Verdict::Poor, "KVM is absent or does not run 64-bit code here; boxes run 7 to 14 times slower"),
        });
        findings.push(match self.inner.run_as {
            Some((user, _)) => Finding::good("QEMU's user", format!("uid {user}")),
            None => {
                let finding = Finding::good("QEMU's user", "the same as this program's");
                let root = self.inner.host.run(Command::new("id").arg("-u")).await?.stdout.trim() == "0";
                let advice = "make a user named boxpool, and keep the state where that user may pass through";
                if root { finding.with(Verdict::Poor, advice) } else { finding }
            }
        });
        let free = self.free_bytes(&self.inner.layout.state).await?;
        let space =
            Finding::good("disk space", format!("{} MiB free in {}", free >> 20, self.inner.layout.state.display()));
        findings.push(if free >= (4 << 30) {
            space
        } else {
            space.with(Verdict::Poor, "a golden snapshot takes 3 GiB to build, a box some hundred MiB")
        });
        Ok(findings)
    }
}
