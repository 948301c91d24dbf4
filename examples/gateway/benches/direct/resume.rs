//! What gateway and pool add to a connect to a suspended box. What resumes here is a stand-in that takes a time that is known, so
//! that what is left of a connect beyond it, and beyond what a connect to a running box takes, is theirs.

use super::{milliseconds, quantile};
use crate::harness::HANG;
use crate::harness::site::{Running, Site, config};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const CONNECTS: usize = 50;
/// Long enough for the SSH server that stands in for a box to listen before it has passed.
const RESUME: Duration = Duration::from_millis(300);

pub(crate) async fn measure() {
    let site = Site::new();
    let gateway = site.start(config()).await;
    *site.machines.start_takes.lock().unwrap() = RESUME;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    connect(&site, &gateway).await;
    let mut suspended = Vec::new();
    for _ in 0..CONNECTS {
        site.until_state(&gateway, "dev1", "parked").await;
        suspended.push(connect(&site, &gateway).await);
    }

    let mut stays = site.ssh(&gateway, "dev1", &["echo; cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let up = tokio::time::timeout(HANG, stays.stdout.as_mut().unwrap().read_exact(&mut [0])).await;
    up.expect("the box comes up").unwrap();
    let mut warm = Vec::new();
    for _ in 0..CONNECTS {
        warm.push(connect(&site, &gateway).await);
    }
    stays.kill().await.unwrap();
    gateway.stop().await;

    let (known, warm) = (milliseconds(RESUME), quantile(warm, 0.5));
    let added: Vec<f64> = suspended.iter().map(|all| all - known - warm).collect();
    for (what, part) in [("median", 0.5), ("99 of 100", 0.99)] {
        let added = quantile(added.clone(), part);
        println!(
            "a suspended box, {what}: {added:.1} ms beyond its resume ({known:.0} ms) and a warm connect ({warm:.1} ms)"
        );
    }
}

async fn connect(site: &Site, gateway: &Running) -> f64 {
    let began = Instant::now();
    assert_eq!(site.run(gateway, "dev1", &["true"]).await.code, 0);
    milliseconds(began.elapsed())
}
