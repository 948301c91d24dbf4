//! The gateway as a program: pool, SSH side and their end.
//!
//! Stop: no new connections → users told, their connections end → boxes suspended ([`Pool::drain`]) → worker ends. What
//! is not done within the limit stays on record, and the next start, or another gateway, finishes it.

use crate::account::Accounts;
use crate::audit::AuditLog;
use crate::boxes::Boxes;
use crate::config::{Backend, Config, RecycleMode};
use crate::monitor::Monitor;
use crate::operator::Operator;
use crate::overview::Overview;
use crate::place::Place;
use crate::regions::RegionalBoxes;
use crate::registration::Registration;
use crate::server::Gateway;
use crate::upstream::{Remote, Ways};
use crate::wake::Wakes;
use crate::wake::http::Door;
use boxpool::{
    Error, ErrorKind, GoldenBuilder, GuestRuntime, InstanceProvider, Pool, PoolConfig, Recycle, Region, Regions,
    RegionsWorker, Result, SnapshotCopier, StateStore, SystemClock, VolumeProvider, VolumeSource, WarmTarget, Worker,
};
use futures::future::{join_all, select_all};
use russh::keys::PrivateKey;
use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// How long the pool's worker and the audit log may take to end once nothing is suspended any more. Part of `drain_limit`.
const END_LIMIT: Duration = Duration::from_secs(2);

/// How long what wakes boxes may take to end: it was told to stop when the gateway was, so mostly it has.
const WAKES_LIMIT: Duration = Duration::from_secs(1);

/// What a gateway's boxes are made of.
pub struct Backends {
    /// Where records are kept.
    pub store: Arc<dyn StateStore>,
    /// Machines.
    pub instances: Arc<dyn InstanceProvider>,
    /// Disks.
    pub volumes: Arc<dyn VolumeProvider>,
    /// What runs a disk on a machine.
    pub runtime: Arc<dyn GuestRuntime>,
    /// What copies disks from one region to another, if anything does.
    pub copier: Option<Arc<dyn SnapshotCopier>>,
    /// What new disks are filled with.
    pub source: VolumeSource,
    /// Edition of that.
    pub generation: String,
    /// Who builds what new disks are filled with, where the pool sees to that itself.
    pub golden: Option<Arc<dyn GoldenBuilder>>,
    /// The way to boxes on machines of their own.
    pub remote: Option<Arc<dyn Remote>>,
}

/// A region, and what its boxes are made of.
pub struct Site {
    /// What it is called; nothing where it is the only one.
    pub region: Option<Region>,
    /// The configuration of a gateway that had it alone.
    pub config: Config,
    /// What its boxes are made of.
    pub backends: Backends,
}

/// The gateway's own keys.
pub struct Keys {
    /// Those clients see.
    pub host: Vec<PrivateKey>,
    /// The one boxes know.
    pub boxes: Arc<PrivateKey>,
}

impl Keys {
    /// Reads the keys, or makes them.
    ///
    /// # Errors
    /// As [`crate::hostkey::ensure_key`].
    pub fn ensure(place: &Place) -> Result<Self> {
        use crate::hostkey::{BOX_KEY_FILE, HOST_KEY_FILE, ensure_key};
        Ok(Self {
            host: vec![ensure_key(&place.join(HOST_KEY_FILE), "boxpool-gateway")?],
            boxes: Arc::new(ensure_key(&place.join(BOX_KEY_FILE), "boxpool-gateway to box")?),
        })
    }
}

impl Keys {
    /// The same, with an RSA key for clients if `config` wants one.
    ///
    /// # Errors
    /// As [`crate::hostkey::ensure_rsa_key`].
    pub fn as_configured(mut self, config: &Config, place: &Place) -> Result<Self> {
        use crate::hostkey::{RSA_HOST_KEY_FILE, ensure_rsa_key};
        if config.rsa_host_key {
            self.host.push(ensure_rsa_key(&place.join(RSA_HOST_KEY_FILE), "boxpool-gateway")?);
        }
        Ok(self)
    }
}

/// Takes the address to listen on. Done before anything else is touched, so that a second gateway by mistake changes
/// nothing.
///
/// # Errors
/// One sentence: the port is taken, or may not be used.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let what = match error.kind() {
            std::io::ErrorKind::AddrInUse => "is in use by another program; choose another with --listen".to_owned(),
            std::io::ErrorKind::PermissionDenied => "may not be used by this user; choose a port above 1023".to_owned(),
            _ => format!("cannot be listened on: {error}"),
        };
        Error::new(ErrorKind::Permanent, "listen", address).with_detail(format!("the address {address} {what}"))
    })
}

