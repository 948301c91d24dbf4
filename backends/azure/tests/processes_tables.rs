//! Several processes on the same tables, one of which is killed.
//!
//! A worker is this test program again, told by environment variables to do a worker's job in the body of the same test.

#![allow(clippy::unwrap_used)]

mod azurite;
mod until;

use boxpool::{ErrorKind, Key, StateStore, Table};
use boxpool_azure::{TableStore, TablesOptions};
use std::process::{Child, Command, Stdio};
use until::until;

const THINGS: Table = Table::new("things");
const PORT: &str = "BOXPOOL_TEST_PORT";
const PREFIX: &str = "BOXPOOL_TEST_PREFIX";
const NAME: &str = "BOXPOOL_TEST_WORKER";
const TEST: &str = "a_counter_that_processes_share_loses_nothing_also_when_one_is_killed";
const COUNTS: u64 = 40;

fn counter() -> Key {
    Key::new(THINGS, "shared", "counter")
}

fn worker(options: &TablesOptions, port: u16, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(PORT, port.to_string())
        .env(PREFIX, &options.prefix)
        .env(NAME, name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Raises the counter, then leaves a note of it: a worker that dies in between has counted at most once
/// more than its notes say, and never less.
async fn count(store: &TableStore, name: &str) {
    for n in 0..COUNTS {
        loop {
            let held = store.get(&counter()).await.unwrap().unwrap();
            let next = held.value.parse::<u64>().unwrap() + 1;
            match store.update(&counter(), &held.version, &next.to_string()).await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        store.insert(&Key::new(THINGS, name, n.to_string()), "1").await.unwrap();
    }
}

async fn notes(store: &TableStore, name: &str) -> u64 {
    store.scan(THINGS, Some(name), None, 1_000).await.unwrap().items.len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_processes_share_loses_nothing_also_when_one_is_killed() {
    if let (Ok(port), Ok(prefix), Ok(name)) = (std::env::var(PORT), std::env::var(PREFIX), std::env::var(NAME)) {
        let mut options = TablesOptions::emulator(port.parse().unwrap());
        options.prefix = prefix;
        return count(&TableStore::open(&options).unwrap(), &name).await;
    }
    let options = azurite::fresh_options();
    let store = TableStore::open(&options).unwrap();
    store.insert(&counter(), "0").await.unwrap();
    let port = azurite::shared().port;
    let mut workers: Vec<_> = (0..4).map(|n| worker(&options, port, &format!("w{n}"))).collect();
    let mut doomed = worker(&options, port, "doomed");
    until("the workers begin", async || (notes(&store, "doomed").await >= 5).then_some(())).await;
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success(), "a worker failed");
    }
    let counted = store.get(&counter()).await.unwrap().unwrap().value.parse::<u64>().unwrap();
    let noted = notes(&store, "doomed").await;
    let by_others = 4 * COUNTS;
    assert!((by_others + noted..=by_others + noted + 1).contains(&counted), "{counted} counts, {noted} noted");
}
