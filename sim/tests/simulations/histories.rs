//! Whole histories against the real pool: a budget of random ones of every kind, and every one that once went wrong.

use boxpool_sim::planted::{Bug, plant};
use boxpool_sim::{Case, Profile, corpus, run, shrink_violation};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Histories of each kind in every test run; the explorer runs them by the hundred thousand.
const EACH: u64 = 1_500;

/// Runs `EACH` histories on every processor and returns the situations that were reached.
fn explore(profile: Profile) -> BTreeMap<String, u64> {
    let next = AtomicU64::new(0);
    let marks = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= EACH {
                        return;
                    }
                    let case = Case::random(seed, profile);
                    let outcome = run(&case);
                    if let Some(violation) = outcome.violations.first() {
                        let small = serde_json::to_string(&shrink_violation(&case, 500)).unwrap();
                        panic!(
                            "{violation}\nreplay with: cargo run -p boxpool-sim --release -- replay {seed} --profile {profile}\nsmall: {small}"
                        );
                    }
                    for (mark, count) in outcome.marks {
                        *marks.lock().unwrap().entry(mark).or_default() += count;
                    }
                }
            });
        }
    });
    marks.into_inner().unwrap()
}

/// Every situation must come up, else the histories are poorer than they look.
fn reached(marks: &BTreeMap<String, u64>, wanted: &[&str]) {
    let missing: Vec<&&str> = wanted.iter().filter(|mark| !marks.contains_key(**mark)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

#[test]
fn calm_histories_are_sound_and_need_no_repair() {
    let marks = explore(Profile::Calm);
    reached(
        &marks,
        &[
            "absent → detached",
            "detached → placing",
            "placing → running",
            "running → suspending",
            "suspending → parked",
            "parked → placing",
            "parked → detaching",
            "detaching → detached",
            "running → deleting",
            "parked → deleting",
            "detached → deleting",
            "guest booted",
            "guest resumed",
            "guest suspended",
            "instance retired",
            "box held by several gateways",
        ],
    );
}

#[test]
fn gateways_may_die_stand_still_and_be_cut_off() {
    let marks = explore(Profile::Crashes);
    reached(
        &marks,
        &[
            "gateway crashed",
            "gateway paused",
            "gateway cut off",
            "store away",
            "clock set",
            "step taken over",
            "boxpool_takeovers_total",
            "placing → detaching",
        ],
    );
}

#[test]
fn calls_may_fail_be_lost_be_late_and_come_twice() {
    let marks = explore(Profile::Calls);
    let on = |what: &str, fates: &[&str]| fates.iter().map(|fate| format!("{what}: {fate}")).collect::<Vec<_>>();
    let all: Vec<String> = [
        on("update record", &["answer-lost", "answer-swallowed", "call-lost", "late", "twice", "throttled", "stalled"]),
        on("attach volume", &["answer-lost", "late", "busy", "stuck", "unavailable"]),
        on("start guest", &["answer-lost", "no-capacity", "stalled"]),
        on("suspend guest", &["answer-lost", "stalled"]),
        on("detach volume", &["answer-lost", "late"]),
        on("list instances", &["stale", "incomplete"]),
        on("ensure instance", &["no-capacity", "late", "stuck"]),
    ]
    .concat();
    reached(&marks, &all.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn machines_and_guests_may_die_and_hang() {
    let marks = explore(Profile::Machines);
    reached(
        &marks,
        &[
            "machine died",
            "machine preempted",
            "machine rebooted",
            "guest died",
            "guest hung",
            "guest lost",
            "quota cut",
            "boxpool_guests_lost_total",
            "boxpool_instances_doubted_total",
            "running → placing",
        ],
    );
}

#[test]
fn golden_snapshots_are_built_once_and_retired() {
    let marks = explore(Profile::Golden);
    reached(&marks, &["golden begun", "golden taken over", "golden ready", "golden retired", "golden gone"]);
}

#[test]
fn zones_may_go_out_and_clocks_drift() {
    let marks = explore(Profile::Zones);
    reached(&marks, &["zone out", "clock drifts", "boxpool_guests_lost_total"]);
}

#[test]
fn users_may_do_all_that_can_be_done_with_a_box() {
    let marks = explore(Profile::Verbs);
    reached(
        &marks,
        &[
            "box stopped",
            "running → detaching",
            "guest shut down",
            "memory dropped",
            "mode set",
            "box retained",
            "box undeleted",
            "box shared",
            "detached → renaming",
            "renaming → detached",
            "arriving → detached",
            "boxpool_takeovers_total",
        ],
    );
}

#[test]
fn machines_may_be_kept_stopped() {
    let marks = explore(Profile::Reserve);
    reached(
        &marks,
        &[
            "instance in reserve",
            "instance woken",
            "stop abandoned",
            "instance cordoned",
            "instance drained",
            "boxpool_takeovers_total",
        ],
    );
}

#[test]
fn boxes_hold_machines_while_nobody_is_there_as_a_policy_says() {
    let marks = explore(Profile::Parking);
    reached(&marks, &["placing → parked", "parked → detaching", "detaching → detached", "boxpool_takeovers_total"]);
}

#[test]
fn how_many_are_kept_free_may_follow_from_a_goal() {
    let marks = explore(Profile::Goal);
    reached(&marks, &["another number kept free", "instance retired", "boxpool_takeovers_total"]);
}

#[test]
fn everything_may_go_wrong_at_once() {
    let marks = explore(Profile::Swarm);
    assert!(marks.len() >= 150, "{} situations were reached", marks.len());
}

#[test]
fn what_once_went_wrong_is_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = corpus::read_all(&folder).unwrap();
    assert!(entries.len() >= 20, "{} histories are kept in {}", entries.len(), folder.display());
    for (name, entry) in entries {
        assert!(!entry.found.is_empty(), "{name} does not say what it is kept for");
        assert_eq!(run(&entry.case).violations, Vec::<String>::new(), "{name}: {}", entry.found);
        let Some(planted) = entry.planted else { continue };
        let bug = Bug::ALL.iter().copied().find(|bug| format!("{bug:?}") == planted);
        let bug = bug.unwrap_or_else(|| panic!("{name} names the planted bug {planted}, which there is not"));
        plant(Some(bug));
        let violations = run(&entry.case).violations;
        plant(None);
        assert!(!violations.is_empty(), "{name} is stale: with {planted} in place nothing goes wrong in it");
    }
}

#[test]
fn the_same_seeds_go_the_same_way_in_two_processes() {
    let fingerprints = || {
        let output = Command::new(env!("CARGO_BIN_EXE_boxpool-sim")).args(["fingerprint", "--seeds", "200"]).output();
        let output = output.unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let (first, second) = (fingerprints(), fingerprints());
    assert_eq!(first.lines().count(), 200);
    for (a, b) in first.lines().zip(second.lines()) {
        assert_eq!(a, b);
    }
    let distinct: std::collections::BTreeSet<_> = first.lines().map(|line| line.split(' ').nth(1)).collect();
    assert!(distinct.len() > 190, "seeds that go the same way are one seed");
}
