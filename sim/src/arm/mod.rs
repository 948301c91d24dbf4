//! A simulated Azure Resource Manager that speaks the true wire format: virtual machines, disks, snapshots, images, network
//! interfaces and resource groups over HTTP, with long-running operations, paging, ETags, quotas, throttling, and faults.
//!
//! For those who write against Azure and cannot or will not reach it in their tests. What it does was taken from recordings of the
//! live service and from Microsoft's documentation; the official Azure SDK for Python is run against it in this crate's tests.
//! There is no TLS and every bearer token is taken.
//!
//! ```
//! use boxpool_sim::arm::ArmServer;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let server = ArmServer::builder().seed(7).time_scale(0.001).start().await?;
//! assert!(server.url().starts_with("http://127.0.0.1:"));
//! # std::io::Result::Ok(()) }).unwrap();
//! ```
//!
//! Operations take the time of the runtime that serves. Where that clock is paused, minutes of the service pass at once, for callers
//! that come by [`ArmServer::connect`]: on a socket the clock would run ahead of what is still on its way.
//!
//! Left out: everything that boxpool does not use. Availability sets, scale sets, extensions, run command, encryption, access
//! grants (SAS), role assignments and subnets are not there.

mod disks;
mod faults;
mod id;
mod machines;
mod server;
mod state;
mod throttle;
mod vms;
mod wire;
mod work;

pub use faults::{ArmFate, ArmFaults, ArmStrike};
pub use id::Kind;
pub use machines::{Filling, MachineFacts, Machines, NoMachines};

use state::State;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use work::Doom;

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Logged {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path, without the query.
    pub path: String,
}

/// How a server behaves.
struct Settings {
    seed: u64,
    time_scale: f64,
    page_size: usize,
    list_lag: Duration,
    most_machines: Option<usize>,
    unavailable_sizes: Vec<String>,
    full_sizes: Vec<String>,
    preempts: bool,
    strict_groups: bool,
    clock_ahead_s: i32,
    allowed: Vec<String>,
    faults: ArmFaults,
    script: Vec<ArmStrike>,
}

struct Server {
    settings: Settings,
    machines: Arc<dyn Machines>,
    state: Mutex<State>,
    dooms: Mutex<BTreeMap<String, Doom>>,
    requests: AtomicU64,
    /// Requests are dealt with one at a time: which operation one has begun is then known.
    turn: Mutex<()>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dooms(&self) -> MutexGuard<'_, BTreeMap<String, Doom>> {
        self.dooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("00000000-0000-4000-8000-{number:012x}")
    }
}

/// Sets up an [`ArmServer`].
#[must_use]
pub struct ArmBuilder {
    settings: Settings,
    throttle: f64,
    machines: Arc<dyn Machines>,
    address: SocketAddr,
}

impl ArmBuilder {
    /// What luck follows from.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// How long operations take, against the real service: 1 is as long, 0.01 a hundredth (the default is 0.001). Retry-After
    /// headers shrink with it.
    pub fn time_scale(mut self, scale: f64) -> Self {
        self.settings.time_scale = scale.max(0.0);
        self
    }

    /// How many resources a page of a list holds.
    pub fn page_size(mut self, size: usize) -> Self {
        self.settings.page_size = size;
        self
    }

    /// What was made is missing from lists for so long.
    pub fn list_lag(mut self, lag: Duration) -> Self {
        self.settings.list_lag = lag;
        self
    }

    /// The quota: more machines are refused.
    pub fn most_machines(mut self, most: usize) -> Self {
        self.settings.most_machines = Some(most);
        self
    }

    /// Machines of these sizes are refused when they are asked for.
    pub fn unavailable_sizes(mut self, sizes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.unavailable_sizes = sizes.into_iter().map(Into::into).collect();
        self
    }

    /// Machines of these sizes are accepted, and there turns out to be no room for them.
    pub fn full_sizes(mut self, sizes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.full_sizes = sizes.into_iter().map(Into::into).collect();
        self
    }

    /// A second change of a machine takes the place of the one under way, in place of being refused: the service does either.
    pub fn preempts(mut self, preempts: bool) -> Self {
        self.settings.preempts = preempts;
        self
    }

    /// The actions that callers are told they may take, as `Microsoft.Compute/disks/*`; all of them, unless said. Nothing is refused for it.
    pub fn allowed(mut self, actions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.allowed = actions.into_iter().map(Into::into).collect();
        self
    }

    /// Resource groups must be made first.
    pub fn strict_groups(mut self, strict: bool) -> Self {
        self.settings.strict_groups = strict;
        self
    }

