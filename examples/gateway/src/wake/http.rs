//! A port of the gateway that leads to a port inside a box, and wakes the box.
//!
//! ```text
//! accepted ─► first byte ─► box comes up ─► its server takes the connection ─► bytes both ways ─► end
//!     │           (the client waits; it is answered 503, 504 or 502 when that does not come about)
//!     └─ silent for too long: closed, and nothing was woken
//! ```
//! Nothing of HTTP is understood here apart from those answers: bytes are handed on as they come, so connections are
//! kept alive and upgraded as client and server please. Each has an SSH connection to the box of its own, for the reason
//! [`upstream`](crate::upstream) gives, and the box's SSH server connects to the port: the gateway never does.

use crate::duration::Span;
use crate::proxy::reach::reach;
use crate::server::{Gateway, TURN_AWAY_MAX, accept, is_gone, last_words, prepare};
use crate::upstream::{Openings, Upstream};
use crate::wake::BoxRef;
use crate::wake::answer::Outcome;
use crate::wake::record::{Record, Who};
use crate::wake::stream::stream;
use crate::wake::waker::Waker;
use crate::{hold::Hold, serve::listen};
use boxpool::Result;
use russh::client::Msg;
use russh::{Channel, ChannelOpenFailure};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often a client that waits is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Pause between two attempts to reach the server in the box.
const PORT_PAUSE: Duration = Duration::from_millis(200);

/// One `[[http]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// The box that is woken.
    #[serde(rename = "box")]
    pub target: BoxRef,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The port inside the box.
    pub port: u16,
    /// How long a client may take to send its first byte.
    #[serde(default = "request_limit")]
    pub request_limit: Span,
    /// How long the box may take to come up.
    #[serde(default = "wake_limit")]
    pub wake_limit: Span,
    /// How long after that the port may refuse: its server may just be starting.
    #[serde(default = "port_limit")]
    pub port_limit: Span,
    /// How long a connection on which nothing moves holds the box awake.
    #[serde(default = "idle_limit")]
    pub idle_limit: Span,
    /// Connections that may be open.
    #[serde(default = "connections")]
    pub connections: usize,
}

fn request_limit() -> Span {
    Span::seconds(10)
}

fn wake_limit() -> Span {
    Span::seconds(60)
}

fn port_limit() -> Span {
    Span::seconds(10)
}

fn idle_limit() -> Span {
    Span::seconds(5 * 60)
}

fn connections() -> usize {
    64
}

