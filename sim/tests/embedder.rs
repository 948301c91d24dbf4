//! How an embedder tests logic of their own: a front desk that lets each user have so many boxes up at once.
#![allow(clippy::unwrap_used)]

use boxpool::{BoxName, ConnectRequest, Pool, Session, UserId};
use boxpool_sim::{Gateway, Pace, PoolShape, SimCloud};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const AT_ONCE: usize = 2;

/// The embedder's code.
struct FrontDesk {
    pool: Pool,
    user: UserId,
    up: AtomicUsize,
    /// The mistake: to look, then to wait, then to count.
    counts_late: bool,
}

impl FrontDesk {
    async fn admit(&self, name: &BoxName) -> Option<Session> {
        if self.up.load(Ordering::SeqCst) >= AT_ONCE {
            return None;
        }
        if !self.counts_late {
            self.up.fetch_add(1, Ordering::SeqCst);
        }
        let request = ConnectRequest::new(self.user.clone(), name.clone());
        let session = self.pool.connect(request).await.ok();
        match (&session, self.counts_late) {
            (Some(_), true) => drop(self.up.fetch_add(1, Ordering::SeqCst)),
            (None, false) => drop(self.up.fetch_sub(1, Ordering::SeqCst)),
            _ => {}
        }
        session
    }

    async fn leave(&self, session: Session) {
        self.up.fetch_sub(1, Ordering::SeqCst);
        session.release().await;
    }
}

/// Four visits at times of the seed's choice. Returns what was wrong, if anything was.
fn visit_everything(seed: u64, counts_late: bool) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let cloud = Arc::new(SimCloud::builder().seed(seed).pace(Pace::Wild).build().unwrap());
        let gateway: Gateway = cloud.gateway().unwrap();
        let (pool, worker) = gateway.pool(seed, PoolShape::default().config()).build().await.unwrap();
        gateway.spawn(worker.run());
        let user = UserId::new("ada").unwrap();
        let desk = Arc::new(FrontDesk { pool, user, up: AtomicUsize::new(0), counts_late });
        let inside = Arc::new(AtomicUsize::new(0));
        let mut visits = Vec::new();
        for n in 0..4_u64 {
            let (cloud, desk, inside) = (Arc::clone(&cloud), Arc::clone(&desk), Arc::clone(&inside));
            let name = BoxName::new(format!("b{n}")).unwrap();
            desk.pool.create_box(&desk.user, &name).await.unwrap();
            visits.push(gateway.spawn(async move {
                let at = boxpool_sim::draw(seed, &format!("visit {n}")) % 30_000;
                tokio::time::sleep(Duration::from_millis(at)).await;
                let Some(session) = desk.admit(&name).await else { return };
                // Counted by the test, not by the code under test.
                let in_use = inside.fetch_add(1, Ordering::SeqCst) + 1;
                if in_use > AT_ONCE {
                    cloud.violate(format!("{in_use} boxes are in use and {AT_ONCE} may be"));
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                desk.leave(session).await;
            }));
        }
        for visit in visits {
            visit.await.unwrap();
        }
        cloud.check_invariants().map_err(|violations| violations.to_string())
    })
}

#[test]
fn the_simulator_finds_the_race_in_an_embedders_quota() {
    let found = (0..200).find_map(|seed| visit_everything(seed, true).err().map(|what| (seed, what)));
    let (seed, what) = found.expect("200 seeds are more than enough");
    println!("seed {seed}: {what}");
    assert!(what.contains("boxes are in use"), "{what}");
    assert_eq!(visit_everything(seed, true), Err(what), "the same seed finds it again");
}

#[test]
fn the_mended_quota_is_sound_on_the_same_seeds() {
    for seed in 0..200 {
        assert_eq!(visit_everything(seed, false), Ok(()), "seed {seed}");
    }
}
