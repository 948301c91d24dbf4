//! A shell, a command or a subsystem in a box.
//!
//! ```text
//! requests gathered ──► box comes up (progress shown) ──► dialled, requests repeated ──► bytes both ways ──► end
//!        │                     │ input is kept, up to a bound                                    │
//!        └─ the user leaves ◄──┴──────────────────────── the user leaves: the box's side is closed ┘
//! ```
//! When the gateway dies here the user's connection breaks, the box's SSH server hangs the session up as it does for
//! any lost client, and the box is found again by the next connect.

use crate::connection::Connection;
use crate::exit::{ExitCode, Refusal};
use crate::hold::{Hold, HoldState};
use crate::upstream::{DialError, Openings, Upstream};
use crate::user::UserSide;
use boxpool::Endpoint;
use russh::client::Msg as BoxMsg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Input kept while the box comes up; a client that sends more waits.
const EARLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the box may take to answer an opened channel or a request.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long the box may take to close a channel its user has closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

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

/// Input that came before the box was ready.
#[derive(Default)]
struct Early {
    messages: VecDeque<ChannelMsg>,
    bytes: usize,
}

impl Early {
    fn push(&mut self, message: ChannelMsg) {
        self.bytes += 64; // what the message itself takes
        if let ChannelMsg::Data { data } = &message {
            self.bytes += data.len();
        }
        self.messages.push_back(message);
    }

    fn has_room(&self) -> bool {
        self.bytes < EARLY_BYTES_MAX
    }
}

/// A started session in a box.
struct Started {
    // Ends the connection to the box when dropped, so it lives as long as the session.
    _upstream: Upstream,
    output: Output,
    input: ChannelWriteHalf<BoxMsg>,
}

/// What the box says.
struct Output {
    /// What it said before it answered the start.
    early: VecDeque<ChannelMsg>,
    read: ChannelReadHalf,
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
    let mut early = Early::default();
    let coming = bring_up(connection, hold, user, &preamble, &start);
    tokio::pin!(coming);
    let started = loop {
        tokio::select! {
            started = &mut coming => break started,
            message = input.wait(), if early.has_room() => match message {
                None | Some(ChannelMsg::Close) => return user.close().await,
                // In a raw terminal the client sends the key itself; nobody else is there yet to receive it.
                Some(ChannelMsg::Data { data }) if preamble.pty.is_some() && data.contains(&0x03) => {
                    break Err(Refusal::new(ExitCode::Interrupted, "given up"));
                }
                Some(message) => early.push(message),
            },
        }
    };
    // The hold goes on in `_hold`: the box stays up while this session runs.
    let (mut started, _hold) = match started {
        Ok(started) => started,
        Err(refusal) => return refuse(user, &start, &refusal).await,
    };
    user.success().await;
    let leaving = tokio::select! {
        ended = to_user(&mut started.output, user) => return finish(user, ended).await,
        () = to_box(early.messages, input, &started.input) => started.input.close().await,
    };
    // The user closed the channel. The box gets a moment to end it properly.
    if leaving.is_ok() {
        let _ = tokio::time::timeout(CLOSE_LIMIT, to_user(&mut started.output, user)).await;
    }
    user.close().await;
}

