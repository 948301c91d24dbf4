//! The machine that boxes run on, as far as the runtime needs it: run a command, open a socket, put and read a file,
//! take a lock. [`LocalHost`] is this machine; a host reached by SSH can implement the same.

use async_trait::async_trait;
use boxpool::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// A byte stream to something on the host.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A command: a program and its arguments, never a line for a shell to take apart.
#[derive(Clone)]
pub struct Command {
    argv: Vec<OsString>,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Command {
    /// A program, to be found on the path or by an absolute name, with a limit of 30 seconds.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { argv: vec![program.into()], stdin: Vec::new(), limit: Duration::from_secs(30) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// What it reads from its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may run; then it is killed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The program and its arguments.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// What it reads.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        &self.stdin
    }

    /// How long it may run.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.limit
    }

    pub(crate) fn program(&self) -> String {
        self.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl fmt::Debug for Command {
    // Standard input may carry a key: never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("argv", &self.argv).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// What a command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether it ended with 0.
    pub success: bool,
    /// Its exit code, if it had one.
    pub code: Option<i32>,
    /// What it wrote, at most 1 MiB.
    pub stdout: String,
    /// What it complained about, at most 1 MiB.
    pub stderr: String,
}

pub(crate) const MAX_OUTPUT: u64 = 1024 * 1024;

/// What is known of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Its length in bytes.
    pub bytes: u64,
    /// What it takes on the disk: less, when it has holes.
    pub allocated_bytes: u64,
}

/// A lock that is held until this is dropped, or until the process dies.
pub trait Lock: Send + Sync {}

/// A machine that boxes run on.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// `NotFound` when there is no such program, `TimedOut` when it was killed at its limit. A command that ran and failed is `Ok`.
    async fn run(&self, command: Command) -> Result<Output>;

    /// Connects to a unix socket. `None` when nobody listens there.
    ///
    /// # Errors
    /// Whatever else went wrong.
    async fn open_unix(&self, path: &Path) -> Result<Option<Box<dyn Stream>>>;

    /// Connects to a TCP port as the host sees it.
    ///
    /// # Errors
    /// `Unavailable` when nobody listens there.
    async fn open_tcp(&self, address: SocketAddr) -> Result<Box<dyn Stream>>;

    /// Writes a file so that after any crash it is there as a whole, with the old or the new content.
    ///
    /// # Errors
    /// `NoCapacity` when the disk is full; nothing changed then.
    async fn put(&self, path: &Path, content: &[u8], mode: u32) -> Result<()>;

    /// Reads a file of at most 1 MiB; `None` when there is none.
    ///
    /// # Errors
    /// Whatever else went wrong.
    async fn read(&self, path: &Path) -> Result<Option<Vec<u8>>>;

    /// Looks at a file or folder, following links; `None` when it surely is not there. An error never means absence.
    ///
    /// # Errors
    /// Whatever else went wrong.
    async fn look(&self, path: &Path) -> Result<Option<FileFacts>>;

    /// Removes files. One that is absent is success.
    ///
    /// # Errors
    /// Whatever else went wrong.
    async fn remove(&self, files: &[PathBuf]) -> Result<()>;

    /// Gives files and folders (not what is in them) to another user and group. Needs root.
    ///
    /// # Errors
    /// `Permanent`, with the host's words.
    async fn give(&self, files: &[PathBuf], (user, group): (u32, u32)) -> Result<()> {
        let output = self.run(Command::new("chown").arg(format!("{user}:{group}")).args(files)).await?;
        if output.success {
            return Ok(());
        }
        let first = files.first().cloned().unwrap_or_default();
        let detail = last_of(&output.stderr);
        Err(Error::new(ErrorKind::Permanent, "give file away", first.display()).with_detail(detail))
    }

    /// How much a file system has left for us, in bytes.
    ///
    /// # Errors
    /// `NotFound` when there is no such path.
    async fn free_bytes(&self, at: &Path) -> Result<u64>;

    /// Takes the lock that this file stands for, waiting at most so long. The file is created and stays.
    ///
    /// # Errors
    /// `Busy` when somebody else holds it all the time; `NotFound` when its folder is not there.
    async fn lock(&self, path: &Path, limit: Duration) -> Result<Box<dyn Lock>>;
}

