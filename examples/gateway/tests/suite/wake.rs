//! Boxes that are woken without a login, on the real pool, with guests that are SSH servers on this machine.

use crate::harness::site::{Running, Site, config};
use crate::harness::web::{curl, curl_command, value, web_server};
use crate::harness::{HANG, finish, free_port, noise, until};
use boxpool_gateway::account::account_id;
use boxpool_gateway::config::Config;
use boxpool_gateway::duration::Span;
use boxpool_gateway::meter::Exposition;
use boxpool_gateway::wake::BoxRef;
use boxpool_gateway::wake::http::HttpConfig;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: box\r\n\r\n";

/// A gateway with a port that wakes `dev1` and leads to a port where nothing listens yet.
struct Hall {
    site: Site,
    door: u16,
    inside: u16,
}

impl Hall {
    fn new() -> Self {
        Self { site: Site::new(), door: free_port(), inside: free_port() }
    }

    fn target(&self, name: &str) -> BoxRef {
        let public = std::fs::read_to_string(self.site.dir.path().join("id.pub")).unwrap();
        let key = russh::keys::PublicKey::from_openssh(&public).unwrap();
        BoxRef::parse(&format!("{}/{name}", account_id(&key).unwrap())).unwrap()
    }

    fn http(&self) -> HttpConfig {
        HttpConfig::new(self.target("dev1"), SocketAddr::from(([127, 0, 0, 1], self.door)), self.inside)
    }

