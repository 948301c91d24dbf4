//! A host on which the caller dies, or a step fails, at a chosen step. A step is a call of the host or something written
//! to a QEMU.

use async_trait::async_trait;
use boxpool::{Error, ErrorKind, Result};
use boxpool_qemu::{Command, FileFacts, Host, LocalHost, Lock, Output, Stream};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// What happens at the chosen step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller is gone: neither this step nor anything after it happens, and no error path runs.
    Death,
    /// This step alone fails.
    Failure,
}

pub struct FaultyHost {
    plan: Arc<Plan>,
}

/// Counts steps down to the chosen one.
pub struct Plan {
    fault: Fault,
    left: AtomicU64,
    struck: AtomicBool,
    moved: Notify,
}

const NEVER: u64 = u64::MAX / 2;

impl Plan {
    pub fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, left: AtomicU64::new(NEVER), struck: AtomicBool::new(false), moved: Notify::new() })
    }

    /// From now on, the step after so many goes wrong.
    pub fn arm(&self, steps: u64) {
        self.struck.store(false, Ordering::SeqCst);
        self.left.store(steps, Ordering::SeqCst);
    }

    /// Waits until the fault has struck. What is waited for is that state: a notice could be an earlier fault's.
    pub async fn struck(&self) {
        loop {
            let moved = self.moved.notified();
            if self.struck.load(Ordering::SeqCst) {
                return;
            }
            moved.await;
        }
    }

    /// Nothing goes wrong any more. Says whether anything did since it was armed.
    pub fn disarm(&self) -> bool {
        self.left.store(NEVER, Ordering::SeqCst);
        self.struck.swap(false, Ordering::SeqCst)
    }

    /// Whether the fault strikes at this step. It strikes once, and death lasts.
    fn strikes(&self) -> bool {
        match self.left.load(Ordering::SeqCst) {
            0 => {
                if self.fault == Fault::Failure {
                    self.left.store(NEVER, Ordering::SeqCst);
                }
                self.struck.store(true, Ordering::SeqCst);
                self.moved.notify_waiters();
                true
            }
            _ => {
                self.left.fetch_sub(1, Ordering::SeqCst);
                false
            }
        }
    }

    async fn step(&self, what: &'static str) -> Result<()> {
        if !self.strikes() {
            return Ok(());
        }
        match self.fault {
            Fault::Death => std::future::pending().await,
            Fault::Failure => Err(Error::new(ErrorKind::Unavailable, what, "host").with_detail("struck by the test")),
        }
    }
}

impl FaultyHost {
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { plan }
    }
}

#[async_trait]
impl Host for FaultyHost {
    async fn run(&self, command: Command) -> Result<Output> {
        self.plan.step("run").await?;
        LocalHost.run(command).await
    }
    async fn open_unix(&self, path: &Path) -> Result<Option<Box<dyn Stream>>> {
        self.plan.step("open socket").await?;
        let stream = LocalHost.open_unix(path).await?;
        Ok(stream.map(|stream| Box::new(FaultyStream { stream, plan: self.plan.clone() }) as Box<dyn Stream>))
    }
    async fn open_tcp(&self, address: SocketAddr) -> Result<Box<dyn Stream>> {
        self.plan.step("open port").await?;
        LocalHost.open_tcp(address).await
    }
    async fn put(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        self.plan.step("put").await?;
        LocalHost.put(path, content, mode).await
    }
    async fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        self.plan.step("read").await?;
        LocalHost.read(path).await
    }
    async fn look(&self, path: &Path) -> Result<Option<FileFacts>> {
        self.plan.step("look").await?;
        LocalHost.look(path).await
    }
    async fn remove(&self, files: &[PathBuf]) -> Result<()> {
        self.plan.step("remove").await?;
        LocalHost.remove(files).await
    }
    async fn free_bytes(&self, at: &Path) -> Result<u64> {
        self.plan.step("check space").await?;
        LocalHost.free_bytes(at).await
    }
    async fn lock(&self, path: &Path, limit: std::time::Duration) -> Result<Box<dyn Lock>> {
        self.plan.step("lock").await?;
        LocalHost.lock(path, limit).await
    }
}

struct FaultyStream {
    stream: Box<dyn Stream>,
    plan: Arc<Plan>,
}

impl AsyncRead for FaultyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.plan.strikes() {
            return match self.plan.fault {
                Fault::Death => Poll::Pending,
                Fault::Failure => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
            };
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
