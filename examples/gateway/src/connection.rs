//! One user's SSH connection: who it is, which boxes it holds, and what may happen on it.
//!
//! A connection whose login names a box holds that box from the moment of login to its end, with or without channels:
//! `ssh -N` keeps the box up for its forwards. A connection on which no channel is open for the configured time is
//! ended, so that a forgotten one does not hold a box for ever.

use crate::account::{Account, Finding, KeyId, KeyInUse};
use crate::auth::{Answer, Offered, Offers, Worth, starts_over};
use crate::channel;
use crate::closer::Closer;
use crate::exit::{ExitCode, Refusal};
use crate::forward::Forwards;
use crate::hold::Hold;
use crate::limits::Permit;
use crate::lobby;
use crate::lock::lock;
use crate::login;
use crate::plain::plain;
use crate::proxy::backlog::Pressure;
use crate::proxy::reach::Bringer;
use crate::proxy::session::Start;
use crate::server::Gateway;
use crate::unknown_key::{self, DISCONNECT_MAX};
use crate::upstream::{Back, DialError, Openings, Upstream};
use crate::visit::{Ending, Identity, Verdict, Visit};
use boxpool::{BoxName, Clock, Endpoint, Epoch, Report, SystemClock, UserId};
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Pty};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Connections to boxes that one connection may be setting up at once. An SSH server drops some beyond ten.
const DIALS_AT_ONCE: usize = 6;

/// Keys that may be a certificate's and are asked to sign: each may come twice as a key and twice as a certificate's.
const PROBES_MAX: usize = 4 * crate::auth::OFFERS_MAX;

/// What is known about one connection, shared by its channels.
pub struct Connection {
    /// The gateway it belongs to.
    pub gateway: Arc<Gateway>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Ends it.
    pub closer: Closer,
    /// What is told of it.
    pub visit: Arc<Visit>,
    door: OnceLock<Handle>,
    tried: AtomicBool,
    handle: OnceLock<Handle>,
    who: OnceLock<(Account, String)>,
    holds: Mutex<BTreeMap<(UserId, BoxName), Weak<Hold>>>,
    own: Mutex<Option<Arc<Hold>>>,
    dials: Semaphore,
    channels: AtomicUsize,
    idle_since: Mutex<Instant>,
    permit: Mutex<Option<Permit>>,
    /// Whether what the user says piles up.
    pub pressure: Pressure,
    /// Ports and sockets in boxes that are forwarded to the user.
    pub forwards: Forwards,
}

/// Where a channel leads.
pub enum Destination {
    /// To a box.
    Box(Arc<Hold>),
    /// To the gateway's own commands.
    Lobby,
}

