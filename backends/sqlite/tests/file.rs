//! What the store does with the file: makes it, keeps it, refuses it.
#![allow(clippy::unwrap_used)]

use boxpool::{Effect, ErrorKind, Key, MAX_VALUE_BYTES, StateStore, Table};
use boxpool_sqlite::{SqliteOptions, SqliteStore};
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TABLE: Table = Table::new("things");

fn key(row: &str) -> Key {
    Key::new(TABLE, "p", row)
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.db");
    (directory, file)
}

/// Every file of the directory with its content.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    all.sort();
    all
}

/// The sentence with which the file is refused. Nothing in its directory may change by that.
fn refused(file: &Path) -> String {
    let before = contents(file.parent().unwrap());
    let error = SqliteStore::open(file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    // Not `assert_eq`, which would print every byte.
    assert!(contents(file.parent().unwrap()) == before, "the directory changed, although: {error}");
    error.to_string()
}

async fn filled(file: &Path) {
    let store = SqliteStore::open(file).unwrap();
    for n in 0..200 {
        store.insert(&key(&format!("{n:04}")), &format!("{n:0>1000}")).await.unwrap();
    }
}

#[tokio::test]
async fn records_and_versions_survive_closing_and_opening() {
    let (_directory, file) = place();
    let (kept, gone) = {
        let store = SqliteStore::open(&file).unwrap();
        let gone = store.insert(&key("gone"), "1").await.unwrap();
        store.delete(&key("gone"), &gone).await.unwrap();
        (store.insert(&key("kept"), "1").await.unwrap(), gone)
    };

    let store = SqliteStore::open(&file).unwrap();

    assert_eq!(store.get(&key("kept")).await.unwrap().unwrap().version, kept);
    let again = store.insert(&key("gone"), "1").await.unwrap();
    assert!(again != gone && again != kept, "{again:?} was used before");
}

#[tokio::test]
async fn only_the_owner_may_read_the_file_and_what_lies_beside_it() {
    let (directory, file) = place();
    let store = SqliteStore::open(&file).unwrap();
    store.insert(&key("r"), "secret").await.unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        seen += 1;
    }
    assert!(seen >= 2, "the file and its log");
}

#[tokio::test]
async fn a_closed_store_is_one_file() {
    let (directory, file) = place();
    filled(&file).await;
    let names: Vec<_> = contents(directory.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["store.db"]);
}

#[test]
fn many_that_open_at_once_make_one_file() {
    let (directory, file) = place();
    std::thread::scope(|scope| {
        let opening: Vec<_> = (0..8).map(|_| scope.spawn(|| SqliteStore::open(&file).map(drop))).collect();
        for opened in opening {
            opened.join().unwrap().unwrap();
        }
    });
    let names: Vec<_> = contents(directory.path()).into_iter().map(|(name, _)| name).collect();
    // Two that close at the same moment may leave the log behind, which the next one takes in; half-made files never.
    let made: Vec<_> = names.iter().filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).collect();
    assert_eq!(made, ["store.db"]);
}

#[tokio::test]
async fn odd_file_names_are_names() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a b", "a?mode=memory", "a#b", "a%41", "ä", "file:x", ":memory:"] {
        let file = directory.path().join(name);
        let store = SqliteStore::open(&file).unwrap();
        store.insert(&key("r"), name).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&file).unwrap();
        assert_eq!(store.get(&key("r")).await.unwrap().unwrap().value, name);
        assert!(file.is_file(), "{name}");
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_untouched() {
    let (_directory, file) = place();
    filled(&file).await;
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let sentence = refused(&file);
    assert!(sentence.contains("schema 7") && sentence.contains("newer version"), "{sentence}");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_also_while_it_is_in_use() {
    let (directory, file) = place();
    filled(&file).await;
    let newer = Connection::open(&file).unwrap();
    newer.pragma_update(None, "user_version", 7).unwrap();
    // The new version stands in the log only; the file itself still tells the old one.
    let before = contents(directory.path());
    let error = SqliteStore::open(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("schema 7"), "{error}");
    let main_and_log =
        |all: Vec<(String, Vec<u8>)>| all.into_iter().filter(|(name, _)| !name.ends_with("-shm")).collect::<Vec<_>>();
    assert_eq!(main_and_log(contents(directory.path())), main_and_log(before));
}

#[tokio::test]
async fn a_running_store_writes_no_more_when_a_newer_version_takes_the_file() {
    let (_directory, file) = place();
    let store = SqliteStore::open(&file).unwrap();
    store.insert(&key("1"), "1").await.unwrap();
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = store.insert(&key("2"), "2").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    assert!(error.to_string().contains("schema 7"), "{error}");
    assert_eq!(store.get(&key("2")).await.unwrap(), None);
}

#[tokio::test]
async fn a_running_store_writes_no_more_when_its_file_is_replaced_or_removed() {
    let (directory, file) = place();
    let store = SqliteStore::open(&file).unwrap();
    store.insert(&key("1"), "1").await.unwrap();
    fs::rename(&file, directory.path().join("elsewhere")).unwrap();
    let error = store.insert(&key("2"), "2").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::None));
    fs::write(&file, "another").unwrap();
    let error = store.insert(&key("2"), "2").await.unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[test]
