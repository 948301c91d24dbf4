//! What every [`GuestRuntime`] promises.
//!
//! The promises are about what a user would see, so the bench brings a way to do a little work inside a guest.

use super::until;
use async_trait::async_trait;
use boxpool::{
    Attach, Cleared, Detached, Epoch, ErrorKind, Guest, GuestRuntime, GuestStatus, InstanceId, Started, StartedBy,
    Suspended, VolumeProvider,
};
use std::sync::Arc;
use std::time::Duration;

/// What a runtime under test brings along.
#[async_trait]
pub trait RuntimeBench: Send + Sync {
    /// The runtime under test.
    fn runtime(&self) -> Arc<dyn GuestRuntime>;
    /// The volume provider that goes with it.
    fn volumes(&self) -> Arc<dyn VolumeProvider>;
    /// A new box: its own new volume, attached to an instance that runs and serves nobody else, at epoch 1, not started.
    async fn guest(&self) -> Guest;
    /// The box whose guest does not run is detached, attached to another instance at `epoch`, and not started.
    async fn moved(&self, guest: &Guest, epoch: Epoch) -> Guest;
    /// An id that no instance ever had.
    fn fresh_instance(&self) -> InstanceId;
    /// A line is written to the disk inside the guest and is durable when this returns.
    async fn write(&self, guest: &Guest, started: &Started, line: &str);
    /// All lines that were written, as read inside the guest.
    async fn read(&self, guest: &Guest, started: &Started) -> Vec<String>;
    /// A process in the guest's memory counts one further and tells the number: 1 when it is asked for the first time
    /// after a boot.
    async fn count(&self, guest: &Guest, started: &Started) -> u64;
    /// Kills what runs the guest, as a crash of the host's process would. Only for the capability `crashes`.
    async fn crash(&self, guest: &Guest);
    /// How long a boot, a suspend or a stop may take to show.
    fn patience(&self) -> Duration;
}