    /// By how many seconds the clock that dates its answers is ahead of this machine's; behind, when negative.
    pub fn clock_ahead_s(mut self, seconds: i32) -> Self {
        self.settings.clock_ahead_s = seconds;
        self
    }

    /// Meters callers as the service does. 1 has the published buckets, 10 has them ten times smaller; 0, the default, has none.
    pub fn throttle(mut self, tightness: f64) -> Self {
        self.throttle = tightness;
        self
    }

    /// How often something goes wrong.
    pub fn faults(mut self, faults: ArmFaults) -> Self {
        self.settings.faults = faults;
        self
    }

    /// What becomes of particular requests.
    pub fn script(mut self, script: Vec<ArmStrike>) -> Self {
        self.settings.script = script;
        self
    }

    /// What stands behind the machines and disks.
    pub fn machines(mut self, machines: Arc<dyn Machines>) -> Self {
        self.machines = machines;
        self
    }

    /// Where to listen; a free port of the loopback address, unless said.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Listens and serves, in the present runtime, until the server is dropped.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start(self) -> std::io::Result<ArmServer> {
        let listener = TcpListener::bind(self.address).await?;
        let address = listener.local_addr()?;
        let mut state = State::default();
        state.buckets.tightness = self.throttle;
        let server = Arc::new(Server {
            settings: self.settings,
            machines: self.machines,
            state: Mutex::new(state),
            dooms: Mutex::default(),
            requests: AtomicU64::new(1),
            turn: Mutex::default(),
        });
        let task = tokio::spawn(server::serve(Arc::clone(&server), listener)).abort_handle();
        Ok(ArmServer { server, address, task, in_process: Mutex::default() })
    }
}

/// A running server. Dropping it closes its connections; operations that were begun end without effect.
pub struct ArmServer {
    server: Arc<Server>,
    address: SocketAddr,
    task: AbortHandle,
    in_process: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for ArmServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArmServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ArmServer {
    /// Begins to set one up.
    pub fn builder() -> ArmBuilder {
        let settings = Settings {
            seed: 0,
            time_scale: 0.001,
            page_size: 50,
            list_lag: Duration::ZERO,
            most_machines: None,
            unavailable_sizes: Vec::new(),
            full_sizes: Vec::new(),
            preempts: false,
            strict_groups: false,
            clock_ahead_s: 0,
            allowed: vec!["*".into()],
            faults: ArmFaults::default(),
            script: Vec::new(),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        ArmBuilder { settings, throttle: 0.0, machines: Arc::new(NoMachines::default()), address }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for clients, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A connection without a socket, which speaks HTTP/1.1 as the others do. Nothing on it waits for the network, so in a runtime of
    /// one thread whose clock is paused time passes only when the caller and the service both wait for it.
    #[must_use]
    pub fn connect(&self) -> DuplexStream {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let mut connections = self.in_process.lock().unwrap_or_else(PoisonError::into_inner);
        while connections.try_join_next().is_some() {}
        connections.spawn(server::serve_connection(Arc::clone(&self.server), there));
        here
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Logged> {
        self.server.state().requests.clone()
    }

    /// Forgets what was asked so far, so that a test counts from here.
    pub fn forget_requests(&self) {
        self.server.state().requests.clear();
    }

    /// The names of the resources of a kind, in order.
    #[must_use]
    pub fn names(&self, kind: Kind) -> Vec<String> {
        self.server.state().of_kind(kind).map(|resource| resource.id.name.clone()).collect()
    }

    /// A resource as it is, by its name; the first one when several groups have one of that name.
    #[must_use]
    pub fn resource(&self, kind: Kind, name: &str) -> Option<serde_json::Value> {
        let state = self.server.state();
        let found = state.of_kind(kind).find(|resource| resource.id.name.eq_ignore_ascii_case(name));
        found.map(|resource| resource.shown(true))
    }

    /// The service takes a machine away: it is deallocated, though nobody asked for that. Nothing happens when there is none.
    pub fn evict(&self, name: &str) {
        let id = self.server.state().of_kind(Kind::Vm).find(|machine| machine.id.name == name).map(|vm| vm.id.clone());
        if let Some(id) = id {
            // Absent in the meantime: then there is nothing to take.
            let _ = self.server.evict(&id);
        }
    }
}

impl Drop for ArmServer {
    fn drop(&mut self) {
        self.task.abort();
        for operation in self.server.state().operations.values_mut() {
            if let Some(task) = operation.task.take() {
                task.abort();
            }
        }
    }
}
