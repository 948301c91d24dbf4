//! What the program's boxes are made of: the embedded store, and QEMU on this machine.

use crate::config::{Accel, Config, Network, Recipe};
use crate::hostkey::BOX_KEY_FILE;
use crate::place::Place;
use crate::serve::{Backends, Keys};
use boxpool::{Error, ErrorKind, Result, StateStore, VolumeSource};
use boxpool_qemu::{GoldenSpec, Kind, LocalQemu, QemuOptions};
use boxpool_sqlite::SqliteStore;
use std::sync::Arc;

/// The store's file in the state directory.
pub const STORE_FILE: &str = "state.sqlite";

/// Where Debian's packages come from when the configuration does not say.
const MIRROR: &str = "http://deb.debian.org/debian";

/// Opens the store, or makes it.
///
/// # Errors
/// The store's own.
pub async fn open_store(place: &Place) -> Result<Arc<dyn StateStore>> {
    Ok(Arc::new(SqliteStore::open(place.join(STORE_FILE)).await?))
}

/// Opens everything, and makes what is missing. The golden snapshot takes about a minute the first time, and says how it
/// goes on standard error.
///
/// # Errors
/// The backends' own.
pub async fn open(config: &Config, place: &Place, keys: &Keys) -> Result<Backends> {
    let store = open_store(place).await?;
    let mut options = QemuOptions::new(place.path());
    options.accel = match config.boxes.accel {
        Accel::Auto => None,
        Accel::Kvm => Some(boxpool_qemu::Accel::Kvm),
        Accel::Tcg => Some(boxpool_qemu::Accel::Tcg),
    };
    options.user.clone_from(&config.boxes.qemu_user);
    options.network = match config.boxes.network {
        Network::Isolated => boxpool_qemu::Network::Isolated,
        Network::Open => boxpool_qemu::Network::Open,
    };
    let qemu = Arc::new(LocalQemu::open(options).await?);
    let golden = qemu.ensure_golden(&golden_spec(config, place, keys)?, &tell).await?;
    Ok(Backends {
        store,
        instances: qemu.clone(),
        volumes: qemu.clone(),
        runtime: qemu,
        generation: golden.to_string(),
        source: VolumeSource::Snapshot(golden),
    })
}

fn golden_spec(config: &Config, place: &Place, keys: &Keys) -> Result<GoldenSpec> {
    let authorized_key =
        keys.boxes.public_key().to_openssh().map_err(|error| {
            Error::new(ErrorKind::Permanent, "read key", BOX_KEY_FILE).with_detail(error.to_string())
        })?;
    let kind = match config.boxes.recipe {
        Recipe::Debian => Kind::Debian,
        Recipe::Tiny => Kind::Tiny,
    };
    let recipe = boxpool_qemu::Recipe {
        kind,
        disk_bytes: u64::from(config.boxes.disk_gib) << 30,
        authorized_key,
        mirror: config.boxes.mirror.clone().unwrap_or_else(|| MIRROR.to_owned()),
    };
    Ok(GoldenSpec {
        recipe,
        memory_mib: config.boxes.memory_mib,
        cpus: config.boxes.cpus,
        private_key: place.join(BOX_KEY_FILE),
    })
}

fn tell(progress: boxpool_qemu::Progress) {
    eprintln!("golden snapshot: {}", progress.text);
}