    /// Starts the gateway and makes the box, which does not run.
    async fn start(&self, http: HttpConfig) -> Running {
        let audit_log = Some(self.site.dir.path().join("audit.jsonl"));
        let gateway = self.site.start(Config { http: vec![http], audit_log, ..config() }).await;
        assert_eq!(self.site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
        gateway
    }

    async fn serve(&self, file: &Path) -> Child {
        let server = web_server(self.inside, file);
        let at = ("127.0.0.1", self.inside);
        until("the server listens", || std::net::TcpStream::connect(at).is_ok()).await;
        server
    }

    /// Connects, as soon as somebody listens.
    async fn connect(&self) -> TcpStream {
        let mut socket = None;
        let at = ("127.0.0.1", self.door);
        until("the gateway listens", || {
            socket = std::net::TcpStream::connect(at).ok();
            socket.is_some()
        })
        .await;
        let socket = socket.unwrap();
        socket.set_nonblocking(true).unwrap();
        TcpStream::from_std(socket).unwrap()
    }

    /// What was told of wakes.
    fn wakes(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.site.dir.path().join("audit.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "wake").collect()
    }
}

async fn to_end(socket: &mut TcpStream) -> String {
    let mut said = Vec::new();
    tokio::time::timeout(HANG, socket.read_to_end(&mut said)).await.expect("it is closed").unwrap();
    String::from_utf8(said).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_wakes_the_box_and_everything_gets_through_unchanged_both_ways() {
    let hall = Hall::new();
    let (file, got) = (hall.site.dir.path().join("file"), hall.site.dir.path().join("got"));
    let bytes = noise(20 << 20);
    std::fs::write(&file, &bytes).unwrap();
    let _server = hall.serve(&file).await;
    let gateway = hall.start(hall.http()).await;
    assert_eq!(hall.site.machines.starts(), 0);

    let ran = curl(hall.door, "/file", &["-o", got.to_str().unwrap()]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(std::fs::read(&got).unwrap() == bytes, "not what was sent");
    hall.site.until_state(&gateway, "dev1", "parked").await; // after the linger, as after any session

    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let ran = curl(hall.door, "/", &["-H", "Expect:", "--data-binary", &format!("@{}", file.display())]).await;
    assert_eq!((ran.code, ran.text()), (0, sum), "{}", ran.stderr);
    assert_eq!(hall.site.machines.starts(), 2);
    gateway.stop().await;
    let told = hall.wakes();
    assert_eq!(told.len(), 2, "{told:?}");
    for line in &told {
        assert_eq!((&line["who"], &line["box"], &line["outcome"]), (&"http".into(), &"dev1".into(), &"served".into()));
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:") && line["account"].is_string(), "{line}");
        assert!(line["took_ms"].as_u64() >= line["reached_ms"].as_u64() && line["reached_ms"].is_u64(), "{line}");
    }
    assert!(told[0]["bytes_out"].as_u64().unwrap() > 20 << 20 && told[1]["bytes_in"].as_u64().unwrap() > 20 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_wakes_nothing_and_who_says_nothing_more_does_not_hold_the_box_for_ever() {
    let hall = Hall::new();
    let _server = hall.serve(Path::new("/dev/null")).await;
    let second = Span::seconds(1);
    let gateway = hall.start(HttpConfig { request_limit: second, idle_limit: second, ..hall.http() }).await;
    assert_eq!(to_end(&mut hall.connect().await).await, "");
    assert_eq!(hall.site.machines.starts(), 0);

    let mut kept = hall.connect().await;
    for _ in 0..2 {
        kept.write_all(REQUEST).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"hello\n") {
            assert!(tokio::time::timeout(HANG, kept.read_buf(&mut said)).await.unwrap().unwrap() > 0, "{said:?}");
        }
    }
    assert_eq!(to_end(&mut kept).await, "");
    hall.site.until_state(&gateway, "dev1", "parked").await;
    assert_eq!(hall.site.machines.starts(), 1);
    gateway.stop().await;
    let told = hall.wakes();
    assert_eq!((told.len(), &told[0]["outcome"]), (1, &"idle".into()), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_let_through_is_told_so_in_http_and_nothing_else() {
    let (hall, metrics) = (Hall::new(), Exposition::install(&[]).unwrap());
    let http = HttpConfig { target: hall.target("absent"), connections: 1, ..hall.http() };
    let gateway = hall.start(http).await;
    let ran = curl(hall.door, "/", &["-i"]).await;
    let text = ran.text();
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\r\nRetry-After: "), "{ran:?}");
    assert!(text.ends_with("\r\n\r\nthe box cannot be woken now; try again later\n"), "{text}");
    // The place of who has just left may come free a moment later.
    let mut silent = Vec::new();
    let text = loop {
        silent.push(hall.connect().await);
        let text = curl(hall.door, "/", &["-i"]).await.text();
        if text.contains("too many connections") || silent.len() == 20 {
            break text;
        }
    };
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("too many connections"), "{text}");
    assert_eq!(hall.site.machines.starts(), 0);
    gateway.stop().await;
    assert_eq!(hall.wakes()[0]["outcome"], "not_up");
    assert!(value(&metrics.text(), "boxpool_gateway_wakes_total{who=\"http\",outcome=\"not_up\"}") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_finds_no_machine_in_time_keeps_the_client_waiting_so_long_and_no_longer() {
    let hall = Hall::new();
    let http = HttpConfig { wake_limit: Span::seconds(1), ..hall.http() };
    let gateway = hall.site.start(Config { http: vec![http], slots: 1, ..config() }).await;
    for name in ["dev1", "dev2"] {
        assert_eq!(hall.site.run(&gateway, "gateway", &["spinup", name]).await.code, 0);
    }
    let mut other = hall.site.ssh(&gateway, "dev2", &["echo there; exec sleep 600"]).spawn().unwrap();
    other.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    let ran = curl(hall.door, "/", &["-i"]).await;
    let text = ran.text();
    assert!(text.starts_with("HTTP/1.1 503 ") || text.starts_with("HTTP/1.1 504 "), "{ran:?}");
    assert!(!text.contains("dev2"), "{text}");
    other.kill().await.unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_with_its_box_is_waited_for_and_one_that_never_comes_is_told_of() {
    let hall = Hall::new();
    let gateway = hall.start(HttpConfig { port_limit: Span::seconds(3), ..hall.http() }).await;
    let asked = tokio::spawn(finish(curl_command(hall.door, "/", &["-i"])));
    until("the box runs", || hall.site.machines.running() == 1).await;
    let server = hall.serve(Path::new("/dev/null")).await;
    let ran = asked.await.unwrap();
    assert!(ran.text().starts_with("HTTP/1.1 200 ") && ran.text().ends_with("hello\n"), "{ran:?}");
    drop(server);
    until("the server is gone", || std::net::TcpStream::connect(("127.0.0.1", hall.inside)).is_err()).await;
    let ran = curl(hall.door, "/", &["-i"]).await;
    assert!(ran.text().starts_with("HTTP/1.1 502 ") && ran.text().contains("\r\nRetry-After: "), "{ran:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_made_by_the_box_and_never_by_the_gateway() {
    let hall = Hall::new();
    "AllowTcpForwarding no\n".clone_into(&mut hall.site.machines.sshd_options.lock().unwrap());
    // It listens where the gateway could reach it as well.
    let _server = hall.serve(Path::new("/dev/null")).await;
    let gateway = hall.start(hall.http()).await;
    let ran = curl(hall.door, "/", &["-i"]).await;
    assert!(ran.text().starts_with("HTTP/1.1 502 "), "{ran:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_what_is_open_and_answers_who_waits() {
    let hall = Hall::new();
    let gateway = hall.start(HttpConfig { port_limit: Span::seconds(20), ..hall.http() }).await;
    let mut silent = hall.connect().await;
    let mut waiting = hall.connect().await;
    waiting.write_all(REQUEST).await.unwrap();
    until("the box runs", || hall.site.machines.running() == 1).await;
    let mut gateway = gateway;
    gateway.begin_stop();
    let told = to_end(&mut waiting).await;
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("the gateway is stopping"), "{told}");
    assert_eq!(to_end(&mut silent).await, "");
    gateway.ended().await;

    let _server = hall.serve(Path::new("/dev/null")).await;
    let mut gateway = hall.site.start(Config { http: vec![hall.http()], ..config() }).await;
    let mut open = hall.connect().await;
    open.write_all(REQUEST).await.unwrap();
    open.read_exact(&mut [0; 12]).await.unwrap();
    gateway.begin_stop();
    to_end(&mut open).await;
    gateway.ended().await;
    assert_eq!(hall.site.machines.running(), 0);
    let refused = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(("127.0.0.1", hall.door))).await;
    assert!(refused.unwrap().is_err(), "it still listens");
}
