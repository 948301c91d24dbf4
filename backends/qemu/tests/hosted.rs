//! Boxes on machines of their own, each a real OpenSSH server with its own mounts and processes; their disks are files.

#![allow(clippy::unwrap_used)]

mod copies;
mod guests;
mod vm;

use async_trait::async_trait;
use boxpool::{
    Attach, Attached, Cursor, Detached, Device, Endpoint, EndpointAddress, Epoch, Error, ErrorKind, Guest,
    GuestRuntime, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView, Page, Result, SnapshotId,
    SnapshotView, VolumeId, VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
use boxpool_qemu::{Host, HostedOptions, HostedQemu, Hosts, SshAddress, SshHost, prepare_disk};
use boxpool_sim::conformance::{InstanceBench, RuntimeBench, VolumeBench};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use vm::Vm;

static NUMBER: AtomicU32 = AtomicU32::new(5_000);
const LUN: u32 = 4;

/// Machines and disks, as a cloud has them.
struct Cloud {
    folder: tempfile::TempDir,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<InstanceId, (Vm, Arc<SshHost>)>,
    attached: BTreeMap<VolumeId, InstanceId>,
    /// What disks and snapshots are copies of, by name.
    copied_from: BTreeMap<String, Vec<VolumeId>>,
}

impl Cloud {
    fn disk(&self, id: &VolumeId) -> PathBuf {
        self.folder.path().join(format!("{id}.img"))
    }

    fn kept(&self, id: &SnapshotId) -> PathBuf {
        self.folder.path().join(format!("{id}.snapshot"))
    }

    fn absent(id: &dyn std::fmt::Display) -> Error {
        Error::new(ErrorKind::NotFound, "find in cloud", id)
    }
}

#[async_trait]
impl Hosts for Cloud {
    async fn host(&self, instance: &InstanceId) -> Result<Arc<dyn Host>> {
        match self.state.lock().unwrap().machines.get(instance) {
            Some((_, host)) => Ok(host.clone()),
            None => Err(Self::absent(instance)),
        }
    }
    fn paths(&self, device: &Device) -> Result<Vec<PathBuf>> {
        Ok(device.0.split(' ').take(1).map(PathBuf::from).collect())
    }
    fn copied_from(&self, device: &Device) -> Result<Vec<VolumeId>> {
        Ok(device.0.split(' ').skip(1).map(|id| VolumeId::new(id).unwrap()).collect())
    }
    fn attached_in(&self) -> Vec<PathBuf> {
        vec!["/dev/disk/azure/scsi1".into()]
    }
}

#[async_trait]
impl InstanceProvider for Cloud {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        let key = std::fs::read_to_string(guests::key()).unwrap();
        let public = std::fs::read_to_string(guests::key().with_extension("pub")).unwrap();
        let mut state = self.state.lock().unwrap();
        state.machines.entry(spec.id.clone()).or_insert_with(|| {
            let vm = Vm::start(SocketAddr::new(vm::next_address(), vm::free_port()), &public, None);
            let address =
                SshAddress { host: vm.address.ip().to_string(), port: vm.address.port(), user: "root".into() };
            let host = SshHost::new(address, &key, &vm.host_key).unwrap();
            (vm, Arc::new(host))
        });
        Ok(InstanceView::new(spec.id.clone(), InstanceState::Running))
    }
    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        let exists = self.state.lock().unwrap().machines.contains_key(id);
        Ok(exists.then(|| InstanceView::new(id.clone(), InstanceState::Running)))
    }
    async fn list(&self, _: Option<&Cursor>) -> Result<Page<InstanceView>> {
        unreachable!("nobody asks")
    }
    async fn start(&self, _: &InstanceId) -> Result<InstanceView> {
        unreachable!("nobody asks")
    }
    async fn stop(&self, _: &InstanceId) -> Result<InstanceView> {
        unreachable!("nobody asks")
    }
    async fn delete(&self, id: &InstanceId) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        state.machines.remove(id);
        state.attached.retain(|_, on| on != id);
        Ok(())
    }
}

