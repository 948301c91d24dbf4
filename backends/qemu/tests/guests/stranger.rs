//! Another user of the host: somebody who may log in to it, and has nothing to do with the boxes.

use super::Bench;
use boxpool::{Endpoint, EndpointAddress};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A program that this user runs. Becoming them needs root.
fn stranger(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    // Every Linux has this user, and no guest runs as it.
    command.args(["--reuid=daemon", "--regid=daemon", "--clear-groups", "--no-new-privs", program]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Files, folders and sockets of the state directory that they can read or write (which for a socket is to connect), of all
/// there are.
pub fn can_open(bench: &Bench) -> Vec<String> {
    let all = Command::new("find").arg(bench.dir.path()).output().unwrap();
    assert!(text(&all).contains("/qmp") && text(&all).contains("/disk.qcow2"), "there is something to find: {all:?}");
    // A file outside that they can read shows that they can look.
    let mut control = tempfile::NamedTempFile::new().unwrap();
    control.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).unwrap();
    writeln!(control, "for everybody").unwrap();
    let look = r#"while read -r path; do if [ -r "$path" ] || [ -w "$path" ]; then echo "$path"; fi; done"#;
    let mut shell = stranger("sh").args(["-c", look]).stdin(Stdio::piped()).spawn().unwrap();
    let mut paths = shell.stdin.take().unwrap();
    paths.write_all(&all.stdout).unwrap();
    writeln!(paths, "{}", control.path().display()).unwrap();
    drop(paths);
    let looked = shell.wait_with_output().unwrap();
    assert!(looked.status.success(), "{looked:?}");
    let (seen, rest): (Vec<_>, Vec<_>) =
        text(&looked).lines().map(str::to_owned).partition(|path| control.path() == Path::new(path));
    assert_eq!(seen.len(), 1, "{looked:?}");
    rest
}

/// Ports of the host, of all that listen, behind which the box's own SSH server shows its key to them.
pub fn finds_box_at(endpoint: &Endpoint) -> Vec<u16> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let ports: BTreeSet<u16> = tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(listening).collect();
    // All at once: one that says nothing takes the whole limit.
    let scans: Vec<_> = ports
        .into_iter()
        .map(|port| {
            let mut scan = stranger("ssh-keyscan");
            scan.args(["-T", "5", "-t", "ed25519", "-p", &port.to_string(), "127.0.0.1", "::1"]);
            (port, scan.spawn().unwrap())
        })
        .collect();
    let key = endpoint.host_key.split_whitespace().nth(1).unwrap();
    let seen = scans.into_iter().map(|(port, scan)| (port, text(&scan.wait_with_output().unwrap())));
    seen.filter(|(_, keys)| keys.contains(key)).map(|(port, _)| port).collect()
}

/// The port of a line of the kernel's table, if it listens: state 0A.
fn listening(line: &str) -> Option<u16> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = columns.get(1)?.rsplit_once(':')?;
    (*columns.get(3)? == "0A").then(|| u16::from_str_radix(port, 16).ok())?
}

/// What the box says to them when they knock with a key of their own.
pub fn is_told(endpoint: &Endpoint, login: &str) -> String {
    let EndpointAddress::Tcp(address) = &endpoint.address else { panic!("a TCP address") };
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let key = dir.path().join("key");
    let made = stranger("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut ssh = stranger("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=30", "-p", &address.port().to_string()]);
    let ran = ssh.arg("-i").arg(&key).args(["-l", login, "127.0.0.1", "true"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(255), "{ran:?}");
    String::from_utf8_lossy(&ran.stderr).into_owned()
}
