//! What a connect costs: requests to Resource Manager, and writes to the store on the user's way. Against the simulated Resource
//! Manager, whose log counts, and the real emulator of the tables behind a proxy that counts.

use crate::arm::options;
use crate::until::{until, until_true};
use async_trait::async_trait;
use boxpool::record::{BOXES, EVENTS, GOLDENS, INSTANCES, LEASES, NODES, SNAPSHOTS, VOLUMES};
use boxpool::{
    BoxName, Cleared, ConnectRequest, Endpoint, EndpointAddress, Guest, GuestRuntime, GuestStatus, InstanceId, Pool,
    PoolConfig, Result, Started, StartedBy, Suspended, UserId, VolumeId, VolumeSource, WarmTarget,
};
use boxpool_azure::{AzureCloud, TableStore};
use boxpool_sim::arm::{ArmServer, Logged};
use boxpool_sim::backend::{CountingStore, StoreAccess, StoreCall};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Guests that are there at once and cost no request. Remembers how much had been asked of the store when one was started.
struct Guests {
    running: Mutex<BTreeSet<(InstanceId, VolumeId)>>,
    store: Arc<CountingStore<TableStore>>,
    started_at: Mutex<usize>,
}

fn endpoint() -> Endpoint {
    Endpoint { address: EndpointAddress::Unix("/none".into()), login: "box".into(), host_key: String::new() }
}

#[async_trait]
impl GuestRuntime for Guests {
    async fn start(&self, guest: &Guest) -> Result<Started> {
        *self.started_at.lock().unwrap() = self.store.mark();
        let new = self.running.lock().unwrap().insert((guest.instance.clone(), guest.volume.clone()));
        Ok(Started { endpoint: endpoint(), by: if new { StartedBy::Resume } else { StartedBy::Adoption } })
    }
    async fn suspend(&self, guest: &Guest) -> Result<Suspended> {
        let ran = self.running.lock().unwrap().remove(&(guest.instance.clone(), guest.volume.clone()));
        Ok(if ran { Suspended::Saved } else { Suspended::NotRunning })
    }
    async fn stop(&self, guest: &Guest) -> Result<()> {
        self.suspend(guest).await.map(drop)
    }
    async fn shut_down(&self, guest: &Guest, _: Duration) -> Result<()> {
        self.suspend(guest).await.map(drop)
    }
    async fn status(&self, guest: &Guest) -> Result<GuestStatus> {
        let runs = self.running.lock().unwrap().contains(&(guest.instance.clone(), guest.volume.clone()));
        Ok(if runs { GuestStatus::Running(endpoint()) } else { GuestStatus::NotRunning })
    }
    async fn clear(&self, _: &InstanceId) -> Result<Cleared> {
        Ok(Cleared::Clean)
    }
}

/// Long enough that nothing happens beside what the test does.
fn quiet() -> PoolConfig {
    let hour = Duration::from_secs(3_600);
    let mut config = PoolConfig::new(VolumeSource::Empty { bytes: 1 << 30 }, "1");
    config.instances = WarmTarget::new(1, 1, 1);
    config.volumes = WarmTarget::new(1, 1, 10);
    config.linger = Duration::from_millis(1);
    config.park_limit = hour;
    config
}

fn of_boxes(calls: &[StoreCall]) -> Vec<StoreCall> {
    // Heartbeats and events are not on the user's way.
    calls.iter().filter(|call| [BOXES, INSTANCES, VOLUMES].contains(&call.table)).copied().collect()
}

fn writes(calls: &[StoreCall]) -> usize {
    let is_read = |call: &&StoreCall| matches!(call.access, StoreAccess::Get | StoreAccess::Scan);
    calls.iter().filter(|call| !is_read(call)).count()
}

/// The writes to the same tables that came to the emulator, by the first lines of all requests.
fn sent_writes(lines: &[String], prefix: &str) -> Vec<String> {
    let tables = [BOXES, INSTANCES, VOLUMES].map(|table| format!("/{prefix}{}", table.as_str()));
    let is_write =
        |line: &&String| !line.starts_with("GET") && tables.iter().any(|table| line.contains(table.as_str()));
    lines.iter().filter(is_write).cloned().collect()
}

