//! A session channel from its opening: gathers what the client asks for, then leads it to a box or to the lobby.

use crate::connection::{Connection, Destination};
use crate::exit::Refusal;
use crate::lobby::input::Input;
use crate::lobby::{self, Reply};
use crate::proxy::reach::Bringer;
use crate::proxy::session::{self, Preamble, Start};
use crate::user::UserSide;
use crate::visit::Kind;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;

/// Serves one session channel to its end.
pub async fn serve(connection: Arc<Connection>, handle: Handle, channel: Channel<Msg>) {
    let (mut input, write) = channel.split();
    let user = UserSide::new(handle, write, connection.visit.channel(Kind::Nothing));
    let mut preamble = Preamble::default();
    let start = loop {
        match input.wait().await {
            None | Some(ChannelMsg::Close) => return user.close().await,
            Some(message) => {
                if let Some(start) = preamble.take(message) {
                    break start;
                }
            }
        }
    };
    user.set_terminal(preamble.pty.is_some());
    let hold = match connection.destination(Some(&start)).await {
        Ok(Destination::Box(hold)) => hold,
        Ok(Destination::Lobby) => {
            user.record.is_for(Kind::Gateway);
            let command = match &start {
                Start::Subsystem(_) => {
                    user.failure().await;
                    user.stderr_line(&format!("boxpool: {}", lobby::no_box(connection.named()).message)).await;
                    return user.close().await;
                }
                Start::Shell => None,
                Start::Exec(line) => Some(line.as_slice()),
            };
            lobby::tell(&connection, &user.record, command);
            // What a client sends to a command of the gateway is read, and mostly forgotten.
            let given = match command.filter(|line| lobby::reads_input(line)) {
                None => Input::Unread,
                Some(_) if preamble.pty.is_some() => Input::Terminal,
                Some(_) => match lobby::input::read(&mut input).await {
                    Some(given) => given,
                    None => return user.close().await,
                },
            };
            let (notes, noted) = watch::channel(String::new());
            let reply = tokio::select! {
                reply = Box::pin(lobby::run(&connection, command, given, &notes)) => reply,
                () = skip(&mut input) => return user.close().await,
                never = say_notes(&user, noted) => match never {},
            };
            match reply {
                Reply::Say { stdout, stderr, code } => {
                    let saying = async {
                        if let Some(text) = stdout {
                            user.print(&text).await;
                        }
                        if let Some(line) = stderr {
                            user.stderr_line(&line).await;
                        }
                        user.finish(code as u32).await;
                    };
                    tokio::select! {
                        () = saying => return,
                        () = skip(&mut input) => return user.close().await,
                    }
                }
                Reply::Connect { owner, name, command } => match connection.hold_of(&owner, &name, None) {
                    Ok(hold) => {
                        let start = command.map_or(Start::Shell, |command| Start::Exec(command.into_bytes()));
                        return session::run(&connection, hold, &user, &mut input, preamble, start).await;
                    }
                    Err(refusal) => return refuse(&user, &refusal).await,
                },
            }
        }
        Err(refusal) => return refuse(&user, &refusal).await,
    };
    session::run(&connection, hold, &user, &mut input, preamble, start).await;
}

/// Tells each note on standard error, if it is still the latest when there is room for it.
async fn say_notes(user: &UserSide, mut noted: watch::Receiver<String>) -> Infallible {
    while noted.changed().await.is_ok() {
        let note = noted.borrow_and_update().clone();
        user.stderr_line(&format!("boxpool: {note}")).await;
    }
    std::future::pending().await
}

/// Reads until the channel is closed.
async fn skip(input: &mut ChannelReadHalf) {
    while !matches!(input.wait().await, None | Some(ChannelMsg::Close)) {}
}

async fn refuse(user: &UserSide, refusal: &Refusal) {
    user.success().await;
    user.stderr_line(&format!("boxpool: {}", refusal.message)).await;
    user.finish(refusal.code as u32).await;
}
