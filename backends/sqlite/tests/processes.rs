//! Several processes on one file, and processes that are killed.
//!
//! A worker is this test program again, told by an environment variable to do a worker's job in the body of the same test.
#![allow(clippy::unwrap_used)]

use boxpool::{Effect, ErrorKind, Key, StateStore, Table};
use boxpool_sqlite::SqliteStore;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TABLE: Table = Table::new("things");
const PLACE: &str = "BOXPOOL_TEST_PLACE";
const NAME: &str = "BOXPOOL_TEST_WORKER";

fn key(partition: &str, row: &str) -> Key {
    Key::new(TABLE, partition, row)
}

/// Where this process is to work and under which name, if it is a worker.
fn job() -> Option<(PathBuf, String)> {
    Some((PathBuf::from(std::env::var_os(PLACE)?), std::env::var(NAME).ok()?))
}

fn store_in(place: &Path) -> PathBuf {
    place.join("store.db")
}

/// What a worker has been told is done, one line each.
fn notes_in(place: &Path, name: &str) -> PathBuf {
    place.join(format!("{name}.notes"))
}

fn notes(place: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(notes_in(place, name)).unwrap_or_default();
    // The last line may be cut off where its writer was killed.
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(str::to_owned).collect()
}

fn note(place: &Path, name: &str, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(notes_in(place, name)).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Runs `test` once more in a process of its own, where [`job`] tells what to do.
fn command(program: &Path, test: &str, place: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", test, "--include-ignored", "--nocapture"]).env(PLACE, place).env(NAME, name);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn worker(test: &str, place: &Path, name: &str) -> Worker {
    Worker(command(&std::env::current_exe().unwrap(), test, place, name).spawn().unwrap())
}

struct Worker(Child);

impl Worker {
    fn succeeds(mut self) {
        assert!(self.0.wait().unwrap().success(), "a worker failed");
    }

    fn kill_hard(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

async fn increments(place: &Path, name: &str) {
    let store = SqliteStore::open(store_in(place)).unwrap();
    let counter = key("shared", "counter");
    for n in 0..50 {
        let version = loop {
            let now = store.get(&counter).await.unwrap().unwrap();
            let next = now.value.parse::<u64>().unwrap() + 1;
            match store.update(&counter, &now.version, &next.to_string()).await {
                Ok(version) => break version,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        };
        note(place, name, &version.0);
        let own = store.insert(&key(name, &n.to_string()), "mine").await.unwrap();
        note(place, name, &own.0);
        if n % 2 == 0 {
            store.delete(&key(name, &n.to_string()), &own).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_count_together_lose_nothing() {
    if let Some((place, name)) = job() {
        return increments(&place, &name).await;
    }
    let place = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(store_in(place.path())).unwrap();
    store.insert(&key("shared", "counter"), "0").await.unwrap();
    let names: Vec<String> = (0..4).map(|n| format!("w{n}")).collect();
    let workers: Vec<Worker> =
        names.iter().map(|name| worker("processes_that_count_together_lose_nothing", place.path(), name)).collect();
    for worker in workers {
        worker.succeeds();
    }

    assert_eq!(store.get(&key("shared", "counter")).await.unwrap().unwrap().value, "200");
    let mut versions = BTreeSet::new();
    for name in &names {
        let told = notes(place.path(), name);
        assert_eq!(told.len(), 100);
        for version in told {
            assert!(versions.insert(version.clone()), "version {version} was given twice");
        }
        let left = store.scan(TABLE, Some(name), None, 1000).await.unwrap().items;
        assert_eq!(left.len(), 25);
    }
}

/// Writes from several tasks at once and notes each write after it was answered.
async fn writes_for_ever(place: &Path, name: &str) {
    let store = Arc::new(SqliteStore::open(store_in(place)).unwrap());
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (store, place, name) = (store.clone(), place.to_owned(), name.to_owned());
            tokio::spawn(async move {
                for n in 0_u64.. {
                    let row = format!("{name}-{task}-{n}");
                    let version = store.insert(&key("p", &row), &format!("first {row}")).await.unwrap();
                    store.update(&key("p", &row), &version, &format!("second {row}")).await.unwrap();
                    note(&place, &name, &row);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_writer_loses_nothing_that_was_answered() {
    if let Some((place, name)) = job() {
        return writes_for_ever(&place, &name).await;
    }
    let place = tempfile::tempdir().unwrap();
    // One that lives on while the others die, so that their locks and their half-written log are met by somebody.
    let witness = SqliteStore::open(store_in(place.path())).unwrap();
    let mut told = 0;
    for round in 0..5 {
        let names = [format!("a{round}"), format!("b{round}")];
        let workers =
            names.each_ref().map(|name| worker("a_killed_writer_loses_nothing_that_was_answered", place.path(), name));
        for name in &names {
            until("the worker writes", || notes(place.path(), name).len() > 20 + 7 * round);
        }
        for worker in workers {
            worker.kill_hard();
        }
        witness.insert(&key("witness", &round.to_string()), "lives").await.unwrap();

        // A store that begins now sees the same as the one that was there.
        let fresh = SqliteStore::open(store_in(place.path())).unwrap();
        for name in &names {
            for row in notes(place.path(), name) {
                for store in [&witness, &fresh] {
                    let found = store.get(&key("p", &row)).await.unwrap().unwrap();
                    assert_eq!(found.value, format!("second {row}"));
                }
                told += 1;
            }
        }
    }
    assert!(told > 200, "{told} writes were checked");
    // What was not answered is there or not, but never half.
    let mut cursor = None;
    loop {
        let page = witness.scan(TABLE, Some("p"), cursor.as_ref(), 1000).await.unwrap();
        for entry in page.items {
            let (value, row) = (entry.stored.value, entry.key.row);
            assert!(value == format!("first {row}") || value == format!("second {row}"), "{row}: {value}");
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_while_it_makes_the_file_leaves_none_or_a_whole_one() {
    if let Some((place, name)) = job() {
        let store = SqliteStore::open(store_in(&place)).unwrap();
        store.insert(&key("p", &name), "1").await.unwrap();
        return;
    }
    for round in 0..12 {
        let place = tempfile::tempdir().unwrap();
        let test = "a_process_killed_while_it_makes_the_file_leaves_none_or_a_whole_one";
        let worker = worker(test, place.path(), "w");
        // Killed at its first trace, and a little later each round.
        until("the worker begins", || fs::read_dir(place.path()).unwrap().next().is_some());
        std::thread::sleep(Duration::from_micros(round * 400));
        worker.kill_hard();

        let store = SqliteStore::open(store_in(place.path())).unwrap();
        store.insert(&key("p", "after"), "1").await.unwrap();
    }
}

/// The kind and the words of what opening the store ended with, noted by a worker.
fn note_how_opening_ends(place: &Path, name: &str, notes: &Path) {
    let ended = match SqliteStore::open(store_in(place)) {
        Ok(_) => "opened".to_owned(),
        Err(error) => format!("{:?}: {error}", error.kind()),
    };
    note(notes, name, &ended);
}

#[test]
fn a_directory_or_file_that_cannot_be_written_is_told_and_untouched() {
    const NOTES: &str = "BOXPOOL_TEST_NOTES";
    if let Some((place, name)) = job() {
        return note_how_opening_ends(&place, &name, Path::new(&std::env::var_os(NOTES).unwrap()));
    }
    let place = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(place.path(), 0o755);
    let notes_place = tempfile::tempdir().unwrap();
    mode(notes_place.path(), 0o777);
    // Root may write everywhere, so under root the worker is another user, who must be able to reach the program.
    let program = notes_place.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(&program, 0o755);
    let root = fs::metadata(place.path()).unwrap().uid() == 0;
    let open = |name: &str| {
        let test = "a_directory_or_file_that_cannot_be_written_is_told_and_untouched";
        let mut command = command(&program, test, place.path(), name);
        command.env(NOTES, notes_place.path());
        if root {
            command.uid(65_534).gid(65_534);
        }
        assert!(command.status().unwrap().success());
        notes(notes_place.path(), name).remove(0)
    };

    if !root {
        mode(place.path(), 0o555);
    }
    let said = open("no-file-yet");
    assert!(said.starts_with("Unauthorized") && said.contains("must be writable"), "{said}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

    mode(place.path(), 0o755);
    drop(SqliteStore::open(store_in(place.path())).unwrap());
    mode(&store_in(place.path()), 0o444);
    let said = open("read-only-file");
    assert!(said.starts_with("Unauthorized") && said.contains("must be writable"), "{said}");

    mode(&store_in(place.path()), 0o666);
    mode(place.path(), 0o555);
    let said = open("read-only-directory");
    assert!(said.starts_with("Unauthorized") && said.contains("must be writable"), "{said}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    mode(place.path(), 0o755);
}

/// Fills a disk of one megabyte and goes on when there is room again.
async fn fills_the_disk(place: &Path) {
    let store = SqliteStore::open(store_in(place)).unwrap();
    let ballast = place.join("ballast");
    fs::write(&ballast, vec![1; 300_000]).unwrap();
    let value = "v".repeat(20_000);
    let mut written = 0;
    let error = loop {
        match store.insert(&key("p", &format!("{written:04}")), &value).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "the disk does not fill");
    };
    assert_eq!((error.kind(), error.effect()), (ErrorKind::NoCapacity, Effect::None), "{error}");
    assert_eq!(store.scan(TABLE, None, None, 1000).await.unwrap().items.len(), written);

    fs::remove_file(&ballast).unwrap();
    store.insert(&key("p", "after"), &value).await.unwrap();
    drop(store);
    let store = SqliteStore::open(store_in(place)).unwrap();
    assert_eq!(store.scan(TABLE, None, None, 1000).await.unwrap().items.len(), written + 1);
}

#[tokio::test]
#[ignore = "needs unshare(1) and the right to make user namespaces"]
async fn a_full_disk_refuses_writes_and_keeps_what_it_has() {
    if let Some((place, _)) = job() {
        return fills_the_disk(&place).await;
    }
    let place = tempfile::tempdir().unwrap();
    let test = "a_full_disk_refuses_writes_and_keeps_what_it_has";
    let inner = command(&std::env::current_exe().unwrap(), test, place.path(), "w");
    let mut outer = Command::new("unshare");
    outer.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    outer.arg(r#"mount -t tmpfs -o size=1m none "$0" && exec "$@""#).arg(place.path());
    outer.arg(inner.get_program()).args(inner.get_args());
    outer.env(PLACE, place.path()).env(NAME, "w");
    assert!(outer.status().unwrap().success());
}
