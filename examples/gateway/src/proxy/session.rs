//! A shell, a command or a subsystem in a box.
//!
//! ```text
//! requests gathered ──► box comes up (progress shown) ──► dialled, requests repeated ──► bytes both ways ──► end
//!        │                     │ input is kept                                               │
//!        └─ the user leaves ◄──┴──────────────────────── the user leaves: the box's side is closed ┘
//! ```
//! When the gateway dies here the user's connection breaks, the box's SSH server hangs the session up as it does for
//! any lost client, and the box is found again by the next connect.

use crate::connection::Connection;
use crate::exit::{ExitCode, Refusal};
use crate::hold::Hold;
use crate::proxy::backlog::{Backlog, Closed, Next, Pressure};
use crate::proxy::reach::reach_timed;
use crate::upstream::{Openings, Upstream};
use crate::user::UserSide;
use crate::visit::{Kind, Phase};
use russh::client::Msg as BoxMsg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long an end of output waits for the exit status that mostly follows at once.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// How long the box may take to answer an opened channel or a request.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long the box may take to read what a user sent before leaving.
const TAKE_LIMIT: Duration = Duration::from_secs(30);

/// How long the box may take to close a channel its user has closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Input up to this length is what a person types: it gets out even while output is held back.
const KEYS: usize = 256;

/// Most environment variables taken from a user.
const ENV_MAX: usize = 256;

/// What a user asked for before starting.
#[derive(Debug, Default)]
pub struct Preamble {
    /// The terminal.
    pub pty: Option<Terminal>,
    /// The environment, in order.
    pub env: Vec<(String, String)>,
    /// Agent forwarding.
    pub agent: bool,
    /// X11 forwarding.
    pub x11: Option<X11>,
}

/// A terminal request.
#[derive(Debug, Clone)]
pub struct Terminal {
    term: String,
    size: [u32; 4],
    modes: Vec<(Pty, u32)>,
}

/// An X11 request.
#[derive(Clone)]
pub struct X11 {
    single: bool,
    protocol: String,
    cookie: String,
    screen: u32,
}

impl std::fmt::Debug for X11 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("X11 { cookie: *** }")
    }
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The login shell.
    Shell,
    /// A command line, as bytes: it need not be UTF-8.
    Exec(Vec<u8>),
    /// A subsystem, such as `sftp`.
    Subsystem(String),
}

impl Start {
    fn word(&self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Exec(_) => "command",
            Self::Subsystem(_) => "subsystem",
        }
    }

    /// Tells what is started, a command only where the log is to have it.
    fn tell(&self, user: &UserSide) {
        match self {
            Self::Shell => user.record.is_for(Kind::Shell),
            Self::Exec(command) => {
                user.record.is_for(Kind::Command);
                user.record.does_private(|| String::from_utf8_lossy(command).into_owned());
            }
            Self::Subsystem(name) => {
                user.record.is_for(Kind::Subsystem);
                user.record.does(name);
            }
        }
    }
}

impl Preamble {
    /// Takes one request; `Some` when it starts something.
    pub fn take(&mut self, message: ChannelMsg) -> Option<Start> {
        match message {
            ChannelMsg::RequestPty { term, col_width, row_height, pix_width, pix_height, terminal_modes, .. } => {
                let size = [col_width, row_height, pix_width, pix_height];
                self.pty = Some(Terminal { term, size, modes: terminal_modes });
            }
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                if let Some(pty) = &mut self.pty {
                    pty.size = [col_width, row_height, pix_width, pix_height];
                }
            }
            ChannelMsg::SetEnv { variable_name, variable_value, .. } if self.env.len() < ENV_MAX => {
                self.env.push((variable_name, variable_value));
            }
            ChannelMsg::AgentForward { .. } => self.agent = true,
            ChannelMsg::RequestX11 {
                single_connection,
                x11_authentication_protocol,
                x11_authentication_cookie,
                x11_screen_number,
                ..
            } => {
                self.x11 = Some(X11 {
                    single: single_connection,
                    protocol: x11_authentication_protocol,
                    cookie: x11_authentication_cookie,
                    screen: x11_screen_number,
                });
            }
            ChannelMsg::RequestShell { .. } => return Some(Start::Shell),
            ChannelMsg::Exec { command, .. } => return Some(Start::Exec(command)),
            ChannelMsg::RequestSubsystem { name, .. } => return Some(Start::Subsystem(name)),
            _ => {}
        }
        None
    }
}

