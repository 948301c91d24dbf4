//! The smallest embedding runs, twice, and finds the box as it left it.

#![allow(clippy::unwrap_used)]

use boxpool_tests::State;
use std::process::Command;

#[test]
fn the_smallest_embedding_finds_its_box_as_it_left_it() {
    let state = State::new();
    for (run, via) in [("1", "Detached"), ("2", "Parked")] {
        let output = Command::new(env!("CARGO_BIN_EXE_boxpool-minimal")).arg(state.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(&format!("from {via}")), "{said}");
        assert!(said.lines().any(|line| line.trim() == run), "{said}");
        assert!(state.guests().is_empty(), "it was suspended at the end");
    }
}
