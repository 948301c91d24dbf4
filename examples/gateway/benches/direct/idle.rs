//! Many sessions in which nothing happens: what each weighs, and how those beside them fare in which somebody types.

use super::{Way, Ways, quantile, resident, row};
use futures::future::join_all;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Child;

const IDLE: usize = 1000;
/// So many of them log in at once: the box's own SSH server takes no more than a hundred that are not in yet.
const AT_ONCE: usize = 20;
const ACTIVE: usize = 20;
/// How often each of the active ones sends a byte: faster than anybody types.
const TYPES_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn measure(ways: &Ways) {
    let before = resident();
    let mut idle = Vec::new();
    while idle.len() < IDLE {
        idle.extend(join_all((0..AT_ONCE).map(|_| session(ways))).await);
    }
    println!("one of {IDLE} idle sessions: {} KiB of memory", resident().saturating_sub(before) / IDLE as u64);
    // Both ways beside the same idle sessions, so on an equally busy machine.
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for (way, taken) in [(Way::Gateway, &mut through), (Way::Direct, &mut direct)] {
        let active = join_all((0..ACTIVE).map(|_| ways.echoes(way, &[], TYPES_EVERY))).await;
        *taken = active.concat();
    }
    for (what, part) in [("median", 0.5), ("99 of 100", 0.99)] {
        let what = format!("a byte in {ACTIVE} beside {IDLE} idle, {what}");
        row(&what, "ms", quantile(through.clone(), part), quantile(direct.clone(), part));
    }
    for mut each in idle {
        assert!(each.try_wait().unwrap().is_none(), "an idle session ended");
    }
}

async fn session(ways: &Ways) -> Child {
    let mut child = ways.ssh(Way::Gateway, &[], "echo; cat").stdin(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).await.unwrap();
    child
}
