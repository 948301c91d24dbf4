//! The program's own promises, before anything runs in a box.

#![allow(clippy::unwrap_used)] // a test may

use std::path::Path;
use std::process::{Command, Output};

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boxpool-gateway")).args(args).env_remove("BOXPOOL_STATE_DIR").output().unwrap()
}

fn refused(args: &[&str], part: &str) {
    let output = program(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    assert!(text.contains(part) && text.lines().count() == 1, "{args:?}: {text}");
    assert!(output.stdout.is_empty());
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_printed_configuration_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (dir.path().join("config.toml"), dir.path().join("state"));
    std::fs::write(&file, program(&["config"]).stdout).unwrap();
    let output = program(&["doctor", "--json", "--config", text(&file), "--state-dir", text(&state)]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["findings"].as_array().unwrap().len() > 5, "{report}");
    assert!(!state.exists(), "looking changes nothing");
}

#[test]
fn what_cannot_work_is_one_sentence_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (dir.path().join("config.toml"), dir.path().join("state"));
    refused(&["serve", "--config", text(&file), "--state-dir", text(&state)], "cannot be read");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nslotz = 3\n").unwrap();
    refused(&["serve", "--config", text(&file), "--state-dir", text(&state)], "slotz");
    std::fs::write(&file, "log = \"=,=\"\n").unwrap();
    refused(&["serve", "--config", text(&file), "--state-dir", text(&state)], "option log");
    std::fs::write(&file, "registration = \"allow-list\"\nallow_list = \"/nowhere/keys\"\n").unwrap();
    refused(&["serve", "--config", text(&file), "--state-dir", text(&state)], "allow-list /nowhere/keys");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&["serve", "--listen", &address, "--state-dir", text(&state)], "in use");
    assert!(!state.exists());

    refused(&["serve", "--listen", "127.0.0.1:0", "--state-dir", "/proc/boxpool"], "state directory");
    refused(&["hostkey", "--state-dir", text(&state)], "no host key yet");
    assert!(!state.exists());
}

#[test]
fn wrong_usage_is_status_2() {
    assert_eq!(program(&["dance"]).status.code(), Some(2));
    assert_eq!(program(&["serve", "--listen", "nowhere"]).status.code(), Some(2));
    let help = program(&["--help"]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("doctor"));
}
