//! Runs the programs a build is made of: each under a limit, none left behind.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::error::ImageError;

/// How long a program told to end may clean up before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How much of what a program says is kept: the end, where errors stand.
const TAIL_BYTES: usize = 2048;
/// The most a program may say that is read for its content.
const OUTPUT_MAX: u64 = 4 << 20;

/// One run of one program.
pub(super) struct Tool {
    program: String,
    package: &'static str,
    doing: &'static str,
    limit: Duration,
    command: Command,
}

impl Tool {
    /// `program`, which `package` installs, to be run for the purpose `doing`.
    pub(super) fn new(program: &str, package: &'static str, doing: &'static str) -> Self {
        let mut command = Command::new(program);
        command
            .env("PATH", search_path())
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that its children end with it.
            .process_group(0);
        Tool { program: program.to_owned(), package, doing, limit: Duration::from_secs(300), command }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(super) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(super) fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(super) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Reads this file on its standard input.
    pub(super) fn stdin(mut self, file: std::fs::File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Writes its standard output to this file instead of returning it.
    pub(super) fn stdout(mut self, file: std::fs::File) -> Self {
        self.command.stdout(file);
        self
    }

    /// Runs to the end and returns standard output. Dropping the future ends the program and its children.
    pub(super) async fn run(mut self) -> Result<Vec<u8>, ImageError> {
        let child = self.command.spawn().map_err(|source| self.spawn_error(source))?;
        let mut group = Group { id: child.id().and_then(|id| Pid::from_raw(id.cast_signed())) };
        let ended = tokio::time::timeout(self.limit, follow(child)).await;
        let Ok(ended) = ended else {
            group.end().await;
            return Err(ImageError::TimedOut { doing: self.doing, limit: self.limit });
        };
        group.id = None;
        let (status, output, tail) = ended.map_err(|source| ImageError::Io {
            operation: "follow",
            path: self.program.clone().into(),
            source,
        })?;
        if status.success() {
            return Ok(output);
        }
        let said = if tail.trim().is_empty() { String::from_utf8_lossy(&output).into_owned() } else { tail };
        Err(ImageError::Tool {
            tool: self.program,
            doing: self.doing,
            status: status.to_string(),
            last_lines: last_lines(&said),
        })
    }

    fn spawn_error(&self, source: io::Error) -> ImageError {
        match source.kind() {
            io::ErrorKind::NotFound => ImageError::MissingTool { tool: self.program.clone(), package: self.package },
            _ => ImageError::Io { operation: "run", path: self.program.clone().into(), source },
        }
    }
}

/// `Err` with the first of these programs that is not installed.
pub(super) fn check_installed(tools: &[(&str, &'static str)]) -> Result<(), ImageError> {
    let path = search_path();
    for (tool, package) in tools {
        if !path.split(':').any(|dir| Path::new(dir).join(tool).is_file()) {
            return Err(ImageError::MissingTool { tool: (*tool).to_owned(), package });
        }
    }
    Ok(())
}

/// `mke2fs` and others live where a plain user's `PATH` does not look.
fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

async fn follow(mut child: Child) -> io::Result<(ExitStatus, Vec<u8>, String)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read_output = async {
        let mut output = Vec::new();
        if let Some(mut stdout) = stdout {
            (&mut stdout).take(OUTPUT_MAX).read_to_end(&mut output).await?;
            tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await?;
        }
        Ok::<_, io::Error>(output)
    };
    let read_tail = async {
        match stderr {
            Some(stderr) => tail(stderr).await,
            None => Ok(String::new()),
        }
    };
    let (output, tail) = tokio::try_join!(read_output, read_tail)?;
    Ok((child.wait().await?, output, tail))
}

async fn tail(mut from: impl AsyncRead + Unpin) -> io::Result<String> {
    let (mut kept, mut chunk) = (VecDeque::new(), [0; 4096]);
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(kept.make_contiguous()).into_owned());
        }
        kept.extend(&chunk[..read]);
        kept.drain(..kept.len().saturating_sub(TAIL_BYTES));
    }
}

fn last_lines(said: &str) -> String {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}

/// The processes of one run. Ended when dropped before the run is over.
struct Group {
    id: Option<Pid>,
}

impl Group {
    async fn end(&mut self) {
        let Some(id) = self.id.take() else { return };
        // Asked first: a program that mounted something takes it down again.
        let _ = kill_process_group(id, Signal::TERM);
        let gone = async {
            while rustix::process::test_kill_process_group(id).is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(GRACE, gone).await.is_err() {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let _ = kill_process_group(id, Signal::TERM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_program_is_named_with_its_package() {
        let error = Tool::new("no-such-program", "some-package", "testing").run().await.unwrap_err();
        assert!(matches!(error, ImageError::MissingTool { package: "some-package", .. }), "{error}");
    }

    #[tokio::test]
    async fn a_failure_carries_the_last_lines() {
        let tool = Tool::new("sh", "dash", "testing").args(["-c", "echo first >&2; echo the reason >&2; exit 3"]);
        let text = tool.run().await.unwrap_err().to_string();
        assert!(text.contains("the reason") && text.contains('3'), "{text}");
    }

    #[tokio::test]
    async fn a_program_and_its_children_end_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let tool = Tool::new("sh", "dash", "testing").args(["-c", &script]).limit(Duration::from_millis(300));
        assert!(matches!(tool.run().await.unwrap_err(), ImageError::TimedOut { .. }));
        let pid = std::fs::read_to_string(pid).unwrap();
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "still running: {state}");
    }
}
