//! What a claim costs: one compare-and-swap on the file, with the disk flushed and without; and sixty-four at once, against
//! a plain loop that commits each by itself.

#![allow(clippy::unwrap_used, missing_docs)]

use boxpool::{Key, StateStore, Table};
use boxpool_sqlite::{SqliteOptions, SqliteStore};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLAIMS: Table = Table::new("claims");
const ALONE: usize = 1_000;
const AT_ONCE: usize = 64;
const EACH: usize = 50;

fn percentile(times: &mut [Duration], of: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * of) as usize]
}

async fn alone(store: &SqliteStore) -> Vec<Duration> {
    let key = Key::new(CLAIMS, "alone", "a");
    let mut version = store.insert(&key, "{}").await.unwrap();
    let mut times = Vec::new();
    for n in 0..ALONE {
        let begun = Instant::now();
        version = store.update(&key, &version, &format!("{{\"claimed\":{n}}}")).await.unwrap();
        times.push(begun.elapsed());
    }
    times
}

async fn at_once(store: Arc<SqliteStore>) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = Key::new(CLAIMS, "many", n.to_string());
                let mut version = store.insert(&key, "{}").await.unwrap();
                for m in 1..EACH {
                    version = store.update(&key, &version, &m.to_string()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    (AT_ONCE * EACH) as f64 / begun.elapsed().as_secs_f64()
}

/// What the same file does without any of this: one connection, one commit for each claim.
fn bare(path: &std::path::Path, durable: bool) -> f64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" }).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (k TEXT PRIMARY KEY, version INTEGER, value TEXT); INSERT INTO t VALUES ('a', 0, '{}')",
        )
        .unwrap();
    let begun = Instant::now();
    for n in 0..ALONE {
        let changed = connection
            .prepare_cached("UPDATE t SET version = ?1 + 1, value = ?2 WHERE k = 'a' AND version = ?1")
            .unwrap()
            .execute(rusqlite::params![n as i64, n.to_string()])
            .unwrap();
        assert_eq!(changed, 1);
    }
    ALONE as f64 / begun.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    println!("{:<16} {:>12} {:>12} {:>16} {:>16} {:>8}", "", "median", "p99", "64 at once", "bare loop", "ratio");
    for (name, durable) in [("fsync", true), ("without fsync", false)] {
        // Beside the build's own files, so that the disk is a real one.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut options = SqliteOptions::default();
        options.durable = durable;
        let store = Arc::new(SqliteStore::open_with(dir.path().join("state.sqlite"), options).await.unwrap());
        let mut times = alone(&store).await;
        let many = at_once(store).await;
        let bare = bare(&dir.path().join("bare.sqlite"), durable);
        let (median, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        println!("{name:<16} {median:>12.0?} {p99:>12.0?} {many:>14.0}/s {bare:>14.0}/s {:>7.1}x", many / bare);
    }
}
