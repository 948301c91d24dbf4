//! Faults happen where the script says, and what must never be true is noticed.

use boxpool::{
    Attach, Attached, BoxId, BoxName, BoxRef, Cleared, Detached, Effect, Epoch, ErrorKind, Guest, GuestRuntime,
    GuestStatus, InstanceId, InstanceProvider, InstanceSpec, InstanceState, Key, MemoryStore, StateStore, Table,
    UserId, VolumeId, VolumeProvider, VolumeSource, VolumeSpec,
};
use boxpool_sim::backend::{
    CountingStore, Fault, FaultStore, Operation, SimInstances, SimRuntime, SimVolumes, SimWorld, StoreAccess,
    StoreCall, WriteFault,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

struct Cloud {
    world: Arc<SimWorld>,
    instances: SimInstances,
    volumes: SimVolumes,
    runtime: SimRuntime,
}

fn cloud() -> Cloud {
    let world = SimWorld::new();
    Cloud {
        instances: SimInstances::new(world.clone()),
        volumes: SimVolumes::new(world.clone()),
        runtime: SimRuntime::new(world.clone()),
        world,
    }
}

fn instance(id: &str) -> InstanceId {
    InstanceId::new(id).unwrap()
}

fn volume(id: &str) -> VolumeId {
    VolumeId::new(id).unwrap()
}

fn owner(name: &str) -> BoxRef {
    BoxRef { owner: UserId::new("u").unwrap(), name: BoxName::new(name).unwrap(), id: BoxId::new(name).unwrap() }
}

impl Cloud {
    async fn make(&self, on: &str, disk: &str) -> Attach {
        self.instances.ensure(&InstanceSpec::new(instance(on), "g")).await.unwrap();
        let source = VolumeSource::Empty { bytes: 1 };
        self.volumes.ensure(&VolumeSpec::new(volume(disk), source)).await.unwrap();
        Attach::new(volume(disk), instance(on), Epoch(1))
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_has_no_effect_and_only_the_named_call_is_refused() {
    let cloud = cloud();
    cloud.world.fault_at(Operation::InstanceEnsure, 2, Fault::Refuse(ErrorKind::NoCapacity));
    let ensure = async |id: &str| cloud.instances.ensure(&InstanceSpec::new(instance(id), "g")).await;

    assert!(ensure("a").await.is_ok());
    let refused = ensure("b").await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::NoCapacity, Effect::None));
    assert_eq!(cloud.instances.get(&instance("b")).await.unwrap(), None);
    assert!(ensure("b").await.is_ok());
    assert_eq!(cloud.world.calls(Operation::InstanceEnsure), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_the_effect() {
    let cloud = cloud();
    let attach = cloud.make("i", "v").await;
    cloud.world.fault_next(Operation::Attach, Fault::LoseAnswer);

    let lost = cloud.volumes.attach(&attach).await.unwrap_err();

    assert_eq!((lost.kind(), lost.effect()), (ErrorKind::UnknownOutcome, Effect::Unknown));
    assert_eq!(cloud.world.attached_to(&attach.volume), Some(attach.instance));
}

#[tokio::test(start_paused = true)]
async fn a_pending_attach_and_detach_take_as_many_polls_as_the_script_says() {
    let cloud = cloud();
    let attach = cloud.make("i", "v").await;
    cloud.world.fault_at(Operation::Attach, 1, Fault::Pending(2));
    cloud.world.fault_at(Operation::Detach, 1, Fault::Pending(1));
    for _ in 0..3 {
        assert_eq!(cloud.volumes.attach(&attach).await.unwrap(), Attached::Pending);
    }
    assert!(matches!(cloud.volumes.attach(&attach).await.unwrap(), Attached::Yes(_)));
    for _ in 0..2 {
        assert_eq!(cloud.volumes.detach(&attach).await.unwrap(), Detached::Pending);
    }
    assert_eq!(cloud.volumes.detach(&attach).await.unwrap(), Detached::Yes);
}

#[tokio::test(start_paused = true)]
async fn a_latency_or_a_hang_passes_in_virtual_time() {
    let cloud = cloud();
    cloud.world.latency_ms(Operation::InstanceEnsure, 43_000);
    cloud.world.fault_next(Operation::InstanceGet, Fault::HangAfter(Duration::from_secs(600)));
    let began = Instant::now();
    cloud.make("i", "v").await;
    assert_eq!(began.elapsed(), Duration::from_secs(43));
    assert!(timeout(Duration::from_secs(60), cloud.instances.get(&instance("i"))).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_instances_is_no_capacity_and_a_stopped_one_gives_room() {
    let cloud = cloud();
    cloud.world.limit(|limits| limits.instances_max = Some(1));
    let ensure = async |id: &str| cloud.instances.ensure(&InstanceSpec::new(instance(id), "g")).await;
    ensure("a").await.unwrap();
    assert_eq!(ensure("b").await.unwrap_err().kind(), ErrorKind::NoCapacity);
    cloud.instances.stop(&instance("a")).await.unwrap();
    assert_eq!(ensure("b").await.unwrap().state, InstanceState::Running);
    assert_eq!(cloud.instances.start(&instance("a")).await.unwrap_err().kind(), ErrorKind::NoCapacity);
}

#[tokio::test(start_paused = true)]
async fn a_hung_guest_is_unresponsive_until_it_is_stopped() {
    let cloud = cloud();
    let attach = cloud.make("i", "v").await;
    cloud.volumes.attach(&attach).await.unwrap();
    let guest = Guest::new(attach.instance, attach.volume.clone(), owner("a"), Epoch(1));
    cloud.runtime.start(&guest).await.unwrap();
    cloud.world.hang_guest(&attach.volume, true);

    assert!(matches!(cloud.runtime.status(&guest).await.unwrap(), GuestStatus::Unresponsive(_)));
    assert_eq!(cloud.runtime.suspend(&guest).await.unwrap_err().kind(), ErrorKind::TimedOut);
    cloud.runtime.stop(&guest).await.unwrap();
    assert_eq!(cloud.runtime.status(&guest).await.unwrap(), GuestStatus::NotRunning);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_dies_takes_its_guest_and_leaves_its_volume() {
    let cloud = cloud();
    let attach = cloud.make("i", "v").await;
    cloud.volumes.attach(&attach).await.unwrap();
    let guest = Guest::new(attach.instance.clone(), attach.volume.clone(), owner("a"), Epoch(1));
    cloud.runtime.start(&guest).await.unwrap();
    cloud.world.write(&attach.volume, "line").unwrap();

    cloud.world.kill_instance(&attach.instance);

    assert_eq!(cloud.instances.get(&attach.instance).await.unwrap(), None);
    assert_eq!(cloud.world.guests_running(), 0);
    let elsewhere = cloud.make("j", "v").await;
    cloud.volumes.attach(&elsewhere).await.unwrap();
    let guest = Guest::new(elsewhere.instance, elsewhere.volume.clone(), owner("a"), Epoch(2));
    cloud.runtime.start(&guest).await.unwrap();
    assert_eq!(cloud.world.read(&elsewhere.volume).unwrap(), ["line"]);
    assert_eq!(cloud.world.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_box_on_an_instance_that_was_not_cleared_is_a_violation() {
    for cleared in [true, false] {
        let cloud = cloud();
        for (disk, name) in [("v1", "a"), ("v2", "b")] {
            let attach = cloud.make("i", disk).await;
            cloud.volumes.attach(&attach).await.unwrap();
            let guest = Guest::new(attach.instance.clone(), attach.volume.clone(), owner(name), Epoch(1));
            cloud.runtime.start(&guest).await.unwrap();
            cloud.runtime.suspend(&guest).await.unwrap();
            cloud.volumes.detach(&attach).await.unwrap();
            if cleared {
                assert_eq!(cloud.runtime.clear(&attach.instance).await.unwrap(), Cleared::Clean);
            }
        }
        assert_eq!(cloud.world.violations().is_empty(), cleared, "{:?}", cloud.world.violations());
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_started_for_another_box_is_a_violation() {
    let cloud = cloud();
    let attach = cloud.make("i", "v").await;
    cloud.volumes.attach(&attach).await.unwrap();
    for name in ["a", "b"] {
        let guest = Guest::new(attach.instance.clone(), attach.volume.clone(), owner(name), Epoch(1));
        cloud.runtime.start(&guest).await.unwrap();
        cloud.runtime.suspend(&guest).await.unwrap();
        cloud.runtime.clear(&attach.instance).await.unwrap();
    }
    assert!(cloud.world.violations().iter().any(|what| what.starts_with("I3")), "{:?}", cloud.world.violations());
}

const TABLE: Table = Table::new("things");

#[tokio::test(start_paused = true)]
async fn a_fault_store_fails_the_named_write_before_or_after_it_is_done() {
    let store = FaultStore::new(Arc::new(MemoryStore::new()));
    let key = |row: &str| Key::new(TABLE, "p", row);
    store.fault_in(1, WriteFault::Refuse(ErrorKind::Unavailable));
    store.fault_in(2, WriteFault::LoseAnswer);
    store.fault_in(3, WriteFault::HangBefore);
    store.fault_in(4, WriteFault::HangAfter);

    assert_eq!(store.insert(&key("1"), "x").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.insert(&key("2"), "x").await.unwrap_err().effect(), Effect::Unknown);
    assert!(timeout(Duration::from_secs(9), store.insert(&key("3"), "x")).await.is_err());
    assert!(timeout(Duration::from_secs(9), store.insert(&key("4"), "x")).await.is_err());
    store.insert(&key("5"), "x").await.unwrap();

    for (row, done) in [("1", false), ("2", true), ("3", false), ("4", true), ("5", true)] {
        assert_eq!(store.get(&key(row)).await.unwrap().is_some(), done, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_everything_until_it_ends() {
    let store = FaultStore::new(Arc::new(MemoryStore::new()));
    let key = Key::new(TABLE, "p", "r");
    store.outage(true);
    assert_eq!(store.insert(&key, "x").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.get(&key).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.scan(TABLE, None, None, 1).await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.heal();
    assert_eq!(store.get(&key).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_counting_store_notes_every_call_in_order() {
    let store = CountingStore::new(Arc::new(FaultStore::new(Arc::new(MemoryStore::new()))));
    let key = Key::new(TABLE, "p", "r");
    let version = store.insert(&key, "x").await.unwrap();
    let mark = store.mark();
    store.get(&key).await.unwrap();
    store.update(&key, &version, "y").await.unwrap();

    let expected = [StoreAccess::Get, StoreAccess::Update].map(|access| StoreCall { access, table: TABLE });
    assert_eq!(store.calls_since(mark), expected);
    assert_eq!((store.counts_since(mark).writes(), store.counts().writes()), (1, 2));
}
