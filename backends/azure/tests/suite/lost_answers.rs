//! A proxy between the store and the emulator loses answers, requests and patience; the store still tells the truth.

use crate::proxy::{Fate, Proxy};
use boxpool::{Effect, ErrorKind, Key, StateStore, Table};
use boxpool_azure::TableStore;
use std::sync::Arc;
use std::time::{Duration, Instant};

const THINGS: Table = Table::new("things");

/// Behind the proxy, and beside it.
struct Bench {
    proxy: Proxy,
    store: Arc<TableStore>,
    straight: Arc<TableStore>,
}

async fn bench() -> Bench {
    let options = crate::azurite::fresh_options();
    let proxy = Proxy::before(crate::azurite::shared().port);
    let mut behind = options.clone();
    behind.endpoint = format!("http://127.0.0.1:{}/devstoreaccount1", proxy.port);
    let straight = Arc::new(TableStore::open(&options).unwrap());
    straight.make_tables(&[THINGS]).await.unwrap();
    let store = Arc::new(TableStore::open_with_limit(&behind, Duration::from_secs(2)).unwrap());
    Bench { proxy, store, straight }
}

fn key() -> Key {
    Key::new(THINGS, "p", "r")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_recognised_and_not_sent_again() {
    for fate in [Fate::LoseAnswer, Fate::DoneButFailed] {
        let bench = bench().await;
        bench.proxy.once("POST", fate);
        let first = bench.store.insert(&key(), "1").await.unwrap();
        assert_eq!(bench.proxy.count("POST"), 1);
        let stored = bench.straight.get(&key()).await.unwrap().unwrap();
        assert_eq!((stored.version, stored.value.as_str()), (first.clone(), "1"));

        bench.proxy.once("PUT", fate);
        let second = bench.store.update(&key(), &first, "2").await.unwrap();
        assert_eq!(bench.proxy.count("PUT"), 1);
        let stored = bench.straight.get(&key()).await.unwrap().unwrap();
        assert_eq!((stored.version, stored.value.as_str()), (second.clone(), "2"));

        bench.proxy.once("DELETE", fate);
        bench.store.delete(&key(), &second).await.unwrap();
        assert!(bench.straight.get(&key()).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_never_arrived_is_sent_again_unless_it_is_an_insert() {
    let bench = bench().await;
    for (n, fate) in (1..).zip([Fate::LoseRequest, Fate::Hang(Duration::from_secs(4)), Fate::Busy]) {
        bench.proxy.once("POST", fate);
        let error = bench.store.insert(&key(), "0").await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::UnknownOutcome, Effect::Unknown), "{error}");
        assert_eq!(bench.proxy.count("POST"), 2 * n - 1);
        assert!(bench.straight.get(&key()).await.unwrap().is_none());
        let first = bench.store.insert(&key(), "1").await.unwrap();
        bench.proxy.once("PUT", fate);
        let second = bench.store.update(&key(), &first, "2").await.unwrap();
        assert_eq!(bench.straight.get(&key()).await.unwrap().unwrap().value, "2");
        bench.proxy.once("DELETE", fate);
        bench.store.delete(&key(), &second).await.unwrap();
        assert!(bench.straight.get(&key()).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_and_another_writer_leave_the_outcome_unknown() {
    let bench = bench().await;
    let first = bench.store.insert(&key(), "1").await.unwrap();
    // The write is done and its answer lost; before the store looks, somebody else writes.
    let (straight, runtime) = (bench.straight.clone(), tokio::runtime::Handle::current());
    let mut lost = false;
    bench.proxy.judge(move |line| {
        if line.starts_with("PUT") {
            lost = true;
            return Fate::LoseAnswer;
        }
        if std::mem::take(&mut lost) {
            let straight = straight.clone();
            runtime.block_on(async move {
                let held = straight.get(&key()).await.unwrap().unwrap();
                assert_eq!(held.value, "2");
                straight.update(&key(), &held.version, "3").await.unwrap();
            });
        }
        Fate::Pass
    });
    let error = bench.store.update(&key(), &first, "2").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::UnknownOutcome, Effect::Unknown));
    assert_eq!(bench.straight.get(&key()).await.unwrap().unwrap().value, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_still_a_refusal_after_nothing_was_lost() {
    let bench = bench().await;
    let first = bench.store.insert(&key(), "1").await.unwrap();
    bench.straight.update(&key(), &first, "2").await.unwrap();
    let error = bench.store.update(&key(), &first, "3").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::None));
    let error = bench.store.insert(&key(), "3").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::AlreadyExists, Effect::None));
    assert_eq!((bench.proxy.count("PUT"), bench.proxy.count("GET")), (1, 0), "nothing was looked at twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_repeated_and_end() {
    let bench = bench().await;
    bench.store.insert(&key(), "1").await.unwrap();
    for fate in [Fate::LoseAnswer, Fate::LoseRequest, Fate::Busy] {
        bench.proxy.once("GET", fate);
        assert_eq!(bench.store.get(&key()).await.unwrap().unwrap().value, "1");
        bench.proxy.once("GET", fate);
        assert_eq!(bench.store.scan(THINGS, None, None, 10).await.unwrap().items.len(), 1);
    }
    bench.proxy.judge(|_| Fate::LoseAnswer);
    let began = Instant::now();
    let error = bench.store.get(&key()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nothing_comes_back_the_outcome_is_unknown() {
    let bench = bench().await;
    let first = bench.store.insert(&key(), "1").await.unwrap();
    bench.proxy.judge(|_| Fate::LoseAnswer);
    let error = bench.store.update(&key(), &first, "2").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::UnknownOutcome, Effect::Unknown));
    let error = bench.store.insert(&Key::new(THINGS, "p", "s"), "2").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::UnknownOutcome, Effect::Unknown));
    let error = bench.store.delete(&key(), &first).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
}

/// Eight writers append their numbers to one record while a third of all answers and requests is lost: each number is
/// there exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn contended_writes_through_a_bad_network_are_exactly_once() {
    const WRITERS: u32 = 8;
    const WRITES: u32 = 12;
    let bench = bench().await;
    bench.straight.insert(&key(), "").await.unwrap();
    let mut n = 0_u32;
    bench.proxy.judge(move |_| {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match (n >> 16) % 9 {
            0 | 1 => Fate::LoseAnswer,
            2 => Fate::LoseRequest,
            _ => Fate::Pass,
        }
    });
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = bench.store.clone();
            tokio::spawn(async move {
                for n in 0..WRITES {
                    let own = format!("{writer}.{n}");
                    loop {
                        let Ok(held) = store.get(&key()).await else { continue };
                        let held = held.unwrap();
                        if held.value.split(' ').any(|seen| seen == own) {
                            break;
                        }
                        match store.update(&key(), &held.version, &format!("{} {own}", held.value)).await {
                            Ok(_) => break,
                            Err(error) => assert!(
                                matches!(
                                    error.kind(),
                                    ErrorKind::Conflict | ErrorKind::UnknownOutcome | ErrorKind::Unavailable
                                ),
                                "{error}"
                            ),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let value = bench.straight.get(&key()).await.unwrap().unwrap().value;
    let mut seen: Vec<_> = value.split_whitespace().collect();
    assert_eq!(seen.len(), (WRITERS * WRITES) as usize, "nothing is lost or doubled: {value}");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), (WRITERS * WRITES) as usize);
}