impl Connection {
    /// A connection that has not yet said who it is; `permit` counts it until then.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, peer: SocketAddr, closer: Closer, permit: Permit) -> Self {
        let visit = gateway.operator.visit(peer, closer.clone());
        Self {
            gateway,
            peer,
            closer,
            visit,
            door: OnceLock::new(),
            tried: AtomicBool::new(false),
            handle: OnceLock::new(),
            who: OnceLock::new(),
            holds: Mutex::default(),
            own: Mutex::default(),
            dials: Semaphore::new(DIALS_AT_ONCE),
            channels: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            permit: Mutex::new(Some(permit)),
            pressure: Pressure::default(),
            forwards: Forwards::default(),
        }
    }

    /// How to tell the client something before it has logged in.
    pub fn set_door(&self, handle: Handle) {
        // Only the first is kept; there is one per connection.
        let _ = self.door.set(handle);
    }

    /// Whether its user is known.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.handle.get().is_some()
    }

    /// The user's account.
    ///
    /// # Errors
    /// Before the login is complete.
    pub fn account(&self) -> Result<&Account, Refusal> {
        self.who.get().map(|(account, _)| account).ok_or_else(|| Refusal::new(ExitCode::Failed, "not logged in"))
    }

    /// The login name, as the client sent it.
    #[must_use]
    pub fn login(&self) -> &str {
        self.who.get().map_or("", |(_, login)| login)
    }

    /// The box, or the reserved word, that the login name names.
    #[must_use]
    pub fn named(&self) -> &str {
        login::split(self.login()).1
    }

    /// How long no channel has been open.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        if self.channels.load(Ordering::Acquire) > 0 { Duration::ZERO } else { lock(&self.idle_since).elapsed() }
    }

    /// The hold on the box `name` of this user: the one there is, or a new one.
    ///
    /// # Errors
    /// Before the login is complete.
    pub fn hold(&self, name: &BoxName) -> Result<Arc<Hold>, Refusal> {
        let owner = self.account()?.id.clone();
        self.hold_of(&owner, name, None)
    }

    /// Notes that its key logged in. Nobody waits for that, and it may be lost: the next login notes it.
    fn note_use(&self) {
        let (Ok(account), Some(key)) = (self.account(), self.visit.proven_key()) else { return };
        let now = SystemClock.now();
        if !account.use_is_to_be_noted(now) {
            return;
        }
        let who = KeyInUse { account: account.id.clone(), key: key.clone() };
        let accounts = self.gateway.accounts.clone();
        tokio::spawn(async move {
            if let Err(error) = accounts.note_use(&who, now).await {
                tracing::warn!(key = %who.key, error = %Report(&error), "use of a key not noted");
            }
        });
    }

    /// Lets go of everything. Called when the connection has ended.
    pub fn finish(&self) {
        self.closer.close();
        let permit = lock(&self.permit).take();
        if let Some(permit) = permit.filter(|_| self.tried.load(Ordering::Relaxed))
            && permit.failed(Instant::now())
        {
            tracing::warn!(address = %self.peer.ip(), "too many failed logins; the address is turned away for a while");
        }
        lock(&self.own).take();
        self.forwards.clear();
        self.gateway.operator.sessions.remove(self.visit.id);
        self.visit.finish();
    }

    /// The boxes it keeps up.
    #[must_use]
    pub fn boxes(&self) -> Vec<BoxName> {
        let holds = lock(&self.holds);
        holds.iter().filter(|(_, hold)| hold.strong_count() > 0).map(|((_, name), _)| name.clone()).collect()
    }

    /// The boxes of others that it keeps up, with whose they are.
    #[must_use]
    pub fn boxes_of_others(&self) -> Vec<(UserId, BoxName)> {
        let Ok(account) = self.account() else { return Vec::new() };
        let holds = lock(&self.holds);
        let used = holds.iter().filter(|((owner, _), hold)| *owner != account.id && hold.strong_count() > 0);
        used.map(|(key, _)| key.clone()).collect()
    }

    /// Tells the user why, and ends it. Nothing new begins on it meanwhile.
    pub fn dismiss(&self, ending: Ending, text: &'static str) {
        self.visit.ends(ending);
        let (handle, closer) = (self.handle.get().cloned(), self.closer.clone());
        tokio::spawn(crate::server::dismiss(handle, closer, text));
    }

    /// Where a channel leads that is to start `start`; `None` for a forward.
    ///
    /// # Errors
    /// When the store cannot be asked, or a box that is to be created on first connect cannot be.
    pub async fn destination(&self, start: Option<&Start>) -> Result<Destination, Refusal> {
        let owner = self.account()?.id.clone();
        let Ok(name) = login::box_name(self.named()) else { return Ok(Destination::Lobby) };
        if self.gateway.boxes.get(&owner, &name).await?.is_some() {
            return Ok(Destination::Box(self.hold(&name)?));
        }
        let wants_box = match start {
            Some(Start::Exec(command)) => !lobby::is_command(command) && !lobby::admin::is_command(self, command),
            Some(Start::Shell | Start::Subsystem(_)) => true,
            None => false,
        };
        if !(wants_box && self.gateway.settings.spinup_on_connect) {
            return Ok(Destination::Lobby);
        }
        match lobby::create_box(self, &name, None).await {
            // Two first connects at once: one creates, both connect.
            Err(refusal) if refusal.kind == "already_exists" => {}
            result => drop(result?),
        }
        Ok(Destination::Box(self.hold(&name)?))
    }

    /// Counts a channel until the guard is dropped; `None` when there are too many.
    fn channel(self: &Arc<Self>) -> Option<ChannelGuard> {
        if self.visit.is_ending() {
            return None;
        }
        let most = self.gateway.settings.max_channels;
        let counted = self
            .channels
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < most).then_some(open + 1))
            .is_ok();
        counted.then(|| ChannelGuard(Arc::clone(self)))
    }

    /// Runs `work` for a channel until it is done or the connection ends.
    fn spawn(self: &Arc<Self>, guard: ChannelGuard, work: impl Future<Output = ()> + Send + 'static) {
        let closer = self.closer.clone();
        let running = self.gateway.activity.begin();
        // A future that is moved into another one is in there twice.
        let work = Box::pin(work);
        tokio::spawn(async move {
            let (_guard, _running) = (guard, running);
            tokio::select! {
                () = work => {}
                () = closer.closed() => {}
            }
        });
    }
}

