//! Real guests for tests: one tiny golden snapshot, built once and shared by every test of the run.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its own part

pub mod faults;
pub mod stranger;

use boxpool::{
    Attach, BoxId, BoxName, BoxRef, Endpoint, EndpointAddress, Epoch, Guest, GuestRuntime, InstanceId,
    InstanceProvider, InstanceSpec, SnapshotId, UserId, VolumeId, VolumeProvider, VolumeSource, VolumeSpec,
};
use boxpool_qemu::{GoldenSpec, Kind, LocalQemu, QemuOptions, Recipe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A host with a state directory of its own and the shared snapshot.
pub struct Bench {
    pub qemu: LocalQemu,
    pub golden: SnapshotId,
    pub key: PathBuf,
    pub dir: tempfile::TempDir,
}

/// The folder that outlives a test run, so that a second run need not build anew.
fn shared() -> PathBuf {
    // target/tmp, shared by all crates of the workspace.
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("boxpool-golden")
}

/// The key that the golden guest accepts: made once, and the same for every crate's tests.
pub fn key() -> PathBuf {
    let folder = shared();
    std::fs::create_dir_all(&folder).unwrap();
    let key = folder.join("box_key");
    let lock = std::fs::File::create(folder.join("box_key.lock")).unwrap();
    lock.lock().unwrap();
    if !key.exists() {
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "boxpool-tests", "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
    }
    key
}

pub fn spec(key: &Path) -> GoldenSpec {
    let authorized_key = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let mirror = std::env::var("BOXPOOL_MIRROR").unwrap_or_else(|_| "http://deb.debian.org/debian".into());
    let recipe = Recipe { kind: Kind::Tiny, disk_bytes: 2 << 30, authorized_key, mirror };
    GoldenSpec { recipe, memory_mib: 192, cpus: 1, private_key: key.to_owned() }
}

impl Bench {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (key, mut options) = (key(), QemuOptions::new(dir.path()));
        options.snapshot_dir = Some(shared().join("snapshots"));
        let qemu = LocalQemu::open(options).await.unwrap();
        let tell = |progress: boxpool_qemu::Progress| eprintln!("golden: {}: {}", progress.phase, progress.text);
        let golden = qemu.ensure_golden(&spec(&key), &tell).await.unwrap();
        Self { qemu, golden, key, dir }
    }

    /// A second handle on the same state directory, as another process would have.
    pub async fn another(&self) -> LocalQemu {
        LocalQemu::open(self.options()).await.unwrap()
    }

    /// What opens this bench's state directory.
    pub fn options(&self) -> QemuOptions {
        let mut options = QemuOptions::new(self.dir.path());
        options.snapshot_dir = Some(shared().join("snapshots"));
        options
    }

    /// The folder of the golden snapshot.
    pub fn golden_dir(&self) -> PathBuf {
        shared().join("snapshots").join(self.golden.as_str())
    }

    /// A file of a volume.
    pub fn file(&self, volume: &VolumeId, name: &str) -> PathBuf {
        self.dir.path().join("volumes").join(volume.as_str()).join(name)
    }

    pub async fn slot(&self) -> InstanceId {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = InstanceId::new(format!("i{:05}-t", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap();
        InstanceProvider::ensure(&self.qemu, &InstanceSpec::new(id.clone(), "1")).await.unwrap();
        id
    }

    pub async fn volume(&self) -> VolumeId {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = VolumeId::new(format!("v-{:016x}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap();
        let source = VolumeSource::Snapshot(self.golden.clone());
        VolumeProvider::ensure(&self.qemu, &VolumeSpec::new(id.clone(), source)).await.unwrap();
        id
    }

    /// A box of its own, attached, in epoch 1.
    pub async fn guest(&self, name: &str) -> Guest {
        let (slot, volume) = (self.slot().await, self.volume().await);
        self.qemu.attach(&Attach::new(volume.clone(), slot.clone(), Epoch(1))).await.unwrap();
        Guest::new(slot, volume, owner(name), Epoch(1))
    }

    pub async fn start(&self, guest: &Guest) -> boxpool::Started {
        GuestRuntime::start(&self.qemu, guest).await.unwrap()
    }

    /// Runs a command in the guest with the real SSH client, its host key checked.
    pub fn ssh(&self, endpoint: &Endpoint, command: &str) -> String {
        let output = self.try_ssh(endpoint, command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn try_ssh(&self, endpoint: &Endpoint, command: &str) -> std::process::Output {
        let EndpointAddress::Tcp(address) = &endpoint.address else { panic!("a TCP address") };
        let known = self.dir.path().join(format!("known-{}", address.port()));
        std::fs::write(&known, format!("[127.0.0.1]:{} {}\n", address.port(), endpoint.host_key)).unwrap();
        std::process::Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "ConnectTimeout=30", "-o", &format!("UserKnownHostsFile={}", known.display())])
            .args(["-p", &address.port().to_string(), "-i"])
            .arg(&self.key)
            .args([&format!("{}@127.0.0.1", endpoint.login), command])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    }

    /// The process that runs a volume's guest.
    pub fn pid(&self, volume: &VolumeId) -> Option<u32> {
        self.pids(&format!("/{volume}/")).first().copied()
    }

    /// The QEMUs of this bench, and of no other: those whose command line names its own folder, and this part too.
    pub fn pids(&self, part: &str) -> Vec<u32> {
        let folder = format!("{}/", self.dir.path().display());
        let ours = |entry: std::fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line);
            (line.starts_with("qemu-system") && line.contains(&folder) && line.contains(part)).then_some(pid)
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(ours).collect()
    }

    pub fn kill(&self, volume: &VolumeId) {
        let pid = self.pid(volume).expect("it runs");
        assert!(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // No QEMU of this test outlives it. By pid, so that nobody else's is ever met.
        for pid in self.pids("") {
            let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}

pub fn owner(name: &str) -> BoxRef {
    BoxRef {
        owner: UserId::new("tester").unwrap(),
        name: BoxName::new(name).unwrap(),
        id: BoxId::new(format!("b-{name}")).unwrap(),
    }
}

pub fn later(guest: &Guest, epoch: u64) -> Guest {
    let mut guest = guest.clone();
    guest.epoch = Epoch(epoch);
    guest
}
