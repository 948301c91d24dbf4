use boxpool_sim::{Case, Outcome, Profile, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) struct Plan {
    pub(crate) seeds: u64,
    pub(crate) from: u64,
    pub(crate) minutes: Option<f64>,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) threads: Option<usize>,
    pub(crate) failures: usize,
}

#[derive(Default)]
struct Sum {
    histories: u64,
    calls: u64,
    lives: u64,
    refusals: u64,
    strikes: u64,
    elapsed: Duration,
    marks: BTreeMap<String, u64>,
    failing: Vec<(u64, Profile, String)>,
}

impl Sum {
    fn add(&mut self, seed: u64, profile: Profile, outcome: Outcome) {
        self.histories += 1;
        self.calls += outcome.calls;
        self.lives += outcome.lives;
        self.refusals += outcome.refusals;
        self.strikes += outcome.struck.len() as u64;
        self.elapsed += outcome.elapsed;
        for (mark, count) in outcome.marks {
            *self.marks.entry(mark).or_default() += count;
        }
        if let Some(first) = outcome.violations.into_iter().next() {
            // Told at once, too: a run may take hours, and may be ended before its summary.
            eprintln!("{}", failure(seed, profile, &first));
            self.failing.push((seed, profile, first));
        }
    }
}

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

pub(crate) fn explore(plan: &Plan) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = plan.threads.unwrap_or(cores).max(1);
    let begun = Instant::now();
    let limit = plan.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Sum::default());
    let told = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= plan.seeds || limit.is_some_and(|limit| begun.elapsed() >= limit) {
                        return;
                    }
                    let seed = plan.from + number;
                    let profile = plan.profiles[(seed % plan.profiles.len() as u64) as usize];
                    let outcome = run(&Case::random(seed, profile));
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.add(seed, profile, outcome);
                    if sum.failing.len() >= plan.failures {
                        return;
                    }
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    if told.elapsed() >= TELL_EVERY {
                        *told = Instant::now();
                        let rate = sum.histories as f64 / begun.elapsed().as_secs_f64();
                        eprintln!(
                            "{} of {} histories, {rate:.0} a second, {} failing",
                            sum.histories,
                            plan.seeds,
                            sum.failing.len()
                        );
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary(plan, threads, begun.elapsed(), &sum);
    if sum.failing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(plan: &Plan, threads: usize, took: Duration, sum: &Sum) {
    let seconds = took.as_secs_f64().max(0.001);
    println!(
        "{} histories from seed {} in {seconds:.0} s on {threads} threads ({:.0} a second), {:.0} h of virtual time ({:.0} times real time)",
        sum.histories,
        plan.from,
        sum.histories as f64 / seconds,
        sum.elapsed.as_secs_f64() / 3_600.0,
        sum.elapsed.as_secs_f64() / seconds,
    );
    println!(
        "{} calls ({:.0} a second), {} lives, {} refusals, {} calls struck",
        sum.calls,
        sum.calls as f64 / seconds,
        sum.lives,
        sum.refusals,
        sum.strikes
    );
    println!("situations reached ({}):", sum.marks.len());
    for (mark, count) in &sum.marks {
        println!("  {count:>10}  {mark}");
    }
    if sum.failing.is_empty() {
        // The rule of three: n runs without one, then with 95 % certainty fewer than 3/n are.
        println!(
            "no violation; with 95 % certainty fewer than one history in {:.0} has one",
            sum.histories as f64 / 3.0
        );
    }
    for (seed, profile, violation) in &sum.failing {
        println!("{}", failure(*seed, *profile, violation));
    }
}

/// What was violated, and how to see it again.
fn failure(seed: u64, profile: Profile, violation: &str) -> String {
    format!(
        "VIOLATION {violation}\n  cargo run -p boxpool-sim --release -- replay {seed} --profile {profile} --shrink --timeline timeline.html"
    )
}
