//! Lives of a machine and a volume on a simulated Resource Manager that loses requests and answers, forgets operations and
//! shouts ids: two processes take turns, everything gets where it should, and nothing is left.

use crate::arm::options;
use crate::until::{until, until_granted};
use boxpool::{
    Attach, Attached, Detached, Epoch, InstanceId, InstanceProvider, InstanceSpec, InstanceState, Result, SnapshotId,
    VolumeId, VolumeProvider, VolumeSource, VolumeSpec, VolumeState,
};
use boxpool_azure::{AzureCloud, AzureDevice, Candidate, CloudOptions};
use boxpool_sim::arm::{ArmBuilder, ArmFate, ArmFaults, ArmServer, ArmStrike, Kind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Two processes, asked in turn.
struct Bench {
    service: ArmServer,
    clouds: [AzureCloud; 2],
    turn: AtomicUsize,
}

impl Bench {
    async fn new(builder: ArmBuilder) -> Self {
        Self::with(builder, |_| {}).await
    }

    async fn with(builder: ArmBuilder, change: impl Fn(&mut CloudOptions)) -> Self {
        let service = builder.time_scale(0.002).page_size(2).start().await.unwrap();
        let open = || {
            let mut options = options(&service.url());
            change(&mut options);
            AzureCloud::open(options).unwrap()
        };
        let clouds = [open(), open()];
        Self { service, clouds, turn: AtomicUsize::new(0) }
    }

    fn cloud(&self) -> &AzureCloud {
        &self.clouds[self.turn.fetch_add(1, Ordering::Relaxed) % 2]
    }

    /// Repeats a call, in one process and the other, until it gets there. Only what may pass is repeated.
    async fn until<T>(&self, what: &str, call: impl AsyncFn(&AzureCloud) -> Result<Option<T>>) -> T {
        until_granted(what, async || call(self.cloud()).await).await
    }

    async fn running(&self, id: &InstanceId) {
        self.until("the machine runs", async |cloud| {
            let view = InstanceProvider::ensure(cloud, &InstanceSpec::new(id.clone(), "1")).await?;
            Ok((view.state == InstanceState::Running).then_some(()))
        })
        .await;
    }

    async fn ready(&self, id: &VolumeId, source: VolumeSource) {
        self.until("the volume is ready", async |cloud| {
            let view = VolumeProvider::ensure(cloud, &VolumeSpec::new(id.clone(), source.clone())).await?;
            Ok((view.state == VolumeState::Ready).then_some(()))
        })
        .await;
    }

    async fn attached(&self, attach: &Attach) -> AzureDevice {
        let attached = self.until("the volume is attached", async |cloud| match cloud.attach(attach).await? {
            Attached::Yes(device) => Ok(Some(device)),
            Attached::Pending => Ok(None),
        });
        AzureDevice::read(&attached.await).unwrap()
    }

    async fn detached(&self, attach: &Attach) {
        self.until("it is detached", async |cloud| Ok((cloud.detach(attach).await? == Detached::Yes).then_some(())))
            .await;
    }

    async fn taken(&self, of: &VolumeId, snapshot: &SnapshotId) {
        self.until("the snapshot is ready", async |cloud| Ok(cloud.snapshot(of, snapshot).await?.ready.then_some(())))
            .await;
    }

    async fn gone(&self, instances: &[&InstanceId], volumes: &[&VolumeId]) {
        for id in instances {
            self.until("the machine is gone", async |cloud| {
                InstanceProvider::delete(cloud, id).await?;
                Ok(InstanceProvider::get(cloud, id).await?.is_none().then_some(()))
            })
            .await;
        }
        for id in volumes {
            self.until("the volume is gone", async |cloud| {
                VolumeProvider::delete(cloud, id).await?;
                Ok(VolumeProvider::get(cloud, id).await?.is_none().then_some(()))
            })
            .await;
        }
    }

    fn leftovers(&self) -> Vec<String> {
        [Kind::Vm, Kind::Disk, Kind::Snapshot, Kind::Nic]
            .into_iter()
            .flat_map(|kind| self.service.names(kind))
            .collect()
    }
}

fn instance(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

fn volume(name: &str) -> VolumeId {
    VolumeId::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_lives_through_a_bad_network_leave_nothing_behind() {
    let lives = (0..8).map(|seed| async move {
        let faults = ArmFaults {
            lost_request: 0.08,
            lost_answer: 0.08,
            error_after_effect: 0.05,
            unavailable: 0.05,
            forgotten_operation: 0.1,
            other_case: 0.3,
            ..ArmFaults::default()
        };
        let bench = Bench::new(ArmServer::builder().seed(seed).faults(faults)).await;
        let (here, there) = (instance("i1"), instance("i2"));
        let (original, copy) = (volume("v1"), volume("v2"));
        bench.running(&here).await;
        bench.running(&there).await;
        bench.ready(&original, VolumeSource::Empty { bytes: 4 << 30 }).await;
        bench.attached(&Attach::new(original.clone(), here.clone(), Epoch(1))).await;
        bench.detached(&Attach::new(original.clone(), here.clone(), Epoch(2))).await;
        let snapshot = SnapshotId::new("s1").unwrap();
        bench.taken(&original, &snapshot).await;
        bench.ready(&copy, VolumeSource::Snapshot(snapshot.clone())).await;
        bench.attached(&Attach::new(original.clone(), there.clone(), Epoch(3))).await;
        bench.attached(&Attach::new(copy.clone(), here.clone(), Epoch(1))).await;
        // A machine goes with a volume on it: the volume stays.
        bench.gone(&[&there], &[]).await;
        bench
            .until("it is taken by force", async |cloud| {
                let attach = Attach::new(original.clone(), there.clone(), Epoch(4));
                Ok((cloud.force_detach(&attach).await? == Detached::Yes).then_some(()))
            })
            .await;
        bench.gone(&[&here], &[&original, &copy]).await;
        bench
            .until("the snapshot is gone", async |cloud| {
                cloud.delete_snapshot(&snapshot).await?;
                Ok(cloud.list_snapshots(None).await?.items.is_empty().then_some(()))
            })
            .await;
        assert_eq!(bench.leftovers(), Vec::<String>::new(), "seed {seed}");
    });
    futures::future::join_all(lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_says_of_which_volumes_it_is_one() {
    let bench = Bench::new(ArmServer::builder()).await;
    let here = instance("i1");
    bench.running(&here).await;
    bench.ready(&volume("v1"), VolumeSource::Empty { bytes: 4 << 30 }).await;
    for (number, wanted) in [(1, vec![]), (2, vec![volume("v1")]), (3, vec![volume("v2"), volume("v1")])] {
        let this = volume(&format!("v{number}"));
        let attach = Attach::new(this.clone(), here.clone(), Epoch(1));
        assert_eq!(bench.attached(&attach).await.copied_from, wanted);
        bench.detached(&attach).await;
        let snapshot = SnapshotId::new(format!("s{number}")).unwrap();
        bench.taken(&this, &snapshot).await;
        bench.ready(&volume(&format!("v{}", number + 1)), VolumeSource::Snapshot(snapshot)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_size_gives_way_to_the_next_and_leaves_no_disk_or_interface() {
    let places = |options: &mut CloudOptions| {
        options.machines.candidates =
            ["Standard_None", "Standard_Full", "Standard_D2s_v5"].map(|size| Candidate::new(size, None)).to_vec();
    };
    let builder = ArmServer::builder().unavailable_sizes(["Standard_None"]).full_sizes(["Standard_Full"]);
    let bench = Bench::with(builder, places).await;
    let id = instance("i1");
    // One process sees it through: what was full, each finds out for itself.
    let cloud = &bench.clouds[0];
    let spec = InstanceSpec::new(id.clone(), "1");
    let runs = async || InstanceProvider::ensure(cloud, &spec).await.unwrap().state == InstanceState::Running;
    until("it runs", async || runs().await.then_some(())).await;
    let machine = bench.service.resource(Kind::Vm, "pool-i1").unwrap();
    assert_eq!(machine["properties"]["hardwareProfile"]["vmSize"], "Standard_D2s_v5");
    assert!(cloud.address(&id).await.unwrap().is_some(), "it has an address");
    bench.gone(&[&id], &[]).await;
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_spread_over_zones_also_after_others_have_deleted_some() {
    let places = |options: &mut CloudOptions| {
        options.machines.candidates =
            ["1", "2", "3"].map(|zone| Candidate::new("Standard_D2s_v5", Some(zone))).to_vec();
        options.disks.sku = "Premium_ZRS".into();
    };
    let bench = Bench::with(ArmServer::builder(), places).await;
    let [cloud, other] = &bench.clouds;
    let all: Vec<InstanceId> = (0..8).map(|n| instance(&format!("i{n}"))).collect();
    let zone_of = |id: &InstanceId| {
        let machine = bench.service.resource(Kind::Vm, &format!("pool-{id}")).unwrap();
        machine["zones"][0].as_str().unwrap().to_owned()
    };
    let make = async |cloud: &AzureCloud, id: &InstanceId| {
        let spec = InstanceSpec::new(id.clone(), "1");
        let runs = async || InstanceProvider::ensure(cloud, &spec).await.unwrap().state == InstanceState::Running;
        until("it runs", async || runs().await.then_some(())).await;
    };
    for id in &all[..6] {
        make(cloud, id).await;
    }
    let mut zones: Vec<String> = all[..6].iter().map(zone_of).collect();
    zones.sort_unstable();
    assert_eq!(zones, ["1", "1", "2", "2", "3", "3"]);

    let second: Vec<&InstanceId> = all[..6].iter().filter(|id| zone_of(id) == "2").collect();
    for id in second {
        let gone = async || {
            InstanceProvider::delete(other, id).await.unwrap();
            InstanceProvider::get(other, id).await.unwrap().is_none().then_some(())
        };
        until("it is gone", gone).await;
    }
    // The pool looks over all of its machines again and again.
    let mut cursor = None;
    loop {
        let page = InstanceProvider::list(cloud, cursor.as_ref()).await.unwrap();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    for id in &all[6..] {
        make(cloud, id).await;
        assert_eq!(zone_of(id), "2");
    }
    bench.gone(&all.iter().collect::<Vec<_>>(), &[]).await;
    assert_eq!(bench.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_attach_was_superseded_is_brought_to_reason_before_it_counts() {
    let fails = ArmStrike {
        method: "POST".into(),
        path_ends: "/attachDetachDataDisks".into(),
        nth: 1,
        fate: ArmFate::Fail { code: "OperationPreempted".into() },
    };
    let bench = Bench::new(ArmServer::builder().script(vec![fails])).await;
    let (machine, disk) = (instance("i1"), volume("v1"));
    bench.running(&machine).await;
    bench.ready(&disk, VolumeSource::Empty { bytes: 4 << 30 }).await;
    bench.attached(&Attach::new(disk.clone(), machine.clone(), Epoch(1))).await;
    let requests = bench.service.requests();
    assert_eq!(
        requests.iter().filter(|request| request.method == "PATCH").count(),
        1,
        "an update that changes nothing"
    );
}