#[async_trait]
impl VolumeProvider for Cloud {
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView> {
        if !self.disk(&spec.id).exists() {
            let VolumeSource::Snapshot(snapshot) = &spec.source else { panic!("{spec:?}") };
            let copied_from = self.state.lock().unwrap().copied_from.get(snapshot.as_str()).cloned();
            let from = match copied_from {
                Some(_) => self.kept(snapshot),
                None => self.folder.path().join("golden.img"),
            };
            vm::copy_disk(&from, &self.disk(&spec.id));
            self.state.lock().unwrap().copied_from.insert(spec.id.to_string(), copied_from.unwrap_or_default());
        }
        Ok(VolumeView::new(spec.id.clone(), VolumeState::Ready))
    }
    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        let mut view = VolumeView::new(id.clone(), VolumeState::Ready);
        view.attached_to = self.state.lock().unwrap().attached.get(id).cloned();
        Ok(self.disk(id).exists().then_some(view))
    }
    async fn list(&self, _: Option<&Cursor>) -> Result<Page<VolumeView>> {
        unreachable!("nobody asks")
    }
    async fn attach(&self, attach: &Attach) -> Result<Attached> {
        let mut state = self.state.lock().unwrap();
        match state.attached.get(&attach.volume) {
            Some(on) if *on == attach.instance => {}
            Some(on) => {
                let detail = format!("it is on {on}");
                return Err(Error::new(ErrorKind::Busy, "attach", &attach.volume).with_detail(detail));
            }
            None => {
                let (vm, _) = state.machines.get(&attach.instance).ok_or_else(|| Self::absent(&attach.instance))?;
                vm.attach(&self.disk(&attach.volume), LUN);
                state.attached.insert(attach.volume.clone(), attach.instance.clone());
            }
        }
        let mut device = Vm::device(LUN);
        for volume in state.copied_from.get(attach.volume.as_str()).into_iter().flatten() {
            device = format!("{device} {volume}");
        }
        Ok(Attached::Yes(Device(device)))
    }
    async fn detach(&self, attach: &Attach) -> Result<Detached> {
        let mut state = self.state.lock().unwrap();
        if vm::qemu_of(attach.volume.as_str()).is_some() {
            return Err(Error::new(ErrorKind::Busy, "detach", &attach.volume));
        }
        if state.attached.get(&attach.volume) == Some(&attach.instance) {
            state.attached.remove(&attach.volume);
            state.machines[&attach.instance].0.detach(LUN);
        }
        Ok(Detached::Yes)
    }
    async fn force_detach(&self, attach: &Attach) -> Result<Detached> {
        VolumeProvider::detach(self, attach).await
    }
    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        vm::copy_disk(&self.disk(volume), &self.kept(id));
        let mut state = self.state.lock().unwrap();
        let before = state.copied_from.get(volume.as_str()).cloned().unwrap_or_default();
        state.copied_from.insert(id.to_string(), std::iter::once(volume.clone()).chain(before).collect());
        Ok(SnapshotView::new(id.clone(), true))
    }
    async fn list_snapshots(&self, _: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        unreachable!("nobody asks")
    }
    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        std::fs::remove_file(self.kept(id)).unwrap();
        Ok(())
    }
    async fn delete(&self, id: &VolumeId) -> Result<()> {
        if self.state.lock().unwrap().attached.contains_key(id) {
            return Err(Error::new(ErrorKind::Busy, "delete", id));
        }
        std::fs::remove_file(self.disk(id)).unwrap();
        Ok(())
    }
    async fn resize(&self, _: &VolumeId, _: u64) -> Result<()> {
        unreachable!("nobody asks")
    }
}

fn options() -> HostedOptions {
    let mut options = HostedOptions::default();
    options.device_limit = std::time::Duration::from_secs(2);
    options
}

struct Bench {
    // Ends first: what runs on the machines.
    cloud: Arc<Cloud>,
    qemu: HostedQemu,
    local: guests::Bench,
}

impl Bench {
    async fn new() -> Self {
        let local = guests::Bench::new().await;
        let folder = tempfile::tempdir().unwrap();
        let snapshots = local.options().snapshot_dir.unwrap();
        vm::golden_disk(&folder.path().join("golden.img"), &snapshots.join(local.golden.as_str()));
        let cloud = Arc::new(Cloud { folder, state: Mutex::default() });
        let qemu = HostedQemu::new(cloud.clone(), options());
        Self { cloud, qemu, local }
    }

    /// A box on a machine of its own, attached, in epoch 1.
    async fn guest(&self, name: &str) -> Guest {
        let template = self.local.guest(name).await;
        let (instance, volume) = (self.fresh_instance(), self.fresh_volume());
        InstanceProvider::ensure(&*self.cloud, &InstanceSpec::new(instance.clone(), "1")).await.unwrap();
        VolumeProvider::ensure(&*self.cloud, &VolumeSpec::new(volume.clone(), self.source())).await.unwrap();
        self.attach(&Guest::new(instance, volume, template.owner, Epoch(1))).await
    }

