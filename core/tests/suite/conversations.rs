//! Exact conversations: which calls connects and leaves make, in which order, with which epochs.

use crate::world;
use async_trait::async_trait;
use boxpool::{
    BoxName, Cleared, ConnectRequest, Device, Epoch, Guest, GuestRuntime, GuestStatus, InstanceId, MemoryStore, Pool,
    Result, Started, StartedBy, Suspended,
};
use mockall::Sequence;
use std::sync::Arc;
use std::time::Duration;
use world::{World, config, endpoint, user};

mockall::mock! {
    Runtime {}
    #[async_trait]
    impl GuestRuntime for Runtime {
        async fn start(&self, guest: &Guest) -> Result<Started>;
        async fn suspend(&self, guest: &Guest) -> Result<Suspended>;
        async fn stop(&self, guest: &Guest) -> Result<()>;
        async fn shut_down(&self, guest: &Guest, within: Duration) -> Result<()>;
        async fn status(&self, guest: &Guest) -> Result<GuestStatus>;
        async fn clear(&self, instance: &InstanceId) -> Result<Cleared>;
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_is_attach_start_suspend_and_a_return_is_start_alone() {
    let mut order = Sequence::new();
    let mut runtime = MockRuntime::new();
    // Background: stock is looked at before it is free. Not part of the conversation.
    runtime.expect_clear().returning(|_| Ok(Cleared::Clean));

    // Epoch 1 places; 2 suspends; 3 brings it back; 4 suspends.
    for (coming, going) in [(1, 2), (3, 4)] {
        runtime
            .expect_start()
            .withf(move |guest| guest.epoch == Epoch(coming) && guest.device == Some(Device("lun0".into())))
            .times(1)
            .in_sequence(&mut order)
            .returning(|_| Ok(Started { endpoint: endpoint(7), by: StartedBy::Resume }));
        runtime
            .expect_suspend()
            .withf(move |guest| guest.epoch == Epoch(going))
            .times(1)
            .in_sequence(&mut order)
            .returning(|_| Ok(Suspended::Saved));
    }

    let (store, world) = (Arc::new(MemoryStore::new()), Arc::new(World::default()));
    let (instances, volumes) = (world.clone(), world.clone());
    let builder = Pool::builder(store, instances, volumes, Arc::new(runtime), config(2)).seed(1);
    let (pool, worker) = builder.build().await.unwrap();
    let worker = tokio::spawn(worker.run());
    let name = BoxName::new("dev1").unwrap();
    pool.create_box(&user(), &name).await.unwrap();
    for _ in 0..2 {
        let session = pool.connect(ConnectRequest::new(user(), name.clone())).await.unwrap();
        assert_eq!(*session.endpoint(), endpoint(7));
        session.release().await;
        while pool.get_box(&user(), &name).await.unwrap().unwrap().state() != "parked" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!((world.calls("attach"), world.calls("detach")), (1, 0), "the return needed no cloud call");
    pool.drain(Duration::from_secs(5)).await;
    worker.await.unwrap();
}
