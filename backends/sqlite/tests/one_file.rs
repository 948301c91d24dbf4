//! One file: damaged, foreign, newer, read-only; and shared by several processes, one of which is killed.

#![allow(clippy::unwrap_used)]

use boxpool::{ErrorKind, Key, StateStore, Table};
use boxpool_sqlite::SqliteStore;
use std::path::Path;
use std::process::{Command, Stdio};

const THINGS: Table = Table::new("things");

fn key(row: &str) -> Key {
    Key::new(THINGS, "p", row)
}

async fn refused_and_untouched(path: &Path, expected: ErrorKind, word: &str) {
    let before = std::fs::read(path).unwrap();
    let error = SqliteStore::open(path).await.unwrap_err();
    assert_eq!(error.kind(), expected, "{error}");
    assert!(error.to_string().contains(word), "{error}");
    assert_eq!(std::fs::read(path).unwrap(), before, "not a byte was changed");
    let beside: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(beside.len(), 1, "nothing was left beside it: {beside:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    std::fs::write(&path, "a letter to my mother, and not a state file").unwrap();
    refused_and_untouched(&path, ErrorKind::Corrupt, "not a state file").await;
}

#[tokio::test]
async fn another_programs_database_is_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA application_id = 7; CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    drop(other);
    refused_and_untouched(&path, ErrorKind::Corrupt, "another program").await;
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    drop(SqliteStore::open(&path).await.unwrap());
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(newer);
    refused_and_untouched(&path, ErrorKind::Corrupt, "newer version").await;
}

#[tokio::test]
async fn a_cut_off_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    drop(SqliteStore::open(&path).await.unwrap());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(60).unwrap();
    refused_and_untouched(&path, ErrorKind::Corrupt, "not a state file").await;
}

#[tokio::test]
async fn a_place_where_nothing_can_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = SqliteStore::open(dir.path().join("none/state.sqlite")).await.unwrap_err();
    assert!(missing.to_string().contains("directory does not exist"), "{missing}");
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let below_a_file = SqliteStore::open(dir.path().join("file/state.sqlite")).await.unwrap_err();
    assert_eq!(below_a_file.kind(), ErrorKind::Unauthorized);
    // Not even root may write there.
    let nowhere = SqliteStore::open("/proc/state.sqlite").await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert(&key("a"), "1").await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn versions_are_never_used_again_not_even_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let store = SqliteStore::open(&path).await.unwrap();
    let first = store.insert(&key("a"), "1").await.unwrap();
    store.delete(&key("a"), &first).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).await.unwrap();
    let second = store.insert(&key("a"), "1").await.unwrap();
    assert_ne!(first, second);
    assert_eq!(store.update(&key("a"), &first, "2").await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// What a worker process does: rises a shared counter and writes records of its own, telling each one that was answered.
async fn work(path: &str, me: &str, rounds: u32) {
    use std::io::Write;
    let store = SqliteStore::open(path).await.unwrap();
    for round in 0..rounds {
        store.insert(&key(&format!("{me}-{round:05}")), "x").await.unwrap();
        println!("wrote {me}-{round:05}");
        std::io::stdout().flush().unwrap();
        loop {
            let held = store.get(&key("counter")).await.unwrap().unwrap();
            let next = (held.value.parse::<u64>().unwrap() + 1).to_string();
            match store.update(&key("counter"), &held.version, &next).await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
    }
}

#[tokio::test]
#[ignore = "the other half of the tests below, which run it as a process of its own"]
async fn worker() {
    let path = std::env::var("BOXPOOL_SQLITE_WORK").unwrap();
    work(
        &path,
        &std::env::var("BOXPOOL_SQLITE_ME").unwrap(),
        std::env::var("BOXPOOL_SQLITE_ROUNDS").unwrap().parse().unwrap(),
    )
    .await;
}

fn start_worker(path: &Path, me: &str, rounds: u32) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--ignored", "--nocapture"])
        .env("BOXPOOL_SQLITE_WORK", path)
        .env("BOXPOOL_SQLITE_ME", me)
        .env("BOXPOOL_SQLITE_ROUNDS", rounds.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn several_processes_share_one_file_without_losing_a_write() {
    const PROCESSES: u32 = 4;
    const ROUNDS: u32 = 60;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert(&key("counter"), "0").await.unwrap();
    let workers: Vec<_> = (0..PROCESSES).map(|n| start_worker(&path, &format!("w{n}"), ROUNDS)).collect();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let counter = store.get(&key("counter")).await.unwrap().unwrap().value;
    assert_eq!(counter, (PROCESSES * ROUNDS).to_string());
    let page = store.scan(THINGS, None, None, 10_000).await.unwrap();
    assert_eq!(page.items.len() as u32, PROCESSES * ROUNDS + 1);
}

#[tokio::test]
async fn a_killed_writer_leaves_every_answered_write_and_a_whole_file() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let store = SqliteStore::open(&path).await.unwrap();
    store.insert(&key("counter"), "0").await.unwrap();
    let mut worker = start_worker(&path, "w", 100_000);
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let mut answered: Vec<String> = Vec::new();
    while answered.len() < 50 {
        let line = lines.next().unwrap().unwrap();
        // The test runner writes its own words on the same line as the first one.
        answered.extend(line.split("wrote ").nth(1).map(str::to_owned));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    answered.extend(lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("wrote ").map(str::to_owned)));
    for row in answered {
        assert!(store.get(&key(&row)).await.unwrap().is_some(), "{row} was answered and is gone");
    }
    let check = rusqlite::Connection::open(&path).unwrap();
    let verdict: String = check.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    store.insert(&key("after"), "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_arrive_together_each_have_their_own_fate() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(SqliteStore::open(dir.path().join("state.sqlite")).await.unwrap());
    let version = store.insert(&key("one"), "0").await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let (store, version) = (store.clone(), version.clone());
            tokio::spawn(async move {
                let own = store.insert(&key(&format!("own{n}")), "x").await;
                (own.is_ok(), store.update(&key("one"), &version, &n.to_string()).await.is_ok())
            })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        let (own, won) = task.await.unwrap();
        assert!(own, "a neighbour's conflict undoes nothing");
        winners += u32::from(won);
    }
    assert_eq!(winners, 1);
}