/// Makes one test of each promise of [`GuestRuntime`]. See [the suites](crate::conformance) for its arguments.
///
/// Capability `crashes`: the bench can kill a guest from outside.
#[macro_export]
macro_rules! runtime_conformance {
    ($(#[$attribute:meta])* $bench:expr $(, $capability:ident)* $(,)?) => {
        $crate::runtime_conformance! { @all [$(#[$attribute])*] $bench; $($capability)* }
    };
    (@all $attributes:tt $bench:expr; $($capability:ident)*) => {
        $crate::conformance_tests! { $attributes runtime $bench;
            a_started_guest_runs_and_keeps_what_it_writes,
            a_second_start_adopts_the_running_guest,
            starts_at_once_run_one_guest,
            a_suspended_guest_goes_on_from_where_it_was,
            a_suspended_guest_goes_on_on_another_instance,
            a_guest_survives_many_suspends,
            suspending_what_does_not_run_says_so_and_changes_nothing,
            a_stopped_guest_keeps_its_disk_and_loses_its_memory,
            memory_saved_before_the_disk_moved_on_is_never_loaded,
            stopping_again_is_success,
            the_status_tells_what_is_so,
            an_older_epoch_is_fenced_everywhere_and_changes_nothing,
            an_epoch_stays_seen_after_the_guest_has_gone,
            a_newer_epoch_adopts_and_shuts_out_the_older,
            a_volume_is_not_taken_from_under_a_running_guest,
            a_volume_that_is_not_on_the_instance_does_not_start,
            two_boxes_see_only_their_own,
            an_instance_with_a_guest_or_a_volume_is_doubtful_and_keeps_it,
            an_instance_is_clean_after_its_box_has_left,
            an_absent_instance_is_clean,
        }
        $( $crate::runtime_conformance! { @$capability $attributes $bench; } )*
    };
    (@crashes $attributes:tt $bench:expr;) => {
        $crate::conformance_tests! { $attributes runtime $bench;
            a_crashed_guest_boots_again_with_its_disk,
            a_guest_that_crashes_after_a_resume_is_not_resumed_again,
        }
    };
}

async fn start(bench: &impl RuntimeBench, guest: &Guest) -> Started {
    bench.runtime().start(guest).await.unwrap_or_else(|error| panic!("{guest:?} starts: {error}"))
}

/// Leaves nothing running behind.
async fn stop(bench: &impl RuntimeBench, guest: &Guest) {
    bench.runtime().stop(guest).await.unwrap();
}

fn at_epoch(guest: &Guest, epoch: u64) -> Guest {
    let mut guest = guest.clone();
    guest.epoch = Epoch(epoch);
    guest
}

fn attach_of(guest: &Guest) -> Attach {
    Attach::new(guest.volume.clone(), guest.instance.clone(), guest.epoch)
}

async fn detach(bench: &impl RuntimeBench, guest: &Guest) {
    let volumes = bench.volumes();
    until("the volume is detached", bench.patience(), async || {
        (volumes.detach(&attach_of(guest)).await.unwrap() == Detached::Yes).then_some(())
    })
    .await;
}

/// The least.
pub async fn a_started_guest_runs_and_keeps_what_it_writes(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let started = start(bench, &guest).await;
    assert_ne!(started.by, StartedBy::Adoption);
    assert!(bench.read(&guest, &started).await.is_empty(), "a new box is empty");
    bench.write(&guest, &started, "one").await;
    bench.write(&guest, &started, "two").await;
    assert_eq!(bench.read(&guest, &started).await, ["one", "two"]);
    stop(bench, &guest).await;
}

/// A guest never runs twice.
pub async fn a_second_start_adopts_the_running_guest(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let first = start(bench, &guest).await;
    let before = bench.count(&guest, &first).await;

    let second = start(bench, &guest).await;

    assert_eq!(second.by, StartedBy::Adoption);
    assert_eq!(second.endpoint, first.endpoint);
    assert_eq!(bench.count(&guest, &second).await, before + 1);
    stop(bench, &guest).await;
}

/// Nor do two nodes at the same moment run it twice.
pub async fn starts_at_once_run_one_guest(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let racers = [(); 3].map(|()| {
        let (runtime, guest) = (bench.runtime(), guest.clone());
        tokio::spawn(async move { runtime.start(&guest).await })
    });
    let mut began = Vec::new();
    let mut adopted = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(started) if started.by == StartedBy::Adoption => adopted.push(started),
            Ok(started) => began.push(started),
            // A loser may be told to come again.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
    }
    assert_eq!(began.len(), 1, "{began:?}");
    assert!(adopted.iter().all(|adopted| adopted.endpoint == began[0].endpoint));
    let before = bench.count(&guest, &began[0]).await;
    let again = start(bench, &guest).await;
    assert_eq!(bench.count(&guest, &again).await, before + 1);
    stop(bench, &guest).await;
}

/// Processes go on, files are there.
pub async fn a_suspended_guest_goes_on_from_where_it_was(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let started = start(bench, &guest).await;
    bench.write(&guest, &started, "before").await;
    bench.count(&guest, &started).await;
    let before = bench.count(&guest, &started).await;

    assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::Saved);
    assert_eq!(bench.runtime().status(&guest).await.unwrap(), GuestStatus::NotRunning);
    let started = start(bench, &guest).await;

    assert_eq!(started.by, StartedBy::Resume);
    assert_eq!(bench.count(&guest, &started).await, before + 1);
    assert_eq!(bench.read(&guest, &started).await, ["before"]);
    stop(bench, &guest).await;
}

/// Memory lies on the volume, not on the instance.
pub async fn a_suspended_guest_goes_on_on_another_instance(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let started = start(bench, &guest).await;
    bench.write(&guest, &started, "before").await;
    let before = bench.count(&guest, &started).await;
    assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::Saved);

    let moved = bench.moved(&guest, Epoch(2)).await;
    assert_ne!(moved.instance, guest.instance);
    let started = start(bench, &moved).await;

    assert_eq!(started.by, StartedBy::Resume);
    assert_eq!(bench.count(&moved, &started).await, before + 1);
    assert_eq!(bench.read(&moved, &started).await, ["before"]);
    stop(bench, &moved).await;
}

/// Again and again.
pub async fn a_guest_survives_many_suspends(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let mut started = start(bench, &guest).await;
    let first = bench.count(&guest, &started).await;
    let mut expected = Vec::new();
    for n in 1..=3 {
        let line = format!("round {n}");
        bench.write(&guest, &started, &line).await;
        expected.push(line);
        assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::Saved);
        started = start(bench, &guest).await;
        assert_eq!(started.by, StartedBy::Resume);
        assert_eq!(bench.count(&guest, &started).await, first + n);
        assert_eq!(bench.read(&guest, &started).await, expected);
    }
    stop(bench, &guest).await;
}

