//! A gateway in front of boxes that are SSH servers on this machine, and a real OpenSSH client.
//!
//! Each box is an `sshd` process of its own with its own host key, so everything is proxied to the real thing without a
//! virtual machine.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod light;
pub mod machines;
pub mod memory;
pub mod site;
pub mod web;

use async_trait::async_trait;
use boxpool::{
    BoxName, Endpoint, EndpointAddress, Epoch, Error, ErrorKind, MemoryStore, Progress, Result, Timestamp, UserId,
};
use boxpool_gateway::account::Accounts;
use boxpool_gateway::boxes::{BoxSession, BoxSummary, Boxes, PoolNumbers, Wish};
use boxpool_gateway::certificate::Authorities;
use boxpool_gateway::hostkey::ensure_key;
use boxpool_gateway::limits::Ban;
use boxpool_gateway::operator::Operator;
use boxpool_gateway::registration::Registration;
use boxpool_gateway::server::{Gateway, Settings, SocketOrHost};
use boxpool_gateway::size::Size;
use russh::keys::PrivateKey;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// No single ssh command of these tests takes this long unless it hangs.
pub const HANG: Duration = Duration::from_secs(30);

pub struct FakeBox {
    pub sshd: Option<Child>,
    pub endpoint: Endpoint,
    pub dir: PathBuf,
    pub sessions: Arc<AtomicUsize>,
}

/// Boxes that are `sshd` processes.
#[derive(Default)]
pub struct FakeBoxes {
    pub dir: PathBuf,
    pub boxes: Mutex<BTreeMap<(UserId, BoxName), FakeBox>>,
    pub connects: AtomicUsize,
    pub distrusted: AtomicUsize,
    /// Steps each connect reports, and how long it stays at each.
    pub progress: Mutex<Vec<(Progress, Duration)>>,
    /// The error the next connects end with.
    pub refusal: Mutex<Option<(ErrorKind, String)>>,
}

pub struct FakeSession {
    endpoint: Endpoint,
    sessions: Arc<AtomicUsize>,
}

impl FakeBoxes {
    fn summary(name: &BoxName, each: &FakeBox) -> BoxSummary {
        let running = each.sessions.load(Ordering::SeqCst) > 0;
        BoxSummary::new(name, if running { "running" } else { "detached" }, Timestamp(1))
    }

    pub fn sessions(&self, name: &str) -> usize {
        let boxes = self.boxes.lock().unwrap();
        let found = boxes.iter().find(|((_, known), _)| known.as_str() == name);
        found.map_or(0, |(_, each)| each.sessions.load(Ordering::SeqCst))
    }

    pub fn names(&self) -> Vec<String> {
        self.boxes.lock().unwrap().keys().map(|(_, name)| name.to_string()).collect()
    }

    /// Processes below a box's server: one for each connection, and what they run.
    pub fn processes(&self, name: &str) -> usize {
        let boxes = self.boxes.lock().unwrap();
        let (_, each) = boxes.iter().find(|((_, known), _)| known.as_str() == name).unwrap();
        each.sshd.as_ref().and_then(Child::id).map_or(0, |pid| tree(pid).len() - 1)
    }

    /// Kills a box's machine.
    pub async fn kill(&self, name: &str) {
        let child = {
            let mut boxes = self.boxes.lock().unwrap();
            let (_, each) = boxes.iter_mut().find(|((_, known), _)| known.as_str() == name).unwrap();
            each.sshd.take()
        };
        let mut child = child.unwrap();
        // The listener and every session of it are one process group each; the sessions' parents are its children.
        kill_tree(child.id().unwrap());
        child.wait().await.unwrap();
    }

