//! The whole gateway on the real pool, with guests that are SSH servers on this machine.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use boxpool::VolumeSource;
use boxpool_gateway::backends::open_store;
use boxpool_gateway::config::Config;
use boxpool_gateway::duration::Span;
use boxpool_gateway::place::Place;
use boxpool_gateway::serve::{Backends, Keys, serve};
use harness::machines::Machines;
use harness::{HANG, Ran, finish, until};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// One machine with any number of gateways on it.
struct Site {
    dir: tempfile::TempDir,
    machines: Arc<Machines>,
}

struct Running {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<boxpool::Result<()>>,
}

impl Site {
    fn new() -> Self {
        std::fs::create_dir_all("/run/sshd").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let place = Place::ensure(dir.path()).unwrap();
        let keys = Keys::ensure(&place).unwrap();
        std::fs::write(dir.path().join("box_key.pub"), keys.boxes.public_key().to_openssh().unwrap() + "\n").unwrap();
        harness::make_key(dir.path(), "id");
        let machines = Arc::new(Machines::new(dir.path().to_path_buf()));
        Self { dir, machines }
    }

    async fn start(&self, config: Config) -> Running {
        let place = Place::ensure(self.dir.path()).unwrap();
        let keys = Keys::ensure(&place).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Config { listen: listener.local_addr().unwrap(), ..config };
        let backends = Backends {
            store: open_store(&place).unwrap(),
            instances: self.machines.clone(),
            volumes: self.machines.clone(),
            runtime: self.machines.clone(),
            source: VolumeSource::Empty { bytes: 1 },
            generation: "1".into(),
            golden: None,
            remote: None,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            serve(&config, keys, backends, listener, stop).await
        });
        Running { port, stop: Some(stop), served }
    }

    fn ssh(&self, gateway: &Running, login: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "IdentityAgent=none"]);
        command.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(self.dir.path().join("id"));
        command.args(["-p", &gateway.port.to_string(), "-l", login, "127.0.0.1"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, gateway: &Running, login: &str, args: &[&str]) -> Ran {
        finish(self.ssh(gateway, login, args)).await
    }

    async fn state(&self, gateway: &Running, name: &str) -> String {
        let listed = self.run(gateway, "gateway", &["list", "--json"]).await.json();
        let boxes = listed["boxes"].as_array().unwrap();
        boxes.iter().find(|each| each["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    }

    async fn until_gateways(&self, gateway: &Running, wanted: u64) {
        for _ in 0..200 {
            if self.run(gateway, "gateway", &["status", "--json"]).await.json()["gateways"] == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the gateways never saw each other");
    }

    async fn until_state(&self, gateway: &Running, name: &str, wanted: &str) {
        for _ in 0..300 {
            if self.state(gateway, name).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {wanted}: {}", self.state(gateway, name).await);
    }
}

impl Running {
    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(HANG, self.served).await.expect("it stops").unwrap().unwrap();
    }
}

fn config() -> Config {
    let linger = Span(Duration::from_millis(100));
    Config {
        slots: 2,
        linger,
        connect_deadline: Span::seconds(3),
        dial_deadline: Span::seconds(3),
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_made_used_suspended_used_again_and_deleted() {
    let site = Site::new();
    let gateway = site.start(config()).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    assert_eq!(site.state(&gateway, "dev1").await, "detached");
    let ran = site.run(&gateway, "dev1", &["echo $BOXNAME; echo kept > $BOXHOME/file"]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "dev1\n"), "{ran:?}");
    site.until_state(&gateway, "dev1", "parked").await;
    assert_eq!(site.machines.running(), 0);
    assert_eq!(site.run(&gateway, "dev1", &["cat $BOXHOME/file"]).await.text(), "kept\n");
    assert_eq!(site.machines.starts(), 2);
    let ran = site.run(&gateway, "gateway", &["delete dev1 --yes"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(site.run(&gateway, "dev1", &["true"]).await.code, 3);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_one_guest_and_it_is_suspended_when_both_have_left() {
    let site = Site::new();
    let (a, b) = (site.start(config()).await, site.start(config()).await);
    assert_eq!(site.run(&a, "gateway", &["spinup", "dev1"]).await.code, 0);
    for gateway in [&a, &b] {
        site.until_gateways(gateway, 2).await;
    }
    let go_on = site.dir.path().join("go-on");
    let wait = format!("echo there; until [ -e {} ]; do sleep 0.05; done", go_on.display());
    let mut sessions = Vec::new();
    for gateway in [&a, &b] {
        let mut session = site.ssh(gateway, "dev1", &[&wait]).spawn().unwrap();
        session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
        sessions.push(session);
    }
    assert_eq!((site.machines.starts(), site.machines.running()), (1, 1));
    sessions.remove(0).kill().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await; // longer than the linger: the other one still holds it
    assert_eq!(site.machines.running(), 1);
    std::fs::write(&go_on, "").unwrap();
    assert!(sessions.remove(0).wait().await.unwrap().success());
    until("it is suspended", || site.machines.running() == 0).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_machine_waiters_are_told_their_place_and_refused_at_the_deadline() {
    let site = Site::new();
    let gateway = site.start(Config { slots: 1, ..config() }).await;
    for name in ["one", "two"] {
        assert_eq!(site.run(&gateway, "gateway", &["spinup", name]).await.code, 0);
    }
    let mut holder = site.ssh(&gateway, "one", &["echo there; sleep 60"]).spawn().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    let mut waiter = site.ssh(&gateway, "two", &[]);
    waiter.arg("-tt");
    let ran = finish(waiter).await;
    assert_eq!(ran.code, 75, "{ran:?}");
    assert!(ran.stderr.contains("you are number 1 in line"), "{ran:?}");
    let ran = site.run(&gateway, "two", &["true"]).await;
    assert_eq!((ran.code, ran.stderr.lines().count()), (75, 1), "{ran:?}");
    holder.kill().await.unwrap();
    assert_eq!(site.run(&gateway, "two", &["echo $BOXNAME"]).await.text(), "two\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_died_is_started_again_by_the_next_connect() {
    let site = Site::new();
    let gateway = site.start(config()).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let mut session = site.ssh(&gateway, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
    session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    site.machines.kill_guests();
    let ran: Ran = tokio::time::timeout(HANG, session.wait_with_output()).await.unwrap().unwrap().into();
    assert_eq!((ran.code, ran.stderr.contains("was lost")), (255, true), "{ran:?}");
    assert_eq!(site.run(&gateway, "dev1", &["echo back"]).await.text(), "back\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_users_suspends_their_boxes_and_the_next_start_has_them() {
    let site = Site::new();
    let gateway = site.start(Config { linger: Span::seconds(60), ..config() }).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let mut session = site.ssh(&gateway, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
    session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    gateway.stop().await;
    let ran: Ran = tokio::time::timeout(HANG, session.wait_with_output()).await.unwrap().unwrap().into();
    assert_eq!((ran.code, ran.stderr.contains("the gateway is stopping")), (255, true), "{ran:?}");
    assert_eq!(site.machines.running(), 0);
    let gateway = site.start(config()).await;
    assert_eq!(site.state(&gateway, "dev1").await, "parked");
    assert_eq!(site.run(&gateway, "dev1", &["echo again"]).await.text(), "again\n");
    gateway.stop().await;
}
