//! What is told of one connection: to the audit log, to the metrics, to administrators.

use crate::account::KeyId;
use crate::audit::{self, AuditLog, Line, Who};
use crate::closer::Closer;
use crate::lock::lock;
use crate::meter::{CHANNELS, CONNECT_SECONDS, LOGINS};
use crate::plain::plain;
use crate::tally::Tallies;
use boxpool::{BoxName, Clock, SystemClock, Timestamp, UserId};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Most offered keys that are told of a login that failed.
const OFFERED_MAX: usize = 40;

/// A connection's number at this gateway, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VisitId(pub u64);

impl fmt::Display for VisitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl VisitId {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('c').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse().ok().map(Self)
    }
}

/// Who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: UserId,
    /// The fingerprint of the key that logged in.
    pub key: String,
    /// The login name, as the client sent it.
    pub login: String,
}

/// Why a connection ended that its user did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing was open on it for too long.
    Idle,
    /// An administrator ended it.
    Kicked,
    /// The user had too many.
    TooMany,
    /// The gateway stops.
    Stopping,
    /// It did not log in in time.
    TooSlow,
    /// The key that it was made with was removed from the account.
    KeyRemoved,
    /// A box that it used as a guest is not shared with its account any more.
    ShareRemoved,
}

impl Ending {
    fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Kicked => "kicked",
            Self::TooMany => "too_many",
            Self::Stopping => "stopping",
            Self::TooSlow => "too_slow",
            Self::KeyRemoved => "key_removed",
            Self::ShareRemoved => "share_removed",
        }
    }
}

/// What happened to an offered key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be proven.
    Welcome,
    /// It may not log in.
    Refused,
    /// Nobody could say: the store did not answer.
    Unknown,
}

/// One connection, as it is told of.
pub struct Visit {
    /// Its number.
    pub id: VisitId,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// When it began.
    pub began_at: Timestamp,
    began: Instant,
    closer: Closer,
    audit: AuditLog,
    tallies: Arc<Tallies>,
    identity: OnceLock<Identity>,
    verified: OnceLock<KeyId>,
    offers: Mutex<Vec<(String, Verdict)>>,
    ending: OnceLock<Ending>,
    channels: AtomicU64,
    open: AtomicUsize,
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Visit {
    /// A connection from `peer` that has just come.
    #[must_use]
    pub fn new(id: VisitId, peer: SocketAddr, closer: Closer, audit: AuditLog, tallies: Arc<Tallies>) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            began_at: SystemClock.now(),
            began: Instant::now(),
            closer,
            audit,
            tallies,
            identity: OnceLock::new(),
            verified: OnceLock::new(),
            offers: Mutex::default(),
            ending: OnceLock::new(),
            channels: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        })
    }

    /// Notes an offered key.
    pub fn offered(&self, fingerprint: String, what: Verdict) {
        let mut offers = lock(&self.offers);
        offers.retain(|(known, _)| *known != fingerprint);
        if offers.len() < OFFERED_MAX {
            offers.push((fingerprint, what));
        }
    }

    /// Notes which key was proven.
    pub fn proven(&self, key: KeyId) {
        let _ = self.verified.set(key);
    }

    /// The key that was proven; none when a certificate logged in.
    #[must_use]
    pub fn proven_key(&self) -> Option<&KeyId> {
        self.verified.get()
    }

    /// Notes, and tells, that the login is complete.
    pub fn logged_in(&self, identity: Identity) {
        if self.identity.set(identity).is_ok() {
            metrics::counter!(LOGINS, "outcome" => "accepted").increment(1);
            self.tallies.logins.fetch_add(1, Ordering::Relaxed);
            let who = self.who();
            let took_ms = millis(self.began.elapsed());
            self.audit.write(Line::Login(audit::Login {
                outcome: "accepted",
                reason: None,
                who,
                offered: Vec::new(),
                took_ms,
            }));
        }
    }

    /// Who logged in.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }

    /// What the client says it is.
    #[must_use]
    pub fn client(&self) -> Option<String> {
        self.closer.first_line().map(|line| plain(line).into_owned())
    }

    /// Notes why the gateway ends it; the first reason counts.
    pub fn ends(&self, ending: Ending) {
        let _ = self.ending.set(ending);
    }

    /// Whether the gateway ends it.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.get().is_some()
    }

    /// Channels that are open.
    #[must_use]
    pub fn open_channels(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Bytes on the wire so far, in and out.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        self.closer.bytes()
    }

    /// How long it has been there.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// A channel that begins.
    #[must_use]
    pub fn channel(self: &Arc<Self>, kind: Kind) -> ChannelRecord {
        self.channels.fetch_add(1, Ordering::Relaxed);
        self.tallies.channels.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        let facts = Facts { kind, ..Facts::default() };
        ChannelRecord {
            visit: Arc::clone(self),
            began: Instant::now(),
            heard: AtomicU64::new(0),
            said: AtomicU64::new(0),
            facts: Mutex::new(facts),
        }
    }

    /// Tells the end: of a login that did not come about, or of the connection.
    pub fn finish(&self) {
        let who = self.who();
        let took_ms = millis(self.began.elapsed());
        let (bytes_in, bytes_out) = self.bytes();
        self.tallies.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.tallies.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        if self.identity.get().is_none() {
            let offers = std::mem::take(&mut *lock(&self.offers));
            let reason = refusal(self.ending.get().copied(), self.closer.first_line().is_some(), &offers);
            metrics::counter!(LOGINS, "outcome" => "refused").increment(1);
            self.tallies.refused.fetch_add(1, Ordering::Relaxed);
            let offered = offers.into_iter().map(|(fingerprint, _)| fingerprint).collect();
            return self.audit.write(Line::Login(audit::Login {
                outcome: "refused",
                reason: Some(reason),
                who,
                offered,
                took_ms,
            }));
        }
        self.audit.write(Line::Connection(audit::Connection {
            ended: self.ending.get().map_or("left", |ending| ending.word()),
            who,
            channels: self.channels.load(Ordering::Relaxed),
            bytes_in,
            bytes_out,
            took_ms,
        }));
    }

    fn who(&self) -> Who {
        let identity = self.identity.get();
        Who {
            connection: self.id.to_string(),
            peer: self.peer.to_string(),
            client: self.client(),
            account: identity.map(|identity| identity.account.to_string()),
            key: identity.map(|identity| identity.key.clone()),
            login: identity.map(|identity| plain(&identity.login).into_owned()),
        }
    }
}

