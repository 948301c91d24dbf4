//! The boxes: one SSH server that lets everybody in and whose shells echo.

use super::peer::Peer;
use boxpool::{Endpoint, EndpointAddress};
use boxpool_gateway::hostkey::ensure_key;
use russh::keys::load_secret_key;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId, Pty};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Starts them in a process of their own, with a new host key at this path.
pub(crate) async fn start(host_key: &Path) -> (Peer, Endpoint) {
    let host = ensure_key(host_key, "box").unwrap();
    let mut peer = Peer::start(&["boxes", host_key.to_str().unwrap()]);
    let address = EndpointAddress::Tcp(peer.hear().await.parse().unwrap());
    (peer, Endpoint { address, login: "user".into(), host_key: host.public_key().to_openssh().unwrap() })
}

/// Says where it listens, and serves until it is killed.
pub(crate) async fn serve(host_key: &str) {
    let config =
        Config { keys: vec![load_secret_key(host_key, None).unwrap()], inactivity_timeout: None, ..Config::default() };
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            if let Ok(session) = run_stream(config, socket, Echo).await {
                let _ = session.await;
            }
        });
    }
}

struct Echo;

impl Handler for Echo {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        mut channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        // What comes is answered below; here it only must not pile up.
        tokio::spawn(async move { while channel.wait().await.is_some() {} });
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        session.data(channel, data.to_vec())
    }
}
