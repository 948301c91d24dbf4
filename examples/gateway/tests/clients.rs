//! The client matrix: the SSH clients that people use, through a real gateway to a real OpenSSH server.
//!
//! Each row is a script in `clients/` that runs one client and says how its cells did. The rows run side by side, each with a
//! box of its own, and must leave nothing behind. The table is shown at the end.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use boxpool::EndpointAddress;
use harness::{Bench, kill_tree, noise, settings, until, whoami};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::Semaphore;

/// What is run, the longest first, and what it is called.
const ROWS: &[(&str, &str)] = &[
    ("openssh.sh", "OpenSSH ssh"),
    ("ansible.sh", "Ansible"),
    ("forwards.sh", "OpenSSH forwards"),
    ("copies.sh", "scp sftp rsync git lftp"),
    ("putty.sh", "PuTTY plink psftp pscp"),
    ("asyncssh_row.py", "AsyncSSH"),
    ("libssh_row.py", "libssh"),
    ("libssh2_row.py", "libssh2"),
    ("paramiko_row.py", "Paramiko"),
    ("dropbear.sh", "Dropbear dbclient"),
    ("editor.sh", "like VS Code"),
    ("sshfs.sh", "sshfs"),
    ("mosh.sh", "mosh"),
];

/// The cells most clients have, as columns.
const COLUMNS: &[&str] = &["exec", "status", "stderr", "in", "out"];

/// Rows that run side by side. They wait more than they compute.
const AT_ONCE: usize = 4;

/// No row takes this long unless it hangs.
const ROW_LIMIT: Duration = Duration::from_secs(240);

const BIG: usize = 20_000_000;

#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(String),
    NotRun(String),
}

