//! Boxes on Azure: state in Tables, one box on each virtual machine, each box on a managed disk.
//!
//! The golden snapshot is built by whichever gateway (or `init`) comes first; the others wait for it. The image in it is made
//! on the gateway's own machine and sent to the temporary one, where it is booted and saved.

mod adopt;
mod examine;

pub use adopt::{abandon_instance, abandon_volume, adopt_instance, adopt_volume};
pub use examine::examine;

use crate::backends::{accel, golden_spec, network};
use crate::config::{AzureConfig, Config};
use crate::hostkey::ensure_key;
use crate::place::Place;
use crate::plain::plain;
use crate::serve::{Backends, Keys};
use crate::upstream::{Remote, Stream};
use async_trait::async_trait;
use boxpool::{Error, ErrorKind, InstanceId, Result, SnapshotId, StateStore, Table, VolumeSource};
use boxpool_azure::{
    AzureCloud, AzureGolden, AzureHosts, Candidate, CloudOptions, CredentialChoice, HostAccess, Prepare, Secret,
    TableStore, TablesAccess, TablesOptions,
};
use boxpool_qemu::{GoldenSpec, Host, HostedOptions, HostedQemu, image, prepare_disk};
use russh::keys::ssh_key::LineEnding;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The key that enters the machines.
pub const MACHINE_KEY_FILE: &str = "machine_ed25519_key";
/// What the layout of machines and golden disks is called: another one is another generation.
const EDITION: &str = "1";

/// Checks the settings; asks the network for nothing.
///
/// # Errors
/// `Invalid` says which option breaks which rule.
pub fn cloud(config: &Config, machine_key: &str) -> Result<AzureCloud> {
    let azure = &config.azure;
    let mut options = CloudOptions::new(&azure.subscription, &azure.resource_group, &azure.location, &azure.pool);
    options.credential = credential(azure)?;
    options.endpoint.clone_from(&azure.management_endpoint);
    options.machines.image.clone_from(&azure.image);
    options.machines.subnet.clone_from(&azure.subnet);
    options.machines.security_group = Some(azure.security_group.clone()).filter(|id| !id.is_empty());
    options.machines.ssh_public_key = machine_key.to_owned();
    options.machines.for_boxes = true;
    let zones: Vec<Option<&str>> = match azure.zones.as_slice() {
        [] => vec![None],
        zones => zones.iter().map(|zone| Some(zone.as_str())).collect(),
    };
    options.machines.candidates =
        azure.sizes.iter().flat_map(|size| zones.iter().map(move |zone| Candidate::new(size, *zone))).collect();
    options.disks.sku.clone_from(&azure.disk_sku);
    options.disks.snapshot_sku.clone_from(&azure.snapshot_sku);
    if azure.disk_sku.to_ascii_uppercase().ends_with("_LRS") {
        options.disks.zone = azure.zones.first().cloned();
    }
    AzureCloud::open(options)
}

fn credential(azure: &AzureConfig) -> Result<CredentialChoice> {
    if azure.credential != "token" {
        return azure.credential.parse();
    }
    match std::env::var("BOXPOOL_AZURE_TOKEN") {
        Ok(token) if !token.is_empty() => Ok(CredentialChoice::Fixed(Secret::new(token))),
        _ => Err(Error::new(ErrorKind::Invalid, "choose credential", "token")
            .with_detail("azure.credential is \"token\", so BOXPOOL_AZURE_TOKEN must hold one")),
    }
}

/// The tables that hold the state.
///
/// # Errors
/// As [`cloud`].
pub fn tables(config: &Config) -> Result<TableStore> {
    let azure = &config.azure;
    let access = match std::env::var("BOXPOOL_AZURE_TABLES_KEY") {
        Ok(key) if !key.is_empty() => TablesAccess::Key(Secret::new(key)),
        _ => TablesAccess::Identity(credential(azure)?),
    };
    let mut options = TablesOptions::new(&azure.storage_account, access);
    if !azure.tables_endpoint.is_empty() {
        options.endpoint.clone_from(&azure.tables_endpoint);
    }
    options.prefix.clone_from(&azure.pool);
    TableStore::open(&options)
}

