//! Forwarded ports and sockets.
//!
//! Every forwarded connection is made from inside the box, through its own SSH server; the gateway never connects to an
//! address a user names. A port or socket that is forwarded from the box to the user (`-R`) has a connection to the box
//! of its own, which is also where its connections arrive; it ends with the user's connection.

use crate::connection::{Connection, Destination};
use crate::exit::{ExitCode, Refusal};
use crate::hold::Hold;
use crate::lock::lock;
use crate::plain::plain;
use crate::proxy::reach::reach;
use crate::proxy::relay::relay;
use crate::upstream::{Openings, Upstream};
use crate::visit::Kind;
use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a box may take to answer a request for a forward.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Most forwards from a box that one connection may have.
const FORWARDS_MAX: usize = 32;

/// Where a forwarded connection leads, seen from inside the box.
#[derive(Debug, Clone)]
pub enum Target {
    /// A TCP address, and where the user's connection came from.
    Tcp {
        /// Host, as the box resolves it.
        host: String,
        /// Port.
        port: u32,
        /// Originator's address.
        from: String,
        /// Originator's port.
        from_port: u32,
    },
    /// A unix socket in the box.
    Socket {
        /// Its path.
        path: String,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Socket { path } => f.write_str(path),
        }
    }
}

/// Connects a channel of the user to `target` in the box, and hands bytes on until one side ends.
pub async fn connect(connection: Arc<Connection>, channel: Channel<Msg>, reply: ChannelOpenHandle, target: Target) {
    let record = connection.visit.channel(Kind::Forward);
    record.does_private(|| target.to_string());
    let opened = open(&connection, &target).await;
    match opened {
        Ok((upstream, hold, to)) => {
            record.leads_to(hold.name());
            record.reached();
            reply.accept().await;
            let (from_user, from_box) = (connection.pressure.clone(), upstream.pressure.clone());
            relay((channel, from_user), (to, from_box), &record, upstream.ended()).await;
        }
        Err(failure) => reply.reject(failure).await,
    }
}

type Opened = (Upstream, Arc<Hold>, Channel<russh::client::Msg>);

async fn open(connection: &Arc<Connection>, target: &Target) -> Result<Opened, ChannelOpenFailure> {
    let refused = |reason: String| ChannelOpenFailure::Other { code: 2, reason: plain(&reason).into_owned() };
    let hold = own_box(connection).await.map_err(|refusal| refused(refusal.message))?;
    let (upstream, hold) = reach(connection.as_ref(), hold, Openings::default(), None)
        .await
        .map_err(|refusal| refused(refusal.message))?;
    let opening = async {
        match target {
            Target::Tcp { host, port, from, from_port } => {
                upstream.handle.channel_open_direct_tcpip(host.as_str(), *port, from.as_str(), *from_port).await
            }
            Target::Socket { path } => upstream.handle.channel_open_direct_streamlocal(path.as_str()).await,
        }
    };
    match tokio::time::timeout(ANSWER_LIMIT, opening).await {
        Ok(Ok(channel)) => Ok((upstream, hold, channel)),
        Ok(Err(russh::Error::ChannelOpenFailure(failure))) => Err(failure),
        Ok(Err(error)) => Err(refused(error.to_string())),
        Err(_) => Err(refused("the box did not answer in time".into())),
    }
}

async fn own_box(connection: &Connection) -> Result<Arc<Hold>, Refusal> {
    match connection.destination(None).await? {
        Destination::Box(hold) => Ok(hold),
        Destination::Lobby => Err(crate::lobby::no_box(connection.named())),
    }
}

/// What is forwarded from boxes to the user of one connection.
#[derive(Default)]
pub struct Forwards(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    open: BTreeMap<Place, Forward>,
    /// Taken back, but connections that came through them may still be open.
    cancelled: Vec<Forward>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Tcp(String, u32),
    Socket(String),
}

struct Forward {
    upstream: Upstream,
    _hold: Arc<Hold>,
}

impl Forwards {
    /// Ends all of them.
    pub fn clear(&self) {
        *lock(&self.0) = Kept::default();
    }

    /// Ends the forward of a port; `false` when there is none.
    pub async fn cancel_tcp(&self, address: &str, port: u32) -> bool {
        let forward = lock(&self.0).open.remove(&Place::Tcp(address.to_owned(), port));
        let Some(forward) = forward else { return false };
        let done = answer(forward.upstream.handle.cancel_tcpip_forward(address, port)).await.is_ok();
        lock(&self.0).cancelled.push(forward);
        done
    }

    /// Ends the forward of a socket; `false` when there is none.
    pub async fn cancel_socket(&self, path: &str) -> bool {
        let forward = lock(&self.0).open.remove(&Place::Socket(path.to_owned()));
        let Some(forward) = forward else { return false };
        let done = answer(forward.upstream.handle.cancel_streamlocal_forward(path)).await.is_ok();
        lock(&self.0).cancelled.push(forward);
        done
    }
}

/// Has the box listen on a port; answers which.
///
/// # Errors
/// Why not.
pub async fn listen_tcp(connection: &Arc<Connection>, address: &str, port: u32) -> Result<u32, Refusal> {
    let (upstream, hold) = prepare(connection).await?;
    let bound = answer(upstream.handle.tcpip_forward(address, port)).await?;
    let bound = if port == 0 { bound } else { port };
    keep(connection, Place::Tcp(address.to_owned(), bound), upstream, hold);
    Ok(bound)
}

/// Has the box listen on a unix socket.
///
/// # Errors
/// Why not.
pub async fn listen_socket(connection: &Arc<Connection>, path: &str) -> Result<(), Refusal> {
    let (upstream, hold) = prepare(connection).await?;
    answer(upstream.handle.streamlocal_forward(path)).await?;
    keep(connection, Place::Socket(path.to_owned()), upstream, hold);
    Ok(())
}

async fn prepare(connection: &Arc<Connection>) -> Result<(Upstream, Arc<Hold>), Refusal> {
    let many = {
        let kept = lock(&connection.forwards.0);
        kept.open.len() + kept.cancelled.len() >= FORWARDS_MAX
    };
    if many {
        return Err(Refusal::new(ExitCode::Failed, format!("one connection forwards at most {FORWARDS_MAX} ports")));
    }
    let hold = own_box(connection).await?;
    let openings = Openings { forwarded: true, ..Openings::default() };
    tokio::select! {
        reached = reach(connection.as_ref(), hold, openings, None) => reached,
        () = connection.closer.closed() => Err(Refusal::new(ExitCode::Failed, "the connection ended")),
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, russh::Error>>) -> Result<T, Refusal> {
    match tokio::time::timeout(ANSWER_LIMIT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Refusal::new(ExitCode::Failed, "the box does not listen there")),
        Err(_) => Err(Refusal::new(ExitCode::Broken, "the box did not answer in time")),
    }
}

fn keep(connection: &Connection, place: Place, upstream: Upstream, hold: Arc<Hold>) {
    lock(&connection.forwards.0).open.insert(place, Forward { upstream, _hold: hold });
    if connection.closer.is_closed() {
        connection.forwards.clear(); // the connection ended meanwhile
    }
}
