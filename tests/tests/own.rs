//! The example of a gateway of one's own does what its text says, with the OpenSSH client and a real guest.

#![allow(clippy::unwrap_used)]

use boxpool_tests::{Gateway, State, User};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The example, which is built with all tests and lies beside the gateway's program.
fn built() -> PathBuf {
    let built = Gateway::program().parent().unwrap().join("examples/own");
    assert!(built.exists(), "{} is missing: build it with cargo test --workspace --no-run", built.display());
    built
}

fn start(program: &Path, state: &State, people: &Path) -> Gateway {
    Gateway::run(|address| {
        let mut own = Command::new(program);
        own.arg(state.path()).arg(people).arg(address);
        own
    })
}

#[test]
fn who_is_in_the_file_has_one_box_that_stays_and_nobody_else_is_let_in() {
    let (program, state, user) = (built(), State::new(), User::new());
    let people = state.path().join("people");
    std::fs::copy(user.key().with_extension("pub"), &people).unwrap();
    let gateway = start(&program, &state, &people);

    let other = user.ssh(&gateway, "other", "true");
    assert!(other.code == 2 && other.err.contains("your box is called home"), "{other:?}");
    assert_eq!(user.does(&gateway, "home", "echo kept > file; hostname"), "home");
    assert_eq!(user.ssh(&gateway, "home", "exit 7").code, 7);
    for (verb, word) in [("delete home --yes", "your box stays"), ("keepalive home on", "no such operation")] {
        let refused = user.ssh(&gateway, "gateway", verb);
        assert!(refused.code == 1 && refused.err.contains(word), "{verb}: {refused:?}");
    }
    let stranger = User::new().ssh(&gateway, "home", "true");
    assert_eq!((stranger.code, stranger.out.as_str()), (255, ""), "{stranger:?}");

    let account = user.account(&gateway);
    let (code, _) = gateway.stop();
    assert_eq!(code, Some(0));
    assert_eq!((state.placement(&account, "home").as_str(), state.guests().len()), ("parked", 0));
    let gateway = start(&program, &state, &people);
    assert_eq!(user.does(&gateway, "home", "cat file"), "kept");
}