/// A started session in a box.
struct Started {
    // Ends the connection to the box when dropped, so it lives as long as the session.
    upstream: Upstream,
    read: ChannelReadHalf,
    input: ChannelWriteHalf<BoxMsg>,
    /// What the box said before it answered the start.
    said: VecDeque<ChannelMsg>,
}

/// Runs `start` in the box and hands everything to and fro until it ends.
pub async fn run(
    connection: &Arc<Connection>,
    hold: Arc<Hold>,
    user: &UserSide,
    input: &mut ChannelReadHalf,
    preamble: Preamble,
    start: Start,
) {
    start.tell(user);
    user.record.leads_to(hold.name());
    let typed = Backlog::new(connection.pressure.clone());
    let facts = Facts::default();
    let terminal = preamble.pty.is_some();
    let reading = typed.fill(input, |message| {
        facts.notice(message, terminal);
        if let ChannelMsg::Data { data } = message {
            user.record.heard(data.len());
        }
    });
    let serving = serve(connection, hold, user, &typed, &facts, &preamble, &start);
    tokio::pin!(reading, serving);
    tokio::select! {
        () = &mut serving => return,
        _ = &mut reading => {}
    }
    // The user has closed the channel; nobody can be told anything any more.
    facts.left.notify_one();
    serving.await;
}

/// What is seen of the user's messages as they come, before they are handed on.
#[derive(Default)]
struct Facts {
    interrupted: Notify,
    input_ended: AtomicBool,
    left: Notify,
}

impl Facts {
    fn notice(&self, message: &ChannelMsg, terminal: bool) {
        match message {
            // In a raw terminal the client sends the key itself.
            ChannelMsg::Data { data } if terminal && data.contains(&0x03) => self.interrupted.notify_one(),
            ChannelMsg::Eof => self.input_ended.store(true, Ordering::Release),
            _ => {}
        }
    }
}

async fn serve(
    connection: &Arc<Connection>,
    hold: Arc<Hold>,
    user: &UserSide,
    typed: &Backlog,
    facts: &Facts,
    preamble: &Preamble,
    start: &Start,
) {
    let started = tokio::select! {
        // Boxed, since a session is idle long after: it is not to keep the room that this took.
        started = Box::pin(bring_up(connection, hold, user, preamble, start)) => started,
        // Nobody else is there yet to receive the key.
        () = facts.interrupted.notified() => Err(Refusal::new(ExitCode::Interrupted, "given up")),
        () = facts.left.notified() => return user.close().await,
    };
    // The box stays up while this hold is kept, which is until this session has ended.
    let (mut started, hold) = match started {
        Ok(started) => started,
        Err(refusal) => return refuse(user, start, &refusal).await,
    };
    tracing::info!(peer = %connection.peer, box_name = %hold.name(), start = start.word(), "session began");
    user.record.reached();
    if matches!(start, Start::Subsystem(_)) {
        user.success().await; // the others were answered when they came
    }
    let said = Backlog::new(started.upstream.pressure.clone());
    for message in started.said.drain(..) {
        said.push(message);
    }
    let reading = async {
        said.fill(&mut started.read, |_| {}).await;
        std::future::pending::<()>().await; // the end is handed on behind everything said before
    };
    let handing = async {
        let to_user = to_user(&said, user, facts);
        tokio::pin!(to_user);
        // Once the user has closed the channel, what they sent before gets some time to be taken.
        let leaving = async {
            facts.left.notified().await;
            tokio::time::sleep(TAKE_LIMIT).await;
        };
        tokio::select! {
            ended = &mut to_user => return finish(user, ended).await,
            () = to_box(typed, &started.input, &started.upstream.pressure) => {}
            () = leaving => {}
        }
        if Box::pin(started.input.close()).await.is_ok() {
            let _ = tokio::time::timeout(CLOSE_LIMIT, &mut to_user).await;
        }
        user.close().await;
    };
    tokio::select! {
        () = reading => {}
        () = handing => {}
    }
    tracing::info!(peer = %connection.peer, box_name = %hold.name(), start = start.word(), "session ended");
}

