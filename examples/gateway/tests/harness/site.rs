//! Whole gateways on the real pool, with guests that are SSH servers on this machine.

use super::machines::Machines;
use super::{HANG, Ran, ask_until, finish, make_key};
use boxpool::VolumeSource;
use boxpool_gateway::backends::open_store;
use boxpool_gateway::config::Config;
use boxpool_gateway::duration::Span;
use boxpool_gateway::place::Place;
use boxpool_gateway::serve::{self, Backends, Keys, serve};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// One machine with any number of gateways on it.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub machines: Arc<Machines>,
}

pub struct Running {
    pub port: u16,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<boxpool::Result<()>>,
}

impl Site {
    pub fn new() -> Self {
        std::fs::create_dir_all("/run/sshd").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let place = Place::ensure(dir.path()).unwrap();
        let keys = Keys::ensure(&place).unwrap();
        std::fs::write(dir.path().join("box_key.pub"), keys.boxes.public_key().to_openssh().unwrap() + "\n").unwrap();
        make_key(dir.path(), "id");
        let machines = Arc::new(Machines::new(dir.path().to_path_buf()));
        Self { dir, machines }
    }

    pub async fn start(&self, config: Config) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let (port, serving) = gateway(self.dir.path(), &self.machines, config, stopped).await;
        Running { port, stop: Some(stop), served: tokio::spawn(serving) }
    }

    pub fn ssh(&self, gateway: &Running, login: &str, args: &[&str]) -> Command {
        self.ssh_as("id", gateway, login, args)
    }

    pub fn ssh_as(&self, key: &str, gateway: &Running, login: &str, args: &[&str]) -> Command {
        self.ssh_to(gateway.port, key, login, args)
    }

    pub fn ssh_to(&self, port: u16, key: &str, login: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "IdentityAgent=none"]);
        command.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(self.dir.path().join(key));
        command.args(["-p", &port.to_string(), "-l", login, "127.0.0.1"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub async fn run(&self, gateway: &Running, login: &str, args: &[&str]) -> Ran {
        finish(self.ssh(gateway, login, args)).await
    }

    pub async fn state(&self, gateway: &Running, name: &str) -> String {
        let listed = self.run(gateway, "gateway", &["list", "--json"]).await.json();
        let boxes = listed["boxes"].as_array().unwrap();
        boxes.iter().find(|each| each["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    }

    pub async fn until_gateways(&self, gateway: &Running, wanted: u64) {
        let seen = async || self.run(gateway, "gateway", &["status", "--json"]).await.json()["gateways"].clone();
        ask_until("the gateways see each other", seen, |seen| *seen == wanted).await;
    }

    pub async fn until_state(&self, gateway: &Running, name: &str, wanted: &str) {
        ask_until(wanted, async || self.state(gateway, name).await, |state| state == wanted).await;
    }
}

impl Running {
    pub async fn stop(mut self) {
        self.begin_stop();
        self.ended().await;
    }

    /// Begins the stop without waiting for its end.
    pub fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for the end of a stop.
    pub async fn ended(self) {
        tokio::time::timeout(HANG, self.served).await.expect("it stops").unwrap().unwrap();
    }
}

/// A gateway that is to be awaited, and its port.
pub async fn gateway(
    dir: &Path,
    machines: &Arc<Machines>,
    config: Config,
    stop: impl Future<Output = ()> + Send + 'static,
) -> (u16, impl Future<Output = boxpool::Result<()>> + Send + 'static) {
    let place = Place::ensure(dir).unwrap();
    let keys = Keys::ensure(&place).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Config { listen: listener.local_addr().unwrap(), ..config };
    let all = config.clone();
    // The machines of the other regions lie beside those of the first, and copy from them.
    let sites = config.alone().unwrap().into_iter().enumerate().map(|(number, (region, config))| {
        let place = region.as_ref().map_or(place.clone(), |region| all.place_of(region, &place).unwrap());
        let machines = if number == 0 { Arc::clone(machines) } else { Arc::new(machines.beside(place.path())) };
        serve::Site { region, config, backends: backends(&place, &machines) }
    });
    let sites = sites.collect();
    (port, async move { serve(&config, keys, sites, listener, stop).await })
}

fn backends(place: &Place, machines: &Arc<Machines>) -> Backends {
    Backends {
        store: open_store(place).unwrap(),
        instances: machines.clone(),
        volumes: machines.clone(),
        copier: Some(machines.clone()),
        runtime: machines.clone(),
        source: VolumeSource::Empty { bytes: 1 },
        generation: "1".into(),
        golden: None,
        remote: None,
    }
}

pub fn config() -> Config {
    let linger = Span(Duration::from_millis(100));
    Config {
        slots: 2,
        linger,
        connect_deadline: Span::seconds(3),
        dial_deadline: Span::seconds(3),
        ..Config::default()
    }
}
