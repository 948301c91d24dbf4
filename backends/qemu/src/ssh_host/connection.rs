//! One SSH connection to a host, made when it is needed and made anew when it has ended.

use super::SshAddress;
use boxpool::{Error, ErrorKind, Result};
use russh::client::{Config, Handle, Handler};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// How long it may take to reach a host and log in.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// A host that says nothing for three of these is given up.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The way to a host.
pub(super) struct Connector {
    pub(super) address: SshAddress,
    key: Arc<PrivateKey>,
    pinned: PublicKey,
    config: Arc<Config>,
    present: Mutex<Option<Arc<Handle<Side>>>>,
}

impl Connector {
    pub(super) fn new(address: SshAddress, key: PrivateKey, pinned: PublicKey) -> Self {
        let config = Config {
            inactivity_timeout: None,
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: 3,
            nodelay: true,
            ..Config::default()
        };
        Self { address, key: Arc::new(key), pinned, config: Arc::new(config), present: Mutex::default() }
    }

    /// The connection, which is made when there is none or the last one has ended. Nothing was done on the host when this fails.
    pub(super) async fn get(&self) -> Result<Arc<Handle<Side>>> {
        let mut present = self.present.lock().await;
        if let Some(handle) = present.as_ref().filter(|handle| !handle.is_closed()) {
            return Ok(Arc::clone(handle));
        }
        let made = tokio::time::timeout(CONNECT_LIMIT, self.connect()).await;
        let made = made.unwrap_or_else(|_| {
            let detail = format!("it did not answer within {CONNECT_LIMIT:?}");
            Err(Error::new(ErrorKind::Unavailable, "reach host", &self.address).with_detail(detail))
        });
        let handle = Arc::new(made?);
        *present = Some(Arc::clone(&handle));
        Ok(handle)
    }

    async fn connect(&self) -> Result<Handle<Side>> {
        let unreachable = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Unavailable, "reach host", &self.address).with_detail(error.to_string())
        };
        let SshAddress { host, port, user } = &self.address;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let wrong_key = Arc::new(AtomicBool::new(false));
        let side = Side { pinned: self.pinned.clone(), wrong_key: Arc::clone(&wrong_key) };
        let connected = russh::client::connect_stream(Arc::clone(&self.config), stream, side).await;
        let mut handle = match connected {
            Ok(handle) => handle,
            Err(_) if wrong_key.load(Ordering::Acquire) => {
                let detail = "what answers there does not have the host key that was pinned; nothing was sent to it";
                return Err(Error::new(ErrorKind::Unauthorized, "reach host", &self.address).with_detail(detail));
            }
            Err(error) => return Err(unreachable(&error)),
        };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), None);
        let login = handle.authenticate_publickey(user, key).await.map_err(|error| unreachable(&error))?;
        if !login.success() {
            let detail = "it does not accept our key for that login";
            return Err(Error::new(ErrorKind::Unauthorized, "log in to host", &self.address).with_detail(detail));
        }
        Ok(handle)
    }
}

/// What we do when the host speaks first: nothing but to look at its key.
pub(super) struct Side {
    pinned: PublicKey,
    wrong_key: Arc<AtomicBool>,
}

impl Handler for Side {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> std::result::Result<bool, Self::Error> {
        let matches = key.public_key().key_data() == self.pinned.key_data();
        self.wrong_key.store(!matches, Ordering::Release);
        Ok(matches)
    }
}
