//! Ten thousand sessions in which nothing happens, on one gateway: `cargo bench -p boxpool-gateway --bench sessions`.
//!
//! The gateway is whole: the real pool, a store on disk, and the limits that its program has. Users and boxes are in processes of
//! their own, so this one's memory is the gateway's. Each user has an account, a key, a box and `EACH` sessions in it, and each session
//! is a connection from the user, a connection to the box, a terminal and a shell. All boxes are one light server, which echoes.
//!
//! A session takes two descriptors here and one in each of the other processes: `ulimit -Hn` must allow for that, else there are
//! fewer. Then the same once more with one connection for all sessions of a user, as OpenSSH's `ControlMaster` has it.
//! A number after `--` says how many there are to be; `-- shared` measures those on shared connections alone, `-- jump-host`
//! OpenSSH's `sshd`.

#![allow(clippy::unwrap_used)] // a measurement, not a library

mod boxes;
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod jump_host;
mod peer;
mod users;

use boxpool_gateway::config::Config;
use harness::memory::resident;
use harness::site::Site;
use peer::Peer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Command;
use std::time::Duration;

const SESSIONS: usize = 10_000;
/// Sessions of one user.
const EACH: usize = 10;
/// A first step, from which growth is counted.
const FIRST: usize = 1000;
/// Descriptors that are for other things than sessions.
const OTHERS: usize = 64;

fn main() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let descriptors = limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap() - OTHERS);
    // One to the box each, and one to the user for so many.
    let most = |shared_by: usize| descriptors / (shared_by + 1) * shared_by;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["boxes", key] => runtime.block_on(boxes::serve(key)),
        ["users", port, shared_by] => {
            runtime.block_on(users::serve(port.parse().unwrap(), shared_by.parse().unwrap()));
        }
        ["jump-host"] => runtime.block_on(jump_host::measure()),
        ["shared"] => runtime.block_on(measure(SESSIONS.min(most(EACH)), EACH)),
        ["shared", sessions] => runtime.block_on(measure(most(EACH).min(sessions.parse().unwrap()), EACH)),
        [sessions] => runtime.block_on(measure(most(1).min(sessions.parse().unwrap()), 1)),
        _ => {
            runtime.block_on(async {
                measure(most(1).min(SESSIONS), 1).await;
                jump_host::measure().await;
            });
            println!("\nwith one connection for the {EACH} sessions of a user:");
            // In a process of its own: what the sessions before have left would count.
            assert!(Command::new(std::env::current_exe().unwrap()).arg("shared").status().unwrap().success());
        }
    }
}

/// Measures so many sessions, of which so many share a connection.
async fn measure(sessions: usize, shared_by: usize) {
    let site = Site::new();
    let host_key = site.dir.path().join("boxes_host_key");
    let (boxes, endpoint) = boxes::start(&host_key).await;
    *site.machines.all_at.lock().unwrap() = Some(endpoint);
    let slots = u32::try_from(sessions.div_ceil(EACH)).unwrap();
    let config = Config { slots, spinup_on_connect: true, ..Config::default() };
    // Each peer is asked this often whether it lives; then it has been asked, and has answered.
    let rest = config.keepalive.0 + Duration::from_secs(5);
    let gateway = site.start(config).await;
    let mut users = Peer::start(&["users", &gateway.port.to_string(), &shared_by.to_string()]);

    let before = resident();
    row("the gateway before the first login", before, None);
    let mut known = None;
    for step in [FIRST.min(sessions), sessions] {
        println!("{}", users.ask(&format!("in {step}")).await);
        row(&format!("with {step} sessions, when the last is in"), resident(), Some((before, step)));
        tokio::time::sleep(rest).await;
        let now = resident();
        row(&format!("with {step} sessions, {} s later", rest.as_secs()), now, Some((before, step)));
        if let Some((memory, fewer)) = known.filter(|(_, fewer)| *fewer < step) {
            println!("each one beyond {fewer} adds {} KiB", (now - memory) / (step - fewer) as u64);
        }
        println!("{}", users.ask("echo").await);
        known = Some((now, step));
    }
    println!("{}", users.ask("all").await);
    row("after a byte in each of them", resident(), Some((before, sessions)));
    assert_eq!(site.machines.running(), sessions.div_ceil(EACH), "a box for each user");
    drop((users, boxes, gateway));
}

fn row(what: &str, memory: u64, of: Option<(u64, usize)>) {
    let each = of.map(|(before, sessions)| memory.saturating_sub(before) / sessions as u64);
    let each = each.map(|each| format!(", {each} KiB for each")).unwrap_or_default();
    println!("{what:<52} {:>7.1} MiB{each}", f64::from(u32::try_from(memory).unwrap()) / 1024.0);
}