impl Bringer for Connection {
    fn hold_of(&self, owner: &UserId, name: &BoxName, distrust: Option<Epoch>) -> Result<Arc<Hold>, Refusal> {
        let user = &self.account()?.id;
        let key = (owner.clone(), name.clone());
        let mut holds = lock(&self.holds);
        if let Some(hold) = holds.get(&key).and_then(Weak::upgrade).filter(|hold| hold.is_usable()) {
            return Ok(hold);
        }
        let gateway = &self.gateway;
        let hold = Hold::take(
            Arc::clone(&gateway.boxes),
            key.clone(),
            (owner != user).then(|| user.clone()),
            gateway.settings.connect_limit,
            distrust,
            gateway.activity.begin(),
        );
        holds.insert(key, Arc::downgrade(&hold));
        let is_own = owner == user && self.named() == name.as_str();
        drop(holds);
        if is_own && !self.closer.is_closed() {
            *lock(&self.own) = Some(Arc::clone(&hold));
        }
        Ok(hold)
    }

    async fn dial(&self, endpoint: &Endpoint, openings: Openings) -> Result<Upstream, DialError> {
        let gone = || DialError::Unreachable("the user has left".into());
        let handle = self.handle.get().ok_or_else(gone)?.clone();
        let back = Back { handle, pressure: self.pressure.clone(), visit: Arc::clone(&self.visit) };
        let _permit = self.dials.acquire().await.map_err(|_| gone())?;
        let mut endpoint = endpoint.clone();
        if let (Some(inside), _) = login::split(self.login()) {
            inside.clone_into(&mut endpoint.login);
        }
        self.gateway.dialer.dial(&endpoint, Some(back), openings).await
    }
}

/// Counts one open channel.
pub struct ChannelGuard(Arc<Connection>);

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        *lock(&self.0.idle_since) = Instant::now();
        self.0.channels.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Answers the SSH library's questions about one connection. Everything here is awaited inside the connection's loop, so
/// what takes time is spawned; only requests for forwards, which the library wants answered at once, wait for the box.
///
/// The loop's future has room for the largest answer, twice, for as long as the connection lasts. So what is not small is boxed.
pub struct Visitor {
    connection: Arc<Connection>,
    offers: Offers,
    probes: usize,
    refused: Vec<String>,
}

impl Visitor {
    /// The visitor of `connection`.
    #[must_use]
    pub fn new(connection: Arc<Connection>) -> Self {
        Self { connection, offers: Offers::default(), probes: 0, refused: Vec::new() }
    }

    /// Decides about a key: on its offer, or later when it could have been a certificate's.
    async fn answer(&mut self, login: &str, key: &PublicKey, signed: bool) -> boxpool::Result<Answer> {
        let settings = &self.connection.gateway.settings;
        let id = KeyId::of(key);
        let found = self.connection.gateway.accounts.find(key).await;
        let worth = match found.inspect_err(|_| self.tell(key, Verdict::Unknown))? {
            Finding::Opens(account) if settings.registration.admits(&id, &account.id) => Worth::LogsIn,
            Finding::Unknown if settings.registration.may_register(&id, login) => Worth::Registers,
            Finding::Opens(_) | Finding::Unknown | Finding::Removed => Worth::Nothing,
        };
        if !signed && worth != Worth::LogsIn && self.may_be_certificate() {
            self.probes += 1;
            // Nothing is decided yet. A key that never signs is told as one that was not proven.
            self.tell(key, Verdict::Welcome);
            return Ok(if self.probes > PROBES_MAX { Answer::Refuse } else { Answer::Accept });
        }
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let again = starts_over(self.connection.closer.first_line());
        let answer = self.offers.answer(Offered { key: id, fingerprint, worth }, again);
        // A key that is worth nothing is told "go on", too, so the answer alone does not say how it did.
        let verdict = match (answer, worth) {
            (Answer::Refuse | Answer::Tell, _) | (_, Worth::Nothing) => Verdict::Refused,
            (Answer::Accept | Answer::GoOn, _) => Verdict::Welcome,
        };
        self.tell(key, verdict);
        Ok(answer)
    }

    /// Notes for the operator how an offered key did.
    fn tell(&self, key: &PublicKey, verdict: Verdict) {
        self.connection.visit.offered(key.fingerprint(HashAlg::Sha256).to_string(), verdict);
    }

    /// Whether an offered key may be a certificate's. The library shows the key alone until the client has signed, so each is
    /// decided about only then.
    fn may_be_certificate(&self) -> bool {
        !self.connection.gateway.settings.authorities.is_empty()
    }

