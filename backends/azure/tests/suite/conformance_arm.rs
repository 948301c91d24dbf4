//! Machines and disks keep every promise of instances and volumes, against the simulated Resource Manager.

use crate::arm::options;
use crate::until::{until, until_true};
use async_trait::async_trait;
use boxpool::{InstanceId, InstanceProvider, SnapshotCopier, VolumeId, VolumeProvider, VolumeSource};
use boxpool_azure::AzureCloud;
use boxpool_sim::arm::{ArmFaults, ArmServer, ArmStrike};
use boxpool_sim::conformance::{InstanceBench, RegionsBench, VolumeBench};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(1);

struct Bench {
    cloud: AzureCloud,
    _service: ArmServer,
}

async fn bench(faults: ArmFaults) -> Bench {
    let service = ArmServer::builder().seed(7).time_scale(0.002).page_size(2).faults(faults).start().await.unwrap();
    Bench { cloud: AzureCloud::open(options(&service.url())).unwrap(), _service: service }
}

#[async_trait]
impl InstanceBench for Bench {
    fn instances(&self) -> &dyn InstanceProvider {
        &self.cloud
    }
    fn fresh_instance(&self) -> InstanceId {
        InstanceId::new(format!("i{:05}-c", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn volumes(&self) -> &dyn VolumeProvider {
        &self.cloud
    }
    fn fresh_volume(&self) -> VolumeId {
        VolumeId::new(format!("v-{:016x}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
    fn source(&self) -> VolumeSource {
        VolumeSource::Empty { bytes: 4 << 30 }
    }
}

/// Another region: a pool of its own in the same subscription, elsewhere.
struct TwoRegions {
    bench: Bench,
    other: AzureCloud,
}

async fn two_regions() -> TwoRegions {
    two_regions_with(Vec::new()).await
}

async fn two_regions_with(script: Vec<ArmStrike>) -> TwoRegions {
    let service = ArmServer::builder().seed(7).time_scale(0.002).page_size(2).script(script).start().await.unwrap();
    let bench = Bench { cloud: AzureCloud::open(options(&service.url())).unwrap(), _service: service };
    let mut there = options(&bench._service.url());
    there.location = "swedencentral".into();
    there.pool = "other".into();
    TwoRegions { bench, other: AzureCloud::open(there).unwrap() }
}

#[async_trait]
impl InstanceBench for TwoRegions {
    fn instances(&self) -> &dyn InstanceProvider {
        self.bench.instances()
    }
    fn fresh_instance(&self) -> InstanceId {
        self.bench.fresh_instance()
    }
}

#[async_trait]
impl VolumeBench for TwoRegions {
    fn volumes(&self) -> &dyn VolumeProvider {
        self.bench.volumes()
    }
    fn fresh_volume(&self) -> VolumeId {
        self.bench.fresh_volume()
    }
    fn source(&self) -> VolumeSource {
        self.bench.source()
    }
}

#[async_trait]
impl RegionsBench for TwoRegions {
    fn copier(&self) -> &dyn SnapshotCopier {
        &self.bench.cloud
    }
    fn other_volumes(&self) -> &dyn VolumeProvider {
        &self.other
    }
    fn other_copier(&self) -> &dyn SnapshotCopier {
        &self.other
    }
}

mod copies {
    use super::*;
    use boxpool::{Error, ErrorKind, SnapshotCopy, SnapshotId, SnapshotLocation, VolumeSpec, VolumeState};
    use boxpool_sim::arm::{ArmFate, Kind};

    boxpool_sim::copier_conformance!(two_regions().await);

    /// What Azure calls the copy.
    const COPY: &str = "other-copy";

    fn copy() -> SnapshotId {
        SnapshotId::new("copy").unwrap()
    }

    /// The request that begins the copy meets that fate.
    fn strike(fate: ArmFate) -> ArmStrike {
        ArmStrike { method: "PUT".into(), path_ends: format!("/snapshots/{COPY}"), nth: 1, fate }
    }

    impl TwoRegions {
        async fn snapshot(&self) -> SnapshotLocation {
            let (volume, id) = (self.fresh_volume(), SnapshotId::new("taken").unwrap());
            let spec = VolumeSpec::new(volume.clone(), self.source());
            let ready = |state| (state == VolumeState::Ready).then_some(());
            until("a volume", async || ready(self.volumes().ensure(&spec).await.unwrap().state)).await;
            let taken = async || self.volumes().snapshot(&volume, &id).await.unwrap().ready.then_some(());
            until("a snapshot", taken).await;
            self.copier().locate_snapshot(&id).await.unwrap()
        }

        /// Asks until it is whole, or has failed.
        async fn copied(&self, from: &SnapshotLocation, to: &SnapshotId) -> Result<SnapshotCopy, Error> {
            let ask =
                async || self.other.copy_snapshot(from, to).await.map(|copy| copy.ready.then_some(copy)).transpose();
            until("a copy", ask).await
        }

        fn begun(&self) -> usize {
            let requests = self.bench._service.requests();
            requests.iter().filter(|each| each.method == "PUT" && each.path.ends_with(COPY)).count()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_whose_begin_nobody_heard_of_is_one_copy() {
        for fate in [ArmFate::LoseAnswer, ArmFate::LoseRequest] {
            let bench = two_regions_with(vec![strike(fate)]).await;
            let from = bench.snapshot().await;
            let first = bench.other.copy_snapshot(&from, &copy()).await;
            let again = bench.copied(&from, &copy()).await.unwrap();
            assert_eq!(again.percent, Some(100), "{first:?}");
            assert_eq!(bench.bench._service.names(Kind::Snapshot).iter().filter(|name| *name == COPY).count(), 1);
            assert!(bench.begun() <= 2, "{}", bench.begun());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_that_failed_says_so_until_it_is_deleted_and_can_then_be_made() {
        let bench = two_regions_with(vec![strike(ArmFate::Fail { code: "InternalServerError".into() })]).await;
        let from = bench.snapshot().await;
        let failed = bench.copied(&from, &copy()).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Permanent, "{failed}");
        assert_eq!(bench.copied(&from, &copy()).await.unwrap_err().kind(), ErrorKind::Permanent);
        bench.other.delete_snapshot(&copy()).await.unwrap();
        let made = until("another copy", async || match bench.copied(&from, &copy()).await {
            Err(error) if error.kind() == ErrorKind::Busy => None,
            made => Some(made),
        });
        assert!(made.await.unwrap().ready);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_that_is_deleted_while_it_is_made_is_gone() {
        let bench = two_regions().await;
        let from = bench.snapshot().await;
        assert!(!bench.other.copy_snapshot(&from, &copy()).await.unwrap().ready);
        bench.other.delete_snapshot(&copy()).await.unwrap();
        let there = || bench.bench._service.resource(Kind::Snapshot, COPY).is_some();
        until_true("gone", || !there()).await;
        // A copy that was begun later is whole: by then the first would be.
        bench.copied(&from, &SnapshotId::new("later").unwrap()).await.unwrap();
        assert!(!there(), "it does not come back");
    }
}

mod instances {
    use super::*;
    boxpool_sim::instance_conformance!(bench(ArmFaults::default()).await);
}

mod volumes {
    use super::*;
    boxpool_sim::volume_conformance!(bench(ArmFaults::default()).await, snapshots);
}
