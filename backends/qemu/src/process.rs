//! One QEMU process: start it, find it again, look at it, end it.
//!
//! It is a daemon of its own: it survives us and our terminal. Any process finds it again by its sockets and pid file in the
//! volume's run directory; a pid is believed only when its command line names that directory.
//!
//! Whether it lives is told by a lock: QEMU is started with `alive` open and locked, and only its end gives that back. A
//! caller that dies right after it started QEMU leaves no pid file for some moments; the lock is there already, so the next
//! caller waits for the pid and never starts a second QEMU.

use crate::LocalQemu;
use crate::agent::Agent;
use crate::host::{Command, must};
use crate::layout::VolumeDir;
use crate::machine::Machine;
use crate::qmp::Qmp;
use boxpool::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How often a state that must come soon is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// QEMU itself is up in about 50 ms; a host that swaps may be slow.
const SPAWN_LIMIT: Duration = Duration::from_secs(30);
/// QEMU writes its pid file, and listens, among the first things it does.
const PID_LIMIT: Duration = Duration::from_secs(10);
/// A process that was told to end, or was killed, is gone within moments.
const END_LIMIT: Duration = Duration::from_secs(15);
/// Loading or saving device state (half a megabyte; guest memory is a file that stays where it is).
const MIGRATE_LIMIT: Duration = Duration::from_secs(60);

/// The line that a guest writes to its console when its SSH server and agent are up.
pub(crate) const READY_LINE: &str = "boxpool: ready";

/// What became of a saved memory that QEMU was to load.
pub(crate) enum Loaded {
    /// It is loaded, and the guest does not run yet.
    Paused,
    /// QEMU says that it does not take this memory, and why.
    Refused(String),
}

/// Takes the lock that says that QEMU lives, opens the state if there is one, and becomes a daemon that has both open.
/// Arguments: lock, log, state or nothing, and QEMU's command line. It waits a little for somebody who only looks at the lock.
/// Each program takes the place of the one before it: a resume waits for all of them.
const DETACH: &str = r#"[ -z "$3" ] || exec 5<"$3"
lock=$1; log=$2; shift 3
exec flock -w 5 -E 75 -F "$lock" setsid --fork "$@" >"$log" 2>&1 </dev/null"#;
/// What `flock` ends with when another holds the lock.
const LOCKED: i32 = 75;

impl LocalQemu {
    /// Connects to the QEMU of a volume; `None` when none runs.
    pub(crate) async fn qmp(&self, volume: &VolumeDir) -> Result<Option<Qmp>> {
        Qmp::connect(&*self.inner.host, &volume.qmp()).await
    }

