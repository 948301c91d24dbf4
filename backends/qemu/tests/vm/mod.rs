//! Machines of their own for tests: each has its own processes and mounts and a real OpenSSH server on a loopback address of
//! its own, and its disks are files. Needs root.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its own part

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a machine does when it comes up: private places where the real one has them, then its SSH server.
const BOOT: &str = r#"set -e
mount -t tmpfs -o mode=755 tmpfs /mnt && mkdir /mnt/userdata
mount -t tmpfs -o mode=700 tmpfs /var/lib/boxpool
mount -t tmpfs -o mode=755 tmpfs /dev/disk && mkdir -p /dev/disk/azure/scsi1
mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/sshd /run/lock
[ ! -e ~/.bashrc ] || mount --bind /dev/null ~/.bashrc
exec /usr/sbin/sshd -D -e -f "$1"
"#;

/// A machine that runs. Ends, with everything on it, when dropped.
pub struct Vm {
    child: Child,
    pub address: SocketAddr,
    pub host_key: String,
    folder: TempDir,
    loops: Mutex<BTreeMap<u32, String>>,
}

/// A loopback address of its own, so that machines differ in it as real ones do.
pub fn next_address() -> IpAddr {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let [_, _, high, low] = (pid ^ (number << 8)).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 64 + (number % 128) as u8, high, low))
}

/// A port that is free on every loopback address as far as this one tells.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn must(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes a key pair without a passphrase.
pub fn make_key(at: &Path) {
    must(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(at));
}

impl Vm {
    /// Brings a machine up that lets `login` (a public key) in as root, with this host key (a private one in a file) or one of its own.
    pub fn start(address: SocketAddr, login: &str, host_key: Option<&str>) -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        for place in ["/var/lib/boxpool", "/dev/disk"] {
            std::fs::create_dir_all(place).unwrap();
        }
        match host_key {
            Some(text) => {
                std::fs::write(at("host"), text).unwrap();
                must(Command::new("chmod").arg("0600").arg(at("host")));
                let public = must(Command::new("ssh-keygen").args(["-y", "-f"]).arg(at("host")));
                std::fs::write(at("host.pub"), public).unwrap();
            }
            None => make_key(&at("host")),
        }
        std::fs::write(at("authorized"), login).unwrap();
        let config = format!(
            "Port {}\nListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nMaxStartups 100\n",
            address.port(),
            address.ip(),
            at("host").display(),
            at("authorized").display()
        );
        std::fs::write(at("config"), config).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private"])
            .args(["sh", "-c", BOOT, "sh"])
            .arg(at("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(at("log")).unwrap()))
            .spawn()
            .unwrap();
        let host_key = std::fs::read_to_string(at("host.pub")).unwrap().trim().to_owned();
        let mut vm = Self { child, address, host_key, folder, loops: Mutex::default() };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            let log = std::fs::read_to_string(vm.folder.path().join("log")).unwrap();
            assert!(vm.child.try_wait().unwrap().is_none() && Instant::now() < deadline, "it does not come up: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
        vm
    }

    /// The first process of its own world.
    fn init(&self) -> u32 {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Runs a command on it, past its SSH server.
    pub fn run(&self, argv: &[&str]) -> String {
        must(Command::new("nsenter").args(["-t", &self.init().to_string(), "-m", "-p", "--"]).args(argv))
    }

    /// Where a machine shows the disk in a slot.
    pub fn device(lun: u32) -> String {
        format!("/dev/disk/azure/scsi1/lun{lun}")
    }

    /// Plugs a disk in.
    pub fn attach(&self, disk: &Path, lun: u32) {
        let device = must(Command::new("losetup").args(["--find", "--show"]).arg(disk));
        self.run(&["ln", "-s", &device, &Self::device(lun)]);
        self.loops.lock().unwrap().insert(lun, device);
    }

    /// Pulls a disk out. One that is mounted stays readable until it is taken off, as the kernel has it.
    pub fn detach(&self, lun: u32) {
        let Some(device) = self.loops.lock().unwrap().remove(&lun) else { return };
        self.run(&["rm", "-f", &Self::device(lun)]);
        must(Command::new("losetup").args(["-d", &device]));
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for device in std::mem::take(self.loops.get_mut().unwrap()).into_values() {
            let _ = Command::new("losetup").args(["-d", &device]).status();
        }
    }
}

/// A disk with a snapshot on it, as a file that takes the room of what is in it.
pub fn golden_disk(at: &Path, snapshot: &Path) {
    let file = std::fs::File::create(at).unwrap();
    file.set_len(3 << 30).unwrap();
    must(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"]).arg(at));
    // In a world of its own, which takes the mount along when it ends.
    let fill = r#"set -e; mount -o loop "$1" /mnt; mkdir /mnt/snapshots; cp -a --sparse=always "$2" /mnt/snapshots/; sync -f /mnt; umount /mnt"#;
    must(
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", fill, "sh"])
            .args([at, snapshot]),
    );
}

/// A disk like another.
pub fn copy_disk(from: &Path, to: &Path) {
    must(Command::new("cp").arg("--sparse=always").arg(from).arg(to));
}

/// The QEMU of a volume, wherever it runs.
pub fn qemu_of(volume: &str) -> Option<u32> {
    let part = format!("/{volume}/");
    let pid = |entry: std::fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        (line.starts_with("qemu-system") && line.contains(&part)).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().flatten().find_map(pid)
}

/// What `folder` holds.
pub fn names_in(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect()
}
