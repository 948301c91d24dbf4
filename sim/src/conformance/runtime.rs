//! What every `GuestRuntime` promises. Real guests take seconds, so each promise starts as few as it can.

use super::instances::ready_instance;
use super::volumes::{attached, detached, ready_volume};
use super::{COUNTED, COUNTING, RuntimeBench};
use boxpool::{
    Attach, BoxId, BoxName, BoxRef, Cleared, Epoch, ErrorKind, Guest, GuestStatus, StartedBy, Suspended, UserId,
};
use std::time::Duration;

/// A box of its own, attached in epoch 1, not started.
pub async fn fresh_guest(bench: &impl RuntimeBench) -> Guest {
    let (instance, volume) = (ready_instance(bench).await, ready_volume(bench).await);
    let device = attached(bench, &Attach::new(volume.clone(), instance.clone(), Epoch(1))).await;
    let owner = BoxRef {
        owner: UserId::new("conformance").unwrap(),
        name: BoxName::new("box").unwrap(),
        id: BoxId::new(format!("b-{volume}")).unwrap(),
    };
    Guest::new(instance, volume, owner, Epoch(1)).on_device(device)
}

fn at(guest: &Guest, epoch: u64) -> Guest {
    let mut guest = guest.clone();
    guest.epoch = Epoch(epoch);
    guest
}

async fn count(bench: &impl RuntimeBench, endpoint: &boxpool::Endpoint) -> u64 {
    bench.run(endpoint, COUNTED).await.parse().unwrap()
}

/// Processes go on where they were, and suspending again finds nothing.
pub async fn memory_and_disk_survive_a_suspend(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    let started = bench.runtime().start(&guest).await.unwrap();
    bench.run(&started.endpoint, &format!("echo kept > ~/file; {COUNTING}")).await;
    let before = count(&bench, &started.endpoint).await;
    assert_eq!(bench.runtime().suspend(&at(&guest, 2)).await.unwrap(), Suspended::Saved);
    assert_eq!(bench.runtime().suspend(&at(&guest, 2)).await.unwrap(), Suspended::NotRunning);
    assert_eq!(bench.runtime().status(&at(&guest, 2)).await.unwrap(), GuestStatus::NotRunning);
    let again = bench.runtime().start(&at(&guest, 3)).await.unwrap();
    assert_eq!(again.by, StartedBy::Resume);
    assert_eq!(again.endpoint.host_key, started.endpoint.host_key, "the same machine");
    assert!(count(&bench, &again.endpoint).await >= before);
    assert_eq!(bench.run(&again.endpoint, "cat ~/file").await, "kept");
}

/// The memory goes with the volume to another instance.
pub async fn a_suspended_guest_resumes_on_another_instance(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    let started = bench.runtime().start(&guest).await.unwrap();
    bench.run(&started.endpoint, COUNTING).await;
    let before = count(&bench, &started.endpoint).await;
    bench.runtime().suspend(&at(&guest, 2)).await.unwrap();
    detached(&bench, &Attach::new(guest.volume.clone(), guest.instance.clone(), Epoch(3))).await;
    let mut there = at(&guest, 4);
    there.instance = ready_instance(&bench).await;
    there.device = Some(attached(&bench, &Attach::new(guest.volume.clone(), there.instance.clone(), Epoch(4))).await);
    let again = bench.runtime().start(&there).await.unwrap();
    assert_eq!(again.by, StartedBy::Resume);
    assert!(count(&bench, &again.endpoint).await >= before);
    assert_eq!(bench.runtime().status(&at(&guest, 4)).await.unwrap(), GuestStatus::NotRunning, "not where it was");
}

/// A second start, later or at the same moment, finds the guest that runs.
pub async fn a_guest_never_runs_twice(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    let (a, b) = tokio::join!(bench.runtime().start(&guest), bench.runtime().start(&guest));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.endpoint, b.endpoint);
    assert!(a.by == StartedBy::Adoption || b.by == StartedBy::Adoption);
    let later = bench.runtime().start(&at(&guest, 2)).await.unwrap();
    assert_eq!((later.by, later.endpoint), (StartedBy::Adoption, a.endpoint));
}

/// An older epoch changes nothing.
pub async fn an_older_epoch_cannot_act(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    let started = bench.runtime().start(&at(&guest, 5)).await.unwrap();
    for outcome in [
        bench.runtime().start(&at(&guest, 4)).await.map(drop),
        bench.runtime().suspend(&at(&guest, 4)).await.map(drop),
        bench.runtime().stop(&at(&guest, 4)).await,
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Fenced);
    }
    let status = bench.runtime().status(&at(&guest, 5)).await.unwrap();
    assert_eq!(status, GuestStatus::Running(started.endpoint));
}

