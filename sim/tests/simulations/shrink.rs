//! What fails becomes small: histories with a bug planted on purpose, found by chance and made small by machine.

use boxpool_sim::planted::{Bug, plant};
use boxpool_sim::{Case, Profile, kind_of, run, shrink_violation};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// So many histories of each profile are tried until one fails.
const SEARCH: u64 = 400;
/// As many runs as a shrink may take.
const RUNS: usize = 2_000;

/// A failing history, made small.
struct Small {
    bug: Bug,
    profile: Profile,
    seed: u64,
    violation: String,
    case: Case,
    took: Duration,
}

impl Small {
    fn faults(&self) -> usize {
        self.case.script.len() + self.case.events.len() + usize::from(self.case.faults != boxpool_sim::Faults::none())
    }
}

/// Finds a history that fails with `bug` and makes it small; `None` when chance does not find it soon.
fn find_and_shrink(bug: Bug) -> Option<Small> {
    plant(Some(bug));
    let found = (0..SEARCH).flat_map(|seed| Profile::ALL.map(|profile| (seed, profile))).find_map(|(seed, profile)| {
        let case = Case::random(seed, profile);
        let outcome = std::panic::catch_unwind(|| run(&case)).ok()?;
        let kind = kind_of(outcome.violations.first()?).to_owned();
        Some((seed, profile, case, kind))
    });
    let small = found.map(|(seed, profile, case, kind)| {
        let begun = Instant::now();
        let case = shrink_violation(&case, RUNS);
        let took = begun.elapsed();
        let violations = run(&case).violations;
        let violation = violations.into_iter().find(|violation| kind_of(violation) == kind);
        let violation = violation.expect("what was made small fails in the same way");
        Small { bug, profile, seed, violation, case, took }
    });
    plant(None);
    small
}

fn on_every_core(bugs: &[Bug]) -> Vec<Option<Small>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let small = find_and_shrink(*bug);
                    done.lock().unwrap().push(small);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

fn print(small: &Small) {
    println!(
        "{:30} {:8} {:>5}  {:>2} ops {:>2} faults {} gateways  {:>5.2} s  {}",
        format!("{:?}", small.bug),
        format!("{:?}", small.profile).to_lowercase(),
        small.seed,
        small.case.ops.len(),
        small.faults(),
        small.case.gateways,
        small.took.as_secs_f64(),
        small.violation.chars().take(90).collect::<String>()
    );
}

fn median(mut numbers: Vec<usize>) -> usize {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

#[test]
#[ignore = "needs minutes: every planted bug that chance finds"]
fn every_find_becomes_small() {
    let small = on_every_core(Bug::ALL);
    let folder = std::env::var_os("BOXPOOL_SIM_SAVE").map(std::path::PathBuf::from);
    for small in small.iter().flatten() {
        print(small);
        if let Some(folder) = &folder {
            let text = serde_json::to_string(&(format!("{:?}", small.bug), &small.violation, &small.case)).unwrap();
            std::fs::write(folder.join(format!("{:?}.json", small.bug)), text).unwrap();
        }
    }
    let small: Vec<Small> = small.into_iter().flatten().collect();
    let ops = median(small.iter().map(|small| small.case.ops.len()).collect());
    let faults = median(small.iter().map(Small::faults).collect());
    let ms = median(small.iter().map(|small| small.took.as_millis() as usize).collect());
    println!("{} finds, median {ops} ops, {faults} faults, {ms} ms", small.len());
    assert!(ops <= 5 && faults <= 1, "median {ops} operations and {faults} faults");
}
