//! One error type for stores, providers, runtimes and the pool. It answers the two questions a caller has:
//! *is a retry sensible?* ([`Error::is_retryable`]) and *may it have happened already?* ([`Error::effect`]).

use std::fmt;
use std::time::Duration;

/// A boxed cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// `Result` with boxpool's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as logic can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing named does not exist.
    NotFound,
    /// The thing to be created exists.
    AlreadyExists,
    /// The record changed since it was read.
    Conflict,
    /// The thing is in use or in transition; try again after [`Error::retry_after`].
    Busy,
    /// The service asked us to slow down.
    Throttled,
    /// No stock, quota or room (disk space included).
    NoCapacity,
    /// A newer epoch was seen: the caller is out of date and must stop acting.
    Fenced,
    /// The credentials are missing or do not allow this.
    Unauthorized,
    /// The caller's input breaks a rule; repeating it cannot help.
    Invalid,
    /// A wait reached its limit.
    TimedOut,
    /// The service cannot be reached now.
    Unavailable,
    /// The answer was lost: the effect may or may not have happened.
    UnknownOutcome,
    /// What is stored cannot be understood (damaged, or written by a newer version). It was left untouched.
    Corrupt,
    /// It failed and repeating it will not help.
    Permanent,
}

/// Of a failed call: did it change anything?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Surely nothing changed.
    None,
    /// It may have happened: look before acting.
    Unknown,
}

/// A failed operation: what was tried, on what, why it failed, and what may be done about it.
///
/// `Display` prints one level; [`Report`] prints the whole chain of causes.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    effect: Effect,
    operation: &'static str,
    resource: String,
    detail: String,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` from `operation` (a verb phrase such as `"attach volume"`) on `resource`.
    ///
    /// The effect is `Unknown` for [`ErrorKind::UnknownOutcome`] and [`ErrorKind::TimedOut`], else `None`;
    /// [`Error::with_effect`] says otherwise.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: &'static str, resource: impl fmt::Display) -> Self {
        let effect = match kind {
            ErrorKind::UnknownOutcome | ErrorKind::TimedOut => Effect::Unknown,
            _ => Effect::None,
        };
        Self {
            kind,
            effect,
            operation,
            resource: resource.to_string(),
            detail: String::new(),
            retry_after: None,
            source: None,
        }
    }

    /// Adds a sentence that says what happened and what to do.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Says whether the failed call may have changed something.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// The delay the service asked for.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the failed call may have changed something.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// What was tried.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// What it was tried on.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The sentence for people; empty when there is none.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// How long the service asked us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same call, repeated later, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Conflict
            | ErrorKind::Busy
            | ErrorKind::Throttled
            | ErrorKind::NoCapacity
            | ErrorKind::TimedOut
            | ErrorKind::Unavailable
            | ErrorKind::UnknownOutcome => true,
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::Fenced
            | ErrorKind::Unauthorized
            | ErrorKind::Invalid
            | ErrorKind::Corrupt
            | ErrorKind::Permanent => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.operation, self.resource)?;
        if self.detail.is_empty() { write!(f, "{}", self.kind) } else { f.write_str(&self.detail) }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|cause| &**cause as _)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Conflict => "changed meanwhile",
            Self::Busy => "busy",
            Self::Throttled => "throttled",
            Self::NoCapacity => "no capacity",
            Self::Fenced => "superseded by a newer epoch",
            Self::Unauthorized => "not allowed",
            Self::Invalid => "invalid input",
            Self::TimedOut => "timed out",
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "outcome unknown",
            Self::Corrupt => "stored data cannot be understood",
            Self::Permanent => "failed",
        })
    }
}

/// Prints an error with its whole chain of causes, on one line.
pub struct Report<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_answer_may_have_happened_and_a_refusal_has_not() {
        assert_eq!(Error::new(ErrorKind::UnknownOutcome, "attach", "v1").effect(), Effect::Unknown);
        assert_eq!(Error::new(ErrorKind::Busy, "attach", "v1").effect(), Effect::None);
    }

    #[test]
    fn a_report_prints_every_cause_once() {
        let root = Error::new(ErrorKind::Unavailable, "open", "file").with_detail("disk is gone");
        let error = Error::new(ErrorKind::Permanent, "start", "b1").with_source(root);
        assert_eq!(Report(&error).to_string(), "start b1: failed: open file: disk is gone");
    }
}
