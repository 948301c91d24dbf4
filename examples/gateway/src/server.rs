//! The gateway's own accept loop.
//!
//! Connections that do not log in are limited in number and time, running out of file descriptors is waited out, and a
//! stop tells every user before it ends their connection. A watch beside each connection notices a client that is gone
//! even while the SSH library waits for room in a channel and reads nothing.

use crate::account::Accounts;
use crate::algorithms::preferred;
use crate::boxes::Boxes;
use crate::certificate::Authorities;
use crate::closer::{Closable, Closer, SharedSocket};
use crate::connection::{Connection, Visitor};
use crate::disk_limit::DiskLimit;
use crate::latest::Latest;
use crate::limited_boxes::LimitedBoxes;
use crate::limits::{Activity, Ban, Permit, PreAuth};
use crate::operator::Operator;
use crate::proxy::backlog::WINDOW;
use crate::registration::Registration;
use crate::removed;
use crate::running_limit::RunningLimit;
use crate::size::Size;
use crate::upstream::{CHANNEL_BUFFER, Dialer, Remote};
use crate::visit::Ending;
use futures::FutureExt;
use russh::keys::PrivateKey;
use russh::server::Config;
use russh::{Disconnect, MethodKind, MethodSet, SshId};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pause after a failed accept: long enough for a descriptor to come free, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often each connection is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long the SSH library may take to notice that its client is gone.
const NOTICE_LIMIT: Duration = Duration::from_secs(4);

/// How long telling one user something before their connection is closed may take.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);

/// How long telling a client that it is turned away may take.
pub(crate) const TURN_AWAY_LIMIT: Duration = Duration::from_secs(1);

/// Clients that are told so at a time.
pub(crate) const TURN_AWAY_MAX: usize = 32;

/// What the gateway calls itself.
const VERSION: &str = concat!("SSH-2.0-boxpool_", env!("CARGO_PKG_VERSION"));

/// What the gateway allows and how long it waits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may have an account.
    pub registration: Registration,
    /// Whose user certificates are trusted.
    pub authorities: Authorities,
    /// Whether a login with a new name makes the box.
    pub spinup_on_connect: bool,
    /// How long bringing a box up may take, waiting for room included.
    pub connect_limit: Duration,
    /// How long an unanswered dial to a box goes on.
    pub dial_limit: Duration,
    /// What clients are shown before they log in; nothing when it is empty.
    pub banner: String,
    /// How long a client may take to log in.
    pub login_grace: Duration,
    /// How often a silent peer is asked whether it lives; three unanswered questions end the connection.
    pub keepalive: Duration,
    /// How long a connection may stay without any channel; zero: for ever.
    pub idle_limit: Duration,
    /// Connections that may be logging in, in all.
    pub pre_auth_max: usize,
    /// Connections that may be logging in from one address.
    pub pre_auth_per_address_max: usize,
    /// When an address may not log in for a while.
    pub ban: Ban,
    /// Channels one connection may have open.
    pub max_channels: usize,
    /// Boxes one user may have.
    pub boxes_per_user: usize,
    /// Boxes of one user that may run at once.
    pub running_boxes_per_user: usize,
    /// Snapshots one user may keep.
    pub snapshots_per_user: usize,
    /// How large the disks of one user may be, taken together.
    pub disk_per_user: Size,
    /// How large a disk is that was never grown.
    pub fresh_disk: Size,
    /// Keys one user may have.
    pub keys_per_user: usize,
    /// Connections one user may have at this gateway.
    pub connections_per_user: usize,
    /// How long telling users of a stop and ending their connections may take.
    pub farewell_limit: Duration,
    /// The address users type, for texts that tell them what to type.
    pub shown_address: SocketOrHost,
}

/// Host and port as users type them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOrHost {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What the program has while its configuration says nothing else.
impl Default for Settings {
    fn default() -> Self {
        Self::of(&crate::config::Config::default(), Registration::Open, Authorities::default())
    }
}

