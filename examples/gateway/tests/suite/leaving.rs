//! A client that is killed in the middle of something leaves nothing behind, in the gateway or in the box.

use crate::harness::{Bench, kill_tree, until};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

async fn with_box() -> Bench {
    let bench = Bench::new().await;
    bench.spinup("dev1").await;
    bench
}

async fn nothing_is_left(bench: &Bench) {
    until("the session is given back", || bench.boxes.sessions("dev1") == 0).await;
    until("the gateway has forgotten the connection", || bench.gateway.operator.sessions.count() == 0).await;
    until("nothing runs any more", || bench.gateway.activity.count() == 0).await;
    until("nothing runs in the box", || bench.boxes.processes("dev1") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_while_nobody_takes_what_it_sends() {
    let bench = with_box().await;
    let mut command = bench.ssh("dev1", &["echo there; sleep 300"]);
    command.stdin(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let mut there = [0; 6];
    client.stdout.as_mut().unwrap().read_exact(&mut there).await.unwrap();
    // Nobody reads in the box: all windows and buffers fill up, until the client takes nothing more.
    let piece = vec![7; 65536];
    let patience = std::time::Duration::from_millis(500);
    while let Ok(written) = tokio::time::timeout(patience, stdin.write_all(&piece)).await {
        written.unwrap();
    }
    client.kill().await.unwrap();
    // The command itself runs on, as it does when a connection to an SSH server breaks; it ends with its box.
    until("the session is given back", || bench.boxes.sessions("dev1") == 0).await;
    until("nothing runs any more", || bench.gateway.activity.count() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_killed_halfway() {
    let bench = with_box().await;
    // Far more than gets over in the time until it is killed, and takes no room on the disk.
    File::create(bench.path("much")).unwrap().set_len(20 << 30).unwrap();
    let much = bench.path("much").display().to_string();
    for mode in ["-s", "-O"] {
        for upwards in [true, false] {
            let copied = bench.path(&format!("copied{mode}{upwards}"));
            let (there, here) = (format!("dev1@127.0.0.1:{}", copied.display()), copied.display().to_string());
            let (from, to) = if upwards { (much.clone(), there) } else { (format!("dev1@127.0.0.1:{much}"), here) };
            let mut command = Command::new("scp");
            command.args([mode, "-q"]).args(bench.options("id")).args(["-P", &bench.port.to_string(), &from, &to]);
            let mut client = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
            until("some of it is there", || length(&copied) > 1_000_000).await;
            kill_tree(client.id().unwrap());
            client.wait().await.unwrap();
            nothing_is_left(&bench).await;
            assert!(length(&copied) < 20 << 30, "it was killed too late");
            std::fs::remove_file(&copied).unwrap();
        }
    }
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |found| found.len())
}