/// Repeating it after a lost answer is safe: what was saved stays saved.
pub async fn suspending_what_does_not_run_says_so_and_changes_nothing(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::NotRunning);
    let started = start(bench, &guest).await;
    let before = bench.count(&guest, &started).await;
    assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::Saved);

    assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::NotRunning);

    let started = start(bench, &guest).await;
    assert_eq!(started.by, StartedBy::Resume);
    assert_eq!(bench.count(&guest, &started).await, before + 1);
    stop(bench, &guest).await;
}

/// As after a power cut.
pub async fn a_stopped_guest_keeps_its_disk_and_loses_its_memory(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let started = start(bench, &guest).await;
    bench.write(&guest, &started, "durable").await;
    bench.count(&guest, &started).await;

    stop(bench, &guest).await;
    let started = start(bench, &guest).await;

    assert_eq!(started.by, StartedBy::Boot);
    assert_eq!(bench.count(&guest, &started).await, 1);
    assert_eq!(bench.read(&guest, &started).await, ["durable"]);
    stop(bench, &guest).await;
}

/// Memory and disk are a pair: old memory on a newer disk would destroy it.
pub async fn memory_saved_before_the_disk_moved_on_is_never_loaded(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    start(bench, &guest).await;
    assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::Saved);
    let started = start(bench, &guest).await;
    assert_eq!(started.by, StartedBy::Resume);
    bench.write(&guest, &started, "after").await;
    stop(bench, &guest).await;

    let started = start(bench, &guest).await;

    assert_eq!(started.by, StartedBy::Boot);
    assert_eq!(bench.read(&guest, &started).await, ["after"]);
    stop(bench, &guest).await;
}

/// Already so is success.
pub async fn stopping_again_is_success(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    stop(bench, &guest).await;
    start(bench, &guest).await;
    stop(bench, &guest).await;
    stop(bench, &guest).await;
    assert_eq!(bench.runtime().status(&guest).await.unwrap(), GuestStatus::NotRunning);
}

/// Recovery builds on it.
pub async fn the_status_tells_what_is_so(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    assert_eq!(bench.runtime().status(&guest).await.unwrap(), GuestStatus::NotRunning);
    let started = start(bench, &guest).await;
    assert_eq!(bench.runtime().status(&guest).await.unwrap(), GuestStatus::Running(started.endpoint));
    stop(bench, &guest).await;
    assert_eq!(bench.runtime().status(&guest).await.unwrap(), GuestStatus::NotRunning);
}

