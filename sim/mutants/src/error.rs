//! Why there is no answer.

use std::path::Path;

/// What went wrong, in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Error(String);

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    pub(crate) fn of(path: &Path, why: &std::io::Error) -> Self {
        Self(format!("{}: {why}", path.display()))
    }
}
