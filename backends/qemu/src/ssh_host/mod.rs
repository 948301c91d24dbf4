//! A host that is reached by SSH: everything that the runtime does on a machine, done on another one.
//!
//! It needs an OpenSSH server, coreutils and `flock` on the host. One connection carries all; when it breaks, what was under
//! way fails as *perhaps done*, and the next call makes a new one. The host's key is pinned: a machine that shows another
//! one is never sent anything.

mod connection;
mod quote;

use crate::host::{Command, FileFacts, Host, Lock, MAX_OUTPUT, Output, Stream, last_of, partial_name};
use async_trait::async_trait;
use boxpool::{Effect, Error, ErrorKind, Result};
use connection::{Connector, Side};
use russh::client::{Handle, Msg};
use russh::keys::{PrivateKey, PublicKey};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelStream};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;

/// sshd allows ten sessions on one connection unless told otherwise (`MaxSessions`); two are left for whoever looks.
const SESSIONS: usize = 8;
/// How long the host may take to open a channel.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// What the network may add to a command's own limit.
const GRACE: Duration = Duration::from_secs(5);
/// The exit code of our scripts for "there is no such file". No program that they run ends with it.
const ABSENT: i32 = 44;
/// `flock`'s exit code when the lock was held all the time.
const HELD: u32 = 75;

/// Where a host is, and as whom to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// A name or address.
    pub host: String,
    /// The port, most often 22.
    pub port: u16,
    /// The login: root, or whoever may run QEMU there.
    pub user: String,
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

/// A machine that is reached by SSH. Cheap to clone; every clone is the same connection.
#[derive(Clone)]
pub struct SshHost {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    sessions: Semaphore,
}

impl fmt::Debug for SshHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshHost").field("address", &self.inner.connector.address).finish_non_exhaustive()
    }
}

impl SshHost {
    /// A host to be reached when it is first needed.
    ///
    /// `key` is an OpenSSH private key without a passphrase, `host_key` the host's public key as in `known_hosts` (`ssh-ed25519 AAAA…`).
    ///
    /// # Errors
    /// `Invalid` when either cannot be read.
    pub fn new(address: SshAddress, key: &str, host_key: &str) -> Result<Self> {
        let invalid = |what: &str, error: &dyn fmt::Display| {
            Error::new(ErrorKind::Invalid, "set up host", &address).with_detail(format!("{what}: {error}"))
        };
        let key = russh::keys::decode_secret_key(key, None).map_err(|error| invalid("our private key", &error))?;
        let pinned = PublicKey::from_openssh(host_key).map_err(|error| invalid("its host key", &error))?;
        Ok(Self::with_keys(address, key, pinned))
    }

    fn with_keys(address: SshAddress, key: PrivateKey, pinned: PublicKey) -> Self {
        let connector = Connector::new(address, key, pinned);
        Self { inner: Arc::new(Inner { connector, sessions: Semaphore::new(SESSIONS) }) }
    }

    fn address(&self) -> &SshAddress {
        &self.inner.connector.address
    }

    async fn session(&self) -> Result<(Channel<Msg>, Arc<Handle<Side>>, SemaphorePermit<'_>)> {
        let permit = tokio::time::timeout(OPEN_LIMIT * 4, self.inner.sessions.acquire()).await;
        let Ok(Ok(permit)) = permit else {
            let detail = "all its sessions are taken; try again";
            return Err(Error::new(ErrorKind::Busy, "open session", self.address()).with_detail(detail));
        };
        let handle = self.inner.connector.get().await?;
        let opened = tokio::time::timeout(OPEN_LIMIT, handle.channel_open_session()).await;
        match opened {
            Ok(Ok(channel)) => Ok((channel, handle, permit)),
            Ok(Err(error)) => Err(self.broken("open session", &error).with_effect(Effect::None)),
            Err(_) => {
                let detail = format!("the host did not open one within {OPEN_LIMIT:?}");
                Err(Error::new(ErrorKind::Unavailable, "open session", self.address()).with_detail(detail))
            }
        }
    }

