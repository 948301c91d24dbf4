//! What the way through the gateway costs, against direct OpenSSH to the same SSH server: `cargo bench -p boxpool-gateway --bench direct`.
//!
//! Client, gateway and server share this machine, and both ways are taken in turn, so a busy machine slows both: the
//! ratios say more than the times. Every run's exit status and byte count are looked at. Parts are chosen by their names:
//! `-- connects echoes streams stalled resume idle storm`.

#![allow(clippy::unwrap_used)] // a measurement, not a library

#[path = "../../tests/harness/mod.rs"]
mod harness;
mod idle;
mod resume;
mod stalled;

use boxpool::EndpointAddress;
use boxpool_gateway::server::Settings;
use harness::light::storm;
use harness::memory::resident;
use harness::{Bench, milliseconds, quantile, settings, whoami};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

const CONNECTS: usize = 100;
const ECHOES: usize = 300;
const STREAMS: usize = 5;
const STREAM_BYTES: usize = 256 << 20;
const STORM: usize = 2000;

/// One of the two ways into the same box.
#[derive(Clone, Copy)]
enum Way {
    Gateway,
    Direct,
}

struct Ways {
    bench: Bench,
    port: u16,
}

impl Ways {
    /// `ssh` into the box with these options and this command.
    fn ssh(&self, way: Way, options: &[&str], command: &str) -> Command {
        let (key, port, login) = match way {
            Way::Gateway => ("id", self.bench.port, "dev1".to_owned()),
            Way::Direct => ("box_key", self.port, whoami()),
        };
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentityAgent=none", "-i"]).arg(self.bench.path(key));
        ssh.args(options).args(["-p", &port.to_string(), "-l", &login, "127.0.0.1", command]);
        ssh.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        ssh
    }

    async fn connect(&self, way: Way, options: &[&str]) -> f64 {
        let began = Instant::now();
        assert!(self.ssh(way, options, "true").status().await.unwrap().success());
        milliseconds(began.elapsed())
    }