/// The machines, entered with the gateway's key to them, which is made when it is missing.
fn hosts(config: &Config, place: &Place) -> Result<AzureHosts> {
    let key = ensure_key(&place.join(MACHINE_KEY_FILE), "boxpool-gateway to machine")?;
    let bad = |error: russh::keys::ssh_key::Error| {
        Error::new(ErrorKind::Corrupt, "read key", MACHINE_KEY_FILE).with_detail(error.to_string())
    };
    let public = key.public_key().to_openssh().map_err(bad)?;
    let private = key.to_openssh(LineEnding::LF).map_err(bad)?;
    let mut access = HostAccess::new(Secret::new(private.as_str()));
    access.port = config.azure.ssh_port;
    Ok(AzureHosts::new(cloud(config, &public)?, access))
}

/// The tables of a gateway: the pool's, and the accounts.
#[must_use]
pub fn all_tables() -> Vec<Table> {
    use crate::account::record::ACCOUNTS;
    use boxpool::record::{BOXES, DEMAND, EVENTS, GOLDENS, HOMES, INSTANCES, LEASES, NODES, SNAPSHOTS, VOLUMES};
    vec![BOXES, VOLUMES, INSTANCES, GOLDENS, SNAPSHOTS, NODES, LEASES, HOMES, DEMAND, EVENTS, ACCOUNTS]
}

/// Opens everything, and makes tables and keys that are missing.
///
/// # Errors
/// The backends' own, each with what to do.
pub async fn open(config: &Config, place: &Place, keys: &Keys) -> Result<Backends> {
    let hosts = hosts(config, place)?;
    let cloud = hosts.cloud().clone();
    let store = tables(config)?;
    store.make_tables(&all_tables()).await?;

    let mut options = HostedOptions::default();
    options.user.clone_from(&config.boxes.qemu_user);
    options.accel = accel(config);
    options.network = network(config);
    let spec = golden_spec(config, place, keys)?;
    let fill = Fill::new(spec, place.join("image"), options.clone());
    let gib = u64::from(config.boxes.disk_gib) + u64::from(config.boxes.memory_mib).div_ceil(1024) * 3 + 3;
    let golden = AzureGolden::new(hosts.clone(), Arc::new(fill), gib << 30)?;
    let runtime = HostedQemu::new(Arc::new(hosts.clone()), options);
    tracing::info!(pool = %config.azure.pool, location = %config.azure.location, "boxes are run on machines of Azure");
    Ok(Backends {
        store: Arc::new(store) as Arc<dyn StateStore>,
        instances: Arc::new(hosts),
        volumes: Arc::new(cloud.clone()),
        copier: Some(Arc::new(cloud)),
        runtime: Arc::new(runtime.clone()),
        // Of a pool that sees to its golden snapshot itself, the builder says both.
        source: VolumeSource::Snapshot(
            SnapshotId::new("golden")
                .map_err(|error| Error::new(ErrorKind::Invalid, "name golden snapshot", "golden").with_source(error))?,
        ),
        generation: EDITION.to_owned(),
        golden: Some(Arc::new(golden)),
        remote: Some(Arc::new(Way(runtime))),
    })
}

/// To boxes, over their machines.
struct Way(HostedQemu);

#[async_trait]
impl Remote for Way {
    async fn open(&self, instance: &InstanceId, address: SocketAddr) -> Result<Box<dyn Stream>> {
        Ok(Box::new(self.0.open(instance, address).await?))
    }
}

/// Puts a golden snapshot of QEMU on the data disk of a temporary machine.
struct Fill {
    spec: GoldenSpec,
    image_dir: PathBuf,
    options: HostedOptions,
    digest: String,
}

impl Fill {
    fn new(spec: GoldenSpec, image_dir: PathBuf, options: HostedOptions) -> Self {
        let mut digest = Sha256::new();
        for part in [
            EDITION,
            &spec.recipe.digest(),
            &spec.memory_mib.to_string(),
            &spec.cpus.to_string(),
            &format!("{:?} {:?}", options.accel, options.network),
        ] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { spec, image_dir, options, digest }
    }
}

#[async_trait]
impl Prepare for Fill {
    fn digest(&self) -> &str {
        &self.digest
    }

    async fn prepare(&self, host: Arc<dyn Host>, paths: &[PathBuf]) -> Result<()> {
        let dir = self.image_dir.join(self.spec.recipe.digest());
        let made =
            image::make(&self.spec.recipe, &dir, &|progress| eprintln!("{}", plain(&progress.to_string()))).await;
        let image = made.map_err(Error::from)?;
        let tell = |progress: boxpool_qemu::Progress| eprintln!("{}", plain(&progress.text));
        prepare_disk(host, paths, &self.spec, &image, &self.options, &tell).await.map(drop)
    }
}
