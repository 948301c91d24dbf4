//! From a path to connections.
//!
//! A new file is made complete under another name and then linked to its own, so that no process ever sees half of one,
//! and of several that start at once one makes it. A process that dies here leaves at most a file `.NAME.new-…` that
//! nobody reads.
//!
//! A file that exists is looked at before it is opened for writing, in a way that changes neither it nor its directory.
//! What is not ours, newer, or damaged is refused and left as it is.
//!
//! The file is never opened by other means than SQLite's: closing a plain descriptor would drop the locks that another
//! store of this process holds on it.

use crate::failure::{cannot_open, failed, refused};
use crate::options::SqliteOptions;
use crate::schema::{self, APPLICATION_ID};
use boxpool::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

const OPERATION: &str = "open store";

/// Which file a path led to: told apart from another one that was put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(file: &Path) -> io::Result<Self> {
        let found = fs::metadata(file)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }
}

/// Makes the file or looks at it, and brings its schema up to date. `steps` are the schema's, or a test's.
pub(crate) fn prepare(file: &Path, options: &SqliteOptions, steps: &[&str]) -> Result<()> {
    match fs::metadata(file) {
        Ok(found) if found.is_dir() => {
            let why = format!("{} is a directory; name a file in it", file.display());
            return Err(Error::new(ErrorKind::Invalid, OPERATION, file.display()).with_detail(why));
        }
        Ok(_) => inspect(file, options, steps)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(file, steps)?;
            inspect(file, options, steps)?;
        }
        Err(error) => return Err(cannot_open(file, error)),
    }
    let mut connection = connect(file, options)?;
    let found = schema::version(&connection).map_err(|error| failed(OPERATION, file.display(), file, error))?;
    if found < schema::newest(steps) {
        let found = schema::migrate(&mut connection, steps)
            .map_err(|error| failed("migrate store", file.display(), file, error))?;
        tracing::info!(file = %file.display(), from = found, to = schema::newest(steps), "store migrated");
    }
    Ok(())
}

/// A connection for reading and writing to a file that was looked at.
pub(crate) fn connect(file: &Path, options: &SqliteOptions) -> Result<Connection> {
    let fail = |error| failed(OPERATION, file.display(), file, error);
    let connection = plain(file, options.lock_wait).map_err(fail)?;
    if connection.is_readonly("main").map_err(fail)? {
        let why = format!("{} and its directory must be writable for this process", file.display());
        return Err(Error::new(ErrorKind::Unauthorized, OPERATION, file.display()).with_detail(why));
    }
    let configure = || -> rusqlite::Result<String> {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", if options.fsync { "FULL" } else { "OFF" })?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cache_size", -16_384)?; // KiB
        connection.query_row("PRAGMA journal_size_limit = 67108864", [], |_| Ok(()))?;
        if let Some(bytes) = options.bytes_max {
            let page: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?.unsigned_abs();
            let pages = i64::try_from(bytes / page.max(1)).unwrap_or(i64::MAX).max(1);
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        }
        Ok(mode)
    };
    match configure() {
        Ok(mode) if mode.eq_ignore_ascii_case("wal") => Ok(connection),
        Ok(mode) => Err(Error::new(ErrorKind::Unavailable, OPERATION, file.display())
            .with_detail(format!("the file system of {} allows only journal mode {mode}", file.display()))),
        // SQLite does not tell why a file beside the database cannot be made; the file system does.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => match probe(file) {
            Ok(()) => Err(fail(error)),
            Err(cause) => Err(cannot_open(file, cause)),
        },
        Err(error) => Err(fail(error)),
    }
}

fn plain(file: &Path, lock_wait: Duration) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(lock_wait)?;
    Ok(connection)
}

/// Whether a file can be made in the directory.
fn probe(file: &Path) -> io::Result<()> {
    let name = beside(file, "probe");
    new_file(&name)?;
    fs::remove_file(name)
}

/// A name beside `file` that nobody else uses.
fn beside(file: &Path, purpose: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{purpose}-{}-{count}", std::process::id()));
    file.with_file_name(name)
}

fn new_file(name: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(name)
}

fn create(file: &Path, steps: &[&str]) -> Result<()> {
    let name = beside(file, "new");
    // A process of the same number may have died here before.
    let _ = fs::remove_file(&name);
    new_file(&name).map_err(|error| cannot_open(file, error))?;
    let made = fill(&name, steps)
        .map_err(|error| failed("create store", file.display(), file, error))
        .and_then(|()| publish(&name, file).map_err(|error| cannot_open(file, error)));
    for leftover in [name.clone(), with_suffix(&name, "-wal"), with_suffix(&name, "-shm")] {
        let _ = fs::remove_file(leftover);
    }
    made
}