    fn broken(&self, operation: &'static str, error: &dyn fmt::Display) -> Error {
        let detail = format!("the connection broke: {error}");
        Error::new(ErrorKind::Unavailable, operation, self.address()).with_detail(detail).with_effect(Effect::Unknown)
    }

    /// Runs a command; what it wrote comes as it was written.
    async fn exec(&self, command: &Command) -> Result<Raw> {
        let program = command.program();
        let (mut channel, _connection, _permit) = self.session().await?;
        let begun = Instant::now();
        let all = async {
            channel.exec(true, quote::line(command.argv(), command.time().as_secs_f64())).await?;
            // The program may end without having read it all.
            if !command.input().is_empty() {
                let _ = channel.data(command.input()).await;
            }
            let _ = channel.eof().await;
            let mut raw = Raw::default();
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => keep(&mut raw.stdout, &data),
                    ChannelMsg::ExtendedData { data, .. } => keep(&mut raw.stderr, &data),
                    ChannelMsg::ExitStatus { exit_status } => raw.code = i32::try_from(exit_status).ok(),
                    ChannelMsg::ExitSignal { .. } => raw.killed = true,
                    ChannelMsg::Failure => raw.refused = true,
                    _ => {}
                }
            }
            Ok::<Raw, russh::Error>(raw)
        };
        let timed_out = || {
            let detail = format!("it did not end within {:?} and was killed", command.time());
            Error::new(ErrorKind::TimedOut, "run command", &program).with_detail(detail).with_effect(Effect::Unknown)
        };
        let raw = match tokio::time::timeout(command.time() + GRACE, all).await {
            Ok(Ok(raw)) => raw,
            Ok(Err(error)) => return Err(self.broken("run command", &error)),
            Err(_) => return Err(timed_out()),
        };
        // 137 is what a shell makes of SIGKILL, which `timeout` sends.
        if begun.elapsed() >= command.time() && (raw.code == Some(137) || raw.killed) {
            return Err(timed_out());
        }
        if raw.refused {
            let detail = "the host does not let this login run commands";
            return Err(Error::new(ErrorKind::Unauthorized, "run command", &program).with_detail(detail));
        }
        if raw.code.is_none() && !raw.killed {
            return Err(self.broken("run command", &"it ended before the command did"));
        }
        if raw.code == Some(127) && String::from_utf8_lossy(&raw.stderr).contains("No such file or directory") {
            let detail = format!("there is no program {program} on {}; install it", self.address());
            return Err(Error::new(ErrorKind::NotFound, "run command", &program).with_detail(detail));
        }
        Ok(raw)
    }

    /// Runs one of our own scripts.
    async fn script(&self, operation: &'static str, path: &Path, command: Command) -> Result<Raw> {
        let raw = self.exec(&command).await?;
        match raw.code {
            Some(0 | ABSENT) => Ok(raw),
            _ => {
                let words = last_of(&String::from_utf8_lossy(&raw.stderr));
                let has = |text: &str| words.contains(text);
                let kind = match () {
                    () if has("No space left") || has("Disk quota exceeded") => ErrorKind::NoCapacity,
                    () if has("Permission denied") || has("Read-only file system") => ErrorKind::Unauthorized,
                    () if has("No such file or directory") || has("nonexistent") => ErrorKind::NotFound,
                    () => ErrorKind::Unavailable,
                };
                Err(Error::new(kind, operation, path.display()).with_detail(words))
            }
        }
    }

    fn stream(&self, channel: Channel<Msg>, connection: Arc<Handle<Side>>) -> Box<dyn Stream> {
        Box::new(Kept { stream: channel.into_stream(), _connection: connection })
    }
}

