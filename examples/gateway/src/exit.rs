//! How a command ends: exit codes, and what was wrong when it failed.

use crate::plain::plain;
use boxpool::{Error, ErrorKind};
use serde::Serialize;

/// Exit codes of the gateway's commands and of refused connections. Scripts rely on them: none ever changes its meaning.
///
/// | code | meaning |
/// | --- | --- |
/// | 0 | done |
/// | 1 | refused, or failed |
/// | 2 | wrong usage: unknown command or flag, a name that breaks the rules |
/// | 3 | there is no such box, or no such key |
/// | 75 | not now: no capacity, or a deadline passed; trying again later is sensible |
/// | 130 | given up by Ctrl-C while the box came up |
/// | 255 | the connection to the box broke (also what `ssh` itself uses) |
///
/// A command that runs in a box ends with the code it ended with in the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Refused, or failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// No such box, or no such key.
    NotFound = 3,
    /// Not now; later perhaps.
    TryLater = 75,
    /// Given up by the user.
    Interrupted = 130,
    /// The connection to the box broke.
    Broken = 255,
}

/// Why something was not done: a short word for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A stable word for programs, such as `not_found`.
    pub kind: &'static str,
    /// One plain sentence, without control characters.
    pub message: String,
    /// The exit code that goes with it.
    #[serde(skip)]
    pub code: ExitCode,
}

impl Refusal {
    /// A refusal with its code; `message` may hold outside text.
    pub fn new(code: ExitCode, message: impl AsRef<str>) -> Self {
        let kind = match code {
            ExitCode::Done | ExitCode::Failed => "failed",
            ExitCode::Usage => "usage",
            ExitCode::NotFound => "not_found",
            ExitCode::TryLater => "try_later",
            ExitCode::Interrupted => "interrupted",
            ExitCode::Broken => "broken",
        };
        Self { kind, message: plain(message.as_ref()).into_owned(), code }
    }

    /// Wrong usage.
    pub fn usage(message: impl AsRef<str>) -> Self {
        Self::new(ExitCode::Usage, message)
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        let (kind, code) = match error.kind() {
            ErrorKind::NotFound => ("not_found", ExitCode::NotFound),
            ErrorKind::Invalid => ("usage", ExitCode::Usage),
            ErrorKind::NoCapacity => ("no_capacity", ExitCode::TryLater),
            ErrorKind::TimedOut => ("timed_out", ExitCode::TryLater),
            ErrorKind::Busy | ErrorKind::Conflict | ErrorKind::Throttled => ("busy", ExitCode::TryLater),
            ErrorKind::Unavailable => ("unavailable", ExitCode::TryLater),
            ErrorKind::AlreadyExists => ("already_exists", ExitCode::Failed),
            ErrorKind::Unauthorized => ("not_allowed", ExitCode::Failed),
            _ => ("failed", ExitCode::Failed),
        };
        let message = if error.detail().is_empty() { error.to_string() } else { error.detail().to_owned() };
        Self { kind, message: plain(&message).into_owned(), code }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}
