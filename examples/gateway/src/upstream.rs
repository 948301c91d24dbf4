//! The gateway's own SSH connection to a box.
//!
//! Each channel of a user gets a connection of its own to the box, so that one that stands still holds up no other. The
//! box must show the host key its endpoint is pinned to, else nothing is sent. A box may open channels back to the user
//! only of the kinds the user asked for on this connection; everything else is refused, because a box is the user's
//! own machine and may run anything.

use crate::algorithms::preferred;
use crate::closer::{Closable, Closer};
use crate::lock::lock;
use crate::proxy::backlog::{Pressure, WINDOW};
use crate::proxy::relay::relay;
use crate::visit::{Kind, Visit};
use async_trait::async_trait;
use boxpool::{Endpoint, EndpointAddress, Error, ErrorKind, InstanceId};
use russh::client::{ChannelOpenHandle, Config, Handle, Handler, Msg, Session};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, SshId, server};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Messages a channel holds before the connection waits for its reader.
pub(crate) const CHANNEL_BUFFER: usize = 64;

/// Longest pause between two attempts to reach a box.
const ATTEMPT_PAUSE_MAX: Duration = Duration::from_millis(250);

/// Longest time one attempt may take. Generous: a box without hardware virtualisation needs seconds for a handshake.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);

/// Why a box could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Whoever answered is not the box.
    #[error("what answers at the box's address does not have the box's host key; nothing was sent to it")]
    WrongHostKey,
    /// The box does not let the gateway in.
    #[error(
        "the box does not let the gateway in as {0}: it has no such login, or a locked one; as another login, with sudo: \
         useradd -m -s /bin/bash -p '*' {0}"
    )]
    LoginRefused(String),
    /// Nothing answered in time.
    #[error("the box's SSH server does not answer: {0}")]
    Unreachable(String),
}

/// Which channels the box may open towards the user.
#[derive(Debug, Clone, Default)]
pub struct Openings {
    /// The user's agent.
    pub agent: bool,
    /// The user's X11 display.
    pub x11: bool,
    /// Connections to an address the user asked to have forwarded.
    pub forwarded: bool,
}

/// A connection to a box. Ends when dropped.
pub struct Upstream {
    /// The SSH library's handle.
    pub handle: Handle<BoxSide>,
    /// Whether what the box says piles up.
    pub pressure: Pressure,
    closer: Closer,
}

/// Where the box's own openings lead.
#[derive(Clone)]
pub struct Back {
    /// The user's connection.
    pub handle: server::Handle,
    /// Whether what the user says piles up.
    pub pressure: Pressure,
    /// What is told of it.
    pub visit: Arc<Visit>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.closer.close();
    }
}

impl Upstream {
    /// Returns when the connection has ended.
    pub async fn ended(&self) {
        self.closer.closed().await;
    }
}

/// The way to ports of instances that are machines of their own.
#[async_trait]
pub trait Remote: Send + Sync + 'static {
    /// Connects to a TCP address as that machine sees it.
    ///
    /// # Errors
    /// Whatever stood in the way.
    async fn open(&self, instance: &InstanceId, address: SocketAddr) -> boxpool::Result<Box<dyn Stream>>;
}

/// The ways into several regions. An instance's id does not tell where it is, so the regions are asked in turn, and the one that
/// has it is kept in mind.
pub(crate) struct Ways {
    all: Vec<Arc<dyn Remote>>,
    known: Mutex<BTreeMap<InstanceId, usize>>,
}

/// Of so many instances it is kept in mind.
const KNOWN_MAX: usize = 10_000;

impl Ways {
    /// One way, or several as one.
    pub(crate) fn of(all: impl IntoIterator<Item = Arc<dyn Remote>>) -> Option<Arc<dyn Remote>> {
        let mut all: Vec<_> = all.into_iter().collect();
        match all.len() {
            0 | 1 => all.pop(),
            _ => Some(Arc::new(Self { all, known: Mutex::default() })),
        }
    }
}