impl Settings {
    /// What `config` says, but for what it says by naming files.
    pub(crate) fn of(config: &crate::config::Config, registration: Registration, authorities: Authorities) -> Self {
        let limits = &config.limits;
        Self {
            registration,
            authorities,
            spinup_on_connect: config.spinup_on_connect,
            connect_limit: config.connect_deadline.0,
            dial_limit: config.dial_deadline.0,
            banner: config.banner.clone(),
            login_grace: config.login_grace.0,
            keepalive: config.keepalive.0,
            idle_limit: config.idle_limit.0,
            pre_auth_max: limits.logging_in,
            pre_auth_per_address_max: limits.logging_in_per_address,
            max_channels: limits.channels_per_connection,
            boxes_per_user: limits.boxes_per_user,
            running_boxes_per_user: limits.running_boxes_per_user,
            snapshots_per_user: limits.snapshots_per_user,
            disk_per_user: config.disk_per_user(),
            fresh_disk: config.fresh_disk(),
            keys_per_user: limits.keys_per_user,
            connections_per_user: limits.connections_per_user,
            ban: Ban { after: limits.failed_logins_per_address, lasts: limits.ban.0 },
            // The rest of the time is for suspending boxes.
            farewell_limit: (config.drain_limit.0 / 3).min(Duration::from_secs(8)),
            shown_address: config.shown_address(),
        }
    }

    /// The ssh command that reaches `login` here.
    #[must_use]
    pub fn ssh_line(&self, login: &str) -> String {
        let SocketOrHost { host, port } = &self.shown_address;
        if *port == 22 { format!("ssh {login}@{host}") } else { format!("ssh -p {port} {login}@{host}") }
    }
}

/// A gateway: what all its connections share.
pub struct Gateway {
    /// The boxes.
    pub boxes: Arc<dyn Boxes>,
    /// The accounts.
    pub accounts: Accounts,
    /// What is allowed.
    pub settings: Settings,
    /// How boxes are reached.
    pub dialer: Dialer,
    /// Channels and sessions that run.
    pub activity: Activity,
    /// The operator's part.
    pub operator: Operator,
    /// How long the last way into each box took.
    pub latest: Latest,
}

impl Gateway {
    /// A gateway that logs in to boxes with `box_key`.
    #[must_use]
    pub fn new(boxes: Arc<dyn Boxes>, accounts: Accounts, settings: Settings, box_key: Arc<PrivateKey>) -> Arc<Self> {
        Self::reaching(None, boxes, accounts, settings, box_key, Operator::default())
    }

    /// The same, with a way to boxes on machines of their own, and with an operator.
    #[must_use]
    pub fn reaching(
        remote: Option<Arc<dyn Remote>>,
        boxes: Arc<dyn Boxes>,
        accounts: Accounts,
        settings: Settings,
        box_key: Arc<PrivateKey>,
        operator: Operator,
    ) -> Arc<Self> {
        let disks = DiskLimit::new(settings.fresh_disk, settings.disk_per_user);
        let running = settings.running_boxes_per_user;
        let running = (running < settings.boxes_per_user).then(|| RunningLimit::new(running));
        let boxes = Arc::new(LimitedBoxes::new(boxes, disks, running));
        let mut dialer = Dialer::new(box_key, settings.dial_limit, settings.keepalive);
        if let Some(remote) = remote {
            dialer = dialer.through(remote);
        }
        Arc::new(Self {
            boxes,
            accounts,
            settings,
            dialer,
            activity: Activity::default(),
            operator,
            latest: Latest::default(),
        })
    }

