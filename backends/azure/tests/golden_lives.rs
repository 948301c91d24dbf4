//! The golden snapshot and its image, built on machines that are real OpenSSH servers behind the simulated Resource Manager, by
//! nodes that die after each of its changes. Needs root, for mounts.

#![allow(clippy::unwrap_used, clippy::duplicate_mod)]

mod until;
#[path = "../../qemu/tests/vm/mod.rs"]
mod vm;

use async_trait::async_trait;
use boxpool::{
    Adoption, Cleared, GoldenBuilder, Guest, GuestRuntime, GuestStatus, InstanceId, InstanceProvider, InstanceSpec,
    InstanceState, MemoryStore, Pool, PoolConfig, Result, Started, Suspended, SystemClock, VolumeSource, WarmTarget,
};
use boxpool_azure::{
    AzureCloud, AzureGolden, AzureHosts, CloudOptions, CredentialChoice, HostAccess, Prepare, Proxy, Secret,
};
use boxpool_qemu::Host;
use boxpool_sim::arm::{ArmFate, ArmServer, ArmStrike, Filling, Kind, Logged, MachineFacts, Machines};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use until::until;
use vm::Vm;

const SOON: Duration = Duration::from_secs(60);
/// Does of the real one what concerns this machine alone.
const GENERALIZE: &str =
    "cd /var/lib/boxpool; printf '#!/bin/sh\\nrm -f ready generalize\\n' >generalize; chmod 700 generalize";

/// The machines behind the simulated ones. They are ready when they are told to be.
struct Iron {
    port: u16,
    says_ready: bool,
    machines: Mutex<BTreeMap<String, (Option<Vm>, MachineFacts)>>,
}

impl Iron {
    fn new(says_ready: bool) -> Arc<Self> {
        Arc::new(Self { port: vm::free_port(), says_ready, machines: Mutex::default() })
    }

    fn run(&self, name: &str, command: &str) {
        self.machines.lock().unwrap()[name].0.as_ref().unwrap().run(&["sh", "-c", command]);
    }
}