/// Stopped or killed, the guest boots again from its disk, and what it had made durable is there.
pub async fn a_stopped_or_killed_guest_boots_with_its_disk(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    let started = bench.runtime().start(&guest).await.unwrap();
    bench.run(&started.endpoint, "echo durable > ~/file; sync").await;
    bench.kill(&guest).await;
    assert_eq!(bench.runtime().status(&guest).await.unwrap(), GuestStatus::NotRunning);
    let again = bench.runtime().start(&at(&guest, 2)).await.unwrap();
    assert_eq!(again.by, StartedBy::Boot);
    assert_eq!(bench.run(&again.endpoint, "cat ~/file").await, "durable");
    bench.runtime().stop(&at(&guest, 3)).await.unwrap();
    bench.runtime().stop(&at(&guest, 3)).await.unwrap();
    assert_eq!(bench.runtime().status(&at(&guest, 3)).await.unwrap(), GuestStatus::NotRunning);
}

/// Shut down, the guest has written what it held, and what was saved before is not resumed: neither of a guest that runs, nor of
/// one that is suspended.
pub async fn a_guest_that_is_shut_down_boots_without_its_memory(bench: impl RuntimeBench) {
    let within = Duration::from_secs(45);
    let guest = fresh_guest(&bench).await;
    let started = bench.runtime().start(&guest).await.unwrap();
    bench.run(&started.endpoint, "echo written > ~/file").await;
    bench.runtime().shut_down(&at(&guest, 2), within).await.unwrap();
    bench.runtime().shut_down(&at(&guest, 2), within).await.unwrap();
    assert_eq!(bench.runtime().status(&at(&guest, 2)).await.unwrap(), GuestStatus::NotRunning);
    assert_eq!(bench.runtime().shut_down(&at(&guest, 1), within).await.unwrap_err().kind(), ErrorKind::Fenced);
    let again = bench.runtime().start(&at(&guest, 3)).await.unwrap();
    assert_eq!(again.by, StartedBy::Boot);
    assert_eq!(bench.run(&again.endpoint, "cat ~/file").await, "written");
    assert_eq!(bench.runtime().suspend(&at(&guest, 4)).await.unwrap(), Suspended::Saved);
    bench.runtime().shut_down(&at(&guest, 5), within).await.unwrap();
    assert_eq!(bench.runtime().start(&at(&guest, 6)).await.unwrap().by, StartedBy::Boot);
}

