//! Several processes on the same machines and disks, one of which is killed.
//!
//! A worker is this test program again, told by environment variables to do a worker's job in the body of the same test.

use crate::arm::options;
use crate::until::{until_granted, until_true};
use boxpool::{
    Attach, Attached, Detached, Epoch, InstanceId, InstanceProvider, InstanceSpec, InstanceState, Result, VolumeId,
    VolumeProvider, VolumeSource, VolumeSpec, VolumeState,
};
use boxpool_azure::AzureCloud;
use boxpool_sim::arm::{ArmServer, Kind};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

const URL: &str = "BOXPOOL_TEST_URL";
const JOB: &str = "BOXPOOL_TEST_JOB";
const TEST: &str = "processes_arm::processes_that_want_the_same_machine_and_disk_get_one_of_each_and_leave_nothing";
const WORKERS: usize = 4;

fn open(url: &str) -> AzureCloud {
    AzureCloud::open(options(url)).unwrap()
}

struct Worker {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    fn begin(url: &str, job: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(URL, url)
            .env(JOB, job)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Self { child, says }
    }

    /// Waits until it has what it needs; it gives up itself when that takes too long.
    fn until_ready(&mut self) {
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(self.says.read_line(&mut line).unwrap() > 0, "a worker ended before it was ready");
        }
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// What it says to the end, which is a good one.
    fn output(mut self) -> String {
        let mut rest = String::new();
        self.says.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "a worker failed: {rest}");
        rest
    }
}

fn instance(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

fn volume() -> VolumeId {
    VolumeId::new("v1").unwrap()
}

async fn running(cloud: &AzureCloud, id: &InstanceId) {
    until_granted("the machine runs", async || {
        let view = InstanceProvider::ensure(cloud, &InstanceSpec::new(id.clone(), "1")).await?;
        Ok((view.state == InstanceState::Running).then_some(()))
    })
    .await;
}

/// Wants the machine and the disk that all want, the disk on a machine of its own. Says whether it got the disk.
async fn compete(cloud: &AzureCloud, own: &InstanceId) -> bool {
    running(cloud, &instance("shared")).await;
    running(cloud, own).await;
    until_granted("the volume is ready", async || {
        let spec = VolumeSpec::new(volume(), VolumeSource::Empty { bytes: 4 << 30 });
        let view = VolumeProvider::ensure(cloud, &spec).await?;
        Ok((view.state == VolumeState::Ready).then_some(()))
    })
    .await;
    // All reach for the disk at the same time.
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let attach = Attach::new(volume(), own.clone(), Epoch(1));
    until_granted("the volume is on one machine", async || {
        let refused = match cloud.attach(&attach).await {
            Ok(Attached::Yes(_)) => return Ok(Some(true)),
            Ok(Attached::Pending) => return Ok(None),
            Err(error) => error,
        };
        let view = VolumeProvider::get(cloud, &volume()).await?.unwrap();
        if view.attached_to.is_some_and(|on| on != *own) { Ok(Some(false)) } else { Err(refused) }
    })
    .await
}

/// Deletes everything, as the others do.
async fn clear(cloud: &AzureCloud) {
    until_granted("all is gone", async || {
        let machines = all(async |cursor| InstanceProvider::list(cloud, cursor).await).await?;
        let volumes = all(async |cursor| VolumeProvider::list(cloud, cursor).await).await?;
        for view in &volumes {
            let detached = match &view.attached_to {
                Some(on) => cloud.detach(&Attach::new(view.id.clone(), on.clone(), Epoch(2))).await?,
                None => Detached::Yes,
            };
            if detached == Detached::Yes {
                VolumeProvider::delete(cloud, &view.id).await?;
            }
        }
        for view in &machines {
            InstanceProvider::delete(cloud, &view.id).await?;
        }
        Ok((machines.is_empty() && volumes.is_empty()).then_some(()))
    })
    .await;
}

async fn all<T>(list: impl AsyncFn(Option<&boxpool::Cursor>) -> Result<boxpool::Page<T>>) -> Result<Vec<T>> {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let page = list(cursor.as_ref()).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

async fn work(url: &str, job: &str) {
    let cloud = open(url);
    match job {
        "clear" => clear(&cloud).await,
        name => println!("won={}", compete(&cloud, &instance(name)).await),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_want_the_same_machine_and_disk_get_one_of_each_and_leave_nothing() {
    if let (Ok(url), Ok(job)) = (std::env::var(URL), std::env::var(JOB)) {
        return work(&url, &job).await;
    }
    let service = ArmServer::builder().seed(5).time_scale(0.02).page_size(2).start().await.unwrap();
    let names: Vec<String> = (0..WORKERS).map(|n| format!("w{n}")).collect();
    let mut workers: Vec<Worker> = names.iter().map(|name| Worker::begin(&service.url(), name)).collect();
    let doomed = Worker::begin(&service.url(), "doomed");
    let begun = || service.names(Kind::Vm).contains(&"pool-doomed".to_owned());
    until_true("the worker that is to be killed has begun its machine", begun).await;
    drop(doomed);

    workers.iter_mut().for_each(Worker::until_ready);
    workers.iter_mut().for_each(Worker::go);
    let outputs: Vec<String> = workers.into_iter().map(Worker::output).collect();
    let who = |won: &str| {
        let told = names.iter().zip(&outputs).filter(|(_, output)| output.contains(won));
        told.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let (winners, losers) = (who("won=true"), who("won=false"));
    assert_eq!((winners.len(), losers.len()), (1, WORKERS - 1), "{outputs:?}");
    let reached = service.requests().iter().filter(|request| request.path.contains("attachDetach")).count();
    println!("{reached} attaches were asked for");
    let disk = service.resource(Kind::Disk, "pool-v1").unwrap();
    let on = disk["managedBy"].as_str().unwrap().rsplit('/').next().unwrap();
    assert_eq!(on, format!("pool-{}", winners[0]));
    let holds = |machine: &String| {
        let disks = service.resource(Kind::Vm, machine).unwrap()["properties"]["storageProfile"]["dataDisks"].clone();
        disks.as_array().is_some_and(|disks| !disks.is_empty())
    };
    let machines = service.names(Kind::Vm);
    assert_eq!(machines.iter().filter(|machine| holds(machine)).collect::<Vec<_>>(), [on], "nobody else holds a disk");
    assert_eq!(machines, ["pool-doomed", "pool-shared", "pool-w0", "pool-w1", "pool-w2", "pool-w3"]);
    let parts = [Kind::Nic, Kind::Disk].map(|kind| service.names(kind).len());
    assert_eq!(parts, [machines.len(), machines.len() + 1], "each machine has its own parts, once");

    let cleaners: Vec<Worker> = (0..WORKERS).map(|_| Worker::begin(&service.url(), "clear")).collect();
    cleaners.into_iter().for_each(|cleaner| drop(cleaner.output()));
    for kind in [Kind::Vm, Kind::Disk, Kind::Nic] {
        assert_eq!(service.names(kind), Vec::<String>::new());
    }
}
