//! The program's own promises, before anything runs in a box.

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
fn what_the_operator_set_wrong_is_told_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (dir.path().join("config.toml"), dir.path().join("state"));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--config", text(&file), "--state-dir", text(&state)];
    std::fs::write(&file, "admin_keys = \"/nowhere/keys\"\n").unwrap();
    refused(&serve, "admin_keys /nowhere/keys cannot be read");
    assert!(!state.exists());
}

#[test]
fn a_shell_completes_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = program(&["completions", shell]);
        let script = String::from_utf8(script.stdout).unwrap();
        for word in ["serve", "doctor", "adopt-volume", "state-dir"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("completions");
    std::fs::write(&script, program(&["completions", "bash"]).stdout).unwrap();
    let ask = "source \"$1\"; COMP_WORDS=(boxpool-gateway ser); COMP_CWORD=1; \
               \
               set -- $(complete -p boxpool-gateway); while [ \"$1\" != -F ]; do shift; done; \
               \"$2\" boxpool-gateway ser boxpool-gateway; echo \"${COMPREPLY[@]}\"";
    let answer = Command::new("bash").args(["-c", ask, "bash"]).arg(&script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "serve", "{answer:?}");
    assert_eq!(program(&["completions", "nosuchshell"]).status.code(), Some(2));
}

#[test]
fn the_manual_page_tells_of_every_command_and_groff_shows_it_without_a_warning() {
    let page = program(&["man-page"]).stdout;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("boxpool-gateway.1");
    std::fs::write(&file, page).unwrap();
    let shown = Command::new("groff").args(["-man", "-ww", "-Tutf8", "-P-cbou"]).arg(&file).output();
    let shown = shown.expect("groff is installed by scripts/install-packages tests");
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success() && said.is_empty(), "{said}");
    let text = String::from_utf8(shown.stdout).unwrap();
    for part in ["COMMANDS", "adopt-volume", "--state-dir", "EXIT STATUS", "SIGTERM", "spinup dev1", "completions"] {
        assert!(text.contains(part), "the page has no {part}: {text}");
    }
    let help = String::from_utf8(program(&["--help"]).stdout).unwrap();
    assert!(!help.contains("man-page"), "it is for those who package the program");
}

#[test]
fn the_help_tells_of_files_signals_and_exit_status() {
    let help = String::from_utf8(program(&["--help"]).stdout).unwrap();
    for part in ["state.sqlite", "SIGTERM", "Exit status", "metrics_listen", "completions", "spinup NAME"] {
        assert!(help.contains(part), "the help has no {part}: {help}");
    }
}

#[test]
fn systemd_understands_the_unit() {
    let unit = include_str!("../../deploy/boxpool-gateway.service");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("boxpool-gateway.service");
    std::fs::write(&file, unit.replace("/usr/local/bin/boxpool-gateway", env!("CARGO_BIN_EXE_boxpool-gateway")))
        .unwrap();
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output();
    let verify = verify.expect("systemd-analyze is installed by scripts/install-packages tests");
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    // Other units of this machine may be complained of, too.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("boxpool-gateway")).collect();
    assert!(verify.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn wrong_usage_is_status_2() {
    assert_eq!(program(&["dance"]).status.code(), Some(2));
    assert_eq!(program(&["serve", "--listen", "nowhere"]).status.code(), Some(2));
    let help = program(&["--help"]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("doctor"));
}