/// What a command left.
#[derive(Debug, Default)]
struct Raw {
    code: Option<i32>,
    killed: bool,
    refused: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Keeps the first of it; the rest is read and thrown away, so that the program can end.
fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = usize::try_from(MAX_OUTPUT).unwrap_or(usize::MAX).saturating_sub(kept.len());
    kept.extend_from_slice(&data[..data.len().min(room)]);
}

fn sh(script: &str) -> Command {
    Command::new("sh").arg("-c").arg(script).arg("sh")
}

/// Whole or not at all: a connection that breaks in the middle leaves less than was announced, and then nothing is renamed.
const PUT: &str = r#"
set -e
umask 077
trap 'rm -f -- "$1"' EXIT
cat >"$1"
[ "$(stat -c %s -- "$1")" = "$3" ] || { echo "the content did not come whole" >&2; exit 1; }
chmod -- "$4" "$1"
sync -- "$1"
mv -fT -- "$1" "$2"
sync -- "$(dirname -- "$2")"
trap - EXIT
"#;

#[async_trait]
impl Host for SshHost {
    async fn run(&self, command: Command) -> Result<Output> {
        let raw = self.exec(&command).await?;
        Ok(Output {
            success: raw.code == Some(0),
            code: raw.code,
            stdout: String::from_utf8_lossy(&raw.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&raw.stderr).into_owned(),
        })
    }