    fn start(&self, each: &mut FakeBox) {
        let log = std::fs::File::create(each.dir.join("log")).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(each.dir.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        each.sshd = Some(child);
    }

    fn make(&self, name: &BoxName) -> FakeBox {
        let dir = self.dir.join(format!("box-{name}-{}", self.boxes.lock().unwrap().len()));
        std::fs::create_dir_all(dir.join("home")).unwrap();
        let host = ensure_key(&dir.join("host"), "box").unwrap();
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (here, keys) = (dir.display(), self.dir.join("box_key.pub"));
        let config = format!(
            "Port {port}\nAddressFamily inet\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             AllowAgentForwarding yes\nAllowTcpForwarding yes\nAllowStreamLocalForwarding yes\nGatewayPorts no\n\
             X11Forwarding yes\nAcceptEnv *\nMaxStartups 100\nMaxSessions 100\nPrintMotd no\nPrintLastLog no\n\
             Subsystem sftp /usr/lib/openssh/sftp-server\nSetEnv HOME={here}/home BOXNAME={name} XAUTHORITY={here}/Xauthority\nStreamLocalBindUnlink yes\n",
            keys.display()
        );
        std::fs::write(dir.join("sshd_config"), config).unwrap();
        let endpoint = Endpoint {
            address: EndpointAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], port))),
            login: whoami(),
            host_key: host.public_key().to_openssh().unwrap(),
        };
        FakeBox { sshd: None, endpoint, dir, sessions: Arc::default() }
    }
}

/// The boxes of a gateway, as it sees them.
pub struct Fakes(pub Arc<FakeBoxes>);

impl Fakes {
    fn found(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        let boxes = self.0.boxes.lock().unwrap();
        let found = boxes.get(&(owner.clone(), name.clone())).map(|each| FakeBoxes::summary(name, each));
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "find box", name))
    }
}

#[async_trait]
impl Boxes for Fakes {
    async fn create(&self, owner: &UserId, name: &BoxName) -> Result<BoxSummary> {
        let made = self.0.make(name);
        let mut boxes = self.0.boxes.lock().unwrap();
        let key = (owner.clone(), name.clone());
        if boxes.contains_key(&key) {
            return Err(Error::new(ErrorKind::AlreadyExists, "create box", name));
        }
        let summary = FakeBoxes::summary(name, &made);
        boxes.insert(key, made);
        Ok(summary)
    }

    async fn list(&self, owner: &UserId) -> Result<Vec<BoxSummary>> {
        let boxes = self.0.boxes.lock().unwrap();
        let own = boxes.iter().filter(|((of, _), _)| of == owner);
        Ok(own.map(|((_, name), each)| FakeBoxes::summary(name, each)).collect())
    }

    async fn get(&self, owner: &UserId, name: &BoxName) -> Result<Option<BoxSummary>> {
        let boxes = self.0.boxes.lock().unwrap();
        Ok(boxes.get(&(owner.clone(), name.clone())).map(|each| FakeBoxes::summary(name, each)))
    }

    async fn delete(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        let gone = self.0.boxes.lock().unwrap().remove(&(owner.clone(), name.clone()));
        gone.map(drop).ok_or_else(|| Error::new(ErrorKind::NotFound, "delete box", name))
    }

    async fn purge(&self, owner: &UserId, name: &BoxName) -> Result<()> {
        self.delete(owner, name).await
    }

    async fn connect(&self, wish: Wish) -> Result<Box<dyn BoxSession>> {
        let Wish { owner, name, guest: _, limit, progress, distrust } = wish;
        self.0.connects.fetch_add(1, Ordering::SeqCst);
        self.0.distrusted.fetch_add(usize::from(distrust.is_some()), Ordering::SeqCst);
        let steps = self.0.progress.lock().unwrap().clone();
        let started = tokio::time::Instant::now();
        for (step, stay) in steps {
            progress.send_replace(step);
            tokio::time::sleep(stay.min(limit.saturating_sub(started.elapsed()))).await;
        }
        if let Some((kind, detail)) = self.0.refusal.lock().unwrap().clone() {
            return Err(Error::new(kind, "connect box", name).with_detail(detail));
        }
        let mut boxes = self.0.boxes.lock().unwrap();
        let each = boxes
            .get_mut(&(owner.clone(), name.clone()))
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "connect box", name.clone()))?;
        if each.sshd.is_none() {
            self.0.start(each);
        }
        each.sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeSession { endpoint: each.endpoint.clone(), sessions: Arc::clone(&each.sessions) }))
    }

    async fn status(&self) -> Result<PoolNumbers> {
        Ok(PoolNumbers { instances_free: 3, volumes_free: 2, gateways: 1, ..PoolNumbers::default() })
    }
}

