//! What OpenSSH takes for as much: `sshd` as a jump host, through which each user has a connection to a box, as `ssh -J` makes it.
//!
//! It is less than what a gateway does, since a jump host only hands on bytes: what is between user and box is encrypted once.

use super::harness::light::log_in_with;
use super::harness::memory::proportional;
use super::harness::{HANG, free_port, make_key, tree};
use boxpool_gateway::hostkey::ensure_key;
use russh::keys::{PrivateKeyWithHashAlg, load_secret_key};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const SESSIONS: usize = 100;
/// Not root, for whom `sshd` does with one process less.
const LOGIN: &str = "nobody";

pub(crate) async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let (sshd, port) = start(dir.path()).await;
    let boxes = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = u32::from(boxes.local_addr().unwrap().port());
    let server = sshd.id().unwrap();
    let before = taken(server);
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let key = load_secret_key(dir.path().join("id"), None).unwrap();
        let user = log_in_with(port, PrivateKeyWithHashAlg::new(Arc::new(key), None), LOGIN.to_owned()).await;
        let mut way = user.channel_open_direct_tcpip("127.0.0.1", to, "127.0.0.1", 0).await.unwrap().into_stream();
        let (mut at_box, _) = boxes.accept().await.unwrap();
        at_box.write_all(b"x").await.unwrap();
        way.read_exact(&mut [0]).await.unwrap();
        sessions.push((user, way, at_box));
    }
    let each = (taken(server) - before) / SESSIONS as u64;
    println!(
        "sshd as a jump host with {SESSIONS} sessions: {each} KiB for each, in {} processes",
        tree(server).len() - 1
    );
}

/// What it and all below it take, in KiB.
fn taken(process: u32) -> u64 {
    tree(process).into_iter().map(proportional).sum()
}

async fn start(dir: &Path) -> (Child, u16) {
    std::fs::create_dir_all("/run/sshd").unwrap();
    // Read with the rights of who logs in.
    std::fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    make_key(dir, "id");
    ensure_key(&dir.join("host"), "jump host").unwrap();
    let (port, here) = (free_port(), dir.display());
    let config = format!(
        "Port {port}\nAddressFamily inet\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/id.pub\n\
         StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 100\nAllowTcpForwarding yes\n"
    );
    std::fs::write(dir.join("sshd_config"), config).unwrap();
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).stdin(Stdio::null()).stderr(Stdio::null());
    let sshd = sshd.kill_on_drop(true).spawn().unwrap();
    let listens = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG, listens).await.expect("it listens");
    (sshd, port)
}
