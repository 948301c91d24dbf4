//! What a claim costs: one compare-and-swap of one record, alone and beside 63 others, against bare SQLite in the same run.
//!
//! `cargo bench -p boxpool-sqlite`. Numbers are printed and never judged: they are the disk's as much as ours.
#![allow(clippy::unwrap_used)]

use boxpool::{Key, StateStore, Table, Version};
use boxpool_sqlite::{SqliteOptions, SqliteStore};
use rusqlite::{Connection, params};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TABLE: Table = Table::new("instances");
const CONCURRENT: usize = 64;

fn key(n: usize) -> Key {
    Key::new(TABLE, format!("i{n}"), format!("i{n}"))
}

/// A record of the size that an instance has.
fn value(n: usize) -> String {
    format!(
        r#"{{"id":"i{n}","status":{{"is":"claimed","owner":{{"owner":"u","name":"dev1","id":"b{n}"}},"epoch":{n}}},"generation":"g1","created_at":1767225600000,"schema":1,"mark":"{n:032}"}}"#
    )
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| micros(times[(times.len() * part / 1000).min(times.len() - 1)]);
    println!("{what:<44} median {:>8.1} µs   p99 {:>9.1} µs   ({} times)", at(500), at(990), times.len());
}

async fn claims_alone(file: &Path, fsync: bool, times: usize) -> Vec<Duration> {
    let store = SqliteOptions::new().fsync(fsync).open(file).unwrap();
    let mut version = store.insert(&key(0), &value(0)).await.unwrap();
    let mut taken = Vec::with_capacity(times);
    for n in 0..times {
        let began = Instant::now();
        version = store.update(&key(0), &version, &value(n)).await.unwrap();
        taken.push(began.elapsed());
    }
    taken
}

/// Durable claims, and between them what the disk itself takes to make 4 KiB durable: a disk that others use changes its
/// pace from second to second, so only neighbours can be compared.
async fn claims_beside_bare_fsync(place: &Path, times: usize) -> (Vec<Duration>, Vec<Duration>) {
    let store = SqliteStore::open(place.join("on")).unwrap();
    let mut bare = File::create(place.join("bare")).unwrap();
    let mut version = store.insert(&key(0), &value(0)).await.unwrap();
    let (mut of_claims, mut of_disk) = (Vec::with_capacity(times), Vec::with_capacity(times));
    for n in 0..times {
        let began = Instant::now();
        bare.write_all(&[1; 4096]).unwrap();
        bare.sync_data().unwrap();
        of_disk.push(began.elapsed());

        let began = Instant::now();
        version = store.update(&key(0), &version, &value(n)).await.unwrap();
        of_claims.push(began.elapsed());
    }
    (of_claims, of_disk)
}

async fn claims_together(file: &Path, time: Duration) -> (f64, Vec<Duration>) {
    let store = Arc::new(SqliteStore::open(file).unwrap());
    let began = Instant::now();
    let tasks: Vec<_> = (0..CONCURRENT)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut version: Version = store.insert(&key(n), &value(n)).await.unwrap();
                let mut taken = Vec::new();
                while began.elapsed() < time {
                    let before = Instant::now();
                    version = store.update(&key(n), &version, &value(n)).await.unwrap();
                    taken.push(before.elapsed());
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.unwrap());
    }
    (taken.len() as f64 / began.elapsed().as_secs_f64(), taken)
}

/// The same swaps, one transaction each, as a program without this crate would write them.
fn bare_loop(file: &Path, time: Duration) -> f64 {
    let connection = Connection::open(file).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE records (collection TEXT, partition TEXT, row TEXT, version INTEGER, value TEXT,
                                   PRIMARY KEY (collection, partition, row)) STRICT, WITHOUT ROWID;",
        )
        .unwrap();
    for n in 0..CONCURRENT {
        let id = format!("i{n}");
        connection.execute("INSERT INTO records VALUES ('instances', ?1, ?1, 1, ?2)", params![id, value(n)]).unwrap();
    }
    let mut swap = connection
        .prepare(
            "UPDATE records SET version = version + 1, value = ?2
             WHERE collection = 'instances' AND partition = ?1 AND row = ?1 AND version = ?3",
        )
        .unwrap();
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < time {
        let n = done % CONCURRENT;
        let version = i64::try_from(done / CONCURRENT + 1).unwrap();
        assert_eq!(swap.execute(params![format!("i{n}"), value(n), version]).unwrap(), 1);
        done += 1;
    }
    done as f64 / began.elapsed().as_secs_f64()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test` runs benches too, only to see that they run.
    let whole = std::env::args().any(|argument| argument == "--bench");
    let (times, rounds, time) =
        if whole { (2_000, 9, Duration::from_secs(1)) } else { (20, 1, Duration::from_millis(50)) };
    // Beside the build, which lies on a disk: a directory for temporary files may be memory.
    let place = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let file = |name: &str| place.path().join(name);

    println!("in {}", place.path().display());
    let (of_claims, of_disk) = claims_beside_bare_fsync(place.path(), times).await;
    print("4 KiB and fdatasync, no database", of_disk);
    print("one claim, alone, fsync on", of_claims);
    print("one claim, alone, fsync off", claims_alone(&file("off"), false, times).await);

    let (mut all, mut rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (together, taken) = claims_together(&file(&format!("together{round}")), time).await;
        let bare = bare_loop(&file(&format!("bare{round}.db")), time);
        all.extend(taken);
        rates.push((together, bare));
        ratios.push(together / bare);
    }
    print(&format!("one claim, {CONCURRENT} at once, fsync on"), all);
    ratios.sort_by(f64::total_cmp);
    for (together, bare) in rates {
        println!(
            "{CONCURRENT} at once, group commit: {together:>7.0} claims/s   bare rusqlite, one by one: {bare:>6.0}/s"
        );
    }
    println!(
        "ratio: median {:.1}, from {:.1} to {:.1}; a wide range says that the disk was busy with something else",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
}
