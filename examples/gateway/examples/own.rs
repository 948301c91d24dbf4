//! A gateway of your own, from the library's parts: who is in a file of public keys has one box, which is called `home`, is
//! made at the first connect and stays.
//!
//! `cargo run -p boxpool-gateway --example own -- STATE-DIRECTORY FILE-OF-PUBLIC-KEYS 127.0.0.1:2222`, and then
//! `ssh -p 2222 home@127.0.0.1`. What is yours here is who is let in ([`Registration`]), what they may do with boxes
//! ([`HomeOnly`]) and what boxes are made of ([`qemu`]); everything between, from the listener to the box's own SSH server, is the library.

use async_trait::async_trait;
use boxpool::{BoxName, Error, ErrorKind, Pool, PoolConfig, Result, UserId, VolumeSource, WarmTarget};
use boxpool_gateway::account::Accounts;
use boxpool_gateway::backends::open_store;
use boxpool_gateway::boxes::{BoxSession, BoxSummary, Boxes, PoolNumbers, Wish};
use boxpool_gateway::place::Place;
use boxpool_gateway::registration::Registration;
use boxpool_gateway::serve::{Keys, listen};
use boxpool_gateway::server::{Gateway, Settings, SocketOrHost};
use boxpool_gateway::stop::{block_on, stop_signal};
use boxpool_qemu::{GoldenSpec, Kind, LocalQemu, QemuOptions, Recipe};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// What everybody's box is called.
const HOME: &str = "home";

/// How long suspending the boxes may take at a stop. What is not done then is finished by the next start.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(state), Some(people), Some(Ok(address))) =
        (arguments.next(), arguments.next(), arguments.next().map(|text| text.parse()))
    else {
        eprintln!("usage: own STATE-DIRECTORY FILE-OF-PUBLIC-KEYS ADDRESS:PORT");
        return ExitCode::from(2);
    };
    match block_on(serve(&PathBuf::from(state), &PathBuf::from(people), address)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("own: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(state: &Path, people: &Path, address: SocketAddr) -> Result<()> {
    // First what may fail without having changed anything.
    let registration = Registration::read_allow_list(people)?;
    let listener = listen(address).await?;
    let stop = stop_signal()?;

    // What lasts: keys, records and disks, in a directory that is its owner's alone.
    let place = Place::ensure(state)?;
    let keys = Keys::ensure(&place)?;
    let store = open_store(&place)?;
    let (qemu, source) = qemu(&place, &keys).await?;

    // The pool, and its worker, which looks after what nobody waits for.
    let mut config = PoolConfig::new(VolumeSource::Snapshot(source.clone()), source.as_str());
    config.instances = WarmTarget::new(4, 4, 4); // so many boxes run at once
    config.linger = Duration::from_secs(2);
    let (pool, worker) = Pool::builder(Arc::clone(&store), qemu.clone(), qemu.clone(), qemu, config).build().await?;
    let worker = tokio::spawn(worker.run());

    // The gateway: who may log in, to what, and within which limits.
    let settings = Settings {
        registration,
        spinup_on_connect: true,
        boxes_per_user: 1,
        shown_address: SocketOrHost { host: address.ip().to_string(), port: address.port() },
        ..Settings::default()
    };
    let line = settings.ssh_line(HOME);
    let boxes = Arc::new(HomeOnly(pool.clone()));
    let gateway = Gateway::new(boxes, Accounts::new(store), settings, keys.boxes);
    println!("ready: {line}");
    gateway.serve(listener, keys.host, stop).await;

    // Nobody is connected any more. Boxes are suspended, then the worker ends by itself.
    let report = pool.drain(DRAIN_LIMIT).await;
    for (user, name) in &report.unfinished {
        eprintln!("own: {name} of {user} is not suspended yet; the next start takes it up");
    }
    drop((gateway, pool));
    let _ = tokio::time::timeout(Duration::from_secs(5), worker).await;
    Ok(())
}

/// What boxes are made of: QEMU on this machine, and a small system that every new box is a copy of. The first time it is built,
/// which takes about a minute.
async fn qemu(place: &Place, keys: &Keys) -> Result<(Arc<LocalQemu>, boxpool::SnapshotId)> {
    let qemu = Arc::new(LocalQemu::open(QemuOptions::new(place.path())).await?);
    let authorized_key =
        keys.boxes.public_key().to_openssh().map_err(|error| {
            Error::new(ErrorKind::Corrupt, "read key", "key for boxes").with_detail(error.to_string())
        })?;
    let recipe =
        Recipe { kind: Kind::Tiny, disk_bytes: 2 << 30, authorized_key, mirror: "http://deb.debian.org/debian".into() };
    let private_key = place.join(boxpool_gateway::hostkey::BOX_KEY_FILE);
    let spec = GoldenSpec { recipe, memory_mib: 192, cpus: 1, private_key };
    let golden = qemu.ensure_golden(&spec, &|progress| eprintln!("{}", progress.text)).await?;
    Ok((qemu, golden))
}

/// The policy: everybody has one box, of one name, that stays. Verbs that are left out are refused by the library, in words.
struct HomeOnly(Pool);

#[async_trait]
impl Boxes for HomeOnly {
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        if name.as_str() != HOME {
            let detail = format!("your box is called {HOME}, and there is no other");
            return Err(Error::new(ErrorKind::Invalid, "create box", name).with_detail(detail));
        }
        Boxes::create(&self.0, owner, name).await
    }

    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        Boxes::list(&self.0, owner).await
    }

    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>> {
        Boxes::get(&self.0, owner, name).await
    }

    async fn delete(&self, _: &UserId, name: &BoxName) -> Result<()> {
        let detail = "your box stays; ask the operator to take it away";
        Err(Error::new(ErrorKind::Unauthorized, "delete box", name).with_detail(detail))
    }

    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>> {
        Boxes::connect(&self.0, wish).await
    }

    async fn status(&self) -> Result<PoolNumbers> {
        Boxes::status(&self.0).await
    }
}
