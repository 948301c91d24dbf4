//! Metrics, health, readiness and the status page, of a whole gateway on the real pool.

use crate::harness::site::{Site, config};
use crate::harness::web::value;
use crate::harness::{ask_until, free_port};
use boxpool_gateway::config::Config;
use boxpool_gateway::meter::METERS;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Asks `path` of the monitor at `port`: the status code and the body.
async fn get(port: u16, path: &str) -> (u16, String) {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

async fn ask(port: u16, request: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(crate::harness::HANG, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn monitored(port: u16) -> Config {
    Config { metrics_listen: Some(([127, 0, 0, 1], port).into()), ..config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_metrics_are_the_ones_served_and_they_count() {
    let (site, port) = (Site::new(), free_port());
    let gateway = site.start(monitored(port)).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    assert_eq!(site.run(&gateway, "dev1", &["echo hello"]).await.code, 0);
    drop(TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap());
    // The connections' ends are noticed a moment after the clients' own.
    let page = async || get(port, "/metrics").await.1;
    let text = ask_until("all is counted", page, |text| {
        value(text, "boxpool_gateway_logins_total{outcome=\"refused\"}") > 0.0
            && value(text, "boxpool_gateway_channels_total{kind=\"command\"}") > 0.0
    });
    let text = text.await;
    let served: BTreeSet<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let documented: BTreeSet<(&str, &str)> = METERS.iter().map(|meter| (meter.name, meter.scale.word())).collect();
    assert_eq!(served, documented);
    for (series, least) in [
        ("boxpool_gateway_connections_total", 3.0),
        ("boxpool_gateway_logins_total{outcome=\"accepted\"}", 2.0),
        ("boxpool_gateway_logins_total{outcome=\"refused\"}", 1.0),
        ("boxpool_gateway_channels_total{kind=\"gateway\"}", 1.0),
        ("boxpool_gateway_channels_total{kind=\"command\"}", 1.0),
        ("boxpool_gateway_connect_seconds_count{phase=\"box\"}", 1.0),
        ("boxpool_gateway_connect_seconds_count{phase=\"dial\"}", 1.0),
        ("boxpool_gateway_connect_seconds_count{phase=\"start\"}", 1.0),
        ("boxpool_gateway_bytes_total{direction=\"in\"}", 1000.0),
        ("boxpool_gateway_ready", 1.0),
        ("boxpool_connects_total{via=\"detached\"}", 1.0),
        ("boxpool_boxes_created_total", 1.0),
    ] {
        assert!(value(&text, series) >= least, "{series}: {text}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_ready_until_its_stop_begins_and_alive_to_the_end() {
    let (site, port) = (Site::new(), free_port());
    let mut gateway = site.start(monitored(port)).await;
    site.run(&gateway, "gateway", &["version"]).await; // it serves
    assert_eq!(get(port, "/ready").await, (200, "ready\n".into()));
    assert_eq!(get(port, "/health").await, (200, "alive\n".into()));
    assert_eq!(get(port, "/nowhere").await.0, 404);
    assert_eq!(ask(port, "POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.0, 405);

    // A session holds the stop up for a while.
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let mut session = site.ssh(&gateway, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
    session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    // A client that is stopped cannot leave when it is told to.
    let client = rustix::process::Pid::from_raw(session.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(client, rustix::process::Signal::STOP).unwrap();
    gateway.begin_stop();
    let seen = ask_until("it is not ready", async || get(port, "/ready").await, |seen| seen.0 == 503).await;
    assert!(seen.1.contains("stopping"), "{seen:?}");
    assert_eq!(get(port, "/health").await.0, 200);
    rustix::process::kill_process(client, rustix::process::Signal::CONT).unwrap();
    gateway.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_greedy_clients_of_the_monitor_do_not_keep_others_out() {
    let (site, port) = (Site::new(), free_port());
    let gateway = site.start(monitored(port)).await;
    site.run(&gateway, "gateway", &["version"]).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    // Those beyond the limit are closed at once, the others when they have said nothing for too long.
    for socket in &mut silent {
        let read = tokio::time::timeout(crate::harness::HANG, socket.read(&mut [0; 64])).await.expect("it is closed");
        drop(read); // the end, a reset, or a word that it took too long
    }
    assert_eq!(get(port, "/health").await.0, 200);
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(64 * 1024));
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let _ = socket.write_all(long.as_bytes()).await;
    assert_eq!(get(port, "/health").await.0, 200);
    gateway.stop().await;
}

/// Runs a headless browser on the page.
async fn browse(port: u16, profile: &Path, args: &[String]) -> String {
    let mut browser = Command::new("chromium");
    browser
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--hide-scrollbars", "--window-size=1100,1300"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(args)
        .arg(format!("http://127.0.0.1:{port}/"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), browser.output()).await;
    let output = output.expect("the browser ends").expect("chromium is installed by scripts/install-packages tests");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_pools_boxes_instances_waiters_events_and_rates_and_nothing_secret() {
    let (site, port) = (Site::new(), free_port());
    let gateway = site.start(monitored(port)).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    assert_eq!(site.run(&gateway, "dev1", &["echo hello"]).await.code, 0);
    site.until_state(&gateway, "dev1", "parked").await;

    let profile = site.dir.path().join("browser");
    let dom = browse(port, &profile, &["--dump-dom".into()]).await;
    for part in [
        "id=\"ready\" class=\"good\">ready<",
        "<section id=\"here\">",
        "waiting for a machine",
        "<section id=\"rates\">",
        "<td>parked</td><td>1</td>",
        "<section id=\"instances\">",
        "<td>claimed</td><td>1</td>",
        "<section id=\"volumes\">",
        "<section id=\"gateways\">",
        "box_created",
        "<td>dev1</td>",
    ] {
        assert!(dom.contains(part), "the page has no {part}: {dom}");
    }
    let public = std::fs::read_to_string(site.dir.path().join("id.pub")).unwrap();
    let blob = public.split(' ').nth(1).unwrap();
    for secret in [blob, "PRIVATE KEY", "ssh-ed25519", "SHA256:"] {
        assert!(!dom.contains(secret), "the page tells {secret}");
    }
    assert!(!dom.contains("<script") && !dom.contains("http://") && !dom.contains("https://"), "{dom}");

    let picture = tempfile::Builder::new().prefix("boxpool-status-").suffix(".png").tempfile().unwrap();
    browse(port, &profile, &[format!("--screenshot={}", picture.path().display())]).await;
    let bytes = std::fs::read(picture.path()).unwrap();
    assert_eq!(bytes.get(..8), Some(&b"\x89PNG\r\n\x1a\n"[..]));
    let side = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert!(side(16) >= 1000 && side(20) >= 1000, "{} x {}", side(16), side(20));
    // An empty page of this size is a few thousand bytes.
    assert!(bytes.len() > 20_000, "the picture has only {} bytes", bytes.len());
    if let Ok(kept) = std::env::var("BOXPOOL_STATUS_PICTURE") {
        std::fs::write(kept, &bytes).unwrap();
    }
    gateway.stop().await;
}
