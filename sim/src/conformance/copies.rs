//! What every `SnapshotCopier` promises.

use super::RegionsBench;
use super::volumes::{pages_of_snapshots, ready_volume};
use boxpool::{
    ErrorKind, SnapshotId, SnapshotLocation, VolumeId, VolumeProvider, VolumeSource, VolumeSpec, VolumeState,
};
use std::time::Duration;

/// A cloud copies in the background, for as long as it takes.
const LIMIT: Duration = Duration::from_secs(3_600);
const PAUSE: Duration = Duration::from_millis(20);

/// A snapshot of a volume of the first region, whole.
async fn taken(bench: &impl RegionsBench) -> SnapshotId {
    let volume = ready_volume(bench).await;
    let id = fresh(bench);
    let made = async {
        while !bench.volumes().snapshot(&volume, &id).await.unwrap().ready {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("a snapshot becomes ready");
    id
}

fn fresh(bench: &impl RegionsBench) -> SnapshotId {
    SnapshotId::new(format!("of-box-{}", bench.fresh_volume())).unwrap()
}

async fn copied(bench: &impl RegionsBench, from: &SnapshotLocation, id: &SnapshotId) {
    let mut last = 0;
    let made = async {
        loop {
            let copy = bench.other_copier().copy_snapshot(from, id).await.unwrap();
            if copy.ready {
                return;
            }
            if let Some(percent) = copy.percent {
                assert!(percent >= last, "the copy was at {last} and is at {percent}");
                last = percent;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("a copy becomes ready");
}

async fn volume_of(volumes: &dyn VolumeProvider, id: &VolumeId, snapshot: &SnapshotId) {
    let spec = VolumeSpec::new(id.clone(), VolumeSource::Snapshot(snapshot.clone()));
    let made = async {
        while volumes.ensure(&spec).await.unwrap().state != VolumeState::Ready {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("a volume becomes ready");
}

async fn is_listed(volumes: &dyn VolumeProvider, id: &SnapshotId) -> bool {
    pages_of_snapshots(volumes).await.contains(id)
}

/// A copy is a snapshot of its own: it stays when the one that was copied goes, and volumes are made of it.
pub async fn a_copy_is_a_snapshot_of_its_own(bench: impl RegionsBench) {
    let (snapshot, copy) = (taken(&bench).await, fresh(&bench));
    let from = bench.copier().locate_snapshot(&snapshot).await.unwrap();
    copied(&bench, &from, &copy).await;
    bench.volumes().delete_snapshot(&snapshot).await.unwrap();
    assert!(is_listed(bench.other_volumes(), &copy).await);
    assert!(!is_listed(bench.volumes(), &copy).await, "it is in the other region alone");
    volume_of(bench.other_volumes(), &bench.fresh_volume(), &copy).await;
    bench.other_volumes().delete_snapshot(&copy).await.unwrap();
    let gone = async {
        while is_listed(bench.other_volumes(), &copy).await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("a copy goes");
}

/// Copying again finds the copy that is there.
pub async fn copying_twice_is_one_copy(bench: impl RegionsBench) {
    let (snapshot, copy) = (taken(&bench).await, fresh(&bench));
    let from = bench.copier().locate_snapshot(&snapshot).await.unwrap();
    copied(&bench, &from, &copy).await;
    assert!(bench.other_copier().copy_snapshot(&from, &copy).await.unwrap().ready);
    let there = pages_of_snapshots(bench.other_volumes()).await;
    assert_eq!(there.iter().filter(|id| **id == copy).count(), 1);
}

/// What is not there is not copied, and nothing is left.
pub async fn an_absent_snapshot_is_not_copied(bench: impl RegionsBench) {
    let (absent, copy) = (fresh(&bench), fresh(&bench));
    let refused = match bench.copier().locate_snapshot(&absent).await {
        Ok(from) => bench.other_copier().copy_snapshot(&from, &copy).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(!is_listed(bench.other_volumes(), &copy).await);
}

/// A location that another backend made is refused.
pub async fn a_foreign_location_is_invalid(bench: impl RegionsBench) {
    let copy = fresh(&bench);
    let foreign = SnapshotLocation("\u{1}".into());
    let refused = bench.other_copier().copy_snapshot(&foreign, &copy).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(!is_listed(bench.other_volumes(), &copy).await);
}

/// Makes one test of each promise. The expression makes a [`RegionsBench`](crate::conformance::RegionsBench); it may `.await`.
#[macro_export]
macro_rules! copier_conformance {
    (@each $how:tt [$bench:expr] $($promise:ident)*) => {
        $( $crate::copier_conformance!(@one $how $promise [$bench]); )*
    };
    (@one [virtual] $promise:ident [$bench:expr]) => {
        #[tokio::test(start_paused = true)]
        async fn $promise() {
            $crate::conformance::copies::$promise($bench).await;
        }
    };
    (@one [real] $promise:ident [$bench:expr]) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            $crate::conformance::copies::$promise($bench).await;
        }
    };
    (@all $how:tt $bench:tt) => {
        $crate::copier_conformance!(@each $how $bench
            a_copy_is_a_snapshot_of_its_own
            copying_twice_is_one_copy
            an_absent_snapshot_is_not_copied
            a_foreign_location_is_invalid
        );
    };
    (virtual $bench:expr) => {
        $crate::copier_conformance!(@all [virtual] [$bench]);
    };
    ($bench:expr) => {
        $crate::copier_conformance!(@all [real] [$bench]);
    };
}
