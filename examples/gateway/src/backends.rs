//! What the program's boxes are made of: the embedded store, and QEMU on this machine.

use crate::config::{Accel, Backend, Config, Network, Recipe};
use crate::hostkey::BOX_KEY_FILE;
use crate::place::Place;
use crate::plain::plain;
use crate::serve::{Backends, Keys, Site};
use boxpool::{BoxName, Error, ErrorKind, Result, StateStore, UserId, VolumeSource};
use boxpool_qemu::{CloudImage, GoldenSpec, Kind, LocalQemu, QemuOptions};
use boxpool_sqlite::SqliteStore;
use std::path::Path;
use std::sync::Arc;

/// Where the golden snapshots are in the state directory.
const SNAPSHOTS: &str = "snapshots";
/// The store's file in the state directory.
pub const STORE_FILE: &str = "state.sqlite";
const WITHOUT_AZURE: &str = "this boxpool-gateway was built without Azure; build it with: cargo build --release -p boxpool-gateway --features azure";

/// Opens the store, or makes it, readable for its owner only.
///
/// # Errors
/// The store's own.
pub fn open_store(place: &Place) -> Result<Arc<dyn StateStore>> {
    Ok(Arc::new(SqliteStore::open(place.join(STORE_FILE))?))
}

/// Opens everything of all regions, and makes what is missing: the golden snapshot takes about a minute, and shows how far it is.
///
/// # Errors
/// The backends' own, each with what to do.
pub async fn open(config: &Config, place: &Place, keys: &Keys) -> Result<Vec<Site>> {
    let mut sites = Vec::new();
    for (region, alone) in config.alone()? {
        let own = match &region {
            Some(region) => config.place_of(region, place)?,
            None => place.clone(),
        };
        let backends = open_one(&alone, place, &own, keys).await?;
        sites.push(Site { region, config: alone, backends });
    }
    Ok(sites)
}

/// The keys are in `place`, the boxes of this region and their records in `own`, if they are on this machine.
async fn open_one(config: &Config, place: &Place, own: &Place, keys: &Keys) -> Result<Backends> {
    match config.backend {
        Backend::Local => open_local(config, place, own, keys).await,
        #[cfg(feature = "azure")]
        Backend::Azure => crate::azure::open(config, place, keys).await,
        #[cfg(not(feature = "azure"))]
        Backend::Azure => Err(Error::new(ErrorKind::Invalid, "open backend", "azure").with_detail(WITHOUT_AZURE)),
    }
}

/// Makes a box of a disk that was there before, or takes back what an attempt began; on Azure alone. `config` is one region's.
///
/// # Errors
/// `Invalid` when the backend has nothing to adopt from; the backend's own.
pub async fn adopt_volume(config: &Config, disk: &str, whose: (&UserId, &BoxName), abandon: bool) -> Result<String> {
    let (user, name) = whose;
    match (config.backend, abandon) {
        #[cfg(feature = "azure")]
        (Backend::Azure, false) => crate::azure::adopt_volume(config, disk, user, name).await,
        #[cfg(feature = "azure")]
        (Backend::Azure, true) => crate::azure::abandon_volume(config, disk, user, name).await,
        _ => Err(nothing_to_adopt(config, &format_args!("{disk}, for {name} of {user}"))),
    }
}

/// Makes a machine that was there before one of the pool's, or takes back what an attempt began; on Azure alone.
///
/// # Errors
/// As [`adopt_volume`].
pub async fn adopt_instance(config: &Config, state_dir: &Path, machine: &str, abandon: bool) -> Result<String> {
    match (config.backend, abandon) {
        #[cfg(feature = "azure")]
        (Backend::Azure, false) => crate::azure::adopt_instance(config, &Place::ensure(state_dir)?, machine).await,
        #[cfg(feature = "azure")]
        (Backend::Azure, true) => crate::azure::abandon_instance(config, machine).await,
        _ => Err(nothing_to_adopt(config, &format_args!("{machine}, in {}", state_dir.display()))),
    }
}

fn nothing_to_adopt(config: &Config, what: &dyn std::fmt::Display) -> Error {
    let detail = match config.backend {
        Backend::Local => "disks and machines can be adopted where backend is \"azure\"; set it in the configuration",
        Backend::Azure => WITHOUT_AZURE,
    };
    Error::new(ErrorKind::Invalid, "adopt", what).with_detail(detail)
}

async fn open_local(config: &Config, place: &Place, own: &Place, keys: &Keys) -> Result<Backends> {
    let store = open_store(own)?;
    let mut options = QemuOptions::new(own.path());
    // All regions have one, so that a disk of one shows the same in another.
    options.snapshot_dir = (own != place).then(|| place.join(SNAPSHOTS));
    options.accel = accel(config);
    options.user.clone_from(&config.boxes.qemu_user);
    options.network = network(config);
    options.keep_free_bytes = config.boxes.keep_free_mib << 20;
    let qemu = Arc::new(LocalQemu::open(options).await?);
    let spec = golden_spec(config, place, keys)?;
    let golden = qemu.ensure_golden(&spec, &|progress| eprintln!("{}", plain(&progress.text))).await?;
    tracing::info!(%golden, accel = %qemu.accel(), unprivileged = qemu.runs_unprivileged(), "boxes are run by QEMU here");
    Ok(Backends {
        store,
        instances: qemu.clone(),
        volumes: qemu.clone(),
        copier: Some(qemu.clone()),
        runtime: qemu,
        generation: golden.to_string(),
        source: VolumeSource::Snapshot(golden),
        golden: None,
        remote: None,
    })
}

pub(crate) fn accel(config: &Config) -> Option<boxpool_qemu::Accel> {
    match config.boxes.accel {
        Accel::Auto => None,
        Accel::Kvm => Some(boxpool_qemu::Accel::Kvm),
        Accel::Tcg => Some(boxpool_qemu::Accel::Tcg),
    }
}

pub(crate) fn network(config: &Config) -> boxpool_qemu::Network {
    match config.boxes.network {
        Network::Isolated => boxpool_qemu::Network::Isolated,
        Network::Open => boxpool_qemu::Network::Open,
    }
}

pub(crate) fn golden_spec(config: &Config, place: &Place, keys: &Keys) -> Result<GoldenSpec> {
    let key = keys.boxes.public_key().to_openssh();
    let authorized_key =
        key.map_err(|error| Error::new(ErrorKind::Corrupt, "read key", BOX_KEY_FILE).with_detail(error.to_string()))?;
    let recipe = boxpool_qemu::Recipe {
        kind: match config.boxes.recipe {
            Recipe::Debian => Kind::Debian,
            Recipe::Tiny => Kind::Tiny,
            Recipe::CloudImage => Kind::Cloud(cloud_image(config)?),
        },
        disk_bytes: u64::from(config.boxes.disk_gib) << 30,
        authorized_key,
        mirror: config.boxes.mirror.clone(),
    };
    let (memory_mib, cpus) = (config.boxes.memory_mib, config.boxes.cpus);
    Ok(GoldenSpec { recipe, memory_mib, cpus, private_key: place.join(BOX_KEY_FILE) })
}

fn cloud_image(config: &Config) -> Result<CloudImage> {
    match &config.boxes.image {
        Some(place) => CloudImage::new(place, config.boxes.image_sha256.as_deref()),
        None => CloudImage::ubuntu(config.boxes.image_sha256.as_deref()),
    }
    .map_err(Error::from)
}