    async fn attach(&self, guest: &Guest) -> Guest {
        let attach = Attach::new(guest.volume.clone(), guest.instance.clone(), guest.epoch);
        let Attached::Yes(device) = self.cloud.attach(&attach).await.unwrap() else { panic!("at once") };
        guest.clone().on_device(device)
    }

    fn machine<T>(&self, id: &InstanceId, look: impl FnOnce(&Vm) -> T) -> T {
        look(&self.cloud.state.lock().unwrap().machines[id].0)
    }
}

#[async_trait]
impl InstanceBench for Bench {
    fn instances(&self) -> &dyn InstanceProvider {
        &*self.cloud
    }
    fn fresh_instance(&self) -> InstanceId {
        InstanceId::new(format!("i{:05}-h", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn volumes(&self) -> &dyn VolumeProvider {
        &*self.cloud
    }
    fn fresh_volume(&self) -> VolumeId {
        VolumeId::new(format!("v-{:016x}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
    fn source(&self) -> VolumeSource {
        VolumeSource::Snapshot(self.local.golden.clone())
    }
}

#[async_trait]
impl RuntimeBench for Bench {
    fn runtime(&self) -> &dyn GuestRuntime {
        &self.qemu
    }
    async fn run(&self, endpoint: &Endpoint, command: &str) -> String {
        // The machines share this one's loopback, so the real client gets there by itself.
        let EndpointAddress::On { address, .. } = endpoint.address else { panic!("on a machine: {endpoint:?}") };
        let here = Endpoint { address: EndpointAddress::Tcp(address), ..endpoint.clone() };
        tokio::task::block_in_place(|| self.local.ssh(&here, command))
    }
    async fn kill(&self, guest: &Guest) {
        let pid = vm::qemu_of(guest.volume.as_str()).expect("it runs");
        assert!(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
        while vm::qemu_of(guest.volume.as_str()).is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

mod runtime {
    use super::*;
    boxpool_sim::runtime_conformance!(needs "root, for mounts", Bench::new().await);
}

const AWAY: u64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_machine_without_a_guest_holds_nothing_of_anybody() {
    let bench = Bench::new().await;
    let guest = bench.guest("one").await;
    bench.qemu.start(&guest).await.unwrap();
    let mounts = |vm: &Vm| vm.run(&["cat", "/proc/mounts"]).contains("/mnt/userdata");
    assert!(bench.machine(&guest.instance, mounts));
    bench.qemu.suspend(&guests::later(&guest, 2)).await.unwrap();
    assert!(!bench.machine(&guest.instance, mounts));
    bench.cloud.detach(&Attach::new(guest.volume.clone(), guest.instance.clone(), Epoch(3))).await.unwrap();
    assert_eq!(bench.qemu.clear(&guest.instance).await.unwrap(), boxpool::Cleared::Clean);
    let left = bench.machine(&guest.instance, |vm| vm.run(&["find", "/mnt", "/var/lib/boxpool", "-type", "f"]));
    let mut files: Vec<_> = left.lines().collect();
    files.sort_unstable();
    assert_eq!(files, [format!("/var/lib/boxpool/epochs/{}", guest.volume), "/var/lib/boxpool/lock".to_owned()]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_machine_with_something_left_on_it_is_doubted() {
    let bench = Bench::new().await;
    let id = bench.fresh_instance();
    InstanceProvider::ensure(&*bench.cloud, &InstanceSpec::new(id.clone(), "1")).await.unwrap();
    let doubt = async || match bench.qemu.clear(&id).await.unwrap() {
        boxpool::Cleared::Doubtful(why) => why,
        boxpool::Cleared::Clean => "clean".to_owned(),
    };
    assert_eq!(doubt().await, "clean");
    bench.machine(&id, |vm| vm.run(&["touch", "/mnt/userdata/secret"]));
    assert!(doubt().await.contains("/mnt/userdata/secret"));
    bench.machine(&id, |vm| vm.run(&["rm", "/mnt/userdata/secret"]));
    bench.machine(&id, |vm| vm.run(&["mount", "-t", "tmpfs", "left-over", "/mnt/userdata"]));
    assert!(doubt().await.contains("left-over"));
    bench.machine(&id, |vm| vm.run(&["umount", "/mnt/userdata"]));
    let qemu = "qemu-system-x86_64 -M none -display none -monitor none -serial none -daemonize";
    bench.machine(&id, |vm| vm.run(&["sh", "-c", qemu]));
    assert!(doubt().await.contains("QEMU still runs"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_disk_that_is_another_volumes_is_refused_and_left_alone() {
    let bench = Bench::new().await;
    let guest = bench.guest("one").await;
    bench.qemu.start(&guest).await.unwrap();
    bench.qemu.suspend(&guests::later(&guest, 2)).await.unwrap();
    let mut other = guests::later(&guest, AWAY);
    other.volume = bench.fresh_volume();
    let error = bench.qemu.start(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(guest.volume.as_str()), "{error}");
    let again = bench.qemu.start(&guests::later(&guest, 3)).await.unwrap();
    assert_eq!(again.by, boxpool::StartedBy::Resume);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_disk_that_holds_something_else_is_refused_and_left_alone() {
    let bench = Bench::new().await;
    let guest = bench.guest("one").await;
    let device = guest.device.clone().unwrap();
    let wipe = format!("dd if=/dev/zero of={} bs=64k count=1 conv=fsync 2>/dev/null", device.0);
    bench.machine(&guest.instance, |vm| vm.run(&["sh", "-c", &wipe]));
    let error = bench.qemu.start(&guest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("no file system"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_box_goes_on_where_its_machine_died() {
    let bench = Bench::new().await;
    let guest = bench.guest("one").await;
    let started = bench.qemu.start(&guest).await.unwrap();
    bench.run(&started.endpoint, "echo durable > ~/file; sync").await;
    InstanceProvider::delete(&*bench.cloud, &guest.instance).await.unwrap();
    let mut there = guests::later(&guest, 2);
    there.instance = bench.fresh_instance();
    InstanceProvider::ensure(&*bench.cloud, &InstanceSpec::new(there.instance.clone(), "1")).await.unwrap();
    let there = bench.attach(&there).await;
    let again = bench.qemu.start(&there).await.unwrap();
    assert_eq!(again.by, boxpool::StartedBy::Boot);
    assert_eq!(bench.run(&again.endpoint, "cat ~/file").await, "durable");
    assert_eq!(again.endpoint.host_key, started.endpoint.host_key);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn the_way_to_a_guest_leads_over_its_machine() {
    use tokio::io::AsyncReadExt;
    let bench = Bench::new().await;
    let guest = bench.guest("one").await;
    let started = bench.qemu.start(&guest).await.unwrap();
    let EndpointAddress::On { instance, address } = &started.endpoint.address else { panic!("{started:?}") };
    let mut stream = bench.qemu.open(instance, *address).await.unwrap();
    let mut hello = [0; 8];
    let read = tokio::time::timeout(std::time::Duration::from_secs(30), stream.read_exact(&mut hello)).await;
    read.unwrap().unwrap();
    assert_eq!(&hello, b"SSH-2.0-");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn an_empty_disk_becomes_one_that_boxes_are_copied_from() {
    let bench = Bench::new().await;
    let instance = bench.fresh_instance();
    InstanceProvider::ensure(&*bench.cloud, &InstanceSpec::new(instance.clone(), "1")).await.unwrap();
    let golden = bench.cloud.folder.path().join("golden.img");
    std::fs::File::create(&golden).unwrap().set_len(3 << 30).unwrap();
    bench.machine(&instance, |vm| vm.attach(&golden, LUN));
    let spec = guests::spec(&guests::key());
    let image = bench.cloud.folder.path().join("image");
    let image = boxpool_qemu::image::make(&spec.recipe, &image, &|_| {}).await.unwrap();
    let host = bench.cloud.host(&instance).await.unwrap();
    let options = HostedOptions::default();
    let phases = Mutex::new(Vec::new());
    for _ in 0..2 {
        // A second time finds it.
        let tell = |progress: boxpool_qemu::Progress| phases.lock().unwrap().push(progress.phase);
        let paths = [PathBuf::from(Vm::device(LUN))];
        prepare_disk(host.clone(), &paths, &spec, &image, &options, &tell).await.unwrap();
    }
    assert_eq!(phases.into_inner().unwrap(), ["disk", "send", "send", "send", "boot", "save", "done"]);
    bench.machine(&instance, |vm| vm.detach(LUN));
    assert_eq!(bench.qemu.clear(&instance).await.unwrap(), boxpool::Cleared::Clean);
    let guest = bench.guest("one").await;
    let started = bench.qemu.start(&guest).await.unwrap();
    assert_eq!(started.by, boxpool::StartedBy::Resume, "with the memory that was saved on that machine");
    assert_eq!(bench.run(&started.endpoint, "hostname").await, "one");
}