    /// What the library is to make of an answer.
    async fn say(&self, answer: boxpool::Result<Answer>) -> Auth {
        let go_on = Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
            partial_success: true,
        };
        match answer {
            Ok(Answer::Accept) => Auth::Accept,
            Ok(Answer::Refuse) => Auth::reject(),
            Ok(Answer::GoOn) => go_on,
            Ok(Answer::Tell) => {
                let text = self.unknown(DISCONNECT_MAX);
                if let Some(door) = self.connection.door.get() {
                    let _ = door.disconnect(Disconnect::NoMoreAuthMethodsAvailable, text, String::new()).await;
                }
                // A client that was refused might leave before it reads the reason; one that is to go on reads it.
                go_on
            }
            Err(error) => {
                tracing::error!(peer = %self.connection.peer, error = %Report(&error), "keys cannot be looked up");
                Auth::reject()
            }
        }
    }

    fn unknown(&self, limit: usize) -> String {
        let fingerprints = self.offers.fingerprints();
        tracing::info!(peer = %self.connection.peer, offered = fingerprints.join(" "), "no key logs in");
        unknown_key::text(&self.connection.gateway.settings, fingerprints, &self.refused, limit)
    }

    /// Lets a key in that has just proven itself, if what was found on its offer still holds.
    async fn admit(&self, login: &str, key: &PublicKey) -> boxpool::Result<bool> {
        let gateway = &self.connection.gateway;
        let (registration, id) = (&gateway.settings.registration, KeyId::of(key));
        let account = match gateway.accounts.find(key).await? {
            Finding::Opens(account) if registration.admits(&id, &account.id) => account,
            Finding::Unknown if registration.may_register(&id, login) => gateway.accounts.ensure(key).await?,
            Finding::Opens(_) | Finding::Unknown | Finding::Removed => return Ok(false),
        };
        Ok(self.connection.who.set((account, login.to_owned())).is_ok())
    }

    async fn admit_certificate(&mut self, login: &str, certificate: &Certificate) -> boxpool::Result<bool> {
        let gateway = &self.connection.gateway;
        let (address, key) = (self.connection.peer.ip(), PublicKey::new(certificate.public_key().clone(), ""));
        match gateway.settings.authorities.check(certificate, address, SystemClock.now()) {
            Ok(certified) => {
                let ensured = gateway.accounts.ensure_certified(certified, &key).await;
                let account = ensured.inspect_err(|_| self.tell(&key, Verdict::Unknown))?;
                Ok(self.connection.who.set((account, login.to_owned())).is_ok())
            }
            Err(reason) => {
                tracing::info!(peer = %self.connection.peer, reason, "certificate refused");
                self.tell(&key, Verdict::Refused);
                if !self.refused.contains(&reason) {
                    self.refused.push(reason);
                }
                Ok(false)
            }
        }
    }

    /// Refuses a channel, but not before the user was told why the connection ends, if it does: a client that is refused its
    /// only channel leaves at once, without a reason.
    async fn turn_down(&self, reply: ChannelOpenHandle) {
        if self.connection.visit.is_ending() {
            let closer = self.connection.closer.clone();
            tokio::spawn(async move {
                closer.closed().await;
                drop(reply);
            });
        } else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
    }

    fn admitted(&self, result: boxpool::Result<bool>) -> Auth {
        match result {
            Ok(true) => Auth::Accept,
            Ok(false) => Auth::reject(),
            Err(error) => {
                tracing::error!(peer = %self.connection.peer, error = %Report(&error), "login failed");
                Auth::reject()
            }
        }
    }
}

