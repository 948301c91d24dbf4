//! The audit log: one JSON object a line for each login, channel and connection.
//!
//! Lines are queued and written by a thread of their own, so no connection ever waits for the disk. The queue is bounded:
//! what does not fit, or cannot be written, is counted, and the count is a line of its own as soon as one can be written.
//! The file is opened anew when it is not the one at its path any more, so it can be moved away at any time. Lines that
//! come after [`AuditLog::close`] are written at once, so that a stop loses none. When the process is killed, what was
//! still queued is lost; that is a few milliseconds of lines while the disk keeps up.

use crate::lock::lock;
use crate::moment::rfc3339;
use boxpool::{Clock, Error, ErrorKind, Result, SystemClock};
use serde::Serialize;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most lines that wait to be written.
const QUEUE_MAX: usize = 10_000;

/// How long a close waits for a disk that stands still.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What happened. Fields that are not known are left out; names and meanings only grow.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// Somebody logged in, or did not.
    Login(Login),
    /// A channel ended.
    Channel(Channel),
    /// A connection that had logged in ended.
    Connection(Connection),
    /// A box was woken without a login, or was to be.
    Wake(Wake),
    /// Lines before this one could not be written.
    Lost {
        /// How many.
        lines: u64,
    },
}

/// Who it is and where from: on every line.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Who {
    /// The connection, by its number at this gateway.
    pub connection: String,
    /// Where it comes from.
    pub peer: String,
    /// What the client says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The fingerprint of the key that was proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The login name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
}

/// A login, or an end before it.
#[derive(Debug, Clone, Serialize)]
pub struct Login {
    /// `accepted` or `refused`.
    pub outcome: &'static str,
    /// Of a refused one: a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// Of a refused one: fingerprints of keys that were offered. Nobody has proven to have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub offered: Vec<String>,
    /// From the first byte, in milliseconds.
    pub took_ms: u64,
}

/// A channel, at its end.
#[derive(Debug, Clone, Serialize)]
pub struct Channel {
    /// `shell`, `command`, `subsystem`, `gateway`, `admin`, `forward`, `reverse_forward`, `agent`, `x11` or `none`.
    pub kind: &'static str,
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// The box it led to.
    #[serde(rename = "box", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The subsystem, the word of the gateway's command, the whole command of an administrator; with
    /// `audit_commands` also the command in the box, or where the forward leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Bytes the user sent in it.
    pub bytes_in: u64,
    /// Bytes the user was sent in it.
    pub bytes_out: u64,
    /// The exit status that was passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<u32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<String>,
    /// Until the box had answered, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached_ms: Option<u64>,
    /// From opening to end, in milliseconds.
    pub took_ms: u64,
}

/// A connection, at its end.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    /// `left`, `idle`, `kicked`, `too_many`, `key_removed` or `stopping`.
    pub ended: &'static str,
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// Channels it had in all.
    pub channels: u64,
    /// Bytes that came on the wire.
    pub bytes_in: u64,
    /// Bytes that went on the wire.
    pub bytes_out: u64,
    /// From the first byte to the last, in milliseconds.
    pub took_ms: u64,
}

/// A wake without a login, at its end.
#[derive(Debug, Clone, Serialize)]
pub struct Wake {
    /// `http` or `schedule`.
    pub who: &'static str,
    /// Where the client is, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Whose box.
    pub account: String,
    /// Which.
    #[serde(rename = "box")]
    pub name: String,
    /// A stable word: how it ended.
    pub outcome: &'static str,
    /// Bytes the client sent into the box.
    pub bytes_in: u64,
    /// Bytes the client was sent out of it.
    pub bytes_out: u64,
    /// Until the box had answered, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached_ms: Option<u64>,
    /// From the first byte, or the time in the schedule, to the end, in milliseconds.
    pub took_ms: u64,
}

/// Where lines go; cheap to clone.
#[derive(Clone, Default)]
pub struct AuditLog {
    open: Option<Arc<Open>>,
    commands: bool,
}

struct Open {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.finish();
    }
}

impl AuditLog {
    /// Appends to the file at `path`, which is made for its owner only. `commands`: command lines and targets of
    /// forwards are written, too.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, commands: bool) -> Result<Self> {
        let fail = |error: io::Error| {
            let detail = format!("the audit log {} cannot be written: {error}", path.display());
            Error::new(ErrorKind::Permanent, "open audit log", path.display()).with_detail(detail)
        };
        let shared = Arc::new(Shared::new(LogFile::open(path.to_owned()).map_err(fail)?));
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run()).map_err(fail)?;
        Ok(Self { open: Some(Arc::new(Open { shared, thread: Mutex::new(Some(thread)) })), commands })
    }

    /// Whether command lines and targets of forwards are to be written.
    #[must_use]
    pub fn tells_commands(&self) -> bool {
        self.commands
    }

    /// Writes a line, soon. Does not wait for the disk before [`AuditLog::close`].
    pub fn write(&self, line: Line) {
        if let Some(open) = &self.open {
            open.shared.take(as_text(&line));
        }
    }

    /// Waits until everything is written, within a limit. Lines that come later are written at once.
    pub async fn close(&self) {
        let Some(open) = &self.open else { return };
        open.shared.finish();
        let Some(thread) = lock(&open.thread).take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(CLOSE_LIMIT, joined).await.is_err() {
            tracing::error!("the audit log's disk stands still; its last lines may be lost");
        }
    }
}