/// Why a login did not come about, as one word.
fn refusal(ending: Option<Ending>, spoke: bool, offers: &[(String, Verdict)]) -> &'static str {
    let any = |what| offers.iter().any(|(_, of)| *of == what);
    match ending {
        Some(ending) => ending.word(),
        None if any(Verdict::Unknown) => "store_unavailable",
        None if any(Verdict::Welcome) => "not_proven",
        None if any(Verdict::Refused) => "not_allowed",
        None if spoke => "no_key",
        None => "silent",
    }
}

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Nothing was started in it.
    #[default]
    Nothing,
    /// A shell in a box.
    Shell,
    /// A command in a box.
    Command,
    /// A subsystem in a box.
    Subsystem,
    /// A command of the gateway.
    Gateway,
    /// A command for administrators.
    Admin,
    /// A connection from the user into a box.
    Forward,
    /// A connection from a box to the user.
    ReverseForward,
    /// A box asks the user's agent.
    Agent,
    /// A box opens the user's display.
    X11,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 10] = [
        Self::Nothing,
        Self::Shell,
        Self::Command,
        Self::Subsystem,
        Self::Gateway,
        Self::Admin,
        Self::Forward,
        Self::ReverseForward,
        Self::Agent,
        Self::X11,
    ];

    /// As one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Shell => "shell",
            Self::Command => "command",
            Self::Subsystem => "subsystem",
            Self::Gateway => "gateway",
            Self::Admin => "admin",
            Self::Forward => "forward",
            Self::ReverseForward => "reverse_forward",
            Self::Agent => "agent",
            Self::X11 => "x11",
        }
    }
}

