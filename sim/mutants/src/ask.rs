//! Asks test programs about a mutant: whether they notice it.

use crate::error::{Error, Result};
use crate::mutant::Number;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a test program says of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It fails.
    Noticed,
    /// It passes.
    Missed,
    /// It did not end in time; nothing that is right takes so long.
    Hung,
}

/// A test program.
pub(crate) struct Witness {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) folder: PathBuf,
    pub(crate) limit: Duration,
}

/// How often it is looked whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Witness {
    pub(crate) fn new(program: &Path, folder: PathBuf, limit: Duration) -> Self {
        Self { program: program.to_owned(), arguments: Vec::new(), environment: Vec::new(), folder, limit }
    }

    /// `0` is no mutant.
    pub(crate) fn ask(&self, number: Number) -> Result<Answer> {
        let failed = |why: std::io::Error| Error::of(&self.program, &why);
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(&self.folder)
            .envs(self.environment.iter().cloned())
            .env("BOXPOOL_MUTANT", number.to_string())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(if status.success() { Answer::Missed } else { Answer::Noticed });
            }
            if begun.elapsed() >= self.limit {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                return Ok(Answer::Hung);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Asks one after the other until one notices.
pub(crate) fn ask_all(witnesses: &[Witness], number: Number) -> Result<Answer> {
    for witness in witnesses {
        let answer = witness.ask(number)?;
        if answer != Answer::Missed {
            return Ok(answer);
        }
    }
    Ok(Answer::Missed)
}
