//! What every host promises, on this machine and on one that is reached by SSH (a real OpenSSH server on a loopback port).
#![allow(clippy::unwrap_used)]

mod sshd;

use boxpool::{Effect, ErrorKind};
use boxpool_qemu::{Command, Host, LocalHost, SshHost};
use sshd::Sshd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn arguments_are_not_taken_apart(host: &dyn Host, _: &Path) {
    for text in ["", "a b", "it's \"so\"", "$(id); `id`", "new\nline", "ünï\\code *", "-n"] {
        let output = host.run(Command::new("printf").arg("%s").arg(text)).await.unwrap();
        assert_eq!((output.success, output.stdout.as_str()), (true, text));
    }
}

async fn input_and_output_are_whole(host: &dyn Host, _: &Path) {
    let big = "0123456789".repeat(50_000);
    let output = host.run(Command::new("cat").stdin(big.clone())).await.unwrap();
    assert_eq!(output.stdout.len(), big.len());
    assert!(output.stdout == big);
    // A program that does not read it ends all the same.
    assert!(host.run(Command::new("true").stdin(big)).await.unwrap().success);
}

async fn a_failure_is_told_with_its_code_and_words(host: &dyn Host, _: &Path) {
    let output = host.run(Command::new("sh").args(["-c", "echo no >&2; exit 7"])).await.unwrap();
    assert_eq!((output.success, output.code, output.stderr.as_str()), (false, Some(7), "no\n"));
}

async fn a_missing_program_is_named(host: &dyn Host, _: &Path) {
    let error = host.run(Command::new("no-such-program")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no-such-program"), "{error}");
}

async fn a_command_that_hangs_is_ended_at_its_limit(host: &dyn Host, folder: &Path) {
    let begun = Instant::now();
    let mark = folder.join("mark");
    let script = format!("echo $$ >{}; exec sleep 1000", mark.display());
    let command = Command::new("sh").arg("-c").arg(script).limit(Duration::from_secs(3));
    assert_eq!(host.run(command).await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(20));
    let pid = std::fs::read_to_string(&mark).unwrap();
    let gone = || !Path::new("/proc").join(pid.trim()).exists();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !gone() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(gone(), "it runs on");
}

async fn many_commands_at_once_all_end(host: &dyn Host, _: &Path) {
    let all = (0..24).map(|number| host.run(Command::new("echo").arg(number.to_string())));
    for (number, output) in futures_join(all).await.into_iter().enumerate() {
        assert_eq!(output.unwrap().stdout.trim(), number.to_string());
    }
}

async fn files_are_put_whole_read_and_removed(host: &dyn Host, folder: &Path) {
    let file = folder.join("it's a file");
    assert!(host.read(&file).await.unwrap().is_none() && host.look(&file).await.unwrap().is_none());
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    host.put(&file, &content, 0o640).await.unwrap();
    assert_eq!(host.read(&file).await.unwrap().unwrap(), content);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(host.look(&file).await.unwrap().unwrap().bytes, 100_000);
    host.put(&file, b"", 0o600).await.unwrap();
    assert_eq!(host.read(&file).await.unwrap().unwrap(), b"");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "nothing half-written is left");
    host.remove(std::slice::from_ref(&file)).await.unwrap();
    host.remove(std::slice::from_ref(&file)).await.unwrap();
    assert!(host.look(&file).await.unwrap().is_none());
}

async fn what_cannot_be_written_changes_nothing(host: &dyn Host, folder: &Path) {
    let error = host.put(&folder.join("no/such/folder/file"), b"x", 0o600).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

async fn free_space_is_told(host: &dyn Host, folder: &Path) {
    let (told, known) = (host.free_bytes(folder).await.unwrap(), rustix::fs::statvfs(folder).unwrap());
    let known = known.f_bavail * known.f_frsize;
    assert!(told.abs_diff(known) < known / 2 + (64 << 20), "{told} against {known}");
    assert_eq!(host.free_bytes(&folder.join("nowhere")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn a_socket_carries_both_ways_and_nobody_there_is_none(host: &dyn Host, folder: &Path) {
    let path = folder.join("socket");
    assert!(host.open_unix(&path).await.unwrap().is_none());
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        stream.write_all(&text).await.unwrap();
    });
    let mut stream = host.open_unix(&path).await.unwrap().unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    assert_eq!(text, b"hello");
    echo.await.unwrap();
    // Bound by nobody any more: refused, and so none.
    assert!(host.open_unix(&path).await.unwrap().is_none());
}

async fn a_port_carries_both_ways_and_nobody_there_is_an_error(host: &dyn Host, _: &Path) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        stream.write_all(&text).await.unwrap();
    });
    let mut stream = host.open_tcp(address).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut text = [0; 5];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
    echo.await.unwrap();
    assert_eq!(host.open_tcp(address).await.err().unwrap().kind(), ErrorKind::Unavailable);
}