/// Parts of the way to a box, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until the box can be dialled.
    Box,
    /// Until its SSH server has let the gateway in.
    Dial,
    /// Until it has started what was asked for.
    Start,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 3] = [Self::Box, Self::Dial, Self::Start];

    /// As one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Dial => "dial",
            Self::Start => "start",
        }
    }

    /// Notes how long it took since `began`, and says so.
    pub fn took_since(self, began: Instant) -> Duration {
        let took = began.elapsed();
        metrics::histogram!(CONNECT_SECONDS, "phase" => self.word()).record(took.as_secs_f64());
        took
    }
}

/// One channel, told of when this is dropped: however it ends, it is told.
pub struct ChannelRecord {
    visit: Arc<Visit>,
    began: Instant,
    heard: AtomicU64,
    said: AtomicU64,
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    kind: Kind,
    name: Option<BoxName>,
    what: Option<String>,
    exit_status: Option<u32>,
    exit_signal: Option<String>,
    reached: Option<Duration>,
}

impl ChannelRecord {
    /// The user sent so many bytes.
    pub fn heard(&self, bytes: usize) {
        self.heard.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The user was sent so many bytes.
    pub fn said(&self, bytes: usize) {
        self.said.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What it turns out to be for.
    pub fn is_for(&self, kind: Kind) {
        lock(&self.facts).kind = kind;
    }

    /// What exactly, where that may always be told.
    pub fn does(&self, what: &str) {
        lock(&self.facts).what = Some(plain(what).into_owned());
    }

    /// What exactly, where that may be private: told only when the log is to have it.
    pub fn does_private(&self, what: impl FnOnce() -> String) {
        if self.visit.audit.tells_commands() {
            self.does(&what());
        }
    }

    /// Which box it leads to.
    pub fn leads_to(&self, name: &BoxName) {
        lock(&self.facts).name = Some(name.clone());
    }

    /// The box has answered.
    pub fn reached(&self) {
        lock(&self.facts).reached = Some(self.began.elapsed());
    }

    /// The exit status that was passed on.
    pub fn exited(&self, status: u32) {
        lock(&self.facts).exit_status = Some(status);
    }

    /// The signal that was passed on.
    pub fn was_signalled(&self, signal: String) {
        lock(&self.facts).exit_signal = Some(plain(&signal).into_owned());
    }
}

impl Drop for ChannelRecord {
    fn drop(&mut self) {
        let facts = std::mem::take(&mut *lock(&self.facts));
        let visit = &self.visit;
        visit.open.fetch_sub(1, Ordering::Relaxed);
        metrics::counter!(CHANNELS, "kind" => facts.kind.word()).increment(1);
        visit.audit.write(Line::Channel(audit::Channel {
            kind: facts.kind.word(),
            who: visit.who(),
            name: facts.name.map(|name| name.to_string()),
            what: facts.what,
            bytes_in: self.heard.load(Ordering::Relaxed),
            bytes_out: self.said.load(Ordering::Relaxed),
            exit_status: facts.exit_status,
            exit_signal: facts.exit_signal,
            reached_ms: facts.reached.map(millis),
            took_ms: millis(self.began.elapsed()),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_did_not_come_about_has_one_reason() {
        let offers = |whats: &[Verdict]| whats.iter().map(|what| ("k".to_owned(), *what)).collect::<Vec<_>>();
        assert_eq!(refusal(Some(Ending::TooSlow), true, &[]), "too_slow");
        assert_eq!(refusal(None, false, &[]), "silent");
        assert_eq!(refusal(None, true, &[]), "no_key");
        assert_eq!(refusal(None, true, &offers(&[Verdict::Refused])), "not_allowed");
        assert_eq!(refusal(None, true, &offers(&[Verdict::Refused, Verdict::Welcome])), "not_proven");
        assert_eq!(refusal(None, true, &offers(&[Verdict::Unknown])), "store_unavailable");
    }

    #[test]
    fn a_connections_number_is_read_as_it_is_written() {
        assert_eq!(VisitId::parse(&VisitId(12).to_string()), Some(VisitId(12)));
        for text in ["", "c", "12", "c-1", "cafe", "c99999999999999999999999"] {
            assert_eq!(VisitId::parse(text), None, "{text}");
        }
    }
}
