//! The smallest embedding of boxpool: one box on this host, and a command run in it. Run it twice: the second time the
//! box is as the first run left it.
//!
//! `cargo run -p boxpool-minimal -- /an/absolute/folder`

use boxpool::{BoxName, ConnectRequest, EndpointAddress, Pool, PoolConfig, UserId, VolumeSource};
use boxpool_qemu::{GoldenSpec, Kind, LocalQemu, QemuOptions, Recipe};
use boxpool_sqlite::SqliteStore;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("say where: an absolute folder")?);

    // Backends: QEMU on this host, and a golden snapshot that new boxes are copied from (built the first time).
    let qemu = Arc::new(LocalQemu::open(QemuOptions::new(&folder)).await?);
    let key = folder.join("box_ed25519_key");
    if !key.exists() {
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?;
    }
    let public = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&key).output()?;
    let recipe = Recipe {
        kind: Kind::Tiny,
        disk_bytes: 2 << 30,
        authorized_key: String::from_utf8(public.stdout)?,
        mirror: "http://deb.debian.org/debian".into(),
    };
    let spec = GoldenSpec { recipe, memory_mib: 192, cpus: 1, private_key: key.clone() };
    let golden = qemu.ensure_golden(&spec, &|progress| eprintln!("golden snapshot: {}", progress.text)).await?;

    // The pool and its worker, which is ours to run.
    let store = Arc::new(SqliteStore::open(folder.join("state.sqlite"))?);
    let config = PoolConfig::new(VolumeSource::Snapshot(golden.clone()), golden.as_str());
    let (pool, worker) = Pool::builder(store, qemu.clone(), qemu.clone(), qemu, config).build().await?;
    let worker = tokio::spawn(worker.run());

    // One user, one box, one session.
    let (user, name) = (UserId::new("me")?, BoxName::new("dev1")?);
    if pool.get_box(&user, &name).await?.is_none() {
        pool.create_box(&user, &name).await?;
    }
    let session = pool.connect(ConnectRequest::new(user, name)).await?;
    let endpoint = session.endpoint().clone();
    println!("up after {:?}, from {:?}", session.timings().total, session.via());
    if let EndpointAddress::Tcp(address) = endpoint.address {
        // The box's host key is pinned: nothing else is ever talked to.
        let known = folder.join("known_hosts");
        std::fs::write(&known, format!("[{}]:{} {}\n", address.ip(), address.port(), endpoint.host_key))?;
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-p", &address.port().to_string(), "-i"]).arg(&key);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
        ssh.arg(format!("{}@{}", endpoint.login, address.ip())).arg("echo again >> log; wc -l < log");
        let status = tokio::task::spawn_blocking(move || ssh.status()).await??;
        println!("the command ended with {status}");
    }
    session.release().await;

    // Suspends the box and ends the worker.
    pool.drain(Duration::from_secs(60)).await;
    worker.await?;
    Ok(())
}
