//! The QEMU backend keeps every promise of instances, volumes and runtime, with real guests.

#![allow(clippy::unwrap_used)]

mod guests;
mod sshd;

use async_trait::async_trait;
use boxpool::{
    Endpoint, Guest, GuestRuntime, InstanceId, InstanceProvider, SnapshotCopier, VolumeId, VolumeProvider, VolumeSource,
};
use boxpool_qemu::{LocalQemu, QemuOptions};
use boxpool_sim::conformance::{InstanceBench, RegionsBench, RuntimeBench, VolumeBench};
use guests::Bench;
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(1_000);

#[async_trait]
impl InstanceBench for Bench {
    fn instances(&self) -> &dyn InstanceProvider {
        &self.qemu
    }
    fn fresh_instance(&self) -> InstanceId {
        InstanceId::new(format!("i{:05}-c", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn volumes(&self) -> &dyn VolumeProvider {
        &self.qemu
    }
    fn fresh_volume(&self) -> VolumeId {
        VolumeId::new(format!("v-{:016x}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
    fn source(&self) -> VolumeSource {
        VolumeSource::Snapshot(self.golden.clone())
    }
}

#[async_trait]
impl RuntimeBench for Bench {
    fn runtime(&self) -> &dyn GuestRuntime {
        &self.qemu
    }
    async fn run(&self, endpoint: &Endpoint, command: &str) -> String {
        tokio::task::block_in_place(|| self.ssh(endpoint, command))
    }
    async fn kill(&self, guest: &Guest) {
        Bench::kill(self, &guest.volume);
        while self.pid(&guest.volume).is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// And another state directory on the same machine, which has a golden snapshot of its own.
struct TwoRoots {
    bench: Bench,
    other: LocalQemu,
    dir: tempfile::TempDir,
}

impl TwoRoots {
    async fn new() -> Self {
        let (bench, dir) = (Bench::new().await, tempfile::tempdir().unwrap());
        let own = dir.path().join("snapshots").join(bench.golden.as_str());
        std::fs::create_dir_all(&own).unwrap();
        for part in std::fs::read_dir(bench.golden_dir()).unwrap() {
            let part = part.unwrap();
            std::os::unix::fs::symlink(part.path(), own.join(part.file_name())).unwrap();
        }
        let other = LocalQemu::open(QemuOptions::new(dir.path())).await.unwrap();
        Self { bench, other, dir }
    }
}

#[async_trait]
impl InstanceBench for TwoRoots {
    fn instances(&self) -> &dyn InstanceProvider {
        self.bench.instances()
    }
    fn fresh_instance(&self) -> InstanceId {
        self.bench.fresh_instance()
    }
}

#[async_trait]
impl VolumeBench for TwoRoots {
    fn volumes(&self) -> &dyn VolumeProvider {
        self.bench.volumes()
    }
    fn fresh_volume(&self) -> VolumeId {
        self.bench.fresh_volume()
    }
    fn source(&self) -> VolumeSource {
        self.bench.source()
    }
}

#[async_trait]
impl RegionsBench for TwoRoots {
    fn copier(&self) -> &dyn SnapshotCopier {
        &self.bench.qemu
    }
    fn other_volumes(&self) -> &dyn VolumeProvider {
        &self.other
    }
    fn other_copier(&self) -> &dyn SnapshotCopier {
        &self.other
    }
}

mod copies {
    use super::*;
    use boxpool::{SnapshotId, VolumeSpec, VolumeState};
    use guests::faults::{Fault, FaultyHost, Plan};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    boxpool_sim::copier_conformance!(TwoRoots::new().await);

    impl TwoRoots {
        /// A snapshot of a box that has written to its disk, and where it lies.
        async fn snapshot(&self) -> (SnapshotId, PathBuf) {
            let volume = self.fresh_volume();
            let spec = VolumeSpec::new(volume.clone(), self.source());
            assert_eq!(self.volumes().ensure(&spec).await.unwrap().state, VolumeState::Ready);
            qemu("qemu-io", &["-c", "write -P 7 1M 64k"], &[&self.bench.file(&volume, "disk.qcow2")]);
            let id = SnapshotId::new(format!("of-box-{volume}")).unwrap();
            assert!(self.volumes().snapshot(&volume, &id).await.unwrap().ready);
            let disk = self.bench.dir.path().join("kept").join(id.as_str()).join("disk.qcow2");
            (id, disk)
        }

        fn copied(&self, id: &SnapshotId) -> PathBuf {
            self.dir.path().join("kept").join(id.as_str()).join("disk.qcow2")
        }

        async fn is_listed(&self, id: &SnapshotId) -> bool {
            let page = self.other.list_snapshots(None).await.unwrap();
            page.items.iter().any(|view| view.id == *id)
        }
    }

    fn qemu(program: &str, arguments: &[&str], disks: &[&Path]) -> String {
        let mut command = std::process::Command::new(program);
        let output = command.args(arguments).args(disks).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_shows_the_same_upon_a_golden_disk_that_is_another() {
        let bench = TwoRoots::new().await;
        let (snapshot, disk) = bench.snapshot().await;
        // What a build of the same recipe on another day has otherwise, beside what the box has written and where it has not.
        let own = bench.dir.path().join("snapshots").join(bench.bench.golden.as_str()).join("disk.qcow2");
        std::fs::remove_file(&own).unwrap();
        std::fs::copy(bench.bench.golden_dir().join("disk.qcow2"), &own).unwrap();
        let writable = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&own, writable).unwrap();
        qemu("qemu-io", &["-c", "write -P 9 1M 128k", "-c", "write -P 9 512M 64k"], &[&own]);

        let (copy, from) = (SnapshotId::new("copy").unwrap(), bench.copier().locate_snapshot(&snapshot).await.unwrap());
        assert!(bench.other.copy_snapshot(&from, &copy).await.unwrap().ready);

        qemu("qemu-img", &["compare"], &[&disk, &bench.copied(&copy)]);
        let facts = qemu("qemu-img", &["info"], &[&bench.copied(&copy)]);
        assert!(facts.contains(&format!("backing file: {}", own.display())), "{facts}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_base_that_is_not_there_is_told_and_nothing_is_left() {
        let bench = TwoRoots::new().await;
        let (snapshot, _) = bench.snapshot().await;
        std::fs::remove_dir_all(bench.dir.path().join("snapshots").join(bench.bench.golden.as_str())).unwrap();
        let (copy, from) = (SnapshotId::new("copy").unwrap(), bench.copier().locate_snapshot(&snapshot).await.unwrap());
        let refused = bench.other.copy_snapshot(&from, &copy).await.unwrap_err();
        assert_eq!(refused.kind(), boxpool::ErrorKind::Invalid);
        assert!(refused.to_string().contains(bench.bench.golden.as_str()), "{refused}");
        assert!(!bench.is_listed(&copy).await);
    }

    /// Whatever step the copying process dies at: there is no snapshot or a whole one, who comes after makes it whole, and who deletes it
    /// leaves nothing.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_half_copy_is_none_wherever_the_one_before_died() {
        let bench = TwoRoots::new().await;
        let (snapshot, disk) = bench.snapshot().await;
        let from = bench.copier().locate_snapshot(&snapshot).await.unwrap();
        let plan = Plan::new(Fault::Death);
        let host = Arc::new(FaultyHost::new(plan.clone()));
        let doomed = LocalQemu::open_on(host, QemuOptions::new(bench.dir.path())).await.unwrap();
        let mut deaths = 0;
        for step in 0.. {
            let copy = SnapshotId::new(format!("copy-{step}")).unwrap();
            plan.arm(step);
            tokio::select! {
                done = doomed.copy_snapshot(&from, &copy) => assert!(done.unwrap().ready),
                () = plan.struck() => {}
            }
            let died = plan.disarm();
            if bench.is_listed(&copy).await {
                qemu("qemu-img", &["compare"], &[&disk, &bench.copied(&copy)]);
            }
            if step % 2 == 0 {
                assert!(bench.other.copy_snapshot(&from, &copy).await.unwrap().ready);
                qemu("qemu-img", &["compare"], &[&disk, &bench.copied(&copy)]);
            }
            bench.other.delete_snapshot(&copy).await.unwrap();
            let kept = std::fs::read_dir(bench.dir.path().join("kept")).unwrap();
            let left = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let left: Vec<_> = left.filter(|name| !name.ends_with(".lock")).collect();
            assert_eq!(left, Vec::<String>::new(), "after step {step}");
            if !died {
                break;
            }
            deaths += 1;
        }
        assert!(deaths > 8, "{deaths}");
    }
}

mod instances {
    use super::*;
    boxpool_sim::instance_conformance!(Bench::new().await);
}

mod volumes {
    use super::*;
    boxpool_sim::volume_conformance!(Bench::new().await, remembers_epochs, snapshots);
}

mod runtime {
    use super::*;
    boxpool_sim::runtime_conformance!(Bench::new().await);
}

/// The same machine, reached by SSH as another one would be.
struct OverSsh {
    bench: Bench,
    _sshd: sshd::Sshd,
}

impl OverSsh {
    async fn new() -> Self {
        let mut bench = Bench::new().await;
        let sshd = sshd::Sshd::start();
        bench.qemu = boxpool_qemu::LocalQemu::open_on(std::sync::Arc::new(sshd.host()), bench.options()).await.unwrap();
        Self { bench, _sshd: sshd }
    }
}

#[async_trait]
impl InstanceBench for OverSsh {
    fn instances(&self) -> &dyn InstanceProvider {
        self.bench.instances()
    }
    fn fresh_instance(&self) -> InstanceId {
        self.bench.fresh_instance()
    }
}

#[async_trait]
impl VolumeBench for OverSsh {
    fn volumes(&self) -> &dyn VolumeProvider {
        self.bench.volumes()
    }
    fn fresh_volume(&self) -> VolumeId {
        self.bench.fresh_volume()
    }
    fn source(&self) -> VolumeSource {
        self.bench.source()
    }
}

#[async_trait]
impl RuntimeBench for OverSsh {
    fn runtime(&self) -> &dyn GuestRuntime {
        self.bench.runtime()
    }
    async fn run(&self, endpoint: &Endpoint, command: &str) -> String {
        self.bench.run(endpoint, command).await
    }
    async fn kill(&self, guest: &Guest) {
        RuntimeBench::kill(&self.bench, guest).await;
    }
}

mod runtime_over_ssh {
    use super::*;
    boxpool_sim::runtime_conformance!(OverSsh::new().await);
}