    async fn open_unix(&self, path: &Path) -> Result<Option<Box<dyn Stream>>> {
        let handle = self.inner.connector.get().await?;
        let open = handle.channel_open_direct_streamlocal(path.to_string_lossy());
        match tokio::time::timeout(OPEN_LIMIT, open).await {
            Ok(Ok(channel)) => Ok(Some(self.stream(channel, Arc::clone(&handle)))),
            Ok(Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed))) => Ok(None),
            Ok(Err(error)) => Err(self.broken("open socket", &error)),
            Err(_) => {
                let detail = format!("the host did not open it within {OPEN_LIMIT:?}");
                Err(Error::new(ErrorKind::Unavailable, "open socket", path.display()).with_detail(detail))
            }
        }
    }

    async fn open_tcp(&self, address: SocketAddr) -> Result<Box<dyn Stream>> {
        let handle = self.inner.connector.get().await?;
        let open = handle.channel_open_direct_tcpip(
            address.ip().to_string(),
            u32::from(address.port()),
            "127.0.0.1".to_owned(),
            0,
        );
        match tokio::time::timeout(OPEN_LIMIT, open).await {
            Ok(Ok(channel)) => Ok(self.stream(channel, Arc::clone(&handle))),
            Ok(Err(error)) => {
                Err(Error::new(ErrorKind::Unavailable, "open port", address).with_detail(error.to_string()))
            }
            Err(_) => {
                let detail = format!("the host did not open it within {OPEN_LIMIT:?}");
                Err(Error::new(ErrorKind::Unavailable, "open port", address).with_detail(detail))
            }
        }
    }

    async fn put(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let command = sh(PUT)
            .arg(partial_name(path))
            .arg(path)
            .arg(content.len().to_string())
            .arg(format!("{mode:o}"))
            .stdin(content);
        self.script("write file", path, command).await.map(drop)
    }

    async fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let script = format!("[ -e \"$1\" ] || exit {ABSENT}; exec head -c {MAX_OUTPUT} -- \"$1\"");
        match self.script("read file", path, sh(&script).arg(path)).await {
            Ok(raw) if raw.code == Some(ABSENT) => Ok(None),
            Ok(raw) => Ok(Some(raw.stdout)),
            // Gone between the look and the reading; or a process's file under /proc, when the process has just ended.
            Err(error) if error.kind() == ErrorKind::NotFound || error.to_string().contains("No such process") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn look(&self, path: &Path) -> Result<Option<FileFacts>> {
        let command = Command::new("stat").arg("-L").arg("-c").arg("%s %b %B").arg("--").arg(path);
        let raw = match self.script("look at file", path, command).await {
            Ok(raw) => raw,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&raw.stdout);
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers.as_slice() {
            [bytes, blocks, size] => {
                Ok(Some(FileFacts { bytes: *bytes, allocated_bytes: blocks.saturating_mul(*size) }))
            }
            _ => Err(self.puzzling("look at file", &text)),
        }
    }

    async fn remove(&self, files: &[PathBuf]) -> Result<()> {
        let first = files.first().cloned().unwrap_or_default();
        let command = Command::new("rm").arg("-f").arg("--").args(files);
        self.script("remove file", &first, command).await.map(drop)
    }

    async fn free_bytes(&self, at: &Path) -> Result<u64> {
        let command = Command::new("stat").arg("-f").arg("-c").arg("%a %S").arg("--").arg(at);
        let raw = self.script("check disk space", at, command).await?;
        let text = String::from_utf8_lossy(&raw.stdout);
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers.as_slice() {
            [blocks, size] => Ok(blocks.saturating_mul(*size)),
            _ => Err(self.puzzling("check disk space", &text)),
        }
    }

    /// Held by a process on the host that ends with its input: when this is dropped, and when the connection or this process dies.
    async fn lock(&self, path: &Path, limit: Duration) -> Result<Box<dyn Lock>> {
        let (mut channel, connection, _permit) = self.session().await?;
        let script =
            "[ -d \"${1%/*}\" ] || exit 44; exec flock -w \"$2\" -E 75 \"$1\" sh -c 'echo held; exec cat >/dev/null'";
        let command = sh(script).arg(path).arg(format!("{:.3}", limit.as_secs_f64()));
        // A day: longer than any lock is held.
        let line = quote::line(command.argv(), 86_400.0);
        channel.exec(true, line).await.map_err(|error| self.broken("take lock", &error))?;
        let mut complaint = Vec::new();
        let held = async {
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { .. } => return Ok(()),
                    ChannelMsg::ExtendedData { data, .. } => keep(&mut complaint, &data),
                    ChannelMsg::ExitStatus { exit_status } => return Err(Some(exit_status)),
                    _ => {}
                }
            }
            Err(None)
        };
        let busy = || {
            let detail = format!("another process has held it for {limit:?}; try again");
            Error::new(ErrorKind::Busy, "take lock", path.display()).with_detail(detail)
        };
        match tokio::time::timeout(limit + GRACE, held).await {
            Ok(Ok(())) => {}
            Ok(Err(Some(HELD))) | Err(_) => return Err(busy()),
            Ok(Err(Some(code))) if code.try_into() == Ok(ABSENT) => {
                let detail = "there is no such folder";
                return Err(Error::new(ErrorKind::NotFound, "take lock", path.display()).with_detail(detail));
            }
            Ok(Err(None)) => return Err(self.broken("take lock", &"it ended")),
            Ok(Err(Some(_))) => {
                let words = last_of(&String::from_utf8_lossy(&complaint));
                return Err(Error::new(ErrorKind::Unavailable, "take lock", path.display()).with_detail(words));
            }
        }
        let (guard, mut dropped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _connection = connection;
            loop {
                tokio::select! {
                    // The other end is never used, only dropped.
                    _ = &mut dropped => break,
                    message = channel.wait() => if message.is_none() { break },
                }
            }
            let _ = channel.eof().await;
            let _ = channel.close().await;
        });
        Ok(Box::new(RemoteLock(guard)))
    }
}

impl SshHost {
    fn puzzling(&self, operation: &'static str, text: &str) -> Error {
        let detail = format!("its answer was not understood: {}", last_of(text));
        Error::new(ErrorKind::Permanent, operation, self.address()).with_detail(detail)
    }
}

/// Unlocked when it is dropped.
struct RemoteLock(#[allow(dead_code)] oneshot::Sender<()>);
impl Lock for RemoteLock {}

/// A channel, and the connection that carries it.
struct Kept {
    stream: ChannelStream<Msg>,
    _connection: Arc<Handle<Side>>,
}

impl AsyncRead for Kept {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Kept {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
