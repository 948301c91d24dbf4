//! A stream that can be closed from outside.
//!
//! The SSH library owns its stream and can be stuck in the middle of a packet or of a full channel. Whoever holds the
//! [`Closer`] ends the stream at once all the same: reads see its end, writes fail. The wrapper also remembers the first
//! line that was read, which in SSH names the peer's software.

use futures::task::AtomicWaker;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Longest first line kept; RFC 4253 allows 255 bytes.
const FIRST_LINE_MAX: usize = 255;

/// Ends a [`Closable`] stream, and tells everyone who asks that it ended.
#[derive(Debug, Clone)]
pub struct Closer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    closed: AtomicBool,
    told: watch::Sender<bool>,
    reader: AtomicWaker,
    writer: AtomicWaker,
    first_line: OnceLock<String>,
    read: AtomicU64,
    written: AtomicU64,
}

impl Default for Closer {
    fn default() -> Self {
        Self(Arc::new(Shared {
            closed: AtomicBool::new(false),
            told: watch::Sender::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            first_line: OnceLock::new(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }))
    }
}

impl Closer {
    /// Ends the stream. Doing it twice is harmless.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.told.send_replace(true);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    /// Whether the stream was ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Returns when the stream was ended.
    pub async fn closed(&self) {
        let mut told = self.0.told.subscribe();
        // The sender lives as long as `self`, so the wait ends only by a close.
        let _ = told.wait_for(|closed| *closed).await;
    }

    /// Bytes that were read from the stream, and written to it.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.0.read.load(Ordering::Relaxed), self.0.written.load(Ordering::Relaxed))
    }

    /// The first line the peer sent, when it has come: in SSH the name of its software.
    #[must_use]
    pub fn first_line(&self) -> Option<&str> {
        self.0.first_line.get().map(String::as_str)
    }
}

/// A stream with a [`Closer`].
pub struct Closable<S> {
    inner: S,
    closer: Closer,
    seen: Option<Vec<u8>>,
}

impl<S> Closable<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, closer: Closer) -> Self {
        Self { inner, closer, seen: Some(Vec::new()) }
    }

    fn notice(&mut self, read: &[u8]) {
        let Some(seen) = &mut self.seen else { return };
        seen.extend_from_slice(&read[..read.len().min(FIRST_LINE_MAX - seen.len())]);
        let end = seen.iter().position(|b| *b == b'\n');
        if end.is_some() || seen.len() >= FIRST_LINE_MAX {
            let line = String::from_utf8_lossy(&seen[..end.unwrap_or(seen.len())]).trim_end().to_owned();
            let _ = self.closer.0.first_line.set(line);
            self.seen = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Closable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.closer.0.reader.register(cx.waker());
        if self.closer.is_closed() {
            return Poll::Ready(Ok(())); // the end of the stream
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if matches!(result, Poll::Ready(Ok(()))) {
            let read = &buf.filled()[before..];
            self.closer.0.read.fetch_add(read.len() as u64, Ordering::Relaxed);
            if self.seen.is_some() {
                self.notice(read);
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Closable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.closer.0.writer.register(cx.waker());
        if self.closer.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = result {
            self.closer.0.written.fetch_add(written as u64, Ordering::Relaxed);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closer.0.writer.register(cx.waker());
        if self.closer.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closer.0.writer.register(cx.waker());
        if self.closer.is_closed() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A TCP socket of which two hold a share: the SSH library reads and writes, the gateway watches for its end.
pub struct SharedSocket(pub Arc<TcpStream>);

impl AsyncRead for SharedSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            std::task::ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for SharedSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Only the sending side, as `TcpStream` does; the rest ends when both shares are dropped.
        Poll::Ready(rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn closing_ends_a_read_that_waits() {
        let (mut peer, inner) = tokio::io::duplex(64);
        let closer = Closer::default();
        let mut stream = Closable::new(inner, closer.clone());
        peer.write_all(b"SSH-2.0-Test_1\r\nrest").await.unwrap();
        let mut buffer = [0; 20];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(closer.first_line(), Some("SSH-2.0-Test_1"));

        let reading = tokio::spawn(async move { stream.read(&mut [0; 8]).await });
        closer.close();

        assert_eq!(reading.await.unwrap().unwrap(), 0);
        closer.closed().await;
    }
}
