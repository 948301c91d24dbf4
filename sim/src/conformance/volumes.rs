//! What every [`VolumeProvider`] promises.

use super::until;
use async_trait::async_trait;
use boxpool::{
    Attach, Attached, Cursor, Detached, Device, Epoch, ErrorKind, InstanceId, SnapshotId, VolumeId, VolumeProvider,
    VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a volume provider under test brings along.
#[async_trait]
pub trait VolumeBench: Send + Sync {
    /// The provider under test.
    fn volumes(&self) -> Arc<dyn VolumeProvider>;
    /// An id that no volume ever had.
    fn fresh(&self) -> VolumeId;
    /// An id that no snapshot ever had.
    fn fresh_snapshot(&self) -> SnapshotId;
    /// What new volumes are filled with in these tests.
    fn source(&self) -> VolumeSource;
    /// An instance that runs and holds nothing; another one each time.
    async fn instance(&self) -> InstanceId;
    /// An id that no instance ever had.
    fn fresh_instance(&self) -> InstanceId;
    /// Deletes an instance and waits until it is gone.
    async fn remove_instance(&self, id: &InstanceId);
    /// How long making, attaching, detaching or deleting a volume may take.
    fn patience(&self) -> Duration;
}

/// Makes one test of each promise of [`VolumeProvider`]. See [the suites](crate::conformance) for its arguments.
///
/// Capabilities: `knows_used` (it can tell whether a volume was ever attached), `remembers_epochs` (it refuses older
/// epochs), `snapshots` (volumes can be copied), `grows` (volumes can be resized).
#[macro_export]
macro_rules! volume_conformance {
    ($(#[$attribute:meta])* $bench:expr $(, $capability:ident)* $(,)?) => {
        $crate::volume_conformance! { @all [$(#[$attribute])*] $bench; $($capability)* }
    };
    (@all $attributes:tt $bench:expr; $($capability:ident)*) => {
        $crate::conformance_tests! { $attributes volumes $bench;
            an_ensured_volume_becomes_ready_and_is_attached_nowhere,
            ensuring_again_finds_the_same_volume,
            an_absent_volume_is_none,
            a_volume_of_an_absent_snapshot_is_refused_and_leaves_nothing,
            every_volume_is_listed_once,
            an_attached_volume_names_its_instance,
            attaching_again_tells_the_same_device,
            an_attached_volume_is_refused_elsewhere_and_stays,
            an_instance_holds_one_volume,
            of_attaches_at_once_to_two_instances_one_wins,
            attaching_what_is_absent_is_not_found,
            a_detached_volume_can_go_elsewhere,
            an_instance_whose_volume_left_can_take_another,
            detaching_again_or_what_is_absent_is_success,
            a_detach_from_another_instance_changes_nothing,
            a_late_attach_does_not_move_a_volume,
            a_volume_can_be_taken_by_force_and_go_elsewhere,
            a_volume_outlives_its_instance,
            an_attached_volume_is_not_deleted,
            a_deleted_volume_ends_in_absence,
            deleting_again_or_what_never_was_is_success,
        }
        $( $crate::volume_conformance! { @$capability $attributes $bench; } )*
    };
    (@knows_used $attributes:tt $bench:expr;) => {
        $crate::conformance_tests! { $attributes volumes $bench;
            a_new_volume_is_unused_and_one_that_was_attached_is_used_for_good,
        }
    };
    (@remembers_epochs $attributes:tt $bench:expr;) => {
        $crate::conformance_tests! { $attributes volumes $bench;
            an_attach_of_an_older_epoch_is_fenced_and_changes_nothing,
            a_detach_of_an_older_epoch_is_fenced_and_changes_nothing,
            the_same_and_a_newer_epoch_are_accepted,
        }
    };
    (@snapshots $attributes:tt $bench:expr;) => {
        $crate::conformance_tests! { $attributes volumes $bench;
            snapshotting_again_finds_the_same_snapshot,
            a_snapshot_of_an_absent_volume_is_not_found,
            a_copy_is_a_volume_of_its_own_and_outlives_its_snapshot,
            a_deleted_snapshot_is_not_listed_and_deleting_again_is_success,
        }
    };
    (@grows $attributes:tt $bench:expr;) => {
        $crate::conformance_tests! { $attributes volumes $bench;
            growing_again_or_to_less_is_success,
            growing_an_absent_volume_is_not_found,
        }
    };
}

async fn ready(bench: &impl VolumeBench) -> VolumeId {
    make(bench, bench.source()).await
}

async fn make(bench: &impl VolumeBench, source: VolumeSource) -> VolumeId {
    let id = bench.fresh();
    bench.volumes().ensure(&VolumeSpec::new(id.clone(), source)).await.unwrap();
    let volumes = bench.volumes();
    until(&format!("volume {id} becomes ready"), bench.patience(), async || {
        let view = volumes.get(&id).await.unwrap().unwrap_or_else(|| panic!("{id} is there"));
        assert!(!matches!(view.state, VolumeState::Failed(_)), "{view:?}");
        (view.state == VolumeState::Ready).then_some(())
    })
    .await;
    id
}

fn at(volume: &VolumeId, instance: &InstanceId, epoch: u64) -> Attach {
    Attach::new(volume.clone(), instance.clone(), Epoch(epoch))
}

async fn attach(bench: &impl VolumeBench, attach: &Attach) -> Device {
    let volumes = bench.volumes();
    until(&format!("{attach:?} is done"), bench.patience(), async || match volumes.attach(attach).await.unwrap() {
        Attached::Yes(device) => Some(device),
        Attached::Pending => None,
    })
    .await
}

async fn detach(bench: &impl VolumeBench, attach: &Attach) {
    let volumes = bench.volumes();
    until(&format!("detach of {attach:?} is done"), bench.patience(), async || {
        (volumes.detach(attach).await.unwrap() == Detached::Yes).then_some(())
    })
    .await;
}

async fn view(bench: &impl VolumeBench, id: &VolumeId) -> VolumeView {
    bench.volumes().get(id).await.unwrap().unwrap_or_else(|| panic!("{id} is there"))
}

async fn remove(bench: &impl VolumeBench, id: &VolumeId) {
    let volumes = bench.volumes();
    volumes.delete(id).await.unwrap();
    until(&format!("volume {id} is gone"), bench.patience(), async || {
        volumes.get(id).await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn listed(bench: &impl VolumeBench) -> BTreeMap<VolumeId, Vec<VolumeView>> {
    let mut found: BTreeMap<VolumeId, Vec<VolumeView>> = BTreeMap::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = bench.volumes().list(cursor.as_ref()).await.unwrap();
        for view in page.items {
            found.entry(view.id.clone()).or_default().push(view);
        }
        match page.next {
            Some(next) => {
                assert_ne!(cursor.as_ref(), Some(&next), "the listing does not get on");
                cursor = Some(next);
            }
            None => return found,
        }
    }
}

async fn snapshot_of(bench: &impl VolumeBench, volume: &VolumeId) -> SnapshotId {
    let (volumes, id) = (bench.volumes(), bench.fresh_snapshot());
    until(&format!("snapshot {id} is ready"), bench.patience(), async || {
        volumes.snapshot(volume, &id).await.unwrap().ready.then_some(())
    })
    .await;
    id
}

async fn snapshot_is_listed(bench: &impl VolumeBench, id: &SnapshotId) -> usize {
    let mut found = 0;
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = bench.volumes().list_snapshots(cursor.as_ref()).await.unwrap();
        found += page.items.iter().filter(|snapshot| snapshot.id == *id).count();
        match page.next {
            Some(next) => cursor = Some(next),
            None => return found,
        }
    }
}

/// `ensure` begins; the volume is usable some time later.
pub async fn an_ensured_volume_becomes_ready_and_is_attached_nowhere(bench: &impl VolumeBench) {
    let id = ready(bench).await;
    assert_eq!(view(bench, &id).await.attached_to, None);
    remove(bench, &id).await;
}

/// Repeating it after a lost answer is safe, also when it says something else: what exists is never filled anew.
pub async fn ensuring_again_finds_the_same_volume(bench: &impl VolumeBench) {
    let id = ready(bench).await;
    let before = view(bench, &id).await;

    let again = bench.volumes().ensure(&VolumeSpec::new(id.clone(), bench.source())).await.unwrap();

    assert_eq!(again, before);
    assert_eq!(listed(bench).await.get(&id).map(Vec::len), Some(1));
    remove(bench, &id).await;
}

/// `None` is a sure answer.
pub async fn an_absent_volume_is_none(bench: &impl VolumeBench) {
    let id = bench.fresh();
    assert_eq!(bench.volumes().get(&id).await.unwrap(), None);
    assert!(!listed(bench).await.contains_key(&id));
}

/// Nothing is left behind by a refusal.
pub async fn a_volume_of_an_absent_snapshot_is_refused_and_leaves_nothing(bench: &impl VolumeBench) {
    let id = bench.fresh();
    let spec = VolumeSpec::new(id.clone(), VolumeSource::Snapshot(bench.fresh_snapshot()));
    assert_eq!(bench.volumes().ensure(&spec).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.volumes().get(&id).await.unwrap(), None);
    assert!(!listed(bench).await.contains_key(&id));
}

/// What is ours is found by listing it.
pub async fn every_volume_is_listed_once(bench: &impl VolumeBench) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(ready(bench).await);
    }
    until("all volumes are listed", bench.patience(), async || {
        let found = listed(bench).await;
        assert!(found.values().all(|views| views.len() == 1), "{found:?}");
        ids.iter().all(|id| found.contains_key(id)).then_some(())
    })
    .await;
    for id in ids {
        remove(bench, &id).await;
    }
}

/// Whoever recovers another's work learns from it where the volume is.
pub async fn an_attached_volume_names_its_instance(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    attach(bench, &at(&volume, &here, 1)).await;
    assert_eq!(view(bench, &volume).await.attached_to, Some(here.clone()));
    detach(bench, &at(&volume, &here, 1)).await;
    assert_eq!(view(bench, &volume).await.attached_to, None);
}

/// Repeating it after a lost answer is safe.
pub async fn attaching_again_tells_the_same_device(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    let first = attach(bench, &at(&volume, &here, 1)).await;
    let second = bench.volumes().attach(&at(&volume, &here, 1)).await.unwrap();
    assert_eq!(second, Attached::Yes(first));
}

/// A volume that is attached somewhere is refused elsewhere, and stays where it was.
pub async fn an_attached_volume_is_refused_elsewhere_and_stays(bench: &impl VolumeBench) {
    let (volume, here, there) = (ready(bench).await, bench.instance().await, bench.instance().await);
    attach(bench, &at(&volume, &here, 1)).await;

    let second = bench.volumes().attach(&at(&volume, &there, 1)).await;

    assert_eq!(second.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(view(bench, &volume).await.attached_to, Some(here));
}

/// An instance serves one box.
pub async fn an_instance_holds_one_volume(bench: &impl VolumeBench) {
    let (one, two, here) = (ready(bench).await, ready(bench).await, bench.instance().await);
    attach(bench, &at(&one, &here, 1)).await;

    let second = bench.volumes().attach(&at(&two, &here, 1)).await;

    assert_eq!(second.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(view(bench, &one).await.attached_to, Some(here));
    assert_eq!(view(bench, &two).await.attached_to, None);
}

/// Two nodes that attach at the same moment: one gets the volume.
pub async fn of_attaches_at_once_to_two_instances_one_wins(bench: &impl VolumeBench) {
    let (volume, here, there) = (ready(bench).await, bench.instance().await, bench.instance().await);
    let racers = [&here, &there].map(|instance| {
        let (volumes, attach) = (bench.volumes(), at(&volume, instance, 1));
        tokio::spawn(async move { (volumes.attach(&attach).await, attach) })
    });
    let mut winners = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            (Ok(_), begun) => {
                attach(bench, &begun).await;
                winners.push(begun.instance);
            }
            (Err(error), _) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(view(bench, &volume).await.attached_to, winners.pop());
}

/// Both must be there.
pub async fn attaching_what_is_absent_is_not_found(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    for attach in [at(&bench.fresh(), &here, 1), at(&volume, &bench.fresh_instance(), 1)] {
        assert_eq!(bench.volumes().attach(&attach).await.unwrap_err().kind(), ErrorKind::NotFound, "{attach:?}");
    }
    // Neither refusal has taken a place.
    attach(bench, &at(&volume, &here, 1)).await;
}

/// A box moves.
pub async fn a_detached_volume_can_go_elsewhere(bench: &impl VolumeBench) {
    let (volume, here, there) = (ready(bench).await, bench.instance().await, bench.instance().await);
    attach(bench, &at(&volume, &here, 1)).await;
    detach(bench, &at(&volume, &here, 1)).await;
    attach(bench, &at(&volume, &there, 2)).await;
    assert_eq!(view(bench, &volume).await.attached_to, Some(there));
}

/// An instance serves one box after another.
pub async fn an_instance_whose_volume_left_can_take_another(bench: &impl VolumeBench) {
    let (one, two, here) = (ready(bench).await, ready(bench).await, bench.instance().await);
    attach(bench, &at(&one, &here, 1)).await;
    detach(bench, &at(&one, &here, 1)).await;
    attach(bench, &at(&two, &here, 1)).await;
    assert_eq!(view(bench, &two).await.attached_to, Some(here));
}

/// Absent counts as detached.
pub async fn detaching_again_or_what_is_absent_is_success(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    attach(bench, &at(&volume, &here, 1)).await;
    detach(bench, &at(&volume, &here, 1)).await;
    detach(bench, &at(&volume, &here, 1)).await;
    detach(bench, &at(&volume, &bench.fresh_instance(), 1)).await;
    detach(bench, &at(&bench.fresh(), &here, 1)).await;
}

/// Whoever sweeps up after another frees only what that one held.
pub async fn a_detach_from_another_instance_changes_nothing(bench: &impl VolumeBench) {
    let (volume, here, there) = (ready(bench).await, bench.instance().await, bench.instance().await);
    attach(bench, &at(&volume, &here, 1)).await;
    detach(bench, &at(&volume, &there, 1)).await;
    assert_eq!(view(bench, &volume).await.attached_to, Some(here));
}

/// A node that wakes up late finds the volume busy (or is fenced), and it stays.
pub async fn a_late_attach_does_not_move_a_volume(bench: &impl VolumeBench) {
    let (volume, old, new) = (ready(bench).await, bench.instance().await, bench.instance().await);
    attach(bench, &at(&volume, &old, 1)).await;
    detach(bench, &at(&volume, &old, 1)).await;
    attach(bench, &at(&volume, &new, 2)).await;

    let late = bench.volumes().attach(&at(&volume, &old, 1)).await.unwrap_err();

    assert!(matches!(late.kind(), ErrorKind::Busy | ErrorKind::Fenced), "{late}");
    assert_eq!(view(bench, &volume).await.attached_to, Some(new));
}

/// The end of the ladder, when no guest runs any more.
pub async fn a_volume_can_be_taken_by_force_and_go_elsewhere(bench: &impl VolumeBench) {
    let (volume, here, there) = (ready(bench).await, bench.instance().await, bench.instance().await);
    attach(bench, &at(&volume, &here, 1)).await;
    bench.remove_instance(&here).await;
    let volumes = bench.volumes();
    until("the volume is taken", bench.patience(), async || {
        (volumes.force_detach(&at(&volume, &here, 1)).await.unwrap() == Detached::Yes).then_some(())
    })
    .await;
    attach(bench, &at(&volume, &there, 2)).await;
    assert_eq!(view(bench, &volume).await.attached_to, Some(there));
}

/// Deleting a machine never deletes a volume.
pub async fn a_volume_outlives_its_instance(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    attach(bench, &at(&volume, &here, 1)).await;
    bench.remove_instance(&here).await;
    assert_eq!(view(bench, &volume).await.state, VolumeState::Ready);
    detach(bench, &at(&volume, &here, 1)).await;
    assert_eq!(view(bench, &volume).await.attached_to, None);
}

/// `Busy`, and it stays.
pub async fn an_attached_volume_is_not_deleted(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    attach(bench, &at(&volume, &here, 1)).await;

    assert_eq!(bench.volumes().delete(&volume).await.unwrap_err().kind(), ErrorKind::Busy);

    let view = view(bench, &volume).await;
    assert_eq!((view.state, view.attached_to), (VolumeState::Ready, Some(here)));
}

/// `delete` begins; the volume is gone when `get` says so.
pub async fn a_deleted_volume_ends_in_absence(bench: &impl VolumeBench) {
    let id = ready(bench).await;
    remove(bench, &id).await;
    assert_eq!(bench.volumes().get(&id).await.unwrap(), None);
    until("it is not listed any more", bench.patience(), async || {
        (!listed(bench).await.contains_key(&id)).then_some(())
    })
    .await;
}

/// Absent is success.
pub async fn deleting_again_or_what_never_was_is_success(bench: &impl VolumeBench) {
    let id = ready(bench).await;
    bench.volumes().delete(&id).await.unwrap();
    bench.volumes().delete(&id).await.unwrap();
    remove(bench, &id).await;
    bench.volumes().delete(&bench.fresh()).await.unwrap();
}

/// What may hold a user's data is never taken for an empty volume.
pub async fn a_new_volume_is_unused_and_one_that_was_attached_is_used_for_good(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    assert!(!view(bench, &volume).await.used);
    attach(bench, &at(&volume, &here, 1)).await;
    assert!(view(bench, &volume).await.used);
    detach(bench, &at(&volume, &here, 1)).await;
    assert!(view(bench, &volume).await.used);
    assert!(listed(bench).await[&volume][0].used);
}

/// A node that was superseded cannot attach, also when the place is free.
pub async fn an_attach_of_an_older_epoch_is_fenced_and_changes_nothing(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    attach(bench, &at(&volume, &here, 5)).await;
    detach(bench, &at(&volume, &here, 5)).await;

    assert_eq!(bench.volumes().attach(&at(&volume, &here, 4)).await.unwrap_err().kind(), ErrorKind::Fenced);

    assert_eq!(view(bench, &volume).await.attached_to, None);
}

/// A node that was superseded cannot detach what its successor attached.
pub async fn a_detach_of_an_older_epoch_is_fenced_and_changes_nothing(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    attach(bench, &at(&volume, &here, 5)).await;

    for late in [
        bench.volumes().detach(&at(&volume, &here, 4)).await,
        bench.volumes().force_detach(&at(&volume, &here, 4)).await,
    ] {
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Fenced);
    }

    assert_eq!(view(bench, &volume).await.attached_to, Some(here));
}

/// Only what is older is refused.
pub async fn the_same_and_a_newer_epoch_are_accepted(bench: &impl VolumeBench) {
    let (volume, here) = (ready(bench).await, bench.instance().await);
    attach(bench, &at(&volume, &here, 5)).await;
    attach(bench, &at(&volume, &here, 5)).await;
    attach(bench, &at(&volume, &here, 9)).await;
    detach(bench, &at(&volume, &here, 9)).await;
    assert_eq!(view(bench, &volume).await.attached_to, None);
}

/// Repeating it after a lost answer is safe.
pub async fn snapshotting_again_finds_the_same_snapshot(bench: &impl VolumeBench) {
    let volume = ready(bench).await;
    let id = snapshot_of(bench, &volume).await;
    let first = bench.volumes().snapshot(&volume, &id).await.unwrap();
    assert_eq!(bench.volumes().snapshot(&volume, &id).await.unwrap(), first);
    assert_eq!(snapshot_is_listed(bench, &id).await, 1);
    bench.volumes().delete_snapshot(&id).await.unwrap();
}

/// Nothing is made of nothing.
pub async fn a_snapshot_of_an_absent_volume_is_not_found(bench: &impl VolumeBench) {
    let id = bench.fresh_snapshot();
    let error = bench.volumes().snapshot(&bench.fresh(), &id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(snapshot_is_listed(bench, &id).await, 0);
}

/// New boxes are copies of a golden snapshot, and golden snapshots are retired.
pub async fn a_copy_is_a_volume_of_its_own_and_outlives_its_snapshot(bench: &impl VolumeBench) {
    let (original, here) = (ready(bench).await, bench.instance().await);
    let snapshot = snapshot_of(bench, &original).await;
    let copy = make(bench, VolumeSource::Snapshot(snapshot.clone())).await;
    remove(bench, &original).await;
    bench.volumes().delete_snapshot(&snapshot).await.unwrap();

    assert_eq!(view(bench, &copy).await.attached_to, None);
    attach(bench, &at(&copy, &here, 1)).await;
    assert_eq!(view(bench, &copy).await.state, VolumeState::Ready);
}

/// Absent is success.
pub async fn a_deleted_snapshot_is_not_listed_and_deleting_again_is_success(bench: &impl VolumeBench) {
    let volume = ready(bench).await;
    let id = snapshot_of(bench, &volume).await;
    bench.volumes().delete_snapshot(&id).await.unwrap();
    until("the snapshot is gone", bench.patience(), async || (snapshot_is_listed(bench, &id).await == 0).then_some(()))
        .await;
    bench.volumes().delete_snapshot(&id).await.unwrap();
    bench.volumes().delete_snapshot(&bench.fresh_snapshot()).await.unwrap();
}

/// A volume grows and never shrinks.
pub async fn growing_again_or_to_less_is_success(bench: &impl VolumeBench) {
    let volume = ready(bench).await;
    for bytes in [1 << 30, 1 << 30, 1 << 20] {
        bench.volumes().resize(&volume, bytes).await.unwrap();
    }
    assert_eq!(view(bench, &volume).await.state, VolumeState::Ready);
}

/// Nothing is made by the way.
pub async fn growing_an_absent_volume_is_not_found(bench: &impl VolumeBench) {
    let error = bench.volumes().resize(&bench.fresh(), 1 << 30).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
