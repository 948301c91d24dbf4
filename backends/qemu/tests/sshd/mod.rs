//! An OpenSSH server of our own on a free loopback port, with its own keys, for whoever runs the tests.

use boxpool_qemu::{SshAddress, SshHost};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) struct Sshd {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Sshd {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        for key in ["host", "login"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)).status();
            assert!(made.unwrap().success());
        }
        std::fs::copy(at("login.pub"), at("authorized")).unwrap();
        if rustix::process::geteuid().is_root() {
            // Where it goes to be rid of its rights.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        // Another process may take the port in between: then the next one is tried.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
                 StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nMaxStartups 100\n",
                at("host").display(),
                at("authorized").display()
            );
            std::fs::write(at("config"), config).unwrap();
            let child = Command::new("/usr/sbin/sshd")
                .args(["-D", "-e", "-f"])
                .arg(at("config"))
                .stderr(Stdio::from(std::fs::File::create(at("log")).unwrap()))
                .spawn();
            let mut child = child.expect("sshd is installed: apt-get install openssh-server");
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, folder, port };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("sshd did not start: {}", std::fs::read_to_string(at("log")).unwrap());
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    pub(crate) fn address(&self) -> SshAddress {
        let user = std::fs::read_to_string("/etc/passwd").unwrap();
        let id = rustix::process::geteuid().as_raw().to_string();
        let user = user.lines().find(|line| line.split(':').nth(2) == Some(&id)).unwrap();
        SshAddress { host: "127.0.0.1".into(), port: self.port, user: user.split(':').next().unwrap().into() }
    }

    pub(crate) fn key(&self) -> String {
        self.text("login")
    }

    pub(crate) fn host_key(&self) -> String {
        self.text("host.pub").trim().to_owned()
    }

    pub(crate) fn host(&self) -> SshHost {
        SshHost::new(self.address(), &self.key(), &self.host_key()).unwrap()
    }

    /// Ends the processes that serve its connections; the server itself goes on.
    #[allow(dead_code)]
    pub(crate) fn break_connections(&self) {
        for child in children_of(self.child.id()) {
            // Its own children, what it runs for the login, go on, as with a cable that is cut.
            if let Some(pid) = rustix::process::Pid::from_raw(child) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            for grandchild in children_of(child.unsigned_abs()) {
                if is_sshd(grandchild)
                    && let Some(pid) = rustix::process::Pid::from_raw(grandchild)
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

#[allow(dead_code)]
fn is_sshd(pid: i32) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"))
        .is_ok_and(|comm| comm.contains("sshd"))
}

#[allow(dead_code)]
fn children_of(pid: u32) -> Vec<i32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
