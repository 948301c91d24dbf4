//! Answers, exit statuses and signals: the box is an SSH server in this process that says everything it has to say in
//! one go, so that the end of a command comes as close behind its output as it can.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use boxpool::{Endpoint, EndpointAddress, Progress};
use boxpool_gateway::hostkey::ensure_key;
use harness::light::{Trusting, log_in};
use harness::{Bench, HANG};
use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelMsg, Sig, client, server};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Commands in all; `BOXPOOL_STATUS_RUNS` asks for another number.
const RUNS: u32 = 2_000;

/// Connections they are spread over, and commands of one connection that run at once.
const CONNECTIONS: u32 = 4;
const AT_ONCE: u32 = 8;

/// What each says before it ends.
const LENGTH: usize = 1 << 20;

/// A box whose commands are numbers: it says a megabyte and ends with that status. `signal` ends by the signal it is sent.
/// Its shell says nothing.
struct LightBox;

impl server::Handler for LightBox {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        tokio::spawn(execute(channel, session.handle()));
        Ok(())
    }
}

async fn execute(mut channel: Channel<Msg>, handle: server::Handle) -> Result<(), russh::Error> {
    let command = loop {
        match channel.wait().await {
            Some(ChannelMsg::Exec { command, .. }) => break String::from_utf8(command).unwrap(),
            Some(ChannelMsg::RequestShell { .. }) => break "shell".into(),
            Some(ChannelMsg::RequestPty { .. }) => drop(handle.channel_success(channel.id()).await),
            Some(_) => {}
            None => return Ok(()),
        }
    };
    let _ = handle.channel_success(channel.id()).await;
    if command == "signal" {
        channel.data_bytes(&b"ready"[..]).await?;
        let signal = loop {
            match channel.wait().await {
                Some(ChannelMsg::Signal { signal }) => break signal,
                Some(_) => {}
                None => return Ok(()),
            }
        };
        let _ = handle.exit_signal_request(channel.id(), signal, false, String::new(), String::new()).await;
    } else if command != "shell" {
        channel.data_bytes(vec![7; LENGTH]).await?;
        channel.exit_status(command.parse().unwrap()).await?;
    }
    channel.eof().await?;
    channel.close().await
}

async fn serve(listener: TcpListener, key: PrivateKey) {
    let config = Arc::new(server::Config { keys: vec![key], ..server::Config::default() });
    while let Ok((socket, _)) = listener.accept().await {
        socket.set_nodelay(true).unwrap();
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            // Ends with an error when the gateway has had what it wanted, and leaves.
            let _ = server::run_stream(config, socket, LightBox).await.unwrap().await;
        });
    }
}

/// A gateway whose only box is a light one.
async fn with_light_box() -> Bench {
    let bench = Bench::new().await;
    bench.spinup("dev1").await;
    let key = ensure_key(&bench.path("light"), "box").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint {
        address: EndpointAddress::Tcp(listener.local_addr().unwrap()),
        login: "box".into(),
        host_key: key.public_key().to_openssh().unwrap(),
    };
    bench.boxes.boxes.lock().unwrap().values_mut().next().unwrap().endpoint = endpoint;
    tokio::spawn(serve(listener, key));
    bench
}

/// How a command ended, and how much it said.
async fn run(user: &client::Handle<Trusting>, command: String) -> (Option<u32>, usize) {
    let mut channel = user.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    let (mut status, mut said) = (None, 0);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => said += data.len(),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (status, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_their_status_and_their_whole_output() {
    let runs = std::env::var("BOXPOOL_STATUS_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    let bench = with_light_box().await;
    let users = (0..CONNECTIONS).map(|connection| {
        let bench = &bench;
        async move {
            let user = log_in(bench, "dev1").await;
            for round in 0..runs.div_ceil(CONNECTIONS * AT_ONCE) {
                let runs = (0..AT_ONCE).map(|number| {
                    let status = (connection + CONNECTIONS * (round + number)) % 256;
                    let ran = tokio::time::timeout(HANG, run(&user, status.to_string()));
                    async move { assert_eq!(ran.await.unwrap(), (Some(status), LENGTH), "round {round}") }
                });
                futures::future::join_all(runs).await;
            }
        }
    });
    futures::future::join_all(users).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_handed_on_and_so_is_what_it_does() {
    let bench = with_light_box().await;
    let user = log_in(&bench, "dev1").await;
    for sent in [Sig::TERM, Sig::USR1, Sig::INT] {
        let mut channel = user.channel_open_session().await.unwrap();
        channel.exec(true, "signal").await.unwrap();
        let ended = async {
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { .. } => channel.signal(sent.clone()).await.unwrap(),
                    ChannelMsg::ExitSignal { signal_name, .. } => return Some(signal_name),
                    _ => {}
                }
            }
            None
        };
        let ended = tokio::time::timeout(HANG, ended).await.unwrap();
        assert_eq!(ended.map(|signal| format!("{signal:?}")), Some(format!("{sent:?}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_changes_while_the_box_comes_up_takes_no_answer_away() {
    let bench = with_light_box().await;
    *bench.boxes.progress.lock().unwrap() = vec![(Progress::PreparingVolume, Duration::from_millis(300))];
    let user = log_in(&bench, "dev1").await;
    let mut channel = user.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel.window_change(90, 33, 0, 0).await.unwrap();
    let mut answers = 0;
    let ended = async {
        while let Some(message) = channel.wait().await {
            assert!(!matches!(message, ChannelMsg::Failure));
            answers += usize::from(matches!(message, ChannelMsg::Success));
        }
    };
    tokio::time::timeout(HANG, ended).await.unwrap();
    assert_eq!(answers, 2, "for the terminal and for the shell");
}
