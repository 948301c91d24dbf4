//! The emulator of Azure Tables, one for each process of tests.

#![allow(dead_code)]

use boxpool_azure::{TableStore, TablesOptions};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running emulator; killed when it is dropped, or when this process ends.
pub(crate) struct Azurite {
    pub(crate) port: u16,
    child: Child,
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Azurite {
    pub(crate) fn start() -> Self {
        // Another process may take the port in between; then the emulator ends and the next try has another one.
        for _ in 0..5 {
            let port = free_port();
            if let Some(running) = Self::try_start(port, None) {
                return running;
            }
        }
        panic!("azurite-table does not start; see scripts/install-packages tests");
    }

    /// One that keeps its tables in `folder`, so that the next one there has them again.
    pub(crate) fn start_in(folder: &Path, port: u16) -> Self {
        Self::try_start(port, Some(folder)).expect("azurite-table does not start; see scripts/install-packages tests")
    }

    fn try_start(port: u16, folder: Option<&Path>) -> Option<Self> {
        let mut child = command(port, folder).spawn().expect("node starts");
        let deadline = Instant::now() + Duration::from_secs(90);
        while Instant::now() < deadline && child.try_wait().expect("it is our child").is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Self { port, child });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn command(port: u16, folder: Option<&Path>) -> Command {
    let script = installed().join("node_modules/azurite/dist/src/table/main.js");
    // The emulator must not outlive tests that are killed.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "node"])
        .arg(script)
        .args(["--disableTelemetry", "--silent", "--skipApiVersionCheck"])
        .args(["--tableHost", "127.0.0.1", "--tablePort", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    match folder {
        Some(folder) => command.arg("--location").arg(folder),
        None => command.arg("--inMemoryPersistence"),
    };
    command
}

fn installed() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"));
    let place = std::env::var_os("BOXPOOL_AZURITE").map_or_else(|| cache.join("boxpool/azurite"), PathBuf::from);
    match std::fs::metadata(place.join("node_modules/azurite")) {
        Ok(_) => place,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("azurite is not in {}; run scripts/install-packages tests", place.display())
        }
        Err(error) => panic!("{}: {error}", place.display()),
    }
}

/// The emulator that the tests of this process share.
pub(crate) fn shared() -> &'static Azurite {
    static SHARED: OnceLock<Azurite> = OnceLock::new();
    SHARED.get_or_init(|| {
        // `pdeathsig` follows the thread that starts the child, so that thread stays.
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tell.send(Azurite::start()).expect("the test waits");
            loop {
                std::thread::park();
            }
        });
        told.recv().expect("azurite-table does not start; see scripts/install-packages tests")
    })
}

/// Options for tables that no other test has.
pub(crate) fn fresh_options() -> TablesOptions {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut options = TablesOptions::emulator(shared().port);
    options.prefix = format!("t{}n{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    options
}

pub(crate) fn fresh_store() -> TableStore {
    TableStore::open(&fresh_options()).unwrap()
}