    /// Serves `listener` until `stop` completes; then tells the users, ends their connections, and returns. The boxes
    /// are then still up: [`boxpool::Pool::drain`] suspends them. Answers when the stop began.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        host_keys: Vec<PrivateKey>,
        stop: impl Future<Output = ()>,
    ) -> Instant {
        let config = Arc::new(self.ssh_config(host_keys));
        let pre_auth =
            PreAuth::new(self.settings.pre_auth_max, self.settings.pre_auth_per_address_max, self.settings.ban);
        let turning_away = Arc::new(Semaphore::new(TURN_AWAY_MAX));
        let connections = Activity::default();
        let (stopping, stopped) = watch::channel(false);
        let mut looking = JoinSet::new();
        looking.spawn(removed::watch(Arc::clone(self)));
        tokio::pin!(stop);
        loop {
            let (socket, peer) = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = &mut stop => break,
            };
            let permit = match pre_auth.admit(peer.ip(), Instant::now().into_std()) {
                Ok(permit) => permit,
                Err(reason) => {
                    tracing::warn!(%peer, reason, "connection refused");
                    self.operator.turned_away(peer);
                    // In a flood most are closed without a word.
                    if let Ok(place) = Arc::clone(&turning_away).try_acquire_owned() {
                        tokio::spawn(async move {
                            turn_away(socket, reason).await;
                            drop(place);
                        });
                    }
                    continue;
                }
            };
            let (gateway, config, stopped) = (Arc::clone(self), Arc::clone(&config), stopped.clone());
            let running = connections.begin();
            tokio::spawn(async move {
                gateway.attend(config, socket, peer, permit, stopped).await;
                drop(running);
            });
        }
        drop(listener);
        let began = Instant::now();
        self.operator.begin_stop();
        stopping.send_replace(true);
        tracing::info!(connections = connections.count(), "stopping");
        connections.ended(self.settings.farewell_limit).await;
        if !self.activity.ended(self.settings.farewell_limit / 4).await {
            tracing::warn!(left = self.activity.count(), "some sessions have not ended; the pool ends them");
        }
        began
    }

    fn ssh_config(&self, host_keys: Vec<PrivateKey>) -> Config {
        Config {
            server_id: SshId::Standard(Cow::Borrowed(VERSION)),
            // The second lets nobody in: it is how clients are told why, and what to do.
            methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
            // Nothing is guessed by time here: a key is allowed or not. A pause would only delay honest clients.
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: host_keys,
            preferred: preferred(),
            max_auth_attempts: crate::auth::OFFERS_MAX,
            window_size: WINDOW,
            channel_buffer_size: CHANNEL_BUFFER,
            // A quiet shell is not a dead one; keepalives find dead peers.
            inactivity_timeout: None,
            keepalive_interval: Some(self.settings.keepalive),
            keepalive_max: 3,
            nodelay: true,
            ..Config::default()
        }
    }

    /// One connection, from its first byte to its end.
    async fn attend(
        self: Arc<Self>,
        config: Arc<Config>,
        socket: TcpStream,
        peer: SocketAddr,
        permit: Permit,
        mut stopped: watch::Receiver<bool>,
    ) {
        prepare(&socket, self.settings.keepalive);
        let socket = Arc::new(socket);
        let closer = Closer::default();
        let connection = Arc::new(Connection::new(Arc::clone(&self), peer, closer.clone(), permit));
        let _finish = FinishOnDrop(Arc::clone(&connection));
        let stream = Closable::new(SharedSocket(Arc::clone(&socket)), closer.clone());
        let grace = tokio::time::sleep(self.settings.login_grace);
        tokio::pin!(grace);
        // Boxed, as farewells are: this task lasts as long as the connection, and is not to keep the room that they take.
        let starting = Box::pin(russh::server::run_stream(config, stream, Visitor::new(Arc::clone(&connection))));
        let mut session = tokio::select! {
            started = starting => match started {
                Ok(session) => session,
                Err(error) => return tracing::debug!(%peer, %error, "not an SSH client"),
            },
            () = &mut grace => {
                connection.visit.ends(Ending::TooSlow);
                return tracing::info!(%peer, "did not say who it is in time");
            }
            () = told_to_stop(&mut stopped) => return connection.visit.ends(Ending::Stopping),
        };
        let handle = session.handle();
        connection.set_door(handle.clone());
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = false;
        loop {
            tokio::select! {
                ended = &mut session => {
                    match ended {
                        Ok(()) => tracing::debug!(%peer, "connection ended"),
                        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
                    }
                    return;
                }
                () = &mut grace, if !told && !connection.is_authenticated() => {
                    told = true;
                    tracing::info!(%peer, "did not log in in time");
                    connection.visit.ends(Ending::TooSlow);
                    close_later(closer.clone(), FAREWELL_LIMIT);
                    let limit = self.settings.login_grace.as_secs();
                    let text = format!("you did not log in within {limit} seconds; connect again");
                    Box::pin(farewell(&handle, &text)).await;
                }
                () = told_to_stop(&mut stopped), if !told => {
                    told = true;
                    connection.visit.ends(Ending::Stopping);
                    // Half of the time for clients to leave by themselves, then their connections are closed.
                    let limit = self.settings.farewell_limit / 2;
                    close_later(closer.clone(), limit);
                    let text = "the gateway is stopping; your box is kept as it is, connect again later";
                    Box::pin(farewell(&handle, text)).await;
                }
                _ = look.tick() => {
                    if is_gone(&socket) && !closer.is_closed() {
                        close_later(closer.clone(), NOTICE_LIMIT);
                    }
                    let limit = self.settings.idle_limit;
                    if !told && !limit.is_zero() && connection.is_authenticated() && connection.idle_for() > limit {
                        told = true;
                        tracing::info!(%peer, "no channel open for too long");
                        connection.visit.ends(Ending::Idle);
                        Box::pin(farewell(&handle, "nothing was open on this connection for too long")).await;
                        close_later(closer.clone(), FAREWELL_LIMIT);
                    }
                }
            }
        }
    }
}

