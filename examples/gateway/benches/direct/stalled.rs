//! What it costs when somebody does not read, or does not take: the gateway's memory, and how soon other channels of the same connection
//! answer. With direct OpenSSH the time alone is shown.

use super::{Way, Ways, resident};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

/// What would flow if nothing held it back.
const BYTES: u64 = 2 << 30;
/// The stalled transfer has come to a stand when nothing of it has gone on for so long.
const STANDS: Duration = Duration::from_secs(3);
const ANSWERS: usize = 9;

pub(crate) async fn measure(ways: &Ways) {
    for down in [true, false] {
        let what = if down { "download" } else { "upload" };
        let before = resident();
        let (through, during) = beside(ways, Way::Gateway, down).await;
        let grown = during.saturating_sub(before);
        let (direct, _) = beside(ways, Way::Direct, down).await;
        super::row(&format!("a command beside a stalled {what}"), "ms", through, direct);
        println!("a stalled {what} of {} GiB: {grown} KiB of memory", BYTES >> 30);
    }
}

/// How long another channel's command takes, the median, in milliseconds; and the gateway's memory meanwhile, in KiB.
async fn beside(ways: &Ways, way: Way, down: bool) -> (f64, u64) {
    let shared = ways.share(way).await;
    let mut stalled = ways
        .ssh(way, &shared.options(), &if down { format!("head -c {BYTES} /dev/zero") } else { "sleep 600".to_owned() })
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    if !down {
        send(&mut stalled).await;
    }
    // Nobody reads what comes out; the pipe and the windows fill.
    tokio::time::sleep(STANDS).await;
    let mut taken = Vec::new();
    for _ in 0..ANSWERS {
        let began = Instant::now();
        let mut child = ways.ssh(way, &shared.options(), "echo there").spawn().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert!(child.wait().await.unwrap().success() && said == "there\n");
        taken.push(super::milliseconds(began.elapsed()));
    }
    let during = resident();
    stalled.kill().await.unwrap();
    (super::quantile(taken, 0.5), during)
}

/// Sends until nothing is taken any more.
async fn send(stalled: &mut Child) {
    let input = stalled.stdin.as_mut().unwrap();
    let (piece, mut sent) = (vec![7; 64 << 10], 0);
    while sent < BYTES && matches!(tokio::time::timeout(STANDS, input.write_all(&piece)).await, Ok(Ok(()))) {
        sent += piece.len() as u64;
    }
    assert!(sent < BYTES, "nothing held it back");
}