/// Says why nothing was started. A subsystem's client expects a failed request, everybody else an exit code.
async fn refuse(user: &UserSide, start: &Start, refusal: &Refusal) {
    user.stderr_line(&format!("boxpool: {}", refusal.message)).await;
    if matches!(start, Start::Subsystem(_)) {
        user.failure().await;
        user.close().await;
    } else {
        user.success().await;
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
    let (upstream, hold) = reach(connection, hold, openings, shown).await?;
    let answered = tokio::time::timeout(ANSWER_LIMIT, begin(upstream, user, preamble, start)).await;
    let started = answered.map_err(|_| Refusal::new(ExitCode::Broken, "the box did not answer in time"))??;
    Ok((started, hold))
}

/// A connection to the box of `hold`; the returned hold is the one to keep.
///
/// A box whose SSH server does not answer is reported to the pool and asked for once more: its machine may have died,
/// and the pool then starts it again.
///
/// # Errors
/// Why the box cannot be had or reached.
pub async fn reach(
    connection: &Arc<Connection>,
    hold: Arc<Hold>,
    openings: Openings,
    shown: Option<&UserSide>,
) -> Result<(Upstream, Arc<Hold>), Refusal> {
    let endpoint = wait_for(&hold, shown).await?;
    let error = match connection.dial(&endpoint, openings.clone()).await {
        Ok(upstream) => return Ok((upstream, hold)),
        Err(error) => error,
    };
    tracing::warn!(box_name = %hold.name(), %error, "box not reached");
    if !matches!(error, DialError::Unreachable(_)) {
        return Err(Refusal::new(ExitCode::Failed, error.to_string()));
    }
    hold.mark_unreachable();
    let name = hold.name().clone();
    drop(hold);
    let hold = connection.hold(&name)?;
    let endpoint = wait_for(&hold, shown).await?;
    match connection.dial(&endpoint, openings).await {
        Ok(upstream) => Ok((upstream, hold)),
        Err(error) => Err(Refusal::new(ExitCode::Broken, error.to_string())),
    }
}

async fn wait_for(hold: &Arc<Hold>, shown: Option<&UserSide>) -> Result<Arc<Endpoint>, Refusal> {
    let Some(user) = shown else { return hold.endpoint().await };
    let mut state = hold.watch();
    loop {
        let seen = state.borrow_and_update().clone();
        match seen {
            HoldState::Coming(Some(sentence)) => user.stderr_line(&format!("boxpool: {sentence}")).await,
            HoldState::Coming(None) => {}
            HoldState::Ready(_) | HoldState::Failed(_) => return hold.endpoint().await,
        }
        if state.changed().await.is_err() {
            return hold.endpoint().await;
        }
    }
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
        Ok(Started { _upstream: upstream, output: Output { early: said, read }, input: write })
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
async fn to_user(output: &mut Output, user: &UserSide) -> Ended {
    let mut told = false;
    loop {
        let message = match output.early.pop_front() {
            Some(message) => message,
            None => match output.read.wait().await {
                Some(message) => message,
                None => return Ended::Broken { told },
            },
        };
        match message {
            ChannelMsg::Data { data } => user.stdout(data).await,
            ChannelMsg::ExtendedData { data, ext } => user.extended(ext, data).await,
            ChannelMsg::Eof => user.eof().await,
            ChannelMsg::ExitStatus { exit_status } => {
                told = true;
                user.exit_status(exit_status).await;
            }
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag } => {
                told = true;
                user.exit_signal(signal_name, core_dumped, error_message, lang_tag).await;
            }
            ChannelMsg::XonXoff { client_can_do } => user.xon_xoff(client_can_do).await,
            ChannelMsg::Close => return Ended::Closed,
            _ => {}
        }
    }
}

/// Hands everything the user says to the box, until the user closes the channel.
async fn to_box(mut early: VecDeque<ChannelMsg>, input: &mut ChannelReadHalf, to: &ChannelWriteHalf<BoxMsg>) {
    loop {
        let message = match early.pop_front() {
            Some(message) => Some(message),
            None => input.wait().await,
        };
        // A send fails when the connection to the box broke; the other direction notices that and ends the session.
        let _ = match message {
            Some(ChannelMsg::Data { data }) => to.data_bytes(data).await,
            Some(ChannelMsg::Eof) => to.eof().await,
            Some(ChannelMsg::Signal { signal }) => to.signal(signal).await,
            Some(ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height }) => {
                to.window_change(col_width, row_height, pix_width, pix_height).await
            }
            Some(ChannelMsg::Close) | None => return,
            Some(_) => Ok(()),
        };
    }
}