fn is_list(request: &Logged) -> bool {
    let path = request.path.trim_end_matches('/');
    request.method == "GET" && ["virtualMachines", "disks", "snapshots"].iter().any(|kind| path.ends_with(kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_connect_costs_one_attach_and_three_writes_and_a_parked_one_costs_one_write_and_no_request() {
    let service = ArmServer::builder().seed(3).time_scale(0.01).start().await.unwrap();
    let cloud = Arc::new(AzureCloud::open(options(&service.url())).unwrap());
    let mut tables = crate::azurite::fresh_options();
    let before_tables = crate::proxy::Proxy::before(crate::azurite::shared().port);
    tables.endpoint = format!("http://127.0.0.1:{}/devstoreaccount1", before_tables.port);
    let tables_store = TableStore::open(&tables).unwrap();
    tables_store.make_tables(&[BOXES, VOLUMES, INSTANCES, GOLDENS, SNAPSHOTS, NODES, LEASES, EVENTS]).await.unwrap();
    let store = Arc::new(CountingStore::new(Arc::new(tables_store)));
    let guests = Arc::new(Guests { running: Mutex::default(), store: store.clone(), started_at: Mutex::default() });
    let (pool, worker) =
        Pool::builder(store.clone(), cloud.clone(), cloud, guests.clone(), quiet()).build().await.unwrap();
    let worker = tokio::spawn(worker.run());
    let (user, name) = (UserId::new("u").unwrap(), BoxName::new("dev1").unwrap());
    pool.create_box(&user, &name).await.unwrap();
    // Then the stock is full, and nobody writes but for the user.
    until_true("the stock is full", || (pool.status().free_instances, pool.status().free_volumes) == (1, 1)).await;

    service.forget_requests();
    before_tables.forget();
    let mark = store.mark();
    let session = pool.connect(ConnectRequest::new(user.clone(), name.clone())).await.unwrap();
    // The third write says where the box runs, and is made beside the user's way into it.
    let written = async || {
        let calls = of_boxes(&store.calls_since(mark));
        let sent = sent_writes(&before_tables.requests(), &tables.prefix);
        (writes(&calls) >= 3 && sent.len() >= 3).then_some((calls, sent))
    };
    let (calls, sent) = until("three writes", written).await;
    assert_eq!(sent.len(), 3, "each write is one request: {sent:?}");
    let requests = service.requests();
    let attaches = requests.iter().filter(|request| request.path.contains("attachDetachDataDisks")).count();
    let others: Vec<_> = requests.iter().filter(|request| request.method != "GET").map(|r| &r.path).collect();
    assert_eq!((attaches, others.len()), (1, 1), "one attach, and nothing else is changed: {others:?}");
    assert!(!requests.iter().any(is_list), "{requests:?}");
    assert_eq!(writes(&calls), 3, "{calls:?}");
    println!("a cold connect: {} requests, {} of them looks", requests.len(), requests.len() - 1);

    session.release().await;
    let parked = async || (pool.list_boxes(&user).await.unwrap()[0].placement.word() == "parked").then_some(());
    until("it is parked", parked).await;
    service.forget_requests();
    before_tables.forget();
    let mark = store.mark();
    let session = pool.connect(ConnectRequest::new(user, name)).await.unwrap();
    assert_eq!(service.requests(), [], "Resource Manager was not asked");
    // Another one, made beside the user's way into the box, says that it runs.
    let until_started = *guests.started_at.lock().unwrap() - mark;
    let calls = of_boxes(&store.calls_since(mark)[..until_started]);
    assert_eq!(writes(&calls), 1, "{calls:?}");
    let sent = sent_writes(&before_tables.requests(), &tables.prefix);
    assert!((1..=2).contains(&sent.len()), "that one, and the one beside: {sent:?}");
    drop(session);
    worker.abort();
}