impl Handler for Visitor {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        let banner = self.connection.gateway.settings.banner.trim_end();
        Ok((!banner.is_empty()).then(|| format!("{banner}\n")))
    }

    async fn auth_publickey_offered(&mut self, login: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        self.connection.tried.store(true, Ordering::Relaxed);
        if *offer.algorithm == (Algorithm::Rsa { hash: None }) {
            return Ok(Auth::reject()); // a signature with SHA-1 proves nothing
        }
        let answer = Box::pin(self.answer(login, offer.public_key, false)).await;
        Ok(Box::pin(self.say(answer)).await)
    }

    async fn auth_publickey(&mut self, login: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if self.may_be_certificate() {
            match Box::pin(self.answer(login, key.public_key, true)).await {
                Ok(Answer::Accept) => {}
                answer => return Ok(Box::pin(self.say(answer)).await),
            }
        }
        let admitted = Box::pin(self.admit(login, key.public_key)).await;
        match admitted {
            // Not for certificates: whoever signs them gives nobody the rights of a listed key.
            Ok(true) => self.connection.visit.proven(KeyId::of(key.public_key)),
            Ok(false) => self.tell(key.public_key, Verdict::Refused),
            Err(_) => self.tell(key.public_key, Verdict::Unknown),
        }
        Ok(self.admitted(admitted))
    }

    async fn auth_openssh_certificate(&mut self, login: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        let admitted = Box::pin(self.admit_certificate(login, certificate)).await;
        Ok(self.admitted(admitted))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        self.connection.tried.store(true, Ordering::Relaxed);
        if response.is_none() {
            let (name, prompts) = (Cow::Borrowed(""), Cow::Borrowed(&[][..]));
            return Ok(Auth::Partial { name, instructions: self.unknown(usize::MAX).into(), prompts });
        }
        Ok(Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
            partial_success: false,
        })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        let connection = &self.connection;
        let _ = connection.handle.set(session.handle());
        let permit = lock(&connection.permit).take();
        if let Some(permit) = permit {
            permit.succeeded();
        }
        if let Ok(account) = connection.account() {
            tracing::info!(
                peer = %connection.peer, account = %account.id, key = %account.fingerprint,
                login = %plain(connection.login()), "login"
            );
            let (id, key, login) = (account.id.clone(), account.fingerprint.clone(), connection.login().to_owned());
            connection.visit.logged_in(Identity { account: id.clone(), key, login });
            let gateway = &connection.gateway;
            // Who is to help when there is too much of something must be let in.
            let is_admin = connection.visit.proven_key().is_some_and(|key| gateway.operator.admins.has(key));
            let most = if is_admin { usize::MAX } else { gateway.settings.connections_per_user };
            if !gateway.operator.sessions.admit(&id, connection, most) {
                connection
                    .dismiss(Ending::TooMany, "you have as many connections as one user may have; close one first");
                return Ok(());
            }
            connection.note_use();
        }
        let connection = Arc::clone(connection);
        let closer = connection.closer.clone();
        tokio::spawn(async move {
            // Holds the box the login names, if there is one: it comes up while the client still opens its channel.
            tokio::select! {
                destination = connection.destination(None) => if let Err(refusal) = destination {
                    tracing::warn!(peer = %connection.peer, %refusal, "box not looked up");
                },
                () = closer.closed() => {}
            }
        });
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(guard) = self.connection.channel() else {
            self.turn_down(reply).await;
            return Ok(());
        };
        reply.accept().await;
        let work = channel::serve(Arc::clone(&self.connection), session.handle(), channel);
        self.connection.spawn(guard, work);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(guard) = self.connection.channel() else {
            self.turn_down(reply).await;
            return Ok(());
        };
        let target = crate::forward::Target::Tcp { host: host.to_owned(), port, from: from.to_owned(), from_port };
        let work = crate::forward::connect(Arc::clone(&self.connection), channel, reply, target);
        self.connection.spawn(guard, work);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(guard) = self.connection.channel() else {
            self.turn_down(reply).await;
            return Ok(());
        };
        let target = crate::forward::Target::Socket { path: path.to_owned() };
        let work = crate::forward::connect(Arc::clone(&self.connection), channel, reply, target);
        self.connection.spawn(guard, work);
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.connection.pressure.window()
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.connection.pressure.brake(data.len()).await;
        Ok(())
    }

    // These are answered here, where the library still knows whether the client wants an answer: it forgets that with the
    // next request, and a window may change size while the box comes up. The box's own answer comes too late. A terminal
    // it refuses is reported in words, a command that cannot be started by its exit status.
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

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn exec_request(&mut self, channel: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn tcpip_forward(&mut self, address: &str, port: &mut u32, _: &mut Session) -> Result<bool, Self::Error> {
        match Box::pin(crate::forward::listen_tcp(&self.connection, address, *port)).await {
            Ok(bound) => {
                *port = bound;
                Ok(true)
            }
            Err(refusal) => {
                tracing::info!(peer = %self.connection.peer, %refusal, "remote forward refused");
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(Box::pin(self.connection.forwards.cancel_tcp(address, port)).await)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Self::Error> {
        match Box::pin(crate::forward::listen_socket(&self.connection, path)).await {
            Ok(()) => Ok(true),
            Err(refusal) => {
                tracing::info!(peer = %self.connection.peer, %refusal, "remote forward refused");
                Ok(false)
            }
        }
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(Box::pin(self.connection.forwards.cancel_socket(path)).await)
    }
}