    /// The pid of the volume's QEMU, if it lives.
    ///
    /// # Errors
    /// `TimedOut` when one lives and does not say its pid: it must not be taken for gone.
    pub(crate) async fn pid(&self, volume: &VolumeDir) -> Result<Option<u32>> {
        let deadline = Instant::now() + PID_LIMIT;
        loop {
            if let Some(pid) = self.written_pid(volume).await? {
                return Ok(Some(pid));
            }
            if !self.is_alive(volume).await? {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                let detail = format!(
                    "a QEMU holds {} but has not written its pid within {PID_LIMIT:?}; end the process that has this file open",
                    volume.alive().display()
                );
                return Err(Error::new(ErrorKind::TimedOut, "find QEMU", volume.dir.display()).with_detail(detail));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn written_pid(&self, volume: &VolumeDir) -> Result<Option<u32>> {
        let Some(text) = self.inner.host.read(&volume.pid()).await? else { return Ok(None) };
        let Some(pid) = String::from_utf8_lossy(&text).trim().parse::<u32>().ok() else { return Ok(None) };
        let command_line = self.inner.host.read(Path::new(&format!("/proc/{pid}/cmdline"))).await?;
        let run = volume.run.as_os_str().as_encoded_bytes();
        let ours = command_line.is_some_and(|line| line.windows(run.len()).any(|part| part == run));
        Ok(ours.then_some(pid))
    }

    /// Whether a QEMU of the volume lives, be it only just started.
    async fn is_alive(&self, volume: &VolumeDir) -> Result<bool> {
        match self.inner.host.lock(&volume.alive(), Duration::ZERO).await {
            Ok(_not_held) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Busy => Ok(true),
            // No folder, so no volume and no QEMU of it.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts QEMU for a volume and waits until it answers. With `state` it waits to be told to load that ([`Self::load_memory`]).
    pub(crate) async fn spawn(
        &self,
        volume: &VolumeDir,
        machine: &Machine,
        kernel: &Path,
        state: Option<&Path>,
    ) -> Result<Qmp> {
        let host = &*self.inner.host;
        self.make_dir(&volume.run, "0700").await?;
        host.remove(&[volume.qmp(), volume.agent(), volume.pid()]).await?;
        // The state is handed over as an open file: QEMU's sandbox forbids it to start a program that reads it. `setsid`
        // and not QEMU's own `-daemonize`, which its sandbox forbids too.
        let log = volume.run.join("log");
        let mut command = Command::new("sh").args(["-c", DETACH, "sh"]);
        command = command.arg(volume.alive()).arg(&log).arg(state.unwrap_or(Path::new("")));
        if let Some((user, group)) = self.inner.run_as {
            command = command
                .args(["setpriv".to_owned(), format!("--reuid={user}"), format!("--regid={group}")])
                .args(["--clear-groups", "--no-new-privs"]);
            host.give(&[volume.run.clone(), volume.mem(), volume.disk()], (user, group)).await?;
        }
        let arguments = machine.arguments(&volume.dir, kernel, &volume.run, state.is_some());
        let detached = host.run(command.arg("qemu-system-x86_64").args(arguments).limit(SPAWN_LIMIT)).await?;
        if !detached.success {
            let said = host.read(&log).await?.unwrap_or_default();
            let said = crate::host::last_of(&format!("{} {}", detached.stderr, String::from_utf8_lossy(&said)));
            let (kind, detail) = match detached.code {
                Some(LOCKED) => (ErrorKind::Busy, "another QEMU of this volume is starting".to_owned()),
                _ => (ErrorKind::Permanent, said),
            };
            return Err(Error::new(kind, "start QEMU", volume.dir.display()).with_detail(detail));
        }
        self.await_qmp(volume, &log).await
    }

    /// Has a QEMU that was started for it load a saved memory. It is then paused.
    ///
    /// # Errors
    /// Only what says nothing about the memory, so that trying again may help.
    pub(crate) async fn load_memory(&self, volume: &VolumeDir, qmp: &mut Qmp) -> Result<Loaded> {
        let wanted = json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]});
        qmp.call("migrate-set-capabilities", wanted).await?;
        let loaded = async {
            qmp.call("migrate-incoming", json!({"uri": "fd:5"})).await?;
            let deadline = Instant::now() + MIGRATE_LIMIT;
            while qmp.run_state().await? == "inmigrate" {
                if Instant::now() >= deadline {
                    let detail = format!("not loaded within {MIGRATE_LIMIT:?}");
                    return Err(
                        Error::new(ErrorKind::TimedOut, "load memory", volume.dir.display()).with_detail(detail)
                    );
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        let error = match loaded.await {
            Ok(()) => return Ok(Loaded::Paused),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::Unavailable || !self.gone_within(volume, Duration::from_secs(2)).await? {
            return Err(error);
        }
        // It ended. When it did so by itself it said why; one that was killed says nothing.
        let said = self.inner.host.read(&volume.run.join("log")).await?.unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if said.contains("load of migration failed") {
            return Ok(Loaded::Refused(crate::host::last_of(&said)));
        }
        Err(error)
    }

    /// Waits until a QEMU that was just started answers, or has ended with a complaint.
    async fn await_qmp(&self, volume: &VolumeDir, log: &Path) -> Result<Qmp> {
        let deadline = Instant::now() + SPAWN_LIMIT;
        let mut looks = 0;
        loop {
            if let Some(qmp) = self.qmp(volume).await? {
                return Ok(qmp);
            }
            looks += 1;
            if looks % 20 != 0 {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            let (ended, late) = (!self.is_alive(volume).await?, Instant::now() >= deadline);
            if ended || late {
                let complaint = self.inner.host.read(log).await?.unwrap_or_default();
                let complaint = crate::host::last_of(&String::from_utf8_lossy(&complaint));
                let (kind, detail) = if ended {
                    (ErrorKind::Permanent, format!("it ended at once: {complaint}"))
                } else {
                    (ErrorKind::TimedOut, format!("it did not answer within {SPAWN_LIMIT:?}: {complaint}"))
                };
                return Err(Error::new(kind, "start QEMU", volume.dir.display()).with_detail(detail));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Connects to a QEMU that lives, which may only just have been started. `None` when it ended or does not listen.
    pub(crate) async fn qmp_of_living(&self, volume: &VolumeDir) -> Result<Option<Qmp>> {
        let deadline = Instant::now() + PID_LIMIT;
        loop {
            if let Some(qmp) = self.qmp(volume).await? {
                return Ok(Some(qmp));
            }
            if Instant::now() >= deadline || !self.is_alive(volume).await? {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn must_qmp(&self, volume: &VolumeDir) -> Result<Qmp> {
        let gone = || {
            Error::new(ErrorKind::Unavailable, "reach QEMU", volume.dir.display())
                .with_detail("it has ended, or does not listen")
        };
        self.qmp_of_living(volume).await?.ok_or_else(gone)
    }

    /// Writes the device state of a stopped guest to a file, whole or not at all.
    pub(crate) async fn save_state(&self, volume: &VolumeDir, qmp: &mut Qmp, to: &Path) -> Result<()> {
        let host = &*self.inner.host;
        let socket = volume.run.join("save.sock");
        host.remove(&[socket.clone(), to.to_owned()]).await?;
        // QEMU may not open files by itself (it may be another user, on another machine); it writes into a socket.
        // When we are killed it stays behind: then it waits only so long, and leaves the next one's socket alone.
        let wait = MIGRATE_LIMIT.as_secs();
        let listen = format!("UNIX-LISTEN:{},unlink-early,unlink-close=0,accept-timeout={wait}", socket.display());
        let create = format!("CREATE:{}", to.display());
        let receive =
            must(host, "save memory", Command::new("socat").args(["-u", &listen, &create]).limit(MIGRATE_LIMIT));
        let send =
            async {
                self.await_listener(&socket).await?;
                if let Some(user) = self.inner.run_as {
                    host.give(std::slice::from_ref(&socket), user).await?;
                }
                let wanted = json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]});
                qmp.call("migrate-set-capabilities", wanted).await?;
                qmp.call("migrate", json!({"uri": format!("unix:{}", socket.display())})).await?;
                let deadline = Instant::now() + MIGRATE_LIMIT;
                loop {
                    let answer = qmp.call("query-migrate", Value::Null).await?;
                    match answer["status"].as_str() {
                        Some("completed") => return Ok(()),
                        Some("failed" | "cancelled") => {
                            let words = answer["error-desc"].as_str().unwrap_or("QEMU gives no reason").to_owned();
                            return Err(Error::new(ErrorKind::Permanent, "save memory", volume.dir.display())
                                .with_detail(words));
                        }
                        _ if Instant::now() >= deadline => {
                            let detail = format!("not saved within {MIGRATE_LIMIT:?}");
                            return Err(Error::new(ErrorKind::TimedOut, "save memory", volume.dir.display())
                                .with_detail(detail));
                        }
                        _ => tokio::time::sleep(LOOK_EVERY).await,
                    }
                }
            };
        // Neither is waited for when the other has failed: a receiver whom nobody sends anything would wait for ever.
        let grace = Duration::from_secs(3);
        tokio::pin!(receive, send);
        let (received, sent) = tokio::select! {
            received = &mut receive => match received {
                Ok(_) => (Ok(()), send.await),
                Err(error) => (Err(error), tokio::time::timeout(grace, send).await.unwrap_or(Ok(()))),
            },
            sent = &mut send => match sent {
                Ok(()) => (receive.await.map(drop), Ok(())),
                Err(error) => (tokio::time::timeout(grace, receive).await.map_or(Ok(()), |received| received.map(drop)), Err(error)),
            },
        };
        // When the receiver could not write (a full disk) the sender fails too; the receiver knows why.
        received.and(sent)
    }

    /// Stops a guest so that its memory can be saved, whatever an earlier caller left half done.
    pub(crate) async fn hold_still(&self, volume: &VolumeDir, qmp: &mut Qmp) -> Result<()> {
        qmp.call("stop", Value::Null).await?;
        // Its receiver is gone, so it cannot succeed; while it is under way no other can begin.
        let deadline = Instant::now() + END_LIMIT;
        let mut cancelled = false;
        loop {
            let answer = qmp.call("query-migrate", Value::Null).await?;
            match answer["status"].as_str() {
                None | Some("none" | "completed" | "failed" | "cancelled") => break,
                Some(_) if !cancelled => {
                    qmp.call("migrate_cancel", Value::Null).await?;
                    cancelled = true;
                }
                Some(status) if Instant::now() >= deadline => {
                    let detail = format!("an earlier save is still {status}");
                    return Err(
                        Error::new(ErrorKind::TimedOut, "save memory", volume.dir.display()).with_detail(detail)
                    );
                }
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
        // QEMU does not save twice what it has sent away already; it must have run in between.
        if qmp.run_state().await? == "postmigrate" {
            qmp.call("cont", Value::Null).await?;
            qmp.call("stop", Value::Null).await?;
        }
        Ok(())
    }

    /// Waits until somebody listens on a socket. That its file is there is not enough: it is bound before it listens.
    async fn await_listener(&self, path: &Path) -> Result<()> {
        let deadline = Instant::now() + END_LIMIT;
        // In the kernel's table a listening socket has the flag __SO_ACCEPTCON, 0x10000 (proc(5), /proc/net/unix).
        let ours = format!(" {}", path.display());
        loop {
            let path_of_table = Path::new("/proc/net/unix");
            let mut table = self.inner.host.read(path_of_table).await?.unwrap_or_default();
            if table.len() as u64 >= crate::host::MAX_OUTPUT {
                // A host with ten thousand sockets: only the lines that matter, picked out over there.
                let pick = Command::new("grep").args(["-F", "-e", &ours]).arg(path_of_table);
                table = self.inner.host.run(pick).await?.stdout.into_bytes();
            }
            let table = String::from_utf8_lossy(&table);
            let listens = |line: &str| line.ends_with(&ours) && line.split_whitespace().nth(3) == Some("00010000");
            if table.lines().any(listens) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(
                    Error::new(ErrorKind::TimedOut, "save memory", path.display()).with_detail("nobody listens there")
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has the guest shut itself down, which ends QEMU. Tells whether it has done so in time; only a guest that runs can.
    pub(crate) async fn power_down(&self, volume: &VolumeDir, within: Duration) -> Result<bool> {
        let deadline = Instant::now() + within;
        let Some(mut qmp) = self.qmp_of_living(volume).await? else { return Ok(false) };
        if qmp.run_state().await? != "running" {
            return Ok(false);
        }
        drop(qmp);
        Agent::connect(&*self.inner.host, &volume.agent(), within).await?.shut_down().await?;
        self.gone_within(volume, deadline.duration_since(Instant::now())).await
    }

    /// Ends QEMU: by asking, then by killing. Returns when it is gone.
    pub(crate) async fn end(&self, volume: &VolumeDir) -> Result<()> {
        let Some(pid) = self.pid(volume).await? else { return Ok(()) };
        if let Ok(Ok(Some(mut qmp))) = tokio::time::timeout(Duration::from_secs(2), self.qmp(volume)).await {
            // The answer may not come any more: it is the process that is waited for.
            let _ = qmp.call("quit", Value::Null).await;
            if self.gone_within(volume, Duration::from_secs(3)).await? {
                return Ok(());
            }
        }
        self.kill(volume, pid).await
    }

    pub(crate) async fn kill(&self, volume: &VolumeDir, pid: u32) -> Result<()> {
        // It may end by itself in between; then `kill` fails and the wait succeeds.
        self.inner.host.run(Command::new("kill").args(["-KILL", &pid.to_string()])).await?;
        if self.gone_within(volume, END_LIMIT).await? {
            return Ok(());
        }
        let detail = format!("process {pid} is still there {END_LIMIT:?} after it was killed");
        Err(Error::new(ErrorKind::TimedOut, "stop box", volume.dir.display()).with_detail(detail))
    }

    async fn gone_within(&self, volume: &VolumeDir, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while self.pid(volume).await?.is_some() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(true)
    }

    /// The loopback port that leads to the guest's SSH server.
    pub(crate) async fn port(&self, volume: &VolumeDir, qmp: &mut Qmp) -> Result<SocketAddr> {
        let table = qmp.human("info usernet").await?;
        let port = table.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|kind| *kind == "TCP[HOST_FORWARD]")?;
            let (_fd, address, port) = (words.next()?, words.next()?, words.next()?);
            format!("{address}:{port}").parse().ok()
        });
        port.ok_or_else(|| {
            Error::new(ErrorKind::Permanent, "find port", volume.dir.display())
                .with_detail("QEMU lists no forwarded port")
        })
    }

    /// Waits until a booting guest says that it is ready.
    pub(crate) async fn await_ready(&self, volume: &VolumeDir, qmp: &mut Qmp, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut seen = String::new();
        loop {
            // Reading takes the text out of the ring, so what was read is kept here, up to a bound.
            let text = qmp.call("ringbuf-read", json!({"device": "con", "size": 65536})).await?;
            seen.push_str(text.as_str().unwrap_or_default());
            if seen.contains(READY_LINE) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let detail =
                    format!("it did not boot within {limit:?}; its console ends with: {}", crate::host::last_of(&seen));
                return Err(Error::new(ErrorKind::TimedOut, "boot box", volume.dir.display()).with_detail(detail));
            }
            let excess = seen.len().saturating_sub(64 * 1024);
            seen = seen.chars().skip(excess).collect();
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Runs a hook inside the guest.
    pub(crate) async fn hook(
        &self,
        volume: &VolumeDir,
        program: &'static str,
        args: &[String],
        stdin: &[u8],
    ) -> Result<()> {
        const HOOK_LIMIT: Duration = Duration::from_secs(60);
        let mut agent = Agent::connect(&*self.inner.host, &volume.agent(), HOOK_LIMIT).await?;
        agent.run(program, args, stdin).await
    }

    pub(crate) async fn make_dir(&self, path: &Path, mode: &'static str) -> Result<()> {
        if self.inner.host.look(path).await?.is_some() {
            return Ok(());
        }
        must(&*self.inner.host, "make folder", Command::new("mkdir").args(["-p", "-m", mode]).arg(path)).await.map(drop)
    }
}
