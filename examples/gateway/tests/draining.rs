//! SIGTERM ends the gateway's process within its limit, whatever its boxes do.
//!
//! The process is this program once more: its one ignored test is a gateway with guests of the harness.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use boxpool::Table;
use boxpool_gateway::backends::open_store;
use boxpool_gateway::config::Config;
use boxpool_gateway::duration::Span;
use boxpool_gateway::place::Place;
use boxpool_gateway::stop::{block_on, stop_signal};
use harness::machines::{Machines, NEVER_SUSPENDS};
use harness::site::{Site, config, gateway};
use harness::{Ran, finish};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// Where the process finds the keys, and keeps its state.
const SITE: &str = "BOXPOOL_TEST_SITE";

/// What the process takes for its audit log, if it is to have one.
const AUDIT_LOG: &str = "BOXPOOL_TEST_AUDIT_LOG";

const DRAIN_LIMIT: Duration = Duration::from_secs(6);

#[test]
#[ignore = "the process that the other tests start"]
fn gateway_process() {
    let dir = PathBuf::from(std::env::var_os(SITE).expect("the other tests say where"));
    let machines = Arc::new(Machines::new(dir.clone()));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let (linger, drain_limit) = (Span::seconds(600), Span(DRAIN_LIMIT));
    let audit_log = std::env::var_os(AUDIT_LOG).map(PathBuf::from);
    let config = Config { linger, drain_limit, audit_log, ..config() };
    let served = block_on(async { gateway(&dir, &machines, config, stop_signal()?).await.1.await });
    machines.kill_guests();
    served.unwrap();
}

struct Process {
    site: Site,
    child: Child,
    port: u16,
}

impl Process {
    async fn start() -> Self {
        Self::telling(Site::new(), None).await
    }

    async fn telling(site: Site, audit_log: Option<&Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "gateway_process", "--ignored", "--nocapture"]).env(SITE, site.dir.path());
        command.envs(audit_log.map(|path| (AUDIT_LOG, path)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let ready = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it gets ready");
                if let Some((_, said)) = line.split_once("ready: ssh -p ") {
                    return said.split(' ').next().unwrap().parse().unwrap();
                }
            }
        };
        let port = timeout(harness::HANG, ready).await.unwrap();
        Self { site, child, port }
    }

    async fn inside(&self, name: &str) -> Child {
        let ran = finish(self.site.ssh_to(self.port, "id", "gateway", &["spinup", name])).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let mut client = self.site.ssh_to(self.port, "id", name, &["echo there; sleep 600"]).spawn().unwrap();
        client.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
        client
    }

    /// SIGTERM; what it said until its end, and how long that took.
    async fn terminate(mut self) -> (Site, String, Duration) {
        let (begun, pid) = (Instant::now(), self.child.id().unwrap());
        kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
        let status = timeout(harness::HANG, self.child.wait()).await.expect("it ends").unwrap();
        let took = begun.elapsed();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert!(status.success(), "{status}: {said}");
        (self.site, said, took)
    }
}

/// What is on record of the box.
async fn state(site: &Site, name: &str) -> String {
    let store = open_store(&Place::ensure(site.dir.path()).unwrap()).unwrap();
    let page = store.scan(Table::new("boxes"), None, None, 100).await.unwrap();
    let stored = page.items.into_iter().find(|entry| entry.key.row == name).unwrap().stored.value;
    let record: serde_json::Value = serde_json::from_str(&stored).unwrap();
    record["placement"]["state"].as_str().unwrap().to_owned()
}

async fn sent_away(client: Child) {
    let ran: Ran = timeout(harness::HANG, client.wait_with_output()).await.expect("it ends").unwrap().into();
    assert!(ran.code == 255 && ran.stderr.contains("the gateway is stopping"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_tells_the_users_suspends_their_boxes_and_ends_the_process_in_time() {
    let process = Process::start().await;
    let (first, second) = (process.inside("dev1").await, process.inside("dev2").await);
    let (site, said, took) = process.terminate().await;
    assert!(took < DRAIN_LIMIT && said.contains("suspended=2 unfinished=0"), "{took:?}: {said}");
    sent_away(first).await;
    sent_away(second).await;
    assert_eq!((state(&site, "dev1").await, state(&site, "dev2").await), ("parked".into(), "parked".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_is_not_suspended_in_time_is_named_and_holds_up_neither_the_others_nor_the_end() {
    let process = Process::start().await;
    let (well, stuck) = (process.inside("dev1").await, process.inside(NEVER_SUSPENDS).await);
    let (site, said, took) = process.terminate().await;
    // What the machine itself takes to end a process comes on top.
    assert!(took < DRAIN_LIMIT + Duration::from_millis(1_500), "{took:?}: {said}");
    assert!(said.contains("not suspended in time") && said.contains("suspended=1 unfinished=1"), "{said}");
    assert!(said.contains(&format!("box_name={NEVER_SUSPENDS}")), "{said}");
    sent_away(well).await;
    sent_away(stuck).await;
    assert_eq!(state(&site, "dev1").await, "parked");
    assert_ne!(state(&site, NEVER_SUSPENDS).await, "parked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_log_that_takes_nothing_any_more_does_not_hold_up_the_end() {
    let site = Site::new();
    let path = site.dir.path().join("audit");
    assert!(Command::new("mkfifo").arg(&path).status().await.unwrap().success());
    // A pipe that is full, and that nobody reads, is like a disk that stands still.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut pipe = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&path).unwrap();
    while pipe.write(&[0; 4096]).is_ok() {}
    let process = Process::telling(site, Some(&path)).await;
    let client = process.inside("dev1").await;
    let (site, said, took) = process.terminate().await;
    assert!(took < DRAIN_LIMIT + Duration::from_millis(1_500), "{took:?}: {said}");
    assert!(said.contains("the audit log's disk stands still") && said.contains("suspended=1"), "{said}");
    sent_away(client).await;
    assert_eq!(state(&site, "dev1").await, "parked");
}