fn another_programs_database_is_refused_and_untouched() {
    let (_directory, file) = place();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
    let sentence = refused(&file);
    assert!(sentence.contains("another program"), "{sentence}");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_untouched() {
    let (_directory, file) = place();
    for content in ["# notes\n".to_owned(), "x".repeat(100_000), "SQLite format 3\0".to_owned()] {
        fs::write(&file, content).unwrap();
        let sentence = refused(&file);
        assert!(sentence.contains("store.db"), "{sentence}");
    }
}

#[test]
fn an_empty_file_is_not_taken_for_a_new_store() {
    let (_directory, file) = place();
    fs::write(&file, "").unwrap();
    let sentence = refused(&file);
    assert!(sentence.contains("is empty"), "{sentence}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_untouched() {
    let (_directory, file) = place();
    filled(&file).await;
    let good = fs::read(&file).unwrap();
    let half = good.len() / 2;

    // Cut off, as by a full disk or a broken copy.
    fs::write(&file, &good[..half]).unwrap();
    assert!(refused(&file).contains("damaged"));

    // A page in the middle overwritten.
    let mut bad = good.clone();
    bad[half..half + 4096].fill(0xa5);
    fs::write(&file, &bad).unwrap();
    assert!(refused(&file).contains("damaged"));

    fs::write(&file, &good).unwrap();
    let store = SqliteStore::open(&file).unwrap();
    assert!(store.get(&key("0199")).await.unwrap().is_some());
}

#[tokio::test]
async fn damage_that_is_met_later_is_told_as_such() {
    let (_directory, file) = place();
    filled(&file).await;
    let mut bad = fs::read(&file).unwrap();
    let half = bad.len() / 2;
    bad[half..].fill(0xa5);
    fs::write(&file, &bad).unwrap();

    let store = SqliteOptions::new().check(false).open(&file).unwrap();

    let error = store.scan(TABLE, None, None, 1000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_missing_directory_is_named() {
    let (directory, _) = place();
    let error = SqliteStore::open(directory.path().join("missing/store.db")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("missing") && error.to_string().contains("create it"), "{error}");
}

#[test]
fn a_directory_in_the_place_of_the_file_is_refused() {
    let (directory, _) = place();
    let error = SqliteStore::open(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("is a directory"), "{error}");
    let error = SqliteStore::open("/dev/null/store.db").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_full_file_refuses_writes_and_keeps_what_it_has() {
    let (_directory, file) = place();
    let store = SqliteOptions::new().bytes_max(200_000).open(&file).unwrap();
    let value = "v".repeat(MAX_VALUE_BYTES);
    let mut written = 0;
    let error = loop {
        match store.insert(&key(&format!("{written:03}")), &value).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "the limit is not kept");
    };
    assert_eq!((error.kind(), error.effect()), (ErrorKind::NoCapacity, Effect::None));
    assert!(error.to_string().contains("free some disk space"), "{error}");
    assert!(written > 0);

    // It goes on: reads, and whatever gives room.
    let found = store.scan(TABLE, None, None, 1000).await.unwrap().items;
    assert_eq!(found.len(), written);
    store.delete(&found[0].key, &found[0].stored.version).await.unwrap();
    store.insert(&key("small"), "fits").await.unwrap();
}

#[tokio::test]
async fn in_a_full_file_small_writes_succeed_beside_one_that_is_refused() {
    let (_directory, file) = place();
    let store = SqliteOptions::new().bytes_max(100_000).open(&file).unwrap();
    let small: Vec<_> = (0..20).map(|n| key(&format!("small{n}"))).collect();
    let mut versions = Vec::new();
    for key in &small {
        versions.push(store.insert(key, "1").await.unwrap());
    }
    let fat = "v".repeat(MAX_VALUE_BYTES);
    let (mut taken, mut refused) = (0, 0);
    for n in 0..20 {
        let name = key(&format!("fat{n}"));
        let (large, little) = tokio::join!(store.insert(&name, &fat), store.update(&small[n], &versions[n], "2"));
        little.unwrap();
        match large {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoCapacity);
                refused += 1;
            }
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}

#[tokio::test]
async fn a_lock_that_is_kept_too_long_is_told_as_busy_and_writing_goes_on_after_it() {
    let (_directory, file) = place();
    let store = SqliteOptions::new().lock_wait(Duration::from_millis(200)).open(&file).unwrap();
    store.insert(&key("before"), "1").await.unwrap();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let began = Instant::now();
    let error = store.insert(&key("meanwhile"), "1").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Busy, Effect::None));
    assert!(error.is_retryable() && error.retry_after().is_some());
    assert!(began.elapsed() >= Duration::from_millis(200));
    // Nobody who reads waits for it.
    assert!(store.get(&key("before")).await.unwrap().is_some());

    other.execute_batch("ROLLBACK").unwrap();
    store.insert(&key("after"), "1").await.unwrap();
    assert_eq!(store.get(&key("meanwhile")).await.unwrap(), None);
}

#[tokio::test]
async fn what_was_asked_for_before_the_store_is_dropped_is_done() {
    let (_directory, file) = place();
    let store = std::sync::Arc::new(SqliteStore::open(&file).unwrap());
    let writes: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.insert(&key(&format!("{n}")), "1").await })
        })
        .collect();
    drop(store);
    for write in writes {
        write.await.unwrap().unwrap();
    }
    let store = SqliteStore::open(&file).unwrap();
    assert_eq!(store.scan(TABLE, None, None, 1000).await.unwrap().items.len(), 50);
}
