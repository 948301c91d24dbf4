//! Whole lives of boxes: real clients, a real gateway, real guests.

#![allow(clippy::unwrap_used)]

mod isolation;

use boxpool_sim::conformance::{COUNTED, COUNTING};
use boxpool_tests::{Gateway, Settings, State, User};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

fn count(user: &User, gateway: &Gateway, name: &str) -> u64 {
    user.does(gateway, name, COUNTED).parse().unwrap()
}

fn states(user: &User, gateway: &Gateway) -> Vec<(String, String)> {
    let list: serde_json::Value = serde_json::from_str(&user.does(gateway, "gateway", "list --json")).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    list["boxes"].as_array().unwrap().iter().map(|found| (text(&found["name"]), text(&found["state"]))).collect()
}

#[test]
fn a_box_is_as_it_was_left_parked_or_detached() {
    let state = State::new();
    let gateway = Gateway::start(&state, &Settings { slots: 1, ..Settings::default() });
    let user = User::new();
    let account = user.account(&gateway);
    let _ = user.does(&gateway, "gateway", "spinup dev1");
    let process = user.does(&gateway, "dev1", &format!("echo kept > file; {COUNTING}"));
    state.until(&account, "dev1", "parked", SOON);
    assert_eq!(states(&user, &gateway), [("dev1".to_owned(), "parked".to_owned())]);
    assert!(state.guests().is_empty(), "a parked box costs no process");

    let begun = Instant::now();
    let first = count(&user, &gateway, "dev1");
    println!("connect to a parked box, first command done: {:?}", begun.elapsed());
    assert!(first > 1);
    assert_eq!(
        user.does(&gateway, "dev1", &format!("cat file; kill -0 {process} && echo {process}")),
        format!("kept\n{process}")
    );
    state.until(&account, "dev1", "parked", SOON);

    // Another box takes the only slot: the first one's volume is detached and its slot given back.
    let _ = user.does(&gateway, "gateway", "spinup dev2");
    assert_eq!(user.does(&gateway, "dev2", "hostname; ls"), "dev2");
    state.until(&account, "dev1", "detached", SOON);
    state.until(&account, "dev2", "parked", SOON);

    let begun = Instant::now();
    let second = count(&user, &gateway, "dev1");
    println!("connect to a detached box, first command done: {:?}", begun.elapsed());
    assert!(second > first, "{second} after {first}");
    assert_eq!(user.does(&gateway, "dev1", "cat file; hostname"), "kept\ndev1");
}

#[test]
fn a_killed_gateway_loses_nothing_wherever_it_was() {
    let state = State::new();
    let settings = Settings::default();
    let gateway = Gateway::start(&state, &settings);
    let user = User::new();
    let account = user.account(&gateway);
    let _ = user.does(&gateway, "gateway", "spinup dev1");
    let process = user.does(&gateway, "dev1", &format!("echo one > file; {COUNTING}"));

    // While the box runs with somebody in it.
    let mut inside = user.stay(&gateway, "dev1", "echo in; sleep 1000");
    let mut line = String::new();
    BufReader::new(inside.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "in\n");
    let guest = state.guests();
    gateway.kill();
    inside.kill().unwrap();
    inside.wait().unwrap();
    let gateway = Gateway::start(&state, &settings);
    let begun = Instant::now();
    let first = count(&user, &gateway, "dev1");
    println!("connect after the gateway was killed: {:?}", begun.elapsed());
    assert_eq!(state.guests(), guest, "the guest ran on and was taken over");
    assert_eq!(
        user.does(&gateway, "dev1", &format!("cat file; kill -0 {process} && echo {process}")),
        format!("one\n{process}")
    );

    // While it is being suspended.
    state.until(&account, "dev1", "suspending", SOON);
    gateway.kill();
    let gateway = Gateway::start(&state, &settings);
    let second = count(&user, &gateway, "dev1");
    assert!(second > first, "{second} after {first}: memory was kept");
    state.until(&account, "dev1", "parked", SOON);

    // While it is being placed.
    let mut coming = user.stay(&gateway, "dev1", "true");
    state.until(&account, "dev1", "placing", SOON);
    gateway.kill();
    coming.kill().unwrap();
    coming.wait().unwrap();
    let gateway = Gateway::start(&state, &settings);
    let third = count(&user, &gateway, "dev1");
    assert!(third > second, "{third} after {second}: memory was kept");
    assert_eq!(user.does(&gateway, "dev1", "cat file"), "one");
    assert!(state.guests().len() <= 1, "one guest and no other: {:?}", state.guests());
}