/// The pool's settings for `config`.
#[must_use]
pub fn pool_config(config: &Config, source: VolumeSource, generation: String) -> PoolConfig {
    let mut pool = PoolConfig::new(source, generation);
    let azure = &config.azure;
    pool.instances = match config.backend {
        Backend::Local => WarmTarget::new(config.slots, config.slots, config.slots),
        Backend::Azure => WarmTarget {
            min_reserve: azure.machines_min_stopped,
            max_reserve: azure.machines_max_stopped,
            creates_per_minute: NonZeroU32::new(azure.machines_per_minute),
            goal: azure.machines_goal.goal(),
            ..WarmTarget::new(azure.machines_min_free, azure.machines_max_free, azure.machines_max)
        },
    };
    if config.backend == Backend::Azure {
        pool.recycle = match azure.recycle {
            RecycleMode::Reuse => Recycle::ReuseWhenClean,
            RecycleMode::Reimage | RecycleMode::Destroy => Recycle::Destroy,
        };
    }
    pool.volumes.min_free = config.min_free;
    pool.volumes.max_free = config.min_free + 3;
    pool.linger = config.linger.0;
    pool.park_limit = config.park_limit.0;
    pool.held_share = f64::from(config.parked_percent) / 100.0;
    pool.retention = config.retention.0;
    pool.reads_per_second = config.reads_per_second;
    pool.connect_deadline = config.connect_deadline.0;
    pool
}

/// The settings that the pool of `backends` has.
fn settled(config: &Config, backends: &Backends) -> PoolConfig {
    let generation = backends.golden.as_ref().map_or(backends.generation.as_str(), |golden| golden.generation());
    pool_config(config, backends.source.clone(), generation.to_owned())
}

async fn build(Site { region, config, backends }: Site) -> Result<(Pool, Worker)> {
    let pool_config = settled(&config, &backends);
    let mut builder =
        Pool::builder(backends.store, backends.instances, backends.volumes, backends.runtime, pool_config)
            .parking_policy(config.parking.policy());
    if let Some(region) = region {
        builder = builder.region(region);
    }
    match backends.golden {
        Some(golden) => builder.golden(golden).build().await,
        None => builder.build().await,
    }
}

/// Waits until new disks can be made, at most so long. Where the pool itself sees to their source this takes the pool's part in
/// building it, beside every other gateway that does.
///
/// # Errors
/// `TimedOut`; when the pool cannot be built.
pub async fn provide_golden(site: Site, limit: Duration) -> Result<()> {
    if site.backends.golden.is_none() {
        return Ok(());
    }
    let (pool, worker) = build(site).await?;
    let worker = tokio::spawn(worker.run());
    let provided = pool.golden(limit).await;
    pool.drain(Duration::from_secs(10)).await;
    drop(pool);
    let _ = tokio::time::timeout(Duration::from_secs(5), worker).await;
    provided.map(drop)
}

/// One region that is served.
struct Served {
    region: Option<Region>,
    pool: Pool,
    worker: JoinHandle<()>,
    copier: Option<Arc<dyn SnapshotCopier>>,
    overview: Arc<Overview>,
}

impl Served {
    async fn begin(site: Site) -> Result<Self> {
        let (region, store, copier) =
            (site.region.clone(), Arc::clone(&site.backends.store), site.backends.copier.clone());
        let pool_config = settled(&site.config, &site.backends);
        let (pool, worker) = build(site).await?;
        let overview = Arc::new(Overview::new(pool.clone(), store, pool_config).of_region(region.clone()));
        Ok(Self { region, pool, worker: tokio::spawn(worker.run()), copier, overview })
    }
}

/// The boxes of all that is served: those of the pool, or those of the pools of several regions, and then what looks after where
/// they live.
fn boxes_of(store: Arc<dyn StateStore>, served: &[Served]) -> Result<(Arc<dyn Boxes>, Option<RegionsWorker>)> {
    let first = served.first().ok_or_else(|| Error::new(ErrorKind::Invalid, "serve", "regions"))?;
    let Some(first_region) = &first.region else { return Ok((Arc::new(first.pool.clone()), None)) };
    let mut builder = Regions::builder(store);
    for Served { region, pool, copier, .. } in served {
        builder = match (region.clone(), copier.clone()) {
            (Some(region), Some(copier)) => builder.region_with_copies(region, pool.clone(), copier),
            (Some(region), None) => builder.region(region, pool.clone()),
            (None, _) => builder,
        };
    }
    let (regions, worker) = builder.build()?;
    Ok((Arc::new(RegionalBoxes::new(regions, first_region.clone())), Some(worker)))
}

