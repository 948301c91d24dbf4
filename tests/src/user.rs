//! A user at their terminal: a key, and the OpenSSH client.

use crate::Gateway;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// What a command left.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained.
    pub err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
            err: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
        }
    }
}

/// Somebody with a key of their own.
pub struct User {
    dir: tempfile::TempDir,
}

impl User {
    /// With a fresh ed25519 key.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
        assert!(Command::new("ssh-keygen").args(keygen).arg(dir.path().join("key")).status().unwrap().success());
        Self { dir }
    }

    /// The private key's file.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    /// The client with its options, before the destination.
    #[must_use]
    pub fn client(&self, gateway: &Gateway) -> Command {
        let known = format!("UserKnownHostsFile={}", self.dir.path().join("known").display());
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"])
            .args(["-o", "StrictHostKeyChecking=accept-new", "-o", &known, "-p", &gateway.port.to_string(), "-i"])
            .arg(self.key());
        ssh
    }

    /// `ssh LOGIN@gateway COMMAND`, to its end.
    #[must_use]
    pub fn ssh(&self, gateway: &Gateway, login: &str, command: &str) -> Answer {
        let destination = format!("{login}@127.0.0.1");
        let mut ssh = self.client(gateway);
        ssh.args([destination.as_str(), command]).stdin(Stdio::null()).output().unwrap().into()
    }

    /// The same, which must succeed; what it printed.
    #[must_use]
    pub fn does(&self, gateway: &Gateway, login: &str, command: &str) -> String {
        let answer = self.ssh(gateway, login, command);
        assert_eq!(answer.code, 0, "{login}: {command}: {answer:?}");
        answer.out
    }

    /// A session that stays open until the child is killed or its input ends.
    #[must_use]
    pub fn stay(&self, gateway: &Gateway, login: &str, command: &str) -> Child {
        let destination = format!("{login}@127.0.0.1");
        let mut ssh = self.client(gateway);
        ssh.args([destination.as_str(), command]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The account that the gateway knows this user as.
    #[must_use]
    pub fn account(&self, gateway: &Gateway) -> String {
        let answer = self.does(gateway, "gateway", "whoami --json");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        answer["account"].as_str().unwrap().to_owned()
    }
}

impl Default for User {
    fn default() -> Self {
        Self::new()
    }
}