#[test]
fn a_killed_guest_boots_again_and_its_neighbour_does_not_notice() {
    let state = State::new();
    let gateway = Gateway::start(&state, &Settings { linger_s: 60, ..Settings::default() });
    let user = User::new();
    for name in ["one", "two"] {
        let _ = user.does(&gateway, "gateway", &format!("spinup {name}"));
        let _ = user.does(&gateway, name, &format!("echo {name} > file; sync; {COUNTING}"));
    }
    isolation::holds(&state, &gateway, &user, ["one", "two"]);
    let before = count(&user, &gateway, "two");
    let mut inside = user.stay(&gateway, "one", "echo in; sleep 1000");
    let mut line = String::new();
    BufReader::new(inside.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let volume = user_volume(&state, &user.account(&gateway), "one");
    let (pid, _) = state.guests().into_iter().find(|(_, line)| line.contains(&volume)).unwrap();
    assert!(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    assert_ne!(inside.wait().unwrap().code(), Some(0), "whoever was inside is told by a failure");

    assert_eq!(user.does(&gateway, "one", "cat file; cat /dev/shm/count 2>/dev/null || echo booted"), "one\nbooted");
    assert!(count(&user, &gateway, "two") > before);
    assert_eq!(user.does(&gateway, "two", "cat file"), "two");
}

fn user_volume(state: &State, account: &str, name: &str) -> String {
    use boxpool::StateStore;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = boxpool_sqlite::SqliteStore::open(state.path().join("state.sqlite")).unwrap();
        let key = boxpool::Key::new(boxpool::record::BOXES, account, name);
        let record: serde_json::Value = serde_json::from_str(&store.get(&key).await.unwrap().unwrap().value).unwrap();
        record["volume"]["volume"].as_str().unwrap().to_owned()
    })
}

#[test]
fn twenty_users_on_four_slots_each_get_exactly_their_own() {
    let state = State::new();
    let gateway = Gateway::start(&state, &Settings { slots: 4, connect_deadline_s: 600, ..Settings::default() });
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (gateway, state) = (&gateway, &state);
            scope.spawn(move || {
                let user = User::new();
                let account = user.account(gateway);
                let _ = user.does(gateway, "gateway", "spinup mine");
                assert_eq!(user.does(gateway, "mine", &format!("ls; echo secret-{n} > file; echo in")), "in");
                assert_eq!(user.does(gateway, "mine", "cat file"), format!("secret-{n}"));
                assert!(state.guests().len() <= 4);
                drop(account);
            });
        }
    });
}

#[test]
fn who_waits_is_told_their_place_and_refused_in_one_sentence() {
    let state = State::new();
    let gateway = Gateway::start(&state, &Settings { slots: 1, connect_deadline_s: 20, ..Settings::default() });
    let (first, second) = (User::new(), User::new());
    for user in [&first, &second] {
        let _ = user.does(&gateway, "gateway", "spinup mine");
    }
    let mut inside = first.stay(&gateway, "mine", "echo in; sleep 1000");
    let mut line = String::new();
    BufReader::new(inside.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();

    // A person looks on: a terminal is asked for.
    let mut ssh = second.client(&gateway);
    let waiting = ssh.args(["-tt", "mine@127.0.0.1"]).stdin(Stdio::null()).output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&waiting.stdout), String::from_utf8_lossy(&waiting.stderr));
    assert!(told.contains("number 1 in line"), "{told}");
    assert_eq!(waiting.status.code(), Some(75), "{told}");
    // A script is told nothing but the refusal.
    let refused = second.ssh(&gateway, "mine", "true");
    assert_eq!((refused.code, refused.out.as_str()), (75, ""));
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    inside.kill().unwrap();
    inside.wait().unwrap();
    assert_eq!(second.does(&gateway, "mine", "echo in"), "in");
}

