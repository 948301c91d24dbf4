//! One small life on a real subscription: what only the service itself can show (what it makes of the null fields that the models
//! send, how it answers an attach, what its tables say). It costs some cents and takes about ten minutes; see this crate's README.
//!
//! The same life is lived on the simulated service each time the tests run, so that it is known to be sound.

#![allow(clippy::unwrap_used)]

mod azurite;

use boxpool::{
    Attach, Attached, Cursor, Detached, Epoch, ErrorKind, InstanceId, InstanceProvider, InstanceSpec, InstanceState,
    Key, Page, Result, SnapshotId, StateStore, Table, VolumeId, VolumeProvider, VolumeSource, VolumeSpec, VolumeState,
};
use boxpool_azure::{
    AzureCloud, Candidate, CloudOptions, CredentialChoice, Proxy, Secret, TableStore, TablesAccess, TablesOptions,
};
use boxpool_sim::arm::{ArmServer, Kind};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::time::Instant;

const TABLE: Table = Table::new("live");
/// Any key will do: nobody enters the machine.
const LOGIN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAx live";

/// What is lived, and how long one step of it may take.
struct Life {
    cloud: AzureCloud,
    tables: TableStore,
    limit: Duration,
    pause: Duration,
}

impl Life {
    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Result<Option<T>>) -> T {
        let deadline = Instant::now() + self.limit;
        loop {
            let wait = match look().await {
                Ok(Some(found)) => return found,
                Ok(None) => self.pause,
                Err(error) if error.is_retryable() => error.retry_after().unwrap_or(self.pause),
                Err(error) => panic!("{what}: {error:?}"),
            };
            assert!(Instant::now() + wait < deadline, "not within {:?}: {what}", self.limit);
            tokio::time::sleep(wait).await;
        }
    }

    /// Compare-and-swap as the pool needs it.
    async fn keeps_records(&self) {
        assert_eq!(self.tables.missing_tables(&[TABLE]).await.unwrap(), [TABLE]);
        self.tables.make_tables(&[TABLE]).await.unwrap();
        assert_eq!(self.tables.missing_tables(&[TABLE]).await.unwrap(), []);
        let key = Key::new(TABLE, "it's a/key?", "row#1");
        let first = self.tables.insert(&key, "{\"n\":1}").await.unwrap();
        assert_eq!(self.tables.insert(&key, "{}").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        let second = self.tables.update(&key, &first, "{\"n\":2}").await.unwrap();
        assert_eq!(self.tables.update(&key, &first, "{}").await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(self.tables.get(&key).await.unwrap().unwrap().value, "{\"n\":2}");
        assert_eq!(self.tables.scan(TABLE, None, None, 10).await.unwrap().items.len(), 1);
        self.tables.delete(&key, &second).await.unwrap();
        assert_eq!(self.tables.get(&key).await.unwrap(), None);
    }

    /// A machine and a disk come, meet, part, and are copied.
    async fn runs_machines(&self) {
        let cloud = &self.cloud;
        let (machine, disk) = (InstanceId::new("i00000-live").unwrap(), VolumeId::new("v-live").unwrap());
        let (snapshot, copy) = (SnapshotId::new("s-live").unwrap(), VolumeId::new("v-copy").unwrap());
        let ensured = async |id: &VolumeId, source: VolumeSource| {
            self.until("a disk is ready", async || {
                let view = VolumeProvider::ensure(cloud, &VolumeSpec::new(id.clone(), source.clone())).await?;
                Ok((view.state == VolumeState::Ready).then_some(()))
            })
            .await;
        };
        let spec = InstanceSpec::new(machine.clone(), "1");
        self.until("a machine runs", async || match InstanceProvider::ensure(cloud, &spec).await?.state {
            InstanceState::Running => Ok(Some(())),
            InstanceState::Failed(why) => panic!("the machine failed: {why}"),
            _ => Ok(None),
        })
        .await;
        ensured(&disk, VolumeSource::Empty { bytes: 4 << 30 }).await;

        let attach = Attach::new(disk.clone(), machine.clone(), Epoch(1));
        self.until("the disk is attached", async || match cloud.attach(&attach).await? {
            Attached::Yes(device) => Ok(Some(device)),
            _ => Ok(None),
        })
        .await;
        let view = VolumeProvider::get(cloud, &disk).await.unwrap().unwrap();
        assert_eq!(view.attached_to.as_ref(), Some(&machine));
        self.until("the disk is detached", async || {
            Ok(matches!(cloud.detach(&attach).await?, Detached::Yes).then_some(()))
        })
        .await;

        self.until("a snapshot is taken", async || Ok(cloud.snapshot(&disk, &snapshot).await?.ready.then_some(())))
            .await;
        ensured(&copy, VolumeSource::Snapshot(snapshot.clone())).await;
        self.until("the machine is stopped", async || {
            Ok((cloud.stop(&machine).await?.state == InstanceState::Stopped).then_some(()))
        })
        .await;
    }

    /// Deletes whatever of the pool is there, until nothing is.
    async fn clears_away(&self) {
        self.until("nothing is left", async || {
            let mut left = 0;
            for id in all(async |from| Ok(ids(InstanceProvider::list(&self.cloud, from).await?, |it| it.id))).await? {
                left += 1;
                keep_busy(InstanceProvider::delete(&self.cloud, &id).await)?;
            }
            for id in all(async |from| Ok(ids(VolumeProvider::list(&self.cloud, from).await?, |it| it.id))).await? {
                left += 1;
                keep_busy(VolumeProvider::delete(&self.cloud, &id).await)?;
            }
            for id in all(async |from| Ok(ids(self.cloud.list_snapshots(from).await?, |it| it.id))).await? {
                left += 1;
                keep_busy(self.cloud.delete_snapshot(&id).await)?;
            }
            Ok((left == 0).then_some(()))
        })
        .await;
        self.tables.drop_tables(&[TABLE]).await.unwrap();
    }
}

fn ids<T, Id>(page: Page<T>, id: impl Fn(T) -> Id) -> Page<Id> {
    Page { items: page.items.into_iter().map(id).collect(), next: page.next }
}

async fn all<Id>(page: impl AsyncFn(Option<&Cursor>) -> Result<Page<Id>>) -> Result<Vec<Id>> {
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let found = page(next.as_ref()).await?;
        all.extend(found.items);
        next = found.next;
        if next.is_none() {
            return Ok(all);
        }
    }
}

