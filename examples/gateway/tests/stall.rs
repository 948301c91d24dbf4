//! Somebody stops reading: nothing else stops, and memory stays bounded.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use harness::{Bench, HANG, finish, noise};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

/// These tests look at the memory of the whole process, so one runs at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// More than all windows and bounds of one stalled channel together, and far less than what flows when nothing bounds it.
const GROWTH_MAX: u64 = 64 << 20;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

async fn with_box() -> Bench {
    let bench = Bench::new().await;
    bench.spinup("dev1").await;
    assert_eq!(bench.run("dev1", &["true"]).await.code, 0);
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_download_is_held_back_and_can_still_be_interrupted() {
    let _alone = ALONE.lock().await;
    let bench = with_box().await;
    let before = resident();
    let mut command = bench.ssh("dev1", &["-tt", "--", "stty raw -echo isig; yes; echo over"]);
    command.stdin(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let mut output = client.stdout.take().unwrap();
    output.read_exact(&mut [0; 1]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await; // nobody reads; at full speed this is hundreds of megabytes
    assert!(resident() < before + GROWTH_MAX, "{} MiB", (resident() - before) >> 20);
    client.stdin.as_mut().unwrap().write_all(b"\x03").await.unwrap();
    let rest = tokio::spawn(async move {
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).await.unwrap();
        rest.len()
    });
    let ended = tokio::time::timeout(HANG, client.wait()).await.expect("Ctrl-C got through").unwrap();
    assert!(!ended.success());
    assert!(rest.await.unwrap() < 64 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_upload_is_held_back_and_stops_no_other_channel() {
    let _alone = ALONE.lock().await;
    let bench = with_box().await;
    let before = resident();
    let socket = bench.path("master").display().to_string();
    let _master = bench.ssh("dev1", &["-M", "-N", "-S", &socket, "--"]).spawn().unwrap();
    harness::appears(&bench.path("master")).await;
    let through = |args: &[&str]| bench.ssh("dev1", &[&["-S", socket.as_str(), "--"], args].concat());

    let mut stalled = through(&["echo there; sleep 300"]);
    stalled.stdin(Stdio::piped());
    let mut stalled = stalled.spawn().unwrap();
    let mut stdin = stalled.stdin.take().unwrap();
    stalled.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    let sending = tokio::spawn(async move {
        let mut sent = 0_u64;
        while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), stdin.write_all(&[7; 65536])).await {
            sent += 65536;
        }
        (sent, stdin)
    });
    let (sent, _stdin) = tokio::time::timeout(HANG, sending).await.expect("the upload is held back").unwrap();
    assert!(sent < GROWTH_MAX && resident() < before + GROWTH_MAX, "{} MiB sent", sent >> 20);

    let started = std::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(finish(through(&["echo free"])).await.text(), "free\n");
    }
    let bytes = noise(1 << 20); // less than a window: an upload of its own goes on, too
    let ran = harness::feed(through(&["cat"]), &bytes).await;
    assert!(ran.code == 0 && ran.stdout == bytes, "{}", ran.stderr);
    assert!(started.elapsed() < HANG);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_behind_an_echo_gets_everything() {
    let _alone = ALONE.lock().await;
    let bench = with_box().await;
    let bytes = noise(24 << 20);
    let mut command = bench.ssh("dev1", &["cat"]);
    command.stdin(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let input = bytes.clone();
    tokio::spawn(async move { stdin.write_all(&input).await.unwrap() });
    // Until every buffer on the way is full: now both directions stand still.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut output = Vec::new();
    tokio::time::timeout(HANG, stdout.read_to_end(&mut output)).await.expect("it goes on").unwrap();
    assert!(output == bytes);
}
