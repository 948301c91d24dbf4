//! The simulated backends keep every promise of the suites, at once and with everything taking its time.

use async_trait::async_trait;
use boxpool::{
    Endpoint, EndpointAddress, Guest, GuestRuntime, InstanceId, InstanceProvider, SnapshotCopier, VolumeId,
    VolumeProvider, VolumeSource,
};
use boxpool_sim::backend::{Fault, Operation, SimInstances, SimRuntime, SimVolumes, SimWorld};
use boxpool_sim::conformance::{InstanceBench, RegionsBench, RuntimeBench, VolumeBench};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Bench {
    world: Arc<SimWorld>,
    instances: SimInstances,
    volumes: SimVolumes,
    runtime: SimRuntime,
    fresh: AtomicUsize,
}

impl Bench {
    fn new() -> Self {
        let world = SimWorld::new();
        Self {
            instances: SimInstances::new(world.clone()),
            volumes: SimVolumes::new(world.clone()),
            runtime: SimRuntime::new(world.clone()),
            fresh: AtomicUsize::new(0),
            world,
        }
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

    fn forgetful() -> Self {
        let bench = Self::new();
        bench.world.limit(|limits| limits.attach_remembers_epochs = false);
        bench
    }

    fn next(&self, kind: &str) -> String {
        format!("{kind}{}", self.fresh.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.world.violations(), Vec::<String>::new());
        }
    }
}

#[async_trait]
impl InstanceBench for Bench {
    fn instances(&self) -> &dyn InstanceProvider {
        &self.instances
    }

    fn fresh_instance(&self) -> InstanceId {
        InstanceId::new(self.next("i")).unwrap()
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn volumes(&self) -> &dyn VolumeProvider {
        &self.volumes
    }

    fn fresh_volume(&self) -> VolumeId {
        VolumeId::new(self.next("v")).unwrap()
    }

    fn source(&self) -> VolumeSource {
        VolumeSource::Empty { bytes: 1 << 20 }
    }
}

#[async_trait]
impl RuntimeBench for Bench {
    fn runtime(&self) -> &dyn GuestRuntime {
        &self.runtime
    }

    /// Understands as much shell as the suite speaks: one file on the disk, one counter in memory.
    async fn run(&self, endpoint: &Endpoint, command: &str) -> String {
        let EndpointAddress::Unix(path) = &endpoint.address else { panic!("{endpoint:?}") };
        let volume = VolumeId::new(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let written = command.strip_prefix("echo ").and_then(|rest| rest.split_once(" > ~/file"));
        if let Some((line, _)) = written {
            self.world.write(&volume, line).unwrap();
            return String::new();
        }
        match command {
            "cat ~/file" => self.world.read(&volume).unwrap().pop().unwrap(),
            "echo alive" => self.world.read(&volume).map(|_| "alive".to_owned()).unwrap(),
            other if other.contains("/dev/shm/count") => self.world.count(&volume).unwrap().to_string(),
            other => panic!("the simulated guest does not know how to {other:?}"),
        }
    }

    async fn kill(&self, guest: &Guest) {
        self.world.kill_guest(&guest.volume);
    }
}

/// And another region beside its world.
struct TwoRegions {
    bench: Bench,
    other: SimVolumes,
    other_world: Arc<SimWorld>,
}

impl TwoRegions {
    fn beside(bench: Bench) -> Self {
        let other_world = SimWorld::new();
        SimWorld::join(&[bench.world.clone(), other_world.clone()]);
        Self { bench, other: SimVolumes::new(other_world.clone()), other_world }
    }

    fn slow() -> Self {
        let regions = Self::beside(Bench::slow());
        for operation in [Operation::VolumeEnsure, Operation::SnapshotCopy] {
            regions.other_world.fault_always(operation, Fault::Pending(2));
        }
        regions
    }
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
        &self.bench.volumes
    }
    fn other_volumes(&self) -> &dyn VolumeProvider {
        &self.other
    }
    fn other_copier(&self) -> &dyn SnapshotCopier {
        &self.other
    }
}

mod at_once {
    use super::{Bench, TwoRegions};

    mod copies {
        use super::{Bench, TwoRegions};
        boxpool_sim::copier_conformance!(virtual TwoRegions::beside(Bench::new()));
    }

    mod instances {
        use super::Bench;
        boxpool_sim::instance_conformance!(Bench::new());
    }

    mod volumes {
        use super::Bench;
        boxpool_sim::volume_conformance!(Bench::new(), remembers_epochs, snapshots);
    }

    mod volumes_that_forget_epochs {
        use super::Bench;
        boxpool_sim::volume_conformance!(Bench::forgetful(), snapshots);
    }

    mod runtime {
        use super::Bench;
        boxpool_sim::runtime_conformance!(Bench::new());
    }
}

mod slowly {
    use super::{Bench, TwoRegions};

    mod copies {
        use super::TwoRegions;
        boxpool_sim::copier_conformance!(virtual TwoRegions::slow());
    }

    mod instances {
        use super::Bench;
        boxpool_sim::instance_conformance!(Bench::slow());
    }

    mod volumes {
        use super::Bench;
        boxpool_sim::volume_conformance!(Bench::slow(), remembers_epochs, snapshots);
    }

    mod runtime {
        use super::Bench;
        boxpool_sim::runtime_conformance!(Bench::slow());
    }
}