/// A disk goes after its machine, so it is asked for again.
fn keep_busy(deleted: Result<()>) -> Result<()> {
    deleted.or_else(|error| if error.kind() == ErrorKind::Busy { Ok(()) } else { Err(error) })
}

/// Whatever becomes of the life, it is cleared away.
async fn lived(life: Life) {
    let living = async {
        life.keeps_records().await;
        life.runs_machines().await;
    };
    let outcome = AssertUnwindSafe(living).catch_unwind().await;
    life.clears_away().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_on_the_simulated_service() {
    let service = ArmServer::builder().seed(3).time_scale(0.001).start().await.unwrap();
    let mut options = CloudOptions::new("0000-1111", "rg", "westeurope", "live");
    options.endpoint = service.url();
    options.credential = CredentialChoice::Fixed(Secret::new("token"));
    options.machines.image = "publisher:offer:sku:latest".into();
    options.machines.subnet =
        "/subscriptions/0000-1111/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/n/subnets/s".into();
    options.machines.ssh_public_key = LOGIN.into();
    options.proxy = Proxy::None;
    let cloud = AzureCloud::open(options).unwrap();
    assert_eq!(cloud.missing_rights().await.unwrap(), Vec::<&str>::new());
    let (limit, pause) = (Duration::from_secs(60), Duration::from_millis(5));
    lived(Life { cloud, tables: azurite::fresh_store(), limit, pause }).await;
    for kind in [Kind::Vm, Kind::Disk, Kind::Snapshot, Kind::Nic] {
        assert_eq!(service.names(kind), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "costs money: needs BOXPOOL_AZURE_LIVE=1 and a subscription, as the README says"]
async fn a_life_on_azure_itself() {
    let set = |name: &str| std::env::var(format!("BOXPOOL_AZURE_{name}")).ok().filter(|value| !value.is_empty());
    let needed = |name: &str| set(name).unwrap_or_else(|| panic!("set BOXPOOL_AZURE_{name}; see the README"));
    assert_eq!(needed("LIVE"), "1");
    let credential: CredentialChoice = set("CREDENTIAL").unwrap_or_else(|| "auto".into()).parse().unwrap();
    let (subscription, group) = (needed("SUBSCRIPTION"), needed("RESOURCE_GROUP"));
    // Two at once do not meet.
    let pool = format!("live{:08x}", getrandom::u32().unwrap());
    println!("everything is named and tagged {pool}; if this is killed, delete what is left by that");
    let mut options = CloudOptions::new(subscription, group, needed("LOCATION"), &pool);
    options.credential = credential.clone();
    options.machines.image = "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest".into();
    options.machines.subnet = needed("SUBNET");
    options.machines.ssh_public_key = LOGIN.into();
    options.machines.candidates = vec![Candidate::new(set("SIZE").unwrap_or_else(|| "Standard_B2s".into()), None)];
    options.disks.sku = "Standard_LRS".into();
    let cloud = AzureCloud::open(options).unwrap();
    let mut tables = TablesOptions::new(needed("STORAGE_ACCOUNT"), TablesAccess::Identity(credential));
    tables.prefix.clone_from(&pool);
    let tables = TableStore::open(&tables).unwrap();

    println!("clock ahead by {:?} s", cloud.clock_ahead_s().await);
    println!("rights that are missing: {:?}", cloud.missing_rights().await);
    println!("quotas: {:?}", cloud.quotas().await);
    let (limit, pause) = (Duration::from_secs(1_200), Duration::from_secs(5));
    lived(Life { cloud, tables, limit, pause }).await;
}