/// A guest whose volume is not on that instance is not started.
pub async fn a_guest_without_its_volume_is_not_found(bench: impl RuntimeBench) {
    let mut guest = fresh_guest(&bench).await;
    guest.instance = ready_instance(&bench).await;
    assert_eq!(bench.runtime().start(&guest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::NotRunning);
}

/// An instance with a volume on it is doubtful; one without is clean.
pub async fn an_instance_is_clean_only_when_nothing_is_left(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    assert!(matches!(bench.runtime().clear(&guest.instance).await.unwrap(), Cleared::Doubtful(_)));
    detached(&bench, &Attach::new(guest.volume.clone(), guest.instance.clone(), Epoch(2))).await;
    assert_eq!(bench.runtime().clear(&guest.instance).await.unwrap(), Cleared::Clean);
    assert_eq!(bench.runtime().clear(&bench.fresh_instance()).await.unwrap(), Cleared::Clean, "absent is clean");
}

/// A running guest keeps its volume.
pub async fn a_volume_is_not_detached_under_its_guest(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    let started = bench.runtime().start(&guest).await.unwrap();
    let detach = Attach::new(guest.volume.clone(), guest.instance.clone(), Epoch(2));
    assert_eq!(bench.volumes().detach(&detach).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(bench.run(&started.endpoint, "echo alive").await, "alive");
}

/// Memory and disk are a pair: memory that was saved before the disk moved on would destroy it.
pub async fn memory_that_does_not_fit_the_disk_is_never_loaded(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    bench.runtime().start(&guest).await.unwrap();
    assert_eq!(bench.runtime().suspend(&at(&guest, 2)).await.unwrap(), Suspended::Saved);
    let resumed = bench.runtime().start(&at(&guest, 3)).await.unwrap();
    assert_eq!(resumed.by, StartedBy::Resume);
    bench.run(&resumed.endpoint, "echo since > ~/file; sync").await;
    bench.kill(&guest).await;
    let again = bench.runtime().start(&at(&guest, 4)).await.unwrap();
    assert_eq!(again.by, StartedBy::Boot);
    assert_eq!(bench.run(&again.endpoint, "cat ~/file").await, "since");
}

/// The epoch lies on the volume, not with the guest.
pub async fn an_epoch_stays_seen_when_the_guest_is_gone(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    bench.runtime().start(&at(&guest, 5)).await.unwrap();
    bench.runtime().stop(&at(&guest, 6)).await.unwrap();
    for outcome in
        [bench.runtime().start(&at(&guest, 5)).await.map(drop), bench.runtime().status(&at(&guest, 5)).await.map(drop)]
    {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Fenced);
    }
    assert_eq!(bench.runtime().status(&at(&guest, 6)).await.unwrap(), GuestStatus::NotRunning);
}

/// Two users, two boxes: each has its own disk, and the end of one is not the other's.
pub async fn two_boxes_see_only_their_own(bench: impl RuntimeBench) {
    let (one, two) = (fresh_guest(&bench).await, fresh_guest(&bench).await);
    let of_one = bench.runtime().start(&one).await.unwrap().endpoint;
    let of_two = bench.runtime().start(&two).await.unwrap().endpoint;
    assert_ne!(of_one.address, of_two.address);
    bench.run(&of_one, "echo one > ~/file; sync").await;
    bench.run(&of_two, "echo two > ~/file; sync").await;
    assert_eq!(bench.run(&of_one, "cat ~/file").await, "one");
    bench.runtime().stop(&at(&one, 2)).await.unwrap();
    assert_eq!(bench.run(&of_two, "cat ~/file").await, "two");
}

/// Nor is it taken by force, or deleted.
pub async fn a_volume_is_not_taken_by_force_under_its_guest(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    let started = bench.runtime().start(&guest).await.unwrap();
    let force = Attach::new(guest.volume.clone(), guest.instance.clone(), Epoch(2));
    assert_eq!(bench.volumes().force_detach(&force).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(bench.volumes().delete(&guest.volume).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(bench.run(&started.endpoint, "echo alive").await, "alive");
}

/// A call that finds no volume leaves its epoch behind all the same: an older attach and start that come late are refused.
pub async fn an_epoch_is_remembered_of_a_volume_that_is_not_attached(bench: impl RuntimeBench) {
    let guest = fresh_guest(&bench).await;
    let place = |epoch| Attach::new(guest.volume.clone(), guest.instance.clone(), Epoch(epoch));
    detached(&bench, &place(1)).await;
    assert_eq!(bench.runtime().suspend(&at(&guest, 5)).await.unwrap(), Suspended::NotRunning);
    attached(&bench, &place(5)).await;
    assert_eq!(bench.runtime().start(&at(&guest, 4)).await.unwrap_err().kind(), ErrorKind::Fenced);
}

/// Makes one test of each promise. The expression makes a [`RuntimeBench`](crate::conformance::RuntimeBench); it may `.await`.
///
/// With `virtual` before it the tests run on one thread in virtual time, as a [`SimCloud`](crate::SimCloud) needs it. With
/// `needs "…",` they are ignored unless asked for, and say what they need.
#[macro_export]
macro_rules! runtime_conformance {
    (@all $bench:tt) => {
        $crate::runtime_conformance!(@each $bench
            memory_and_disk_survive_a_suspend
            a_suspended_guest_resumes_on_another_instance
            a_guest_never_runs_twice
            an_older_epoch_cannot_act
            a_stopped_or_killed_guest_boots_with_its_disk
            a_guest_that_is_shut_down_boots_without_its_memory
            a_guest_without_its_volume_is_not_found
            an_instance_is_clean_only_when_nothing_is_left
            a_volume_is_not_detached_under_its_guest
            memory_that_does_not_fit_the_disk_is_never_loaded
            an_epoch_stays_seen_when_the_guest_is_gone
            an_epoch_is_remembered_of_a_volume_that_is_not_attached
            two_boxes_see_only_their_own
            a_volume_is_not_taken_by_force_under_its_guest
        );
    };
    (@each [virtual $bench:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $promise() {
                $crate::conformance::runtime::$promise($bench).await;
            }
        )*
    };
    (@each [$bench:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                $crate::conformance::runtime::$promise($bench).await;
            }
        )*
    };
    (@each [needs $what:literal, $bench:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            #[ignore = $what]
            async fn $promise() {
                $crate::conformance::runtime::$promise($bench).await;
            }
        )*
    };
    (virtual $bench:expr) => {
        $crate::runtime_conformance!(@all [virtual $bench]);
    };
    (needs $what:literal, $bench:expr) => {
        $crate::runtime_conformance!(@all [needs $what, $bench]);
    };
    ($bench:expr) => {
        $crate::runtime_conformance!(@all [$bench]);
    };
}