impl HttpConfig {
    /// One with the defaults.
    #[must_use]
    pub fn new(target: BoxRef, listen: SocketAddr, port: u16) -> Self {
        Self {
            target,
            listen,
            port,
            request_limit: request_limit(),
            wake_limit: wake_limit(),
            port_limit: port_limit(),
            idle_limit: idle_limit(),
            connections: connections(),
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn check(&self) -> Result<(), String> {
        let of = |option: &str| format!("http.{option} of {}", self.listen);
        if self.port == 0 {
            return Err(format!("{} must be at least 1", of("port")));
        }
        if !(1..=Semaphore::MAX_PERMITS).contains(&self.connections) {
            return Err(format!("{} must be at least 1, and not beyond all bounds", of("connections")));
        }
        for (option, value) in [
            ("request_limit", self.request_limit),
            ("wake_limit", self.wake_limit),
            ("port_limit", self.port_limit),
            ("idle_limit", self.idle_limit),
        ] {
            if !(Span::seconds(1)..=Span::seconds(30 * 24 * 3600)).contains(&value) {
                return Err(format!("{} must be 1s to 30d", of(option)));
            }
        }
        Ok(())
    }
}

/// A port that is listened on, before anything is served there.
pub struct Door {
    listener: TcpListener,
    config: HttpConfig,
}

impl Door {
    /// Takes the address.
    ///
    /// # Errors
    /// As [`listen`].
    pub async fn open(config: &HttpConfig) -> Result<Self> {
        Ok(Self { listener: listen(config.listen).await?, config: config.clone() })
    }

    /// Serves until the gateway is told to stop. What is open then has a moment to end by itself.
    pub async fn serve(self, gateway: Arc<Gateway>) {
        let Self { listener, config } = self;
        tracing::info!(listen = %config.listen, target = %config.target, port = config.port, "http wakes a box");
        let places = Arc::new(Semaphore::new(config.connections));
        let turning_away = Arc::new(Semaphore::new(TURN_AWAY_MAX));
        let waker = Waker::new(Arc::clone(&gateway), config.target.clone(), config.wake_limit.0);
        let host = Arc::new(Host { gateway: Arc::clone(&gateway), waker, config });
        let mut connections = JoinSet::new();
        loop {
            let (socket, peer) = tokio::select! {
                accepted = accept(&listener) => accepted,
                Some(_) = connections.join_next() => continue,
                () = gateway.operator.drain_asked() => break,
            };
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let host = Arc::clone(&host);
                connections.spawn(async move {
                    host.attend(socket, peer).await;
                    drop(place);
                });
            } else if let Ok(place) = Arc::clone(&turning_away).try_acquire_owned() {
                tracing::warn!(%peer, "too many connections; turned away");
                connections.spawn(async move {
                    refuse(socket, Outcome::Crowded).await;
                    drop(place);
                });
            }
        }
        drop(listener);
        let moment = gateway.settings.farewell_limit / 8;
        let _ = tokio::time::timeout(moment, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
    }
}

async fn refuse(socket: TcpStream, outcome: Outcome) {
    if let Some(answer) = outcome.answer() {
        last_words(socket, answer.as_bytes()).await;
    }
}

/// What the connections of one port share.
struct Host {
    gateway: Arc<Gateway>,
    waker: Waker,
    config: HttpConfig,
}

type Reached = (Upstream, Arc<Hold>, Channel<Msg>);

impl Host {
    async fn attend(&self, socket: TcpStream, peer: SocketAddr) {
        prepare(&socket, self.gateway.settings.keepalive);
        let operator = &self.gateway.operator;
        let speaks = tokio::select! {
            speaks = tokio::time::timeout(self.config.request_limit.0, speaks(&socket)) => speaks,
            () = operator.drain_asked() => return,
        };
        if !matches!(speaks, Ok(true)) {
            return tracing::debug!(%peer, "asked for nothing");
        }
        let mut record = Record::new(operator.audit.clone(), Who::Http, Some(peer), self.config.target.clone());
        let reached = tokio::select! {
            reached = self.reach(peer) => reached,
            () = left(&socket) => Err(Outcome::Left),
            () = operator.drain_asked() => Err(Outcome::Stopping),
        };
        match reached {
            Ok((upstream, hold, channel)) => {
                record.reached();
                let ended = stream(socket, &upstream, channel, &record, self.config.idle_limit.0).await;
                record.ends(ended);
                drop((upstream, hold)); // in this order
            }
            Err(outcome) => {
                record.ends(outcome);
                refuse(socket, outcome).await;
            }
        }
    }

    async fn reach(&self, peer: SocketAddr) -> Result<Reached, Outcome> {
        let up = reach(&self.waker, self.waker.hold(), Openings::default(), None);
        let (upstream, hold) = match tokio::time::timeout(self.config.wake_limit.0, up).await {
            Ok(Ok(reached)) => reached,
            Ok(Err(refusal)) => {
                tracing::warn!(target = %self.config.target, kind = refusal.kind, why = %refusal, "box not woken");
                return Err(Outcome::of(&refusal));
            }
            Err(_) => return Err(Outcome::TooLong),
        };
        let channel = self.enter(&upstream, peer).await?;
        Ok((upstream, hold, channel))
    }

    /// Has the box connect to its port.
    async fn enter(&self, upstream: &Upstream, peer: SocketAddr) -> Result<Channel<Msg>, Outcome> {
        let deadline = Instant::now() + self.config.port_limit.0;
        let (port, from, from_port) = (u32::from(self.config.port), peer.ip().to_string(), u32::from(peer.port()));
        loop {
            let opening = upstream.handle.channel_open_direct_tcpip("localhost", port, from.as_str(), from_port);
            let failure = match tokio::time::timeout_at(deadline, opening).await {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(Outcome::NoServer),
            };
            let starting = matches!(failure, russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed));
            if !starting || Instant::now() + PORT_PAUSE >= deadline {
                tracing::info!(target = %self.config.target, port, error = %failure, "no server in the box");
                return Err(Outcome::NoServer);
            }
            tokio::time::sleep(PORT_PAUSE).await;
        }
    }
}

/// Whether a first byte came rather than an end. Nothing is read.
async fn speaks(socket: &TcpStream) -> bool {
    matches!(socket.peek(&mut [0]).await, Ok(1..))
}

/// Returns when the client has closed its side. Who does so before there is an answer has given up.
async fn left(socket: &TcpStream) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        if is_gone(socket) {
            return;
        }
    }
}
