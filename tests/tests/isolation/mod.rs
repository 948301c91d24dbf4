//! What boxes that run beside each other can reach, and what can be reached of them.

use boxpool_tests::{Gateway, State, User};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

/// Looks at two boxes that run: from inside the first, and from this machine as somebody without the gateway's key.
pub(crate) fn holds(state: &State, gateway: &Gateway, user: &User, [one, two]: [&str; 2]) {
    let guests: Vec<u32> = state.guests().into_iter().map(|(pid, _)| pid).collect();
    assert_eq!(guests.len(), 2, "{guests:?}");
    let ports: Vec<u16> = guests.iter().flat_map(|guest| listening(*guest)).collect();
    assert_eq!(ports.len(), 2, "one port a box, for SSH, and none for QMP or a screen: {ports:?}");

    // From inside: what is open on the box itself is seen, so that what is not seen elsewhere is not open.
    let own = "nc -w 5 10.0.2.15 22 </dev/null | head -c 4; echo; ";
    let there = ports.iter().chain([&gateway.port]).map(|port| format!("10.0.2.2 {port}"));
    let there = there.chain(["10.0.2.2 22".to_owned(), "10.0.2.3 53".to_owned(), "127.0.0.1 2222".to_owned()]);
    let looks = there.map(|place| format!("nc -w 2 {place} </dev/null >/dev/null 2>&1 && echo open: {place}; "));
    let seen = user.does(gateway, one, &format!("{own}{}echo looked", looks.collect::<String>()));
    assert_eq!(seen, "SSH-\nlooked", "what a box sees of this machine");
    assert_eq!(user.does(gateway, two, "cat file"), two, "the other one is there all the while");

    // From this machine: a port of a box is an SSH server that lets nobody in but the gateway.
    for port in ports {
        for login in ["root", "user", one] {
            let mut ssh = Command::new("ssh");
            ssh.args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "StrictHostKeyChecking=no",
            ]);
            ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-p", &port.to_string(), "-l", login, "-i"])
                .arg(user.key());
            let ran = ssh.args(["127.0.0.1", "true"]).stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert!(
                ran.status.code() == Some(255) && said.contains("Permission denied (publickey)"),
                "{login}: {said}"
            );
        }
    }
}

/// The TCP ports a process listens on.
fn listening(pid: u32) -> Vec<u16> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let sockets: BTreeSet<String> = fds
        .filter_map(|fd| {
            let target = std::fs::read_link(fd.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let by_socket: BTreeMap<String, u16> = table
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| {
            // Local address, remote address and state (0A: listening) are columns 1, 2 and 3, the socket's number is column 9.
            let columns: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(columns[1].rsplit(':').next()?, 16).ok()?;
            (columns[3] == "0A").then(|| (columns[9].to_owned(), port))
        })
        .collect();
    sockets.iter().filter_map(|socket| by_socket.get(socket).copied()).collect()
}