/// Runs a command that must succeed.
///
/// # Errors
/// [`Host::run`]'s; `Permanent`, with the last of what it complained about, when it failed.
pub(crate) async fn must(host: &dyn Host, operation: &'static str, command: Command) -> Result<Output> {
    let program = command.program();
    let output = host.run(command).await?;
    if output.success {
        return Ok(output);
    }
    let kind =
        if output.stderr.contains("No space left on device") { ErrorKind::NoCapacity } else { ErrorKind::Permanent };
    let code = output.code.map_or_else(|| "a signal".into(), |code| format!("exit code {code}"));
    let detail = format!("{program} ended with {code}: {}", last_of(&output.stderr));
    Err(Error::new(kind, operation, program).with_detail(detail))
}

/// The last of a text that may be long and from outside: on one line, without control characters.
#[must_use]
pub(crate) fn last_of(text: &str) -> String {
    let start = text.char_indices().rev().nth(600).map_or(0, |(place, _)| place);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text[start..].trim().chars().map(clean).collect()
}

/// This machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalHost;

impl LocalHost {
    fn failed(operation: &'static str, path: &Path, error: std::io::Error) -> Error {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Unauthorized,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoCapacity,
            _ => ErrorKind::Unavailable,
        };
        let detail = error.to_string();
        Error::new(kind, operation, path.display()).with_detail(detail).with_source(error)
    }
}

