//! How long a suspended box takes to run again, against bare QEMU on the same files: `cargo bench -p boxpool-qemu --bench resume`.
//!
//! Bare QEMU is the same command line, started by hand, told over QMP to load the memory and to go on: no lock, no fence,
//! no record. Both run in turn on the same copy of the files, so a busy machine slows both.

#![allow(clippy::unwrap_used)] // a measurement, not a library

#[path = "../tests/guests/mod.rs"]
mod guests;

use boxpool::{GuestRuntime, StartedBy};
use guests::{Bench, later};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: u64 = 11;
const FILES: [&str; 5] = ["disk.qcow2", "mem", "state", "saved.json", "meta.json"];

#[tokio::main]
async fn main() {
    let bench = Bench::new().await;
    let guest = bench.guest("bench").await;
    bench.start(&guest).await;
    let pid = bench.pid(&guest.volume).unwrap();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let mut line: Vec<String> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8(word.to_vec()).unwrap()).collect();
    line.retain(|word| !word.is_empty());
    bench.qemu.suspend(&guest).await.unwrap();
    if !line.iter().any(|word| word == "-incoming") {
        line.extend(["-incoming".into(), "defer".into()]);
    }

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let socket = bench.dir.path().join("run").join(guest.volume.as_str()).join("qmp.sock");
    for round in 0..ROUNDS {
        keep(&bench, &guest, "kept");
        bare.push(bare_resume(&line, &bench.file(&guest.volume, "state"), &socket));
        give_back(&bench, &guest, "kept");

        let begun = Instant::now();
        let started = bench.qemu.start(&later(&guest, 2 * round + 2)).await.unwrap();
        ours.push(begun.elapsed());
        assert_eq!(started.by, StartedBy::Resume);
        bench.qemu.suspend(&later(&guest, 2 * round + 3)).await.unwrap();
    }
    let (ours, bare) = (median(ours), median(bare));
    println!("bare QEMU, spawn to running:    {bare:>10.1?}");
    println!("start(), call to answer:        {ours:>10.1?}");
    println!("ratio (goal: at most 1.2):      {:>10.2}", ours.as_secs_f64() / bare.as_secs_f64());
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn keep(bench: &Bench, guest: &boxpool::Guest, folder: &str) {
    let folder = bench.dir.path().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    copy(FILES.map(|name| bench.file(&guest.volume, name)), &folder);
}

fn give_back(bench: &Bench, guest: &boxpool::Guest, folder: &str) {
    let folder = bench.dir.path().join(folder);
    copy(FILES.map(|name| folder.join(name)), &bench.file(&guest.volume, ""));
}

fn copy(files: [std::path::PathBuf; 5], to: &Path) {
    let done = Command::new("cp").args(["-p", "--sparse=always"]).args(files).arg(to).status().unwrap();
    assert!(done.success());
}

/// Spawn, load, run; the time to that. Then it is killed.
fn bare_resume(line: &[String], state: &Path, socket: &Path) -> Duration {
    let _ = std::fs::remove_file(socket);
    let begun = Instant::now();
    let mut qemu = Command::new("sh")
        .args(["-c", "exec 5<\"$1\"; shift; exec \"$@\"", "sh"])
        .arg(state)
        .args(line)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(_) if begun.elapsed() < Duration::from_secs(30) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("QEMU does not listen: {error}"),
        }
    };
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    let mut answer = |request: &str| {
        writer.write_all(request.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "QEMU ended");
            assert!(!line.contains("\"error\""), "{line}");
            if line.contains("\"return\"") {
                return line;
            }
        }
    };
    answer(r#"{"execute":"qmp_capabilities"}"#);
    answer(
        r#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}"#,
    );
    answer(r#"{"execute":"migrate-incoming","arguments":{"uri":"fd:5"}}"#);
    while answer(r#"{"execute":"query-status"}"#).contains("inmigrate") {
        std::thread::sleep(Duration::from_millis(1));
    }
    answer(r#"{"execute":"cont"}"#);
    let took = begun.elapsed();
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    took
}
