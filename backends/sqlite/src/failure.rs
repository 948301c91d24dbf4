//! The one place where SQLite's and the file system's codes become boxpool's errors.

use boxpool::{Effect, Error, ErrorKind};
use rusqlite::ErrorCode;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What a failure of SQLite means, and the sentence that says what to do.
fn meaning(error: &rusqlite::Error, file: &Path) -> (ErrorKind, String) {
    let file = file.display();
    let rusqlite::Error::SqliteFailure(code, _) = error else {
        // Rows of another shape than ours: somebody else wrote them.
        return (ErrorKind::Corrupt, format!("{file} holds something that this version cannot read"));
    };
    match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            (ErrorKind::Busy, format!("another process keeps {file} locked; try again"))
        }
        ErrorCode::DiskFull => (ErrorKind::NoCapacity, format!("no room for {file}; free some disk space")),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
            (ErrorKind::Unauthorized, format!("{file} and its directory must be writable for this process"))
        }
        ErrorCode::DatabaseCorrupt => {
            (ErrorKind::Corrupt, format!("{file} is damaged; it was left as it is, restore it from a backup"))
        }
        ErrorCode::NotADatabase => (ErrorKind::Corrupt, format!("{file} is not a boxpool store; it was left as it is")),
        ErrorCode::CannotOpen => (ErrorKind::Unavailable, format!("{file} or a file beside it cannot be opened")),
        ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::FileLockingProtocolFailed => {
            (ErrorKind::Unavailable, format!("{file} cannot be read or written now"))
        }
        _ => (ErrorKind::Permanent, format!("SQLite refused to work on {file}")),
    }
}

/// A failure that changed nothing.
pub(crate) fn failed(operation: &'static str, resource: impl Display, file: &Path, error: rusqlite::Error) -> Error {
    let (kind, detail) = meaning(&error, file);
    let failed = Error::new(kind, operation, resource).with_detail(detail).with_effect(Effect::None).with_source(error);
    if kind == ErrorKind::Busy { failed.with_retry_after(Duration::from_millis(100)) } else { failed }
}

/// Whether a failed commit may be found done after a crash: its pages may have reached the disk in full.
pub(crate) fn commit_is_in_doubt(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        // Nothing was written, or the record that would make it count did not fit.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull | ErrorCode::ReadOnly) => false,
        _ => true,
    }
}

/// A failure of the file system on the way to the store's file.
pub(crate) fn cannot_open(file: &Path, error: io::Error) -> Error {
    let directory = file.parent().unwrap_or(file).display();
    let (kind, detail) = match error.kind() {
        io::ErrorKind::NotFound => {
            (ErrorKind::NotFound, format!("the directory {directory} does not exist; create it first"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Unauthorized, format!("the directory {directory} must be writable for this process"))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::NoCapacity, format!("no room in {directory}; free some disk space"))
        }
        io::ErrorKind::NotADirectory => (ErrorKind::Invalid, format!("{directory} is not a directory")),
        _ => (ErrorKind::Unavailable, format!("nothing can be made in {directory}")),
    };
    Error::new(kind, "open store", file.display()).with_detail(detail).with_source(error)
}

/// A file that is not ours to touch.
pub(crate) fn refused(file: &Path, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, "open store", file.display()).with_detail(why)
}