fn as_text(line: &Line) -> String {
    #[derive(Serialize)]
    struct Stamped<'a> {
        at: String,
        #[serde(flatten)]
        line: &'a Line,
    }
    // These types hold text and numbers only, which always can be written as JSON.
    let text = serde_json::to_string(&Stamped { at: rfc3339(SystemClock.now()), line });
    text.unwrap_or_default() + "\n"
}

struct Shared {
    queue: Mutex<Queue>,
    bell: Condvar,
    file: Mutex<LogFile>,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<String>,
    /// Lines that did not fit behind those that wait.
    lost: u64,
    closed: bool,
}

impl Shared {
    fn new(file: LogFile) -> Self {
        Self { queue: Mutex::default(), bell: Condvar::new(), file: Mutex::new(file) }
    }

    fn take(&self, line: String) {
        let mut queue = lock(&self.queue);
        if queue.closed {
            drop(queue);
            return lock(&self.file).append(&line);
        }
        if queue.lines.len() < QUEUE_MAX && queue.lost == 0 {
            queue.lines.push_back(line);
        } else {
            queue.lost += 1;
        }
        drop(queue);
        self.bell.notify_one();
    }

    fn finish(&self) {
        lock(&self.queue).closed = true;
        self.bell.notify_one();
    }

    /// Writes what is queued until the log is closed and nothing is left.
    fn run(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.lines.is_empty() && queue.lost == 0 && !queue.closed {
                queue = self.bell.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let (lines, lost, closed) =
                (std::mem::take(&mut queue.lines), std::mem::take(&mut queue.lost), queue.closed);
            drop(queue);
            if closed && lines.is_empty() && lost == 0 {
                return lock(&self.file).sync();
            }
            let mut file = lock(&self.file);
            lines.iter().for_each(|line| file.append(line));
            file.lost(lost);
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    /// Lines that could not be written since the last that could.
    lost: u64,
    /// Whether the last line may stand there in part.
    torn: bool,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, lost: 0, torn: false })
    }

    fn append(&mut self, line: &str) {
        self.reopen_if_moved();
        if !self.told_lost() {
            return self.lost(1);
        }
        if let Err(error) = self.put(line) {
            tracing::error!(path = %self.path.display(), %error, "the audit log cannot be written; lines are lost until it can");
            self.lost(1);
        }
    }

    /// Tells how many lines were lost before; `false` when that cannot be written either.
    fn told_lost(&mut self) -> bool {
        let lines = self.lost;
        if lines > 0 && self.put(&as_text(&Line::Lost { lines })).is_ok() {
            tracing::warn!(lines, "the audit log can be written again; some of its lines are lost");
            self.lost = 0;
        }
        self.lost == 0
    }

    fn lost(&mut self, lines: u64) {
        if lines > 0 {
            self.lost += lines;
            metrics::counter!(crate::meter::AUDIT_LOST).increment(lines);
        }
    }

    /// One write a line: several gateways may share the file.
    fn put(&mut self, line: &str) -> io::Result<()> {
        let written = if self.torn {
            self.file.write_all(format!("\n{line}").as_bytes())
        } else {
            self.file.write_all(line.as_bytes())
        };
        self.torn = written.is_err();
        written
    }

    /// What was moved away is not written to any more.
    fn reopen_if_moved(&mut self) {
        let same = match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        };
        if same {
            return;
        }
        match Self::open(self.path.clone()) {
            Ok(new) => (self.file, self.torn) = (new.file, false),
            // The old file is still better than none.
            Err(error) => tracing::error!(path = %self.path.display(), %error, "the audit log cannot be opened anew"),
        }
    }

    fn sync(&mut self) {
        self.told_lost();
        let _ = self.file.sync_data(); // a pipe cannot, and need not
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> String {
        format!("{{\"n\":{number}}}\n")
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_the_count_is_told_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let shared = Shared::new(LogFile::open(path.clone()).unwrap());
        (0..QUEUE_MAX + 7).for_each(|number| shared.take(numbered(number)));
        shared.finish();
        shared.run();
        shared.take(numbered(1)); // after the close: at once
        let written = lines(&path);
        assert_eq!(written.len(), QUEUE_MAX + 2);
        assert_eq!(written[QUEUE_MAX - 1]["n"], QUEUE_MAX - 1);
        assert_eq!((&written[QUEUE_MAX]["event"], &written[QUEUE_MAX]["lines"]), (&"lost".into(), &7.into()));
        assert_eq!(written[QUEUE_MAX + 1]["n"], 1);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let mut file = LogFile::open(path.clone()).unwrap();
        file.append(&numbered(1));
        std::fs::rename(&path, &old).unwrap();
        file.append(&numbered(2));
        assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn lines_a_full_disk_refuses_are_counted_and_told_when_it_has_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let mut file = LogFile::open("/dev/full".into()).unwrap();
        file.append(&numbered(1));
        file.append(&numbered(2));
        file.path.clone_from(&path); // there is room again
        file.append(&numbered(3));
        let written = lines(&path);
        assert_eq!((&written[0]["lines"], &written[1]["n"]), (&2.into(), &3.into()));
    }
}
