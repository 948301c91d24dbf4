use boxpool_sim::{Case, Op, Pace, PoolShape, What, run};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Visits in one history: enough that starting the world does not count.
const VISITS: u64 = 400;

/// A history without faults: one gateway, forty boxes, each visited again and again.
fn lives(seed: u64) -> Case {
    let ops = (0..VISITS).map(|n| Op {
        at: n * 150 + boxpool_sim::draw(seed, &format!("visit {n}")) % 150,
        gateway: 0,
        user: (n % 40) as u8 + 1,
        name: 1,
        what: What::Visit { stay: 500, patience: 300_000, rude: false },
    });
    Case {
        seed,
        gateways: 1,
        pool: PoolShape {
            min_free: 4,
            max_free: 48,
            max_total: 48,
            volumes_free: 4,
            linger: 0,
            ..PoolShape::default()
        },
        pace: Pace::Host,
        jitter: 0,
        faults: boxpool_sim::Faults::none(),
        script: Vec::new(),
        zones: 0,
        ops: ops.collect(),
        events: Vec::new(),
        restart_after: 1_000,
    }
}

pub(crate) fn bench(seconds: f64) -> ExitCode {
    let limit = Duration::from_secs_f64(seconds);
    let begun = Instant::now();
    let (mut lived, mut calls, mut events, mut virtual_time, mut seed) = (0, 0, 0, Duration::ZERO, 0);
    while begun.elapsed() < limit {
        let outcome = run(&lives(seed));
        if let Some(violation) = outcome.violations.first() {
            eprintln!("seed {seed}: {violation}");
            return ExitCode::FAILURE;
        }
        lived += outcome.lives;
        calls += outcome.calls;
        events += outcome.events;
        virtual_time += outcome.elapsed;
        seed += 1;
    }
    let took = begun.elapsed().as_secs_f64();
    let per_second = lived as f64 / took;
    println!("whole lives (connect, work, leave), one core: {per_second:>12.0} a second (goal: at least 3000)");
    println!(
        "calls of the pool, one core:                  {:>12.0} a second, {:.1} a life",
        calls as f64 / took,
        calls as f64 / lived as f64
    );
    println!(
        "virtual time:                                 {:>12.0} times real time",
        virtual_time.as_secs_f64() / took
    );
    let bare = bare_tokio(events.min(2_000_000));
    println!("bare tokio, as many timers and answers:       {bare:>12.0} events a second");
    println!(
        "the simulator with pool and judges:           {:>12.0} events a second, {:.2} of bare tokio",
        events as f64 / took,
        events as f64 / took / bare
    );
    ExitCode::SUCCESS
}

/// As many sleeps, each answered through a channel, in a hundred tasks on a paused clock.
fn bare_tokio(events: u64) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return f64::NAN };
    let begun = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..100_u64)
            .map(|task| {
                tokio::spawn(async move {
                    for n in 0..events / 100 {
                        let (reply, answer) = tokio::sync::oneshot::channel();
                        tokio::time::sleep(Duration::from_millis((n * 31 + task * 17) % 50 + 1)).await;
                        let _ = reply.send(n);
                        let _ = answer.await;
                    }
                })
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
    });
    events as f64 / begun.elapsed().as_secs_f64()
}
