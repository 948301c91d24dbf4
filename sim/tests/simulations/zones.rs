//! Zones, sizes, prices and clocks of the simulated world.

use boxpool::{
    Attach, Attached, Epoch, ErrorKind, InstanceId, InstanceSpec, InstanceState, VolumeId, VolumeSource, VolumeSpec,
};
use boxpool_sim::backend::Prices;
use boxpool_sim::{Gateway, SimCloud};
use std::time::Duration;

fn instance(number: u32) -> InstanceId {
    InstanceId::new(format!("i{number:05}-z")).unwrap()
}

fn volume(number: u32) -> VolumeId {
    VolumeId::new(format!("v-{number:016x}")).unwrap()
}

async fn machine(cloud: &SimCloud, gateway: &Gateway, number: u32) -> boxpool::Result<InstanceId> {
    let id = instance(number);
    gateway.instances().ensure(&InstanceSpec::new(id.clone(), "1")).await?;
    while gateway.instances().get(&id).await?.is_some_and(|view| view.state != InstanceState::Running) {
        cloud.advance(Duration::from_secs(1)).await.unwrap();
    }
    Ok(id)
}

async fn disk(cloud: &SimCloud, gateway: &Gateway, number: u32, gib: u64) -> VolumeId {
    let id = volume(number);
    let spec = VolumeSpec::new(id.clone(), VolumeSource::Empty { bytes: gib << 30 });
    while gateway.volumes().ensure(&spec).await.unwrap().state != boxpool::VolumeState::Ready {
        cloud.advance(Duration::from_secs(1)).await.unwrap();
    }
    id
}

async fn attached(gateway: &Gateway, volume: &VolumeId, instance: &InstanceId) -> boxpool::Result<()> {
    let attach = Attach::new(volume.clone(), instance.clone(), Epoch(1));
    while gateway.volumes().attach(&attach).await? == Attached::Pending {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn machines_are_spread_over_the_zones() {
    let cloud = SimCloud::builder().zones(3).build().unwrap();
    let gateway = cloud.gateway().unwrap();
    let mut zones = Vec::new();
    for number in 0..6 {
        let id = machine(&cloud, &gateway, number).await.unwrap();
        zones.push(cloud.zone_of(&id).unwrap());
    }
    assert_eq!(zones, [1, 2, 3, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_out_takes_its_machines_along_and_the_others_take_over() {
    let cloud = SimCloud::builder().zones(2).build().unwrap();
    let gateway = cloud.gateway().unwrap();
    let (one, two) = (machine(&cloud, &gateway, 1).await.unwrap(), machine(&cloud, &gateway, 2).await.unwrap());
    let disk = disk(&cloud, &gateway, 1, 1).await;
    cloud.zone_outage(1, true);
    assert_eq!(cloud.instances(), std::slice::from_ref(&two));
    assert!(gateway.instances().get(&one).await.unwrap().is_none());
    let three = machine(&cloud, &gateway, 3).await.unwrap();
    assert_eq!(cloud.zone_of(&three), Some(2), "where there is room");
    attached(&gateway, &disk, &two).await.unwrap();
    cloud.zone_outage(2, true);
    let refused = machine(&cloud, &gateway, 4).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    cloud.zone_outage(2, false);
    assert_eq!(cloud.zone_of(&machine(&cloud, &gateway, 5).await.unwrap()), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_one_zone_goes_to_machines_of_that_zone_alone() {
    let cloud = SimCloud::builder().zones(2).zonal_volumes(true).build().unwrap();
    let gateway = cloud.gateway().unwrap();
    let disk = disk(&cloud, &gateway, 1, 1).await;
    let mut outcomes = Vec::new();
    for number in 1..=2 {
        let machine = machine(&cloud, &gateway, number).await.unwrap();
        let outcome = attached(&gateway, &disk, &machine).await.map_err(|error| error.kind());
        outcomes.push((cloud.zone_of(&machine) == cloud.zone_of_volume(&disk), outcome));
    }
    outcomes.sort_by_key(|(same, _)| *same);
    assert_eq!(outcomes, [(false, Err(ErrorKind::Invalid)), (true, Ok(()))]);
}

#[tokio::test(start_paused = true)]
async fn the_bill_is_exact() {
    let cloud = SimCloud::builder().metered(true).build().unwrap();
    let gateway = cloud.gateway().unwrap();
    machine(&cloud, &gateway, 1).await.unwrap();
    disk(&cloud, &gateway, 1, 10).await;
    let before = cloud.usage();
    let begun = cloud.elapsed();
    cloud.advance(Duration::from_secs(7_200)).await.unwrap();
    // Without a call, which would take its time.
    cloud.preempt_instance(&instance(1));
    let stopped = cloud.elapsed();
    let running = cloud.usage();
    cloud.advance(Duration::from_secs(3_600)).await.unwrap();
    let after = cloud.usage();
    assert_eq!(running.machines - before.machines, stopped - begun);
    assert_eq!(after.machines, running.machines, "a stopped one does not count as running");
    assert_eq!(after.stopped_machines - running.stopped_machines, Duration::from_secs(3_600));
    assert_eq!(running.idle_machines - before.idle_machines, stopped - begun, "no guest ran on it");
    let of_disk = (after.volume_byte_ms - running.volume_byte_ms) / f64::from(1 << 30);
    assert!((of_disk - 10.0 * 3_600_000.0).abs() < 1e-3, "{of_disk}");
    let (bill, was) = (after.bill(&Prices::default()), running.bill(&Prices::default()));
    let expected = 10.0 / 730.0 * Prices::default().volume_gib_month;
    assert!((bill.volumes - was.volumes - expected).abs() < 1e-9);
    assert!((bill.machines - was.machines - Prices::default().stopped_machine_hour).abs() < 1e-9);
    assert!(bill.total() > was.total());
}

#[tokio::test(start_paused = true)]
async fn a_world_that_is_not_metered_counts_nothing() {
    let cloud = SimCloud::builder().build().unwrap();
    let gateway = cloud.gateway().unwrap();
    machine(&cloud, &gateway, 1).await.unwrap();
    cloud.advance(Duration::from_secs(60)).await.unwrap();
    assert_eq!(cloud.usage(), boxpool_sim::backend::Usage::default());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_drifts_is_off_by_its_rate_and_keeps_what_it_is_off_by() {
    let cloud = SimCloud::builder().build().unwrap();
    let (right, wrong) = (cloud.gateway().unwrap(), cloud.gateway().unwrap());
    let (right, wrong_clock) = (right.clock(), wrong.clock());
    let ahead = || i64::try_from(wrong_clock.now().0).unwrap() - i64::try_from(right.now().0).unwrap();
    cloud.drift_clock(1, 200);
    cloud.advance(Duration::from_secs(10_000)).await.unwrap();
    assert_eq!(ahead(), 2_000);
    cloud.drift_clock(1, -100);
    cloud.advance(Duration::from_secs(10_000)).await.unwrap();
    assert_eq!(ahead(), 1_000);
    cloud.set_clock(1, 5_000);
    assert_eq!(ahead(), 5_000);
    cloud.advance(Duration::from_secs(10_000)).await.unwrap();
    assert_eq!(ahead(), 4_000);
}