#[async_trait]
impl Remote for Ways {
    async fn open(&self, instance: &InstanceId, address: SocketAddr) -> boxpool::Result<Box<dyn Stream>> {
        let known = lock(&self.known).get(instance).copied();
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|number| Some(*number) != known);
        let mut refusal = None;
        for number in order {
            let Some(way) = self.all.get(number) else { continue };
            match way.open(instance, address).await {
                Ok(stream) => {
                    let mut known = lock(&self.known);
                    if known.len() >= KNOWN_MAX {
                        known.clear();
                    }
                    known.insert(instance.clone(), number);
                    return Ok(stream);
                }
                // Elsewhere, perhaps; what another one said counts more.
                Err(error) if error.kind() == ErrorKind::NotFound => drop(refusal.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::new(ErrorKind::NotFound, "find instance", instance)))
    }
}

/// How to reach boxes.
#[derive(Clone)]
pub struct Dialer {
    key: Arc<PrivateKey>,
    config: Arc<Config>,
    limit: Duration,
    remote: Option<Arc<dyn Remote>>,
}

impl Dialer {
    /// A dialer that logs in with `key`, gives up after `limit`, and asks a silent box every `keepalive` whether it lives.
    #[must_use]
    pub fn new(key: Arc<PrivateKey>, limit: Duration, keepalive: Duration) -> Self {
        let config = Config {
            client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-boxpool_", env!("CARGO_PKG_VERSION")))),
            preferred: preferred(),
            window_size: WINDOW,
            channel_buffer_size: CHANNEL_BUFFER,
            inactivity_timeout: None,
            keepalive_interval: Some(keepalive),
            keepalive_max: 3,
            nodelay: true,
            ..Config::default()
        };
        Self { key, config: Arc::new(config), limit, remote: None }
    }

    /// Says how instances that are machines of their own are reached.
    #[must_use]
    pub fn through(mut self, remote: Arc<dyn Remote>) -> Self {
        self.remote = Some(remote);
        self
    }

    /// Connects and logs in. A box that comes up refuses connections for a moment, so attempts are repeated until the
    /// limit; a wrong host key or a refused login ends them at once. Where there is no `user` the box can open nothing.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn dial(
        &self,
        endpoint: &Endpoint,
        user: Option<Back>,
        openings: Openings,
    ) -> Result<Upstream, DialError> {
        let deadline = tokio::time::Instant::now() + self.limit;
        let mut pause = Duration::from_millis(10);
        loop {
            let attempt = self.attempt(endpoint, user.clone(), openings.clone());
            let limit = ATTEMPT_LIMIT.min(deadline.saturating_duration_since(tokio::time::Instant::now()));
            let failure = match tokio::time::timeout(limit, attempt).await {
                Ok(Ok(upstream)) => return Ok(upstream),
                Ok(Err(DialError::Unreachable(why))) => why,
                Ok(Err(error)) => return Err(error),
                Err(_) => "it took too long".to_owned(),
            };
            if tokio::time::Instant::now() + pause >= deadline {
                return Err(DialError::Unreachable(failure));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ATTEMPT_PAUSE_MAX);
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        user: Option<Back>,
        openings: Openings,
    ) -> Result<Upstream, DialError> {
        let unreachable = |error: &dyn std::fmt::Display| DialError::Unreachable(error.to_string());
        let pinned = PublicKey::from_openssh(&endpoint.host_key)
            .map_err(|error| unreachable(&format!("its host key is not known: {error}")))?;
        let stream: Box<dyn Stream> = match &endpoint.address {
            EndpointAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
                stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
                Box::new(stream)
            }
            EndpointAddress::Unix(path) => {
                Box::new(UnixStream::connect(path).await.map_err(|error| unreachable(&error))?)
            }
            EndpointAddress::On { instance, address } => {
                let no_way = || unreachable(&format!("there is no way from here to {address} on {instance}"));
                let remote = self.remote.as_ref().ok_or_else(no_way)?;
                remote.open(instance, *address).await.map_err(|error| unreachable(&error))?
            }
        };
        let closer = Closer::default();
        let wrong_key = Arc::new(AtomicBool::new(false));
        let pressure = Pressure::default();
        let side = BoxSide {
            pinned: Box::new(pinned),
            wrong_key: Arc::clone(&wrong_key),
            user,
            pressure: pressure.clone(),
            openings,
            closer: closer.clone(),
        };
        // From here on a failure, or a dropped future, ends the stream.
        let guard = CloseOnDrop(Some(closer));
        let connected =
            russh::client::connect_stream(Arc::clone(&self.config), Closable::new(stream, guard.closer()), side).await;
        let mut handle = match connected {
            Ok(handle) => handle,
            Err(_) if wrong_key.load(Ordering::Acquire) => return Err(DialError::WrongHostKey),
            Err(error) => return Err(unreachable(&error)),
        };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), None);
        let login = handle.authenticate_publickey(&endpoint.login, key).await.map_err(|error| unreachable(&error))?;
        if !login.success() {
            return Err(DialError::LoginRefused(endpoint.login.clone()));
        }
        Ok(Upstream { handle, pressure, closer: guard.keep() })
    }
}