#[async_trait]
impl Host for LocalHost {
    async fn run(&self, command: Command) -> Result<Output> {
        let program = command.program();
        let mut child = tokio::process::Command::new(&command.argv[0]);
        child.args(&command.argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Out of our terminal's reach: Ctrl-C there must not end a box.
        child.process_group(0).kill_on_drop(true);
        let mut child = child.spawn().map_err(|error| {
            let detail = match error.kind() {
                std::io::ErrorKind::NotFound => format!("there is no program {program} here; install it"),
                _ => error.to_string(),
            };
            let kind =
                if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Unavailable };
            Error::new(kind, "run command", &program).with_detail(detail).with_source(error)
        })?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input ends all the same.
                let _ = stdin.write_all(&command.stdin).await;
            }
        };
        let all = async {
            let ((), stdout, stderr, status) = tokio::join!(feed, drain(stdout), drain(stderr), child.wait());
            status.map(|status| Output { success: status.success(), code: status.code(), stdout, stderr })
        };
        match tokio::time::timeout(command.limit, all).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(Error::new(ErrorKind::Unavailable, "run command", program).with_source(error)),
            Err(_) => {
                let detail = format!("it did not end within {:?} and was killed", command.limit);
                Err(Error::new(ErrorKind::TimedOut, "run command", program).with_detail(detail))
            }
        }
    }

    async fn open_unix(&self, path: &Path) -> Result<Option<Box<dyn Stream>>> {
        use std::io::ErrorKind as Io;
        match tokio::net::UnixStream::connect(path).await {
            Ok(stream) => Ok(Some(Box::new(stream))),
            Err(error) if matches!(error.kind(), Io::NotFound | Io::ConnectionRefused) => Ok(None),
            Err(error) => Err(Self::failed("open socket", path, error)),
        }
    }

    async fn open_tcp(&self, address: SocketAddr) -> Result<Box<dyn Stream>> {
        let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "open port", address).with_detail(error.to_string()).with_source(error)
        })?;
        Ok(Box::new(stream))
    }

    async fn put(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let (target, content) = (path.to_owned(), content.to_owned());
        blocking("write file", path, move || put_blocking(&target, &content, mode)).await
    }

    async fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let file = match tokio::fs::File::open(path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Self::failed("read file", path, error)),
        };
        let mut content = Vec::new();
        match file.take(MAX_OUTPUT).read_to_end(&mut content).await {
            Ok(_) => Ok(Some(content)),
            // A process's file under /proc, when the process has just ended.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(Self::failed("read file", path, error)),
        }
    }

    // These are single system calls: quicker done than handed to another thread.
    async fn look(&self, path: &Path) -> Result<Option<FileFacts>> {
        use std::os::unix::fs::MetadataExt;
        match std::fs::metadata(path) {
            Ok(found) => Ok(Some(FileFacts { bytes: found.len(), allocated_bytes: found.blocks() * 512 })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Self::failed("look at file", path, error)),
        }
    }

    async fn remove(&self, files: &[PathBuf]) -> Result<()> {
        let files = files.to_owned();
        let first = files.first().cloned().unwrap_or_default();
        blocking("remove file", &first, move || {
            files.iter().try_for_each(|file| match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
        })
        .await
    }

    async fn give(&self, files: &[PathBuf], (user, group): (u32, u32)) -> Result<()> {
        files.iter().try_for_each(|file| {
            std::os::unix::fs::chown(file, Some(user), Some(group))
                .map_err(|error| Self::failed("give file away", file, error))
        })
    }

    async fn free_bytes(&self, at: &Path) -> Result<u64> {
        let facts = rustix::fs::statvfs(at).map_err(|error| Self::failed("check disk space", at, error.into()))?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }

    async fn lock(&self, path: &Path, limit: Duration) -> Result<Box<dyn Lock>> {
        let deadline = Instant::now() + limit;
        let target = path.to_owned();
        let file = blocking("open lock", path, move || {
            std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(target)
        })
        .await?;
        let mut pause = Duration::from_millis(2);
        loop {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Box::new(FileLock(file))),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < deadline => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let detail = format!("another process has held it for {limit:?}; try again");
                    return Err(Error::new(ErrorKind::Busy, "take lock", path.display()).with_detail(detail));
                }
                Err(error) => return Err(Self::failed("take lock", path, error.into())),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Unlocked when the file is closed.
struct FileLock(#[allow(dead_code)] std::fs::File);
impl Lock for FileLock {}

async fn drain(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(MAX_OUTPUT).read_to_end(&mut kept).await;
        // What is beyond the limit is read and thrown away, so that the program can end.
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).into_owned()
}

async fn blocking<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    done.map_err(|error| LocalHost::failed(operation, path, error))
}

fn put_blocking(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let partial = partial_name(path);
    let _ = std::fs::remove_file(&partial);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&partial, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

pub(crate) fn partial_name(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{}.partial", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = LocalHost.run(Command::new("no-such-program")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no-such-program"));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_at_its_limit() {
        let command = Command::new("sleep").arg("1000").limit(Duration::from_millis(100));
        assert_eq!(LocalHost.run(command).await.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn input_and_output_are_whole_and_arguments_are_not_taken_apart() {
        let big = vec![b'x'; 300_000];
        let output = LocalHost.run(Command::new("cat").stdin(big.clone())).await.unwrap();
        assert_eq!(output.stdout.len(), big.len());
        let output = LocalHost.run(Command::new("echo").arg("$(id); 'a b'")).await.unwrap();
        assert_eq!(output.stdout, "$(id); 'a b'\n");
    }

    #[tokio::test]
    async fn a_lock_excludes_and_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = LocalHost.lock(&path, Duration::ZERO).await.unwrap();
        let refused = LocalHost.lock(&path, Duration::from_millis(20)).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::Busy));
        drop(held);
        LocalHost.lock(&path, Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_is_put_whole_with_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        LocalHost.put(&path, b"one", 0o600).await.unwrap();
        LocalHost.put(&path, b"two", 0o600).await.unwrap();
        assert_eq!(LocalHost.read(&path).await.unwrap().unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no partial file stays");
        assert!(LocalHost.read(&dir.path().join("none")).await.unwrap().is_none());
    }
}