/// A node that wakes up late cannot act.
pub async fn an_older_epoch_is_fenced_everywhere_and_changes_nothing(bench: &impl RuntimeBench) {
    let guest = at_epoch(&bench.guest().await, 5);
    let started = start(bench, &guest).await;
    let before = bench.count(&guest, &started).await;
    let late = at_epoch(&guest, 4);
    let runtime = bench.runtime();

    assert_eq!(runtime.start(&late).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(runtime.suspend(&late).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(runtime.stop(&late).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(runtime.status(&late).await.unwrap_err().kind(), ErrorKind::Fenced);

    assert_eq!(bench.count(&guest, &started).await, before + 1);
    stop(bench, &guest).await;
}

/// The epoch lies on the volume, not with the guest.
pub async fn an_epoch_stays_seen_after_the_guest_has_gone(bench: &impl RuntimeBench) {
    let guest = at_epoch(&bench.guest().await, 5);
    start(bench, &guest).await;
    stop(bench, &guest).await;

    let late = bench.runtime().start(&at_epoch(&guest, 4)).await;

    assert_eq!(late.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(bench.runtime().status(&guest).await.unwrap(), GuestStatus::NotRunning);
}

/// A node that takes over gets the running guest, and the one before it is out.
pub async fn a_newer_epoch_adopts_and_shuts_out_the_older(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let started = start(bench, &guest).await;
    let before = bench.count(&guest, &started).await;
    let successor = at_epoch(&guest, 2);

    let adopted = start(bench, &successor).await;

    assert_eq!(adopted.by, StartedBy::Adoption);
    assert_eq!(bench.count(&successor, &adopted).await, before + 1);
    assert_eq!(bench.runtime().stop(&guest).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(bench.count(&successor, &adopted).await, before + 2);
    stop(bench, &successor).await;
}

/// Neither by a detach nor by force.
pub async fn a_volume_is_not_taken_from_under_a_running_guest(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let started = start(bench, &guest).await;
    let before = bench.count(&guest, &started).await;

    assert_eq!(bench.volumes().detach(&attach_of(&guest)).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(bench.volumes().force_detach(&attach_of(&guest)).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(bench.volumes().delete(&guest.volume).await.unwrap_err().kind(), ErrorKind::Busy);

    bench.write(&guest, &started, "still here").await;
    assert_eq!(bench.count(&guest, &started).await, before + 1);
    stop(bench, &guest).await;
    detach(bench, &guest).await;
}

/// Attach comes first.
pub async fn a_volume_that_is_not_on_the_instance_does_not_start(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    detach(bench, &guest).await;
    assert_eq!(bench.runtime().start(&guest).await.unwrap_err().kind(), ErrorKind::NotFound);
    let mut nowhere = guest.clone();
    nowhere.instance = bench.fresh_instance();
    nowhere.device = None;
    assert_eq!(bench.runtime().start(&nowhere).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.runtime().status(&guest).await.unwrap(), GuestStatus::NotRunning);
}

/// Two users, two boxes.
pub async fn two_boxes_see_only_their_own(bench: &impl RuntimeBench) {
    let (one, two) = (bench.guest().await, bench.guest().await);
    let (of_one, of_two) = (start(bench, &one).await, start(bench, &two).await);
    assert_ne!(of_one.endpoint.address, of_two.endpoint.address);
    bench.write(&one, &of_one, "one").await;
    bench.write(&two, &of_two, "two").await;
    stop(bench, &one).await;
    assert_eq!(bench.read(&two, &of_two).await, ["two"]);
    let of_one = start(bench, &one).await;
    assert_eq!(bench.read(&one, &of_one).await, ["one"]);
    stop(bench, &one).await;
    stop(bench, &two).await;
}

/// On doubt nothing is removed, and the instance serves nobody else.
pub async fn an_instance_with_a_guest_or_a_volume_is_doubtful_and_keeps_it(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let doubtful = bench.runtime().clear(&guest.instance).await.unwrap();
    assert!(matches!(doubtful, Cleared::Doubtful(_)), "{doubtful:?} with a volume");
    let started = start(bench, &guest).await;
    let before = bench.count(&guest, &started).await;
    let doubtful = bench.runtime().clear(&guest.instance).await.unwrap();
    assert!(matches!(doubtful, Cleared::Doubtful(_)), "{doubtful:?} with a guest");
    assert_eq!(bench.count(&guest, &started).await, before + 1);
    stop(bench, &guest).await;
}

/// The way back to the free ones.
pub async fn an_instance_is_clean_after_its_box_has_left(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    start(bench, &guest).await;
    bench.runtime().suspend(&guest).await.unwrap();
    detach(bench, &guest).await;
    assert_eq!(bench.runtime().clear(&guest.instance).await.unwrap(), Cleared::Clean);
}

/// Nothing is left on what is not there.
pub async fn an_absent_instance_is_clean(bench: &impl RuntimeBench) {
    assert_eq!(bench.runtime().clear(&bench.fresh_instance()).await.unwrap(), Cleared::Clean);
}

async fn crash(bench: &impl RuntimeBench, guest: &Guest) {
    bench.crash(guest).await;
    let runtime = bench.runtime();
    until("the crashed guest is seen gone", bench.patience(), async || {
        (runtime.status(guest).await.unwrap() == GuestStatus::NotRunning).then_some(())
    })
    .await;
}

/// What was durable is there.
pub async fn a_crashed_guest_boots_again_with_its_disk(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    let started = start(bench, &guest).await;
    bench.write(&guest, &started, "durable").await;
    bench.count(&guest, &started).await;

    crash(bench, &guest).await;
    let started = start(bench, &guest).await;

    assert_eq!(started.by, StartedBy::Boot);
    assert_eq!(bench.count(&guest, &started).await, 1);
    assert_eq!(bench.read(&guest, &started).await, ["durable"]);
    stop(bench, &guest).await;
}

/// Saved memory does not fit a disk that has been written since.
pub async fn a_guest_that_crashes_after_a_resume_is_not_resumed_again(bench: &impl RuntimeBench) {
    let guest = bench.guest().await;
    start(bench, &guest).await;
    assert_eq!(bench.runtime().suspend(&guest).await.unwrap(), Suspended::Saved);
    let started = start(bench, &guest).await;
    assert_eq!(started.by, StartedBy::Resume);
    bench.write(&guest, &started, "since").await;

    crash(bench, &guest).await;
    let started = start(bench, &guest).await;

    assert_eq!(started.by, StartedBy::Boot);
    assert_eq!(bench.read(&guest, &started).await, ["since"]);
    stop(bench, &guest).await;
}
