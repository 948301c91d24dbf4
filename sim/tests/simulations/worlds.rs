//! Whole worlds as proptest strategies: sound histories stay sound, and what fails comes out small, with a line to replay it.

use boxpool_sim::planted::{Bug, plant};
use boxpool_sim::{Case, Profile, corpus, run, shrink_violation, strategy};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// The same worlds in every run, unless `PROPTEST_RNG_SEED` says otherwise.
fn runner(cases: u32) -> TestRunner {
    let mut config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(20_260_101);
    }
    TestRunner::new(config)
}

/// Looks for a world that is not sound, and makes it as small as it goes.
fn unsound(cases: u32, worlds: impl Strategy<Value = Case>) -> Option<Case> {
    let sound = |case: Case| match run(&case).violations.first() {
        None => Ok(()),
        Some(violation) => Err(TestCaseError::fail(violation.clone())),
    };
    match runner(cases).run(&worlds, sound) {
        Ok(()) => None,
        // proptest's own shrinking does not know what a history is; the last steps do.
        Err(TestError::Fail(_, case)) => Some(shrink_violation(&case, 500)),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

fn all_sound(cases: u32, worlds: impl Strategy<Value = Case>) {
    if let Some(case) = unsound(cases, worlds) {
        panic!("{}", strategy::failure(&case, &run(&case).violations));
    }
}

#[test]
fn calm_worlds_are_sound() {
    all_sound(150, strategy::cases(Profile::Calm));
}

#[test]
fn worlds_whose_gateways_die_are_sound() {
    all_sound(150, strategy::cases(Profile::Crashes));
}

#[test]
fn worlds_whose_calls_are_struck_are_sound() {
    all_sound(300, strategy::cases(Profile::Calls));
}

#[test]
fn worlds_whose_machines_die_are_sound() {
    all_sound(150, strategy::cases(Profile::Machines));
}

#[test]
fn worlds_with_everything_at_once_are_sound() {
    all_sound(300, strategy::cases(Profile::Swarm));
}

#[test]
fn large_worlds_are_sound() {
    all_sound(4, strategy::cases_of(Profile::Swarm, strategy::Size::LARGE));
}

#[test]
fn strikes_strike() {
    let (mut struck, mut fates) = (0, BTreeSet::new());
    let mut runner = runner(200);
    for _ in 0..200 {
        let tree = strategy::cases(Profile::Calls).new_tree(&mut runner).unwrap();
        let case = proptest::strategy::ValueTree::current(&tree);
        let outcome = run(&case);
        struck += usize::from(!outcome.struck.is_empty());
        fates.extend(outcome.struck.iter().map(|strike| strike.fate.word()));
    }
    assert!(struck > 100, "only {struck} of 200 worlds had a call that was struck");
    assert!(fates.len() > 10, "{fates:?}");
}

#[test]
fn a_world_that_fails_comes_out_small_and_can_be_replayed() {
    plant(Some(Bug::UndoForgetsVolume));
    let case = unsound(4_000, strategy::cases(Profile::Calls));
    let violations = case.as_ref().map(|case| run(case).violations);
    plant(None);
    let (case, violations) = (case.unwrap(), violations.unwrap());
    assert!(case.ops.len() <= 5 && case.script.len() <= 2, "{case:?}");

    let told = strategy::failure(&case, &violations);
    let line = told.lines().find_map(|line| line.strip_prefix("replay with: ")).unwrap();
    let data = line.split('\'').nth(1).unwrap();
    let mut replay = Command::new(env!("CARGO_BIN_EXE_boxpool-sim"))
        .args(["replay", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut replay.stdin.take().unwrap(), data.as_bytes()).unwrap();
    let output = replay.wait_with_output().unwrap();
    assert!(output.status.success(), "the bug is not planted there");
    let calls = run(&case).calls;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("{calls} calls")), "it is the same history: {text}");
    assert_eq!(corpus::parse(data).unwrap().case, case);
}
