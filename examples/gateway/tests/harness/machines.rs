//! Backends whose machines are only numbers and whose guests are SSH servers on this machine, for the real pool.
//!
//! A suspended guest keeps its directory and loses its processes, so what is tested here is who runs what and when, not
//! the saving of memory.

#![allow(dead_code, unreachable_pub)]

use super::{free_port, kill_tree, whoami};
use async_trait::async_trait;
use boxpool::{
    Attach, Attached, Cleared, Cursor, Detached, Device, Endpoint, EndpointAddress, Error, ErrorKind, Guest,
    GuestRuntime, GuestStatus, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView, Page, Result,
    SnapshotCopier, SnapshotCopy, SnapshotId, SnapshotLocation, SnapshotView, Started, StartedBy, Suspended, VolumeId,
    VolumeProvider, VolumeSource, VolumeSpec, VolumeState, VolumeView,
};
use boxpool_gateway::hostkey::ensure_key;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// A box of this name is never suspended: whoever tries waits for ever.
pub const NEVER_SUSPENDS: &str = "never-suspends";

#[derive(Default)]
struct State {
    instances: BTreeMap<InstanceId, String>,
    volumes: BTreeMap<VolumeId, Option<InstanceId>>,
    used: BTreeSet<VolumeId>,
    guests: BTreeMap<VolumeId, (InstanceId, Endpoint, Option<Child>)>,
    /// Every start, in order.
    started: Vec<VolumeId>,
    /// Every growth of a disk, in order.
    grown: Vec<u64>,
}

pub struct Machines {
    dir: PathBuf,
    state: Mutex<State>,
    /// Lines that guests that start have in front of the others in their server's configuration.
    pub sshd_options: Mutex<String>,
    /// How long a start takes, where it matters.
    pub start_takes: Mutex<Duration>,
    /// Where every guest that starts is, in place of a server of its own.
    pub all_at: Mutex<Option<Endpoint>>,
}

impl Machines {
    /// `dir` holds `box_key.pub`, the key the guests let in.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            state: Mutex::default(),
            sshd_options: Mutex::default(),
            start_takes: Mutex::default(),
            all_at: Mutex::default(),
        }
    }

    /// Other machines, whose guests let the same key in.
    pub fn beside(&self, dir: &Path) -> Self {
        std::fs::copy(self.dir.join("box_key.pub"), dir.join("box_key.pub")).unwrap();
        Self::new(dir.to_path_buf())
    }

    pub fn starts(&self) -> usize {
        self.state.lock().unwrap().started.len()
    }

    pub fn grown(&self) -> Vec<u64> {
        self.state.lock().unwrap().grown.clone()
    }

    pub fn running(&self) -> usize {
        self.state.lock().unwrap().guests.len()
    }

    /// All that tests keep in a box.
    fn copy(&self, from: &str, to: &str) {
        copy_file(&self.dir.join(from), &self.dir.join(to));
    }

    fn start_now(&self, guest: &Guest) -> Started {
        let mut state = self.state.lock().unwrap();
        if let Some((_, endpoint, _)) = state.guests.get(&guest.volume) {
            return Started { endpoint: endpoint.clone(), by: StartedBy::Adoption };
        }
        let all_at = self.all_at.lock().unwrap().clone();
        let (endpoint, child) = match all_at {
            Some(endpoint) => (endpoint, None),
            None => {
                let (endpoint, child) = self.serve(guest);
                (endpoint, Some(child))
            }
        };
        state.guests.insert(guest.volume.clone(), (guest.instance.clone(), endpoint.clone(), child));
        state.started.push(guest.volume.clone());
        Started { endpoint, by: StartedBy::Boot }
    }

    /// An SSH server for one guest.
    fn serve(&self, guest: &Guest) -> (Endpoint, Child) {
        let home = self.dir.join(guest.volume.as_str());
        std::fs::create_dir_all(&home).unwrap();
        let host = ensure_key(&home.join("host"), "box").unwrap();
        let port = free_port();
        let shown = home.display();
        let config = format!(
            "{}Port {port}\nAddressFamily inet\nListenAddress 127.0.0.1\nHostKey {shown}/host\nStrictModes no\nUsePAM no\n\
             PidFile none\nAuthorizedKeysFile {}/box_key.pub\nPermitRootLogin yes\nMaxStartups 100\nPrintMotd no\n\
             SetEnv BOXNAME={} BOXHOME={shown}\nSubsystem sftp /usr/lib/openssh/sftp-server\n",
            self.sshd_options.lock().unwrap(),
            self.dir.display(),
            guest.owner.name
        );
        std::fs::write(home.join("sshd_config"), config).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-q", "-f"])
            .arg(home.join("sshd_config"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let endpoint = Endpoint {
            address: EndpointAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], port))),
            login: whoami(),
            host_key: host.public_key().to_openssh().unwrap(),
        };
        (endpoint, child)
    }

    /// Ends every guest at once, as a machine that dies does.
    pub fn kill_guests(&self) {
        for (_, (_, _, child)) in std::mem::take(&mut self.state.lock().unwrap().guests) {
            end(child);
        }
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.kill_guests();
    }
}

