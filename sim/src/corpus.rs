//! Histories that once went wrong, kept as data: each is run again in every test run, and must be sound.
//!
//! A history can grow stale: when the pool makes other calls than it did, a strike may hit nothing any more, and the history is
//! sound because nothing happens in it. Where a planted bug makes the same mistake, the entry names it, and the tests see that
//! the history still catches it.

use crate::case::Case;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A history and what it is kept for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What went wrong in it, in a sentence.
    pub found: String,
    /// The version of this crate in which it was found.
    #[serde(default = "this_version")]
    pub version: String,
    /// The bug of the feature `planted` that makes it go wrong again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<String>,
    /// The history.
    pub case: Case,
}

fn this_version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Why an entry could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The file system says no.
    #[error("{path}: {source}")]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not an entry of this version.
    #[error("{path} is not a history of this version ({source}): write it anew from its seed")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Where it differs.
        source: serde_json::Error,
    },
}

/// Reads an entry, or a bare case, from JSON.
///
/// # Errors
/// Where the text differs from an entry.
pub fn parse(text: &str) -> Result<Entry, serde_json::Error> {
    let why = match serde_json::from_str(text) {
        Ok(entry) => return Ok(entry),
        Err(why) => why,
    };
    match serde_json::from_str(text) {
        Ok(case) => Ok(Entry::new(String::new(), case)),
        // Of the two complaints, the one about what the text was meant to be.
        Err(of_case) => Err(if text.contains("\"case\"") { why } else { of_case }),
    }
}

impl Entry {
    /// An entry of this version.
    #[must_use]
    pub fn new(found: impl Into<String>, case: Case) -> Self {
        Self { found: found.into(), version: this_version(), planted: None, case }
    }

    /// Reads an entry, or a bare case.
    ///
    /// # Errors
    /// [`CorpusError`] names the file.
    pub fn read(path: &Path) -> Result<Self, CorpusError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| CorpusError::File { path: path.to_owned(), source })?;
        parse(&text).map_err(|source| CorpusError::Format { path: path.to_owned(), source })
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// [`CorpusError`] names the file.
    pub fn write(&self, path: &Path) -> Result<(), CorpusError> {
        let format = |source| CorpusError::Format { path: path.to_owned(), source };
        let text = serde_json::to_string_pretty(self).map_err(format)?;
        std::fs::write(path, text + "\n").map_err(|source| CorpusError::File { path: path.to_owned(), source })
    }
}

/// Every entry of a folder, by file name.
///
/// # Errors
/// [`CorpusError`] names the first file that cannot be read.
pub fn read_all(folder: &Path) -> Result<Vec<(String, Entry)>, CorpusError> {
    let file = |source| CorpusError::File { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(file)? {
        paths.push(entry.map_err(file)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    paths.iter().map(|path| Ok((name(path), Entry::read(path)?))).collect()
}