/// Ends what a connection holds, whichever way its task ends.
struct FinishOnDrop(Arc<Connection>);

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// The next connection. Out of descriptors, or the client left already: neither ends the gateway. Dropping it loses none.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => tracing::warn!(%error, "connection not accepted"),
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

pub(crate) fn prepare(socket: &TcpStream, keepalive: Duration) {
    use rustix::net::sockopt;
    let set = socket.set_nodelay(true).and_then(|()| {
        // The kernel's own keepalive finds a dead client while the SSH library is not reading.
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, keepalive)?;
        sockopt::set_tcp_keepintvl(socket, keepalive)?;
        sockopt::set_tcp_keepcnt(socket, 3)?;
        Ok(())
    });
    if let Err(error) = set {
        tracing::debug!(%error, "socket options not set");
    }
}

/// Whether the client has closed its side. Seen even while bytes wait that nobody has read.
pub(crate) fn is_gone(socket: &TcpStream) -> bool {
    match socket.ready(Interest::READABLE).now_or_never() {
        Some(Ok(ready)) => ready.is_read_closed(),
        Some(Err(_)) => true,
        None => false,
    }
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the gateway is gone, which is a stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn close_later(closer: Closer, limit: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(limit).await;
        closer.close();
    });
}

async fn farewell(handle: &russh::server::Handle, text: &str) {
    let telling = handle.disconnect(Disconnect::ByApplication, text.to_owned(), String::new());
    let _ = tokio::time::timeout(FAREWELL_LIMIT, telling).await;
}

/// Tells a user why their connection ends, and ends it; one that has no handle yet is just closed.
pub(crate) async fn dismiss(handle: Option<russh::server::Handle>, closer: Closer, text: &'static str) {
    if let Some(handle) = handle {
        farewell(&handle, text).await;
        // The client closes when it has read why.
        let _ = tokio::time::timeout(FAREWELL_LIMIT, closer.closed()).await;
    }
    closer.close();
}

/// Says why before closing: as SSH does it, since OpenSSH shows its user nothing that comes before the version.
async fn turn_away(socket: TcpStream, reason: &'static str) {
    last_words(socket, &refusal(reason)).await;
}

/// Sends `bytes` and closes, within a limit.
pub(crate) async fn last_words(mut socket: TcpStream, bytes: &[u8]) {
    let told = async {
        socket.write_all(bytes).await?;
        socket.shutdown().await?;
        hear_out(&mut socket).await
    };
    let _ = tokio::time::timeout(TURN_AWAY_LIMIT, told).await;
}

/// Reads what is still said, to its end. Closed with something unread, the kernel would reset the connection, and the peer
/// might not read what it was sent last.
pub(crate) async fn hear_out(peer: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    let mut said = [0; 1024];
    while peer.read(&mut said).await? > 0 {}
    Ok(())
}

/// The version and a message to disconnect (RFC 4253, 4.2, 6 and 11.1), in clear as everything is before a key exchange.
fn refusal(reason: &str) -> Vec<u8> {
    const DISCONNECT: u8 = 1;
    let mut payload = vec![DISCONNECT];
    payload.extend((Disconnect::TooManyConnections as u32).to_be_bytes());
    for text in [reason, ""] {
        // Reasons are short sentences of our own.
        payload.extend(u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
        payload.extend(text.as_bytes());
    }
    // Length, padding's length, payload and padding fill blocks of eight; of padding there are at least four bytes.
    let padding = 4 + (8 - (4 + 1 + payload.len() + 4) % 8) % 8;
    let length = 1 + payload.len() + padding;
    let mut bytes = format!("{VERSION}\r\n").into_bytes();
    bytes.extend(u32::try_from(length).unwrap_or_default().to_be_bytes());
    bytes.push(u8::try_from(padding).unwrap_or_default());
    bytes.extend(payload);
    bytes.resize(bytes.len() + padding, 0);
    bytes
}