fn copy_file(from: &Path, to: &Path) {
    let from = from.join("file");
    if from.exists() {
        std::fs::create_dir_all(to).unwrap();
        std::fs::copy(from, to.join("file")).unwrap();
    }
}

fn end(guest: Option<Child>) {
    if let Some(mut child) = guest {
        kill_tree(child.id());
        child.wait().unwrap();
    }
}

fn absent(operation: &'static str, what: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, operation, what)
}

fn view(id: &InstanceId, generation: &str) -> InstanceView {
    let mut view = InstanceView::new(id.clone(), InstanceState::Running);
    view.generation = generation.to_owned();
    view
}

#[async_trait]
impl InstanceProvider for Machines {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        self.state.lock().unwrap().instances.insert(spec.id.clone(), spec.generation.clone());
        Ok(view(&spec.id, &spec.generation))
    }

    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        Ok(self.state.lock().unwrap().instances.get(id).map(|generation| view(id, generation)))
    }

    async fn list(&self, _: Option<&Cursor>) -> Result<Page<InstanceView>> {
        let items = self.state.lock().unwrap().instances.iter().map(|(id, generation)| view(id, generation)).collect();
        Ok(Page { items, next: None })
    }

    async fn start(&self, id: &InstanceId) -> Result<InstanceView> {
        InstanceProvider::get(self, id).await?.ok_or_else(|| absent("start", id))
    }

    async fn stop(&self, id: &InstanceId) -> Result<InstanceView> {
        InstanceProvider::get(self, id).await?.ok_or_else(|| absent("stop", id))
    }

    async fn delete(&self, id: &InstanceId) -> Result<()> {
        self.state.lock().unwrap().instances.remove(id);
        Ok(())
    }
}

impl State {
    fn volume(&self, id: &VolumeId) -> Option<VolumeView> {
        self.volumes.get(id).map(|attached| {
            let mut view = VolumeView::new(id.clone(), VolumeState::Ready);
            view.attached_to = attached.clone();
            view.used = self.used.contains(id);
            view
        })
    }
}

#[async_trait]
impl VolumeProvider for Machines {
    async fn ensure(&self, spec: &VolumeSpec) -> Result<VolumeView> {
        if let VolumeSource::Snapshot(from) = &spec.source {
            self.copy(from.as_str(), spec.id.as_str());
        }
        let mut state = self.state.lock().unwrap();
        state.volumes.entry(spec.id.clone()).or_default();
        state.volume(&spec.id).ok_or_else(|| absent("make", &spec.id))
    }

    async fn get(&self, id: &VolumeId) -> Result<Option<VolumeView>> {
        Ok(self.state.lock().unwrap().volume(id))
    }

    async fn list(&self, _: Option<&Cursor>) -> Result<Page<VolumeView>> {
        let state = self.state.lock().unwrap();
        Ok(Page { items: state.volumes.keys().filter_map(|id| state.volume(id)).collect(), next: None })
    }