fn fill(name: &Path, steps: &[&str]) -> rusqlite::Result<()> {
    let mut connection = plain(name, Duration::ZERO)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    schema::migrate(&mut connection, steps)?;
    // Last, so that marks and schema are in the file itself and not in a log beside it.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

fn publish(name: &Path, file: &Path) -> io::Result<()> {
    File::open(name)?.sync_all()?;
    match fs::hard_link(name, file) {
        // Another process was faster; its file is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    File::open(file.parent().unwrap_or(file))?.sync_all()
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// What changes when anybody writes the file.
fn stamp(file: &Path) -> io::Result<(u64, u64, Option<SystemTime>)> {
    let found = fs::metadata(file)?;
    Ok((found.ino(), found.len(), found.modified().ok()))
}

/// Looks at a file without changing anything.
fn inspect(file: &Path, options: &SqliteOptions, steps: &[&str]) -> Result<()> {
    const LOOKS: u32 = 10;
    let mut looks = 0;
    loop {
        looks += 1;
        let before = stamp(file).map_err(|error| cannot_open(file, error))?;
        if before.1 == 0 {
            let why = format!(
                "{} is empty, which a store never is; restore it from a backup, or remove it to begin anew",
                file.display()
            );
            return Err(refused(file, why));
        }
        // A log beside the file: others use it, or the last one died. Parts of the newest state are only in the log.
        let in_use = || with_suffix(file, "-wal").exists();
        let seen = look_at_rest(file).and_then(|connection| Ok((marks(&connection)?, connection)));
        let seen = match seen {
            // Whose the file is stands in it from the beginning, also while others use it, so this refusal is final.
            Ok((found, connection)) => {
                judge(found, file, steps)?;
                if options.check && !in_use() { check_pages(&connection, file) } else { Ok(()) }
            }
            Err(error) => Err(failed(OPERATION, file.display(), file, error)),
        };
        if in_use() {
            // What seemed damaged may be half of a checkpoint, which the log completes.
            return look_while_in_use(file, options, steps);
        }
        match seen {
            // Somebody may have come, written and gone while we looked, without a reason to wait for us. The first time
            // the file's own stamp is not believed: its clock ticks only every few milliseconds.
            Err(_) if looks == 1 || (looks < LOOKS && stamp(file).ok() != Some(before)) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            seen => return seen,
        }
    }
}

/// Opens the file as if nobody could change it: takes no locks and makes no files beside it.
fn look_at_rest(file: &Path) -> rusqlite::Result<Connection> {
    let mut address = String::from("file:");
    for byte in file.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            address.push(char::from(*byte));
        } else {
            address.push_str(&format!("%{byte:02x}"));
        }
    }
    address.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(address, flags)
}

/// The same look by way of the log that other processes write, or that one left when it died.
fn look_while_in_use(file: &Path, options: &SqliteOptions, steps: &[&str]) -> Result<()> {
    let fail = |error| failed(OPERATION, file.display(), file, error);
    let connection = plain(file, options.lock_wait).map_err(fail)?;
    // Else closing this connection as the last one would write to the file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fail)?;
    judge(marks(&connection).map_err(fail)?, file, steps)?;
    if options.check { check_pages(&connection, file) } else { Ok(()) }
}

/// The marks that tell whose the file is, and of which version.
struct Marks {
    application: i32,
    version: i64,
}

fn marks(connection: &Connection) -> rusqlite::Result<Marks> {
    Ok(Marks { application: schema::application(connection)?, version: schema::version(connection)? })
}

fn judge(Marks { application, version: found }: Marks, file: &Path, steps: &[&str]) -> Result<()> {
    if application != APPLICATION_ID {
        let why = format!("{} belongs to another program; name another file", file.display());
        return Err(refused(file, why));
    }
    let known = schema::newest(steps);
    if found > known {
        let why = format!(
            "{} has schema {found}, and this version knows schemas up to {known}; use the newer version of boxpool",
            file.display()
        );
        return Err(refused(file, why));
    }
    if found < 1 {
        return Err(refused(file, format!("{} has no schema version; restore it from a backup", file.display())));
    }
    Ok(())
}

fn check_pages(connection: &Connection, file: &Path) -> Result<()> {
    let answer: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| failed(OPERATION, file.display(), file, error))?;
    if answer == "ok" {
        return Ok(());
    }
    let answer = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    let why = format!("{} is damaged ({answer}); it was left as it is, restore it from a backup", file.display());
    Err(refused(file, why))
}
