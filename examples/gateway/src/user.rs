//! The user's side of a session channel.
//!
//! Every method gives up silently when the user is gone: the reading side of the channel is where that is noticed.
//!
//! What sends is boxed: the SSH library's future for one message has room for several, and whoever waits for something to send, as
//! a session does nearly always, would keep that room.

use crate::visit::ChannelRecord;
use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};

/// Extended data that is standard error.
const STDERR: u32 = 1;

/// Longest piece handed to the SSH library at once.
const PIECE: usize = 32 * 1024;

/// Writes to a user's session channel.
pub struct UserSide {
    handle: Handle,
    write: ChannelWriteHalf<Msg>,
    terminal: std::sync::atomic::AtomicBool,
    /// What is told of the channel when this is dropped.
    pub record: ChannelRecord,
}

impl UserSide {
    /// Takes over the writing side of a channel, of which `record` tells.
    #[must_use]
    pub fn new(handle: Handle, write: ChannelWriteHalf<Msg>, record: ChannelRecord) -> Self {
        Self { handle, write, terminal: std::sync::atomic::AtomicBool::new(false), record }
    }

    /// Notes that the user's terminal is in raw mode, so that lines need a carriage return.
    pub fn set_terminal(&self, terminal: bool) {
        self.terminal.store(terminal, std::sync::atomic::Ordering::Relaxed);
    }

    fn for_terminal(&self, text: &str) -> Vec<u8> {
        if self.terminal.load(std::sync::atomic::Ordering::Relaxed) {
            text.replace('\n', "\r\n").into_bytes()
        } else {
            text.as_bytes().to_vec()
        }
    }

    /// The request that was made last succeeded.
    pub async fn success(&self) {
        let _ = Box::pin(self.handle.channel_success(self.write.id())).await;
    }

    /// The request that was made last failed.
    pub async fn failure(&self) {
        let _ = Box::pin(self.handle.channel_failure(self.write.id())).await;
    }

    /// Bytes from the box.
    pub async fn stdout(&self, data: impl Into<Bytes>) {
        let data = data.into();
        self.record.said(data.len());
        let _ = Box::pin(self.write.data_bytes(data)).await;
    }

    /// Bytes from the box on another stream; 1 is standard error.
    pub async fn extended(&self, stream: u32, data: impl Into<Bytes>) {
        let data = data.into();
        self.record.said(data.len());
        let _ = Box::pin(self.write.extended_data_bytes(stream, data)).await;
    }

    /// Text of the gateway on standard output.
    pub async fn print(&self, text: &str) {
        for piece in self.for_terminal(text).chunks(PIECE) {
            self.record.said(piece.len());
            let _ = Box::pin(self.write.data_bytes(piece.to_vec())).await;
        }
    }

    /// A line of the gateway on standard error.
    pub async fn stderr_line(&self, line: &str) {
        let text = self.for_terminal(&format!("{line}\n"));
        self.record.said(text.len());
        let _ = Box::pin(self.write.extended_data_bytes(STDERR, text)).await;
    }

    /// Nothing more will be written.
    pub async fn eof(&self) {
        let _ = Box::pin(self.write.eof()).await;
    }

    /// How it ended.
    pub async fn exit_status(&self, status: u32) {
        self.record.exited(status);
        let _ = Box::pin(self.write.exit_status(status)).await;
    }

    /// Which signal ended it.
    pub async fn exit_signal(&self, signal: Sig, core_dumped: bool, message: String, language: String) {
        self.record.was_signalled(format!("{signal:?}"));
        let _ =
            Box::pin(self.handle.exit_signal_request(self.write.id(), signal, core_dumped, message, language)).await;
    }

    /// Whether the client may stop output by itself.
    pub async fn xon_xoff(&self, client_can_do: bool) {
        let _ = Box::pin(self.handle.xon_xoff_request(self.write.id(), client_can_do)).await;
    }

    /// Closes the channel.
    pub async fn close(&self) {
        let _ = Box::pin(self.write.close()).await;
    }

    /// Ends the channel with an exit status. The status goes before the end of output: a client may close the channel as
    /// soon as it sees that end, and the SSH library forgets a channel that is closed.
    pub async fn finish(&self, status: u32) {
        self.exit_status(status).await;
        self.eof().await;
        self.close().await;
    }
}