    /// A byte there and back, again and again, with these options; after each a pause.
    async fn echoes(&self, way: Way, options: &[&str], pause: Duration) -> Vec<f64> {
        let mut child = self.ssh(way, options, "cat").stdin(Stdio::piped()).spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut taken = Vec::new();
        for _ in 0..=ECHOES {
            let began = Instant::now();
            input.write_all(b"x").await.unwrap();
            output.read_exact(&mut [0]).await.unwrap();
            taken.push(milliseconds(began.elapsed()));
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        taken.split_off(1) // the first waits for the login
    }

    /// The same on a connection whose other channel takes as much out of the box as there is room for.
    async fn echoes_beside_bulk(&self, way: Way) -> Vec<f64> {
        let shared = self.share(way).await;
        let mut bulk = self.ssh(way, &shared.options(), "cat /dev/zero").spawn().unwrap();
        let mut output = bulk.stdout.take().unwrap();
        output.read_exact(&mut [0]).await.unwrap();
        let taking = tokio::spawn(async move {
            let mut buffer = vec![0; 256 << 10];
            while output.read(&mut buffer).await.unwrap() > 0 {}
        });
        let taken = self.echoes(way, &shared.options(), Duration::ZERO).await;
        bulk.kill().await.unwrap();
        taking.await.unwrap();
        taken
    }

    /// A connection that several commands share, as OpenSSH's ControlMaster has it.
    async fn share(&self, way: Way) -> Shared {
        let socket = self.bench.path(match way {
            Way::Gateway => "through",
            Way::Direct => "past",
        });
        let _ = std::fs::remove_file(&socket);
        let path = socket.display().to_string();
        let master = self.ssh(way, &["-M", "-N", "-S", &path], "").spawn().unwrap();
        harness::appears(&socket).await;
        Shared { path, _master: master }
    }

    /// MiB in a second, out of the box or into it.
    async fn stream(&self, way: Way, cipher: &str, down: bool) -> f64 {
        let command = if down { format!("head -c {STREAM_BYTES} /dev/zero") } else { "wc -c".to_owned() };
        let mut ssh = self.ssh(way, &["-c", cipher], &command);
        let mut child = ssh.stdin(if down { Stdio::null() } else { Stdio::piped() }).spawn().unwrap();
        let began = Instant::now();
        let feeding = child.stdin.take().map(|mut input| {
            tokio::spawn(async move {
                let piece = vec![0; 64 << 10];
                for _ in 0..STREAM_BYTES / piece.len() {
                    input.write_all(&piece).await.unwrap();
                }
            })
        });
        let mut output = child.stdout.take().unwrap();
        let (mut buffer, mut count, mut said) = (vec![0; 256 << 10], 0, String::new());
        loop {
            match output.read(&mut buffer).await.unwrap() {
                0 => break,
                read if down => count += read,
                read => said.push_str(std::str::from_utf8(&buffer[..read]).unwrap()),
            }
        }
        if let Some(feeding) = feeding {
            feeding.await.unwrap();
            count = said.trim().parse().unwrap();
        }
        assert!(child.wait().await.unwrap().success());
        assert_eq!(count, STREAM_BYTES);
        f64::from(u32::try_from(STREAM_BYTES >> 20).unwrap()) / began.elapsed().as_secs_f64()
    }
}

/// Ends with its connection when dropped.
struct Shared {
    path: String,
    _master: Child,
}

impl Shared {
    fn options(&self) -> [&str; 2] {
        ["-S", &self.path]
    }
}

fn row(what: &str, unit: &str, gateway: f64, direct: f64) {
    println!("{what:<40} {gateway:>9.2} {direct:>9.2} {unit:<6} {:>6.2}", gateway / direct);
}

#[tokio::main]
async fn main() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let many = Settings { pre_auth_max: STORM, pre_auth_per_address_max: STORM, ..settings() };
    let minute = Duration::from_secs(60);
    let bench = Bench::with(Settings { connections_per_user: STORM, login_grace: minute, ..many }).await;
    bench.spinup("dev1").await;
    assert_eq!(bench.run("dev1", &["true"]).await.code, 0);
    let port = match &bench.boxes.boxes.lock().unwrap().values().next().unwrap().endpoint.address {
        EndpointAddress::Tcp(address) => address.port(),
        other => panic!("{other:?}"),
    };
    let ways = Ways { bench, port };

    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|each| each == part);
    println!("{:<40} {:>9} {:>9} {:<6} {:>6}", "", "gateway", "direct", "", "ratio");
    if is_chosen("connects") {
        connects(&ways).await;
    }
    if is_chosen("echoes") {
        echoes(&ways).await;
    }
    if is_chosen("streams") {
        streams(&ways).await;
    }
    if is_chosen("stalled") {
        stalled::measure(&ways).await;
    }
    if is_chosen("resume") {
        resume::measure().await;
    }
    if is_chosen("idle") {
        idle::measure(&ways).await;
    }
    if is_chosen("storm") {
        let began = Instant::now();
        let all_in = storm(&ways.bench, STORM).await;
        let took = began.elapsed();
        drop(all_in);
        println!("{STORM} logins at once, clients in the same process: {took:.1?}, all in");
    }
}

async fn connects(ways: &Ways) {
    // Which key exchange is agreed on makes a difference of its own: by default, and with one that all three have.
    for (kex, options) in [("", &[][..]), (", curve25519", &["-o", "KexAlgorithms=curve25519-sha256"])] {
        let (mut through, mut direct) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTS {
            through.push(ways.connect(Way::Gateway, options).await);
            direct.push(ways.connect(Way::Direct, options).await);
        }
        for (what, part) in [("median", 0.5), ("99 of 100", 0.99)] {
            let what = format!("ssh box true{kex}, {what}");
            row(&what, "ms", quantile(through.clone(), part), quantile(direct.clone(), part));
        }
    }
}

async fn echoes(ways: &Ways) {
    let echoes = async |way| quantile(ways.echoes(way, &[], Duration::ZERO).await, 0.5);
    row("one byte there and back, median", "ms", echoes(Way::Gateway).await, echoes(Way::Direct).await);
    let echoes = async |way| quantile(ways.echoes_beside_bulk(way).await, 0.5);
    row("the same beside a download, median", "ms", echoes(Way::Gateway).await, echoes(Way::Direct).await);
}

async fn streams(ways: &Ways) {
    for cipher in ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"] {
        for down in [true, false] {
            let (mut through, mut direct) = (Vec::new(), Vec::new());
            for _ in 0..STREAMS {
                through.push(ways.stream(Way::Gateway, cipher, down).await);
                direct.push(ways.stream(Way::Direct, cipher, down).await);
            }
            let cipher = cipher.split('@').next().unwrap();
            let what = format!("{cipher} {}", if down { "out of the box" } else { "into the box" });
            row(&what, "MiB/s", quantile(through, 0.5), quantile(direct, 0.5));
        }
    }
}