/// Says why nothing was started. A subsystem's client expects a failed request, everybody else an exit code.
async fn refuse(user: &UserSide, start: &Start, refusal: &Refusal) {
    user.stderr_line(&format!("boxpool: {}", refusal.message)).await;
    if matches!(start, Start::Subsystem(_)) {
        user.failure().await;
        user.close().await;
    } else {
        user.finish(refusal.code as u32).await;
    }
}

/// Waits for the box, dials it and repeats the user's requests there. Every wait inside has a limit.
async fn bring_up(
    connection: &Arc<Connection>,
    hold: Arc<Hold>,
    user: &UserSide,
    preamble: &Preamble,
    start: &Start,
) -> Result<(Started, Arc<Hold>), Refusal> {
    let shown = preamble.pty.is_some().then_some(user);
    let openings = Openings { agent: preamble.agent, x11: preamble.x11.is_some(), forwarded: false };
    let (upstream, hold, [up, dialled]) = reach_timed(connection.as_ref(), hold, openings, shown).await?;
    let began = Instant::now();
    let answered = tokio::time::timeout(ANSWER_LIMIT, begin(upstream, user, preamble, start)).await;
    let started = answered.map_err(|_| Refusal::new(ExitCode::Broken, "the box did not answer in time"))??;
    let took = [up, dialled, Phase::Start.took_since(began)];
    connection.gateway.latest.note(hold.owner(), hold.name(), took);
    Ok((started, hold))
}

async fn begin(upstream: Upstream, user: &UserSide, preamble: &Preamble, start: &Start) -> Result<Started, Refusal> {
    let lost = |_| Refusal::new(ExitCode::Broken, "the connection to the box was lost");
    let channel = upstream
        .handle
        .channel_open_session()
        .await
        .map_err(|error| Refusal::new(ExitCode::Broken, format!("the box does not open a session: {error}")))?;
    let (mut read, write) = channel.split();
    let mut said = VecDeque::new();
    if preamble.agent {
        write.agent_forward(false).await.map_err(lost)?;
    }
    if let Some(x11) = &preamble.x11 {
        let (protocol, cookie) = (x11.protocol.as_str(), x11.cookie.as_str());
        write.request_x11(false, x11.single, protocol, cookie, x11.screen).await.map_err(lost)?;
    }
    for (name, value) in &preamble.env {
        write.set_env(false, name.as_str(), value.as_str()).await.map_err(lost)?;
    }
    if let Some(pty) = &preamble.pty {
        let [columns, rows, width, height] = pty.size;
        write.request_pty(true, &pty.term, columns, rows, width, height, &pty.modes).await.map_err(lost)?;
        if !answer(&mut read, &mut said).await? {
            user.stderr_line("boxpool: the box gives no terminal").await;
        }
    }
    match start {
        Start::Shell => write.request_shell(true).await,
        Start::Exec(command) => write.exec(true, command.as_slice()).await,
        Start::Subsystem(name) => write.request_subsystem(true, name.as_str()).await,
    }
    .map_err(lost)?;
    if answer(&mut read, &mut said).await? {
        Ok(Started { upstream, read, input: write, said })
    } else {
        Err(Refusal::new(ExitCode::Failed, "the box refused to start it"))
    }
}