struct Cell {
    name: String,
    outcome: Outcome,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_works_as_it_does_with_openssh() {
    let bench = Bench::with(boxpool_gateway::server::Settings { boxes_per_user: ROWS.len(), ..settings() }).await;
    let big = noise(BIG);
    std::fs::write(bench.path("big"), &big).unwrap();
    let sum: String = Sha256::digest(&big).iter().map(|byte| format!("{byte:02x}")).collect();
    drop(big);
    let service = greet_and_echo().await;
    let turns = Semaphore::new(AT_ONCE);
    let began = Instant::now();
    let rows = ROWS.iter().map(|(script, client)| {
        let (bench, sum, turns) = (&bench, &sum, &turns);
        async move {
            let _turn = turns.acquire().await.unwrap();
            let began = Instant::now();
            (*client, run(bench, script, sum, service).await, began.elapsed())
        }
    });
    let rows = futures::future::join_all(rows).await;

    // Not by `println`, which only a failed test shows.
    std::io::stderr().write_all(table(&rows, began.elapsed()).as_bytes()).unwrap();
    let failed = rows.iter().flat_map(|(client, cells, _)| cells.iter().map(move |cell| (client, cell)));
    let failed: Vec<String> = failed
        .filter_map(|(client, cell)| match &cell.outcome {
            Outcome::Failed(why) => Some(format!("{client}, {}: {why}", cell.name)),
            Outcome::Passed | Outcome::NotRun(_) => None,
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    until("every connection has ended", || bench.gateway.operator.sessions.count() == 0).await;
    until("nothing runs any more", || bench.gateway.activity.count() == 0).await;
    for (script, _) in ROWS {
        until("the box is let go of", || bench.boxes.sessions(login(script)) == 0).await;
        until("no session is left in the box", || bench.boxes.processes(login(script)) == 0).await;
    }
}

/// The box of a row, which is also its login name.
fn login(script: &str) -> &str {
    let name = script.split('.').next().unwrap();
    name.strip_suffix("_row").unwrap_or(name)
}

/// Runs a row to its end.
async fn run(bench: &Bench, script: &str, sum: &str, service: u16) -> Vec<Cell> {
    let login = login(script);
    bench.spinup(login).await;
    let home = bench.path(login);
    std::fs::create_dir(&home).unwrap();
    let config = home.join("ssh_config");
    std::fs::write(&config, ssh_config(bench, login, &home)).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let shell = script.extension().is_some_and(|kind| kind == "sh");
    let mut command = Command::new(if shell { "bash".into() } else { clients().join("bin/python") });
    command.arg(&script).env("HOME", &home).env("CONFIG", &config).env("CLIENTS", clients());
    command.env("PORT", bench.port.to_string()).env("LOGIN", login).env("SERVICE", service.to_string());
    command.env("KEY", bench.path("id")).env("KNOWN_HOSTS", bench.path("known_hosts"));
    command.env("BIG", bench.path("big")).env("SUM", sum).env("PYTHONDONTWRITEBYTECODE", "1");
    for agent in ["SSH_AUTH_SOCK", "DISPLAY"] {
        command.env_remove(agent);
    }
    command.current_dir(&home).stdin(Stdio::null());
    // Files, not pipes: what a row leaves in the background would keep a pipe open.
    let (said, complained) = (home.join("row.stdout"), home.join("row.stderr"));
    command.stdout(std::fs::File::create(&said).unwrap()).stderr(std::fs::File::create(&complained).unwrap());
    let mut child = command.spawn().unwrap();
    let ended = tokio::time::timeout(ROW_LIMIT, child.wait()).await;
    if ended.is_err() {
        kill_tree(child.id().unwrap());
        child.wait().await.unwrap();
    }
    let mut cells = read(&std::fs::read_to_string(said).unwrap());
    let ended_well = ended.is_ok_and(|status| status.unwrap().success());
    if cells.is_empty() || !ended_well {
        let complaint = std::fs::read_to_string(complained).unwrap();
        cells.push(Cell { name: "the row itself".into(), outcome: Outcome::Failed(complaint) });
    }
    cells
}

/// Where scripts/install-ssh-clients puts the clients that are Python packages.
fn clients() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || named("XDG_CACHE_HOME").unwrap_or_else(|| named("HOME").unwrap().join(".cache"));
    let folder = named("BOXPOOL_SSH_CLIENTS").unwrap_or_else(|| cache().join("boxpool/ssh-clients")).join("venv");
    assert!(folder.exists(), "{} is not there: run scripts/install-ssh-clients", folder.display());
    folder
}

/// What OpenSSH and those on top of it are to know: the box, the lobby, and the box's own server behind the gateway.
fn ssh_config(bench: &Bench, login: &str, home: &Path) -> String {
    let boxes = bench.boxes.boxes.lock().unwrap();
    let (_, found) = boxes.iter().find(|((_, name), _)| name.as_str() == login).unwrap();
    let EndpointAddress::Tcp(inner) = &found.endpoint.address else { unreachable!("boxes here are at an address") };
    let (dir, home, port) = (bench.dir.path().display(), home.display(), bench.port);
    let known = format!("[127.0.0.1]:{} {}\n", inner.port(), found.endpoint.host_key);
    std::fs::write(bench.path(login).join("inner_known"), known).unwrap();
    format!(
        "Host box gateway\n HostName 127.0.0.1\n Port {port}\n IdentityFile {dir}/id\n UserKnownHostsFile {dir}/known_hosts\n\
         Host box\n User {login}\nHost gateway\n User gateway\n\
         Host inner\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {dir}/box_key\n ProxyJump box\n \
         UserKnownHostsFile {home}/inner_known\n\
         Host *\n IdentitiesOnly yes\n IdentityAgent none\n BatchMode yes\n StrictHostKeyChecking yes\n \
         GlobalKnownHostsFile none\n LogLevel ERROR\n",
        inner.port(),
        whoami(),
    )
}

/// A server that speaks first, and then says what it hears. Answers its port.
async fn greet_and_echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                // Whoever leaves early is told about by its own row.
                let _ = write.write_all(b"hello\n").await;
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    port
}

/// The cells a row has told of. One that was only begun has not passed.
fn read(said: &str) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    for line in said.lines() {
        let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
        let outcome = match word {
            "begin" => {
                cells.push(Cell { name: rest.into(), outcome: Outcome::Failed("it never ended".into()) });
                continue;
            }
            "passed" => Outcome::Passed,
            "failed" => Outcome::Failed(rest.into()),
            "not run" => Outcome::NotRun(rest.into()),
            _ => panic!("a row says {line:?}"),
        };
        cells.last_mut().unwrap().outcome = outcome;
    }
    cells
}

fn table(rows: &[(&str, Vec<Cell>, Duration)], took: Duration) -> String {
    let word = |cell: &Cell| match cell.outcome {
        Outcome::Passed => "ok",
        Outcome::Failed(_) => "FAILED",
        Outcome::NotRun(_) => "NOT RUN",
    };
    let mut text = format!("\n{:26}", "client");
    COLUMNS.iter().for_each(|column| write!(text, "{column:9}").unwrap());
    text.push_str("and\n");
    for (client, cells, took) in rows {
        write!(text, "{client:26}").unwrap();
        for column in COLUMNS {
            let found = cells.iter().find(|cell| cell.name == *column);
            write!(text, "{:9}", found.map_or("-", word)).unwrap();
        }
        for cell in cells.iter().filter(|cell| !COLUMNS.contains(&cell.name.as_str())) {
            match &cell.outcome {
                Outcome::Passed => write!(text, "{} ", cell.name).unwrap(),
                Outcome::Failed(_) => write!(text, "{}=FAILED ", cell.name).unwrap(),
                Outcome::NotRun(why) => write!(text, "{}=NOT RUN ({why}) ", cell.name).unwrap(),
            }
        }
        writeln!(text, "[{:.1} s]", took.as_secs_f32()).unwrap();
    }
    writeln!(text, "all in {:.1} s", took.as_secs_f32()).unwrap();
    text
}
