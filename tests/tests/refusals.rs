//! What cannot be done is said in one clear sentence, ends with a code that is not zero, and changes nothing.

#![allow(clippy::unwrap_used)]

use boxpool_tests::{Answer, Gateway, Settings, State, User};
use std::process::Command;

fn refused(answer: &Answer, code: i32, part: &str) {
    assert_eq!((answer.code, answer.out.as_str()), (code, ""), "{answer:?}");
    assert_eq!(answer.err.lines().count(), 1, "one sentence: {answer:?}");
    assert!(answer.err.contains(part), "{answer:?}");
}

#[test]
fn a_full_disk_refuses_a_new_box_and_leaves_no_half_of_it() {
    let state = State::new();
    let full = Settings { more_box: "keep_free_mib = 1000000000".into(), ..Settings::default() };
    let gateway = Gateway::start(&state, &full);
    let user = User::new();
    let _ = user.account(&gateway);
    let answer = user.ssh(&gateway, "gateway", "spinup dev1");
    refused(&answer, 75, "MiB");
    assert!(user.does(&gateway, "gateway", "list --json").contains("\"boxes\":[]"));
    drop(gateway);
    // With room again the same name can be had.
    let gateway = Gateway::start(&state, &Settings::default());
    let _ = user.does(&gateway, "gateway", "spinup dev1");
}

#[test]
fn a_suspended_box_is_kept_when_there_is_no_room_to_wake_it() {
    let state = State::new();
    let gateway = Gateway::start(&state, &Settings::default());
    let user = User::new();
    let account = user.account(&gateway);
    let _ = user.does(&gateway, "gateway", "spinup dev1");
    let process = user.does(&gateway, "dev1", "sleep 100000 >/dev/null 2>&1 </dev/null & echo $!");
    state.until(&account, "dev1", "parked", std::time::Duration::from_secs(60));
    drop(gateway);
    let full = Settings { more_box: "keep_free_mib = 1000000000".into(), ..Settings::default() };
    let gateway = Gateway::start(&state, &full);
    refused(&user.ssh(&gateway, "dev1", "true"), 75, "MiB");
    drop(gateway);
    let gateway = Gateway::start(&state, &Settings::default());
    assert_eq!(user.does(&gateway, "dev1", &format!("kill -0 {process} && echo alive")), "alive");
}

#[test]
fn a_machine_without_qemu_is_told_what_to_install_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("state");
    let output = Command::new(Gateway::program())
        .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(&place)
        .env("PATH", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code > 0), "{said}");
    assert!(said.contains("qemu-system-x86") && said.trim().lines().count() == 1, "{said}");
    assert!(!place.exists());
}
