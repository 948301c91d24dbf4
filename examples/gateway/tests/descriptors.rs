//! The process runs out of file descriptors. In a file of its own: the limit is the whole process's.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use boxpool_gateway::server::Settings;
use harness::{Bench, settings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_descriptors_is_survived() {
    let grace = Duration::from_secs(60);
    let bench = Bench::with(Settings { pre_auth_per_address_max: 200, login_grace: grace, ..settings() }).await;
    assert_eq!(bench.run("gateway", &["version"]).await.code, 0);
    // The flood comes from another process, which has descriptors of its own.
    let flood = format!(
        "import socket,time\nkept=[socket.create_connection(('127.0.0.1',{})) for _ in range(120)]\nprint('x',flush=True)\ntime.sleep(60)",
        bench.port
    );
    let mut command = Command::new("python3");
    command.args(["-c", &flood]).stdout(Stdio::piped()).kill_on_drop(true);
    let before = getrlimit(Resource::Nofile);
    let mut flood = command.spawn().unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    flood.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await; // some accepts have failed by now
    assert!(std::fs::File::open("/dev/null").is_err(), "there was a descriptor left");
    flood.kill().await.unwrap();
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(bench.run("gateway", &["version"]).await.code, 0);
}