#[async_trait]
impl BoxSession for FakeSession {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    async fn ended(&self) {
        std::future::pending().await
    }

    async fn release(self: Box<Self>) {} // counted by `drop`
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A running gateway.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub boxes: Arc<FakeBoxes>,
    pub store: MemoryStore,
    pub gateway: Arc<Gateway>,
    pub port: u16,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<()>>,
}

pub fn settings() -> Settings {
    Settings {
        registration: Registration::Open,
        authorities: Authorities::default(),
        spinup_on_connect: false,
        connect_limit: Duration::from_secs(20),
        dial_limit: Duration::from_secs(5),
        banner: String::new(),
        login_grace: Duration::from_secs(10),
        keepalive: Duration::from_secs(15),
        idle_limit: Duration::ZERO,
        pre_auth_max: 200,
        pre_auth_per_address_max: 100,
        max_channels: 64,
        boxes_per_user: 10,
        running_boxes_per_user: 10,
        snapshots_per_user: 10,
        disk_per_user: Size(100 << 40),
        fresh_disk: Size(10 << 30),
        keys_per_user: 4,
        ban: Ban { after: 0, lasts: Duration::ZERO },
        connections_per_user: 100,
        farewell_limit: Duration::from_secs(8),
        shown_address: SocketOrHost { host: "127.0.0.1".into(), port: 0 },
    }
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::operated(settings, Operator::default()).await
    }

    pub async fn operated(settings: Settings, operator: Operator) -> Self {
        Self::offering(&[], settings, operator).await
    }

    /// One that has more host keys: what is given here comes after the usual one.
    pub async fn offering(more: &[PrivateKey], mut settings: Settings, operator: Operator) -> Self {
        std::fs::create_dir_all("/run/sshd").unwrap(); // sshd wants it; made at boot on a real machine
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let box_key = ensure_key(&path.join("box_key"), "gateway").unwrap();
        std::fs::write(path.join("box_key.pub"), box_key.public_key().to_openssh().unwrap() + "\n").unwrap();
        let host_key = ensure_key(&path.join("host_key"), "gateway").unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        settings.shown_address.port = port;
        let host_keys = [&[host_key], more].concat();
        let known = |key: &PrivateKey| format!("[127.0.0.1]:{port} {}\n", key.public_key().to_openssh().unwrap());
        std::fs::write(path.join("known_hosts"), host_keys.iter().map(known).collect::<String>()).unwrap();
        let boxes = Arc::new(FakeBoxes { dir: path.to_path_buf(), ..FakeBoxes::default() });
        let store = MemoryStore::new();
        let accounts = Accounts::new(Arc::new(store.clone()));
        let fakes = Arc::new(Fakes(Arc::clone(&boxes)));
        let gateway = Gateway::reaching(None, fakes, accounts, settings, Arc::new(box_key), operator);
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&gateway);
        let served = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            let _ = serving.serve(listener, host_keys, stop).await;
        });
        let bench = Self { dir, boxes, store, gateway, port, stop: Some(stop), served: Some(served) };
        bench.make_key("id");
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a user's key.
    pub fn make_key(&self, name: &str) {
        make_key(self.dir.path(), name);
    }

    /// Options every client gets.
    pub fn options(&self, key: &str) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.path("known_hosts").display());
        let identity = self.path(key).display().to_string();
        let mut options = vec!["-F".into(), "none".into(), "-i".into(), identity];
        for option in [
            known.as_str(),
            "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "LogLevel=ERROR",
        ] {
            options.push("-o".into());
            options.push(option.into());
        }
        options
    }

    /// An `ssh` command as the user with `key`.
    pub fn ssh_as(&self, key: &str, login: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        // The first value of an option wins, so the test's own come first.
        let (flags, words): (Vec<&str>, Vec<&str>) = split_flags(args);
        command.args(flags).args(self.options(key)).args(["-p", &self.port.to_string(), "-l", login]);
        command.arg("127.0.0.1").args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub fn ssh(&self, login: &str, args: &[&str]) -> Command {
        self.ssh_as("id", login, args)
    }

    /// Runs `ssh LOGIN@gateway ARGS` to its end. Arguments before `--` are flags for ssh.
    pub async fn run(&self, login: &str, args: &[&str]) -> Ran {
        finish(self.ssh(login, args)).await
    }

    pub async fn run_with_input(&self, login: &str, args: &[&str], input: &[u8]) -> Ran {
        feed(self.ssh(login, args), input).await
    }

    /// Makes the box `name` for the default user.
    pub async fn spinup(&self, name: &str) {
        let ran = self.run("gateway", &["--", "spinup", name]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    pub async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        let served = self.served.take().unwrap();
        tokio::time::timeout(HANG, served).await.expect("the gateway stops").unwrap();
    }

    /// Begins the stop without waiting for its end.
    pub fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

fn split_flags<'a>(args: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    match args.iter().position(|arg| *arg == "--") {
        Some(at) => (args[..at].to_vec(), args[at + 1..].to_vec()),
        None => (Vec::new(), args.to_vec()),
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

pub async fn finish(mut command: Command) -> Ran {
    let child = command.spawn().unwrap();
    tokio::time::timeout(HANG, child.wait_with_output()).await.expect("the command ends").unwrap().into()
}

pub async fn feed(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    tokio::spawn(async move {
        let _ = stdin.write_all(&input).await;
    });
    tokio::time::timeout(HANG, child.wait_with_output()).await.expect("the command ends").unwrap().into()
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The value below which `part` of the values are.
pub fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = ((values.len() - 1) as f64 * part).round() as usize;
    values[at]
}

/// Polls until `done`, or fails after a while.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    ask_until(what, async || done(), |done| *done).await;
}

/// Asks again and again until the answer is the one that is wanted, and returns it; fails with the last one after a while.
pub async fn ask_until<T: fmt::Debug>(what: &str, mut ask: impl AsyncFnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let limit = Instant::now() + HANG;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < limit, "never came: {what}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn whoami() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Bytes that do not compress or repeat.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A process and all below it.
pub fn tree(pid: u32) -> Vec<u32> {
    let listing = std::process::Command::new("ps").args(["-e", "-o", "pid=,ppid="]).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    let pairs: Vec<(u32, u32)> = listing
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
            Some((numbers.next()?, numbers.next()?))
        })
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(pairs.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found
}

/// Kills a process and all below it.
pub fn kill_tree(pid: u32) {
    let doomed: Vec<String> = tree(pid).iter().map(u32::to_string).collect();
    std::process::Command::new("kill").arg("-9").args(&doomed).status().unwrap();
}

/// Waits until a file is there.
pub async fn appears(path: &Path) {
    until(&path.display().to_string(), || path.exists()).await;
}

/// Makes a user's key.
pub fn make_key(dir: &Path, name: &str) {
    let key = ensure_key(&dir.join(name), name).unwrap();
    std::fs::write(dir.join(format!("{name}.pub")), key.public_key().to_openssh().unwrap()).unwrap();
}

/// Signs the public part of `key` with the authority `ca`; `flags` are for ssh-keygen.
pub fn sign_key(ca: &Path, key: &Path, flags: &[&str]) {
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-q", "-I", "test", "-s"]).arg(ca).args(flags).arg(key.with_extension("pub"));
    let signed = command.output().unwrap();
    assert!(signed.status.success(), "{signed:?}");
}

pub fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
