//! What a build tells its caller while it runs.

use std::fmt;
use std::time::Duration;

/// A part of a build that is finished or not; a finished one is never done again in the same directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// A cloud image, fetched and checked.
    Image,
    /// Root file system, kernel and modules of a cloud image.
    Unpack,
    /// The distribution's packages, as one archive; for a cloud image, what it may lack.
    Packages,
    /// The kernel and the initramfs.
    Kernel,
    /// The disk: packages, configuration and key in a file system.
    Disk,
}

impl Phase {
    /// Every phase of a build, the first two only for a cloud image. `Packages` may run at the same time as those before and
    /// after it.
    pub const ALL: [Phase; 5] = [Phase::Image, Phase::Unpack, Phase::Packages, Phase::Kernel, Phase::Disk];

    /// One word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Image => "image",
            Phase::Unpack => "unpack",
            Phase::Packages => "packages",
            Phase::Kernel => "kernel",
            Phase::Disk => "disk",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One report about one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The phase this is about.
    pub phase: Phase,
    /// What it is doing.
    pub state: PhaseState,
    /// Bytes fetched or written so far, as far as they can be seen.
    pub bytes: u64,
    /// Time since the phase began.
    pub elapsed: Duration,
}

/// Where a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PhaseState {
    /// At work.
    Running,
    /// Found finished by an earlier call.
    Reused,
    /// Finished now.
    Finished,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, seconds) = (self.phase, self.elapsed.as_secs_f64());
        let megabytes = self.bytes as f64 / 1e6;
        match self.state {
            PhaseState::Running => write!(f, "{phase}: {megabytes:.0} MB after {seconds:.1} s"),
            PhaseState::Reused => write!(f, "{phase}: {megabytes:.0} MB from an earlier build"),
            PhaseState::Finished => write!(f, "{phase}: {megabytes:.0} MB in {seconds:.1} s"),
        }
    }
}
