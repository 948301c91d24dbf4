//! One client keeps its connections: requests one after another share them.

use crate::arm::options;
use crate::until::until;
use boxpool::{InstanceId, InstanceProvider, InstanceSpec, InstanceState, Key, StateStore, Table};
use boxpool_azure::{AzureCloud, TableStore};
use boxpool_sim::arm::ArmServer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};

/// For eight requests or more, one after another. On a busy machine the next one may come just before the connection of the last one is
/// free again, and not only once.
const MOST: usize = 4;

/// Stands before a service and counts who connects.
struct Door {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Door {
    async fn before(service: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let door = Self { address: listener.local_addr().unwrap(), connections: Arc::default() };
        let connections = door.connections.clone();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(service).await.unwrap();
                    for stream in [&caller, &there] {
                        stream.set_nodelay(true).unwrap();
                    }
                    // It ends when either side goes.
                    let _ = tokio::io::copy_bidirectional(&mut caller, &mut there).await;
                });
            }
        });
        door
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_made_and_deleted_over_connections_that_are_kept() {
    let service = ArmServer::builder().time_scale(0.002).page_size(2).start().await.unwrap();
    let door = Door::before(service.address()).await;
    let mut options = options(&format!("http://{}", door.address));
    options.budgets = true;
    let cloud = AzureCloud::open(options).unwrap();
    let id = InstanceId::new("i1").unwrap();

    let spec = InstanceSpec::new(id.clone(), "1");
    let runs = async || (cloud.ensure(&spec).await.unwrap().state == InstanceState::Running).then_some(());
    until("the machine runs", runs).await;
    assert_eq!(cloud.list(None).await.unwrap().items.len(), 1);
    let gone = async || {
        cloud.delete(&id).await.unwrap();
        cloud.get(&id).await.unwrap().is_none().then_some(())
    };
    until("the machine is gone", gone).await;

    let requests = service.requests().len();
    assert!(requests >= 8, "{requests} requests");
    assert!(door.connections() <= MOST, "{} connections for {requests} requests", door.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_and_written_over_connections_that_are_kept() {
    const THINGS: Table = Table::new("things");
    let mut options = crate::azurite::fresh_options();
    let door = Door::before(SocketAddr::from(([127, 0, 0, 1], crate::azurite::shared().port))).await;
    options.endpoint = format!("http://{}/devstoreaccount1", door.address);
    let store = TableStore::open(&options).unwrap();
    for n in 0..10 {
        let key = Key::new(THINGS, "p", n.to_string());
        let version = store.insert(&key, "1").await.unwrap();
        let version = store.update(&key, &version, "2").await.unwrap();
        assert_eq!(store.get(&key).await.unwrap().unwrap().version, version);
    }
    assert_eq!(store.scan(THINGS, None, None, 100).await.unwrap().items.len(), 10);
    assert!(door.connections() <= MOST, "{} connections for 31 requests", door.connections());
}