/// The box's answer to a request; whatever else it says meanwhile is kept in order.
async fn answer(read: &mut ChannelReadHalf, said: &mut VecDeque<ChannelMsg>) -> Result<bool, Refusal> {
    loop {
        match read.wait().await {
            Some(ChannelMsg::Success) => return Ok(true),
            Some(ChannelMsg::Failure) => return Ok(false),
            Some(ChannelMsg::Close) | None => {
                return Err(Refusal::new(ExitCode::Broken, "the connection to the box was lost"));
            }
            Some(message) => said.push_back(message),
        }
    }
}

/// How the box's side ended.
enum Ended {
    /// The box closed the channel.
    Closed,
    /// The connection to the box broke. `told`: the exit status had come by then.
    Broken { told: bool },
}

async fn finish(user: &UserSide, ended: Ended) {
    match ended {
        Ended::Closed | Ended::Broken { told: true } => user.close().await,
        Ended::Broken { told: false } => {
            user.stderr_line("boxpool: the connection to the box was lost; connect again to go on").await;
            user.finish(ExitCode::Broken as u32).await;
        }
    }
}

/// Hands everything the box says to the user, in order.
///
/// An end of output is held back until the exit status has been told: a client that has ended its input as well closes
/// the channel as soon as it sees that end, and what it is told after that is lost.
async fn to_user(said: &Backlog, user: &UserSide, facts: &Facts) -> Ended {
    let (mut told, mut held) = (false, false);
    loop {
        let next = if held && !facts.input_ended.load(Ordering::Acquire) {
            match tokio::time::timeout(STATUS_LIMIT, said.next()).await {
                Ok(next) => next,
                Err(_) => {
                    // The program runs on without output, and its user may wait for just this end.
                    user.eof().await;
                    held = false;
                    continue;
                }
            }
        } else {
            said.next().await
        };
        match next {
            Next::Data(None, data) => user.stdout(data).await,
            Next::Data(Some(stream), data) => user.extended(stream, data).await,
            Next::Message(ChannelMsg::Eof) => held = true,
            Next::Message(ChannelMsg::ExitStatus { exit_status }) => {
                told = true;
                user.exit_status(exit_status).await;
            }
            Next::Message(ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag }) => {
                told = true;
                user.exit_signal(signal_name, core_dumped, error_message, lang_tag).await;
            }
            Next::Message(ChannelMsg::XonXoff { client_can_do }) => user.xon_xoff(client_can_do).await,
            Next::Message(_) => {}
            Next::Closed(closed) => {
                if held && (told || closed == Closed::Properly) {
                    user.eof().await;
                }
                return match closed {
                    Closed::Properly => Ended::Closed,
                    Closed::Broken => Ended::Broken { told },
                };
            }
        }
        if held && told {
            user.eof().await;
            held = false;
        }
    }
}

/// Hands everything the user says to the box, until the user closes the channel.
async fn to_box(typed: &Backlog, to: &ChannelWriteHalf<BoxMsg>, pressure: &Pressure) {
    loop {
        let next = typed.next().await;
        if !matches!(&next, Next::Data(_, data) if data.len() > KEYS) {
            pressure.hurry();
        }
        if matches!(next, Next::Closed(_)) {
            return;
        }
        // Boxed, as what goes to the user is. A send fails when the connection to the box broke; the other direction notices that and
        // ends the session.
        let _ = Box::pin(async {
            match next {
                Next::Data(None, data) => to.data_bytes(data).await,
                Next::Message(ChannelMsg::Eof) => to.eof().await,
                Next::Message(ChannelMsg::Signal { signal }) => to.signal(signal).await,
                Next::Message(ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height }) => {
                    to.window_change(col_width, row_height, pix_width, pix_height).await
                }
                Next::Data(Some(_), _) | Next::Message(_) | Next::Closed(_) => Ok(()),
            }
        })
        .await;
    }
}
