//! What every `VolumeProvider` promises.

use super::VolumeBench;
use super::instances::ready_instance;
use boxpool::{
    Attach, Attached, Detached, Device, Epoch, ErrorKind, InstanceId, SnapshotId, VolumeId, VolumeProvider,
    VolumeSource, VolumeSpec, VolumeState,
};
use std::time::Duration;

/// Clouds have taken ten minutes for what takes half a minute as a rule.
const LIMIT: Duration = Duration::from_secs(900);

/// Makes a volume and waits until it is ready.
pub async fn ready_volume(bench: &(impl VolumeBench + ?Sized)) -> VolumeId {
    let id = bench.fresh_volume();
    let spec = VolumeSpec::new(id.clone(), bench.source());
    let made = async {
        while bench.volumes().ensure(&spec).await.unwrap().state != VolumeState::Ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("a volume becomes ready");
    id
}

/// Attaches and waits until it is done.
pub async fn attached(bench: &(impl VolumeBench + ?Sized), attach: &Attach) -> Device {
    let done = async {
        loop {
            match bench.volumes().attach(attach).await.unwrap() {
                Attached::Yes(device) => return device,
                Attached::Pending => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, done).await.expect("an attach ends")
}

/// Detaches and waits until it is done.
pub async fn detached(bench: &(impl VolumeBench + ?Sized), attach: &Attach) {
    let done = async {
        while bench.volumes().detach(attach).await.unwrap() == Detached::Pending {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, done).await.expect("a detach ends");
}

async fn where_is(bench: &impl VolumeBench, id: &VolumeId) -> Option<InstanceId> {
    bench.volumes().get(id).await.unwrap().expect("the volume exists").attached_to
}

async fn listed(bench: &impl VolumeBench, id: &VolumeId) -> bool {
    let mut cursor = None;
    loop {
        let page = bench.volumes().list(cursor.as_ref()).await.unwrap();
        if page.items.iter().any(|view| view.id == *id) {
            return true;
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return false,
        }
    }
}

fn attach(volume: &VolumeId, instance: &InstanceId, epoch: u64) -> Attach {
    Attach::new(volume.clone(), instance.clone(), Epoch(epoch))
}

/// Making a volume again finds the one that is there; an unused one says that it holds nobody's data.
pub async fn ensure_twice_is_one_volume(bench: impl VolumeBench) {
    let id = ready_volume(&bench).await;
    let again = bench.volumes().ensure(&VolumeSpec::new(id.clone(), bench.source())).await.unwrap();
    assert_eq!((again.id, again.state), (id.clone(), VolumeState::Ready));
    assert!(!again.used, "it was never attached");
    assert!(listed(&bench, &id).await);
}

/// What does not exist is `None`, not an error.
pub async fn an_absent_volume_is_none(bench: impl VolumeBench) {
    let id = bench.fresh_volume();
    assert!(bench.volumes().get(&id).await.unwrap().is_none());
    assert!(!listed(&bench, &id).await);
}

/// A volume of a snapshot that does not exist is refused, and nothing is left.
pub async fn a_missing_snapshot_is_not_found(bench: impl VolumeBench) {
    let id = bench.fresh_volume();
    let source = VolumeSource::Snapshot(SnapshotId::new("no-such-snapshot").unwrap());
    let refused = bench.volumes().ensure(&VolumeSpec::new(id.clone(), source)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(bench.volumes().get(&id).await.unwrap().is_none());
}

/// Attaching again gives the same device.
pub async fn attach_twice_is_the_same_device(bench: impl VolumeBench) {
    let (volume, here) = (ready_volume(&bench).await, ready_instance(&bench).await);
    let first = attached(&bench, &attach(&volume, &here, 1)).await;
    assert_eq!(attached(&bench, &attach(&volume, &here, 1)).await, first);
    assert_eq!(where_is(&bench, &volume).await, Some(here));
    assert!(bench.volumes().get(&volume).await.unwrap().unwrap().used, "now it may hold data");
}

/// A volume that is attached somewhere is refused elsewhere, and stays where it was.
pub async fn second_attach_elsewhere_is_refused(bench: impl VolumeBench) {
    let volume = ready_volume(&bench).await;
    let (here, there) = (ready_instance(&bench).await, ready_instance(&bench).await);
    attached(&bench, &attach(&volume, &here, 1)).await;
    let second = bench.volumes().attach(&attach(&volume, &there, 1)).await;
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(where_is(&bench, &volume).await, Some(here));
}

/// An instance that holds a volume takes no second one.
pub async fn a_second_volume_on_one_instance_is_refused(bench: impl VolumeBench) {
    let here = ready_instance(&bench).await;
    let (one, two) = (ready_volume(&bench).await, ready_volume(&bench).await);
    attached(&bench, &attach(&one, &here, 1)).await;
    assert_eq!(bench.volumes().attach(&attach(&two, &here, 1)).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!((where_is(&bench, &one).await, where_is(&bench, &two).await), (Some(here), None));
}

/// Attaching what or where is not there says so.
pub async fn attaching_the_absent_is_not_found(bench: impl VolumeBench) {
    let (volume, here) = (ready_volume(&bench).await, ready_instance(&bench).await);
    let no_volume = bench.volumes().attach(&attach(&bench.fresh_volume(), &here, 1)).await;
    assert_eq!(no_volume.unwrap_err().kind(), ErrorKind::NotFound);
    let no_instance = bench.volumes().attach(&attach(&volume, &bench.fresh_instance(), 1)).await;
    assert_eq!(no_instance.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(where_is(&bench, &volume).await, None);
}

/// A detached volume can go elsewhere; detaching may be repeated, also of what is not there.
pub async fn a_detach_may_be_repeated_and_frees_the_volume(bench: impl VolumeBench) {
    let volume = ready_volume(&bench).await;
    let (here, there) = (ready_instance(&bench).await, ready_instance(&bench).await);
    attached(&bench, &attach(&volume, &here, 1)).await;
    detached(&bench, &attach(&volume, &here, 2)).await;
    detached(&bench, &attach(&volume, &here, 2)).await;
    detached(&bench, &attach(&bench.fresh_volume(), &here, 2)).await;
    assert_eq!(where_is(&bench, &volume).await, None);
    attached(&bench, &attach(&volume, &there, 3)).await;
    // A late detach from the old place changes nothing.
    detached(&bench, &attach(&volume, &here, 3)).await;
    assert_eq!(where_is(&bench, &volume).await, Some(there));
}

/// Capability: an older epoch neither attaches nor detaches.
pub async fn an_older_epoch_is_fenced(bench: impl VolumeBench) {
    let (volume, here) = (ready_volume(&bench).await, ready_instance(&bench).await);
    attached(&bench, &attach(&volume, &here, 5)).await;
    for outcome in [
        bench.volumes().attach(&attach(&volume, &here, 4)).await.map(drop),
        bench.volumes().detach(&attach(&volume, &here, 4)).await.map(drop),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Fenced);
    }
    assert_eq!(where_is(&bench, &volume).await, Some(here));
}

/// An attached volume is not deleted; a detached one goes, and deleting may be repeated.
pub async fn only_a_detached_volume_is_deleted(bench: impl VolumeBench) {
    let (volume, here) = (ready_volume(&bench).await, ready_instance(&bench).await);
    attached(&bench, &attach(&volume, &here, 1)).await;
    assert_eq!(bench.volumes().delete(&volume).await.unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(where_is(&bench, &volume).await, Some(here.clone()));
    detached(&bench, &attach(&volume, &here, 1)).await;
    bench.volumes().delete(&volume).await.unwrap();
    let gone = async {
        while bench.volumes().get(&volume).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("a deleted volume goes");
    bench.volumes().delete(&volume).await.unwrap();
}

/// Deleting the machine leaves the volume, which can then go elsewhere.
pub async fn a_volume_survives_its_instance(bench: impl VolumeBench) {
    let volume = ready_volume(&bench).await;
    let (here, there) = (ready_instance(&bench).await, ready_instance(&bench).await);
    attached(&bench, &attach(&volume, &here, 1)).await;
    bench.instances().delete(&here).await.unwrap();
    let gone = async {
        while bench.instances().get(&here).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("a deleted instance goes");
    let forced = async {
        while bench.volumes().force_detach(&attach(&volume, &here, 2)).await.unwrap() == Detached::Pending {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, forced).await.expect("a forced detach ends");
    attached(&bench, &attach(&volume, &there, 3)).await;
}

/// Two nodes that attach one volume at the same moment: one gets it.
pub async fn of_attaches_at_once_to_two_instances_one_wins(bench: impl VolumeBench) {
    let volume = ready_volume(&bench).await;
    let (here, there) = (ready_instance(&bench).await, ready_instance(&bench).await);
    let (at_here, at_there) = (attach(&volume, &here, 1), attach(&volume, &there, 1));
    let (first, second) = tokio::join!(bench.volumes().attach(&at_here), bench.volumes().attach(&at_there));
    let (winner, lost) = match (first, second) {
        (Ok(_), Err(lost)) => (at_here, lost),
        (Err(lost), Ok(_)) => (at_there, lost),
        other => panic!("both won or both lost: {other:?}"),
    };
    assert_eq!(lost.kind(), ErrorKind::Busy);
    attached(&bench, &winner).await;
    assert_eq!(where_is(&bench, &volume).await, Some(winner.instance));
}

/// An instance serves one box after another.
pub async fn an_instance_whose_volume_left_takes_another(bench: impl VolumeBench) {
    let here = ready_instance(&bench).await;
    let (one, two) = (ready_volume(&bench).await, ready_volume(&bench).await);
    attached(&bench, &attach(&one, &here, 1)).await;
    detached(&bench, &attach(&one, &here, 1)).await;
    attached(&bench, &attach(&two, &here, 1)).await;
    assert_eq!((where_is(&bench, &one).await, where_is(&bench, &two).await), (None, Some(here)));
}

/// A listing shows each volume once, over all its pages.
pub async fn every_volume_is_listed_once(bench: impl VolumeBench) {
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(ready_volume(&bench).await);
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = bench.volumes().list(cursor.as_ref()).await.unwrap();
        seen.extend(page.items.into_iter().map(|view| view.id));
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    for id in ids {
        assert_eq!(seen.iter().filter(|seen| **seen == id).count(), 1, "{id} in {seen:?}");
    }
}

/// Capability: a copy of a snapshot is a volume of its own; it outlives the snapshot and what that was made of.
pub async fn a_copy_outlives_its_snapshot(bench: impl VolumeBench) {
    let (original, here) = (ready_volume(&bench).await, ready_instance(&bench).await);
    let snapshot = SnapshotId::new(format!("of-{original}")).unwrap();
    let made = async {
        while !bench.volumes().snapshot(&original, &snapshot).await.unwrap().ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("a snapshot becomes ready");
    let again = bench.volumes().snapshot(&original, &snapshot).await.unwrap();
    assert_eq!((again.id, again.ready), (snapshot.clone(), true), "repeating it finds it");

    let copy = bench.fresh_volume();
    let spec = VolumeSpec::new(copy.clone(), VolumeSource::Snapshot(snapshot.clone()));
    let copied = async {
        while bench.volumes().ensure(&spec).await.unwrap().state != VolumeState::Ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, copied).await.expect("a copy becomes ready");
    bench.volumes().delete(&original).await.unwrap();
    bench.volumes().delete_snapshot(&snapshot).await.unwrap();
    bench.volumes().delete_snapshot(&snapshot).await.unwrap();

    attached(&bench, &attach(&copy, &here, 1)).await;
    let refused = bench.volumes().snapshot(&bench.fresh_volume(), &snapshot).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound, "nothing is made of nothing");
}

/// Capability: a snapshot is in the list as long as it is there, so that one which nobody knows of is found.
pub async fn a_snapshot_is_listed_until_it_is_deleted(bench: impl VolumeBench) {
    let original = ready_volume(&bench).await;
    let snapshot = SnapshotId::new(format!("listed-{original}")).unwrap();
    let until_listed = async |wanted: bool| {
        let done = async {
            while snapshot_is_listed(&bench, &snapshot).await != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, done).await.expect("a listing follows");
    };
    assert!(!snapshot_is_listed(&bench, &snapshot).await);
    bench.volumes().snapshot(&original, &snapshot).await.unwrap();
    until_listed(true).await;
    let made = async {
        while !bench.volumes().snapshot(&original, &snapshot).await.unwrap().ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("a snapshot becomes ready");
    bench.volumes().delete_snapshot(&snapshot).await.unwrap();
    until_listed(false).await;
}

async fn snapshot_is_listed(bench: &impl VolumeBench, id: &SnapshotId) -> bool {
    pages_of_snapshots(bench.volumes()).await.contains(id)
}

/// All snapshots that are listed.
pub(super) async fn pages_of_snapshots(volumes: &dyn VolumeProvider) -> Vec<SnapshotId> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = volumes.list_snapshots(cursor.as_ref()).await.unwrap();
        all.extend(page.items.into_iter().map(|view| view.id));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

/// Makes one test of each promise. The expression makes a [`VolumeBench`](crate::conformance::VolumeBench); it may `.await`. After it,
/// the capabilities that the provider states: `remembers_epochs`, `snapshots`.
#[macro_export]
macro_rules! volume_conformance {
    (@all $bench:tt $($capability:ident)*) => {
        $crate::volume_conformance!(@each $bench
            ensure_twice_is_one_volume
            an_absent_volume_is_none
            a_missing_snapshot_is_not_found
            attach_twice_is_the_same_device
            second_attach_elsewhere_is_refused
            a_second_volume_on_one_instance_is_refused
            attaching_the_absent_is_not_found
            a_detach_may_be_repeated_and_frees_the_volume
            only_a_detached_volume_is_deleted
            a_volume_survives_its_instance
            of_attaches_at_once_to_two_instances_one_wins
            an_instance_whose_volume_left_takes_another
            every_volume_is_listed_once
        );
        $( $crate::volume_conformance!(@$capability $bench); )*
    };
    (@remembers_epochs $bench:tt) => {
        $crate::volume_conformance!(@each $bench an_older_epoch_is_fenced);
    };
    (@snapshots $bench:tt) => {
        $crate::volume_conformance!(@each $bench a_copy_outlives_its_snapshot a_snapshot_is_listed_until_it_is_deleted);
    };
    (@each [virtual $bench:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $promise() {
                $crate::conformance::volumes::$promise($bench).await;
            }
        )*
    };
    (@each [$bench:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                $crate::conformance::volumes::$promise($bench).await;
            }
        )*
    };
    (virtual $bench:expr $(, $capability:ident)* $(,)?) => {
        $crate::volume_conformance!(@all [virtual $bench] $($capability)*);
    };
    ($bench:expr $(, $capability:ident)* $(,)?) => {
        $crate::volume_conformance!(@all [$bench] $($capability)*);
    };
}
