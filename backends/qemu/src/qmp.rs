//! A client for QMP, QEMU's control protocol, over any byte stream: greeting, capabilities, commands matched to their
//! answers by id. Events are passed over; states are asked for, never inferred from what went by.
//!
//! Source: QEMU's `docs/interop/qmp-spec.txt`. QMP serves one client at a time, so a connection is short.

use crate::host::{Host, Stream, last_of};
use boxpool::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::time::Instant;

/// How long QEMU may take for the greeting and for each answer. Its main loop answers in milliseconds; a host that swaps may be slow.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// The longest line that is taken from QEMU or from a guest's agent.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// A connection to one QEMU.
pub(crate) struct Qmp {
    lines: Lines,
    next_id: u64,
}

impl Qmp {
    /// Connects and negotiates. `None` when no QEMU listens there.
    pub(crate) async fn connect(host: &dyn Host, socket: &Path) -> Result<Option<Self>> {
        let Some(stream) = host.open_unix(socket).await? else { return Ok(None) };
        let mut qmp = Self { lines: Lines::new(stream), next_id: 0 };
        let greeting = qmp.lines.read("greet QEMU", ANSWER_LIMIT).await;
        match greeting {
            Ok(greeting) if greeting.get("QMP").is_some() => {}
            Ok(other) => {
                let detail = format!("not QEMU's greeting: {}", last_of(&other.to_string()));
                return Err(Error::new(ErrorKind::Permanent, "greet QEMU", socket.display()).with_detail(detail));
            }
            // It was just ending.
            Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(None),
            Err(error) => return Err(error),
        }
        qmp.call("qmp_capabilities", Value::Null).await?;
        Ok(Some(qmp))
    }

    /// Runs a command and returns its answer.
    ///
    /// # Errors
    /// `Permanent` with QEMU's words when it refuses; `Unavailable` when QEMU went away; `TimedOut`.
    pub(crate) async fn call(&mut self, command: &'static str, arguments: Value) -> Result<Value> {
        self.next_id += 1;
        let mut request = json!({"execute": command, "id": self.next_id});
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        self.lines.write(command, &request).await?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let mut answer = self.lines.read(command, deadline.duration_since(Instant::now())).await?;
            if answer.get("id").and_then(Value::as_u64) != Some(self.next_id) {
                continue; // an event
            }
            if let Some(error) = answer.get("error") {
                let words = error.get("desc").and_then(Value::as_str).unwrap_or("no description");
                return Err(Error::new(ErrorKind::Permanent, command, "QEMU").with_detail(last_of(words)));
            }
            return Ok(answer["return"].take());
        }
    }

    /// The run state: `running`, `paused`, `inmigrate`, `postmigrate`, …
    pub(crate) async fn run_state(&mut self) -> Result<String> {
        let answer = self.call("query-status", Value::Null).await?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    /// A command of the human monitor; only for what QMP cannot tell.
    pub(crate) async fn human(&mut self, line: &'static str) -> Result<String> {
        let answer = self.call("human-monitor-command", json!({"command-line": line})).await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }
}

/// JSON, a line each way.
pub(crate) struct Lines {
    reader: BufReader<ReadHalf<Box<dyn Stream>>>,
    writer: WriteHalf<Box<dyn Stream>>,
}

impl Lines {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader: BufReader::new(reader), writer }
    }

    pub(crate) async fn write(&mut self, operation: &'static str, value: &Value) -> Result<()> {
        let mut line = value.to_string().into_bytes();
        line.push(b'\n');
        self.write_raw(operation, &line).await
    }

    pub(crate) async fn write_raw(&mut self, operation: &'static str, bytes: &[u8]) -> Result<()> {
        let write = tokio::time::timeout(ANSWER_LIMIT, self.writer.write_all(bytes));
        match write.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::new(ErrorKind::Unavailable, operation, "QEMU").with_source(error)),
            Err(_) => Err(Error::new(ErrorKind::TimedOut, operation, "QEMU").with_detail("it does not read")),
        }
    }

    /// The next line that is JSON.
    pub(crate) async fn read(&mut self, operation: &'static str, limit: Duration) -> Result<Value> {
        let read = async {
            loop {
                let mut line = Vec::new();
                let n = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut line).await?;
                if n == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
                }
                if let Ok(value) = serde_json::from_slice::<Value>(&line) {
                    return Ok(value);
                }
            }
        };
        match tokio::time::timeout(limit, read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let detail = "the connection was closed";
                Err(Error::new(ErrorKind::Unavailable, operation, "QEMU").with_detail(detail).with_source(error))
            }
            Err(_) => {
                Err(Error::new(ErrorKind::TimedOut, operation, "QEMU")
                    .with_detail(format!("no answer within {limit:?}")))
            }
        }
    }
}