    async fn attach(&self, attach: &Attach) -> Result<Attached> {
        let mut state = self.state.lock().unwrap();
        let at = state.volumes.get_mut(&attach.volume).ok_or_else(|| absent("attach", &attach.volume))?;
        if at.as_ref().is_some_and(|at| *at != attach.instance) {
            return Err(Error::new(ErrorKind::Busy, "attach", &attach.volume));
        }
        *at = Some(attach.instance.clone());
        state.used.insert(attach.volume.clone());
        Ok(Attached::Yes(Device(attach.volume.to_string())))
    }

    async fn detach(&self, attach: &Attach) -> Result<Detached> {
        let mut state = self.state.lock().unwrap();
        if state.guests.contains_key(&attach.volume) {
            return Err(Error::new(ErrorKind::Busy, "detach", &attach.volume));
        }
        if let Some(at) = state.volumes.get_mut(&attach.volume) {
            *at = None;
        }
        Ok(Detached::Yes)
    }

    async fn force_detach(&self, attach: &Attach) -> Result<Detached> {
        self.detach(attach).await
    }

    async fn snapshot(&self, volume: &VolumeId, id: &SnapshotId) -> Result<SnapshotView> {
        if self.state.lock().unwrap().guests.contains_key(volume) {
            return Err(Error::new(ErrorKind::Busy, "snapshot", volume));
        }
        self.copy(volume.as_str(), id.as_str());
        Ok(SnapshotView::new(id.clone(), true))
    }

    async fn list_snapshots(&self, _: Option<&Cursor>) -> Result<Page<SnapshotView>> {
        Ok(Page { items: Vec::new(), next: None })
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let _ = std::fs::remove_dir_all(self.dir.join(id.as_str()));
        Ok(())
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        self.state.lock().unwrap().volumes.remove(id);
        Ok(())
    }

    async fn resize(&self, _: &VolumeId, bytes: u64) -> Result<()> {
        self.state.lock().unwrap().grown.push(bytes);
        Ok(())
    }
}

#[async_trait]
impl SnapshotCopier for Machines {
    async fn locate_snapshot(&self, id: &SnapshotId) -> Result<SnapshotLocation> {
        Ok(SnapshotLocation(self.dir.join(id.as_str()).display().to_string()))
    }

    async fn copy_snapshot(&self, from: &SnapshotLocation, id: &SnapshotId) -> Result<SnapshotCopy> {
        copy_file(Path::new(&from.0), &self.dir.join(id.as_str()));
        Ok(SnapshotCopy::new(true))
    }
}

#[async_trait]
impl GuestRuntime for Machines {
    async fn start(&self, guest: &Guest) -> Result<Started> {
        let takes = *self.start_takes.lock().unwrap();
        let (started, ()) = tokio::join!(async { self.start_now(guest) }, tokio::time::sleep(takes));
        Ok(started)
    }

    async fn suspend(&self, guest: &Guest) -> Result<Suspended> {
        if guest.owner.name.as_str() == NEVER_SUSPENDS {
            std::future::pending::<()>().await;
        }
        let ended = self.state.lock().unwrap().guests.remove(&guest.volume);
        let Some((_, _, child)) = ended else { return Ok(Suspended::NotRunning) };
        end(child);
        Ok(Suspended::Saved)
    }

    async fn stop(&self, guest: &Guest) -> Result<()> {
        self.suspend(guest).await.map(drop)
    }

    async fn shut_down(&self, guest: &Guest, _: Duration) -> Result<()> {
        self.suspend(guest).await.map(drop)
    }

    async fn status(&self, guest: &Guest) -> Result<GuestStatus> {
        let state = self.state.lock().unwrap();
        Ok(match state.guests.get(&guest.volume) {
            Some((_, endpoint, _)) => GuestStatus::Running(endpoint.clone()),
            None => GuestStatus::NotRunning,
        })
    }

    async fn clear(&self, _: &InstanceId) -> Result<Cleared> {
        Ok(Cleared::Clean)
    }
}