async fn a_lock_keeps_others_out_until_it_is_dropped(host: &dyn Host, folder: &Path) {
    let file = folder.join("lock");
    let held = host.lock(&file, Duration::from_secs(10)).await.unwrap();
    let refused = host.lock(&file, Duration::from_millis(100)).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    drop(held);
    host.lock(&file, Duration::from_secs(10)).await.unwrap();
}

async fn a_lock_in_a_folder_that_is_not_there_is_not_found(host: &dyn Host, folder: &Path) {
    let refused = host.lock(&folder.join("none/lock"), Duration::ZERO).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
}

/// All of them, side by side.
async fn futures_join<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in all.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(cx) {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

macro_rules! promises {
    ($($promise:ident,)*) => {
        mod on_this_machine {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&LocalHost, TempDir::new().unwrap().path()).await;
            })*
        }

        mod over_ssh {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                let sshd = Sshd::start();
                super::$promise(&sshd.host(), TempDir::new().unwrap().path()).await;
            })*
        }
    };
}

promises! {
    arguments_are_not_taken_apart,
    input_and_output_are_whole,
    a_failure_is_told_with_its_code_and_words,
    a_missing_program_is_named,
    a_command_that_hangs_is_ended_at_its_limit,
    many_commands_at_once_all_end,
    files_are_put_whole_read_and_removed,
    what_cannot_be_written_changes_nothing,
    free_space_is_told,
    a_socket_carries_both_ways_and_nobody_there_is_none,
    a_port_carries_both_ways_and_nobody_there_is_an_error,
    a_lock_keeps_others_out_until_it_is_dropped,
    a_lock_in_a_folder_that_is_not_there_is_not_found,
}

#[tokio::test]
async fn another_host_key_is_refused_for_good() {
    let (sshd, other) = (Sshd::start(), Sshd::start());
    let host = SshHost::new(sshd.address(), &sshd.key(), &other.host_key()).unwrap();
    let error = host.run(Command::new("true")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unauthorized, false), "{error}");
    assert!(error.to_string().contains("host key"), "{error}");
}

#[tokio::test]
async fn a_login_that_is_refused_is_told() {
    let (sshd, other) = (Sshd::start(), Sshd::start());
    let host = SshHost::new(sshd.address(), &other.key(), &sshd.host_key()).unwrap();
    assert_eq!(host.run(Command::new("true")).await.unwrap_err().kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_connection_that_breaks_says_perhaps_done_and_the_next_call_works() {
    let sshd = Sshd::start();
    let (host, folder) = (sshd.host(), TempDir::new().unwrap());
    let begun = folder.path().join("begun");
    let script = format!("echo x >{}; exec sleep 1000", begun.display());
    let task = {
        let host = host.clone();
        tokio::spawn(async move { host.run(Command::new("sh").arg("-c").arg(script)).await })
    };
    while host.look(&begun).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lock = folder.path().join("lock");
    let held = host.lock(&lock, Duration::from_secs(10)).await.unwrap();
    sshd.break_connections();
    let error = tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
    // A new connection is made, and the old one's locks went with it.
    assert!(host.run(Command::new("true")).await.unwrap().success);
    host.lock(&lock, Duration::from_secs(20)).await.unwrap();
    drop(held);
}

#[tokio::test]
async fn nobody_there_is_told_and_nothing_was_done() {
    let sshd = Sshd::start();
    let host = sshd.host();
    drop(sshd);
    let error = host.run(Command::new("true")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None), "{error}");
}

#[test]
fn no_secret_is_shown() {
    let sshd = Sshd::start();
    let shown = format!("{:?}", sshd.host());
    assert!(!shown.contains("PRIVATE") && shown.contains("127.0.0.1"), "{shown}");
}