#[async_trait]
impl Machines for Iron {
    async fn create(&self, machine: &MachineFacts) -> Result<Ipv4Addr, String> {
        let address = SocketAddr::new(vm::next_address(), self.port);
        let text = String::from_utf8(machine.custom_data.clone()).unwrap();
        let key = text.split_once("ed25519_private: |\n").unwrap().1.split_once("  ed25519_public").unwrap().0;
        let key: String = key.lines().map(|line| format!("{}\n", line.trim_start())).collect();
        let vm = tokio::task::block_in_place(|| {
            let vm = Vm::start(address, &machine.ssh_keys.join("\n"), Some(&key));
            vm.run(&["sh", "-c", GENERALIZE]);
            if self.says_ready {
                vm.run(&["touch", "/var/lib/boxpool/ready"]);
            }
            vm
        });
        self.machines.lock().unwrap().insert(machine.name.clone(), (Some(vm), machine.clone()));
        let IpAddr::V4(ip) = address.ip() else { unreachable!("it is made so") };
        Ok(ip)
    }
    async fn start(&self, name: &str) -> Result<(), String> {
        let facts = self.machines.lock().unwrap()[name].1.clone();
        self.create(&facts).await.map(drop)
    }
    async fn stop(&self, name: &str, _: bool) -> Result<(), String> {
        self.machines.lock().unwrap().get_mut(name).unwrap().0 = None;
        Ok(())
    }
    async fn delete(&self, name: &str) -> Result<(), String> {
        self.machines.lock().unwrap().remove(name);
        Ok(())
    }
    async fn plug(&self, _: &str, _: i64, _: &str) -> Result<(), String> {
        Ok(())
    }
    async fn unplug(&self, _: &str, _: i64, _: &str) -> Result<(), String> {
        Ok(())
    }
    async fn fill(&self, _: &str, _: &Filling) -> Result<(), String> {
        Ok(())
    }
    async fn discard(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

/// Fills nothing, and counts how often.
struct Prepared(AtomicU32);

#[async_trait]
impl Prepare for Prepared {
    fn digest(&self) -> &str {
        "edition1"
    }
    async fn prepare(&self, host: Arc<dyn Host>, _: &[PathBuf]) -> Result<()> {
        host.run(boxpool_qemu::Command::new("true")).await?;
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// There are no boxes here.
struct NoGuests;

#[async_trait]
impl GuestRuntime for NoGuests {
    async fn start(&self, _: &Guest) -> Result<Started> {
        unreachable!("there are no boxes")
    }
    async fn suspend(&self, _: &Guest) -> Result<Suspended> {
        unreachable!("there are no boxes")
    }
    async fn stop(&self, _: &Guest) -> Result<()> {
        unreachable!("there are no boxes")
    }
    async fn shut_down(&self, _: &Guest, _: Duration) -> Result<()> {
        unreachable!("there are no boxes")
    }
    async fn status(&self, _: &Guest) -> Result<GuestStatus> {
        unreachable!("there are no boxes")
    }
    async fn clear(&self, _: &InstanceId) -> Result<Cleared> {
        Ok(Cleared::Clean)
    }
}

struct Region {
    arm: ArmServer,
    iron: Arc<Iron>,
    store: Arc<MemoryStore>,
    keys: tempfile::TempDir,
    prepared: Arc<Prepared>,
}

/// One process.
struct Node {
    pool: Pool,
    worker: tokio::task::JoinHandle<()>,
}

impl Region {
    async fn new(says_ready: bool) -> Self {
        let gone = ArmFate::Refuse { status: 404, code: "NotFound".into(), retry_after: None };
        let script =
            vec![ArmStrike { method: "PUT".into(), path_ends: "/virtualMachines/p-later".into(), nth: 1, fate: gone }];
        Self::with(says_ready, script).await
    }

    async fn with(says_ready: bool, script: Vec<ArmStrike>) -> Self {
        let iron = Iron::new(says_ready);
        let server = ArmServer::builder().seed(1).time_scale(0.000_2).machines(iron.clone()).script(script);
        let arm = server.start().await.unwrap();
        let keys = tempfile::tempdir().unwrap();
        vm::make_key(&keys.path().join("key"));
        Self { arm, iron, store: Arc::default(), keys, prepared: Arc::new(Prepared(AtomicU32::new(0))) }
    }

    fn hosts(&self) -> AzureHosts {
        let read = |name: &str| std::fs::read_to_string(self.keys.path().join(name)).unwrap();
        let mut options = CloudOptions::new("0000-1111", "rg", "westeurope", "p");
        options.endpoint = self.arm.url();
        options.credential = CredentialChoice::Fixed(Secret::new("token"));
        options.machines.image = "publisher:offer:sku:latest".into();
        options.machines.subnet =
            "/subscriptions/0000-1111/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/n/subnets/s".into();
        options.machines.ssh_public_key = read("key.pub");
        options.machines.for_boxes = true;
        options.proxy = Proxy::None;
        options.budgets = false;
        let mut access = HostAccess::new(Secret::new(read("key")));
        access.port = self.iron.port;
        AzureHosts::new(AzureCloud::open(options).unwrap(), access)
    }

    async fn node(&self, machines: u32) -> Node {
        let hosts = self.hosts();
        let golden = AzureGolden::new(hosts.clone(), self.prepared.clone(), 1 << 30).unwrap();
        let mut config = PoolConfig::new(VolumeSource::Empty { bytes: 1 << 30 }, "1");
        config.instances = WarmTarget::new(machines, machines, 1);
        config.volumes = WarmTarget::new(0, 0, 1);
        config.heartbeat_every = Duration::from_millis(100);
        config.dead_after = Duration::from_secs(1);
        (config.maintain_every, config.reconcile_every) = (Duration::from_millis(100), Duration::from_millis(100));
        let cloud = Arc::new(hosts.cloud().clone());
        let builder = Pool::builder(self.store.clone(), Arc::new(hosts), cloud, Arc::new(NoGuests), config);
        let (pool, worker) = builder.golden(Arc::new(golden)).build().await.unwrap();
        Node { pool, worker: tokio::spawn(worker.run()) }
    }

    fn changes(&self) -> usize {
        self.arm.requests().iter().filter(|request| request.method != "GET").count()
    }

    async fn until(&self, what: &str, reached: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + SOON;
        while !reached() {
            assert!(tokio::time::Instant::now() < deadline, "{what}: {:?}", self.arm.requests());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// One snapshot and its image, and nothing that they were made with.
    fn assert_built(&self, name: &str) {
        let left = [Kind::Snapshot, Kind::Image, Kind::Vm, Kind::Disk, Kind::Nic].map(|kind| self.arm.names(kind));
        let one = vec![format!("p-{name}")];
        assert_eq!(left, [one.clone(), one, vec![], vec![], vec![]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_builder_may_die_after_each_change_and_another_one_ends_it() {
    let whole = Region::new(true).await;
    let node = whole.node(0).await;
    let name = node.pool.golden(SOON).await.unwrap();
    whole.until("cleared away", || whole.arm.names(Kind::Disk).is_empty()).await;
    whole.assert_built(name.as_str());
    assert_eq!(whole.prepared.0.load(Ordering::Relaxed), 1);
    let changes = whole.changes();
    node.worker.abort();
    println!("a golden snapshot costs {changes} changes");

    for nth in 1..=changes {
        let region = Region::new(true).await;
        let first = region.node(0).await;
        region.until("so many changes", || region.changes() >= nth).await;
        first.worker.abort();
        let second = region.node(0).await;
        let name = second.pool.golden(SOON).await.unwrap_or_else(|error| panic!("after {nth} changes: {error:?}"));
        region.until("cleared away", || region.arm.names(Kind::Disk).is_empty()).await;
        region.assert_built(name.as_str());
        let prepared = region.prepared.0.load(Ordering::Relaxed);
        assert!((1..=2).contains(&prepared), "{prepared} times after {nth} changes");
        second.worker.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn machines_boot_the_image_and_the_published_one_when_it_is_gone() {
    let region = Region::new(true).await;
    let node = region.node(0).await;
    let name = node.pool.golden(SOON).await.unwrap();
    node.worker.abort();

    // Another process, which has built nothing itself.
    let node = region.node(1).await;
    region.until("a machine", || node.pool.status().free_instances == 1).await;
    let booted = || {
        let machines = region.iron.machines.lock().unwrap();
        machines.values().map(|(_, facts)| facts.image.clone()).collect::<Vec<_>>()
    };
    let image = booted()[0].clone().unwrap();
    assert!(image.ends_with(&format!("/images/p-{name}")), "{image}");
    node.worker.abort();

    let hosts = region.hosts();
    let golden = AzureGolden::new(hosts.clone(), region.prepared.clone(), 1 << 30).unwrap();
    assert!(golden.verify(&name).await.unwrap());
    // The service says of the first of these that what it needs is not there.
    let id = InstanceId::new("later").unwrap();
    hosts.ensure(&InstanceSpec::new(id, "1")).await.unwrap();
    let made = || region.iron.machines.lock().unwrap().get("p-later").map(|(_, facts)| facts.image.clone());
    region.until("another machine", || made().is_some()).await;
    assert_eq!(made(), Some(None), "the published image has no id");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_machine_is_running_when_it_has_said_that_it_is_ready() {
    let region = Region::new(false).await;
    let hosts = region.hosts();
    let id = InstanceId::new("i1").unwrap();
    let spec = InstanceSpec::new(id.clone(), "1");
    let cloud = hosts.cloud().clone();
    let runs = async || {
        let seen = hosts.ensure(&spec).await.unwrap().state;
        assert_eq!(seen, InstanceState::Creating);
        let machine = InstanceProvider::get(&cloud, &id).await.unwrap().unwrap();
        (machine.state == InstanceState::Running).then_some(())
    };
    until("the machine runs", runs).await;
    let state = async || InstanceProvider::get(&hosts, &id).await.unwrap().unwrap().state;
    assert_eq!(state().await, InstanceState::Creating, "it runs, and is not ready");
    region.iron.run("p-i1", "touch /var/lib/boxpool/ready");
    assert_eq!(state().await, InstanceState::Running);

    // It is known by the key that its tag pins: whoever else answers at its address is never entered.
    let before = region.hosts();
    {
        let mut machines = region.iron.machines.lock().unwrap();
        let (vm, facts) = machines.get_mut("p-i1").unwrap();
        let address = vm.as_ref().unwrap().address;
        *vm = None;
        let other = tokio::task::block_in_place(|| Vm::start(address, &facts.ssh_keys.join("\n"), None));
        other.run(&["touch", "/var/lib/boxpool/ready"]);
        *vm = Some(other);
    }
    assert_eq!(InstanceProvider::get(&before, &id).await.unwrap().unwrap().state, InstanceState::Creating);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn an_image_that_may_not_be_made_is_done_without() {
    let refused = ArmFate::Refuse { status: 403, code: "AuthorizationFailed".into(), retry_after: None };
    let path_ends = "/images/p-golden-edition1-1".into();
    let script = vec![ArmStrike { method: "PUT".into(), path_ends, nth: 1, fate: refused }];
    let region = Region::with(true, script).await;
    let node = region.node(1).await;
    let name = node.pool.golden(SOON).await.unwrap();
    region.until("a machine", || node.pool.status().free_instances == 1).await;
    assert_eq!(region.arm.names(Kind::Snapshot), [format!("p-{name}")]);
    assert_eq!(region.arm.names(Kind::Image), Vec::<String>::new());
    node.worker.abort();
}

/// What the Resource Manager's portal does: replaces the tags of a machine.
async fn set_tags(region: &Region, machine: &str, tags: serde_json::Value) {
    let path =
        format!("subscriptions/0000-1111/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/{machine}");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let patch = client.patch(format!("{}/{path}?api-version=2024-07-01", region.arm.url())).bearer_auth("x");
    let answer = patch.body(serde_json::json!({ "tags": tags }).to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_machine_that_was_there_is_adopted_and_used_in_place_of_a_new_one() {
    let region = Region::new(true).await;
    let hosts = region.hosts();
    let id = InstanceId::new("theirs").unwrap();
    hosts.ensure(&InstanceSpec::new(id.clone(), "1")).await.unwrap();
    let machine = || region.arm.resource(Kind::Vm, "p-theirs").unwrap();
    region.until("a machine", || machine()["properties"]["provisioningState"] == "Succeeded").await;
    // Nobody's but for the key by which it is known, and not ready for boxes.
    let key = machine()["tags"]["boxpool-host-key"].clone();
    set_tags(&region, "p-theirs", serde_json::json!({ "boxpool-host-key": key })).await;
    region.iron.run("p-theirs", "rm /var/lib/boxpool/ready");

    let hosts = region.hosts();
    let adoption = Adoption::new(region.store.clone(), Arc::new(SystemClock), 7).unwrap();
    assert!(adoption.begin_instance(&id, 1).await.unwrap());
    let node = region.node(1).await;
    hosts.cloud().adopt_instance("p-theirs", "1").await.unwrap();
    let why = hosts.check_ready(&id).await.unwrap_err();
    assert!(why.detail().contains("/var/lib/boxpool/ready"), "{why:?}");
    region.iron.run("p-theirs", "touch /var/lib/boxpool/ready");
    hosts.check_ready(&id).await.unwrap();
    adoption.end_instance(&id, "1").await.unwrap();
    region.until("it is in use", || node.pool.status().free_instances == 1).await;

    node.worker.abort();
    let made = |request: &Logged| request.method == "PUT" && request.path.contains("/virtualMachines/p-i0");
    assert!(!region.arm.requests().iter().any(made), "no other machine was made");
    assert!(region.arm.names(Kind::Vm).contains(&"p-theirs".to_owned()));
}
