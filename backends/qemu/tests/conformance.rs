//! The QEMU backend keeps every promise of instances, volumes and runtime, with real guests.

#![allow(clippy::unwrap_used)]

mod guests;
mod sshd;

use async_trait::async_trait;
use boxpool::{Endpoint, Guest, GuestRuntime, InstanceId, InstanceProvider, VolumeId, VolumeProvider, VolumeSource};
use boxpool_sim::conformance::{InstanceBench, RuntimeBench, VolumeBench};
use guests::Bench;
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(1_000);

#[async_trait]
impl InstanceBench for Bench {
    fn instances(&self) -> &dyn InstanceProvider {
        &self.qemu
    }
    fn fresh_instance(&self) -> InstanceId {
        InstanceId::new(format!("i{:05}-c", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn volumes(&self) -> &dyn VolumeProvider {
        &self.qemu
    }
    fn fresh_volume(&self) -> VolumeId {
        VolumeId::new(format!("v-{:016x}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
    fn source(&self) -> VolumeSource {
        VolumeSource::Snapshot(self.golden.clone())
    }
}

#[async_trait]
impl RuntimeBench for Bench {
    fn runtime(&self) -> &dyn GuestRuntime {
        &self.qemu
    }
    async fn run(&self, endpoint: &Endpoint, command: &str) -> String {
        tokio::task::block_in_place(|| self.ssh(endpoint, command))
    }
    async fn kill(&self, guest: &Guest) {
        Bench::kill(self, &guest.volume);
        while self.pid(&guest.volume).is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

mod instances {
    use super::*;
    boxpool_sim::instance_conformance!(Bench::new().await);
}

mod volumes {
    use super::*;
    boxpool_sim::volume_conformance!(Bench::new().await, remembers_epochs, snapshots);
}

mod runtime {
    use super::*;
    boxpool_sim::runtime_conformance!(Bench::new().await);
}

/// The same machine, reached by SSH as another one would be.
struct OverSsh {
    bench: Bench,
    _sshd: sshd::Sshd,
}

impl OverSsh {
    async fn new() -> Self {
        let mut bench = Bench::new().await;
        let sshd = sshd::Sshd::start();
        bench.qemu = boxpool_qemu::LocalQemu::open_on(std::sync::Arc::new(sshd.host()), bench.options()).await.unwrap();
        Self { bench, _sshd: sshd }
    }
}

#[async_trait]
impl InstanceBench for OverSsh {
    fn instances(&self) -> &dyn InstanceProvider {
        self.bench.instances()
    }
    fn fresh_instance(&self) -> InstanceId {
        self.bench.fresh_instance()
    }
}

#[async_trait]
impl VolumeBench for OverSsh {
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
impl RuntimeBench for OverSsh {
    fn runtime(&self) -> &dyn GuestRuntime {
        self.bench.runtime()
    }
    async fn run(&self, endpoint: &Endpoint, command: &str) -> String {
        self.bench.run(endpoint, command).await
    }
    async fn kill(&self, guest: &Guest) {
        RuntimeBench::kill(&self.bench, guest).await;
    }
}

mod runtime_over_ssh {
    use super::*;
    boxpool_sim::runtime_conformance!(OverSsh::new().await);
}
