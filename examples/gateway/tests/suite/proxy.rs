//! What the gateway hands on to a box, with the real OpenSSH client and a real OpenSSH server behind.

use crate::harness::{Bench, HANG, Ran, appears, feed, finish, free_port, noise, settings, until};
use boxpool::{ErrorKind, Progress};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

async fn with_box() -> Bench {
    let bench = Bench::new().await;
    bench.spinup("dev1").await;
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_the_box_with_its_status_and_both_streams() {
    let bench = with_box().await;
    let ran = bench.run("dev1", &["echo $BOXNAME; echo problem >&2; exit 7"]).await;
    assert_eq!((ran.code, ran.text().as_str(), ran.stderr.as_str()), (7, "dev1\n", "problem\n"));
    let ran = bench.run("gateway", &["--", "connect", "dev1", "--", "echo $BOXNAME; exit 9"]).await;
    assert_eq!((ran.code, ran.text().as_str()), (9, "dev1\n"));
    until("the session is given back", || bench.boxes.sessions("dev1") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_before_a_plus_is_the_login_inside_the_box() {
    let bench = with_box().await;
    let whoami = bench.run("dev1", &["id -un"]).await.text();
    let ran = bench.run(&format!("{}+dev1", whoami.trim_end()), &["echo $BOXNAME; id -un; exit 5"]).await;
    assert_eq!((ran.code, ran.text()), (5, format!("dev1\n{whoami}")), "{ran:?}");
    let refused = bench.run("nobody-here+dev1", &["true"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("as nobody-here") && refused.stderr.contains("useradd"), "{refused:?}");
    let missing = bench.run("nobody-here+dev2", &[]).await;
    assert!(missing.code == 3 && missing.stderr.contains("no box named \"dev2\""), "{missing:?}");
    assert_eq!(bench.run("nobody-here+gateway", &["list"]).await.code, 0, "the lobby has no logins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_ends_a_command_is_passed_on() {
    let bench = with_box().await;
    let ran = bench.run("dev1", &["-o", "LogLevel=VERBOSE", "--", "kill -TERM $$"]).await;
    assert_eq!(ran.code, 255, "{ran:?}");
    let ran = bench.run("dev1", &["sh -c 'kill -TERM $$'; echo $?"]).await;
    assert_eq!(ran.text(), "143\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_ends_where_the_client_ends_it_and_output_goes_on() {
    let bench = with_box().await;
    let ran = bench.run_with_input("dev1", &["cat; echo after"], b"line\n").await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "line\nafter\n"));
    let ran = bench.run_with_input("dev1", &["sh -s"], b"echo one\nexit 3\n").await;
    assert_eq!((ran.code, ran.text().as_str()), (3, "one\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_arrive_unchanged_in_both_directions() {
    let bench = with_box().await;
    let bytes = noise(20 * 1024 * 1024);
    let ran = bench.run_with_input("dev1", &["cat"], &bytes).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout == bytes, "the bytes changed");
    // With keys renewed every megabyte, too.
    let bytes = &bytes[..8 * 1024 * 1024];
    let ran = bench.run_with_input("dev1", &["-o", "RekeyLimit=1M", "--", "cat"], bytes).await;
    assert!(ran.code == 0 && ran.stdout == bytes, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_status_never_overtakes_or_loses_output() {
    let bench = with_box().await;
    let master = Master::open(&bench, "dev1").await;
    for round in 0..15 {
        let runs = (0..8).map(|number| {
            let (status, length) = (round * 8 + number, if number % 2 == 0 { 1_048_576 } else { 1 });
            let run = finish(master.ssh(&[&format!("head -c {length} /dev/zero; exit {status}")]));
            async move { (status, length, run.await) }
        });
        for (status, length, ran) in futures::future::join_all(runs).await {
            assert_eq!((ran.code, ran.stdout.len()), (status, length), "{}", ran.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_its_size_follows_changes_and_takes_keys() {
    let bench = with_box().await;
    let script = bench.path("terminal.py");
    std::fs::write(&script, TERMINAL).unwrap();
    let mut command = Command::new("python3");
    command.arg(&script).arg("ssh").args(bench.options("id"));
    command.args(["-p", &bench.port.to_string(), "-tt", "dev1@127.0.0.1", "sh"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ran = finish(command).await;
    assert_eq!((ran.code, ran.text().trim()), (0, "ok"), "{ran:?}");
}

/// Runs a command on a terminal of its own: checks size, a size change, Ctrl-C and the exit status.
const TERMINAL: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    os.execvp(sys.argv[1], sys.argv[1:])
seen = b""
def expect(what):
    global seen
    deadline = time.time() + 20
    while what not in seen:
        if time.time() > deadline or not select.select([fd], [], [], deadline - time.time())[0]:
            sys.exit("no %r in %r" % (what, seen))
        seen += os.read(fd, 4096)
    seen = seen[seen.index(what) + len(what):]
os.write(fd, b"PS1=; stty -echo; echo re''ady; stty size\n")
expect(b"ready")
expect(b"30 100")
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
os.kill(pid, signal.SIGWINCH)
os.write(fd, b"until [ \"$(stty size)\" = '40 120' ]; do sleep 0.05; done; echo resi''zed\n")
expect(b"resized")
os.write(fd, b"echo slee''ping; sleep 60\n")
expect(b"sleeping")
# A key that comes before the shell has started its sleep hits the shell itself, which then forgets what it had read
# ahead; so it is pressed until it has worked.
deadline = time.time() + 20
while b"woken" not in seen:
    if time.time() > deadline:
        sys.exit("not woken: %r" % seen)
    os.write(fd, b"\x03")
    os.write(fd, b"echo wo''ken\n")
    while b"woken" not in seen and select.select([fd], [], [], 1)[0]:
        seen += os.read(fd, 4096)
os.write(fd, b"exit 5\n")
status = os.waitpid(pid, 0)[1]
sys.exit(print("ok") if os.waitstatus_to_exitcode(status) == 5 else "status %r" % status)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn environment_and_many_arguments_reach_the_box() {
    let bench = with_box().await;
    let mut command =
        bench.ssh("dev1", &["-o", "SendEnv=BOXPOOL_TEST", "--", "printf '%s|' \"$BOXPOOL_TEST\" 'a  b' \"c'd\""]);
    command.env("BOXPOOL_TEST", "sent over");
    assert_eq!(finish(command).await.text(), "sent over|a  b|c'd|");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_by_sftp_and_both_kinds_of_scp() {
    let bench = with_box().await;
    let bytes = noise(3 * 1024 * 1024);
    std::fs::write(bench.path("local"), &bytes).unwrap();
    for (mode, name) in [("-s", "sftp"), ("-O", "legacy")] {
        let (up, down) = (bench.path(&format!("up-{name}")), bench.path(&format!("down-{name}")));
        let remote = format!("dev1@127.0.0.1:{}", up.display());
        for (from, to) in
            [(bench.path("local").display().to_string(), remote.clone()), (remote, down.display().to_string())]
        {
            let mut command = Command::new("scp");
            command.args([mode, "-q"]).args(bench.options("id")).args(["-P", &bench.port.to_string(), &from, &to]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
            let ran = finish(command).await;
            assert_eq!(ran.code, 0, "{name}: {ran:?}");
        }
        assert!(std::fs::read(&up).unwrap() == bytes && std::fs::read(&down).unwrap() == bytes, "{name}");
    }
    let mut command = Command::new("sftp");
    command.args(["-q", "-b", "-"]).args(bench.options("id")).args(["-P", &bench.port.to_string(), "dev1@127.0.0.1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ran = feed(command, format!("ls {}\n", bench.path("local").display()).as_bytes()).await;
    assert_eq!((ran.code, ran.text().contains("local")), (0, true), "{ran:?}");
}

/// A client connection that others share.
struct Master<'a> {
    bench: &'a Bench,
    login: &'a str,
    socket: String,
    child: tokio::process::Child,
}

impl<'a> Master<'a> {
    async fn open(bench: &'a Bench, login: &'a str) -> Master<'a> {
        Self::open_with(bench, login, &[]).await
    }

    /// Opens it and waits until it is logged in.
    async fn open_with(bench: &'a Bench, login: &'a str, flags: &[&str]) -> Master<'a> {
        let socket = bench.path("master").display().to_string();
        let all = [&["-M", "-N", "-S", socket.as_str(), "-o", "ExitOnForwardFailure=yes"], flags, &["--"]].concat();
        let child = bench.ssh(login, &all).spawn().unwrap();
        appears(&bench.path("master")).await;
        Master { bench, login, socket, child }
    }

    fn ssh(&self, args: &[&str]) -> Command {
        self.bench.ssh(self.login, &[&["-S", self.socket.as_str(), "--"], args].concat())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_channels_on_one_connection_share_one_session_and_end_with_it() {
    let bench = with_box().await;
    let mut master = Master::open(&bench, "dev1").await;
    // Without a channel, too, the connection holds its box.
    until("the box is held", || bench.boxes.sessions("dev1") == 1).await;
    let runs = (0..20).map(|number| finish(master.ssh(&[&format!("sleep 0.2; echo {number}; exit {number}")])));
    for (number, ran) in futures::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!((ran.code, ran.text()), (number as i32, format!("{number}\n")), "{}", ran.stderr);
    }
    assert_eq!((bench.boxes.sessions("dev1"), bench.boxes.connects.load(std::sync::atomic::Ordering::SeqCst)), (1, 1));
    master.child.kill().await.unwrap();
    until("the session is given back", || bench.boxes.sessions("dev1") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_stands_still_does_not_stop_another_channel() {
    let bench = with_box().await;
    let master = Master::open(&bench, "dev1").await;
    let mut stalled = master.ssh(&["head -c 100000000 /dev/zero"]).spawn().unwrap();
    let mut output = stalled.stdout.take().unwrap();
    let mut first = [0; 1];
    output.read_exact(&mut first).await.unwrap(); // it has begun, and from here on nobody reads
    for _ in 0..3 {
        let ran = finish(master.ssh(&["echo free"])).await;
        assert_eq!(ran.text(), "free\n", "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_forward_is_opened_from_inside_the_box() {
    let bench = with_box().await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = service.accept().await {
            tokio::spawn(async move {
                socket.write_all(b"hello ").await.unwrap(); // the server speaks first
                let mut all = Vec::new();
                socket.read_to_end(&mut all).await.unwrap(); // a half-close ends the request only
                all.reverse();
                socket.write_all(&all).await.unwrap();
            });
        }
    });
    let port = free_port();
    let forward = format!("{port}:127.0.0.1:{target}");
    let _master = Master::open_with(&bench, "dev1", &["-L", &forward]).await;
    let request = |text: &'static str| async move {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.write_all(text.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(HANG, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    };
    let answers = futures::future::join_all([request("abc"), request("def"), request("ghi")]).await;
    assert_eq!(answers, ["hello cba", "hello fed", "hello ihg"]);
    // The box's own server made the connections, not the gateway.
    let log =
        std::fs::read_to_string(bench.boxes.boxes.lock().unwrap().values().next().unwrap().dir.join("log")).unwrap();
    assert!(log.contains("Accepted publickey"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lobby_forwards_nothing() {
    let bench = Bench::new().await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("127.0.0.1:{}", service.local_addr().unwrap().port());
    let ran = bench.run("gateway", &["-W", &target, "--"]).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    let ran = bench.run("gateway", &["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", "--", "list"]).await;
    assert_eq!(ran.code, 255, "{ran:?}");
    assert!(tokio::time::timeout(Duration::from_millis(50), service.accept()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_forward_leads_from_the_box_to_the_user() {
    let bench = with_box().await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = service.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = service.accept().await {
            socket.write_all(b"from the user\n").await.unwrap();
        }
    });
    let port = free_port();
    let forward = format!("{port}:127.0.0.1:{target}");
    let command = format!("bash -c 'cat < /dev/tcp/127.0.0.1/{port}'");
    let ran = bench.run("dev1", &["-o", "ExitOnForwardFailure=yes", "-R", &forward, "--", &command]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "from the user\n"), "{}", ran.stderr);
    // A port the box chooses is reported, and a taken one is refused.
    let any = format!("0:127.0.0.1:{target}");
    let ran = bench.run("dev1", &["-o", "LogLevel=INFO", "-R", &any, "--", "true"]).await;
    assert!(ran.stderr.contains("Allocated port"), "{}", ran.stderr);
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = format!("{}:127.0.0.1:{target}", taken.local_addr().unwrap().port());
    let ran = bench.run("dev1", &["-o", "ExitOnForwardFailure=yes", "-R", &forward, "--", "true"]).await;
    assert_eq!(ran.code, 255, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_are_forwarded_both_ways() {
    let bench = with_box().await;
    let serve = |path: &std::path::Path, text: &'static [u8]| {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            use std::io::Write;
            while let Ok((mut socket, _)) = listener.accept() {
                socket.write_all(text).unwrap();
            }
        });
    };
    let names = ["in-box", "at-user", "to-box", "to-user"];
    let [in_box, at_user, to_box, to_user] = names.map(|name| bench.path(name).display().to_string());
    serve(&bench.path("in-box"), b"box\n");
    serve(&bench.path("at-user"), b"user\n");
    let (local, remote) = (format!("{to_box}:{in_box}"), format!("{to_user}:{at_user}"));
    let master = Master::open_with(&bench, "dev1", &["-L", &local, "-R", &remote]).await;
    let read = |path: String| async move {
        let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(HANG, socket.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    };
    appears(&bench.path("to-box")).await;
    appears(&bench.path("to-user")).await;
    assert_eq!((read(to_box).await, read(to_user).await), ("box\n".into(), "user\n".into()));
    drop(master);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_agent_is_there_only_when_it_was_asked_for() {
    let bench = with_box().await;
    let socket = bench.path("agent").display().to_string();
    let mut agent =
        Command::new("ssh-agent").args(["-D", "-a", &socket]).kill_on_drop(true).stdout(Stdio::null()).spawn().unwrap();
    appears(&bench.path("agent")).await;
    let added = Command::new("ssh-add").arg("-q").arg(bench.path("id")).env("SSH_AUTH_SOCK", &socket).status().await;
    assert!(added.unwrap().success());
    let identity = format!("IdentityAgent={socket}");
    let listing = |flags: &'static [&'static str]| {
        // The first value of an option wins, so ours goes in front.
        let mut command = Command::new("ssh");
        command.args(["-o", &identity]).args(bench.options("id")).args(flags);
        command.args(["-p", &bench.port.to_string(), "dev1@127.0.0.1", "ssh-add -l"]);
        command.env("SSH_AUTH_SOCK", &socket);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        finish(command)
    };
    let ran = listing(&["-A"]).await;
    assert!(ran.code == 0 && ran.text().contains("ED25519"), "{ran:?}");
    let ran = listing(&["-a"]).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    agent.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_opens_on_the_users_display() {
    let bench = with_box().await;
    let display = 70 + u32::from(bench.port % 900);
    std::fs::create_dir_all("/tmp/.X11-unix").unwrap();
    let path = format!("/tmp/.X11-unix/X{display}");
    let _ = std::fs::remove_file(&path);
    let server = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (mut client, _) = server.accept().await.unwrap();
        client.read_exact(&mut [0; 12]).await.unwrap();
        client.write_all(b"window\n").await.unwrap();
    });
    let script = bench.path("client.py");
    std::fs::write(&script, X11_CLIENT).unwrap();
    let mut command = bench.ssh("dev1", &["-Y", "--", &format!("python3 {}", script.display())]);
    command.env("DISPLAY", format!(":{display}"));
    let ran = finish(command).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "window\n"), "{ran:?}");
    serving.await.unwrap();
    std::fs::remove_file(&path).unwrap();
}

/// Greets the display as an X11 client does, with the cookie that `ssh` left for it, and prints what the display says.
const X11_CLIENT: &str = r#"
import os, socket, struct, subprocess
display = os.environ["DISPLAY"]
cookie = bytes.fromhex(subprocess.check_output(["xauth", "list", display], text=True).split()[2])
number = int(display.split(":")[1].split(".")[0])
s = socket.create_connection(("127.0.0.1", 6000 + number))
name = b"MIT-MAGIC-COOKIE-1"
s.sendall(struct.pack("<BxHHHHxx", 0x6c, 11, 0, len(name), len(cookie)) + name + b"\0\0" + cookie)
print(s.makefile().readline(), end="")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_to_a_person_and_to_nobody_else() {
    let bench = with_box().await;
    *bench.boxes.progress.lock().unwrap() = vec![
        (Progress::WaitingForInstance { position: 2, remaining: Duration::from_secs(9) }, Duration::from_millis(100)),
        (Progress::WaitingForInstance { position: 2, remaining: Duration::from_secs(8) }, Duration::from_millis(100)),
        (Progress::PreparingVolume, Duration::from_millis(100)),
    ];
    let ran = bench.run("dev1", &["echo out"]).await;
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("out\n", ""));
    let ran = bench.run_with_input("dev1", &["-tt", "--", "echo out"], b"").await;
    assert_eq!(ran.stderr.matches("you are number 2 in line").count(), 1, "{ran:?}");
    assert!(ran.stderr.contains("boxpool: preparing the disk\r\n"), "{ran:?}");
    assert_eq!(ran.text(), "out\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_sent_while_the_box_comes_up_is_not_lost() {
    let bench = with_box().await;
    *bench.boxes.progress.lock().unwrap() = vec![(Progress::PreparingVolume, Duration::from_millis(700))];
    let bytes = noise(6 * 1024 * 1024);
    let ran = bench.run_with_input("dev1", &["cat"], &bytes).await;
    assert!(ran.code == 0 && ran.stdout == bytes, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_cannot_be_had_is_one_sentence_and_status_75() {
    let bench = with_box().await;
    let sentence = "all machines are in use; try again later";
    *bench.boxes.refusal.lock().unwrap() = Some((ErrorKind::NoCapacity, sentence.into()));
    let ran = bench.run("dev1", &["true"]).await;
    assert_eq!((ran.code, ran.stderr.trim()), (75, format!("boxpool: {sentence}").as_str()), "{ran:?}");
    *bench.boxes.refusal.lock().unwrap() = None;
    assert_eq!(bench.run("dev1", &["true"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_whose_machine_dies_ends_its_sessions_clearly_and_is_reached_again() {
    let bench = with_box().await;
    let mut session = bench.ssh("dev1", &["echo there; sleep 60"]).spawn().unwrap();
    let mut there = [0; 6];
    session.stdout.as_mut().unwrap().read_exact(&mut there).await.unwrap();
    bench.boxes.kill("dev1").await;
    let ran: Ran = tokio::time::timeout(HANG, session.wait_with_output()).await.unwrap().unwrap().into();
    assert_eq!((ran.code, ran.stderr.contains("connection to the box was lost")), (255, true), "{ran:?}");
    assert_eq!(bench.run("dev1", &["echo back"]).await.text(), "back\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_answers_without_the_boxs_host_key_gets_nothing() {
    let bench = with_box().await;
    {
        let mut boxes = bench.boxes.boxes.lock().unwrap();
        let each = boxes.values_mut().next().unwrap();
        each.endpoint.host_key = std::fs::read_to_string(bench.path("id.pub")).unwrap();
    }
    let ran = bench.run_with_input("dev1", &["cat"], b"secret").await;
    assert_eq!((ran.code, ran.stderr.contains("host key")), (1, true), "{ran:?}");
    let log =
        std::fs::read_to_string(bench.boxes.boxes.lock().unwrap().values().next().unwrap().dir.join("log")).unwrap();
    assert!(!log.contains("Accepted"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_makes_a_box_only_when_that_is_switched_on() {
    let bench = Bench::with(boxpool_gateway::server::Settings { spinup_on_connect: true, ..settings() }).await;
    assert_eq!(
        bench.run("fresh", &["list", "--json"]).await.json(),
        serde_json::json!({"boxes": [], "deleted": [], "shared": []})
    );
    let ran = bench.run("fresh", &["echo $BOXNAME"]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "fresh\n"), "{ran:?}");
    assert_eq!(bench.boxes.names(), ["fresh"]);
    assert_eq!(bench.run("root", &[]).await.code, 0);
    assert_ne!(bench.run("Bad_Name", &[]).await.code, 0);
    assert_eq!(bench.boxes.names(), ["fresh"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_users_and_ends_within_its_bound() {
    let mut bench = with_box().await;
    let mut session = bench.ssh("dev1", &["-o", "LogLevel=INFO", "--", "echo there; sleep 60"]).spawn().unwrap();
    let mut there = [0; 6];
    session.stdout.as_mut().unwrap().read_exact(&mut there).await.unwrap();
    let started = std::time::Instant::now();
    bench.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10));
    let ran: Ran = tokio::time::timeout(HANG, session.wait_with_output()).await.unwrap().unwrap().into();
    assert!(ran.code == 255 && ran.stderr.contains("the gateway is stopping"), "{ran:?}");
    assert_eq!((bench.boxes.sessions("dev1"), bench.gateway.activity.count()), (0, 0));
    assert_eq!(bench.run("gateway", &["list"]).await.code, 255);
}
