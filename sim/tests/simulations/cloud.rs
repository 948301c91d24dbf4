//! The simulated cloud keeps every promise of the suites, in virtual time, and says clearly how it must not be used.

use async_trait::async_trait;
use boxpool::{
    BoxRef, Cursor, Endpoint, EndpointAddress, Entry, Guest, GuestRuntime, InstanceId, InstanceProvider, Key, Page,
    Result, StateStore, Stored, Table, Version, VolumeId, VolumeProvider, VolumeSource,
};
use boxpool_sim::conformance::{InstanceBench, RuntimeBench, VolumeBench};
use boxpool_sim::{Gateway, Misuse, Pace, SimCloud, golden};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct Bench {
    cloud: SimCloud,
    instances: Arc<dyn InstanceProvider>,
    volumes: Arc<dyn VolumeProvider>,
    runtime: Arc<dyn GuestRuntime>,
    fresh: AtomicUsize,
    /// What each guest was told to write to its file: the cloud itself keeps lines, not files.
    files: Mutex<BTreeMap<String, String>>,
}

impl Bench {
    fn new(pace: Pace, forgets_epochs: bool) -> Self {
        let cloud = SimCloud::builder().seed(1).pace(pace).forgets_epochs(forgets_epochs).build().unwrap();
        let gateway: Gateway = cloud.gateway().unwrap();
        Self {
            instances: gateway.instances(),
            volumes: gateway.volumes(),
            runtime: gateway.runtime(),
            cloud,
            fresh: AtomicUsize::new(0),
            files: Mutex::default(),
        }
    }

    fn next(&self, kind: &str) -> String {
        format!("{kind}{}", self.fresh.fetch_add(1, Ordering::Relaxed))
    }

    fn owner(&self, endpoint: &Endpoint) -> BoxRef {
        let EndpointAddress::Unix(path) = &endpoint.address else { panic!("{endpoint:?}") };
        let volume = VolumeId::new(path.file_name().unwrap().to_str().unwrap()).unwrap();
        self.cloud.guest_on(&volume).unwrap()
    }
}

#[async_trait]
impl InstanceBench for Bench {
    fn instances(&self) -> &dyn InstanceProvider {
        &*self.instances
    }

    fn fresh_instance(&self) -> InstanceId {
        InstanceId::new(self.next("i")).unwrap()
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn volumes(&self) -> &dyn VolumeProvider {
        &*self.volumes
    }

    fn fresh_volume(&self) -> VolumeId {
        VolumeId::new(self.next("v")).unwrap()
    }

    fn source(&self) -> VolumeSource {
        VolumeSource::Snapshot(golden())
    }
}

#[async_trait]
impl RuntimeBench for Bench {
    fn runtime(&self) -> &dyn GuestRuntime {
        &*self.runtime
    }

    /// Understands as much shell as the suite speaks: one file on the disk, one counter in memory.
    async fn run(&self, endpoint: &Endpoint, command: &str) -> String {
        let owner = self.owner(endpoint);
        if let Some((line, _)) = command.strip_prefix("echo ").and_then(|rest| rest.split_once(" > ~/file")) {
            self.cloud.write(&owner, line).unwrap();
            self.files.lock().unwrap().insert(owner.id.to_string(), line.to_owned());
            return String::new();
        }
        match command {
            // The oracle itself sees to it that the line is on the disk whenever the guest comes up.
            "cat ~/file" => self.files.lock().unwrap()[owner.id.as_str()].clone(),
            "echo alive" => self.cloud.count(&owner).map(|_| "alive".to_owned()).unwrap(),
            other if other.contains("/dev/shm/count") => self.cloud.count(&owner).unwrap().to_string(),
            other => panic!("the simulated guest does not know how to {other:?}"),
        }
    }

    async fn kill(&self, guest: &Guest) {
        self.cloud.kill_guest(&guest.owner);
    }
}

mod as_a_host {
    use super::{Bench, Pace};

    mod instances {
        use super::{Bench, Pace};
        boxpool_sim::instance_conformance!(virtual Bench::new(Pace::Host, false));
    }
    mod volumes {
        use super::{Bench, Pace};
        boxpool_sim::volume_conformance!(virtual Bench::new(Pace::Host, false), remembers_epochs, snapshots);
    }
    mod runtime {
        use super::{Bench, Pace};
        boxpool_sim::runtime_conformance!(virtual Bench::new(Pace::Host, false));
    }
}

mod as_a_cloud {
    use super::{Bench, Pace};

    mod instances {
        use super::{Bench, Pace};
        boxpool_sim::instance_conformance!(virtual Bench::new(Pace::Cloud, true));
    }
    mod volumes {
        use super::{Bench, Pace};
        boxpool_sim::volume_conformance!(virtual Bench::new(Pace::Cloud, true), snapshots);
    }
    mod runtime {
        use super::{Bench, Pace};
        boxpool_sim::runtime_conformance!(virtual Bench::new(Pace::Cloud, true));
    }
}

/// A store, and the world that it lives in.
struct Records {
    store: Arc<dyn StateStore>,
    _cloud: SimCloud,
}

impl Records {
    fn new() -> Self {
        let cloud = SimCloud::builder().build().unwrap();
        Self { store: cloud.gateway().unwrap().store(), _cloud: cloud }
    }
}

#[async_trait]
impl StateStore for Records {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        self.store.get(key).await
    }
    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.store.insert(key, value).await
    }
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.store.update(key, version, value).await
    }
    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.store.delete(key, version).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: Option<&str>,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Entry>> {
        self.store.scan(table, partition, cursor, limit).await
    }
}

mod store {
    use super::Records;
    boxpool_sim::store_conformance!(virtual Records::new());
}

#[test]
fn a_world_outside_a_runtime_is_refused() {
    assert_eq!(SimCloud::builder().build().unwrap_err(), Misuse::NoRuntime);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_world_in_many_threads_is_refused() {
    assert_eq!(SimCloud::builder().build().unwrap_err(), Misuse::ManyThreads);
}

#[tokio::test]
async fn a_world_in_real_time_is_refused() {
    assert_eq!(SimCloud::builder().build().unwrap_err(), Misuse::RealTime);
}

#[tokio::test(start_paused = true)]
async fn real_time_that_leaks_in_later_is_noticed() {
    let cloud = SimCloud::builder().build().unwrap();
    tokio::time::resume();
    assert_eq!(cloud.advance(Duration::from_secs(1)).await, Err(Misuse::RealTime));
}

#[tokio::test(start_paused = true)]
async fn two_worlds_in_one_runtime_are_refused_and_one_after_the_other_is_fine() {
    let first = SimCloud::builder().build().unwrap();
    let error = SimCloud::builder().build().unwrap_err();
    assert_eq!(error, Misuse::TwoWorlds);
    assert!(error.to_string().contains("drop it first"), "{error}");
    drop(first);
    SimCloud::builder().build().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_finished_world_goes_no_further() {
    let cloud = SimCloud::builder().build().unwrap();
    let gateway = cloud.gateway().unwrap();
    cloud.finish();
    assert_eq!(cloud.advance(Duration::from_secs(1)).await, Err(Misuse::Finished));
    assert_eq!(cloud.gateway().unwrap_err(), Misuse::Finished);
    let call = tokio::time::timeout(Duration::from_secs(60), async move { gateway.instances().list(None).await });
    assert!(call.await.is_err(), "nobody answers any more");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_was_cannot_be_started_again() {
    let cloud = SimCloud::builder().build().unwrap();
    assert_eq!(cloud.restart_gateway(3).unwrap_err(), Misuse::DeadGateway(3));
}
