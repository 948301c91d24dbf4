//! The simulated backends keep every promise of the suites, at once and with everything taking its time.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use boxpool::{
    Attach, Attached, BoxId, BoxName, BoxRef, Detached, Epoch, Guest, GuestRuntime, InstanceId, InstanceProvider,
    InstanceSpec, SnapshotId, Started, UserId, VolumeId, VolumeProvider, VolumeSource, VolumeSpec,
};
use boxpool_sim::backend::{Fault, Operation, SimInstances, SimRuntime, SimVolumes, SimWorld};
use boxpool_sim::conformance::instances::InstanceBench;
use boxpool_sim::conformance::runtime::RuntimeBench;
use boxpool_sim::conformance::volumes::VolumeBench;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct Bench {
    world: Arc<SimWorld>,
    fresh: AtomicUsize,
}

impl Bench {
    fn new() -> Self {
        Self { world: SimWorld::new(), fresh: AtomicUsize::new(0) }
    }

    /// Everything that is begun takes a few looks to be done.
    fn slow() -> Self {
        let bench = Self::new();
        for operation in [
            Operation::InstanceEnsure,
            Operation::InstanceStart,
            Operation::InstanceStop,
            Operation::InstanceDelete,
            Operation::VolumeEnsure,
            Operation::VolumeDelete,
            Operation::Attach,
            Operation::Detach,
            Operation::ForceDetach,
            Operation::Snapshot,
        ] {
            bench.world.fault_always(operation, Fault::Pending(2));
            bench.world.latency_ms(operation, 1);
        }
        bench
    }

    fn next(&self, kind: &str) -> String {
        format!("{kind}{}", self.fresh.fetch_add(1, Ordering::Relaxed))
    }

    async fn attach(&self, volume: &VolumeId, epoch: Epoch) -> Guest {
        let instance = VolumeBench::instance(self).await;
        let attach = Attach::new(volume.clone(), instance.clone(), epoch);
        let owner = BoxRef {
            owner: UserId::new("user").unwrap(),
            name: BoxName::new("box").unwrap(),
            id: BoxId::new(format!("box-of-{volume}")).unwrap(),
        };
        loop {
            if let Attached::Yes(device) = VolumeBench::volumes(self).attach(&attach).await.unwrap() {
                return Guest::new(instance, volume.clone(), owner, epoch).on_device(device);
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.world.violations(), Vec::<String>::new());
        }
    }
}

impl InstanceBench for Bench {
    fn instances(&self) -> Arc<dyn InstanceProvider> {
        Arc::new(SimInstances::new(self.world.clone()))
    }

    fn fresh(&self) -> InstanceId {
        InstanceId::new(self.next("i")).unwrap()
    }

    fn generation(&self) -> String {
        "g1".into()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn volumes(&self) -> Arc<dyn VolumeProvider> {
        Arc::new(SimVolumes::new(self.world.clone()))
    }

    fn fresh(&self) -> VolumeId {
        VolumeId::new(self.next("v")).unwrap()
    }

    fn fresh_snapshot(&self) -> SnapshotId {
        SnapshotId::new(self.next("s")).unwrap()
    }

    fn source(&self) -> VolumeSource {
        VolumeSource::Empty { bytes: 1 << 20 }
    }

    async fn instance(&self) -> InstanceId {
        let id = InstanceBench::fresh(self);
        let spec = InstanceSpec::new(id.clone(), "g1");
        while self.instances().ensure(&spec).await.unwrap().state != boxpool::InstanceState::Running {}
        id
    }

    fn fresh_instance(&self) -> InstanceId {
        InstanceBench::fresh(self)
    }

    async fn remove_instance(&self, id: &InstanceId) {
        self.instances().delete(id).await.unwrap();
        while self.instances().get(id).await.unwrap().is_some() {}
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

#[async_trait]
impl RuntimeBench for Bench {
    fn runtime(&self) -> Arc<dyn GuestRuntime> {
        Arc::new(SimRuntime::new(self.world.clone()))
    }

    fn volumes(&self) -> Arc<dyn VolumeProvider> {
        VolumeBench::volumes(self)
    }

    async fn guest(&self) -> Guest {
        let volume = VolumeBench::fresh(self);
        let spec = VolumeSpec::new(volume.clone(), self.source());
        while VolumeBench::volumes(self).ensure(&spec).await.unwrap().state != boxpool::VolumeState::Ready {}
        self.attach(&volume, Epoch(1)).await
    }

    async fn moved(&self, guest: &Guest, epoch: Epoch) -> Guest {
        let attach = Attach::new(guest.volume.clone(), guest.instance.clone(), epoch);
        while VolumeBench::volumes(self).detach(&attach).await.unwrap() != Detached::Yes {}
        self.attach(&guest.volume, epoch).await
    }

    fn fresh_instance(&self) -> InstanceId {
        InstanceBench::fresh(self)
    }

    async fn write(&self, guest: &Guest, _: &Started, line: &str) {
        self.world.write(&guest.volume, line).unwrap();
    }

    async fn read(&self, guest: &Guest, _: &Started) -> Vec<String> {
        self.world.read(&guest.volume).unwrap()
    }

    async fn count(&self, guest: &Guest, _: &Started) -> u64 {
        self.world.count(&guest.volume).unwrap()
    }

    async fn crash(&self, guest: &Guest) {
        self.world.kill_guest(&guest.volume);
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

mod at_once {
    use super::Bench;

    mod instances {
        use super::Bench;
        boxpool_sim::instance_conformance!(Bench::new(), reserve);
    }

    mod volumes {
        use super::Bench;
        boxpool_sim::volume_conformance!(Bench::new(), knows_used, remembers_epochs, snapshots, grows);
    }

    mod runtime {
        use super::Bench;
        boxpool_sim::runtime_conformance!(Bench::new(), crashes);
    }

    mod volumes_that_forget_epochs {
        use super::Bench;

        fn forgetful() -> Bench {
            let bench = Bench::new();
            bench.world.limit(|limits| limits.attach_remembers_epochs = false);
            bench
        }

        boxpool_sim::volume_conformance!(forgetful(), knows_used);
    }
}

mod slowly {
    use super::Bench;

    mod instances {
        use super::Bench;
        boxpool_sim::instance_conformance!(Bench::slow(), reserve);
    }

    mod volumes {
        use super::Bench;
        boxpool_sim::volume_conformance!(Bench::slow(), knows_used, remembers_epochs, snapshots, grows);
    }

    mod runtime {
        use super::Bench;
        boxpool_sim::runtime_conformance!(Bench::slow(), crashes);
    }
}
