//! A client that is nothing but the protocol, where there are too many for a process each.

use super::Bench;
use russh::client::{Handle, Handler, connect_stream};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub struct Trusting;

impl Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Logs in with the bench's key.
pub async fn log_in(bench: &Bench, user: &str) -> Handle<Trusting> {
    let key = load_secret_key(bench.path("id"), None).unwrap();
    log_in_with(bench.port, PrivateKeyWithHashAlg::new(Arc::new(key), None), user.to_owned()).await
}

/// So many log in at once, and all are in when this ends.
pub async fn storm(bench: &Bench, clients: usize) -> Vec<Handle<Trusting>> {
    let key = Arc::new(load_secret_key(bench.path("id"), None).unwrap());
    let key = || PrivateKeyWithHashAlg::new(Arc::clone(&key), None);
    let logins: JoinSet<_> = (0..clients).map(|_| log_in_with(bench.port, key(), "gateway".to_owned())).collect();
    logins.join_all().await
}

/// Logs in with `key`.
pub async fn log_in_with(port: u16, key: PrivateKeyWithHashAlg, user: String) -> Handle<Trusting> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut session = connect_stream(Arc::default(), socket, Trusting).await.unwrap();
    assert!(session.authenticate_publickey(user, key).await.unwrap().success());
    session
}
