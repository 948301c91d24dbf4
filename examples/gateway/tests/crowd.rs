//! Many at once.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use boxpool_gateway::config::Config;
use boxpool_gateway::duration::Span;
use boxpool_gateway::server::Settings;
use futures::future::join_all;
use harness::light::storm;
use harness::site::{Site, config};
use harness::{Bench, HANG, Ran, settings};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_connects_at_two_gateways_to_one_suspended_box_are_one_resume_and_all_are_served() {
    let site = Site::new();
    let patient = Config { connect_deadline: Span::seconds(60), dial_deadline: Span::seconds(60), ..config() };
    let patient = Config { linger: Span::seconds(60), ..patient };
    let first = site.start(Config { linger: config().linger, ..patient.clone() }).await;
    assert_eq!(site.run(&first, "gateway", &["spinup", "dev1"]).await.code, 0);
    assert_eq!(site.run(&first, "dev1", &["true"]).await.code, 0);
    site.until_state(&first, "dev1", "parked").await;
    first.stop().await;
    let (a, b) = (site.start(patient.clone()).await, site.start(patient).await);
    let starts = site.machines.starts();

    let commands = (0..50).map(|number| {
        let gateway = if number % 2 == 0 { &a } else { &b };
        site.ssh(gateway, "dev1", &["echo $BOXNAME"]).output()
    });
    // Fifty clients and as many sessions of an SSH server on one machine take their time.
    let all = tokio::time::timeout(4 * HANG, join_all(commands)).await.expect("all are served");
    for ran in all.into_iter().map(|output| Ran::from(output.unwrap())) {
        assert_eq!((ran.code, ran.text().as_str()), (0, "dev1\n"), "{ran:?}");
    }
    assert_eq!(site.machines.starts(), starts + 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_logins_at_once_all_get_in() {
    const CLIENTS: usize = 200;
    let limits = Settings { pre_auth_max: CLIENTS, pre_auth_per_address_max: CLIENTS, ..settings() };
    let limits = Settings { connections_per_user: CLIENTS, login_grace: HANG, ..limits };
    let bench = Bench::with(limits).await;
    assert_eq!(bench.run("gateway", &["version"]).await.code, 0, "the account is there");
    let sessions = tokio::time::timeout(HANG, storm(&bench, CLIENTS)).await.expect("all get in");
    assert_eq!(bench.gateway.operator.sessions.count(), CLIENTS);
    drop(sessions);
    harness::until("all have left", || bench.gateway.operator.sessions.count() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_no_more_is_given_up_and_a_quiet_one_is_not() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let keepalive = Config::default().keepalive.0;
    assert!(keepalive * 4 <= Duration::from_secs(90), "three questions and the wait for the last answer");

    let bench = Bench::with(Settings { keepalive: Duration::from_secs(1), ..settings() }).await;
    bench.spinup("dev1").await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = bench.ssh("dev1", &["echo there; read line; echo $line"]);
        let mut client = client.stdin(std::process::Stdio::piped()).spawn().unwrap();
        client.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
        clients.push(client);
    }
    let (mut quiet, mut dead) = (clients.remove(0), clients.remove(0));
    let pid = rustix::process::Pid::from_raw(dead.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    harness::until("the dead one is given up", || bench.boxes.sessions("dev1") == 1).await;
    quiet.stdin.take().unwrap().write_all(b"still here\n").await.unwrap();
    let ran: Ran = tokio::time::timeout(HANG, quiet.wait_with_output()).await.unwrap().unwrap().into();
    assert_eq!((ran.code, ran.text().as_str()), (0, "still here\n"), "{ran:?}");
    dead.kill().await.unwrap();
}
