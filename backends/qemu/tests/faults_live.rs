//! Whoever drives a guest may die, and any step may fail, at any point: the next caller finishes or undoes, the guest
//! never runs twice, and its memory is not lost.

#![allow(clippy::unwrap_used)] // helpers of tests

mod guests;

use boxpool::{Error, Guest, GuestRuntime, StartedBy};
use boxpool_qemu::LocalQemu;
use boxpool_sim::conformance::COUNTING;
use guests::faults::{Fault, FaultyHost, Plan};
use guests::{Bench, later};
use std::sync::Arc;
use std::time::Duration;

const ALIVE: &str = "kill -0 $(cat /dev/shm/pid) && echo counting";

#[derive(Debug, Clone, Copy)]
enum Call {
    Start,
    Suspend,
}

/// What the next caller does first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heir {
    Starts,
    Suspends,
}

/// Brings a fault over each step of a call in turn, and has another handle take over after each.
async fn strike_every_step(call: Call, fault: Fault, heir: Heir) {
    let bench = Bench::new().await;
    let plan = Plan::new(fault);
    let doomed = LocalQemu::open_on(Arc::new(FaultyHost::new(plan.clone())), bench.options()).await.unwrap();
    let guest = bench.guest("struck").await;
    let mut epoch = 1;
    let mut next = |guest: &Guest| {
        epoch += 1;
        later(guest, epoch)
    };
    let started = bench.start(&guest).await;
    bench.ssh(&started.endpoint, &format!("{COUNTING} > /dev/shm/pid"));

    for step in 0.. {
        if matches!(call, Call::Start) {
            bench.qemu.suspend(&next(&guest)).await.unwrap();
        }
        let now = next(&guest);
        plan.arm(step);
        // A runtime of its own: all that the call began ends with it, as with a process.
        let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let doomed = doomed.clone();
        let work = process.spawn(async move {
            match call {
                Call::Start => doomed.start(&now).await.map(drop),
                Call::Suspend => doomed.suspend(&now).await.map(drop),
            }
        });
        let ended: Option<Result<(), Error>> = tokio::select! {
            ended = work => Some(ended.unwrap()),
            () = plan.struck(), if fault == Fault::Death => None,
        };
        let gone = tokio::task::spawn_blocking(move || process.shutdown_timeout(Duration::from_secs(30)));
        gone.await.unwrap();
        let struck = plan.disarm();
        eprintln!(
            "{call:?} {fault:?} at step {step}: {}",
            match &ended {
                None => "died".into(),
                Some(Ok(())) => "done".into(),
                Some(Err(error)) => boxpool::Report(error).to_string(),
            }
        );

        if heir == Heir::Suspends {
            bench.qemu.suspend(&next(&guest)).await.unwrap();
            assert!(bench.pids("/v-").is_empty(), "{call:?} {fault:?} at step {step}: suspended");
        }
        let started = bench.qemu.start(&next(&guest)).await.unwrap();
        assert_ne!(started.by, StartedBy::Boot, "{call:?} {fault:?} at step {step} lost the memory");
        assert_eq!(bench.pids("/v-").len(), 1, "{call:?} {fault:?} at step {step}: one guest");
        // A login costs an emulated guest a second. What was damaged stays so, and is seen at the next look.
        if !struck || step % 6 == 0 {
            assert_eq!(bench.ssh(&started.endpoint, ALIVE), "counting", "{call:?} {fault:?} at step {step}");
        }
        assert!(struck || ended.is_some(), "died of something else");
        if !struck {
            assert!(step > 10, "the call has more steps than {step}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_step_of_a_suspend_is_made_good_by_a_start() {
    strike_every_step(Call::Suspend, Fault::Death, Heir::Starts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_step_of_a_suspend_is_made_good_by_a_suspend() {
    strike_every_step(Call::Suspend, Fault::Death, Heir::Suspends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_step_of_a_start_is_made_good_by_a_start() {
    strike_every_step(Call::Start, Fault::Death, Heir::Starts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_step_of_a_start_is_made_good_by_a_suspend() {
    strike_every_step(Call::Start, Fault::Death, Heir::Suspends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_any_step_of_a_suspend_loses_nothing() {
    strike_every_step(Call::Suspend, Fault::Failure, Heir::Suspends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_any_step_of_a_start_loses_nothing() {
    strike_every_step(Call::Start, Fault::Failure, Heir::Starts).await;
}
