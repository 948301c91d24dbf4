//! SQLite's errors, mapped once to kind and effect.

use boxpool::{Effect, Error, ErrorKind};
use rusqlite::ErrorCode;

/// What an error of SQLite means to the caller. `committing`: it came from the commit, so the writes may be there.
pub(crate) fn failure(operation: &'static str, resource: &str, error: rusqlite::Error, committing: bool) -> Error {
    let code = error.sqlite_error_code();
    let (kind, detail) = match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Busy, "another process has held the state file for too long; try again")
        }
        Some(ErrorCode::DiskFull) => {
            (ErrorKind::NoCapacity, "the disk that holds the state file is full; make room there")
        }
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::Unauthorized,
            "the state file cannot be written; make it and its directory writable for this user",
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => (
            ErrorKind::Unauthorized,
            "the state file cannot be opened; check that its directory exists and that this user may write there",
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
            ErrorKind::Corrupt,
            "the state file is damaged or is not a state file; it was left as it is. Restore it from a copy, or move it away",
        ),
        _ => (ErrorKind::Unavailable, "the state file could not be used"),
    };
    // A busy or full commit was surely not done; an I/O error in the middle of one may have been.
    let sure = matches!(kind, ErrorKind::Busy | ErrorKind::NoCapacity | ErrorKind::Unauthorized | ErrorKind::Corrupt);
    let effect = if committing && !sure { Effect::Unknown } else { Effect::None };
    Error::new(kind, operation, resource).with_detail(detail).with_effect(effect).with_source(error)
}
