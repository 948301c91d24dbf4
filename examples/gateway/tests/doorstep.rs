//! Before a client has logged in.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use boxpool_gateway::hostkey::ensure_rsa_key;
use boxpool_gateway::limits::Ban;
use boxpool_gateway::operator::Operator;
use boxpool_gateway::registration::Registration;
use boxpool_gateway::server::Settings;
use harness::{Bench, finish, settings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

async fn ends(mut socket: TcpStream) -> String {
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut said)).await.expect("it is closed");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_and_half_started_clients_are_ended_and_logins_work_meanwhile() {
    // Both ends of each are in this process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let grace = Duration::from_secs(3);
    let many = Settings { pre_auth_max: 2000, pre_auth_per_address_max: 2000, login_grace: grace, ..settings() };
    let bench = Bench::with(many).await;
    let mut waiting = Vec::new();
    for number in 0..1000 {
        let mut socket = TcpStream::connect(("127.0.0.1", bench.port)).await.unwrap();
        if number % 2 == 0 {
            socket.write_all(b"SSH-2.0-Slow_1\r\n").await.unwrap();
        }
        waiting.push(socket);
    }
    assert_eq!(bench.run("gateway", &["version"]).await.code, 0);
    for socket in waiting {
        ends(socket).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_from_one_address_are_turned_away_with_the_reason() {
    let bench = Bench::with(Settings { pre_auth_per_address_max: 3, ..settings() }).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut socket = TcpStream::connect(("127.0.0.1", bench.port)).await.unwrap();
        let mut first = [0; 4];
        socket.read_exact(&mut first).await.unwrap();
        held.push(socket);
    }
    let said = ends(TcpStream::connect(("127.0.0.1", bench.port)).await.unwrap()).await;
    assert!(said.contains("too many connections from your address"), "{said:?}");
    drop(held);
    harness::until("a place is free again", || {
        bench.ssh("gateway", &["version"]).as_std_mut().status().unwrap().success()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_log_in_in_time_is_told_so() {
    struct Client(tokio::sync::mpsc::UnboundedSender<String>);
    impl russh::client::Handler for Client {
        type Error = russh::Error;
        async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
            Ok(true)
        }
        async fn disconnected(
            &mut self,
            reason: russh::client::DisconnectReason<Self::Error>,
        ) -> Result<(), Self::Error> {
            if let russh::client::DisconnectReason::ReceivedDisconnect(said) = reason {
                let _ = self.0.send(said.message);
            }
            Ok(())
        }
    }
    let bench = Bench::with(Settings { login_grace: Duration::from_secs(5), ..settings() }).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let address = ("127.0.0.1", bench.port);
    let session = russh::client::connect(Arc::default(), address, Client(tell)).await.unwrap();
    let said = tokio::time::timeout(harness::HANG, told.recv()).await.expect("it is told").unwrap();
    assert!(said.contains("did not log in within 5 seconds"), "{said}");
    drop(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_openssh_user_sees_why_they_are_turned_away() {
    let ban = Ban { after: 2, lasts: Duration::from_secs(3600) };
    let bench = Bench::with(Settings { ban, registration: Registration::ByName, ..settings() }).await;
    bench.make_key("stranger");
    // Whether a login failed is known when its connection has ended, a little after its client has.
    let mut said = String::new();
    harness::until("the address is turned away", || {
        let ran = bench.ssh_as("stranger", "gateway", &["version"]).as_std_mut().output().unwrap();
        said = String::from_utf8(ran.stderr).unwrap();
        !said.contains("none of your keys")
    })
    .await;
    assert!(said.contains("too many logins from your address have failed"), "{said}");
    let ran = bench.run("new", &["version"]).await;
    assert!(ran.code == 255 && ran.stderr.contains("too many logins"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_any_channel_is_ended_after_its_limit() {
    let bench = Bench::with(Settings { idle_limit: Duration::from_millis(500), ..settings() }).await;
    let ran = bench.run("gateway", &["-N", "-o", "LogLevel=INFO", "--"]).await;
    assert!(ran.code == 255 && ran.stderr.contains("nothing was open"), "{ran:?}");
}

/// A gateway with an RSA host key, made as the program makes it.
async fn with_rsa() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let key = ensure_rsa_key(&dir.path().join("key"), "gateway").unwrap();
    Bench::offering(&[key], settings(), Operator::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_know_only_rsa_connect_with_sha_2_and_others_use_ed25519() {
    let bench = with_rsa().await;
    for (offered, used) in [
        (None, "ssh-ed25519"),
        (Some("rsa-sha2-512,ssh-ed25519"), "ssh-rsa"), // the client's order counts
        (Some("rsa-sha2-512"), "ssh-rsa"),
        (Some("rsa-sha2-256"), "ssh-rsa"),
    ] {
        let option = offered.map(|offered| format!("HostKeyAlgorithms={offered}"));
        let options: Vec<&str> = option.iter().flat_map(|option| ["-o", option]).collect();
        let ran = bench.run("gateway", &[&["-o", "LogLevel=DEBUG"], &options[..], &["--", "version"]].concat()).await;
        assert!(ran.code == 0 && ran.stderr.contains(&format!("Server host key: {used} ")), "{offered:?}: {ran:?}");
    }
    let ran = bench.run("gateway", &["-o", "HostKeyAlgorithms=ssh-rsa", "-o", "LogLevel=INFO", "--", "version"]).await;
    assert!(ran.code == 255 && ran.stderr.contains("no matching host key type"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_audit_finds_no_failure() {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap();
    let place = std::env::var_os("BOXPOOL_SSH_AUDIT").map_or_else(|| cache.join("boxpool/ssh-audit"), PathBuf::from);
    let program = place.join("venv/bin/ssh-audit");
    assert!(program.exists(), "{} is not there; run scripts/install-packages tests", program.display());
    let bench = with_rsa().await;
    let mut audit = Command::new(program);
    audit.args(["--skip-rate-test", "--no-colors", "-p", &bench.port.to_string(), "127.0.0.1"]);
    audit.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = finish(audit).await;
    // 2: it warns of what is no post-quantum key exchange, which older clients need. 3 would be a failure.
    assert!(matches!(ran.code, 0 | 2) && ran.text().contains("mlkem768x25519-sha256"), "{}: {}", ran.code, ran.text());
    assert!(!ran.text().contains("[fail]"), "{}", ran.text());
}