/// Serves until `stop` completes, then ends in good order within the configured limit. The accounts, and with several regions where
/// each box lives, are in the first one's store.
///
/// # Errors
/// When a pool cannot be built, or its worker ends by itself; `Invalid` without a site.
pub async fn serve(
    config: &Config,
    keys: Keys,
    sites: Vec<Site>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let (settings, admins) = (config.settings()?, config.admins()?);
    let audit = match &config.audit_log {
        Some(path) => AuditLog::open(path, config.audit_commands)?,
        None => AuditLog::default(),
    };
    let monitored = match config.metrics_listen {
        Some(address) => Some(crate::monitor::listen(address).await?),
        None => None,
    };
    let mut doors = Vec::new();
    for http in &config.http {
        doors.push(Door::open(http).await?);
    }
    let none = || Error::new(ErrorKind::Invalid, "serve", "regions").with_detail("there is nothing to serve");
    let store = sites.first().map(|site| Arc::clone(&site.backends.store)).ok_or_else(none)?;
    let remote = Ways::of(sites.iter().filter_map(|site| site.backends.remote.clone()));
    let mut served = Vec::new();
    for site in sites {
        served.push(Served::begin(site).await?);
    }
    let (boxes, homes) = boxes_of(Arc::clone(&store), &served)?;
    let homes = homes.map(|worker| AbortOnDrop(tokio::spawn(worker.run())));
    let mut operator = Operator::new(audit.clone()).obeying(admins);
    for each in &served {
        operator = operator.seeing(Arc::clone(&each.overview));
    }
    let gateway = Gateway::reaching(remote, boxes, Accounts::new(store), settings, keys.boxes, operator);
    // Serves to the very end, so that it can be seen that and why the gateway is not ready any more.
    let mut monitor = JoinSet::new();
    if let Some(monitored) = monitored {
        monitor.spawn(Monitor::new(Arc::clone(&gateway))?.serve(monitored));
    }
    let wakes = Wakes::begin(&gateway, doors, &config.schedule, Arc::new(SystemClock));
    for Served { region, pool, .. } in &served {
        let region = region.as_ref().map(tracing::field::display);
        tracing::info!(listen = %config.listen, node = %pool.node(), region, "serving");
    }
    announce(&gateway);

    let stop = async {
        tokio::select! {
            () = stop => {}
            () = gateway.operator.drain_asked() => tracing::info!("told to stop by an administrator"),
        }
    };
    let serving = gateway.serve(listener, keys.host, stop);
    let began = tokio::select! {
        began = serving => began,
        (ended, _, _) = select_all(served.iter_mut().map(|each| &mut each.worker)) => {
            let why = ended.err().map_or_else(|| "it stopped".to_owned(), |error| error.to_string());
            let detail = format!("the pool's worker ended: {why}");
            return Err(Error::new(ErrorKind::Permanent, "serve", config.listen).with_detail(detail));
        }
    };
    wakes.ended(WAKES_LIMIT).await;
    let limit = config.drain_limit.0.saturating_sub(began.elapsed() + END_LIMIT).max(Duration::from_secs(1));
    let reports = join_all(served.iter().map(|each| each.pool.drain(limit))).await;
    for (user, name) in reports.iter().flat_map(|report| &report.unfinished) {
        tracing::warn!(%user, box_name = %name, "not suspended in time; it stays as it is, and the next start takes it up");
    }
    let workers: Vec<_> = served.into_iter().map(|each| each.worker).collect();
    drop((monitor, gateway, homes));
    // The worker takes the node's record along; without that others see its heartbeat stand still.
    let left = config.drain_limit.0.saturating_sub(began.elapsed()).max(END_LIMIT);
    let ending = async { tokio::join!(tokio::time::timeout(END_LIMIT, join_all(workers)), audit.close()) };
    if tokio::time::timeout(left, ending).await.is_err() {
        tracing::error!("the audit log's disk stands still; its last lines may be lost");
    }
    let suspended: usize = reports.iter().map(|report| report.left).sum();
    let unfinished: usize = reports.iter().map(|report| report.unfinished.len()).sum();
    tracing::info!(suspended, unfinished, "stopped");
    Ok(())
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One line on standard output when ready, for people to copy and programs to wait for.
fn announce(gateway: &Gateway) {
    let settings = &gateway.settings;
    if matches!(settings.registration, Registration::ByName) {
        eprintln!("make your account with: {}", settings.ssh_line("new"));
    }
    eprintln!("make your first box with: {} spinup dev1", settings.ssh_line("gateway"));
    // A reader that has left is no reason to stop.
    let _ = writeln!(std::io::stdout(), "ready: {}", settings.ssh_line("dev1"));
}