/// A byte stream to a box.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

struct CloseOnDrop(Option<Closer>);

impl CloseOnDrop {
    fn closer(&self) -> Closer {
        self.0.clone().unwrap_or_default()
    }

    fn keep(mut self) -> Closer {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(closer) = &self.0 {
            closer.close();
        }
    }
}

/// What the gateway does when the box speaks first.
///
/// The SSH library holds it four times over for as long as the connection lasts, so it is small.
pub struct BoxSide {
    pinned: Box<PublicKey>,
    wrong_key: Arc<AtomicBool>,
    user: Option<Back>,
    pressure: Pressure,
    openings: Openings,
    closer: Closer,
}

impl Drop for BoxSide {
    fn drop(&mut self) {
        // The SSH library drops its handler when the connection ends, whatever ended it.
        self.closer.close();
    }
}

impl BoxSide {
    /// Holds the box back while what it said piles up.
    async fn hold_back(&self) {
        tokio::select! {
            () = self.pressure.hold_back() => {}
            () = self.closer.closed() => {}
        }
    }

    /// Joins a channel the box opens with one that `open` opens towards the user.
    fn join<F>(&self, user: &Back, kind: Kind, channel: Channel<Msg>, reply: ChannelOpenHandle, open: F)
    where
        F: Future<Output = Result<Channel<server::Msg>, russh::Error>> + Send + 'static,
    {
        let (closer, to_user, to_box) = (self.closer.clone(), user.pressure.clone(), self.pressure.clone());
        let visit = Arc::clone(&user.visit);
        tokio::spawn(async move {
            match open.await {
                Ok(user) => {
                    let record = visit.channel(kind);
                    reply.accept().await;
                    relay((user, to_user), (channel, to_box), &record, closer.closed()).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
    }
}

impl Handler for BoxSide {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let matches = key.public_key().key_data() == self.pinned.key_data();
        self.wrong_key.store(!matches, Ordering::Release);
        Ok(matches)
    }

    async fn data(&mut self, _: ChannelId, _: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.hold_back().await;
        Ok(())
    }

    async fn extended_data(&mut self, _: ChannelId, _: u32, _: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.hold_back().await;
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(user) = self.user.as_ref().filter(|_| self.openings.agent) {
            let handle = user.handle.clone();
            self.join(user, Kind::Agent, channel, reply, async move { handle.channel_open_agent().await });
        }
        Ok(()) // dropping the reply refuses
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(user) = self.user.as_ref().filter(|_| self.openings.x11) {
            let (handle, address) = (user.handle.clone(), address.to_owned());
            self.join(user, Kind::X11, channel, reply, async move { handle.channel_open_x11(address, port).await });
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(user) = self.user.as_ref().filter(|_| self.openings.forwarded) {
            let (handle, address, from) = (user.handle.clone(), address.to_owned(), from.to_owned());
            self.join(user, Kind::ReverseForward, channel, reply, async move {
                handle.channel_open_forwarded_tcpip(address, port, from, from_port).await
            });
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(user) = self.user.as_ref().filter(|_| self.openings.forwarded) {
            let (handle, path) = (user.handle.clone(), path.to_owned());
            self.join(user, Kind::ReverseForward, channel, reply, async move {
                handle.channel_open_forwarded_streamlocal(path).await
            });
        }
        Ok(())
    }

    // The library accepts these three unless told otherwise. No box has a reason to open them.
    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}
