//! A gateway as its operator runs it: the program, a state directory, a port.

use boxpool::{StateStore, UserId};
use boxpool_sqlite::SqliteStore;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Building a golden snapshot on a loaded machine, when this is the first test that needs one.
const READY_LIMIT: Duration = Duration::from_secs(900);

/// What differs from test to test.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many boxes run at once.
    pub slots: u32,
    /// How long a box goes on after its last session, in seconds.
    pub linger_s: u32,
    /// How long a connect may take, in seconds.
    pub connect_deadline_s: u32,
    /// Lines for the end of the configuration's first table.
    pub more: String,
    /// Lines for the end of the table `[box]`.
    pub more_box: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { slots: 3, linger_s: 1, connect_deadline_s: 240, more: String::new(), more_box: String::new() }
    }
}

/// A state directory: what survives a gateway.
pub struct State {
    dir: tempfile::TempDir,
    golden: PathBuf,
}

impl State {
    /// A fresh one that shares the golden snapshot of the whole test run.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bp").tempdir().unwrap();
        let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/boxpool-golden");
        std::fs::create_dir_all(golden.join("snapshots")).unwrap();
        let golden = golden.canonicalize().unwrap();
        let lock = std::fs::File::create(golden.join("box_key.lock")).unwrap();
        lock.lock().unwrap();
        let key = golden.join("box_key");
        if !key.exists() {
            let keygen = ["-q", "-t", "ed25519", "-N", "", "-C", "boxpool-tests", "-f"];
            assert!(Command::new("ssh-keygen").args(keygen).arg(&key).status().unwrap().success());
        }
        let copied = dir.path().join("box_ed25519_key");
        std::fs::copy(&key, &copied).unwrap();
        std::os::unix::fs::symlink(golden.join("snapshots"), dir.path().join("snapshots")).unwrap();
        Self { dir, golden }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of the shared golden snapshot.
    #[must_use]
    pub fn golden(&self) -> &Path {
        &self.golden
    }

    /// The pids of the QEMU processes of this state directory, with their command lines.
    #[must_use]
    pub fn guests(&self) -> Vec<(u32, String)> {
        let path = self.path().to_str().unwrap();
        let mut guests: Vec<(u32, String)> = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let line = std::fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                (line.starts_with("qemu-system") && line.contains(path)).then_some((pid, line))
            })
            .collect();
        guests.sort();
        guests
    }

    /// The state of a box, as the store has it, without asking the gateway.
    pub fn placement(&self, user: &str, name: &str) -> String {
        self.placement_in(&self.open_store(), user, name)
    }

    fn open_store(&self) -> (tokio::runtime::Runtime, Arc<SqliteStore>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = SqliteStore::open(self.path().join("state.sqlite")).unwrap();
        (runtime, Arc::new(store))
    }

    fn placement_in(&self, store: &(tokio::runtime::Runtime, Arc<SqliteStore>), user: &str, name: &str) -> String {
        let owner = UserId::new(user).unwrap();
        let key = boxpool::Key::new(boxpool::record::BOXES, owner.as_str(), name);
        let found = store.0.block_on(store.1.get(&key)).unwrap();
        found.map_or_else(
            || "absent".to_owned(),
            |stored| {
                let record: serde_json::Value = serde_json::from_str(&stored.value).unwrap();
                record["placement"]["state"].as_str().unwrap().to_owned()
            },
        )
    }

    /// Waits until the box is in that state, looking every few milliseconds.
    pub fn until(&self, user: &str, name: &str, wanted: &str, limit: Duration) {
        let store = self.open_store();
        let deadline = Instant::now() + limit;
        loop {
            let state = self.placement_in(&store, user, name);
            if state == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {state} and not {wanted} after {limit:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // No guest of a test outlives it.
        for (pid, _) in self.guests() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}

/// A gateway process.
pub struct Gateway {
    child: Child,
    /// Where it listens.
    pub port: u16,
    log: Arc<Mutex<String>>,
}

impl Gateway {
    /// The program: the one that `BOXPOOL_GATEWAY` names, else built once per test process.
    #[must_use]
    pub fn program() -> &'static Path {
        static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
        PROGRAM.get_or_init(|| {
            if let Some(built) = std::env::var_os("BOXPOOL_GATEWAY") {
                return built.into();
            }
            // With the features of a build of all tests, so that what is compiled is what they have, and the example beside it.
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--workspace", "--locked", "--bin", "boxpool-gateway", "--example", "own"]);
            // What a test is told of its own package is not for this one: build scripts that look at it would run again, and
            // whatever depends on them would be compiled anew, the next time from outside too.
            for (name, _) in std::env::vars() {
                if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                    cargo.env_remove(name);
                }
            }
            assert!(cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status().unwrap().success());
            // Beside this test's own executable: <target>/debug/deps/<test>.
            let own = std::env::current_exe().unwrap();
            own.parent().unwrap().parent().unwrap().join("boxpool-gateway")
        })
    }

    /// Starts one and waits until it says that it is ready.
    #[must_use]
    pub fn start(state: &State, settings: &Settings) -> Self {
        let config = state.path().join(format!("config-{}.toml", free_port()));
        let text = format!(
            "slots = {}\nmin_free = 1\nlinger = \"{}s\"\nconnect_deadline = \"{}s\"\n{}\n\
             [box]\nrecipe = \"tiny\"\nmemory_mib = 192\ncpus = 1\ndisk_gib = 2\n{}\n",
            settings.slots, settings.linger_s, settings.connect_deadline_s, settings.more, settings.more_box
        );
        std::fs::write(&config, text).unwrap();
        Self::serve(state.path(), &config, &[])
    }

    /// Starts one with that state directory, configuration and environment, and waits until it says that it is ready.
    #[must_use]
    pub fn serve(state_dir: &Path, config: &Path, environment: &[(&str, &str)]) -> Self {
        Self::run(|address| {
            let mut command = Command::new(Self::program());
            command.args(["serve", "--listen", address, "--state-dir"]).arg(state_dir).arg("--config").arg(config);
            command.envs(environment.iter().copied());
            command
        })
    }

    /// Starts what is to listen at the address that it is given, and waits until it says that it is ready.
    #[must_use]
    pub fn run(program: impl FnOnce(&str) -> Command) -> Self {
        let port = free_port();
        let mut child = program(&format!("127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = writeln!(std::io::stderr(), "gateway {port}: {line}");
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let (ready, is_ready) = std::sync::mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.contains("ssh -p") {
                    let _ = ready.send(line);
                }
            }
        });
        let gateway = Self { child, port, log };
        let line = is_ready.recv_timeout(READY_LIMIT).unwrap_or_else(|_| panic!("never ready:\n{}", gateway.log()));
        assert!(line.contains(&format!("-p {port} ")), "{line}");
        gateway
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; waits for the end and returns the exit code and how long it took.
    pub fn stop(mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        let terminated = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(terminated.success());
        let deadline = begun + Duration::from_secs(120);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), begun.elapsed());
            }
            assert!(Instant::now() < deadline, "it does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
#[must_use]
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
