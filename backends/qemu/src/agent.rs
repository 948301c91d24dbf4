//! A client for the guest agent (qemu-ga), enough to run a hook inside a guest.
//!
//! The guest is not trusted: lines are bounded, every wait has a limit, and nothing it answers is used but success and,
//! for the log, the end of what it printed.

use crate::host::{Host, last_of};
use crate::qmp::Lines;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use boxpool::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// How often the end of a hook is asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A connection to the agent of one guest.
pub(crate) struct Agent {
    lines: Lines,
    deadline: Instant,
}

impl Agent {
    /// Connects and synchronises; everything on this connection must be done within `limit`.
    ///
    /// # Errors
    /// `Unavailable` when there is no guest; `TimedOut` when its agent does not answer.
    pub(crate) async fn connect(host: &dyn Host, socket: &Path, limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        let stream = host.open_unix(socket).await?;
        let gone = || Error::new(ErrorKind::Unavailable, "reach guest agent", socket.display());
        let mut agent = Self { lines: Lines::new(stream.ok_or_else(gone)?), deadline };
        // The agent may still hold half a line of an earlier connection: 0xff makes it start afresh, and the id that
        // comes back tells where our answers begin (QEMU's docs/interop/qemu-ga.rst, guest-sync-delimited).
        // Its own for each connection, or an answer to an earlier one would be taken for ours.
        static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
        let id = (u64::from(std::process::id()) << 20) | u64::from(CONNECTIONS.fetch_add(1, Relaxed) & 0xf_ffff);
        agent.lines.write_raw("reach guest agent", b"\xff\n").await?;
        agent.lines.write("reach guest agent", &json!({"execute": "guest-sync", "arguments": {"id": id}})).await?;
        loop {
            let answer = agent.lines.read("reach guest agent", agent.left()).await?;
            if answer["return"].as_u64() == Some(id) {
                return Ok(agent);
            }
        }
    }

    /// Runs a program in the guest to its end.
    ///
    /// # Errors
    /// `Permanent` when it fails, with the end of what it printed; `TimedOut`.
    pub(crate) async fn run(&mut self, program: &'static str, args: &[String], stdin: &[u8]) -> Result<()> {
        let arguments =
            json!({"path": program, "arg": args, "input-data": BASE64.encode(stdin), "capture-output": true});
        let started = self.call("guest-exec", arguments).await?;
        loop {
            let status = self.call("guest-exec-status", json!({"pid": started["pid"]})).await?;
            if status["exited"] == json!(true) {
                return match status["exitcode"].as_i64() {
                    Some(0) => Ok(()),
                    code => {
                        let said =
                            status["err-data"].as_str().and_then(|data| BASE64.decode(data).ok()).unwrap_or_default();
                        let detail = format!("it ended with {code:?}: {}", last_of(&String::from_utf8_lossy(&said)));
                        Err(Error::new(ErrorKind::Permanent, "run in guest", program).with_detail(detail))
                    }
                };
            }
            tokio::time::sleep(ASK_EVERY.min(self.left())).await;
        }
    }

    /// Asks the guest to shut itself down. It may be gone before it could answer, so no answer is waited for.
    ///
    /// # Errors
    /// `Unavailable` when the guest is gone already.
    pub(crate) async fn shut_down(&mut self) -> Result<()> {
        let asked = json!({"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}});
        self.lines.write("shut guest down", &asked).await
    }

    async fn call(&mut self, command: &'static str, arguments: Value) -> Result<Value> {
        self.lines.write(command, &json!({"execute": command, "arguments": arguments})).await?;
        let mut answer = self.lines.read(command, self.left()).await?;
        if let Some(error) = answer.get("error") {
            let words = error.get("desc").and_then(Value::as_str).unwrap_or("no description");
            return Err(Error::new(ErrorKind::Permanent, command, "guest agent").with_detail(last_of(words)));
        }
        Ok(answer["return"].take())
    }

    fn left(&self) -> Duration {
        self.deadline.duration_since(Instant::now())
    }
}