#[test]
fn two_gateways_share_one_guest_and_only_the_last_one_out_suspends_it() {
    let state = State::new();
    let settings = Settings::default();
    let (one, two) = (Gateway::start(&state, &settings), Gateway::start(&state, &settings));
    let user = User::new();
    let account = user.account(&one);
    let _ = user.does(&one, "gateway", "spinup dev1");
    let (mut a, mut b) =
        (user.stay(&one, "dev1", "echo in; sleep 1000"), user.stay(&two, "dev1", "echo in; sleep 1000"));
    for inside in [&mut a, &mut b] {
        let mut line = String::new();
        BufReader::new(inside.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "in\n");
    }
    let guests = state.guests();
    assert_eq!(guests.len(), 1, "{guests:?}");
    a.kill().unwrap();
    a.wait().unwrap();
    // Well beyond the linger the other session's command still runs, in the same guest.
    assert_eq!(user.does(&two, "dev1", "sleep 5; grep -q 'sleep[^.]1000' /proc/[0-9]*/cmdline && echo alive"), "alive");
    assert_eq!(state.guests(), guests);
    assert_eq!(state.placement(&account, "dev1"), "running");
    b.kill().unwrap();
    b.wait().unwrap();
    state.until(&account, "dev1", "parked", SOON);
}

#[test]
fn a_stop_suspends_the_boxes_and_ends_well() {
    let state = State::new();
    let settings = Settings { linger_s: 600, ..Settings::default() };
    let gateway = Gateway::start(&state, &settings);
    let user = User::new();
    let account = user.account(&gateway);
    let _ = user.does(&gateway, "gateway", "spinup dev1");
    let _ = user.does(&gateway, "dev1", COUNTING);
    let mut inside = user.stay(&gateway, "dev1", "echo in; sleep 1000");
    let mut line = String::new();
    BufReader::new(inside.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let (code, took) = gateway.stop();
    assert_eq!(code, Some(0));
    println!("stopped after {took:?}");
    assert!(inside.wait().is_ok());
    assert_eq!(state.placement(&account, "dev1"), "parked");
    assert!(state.guests().is_empty());
    let gateway = Gateway::start(&state, &settings);
    assert!(count(&user, &gateway, "dev1") > 1);
}

#[test]
fn a_deleted_box_is_gone_and_its_name_can_be_used_again() {
    let state = State::new();
    let gateway = Gateway::start(&state, &Settings::default());
    let user = User::new();
    let _ = user.does(&gateway, "gateway", "spinup dev1");
    let _ = user.does(&gateway, "dev1", "echo old > file");
    assert_ne!(user.ssh(&gateway, "gateway", "delete dev1").code, 0, "not without --yes");
    let _ = user.does(&gateway, "gateway", "delete dev1 --yes");
    assert!(states(&user, &gateway).is_empty());
    assert_ne!(user.ssh(&gateway, "dev1", "true").code, 0);
    let _ = user.does(&gateway, "gateway", "spinup dev1");
    assert_eq!(user.does(&gateway, "dev1", "ls; echo kept > file"), "");

    // Its disk is grown, and the next start boots with the larger one; the file system is as large as before.
    let blocks = "df -k / | awk 'END { print $2 }'";
    let before = user.does(&gateway, "dev1", blocks);
    let _ = user.does(&gateway, "gateway", "resize dev1 12G --yes");
    let sectors = user.does(&gateway, "dev1", "cat /sys/block/vd*/size");
    assert!(sectors.lines().any(|size| size == (12_u64 << 21).to_string()), "{sectors}");
    assert_eq!(user.does(&gateway, "dev1", "cat file"), "kept");
    assert_eq!(user.does(&gateway, "dev1", blocks), before);
}
