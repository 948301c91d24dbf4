//! Joins a client's socket and a connection inside a box.

use crate::proxy::backlog::{Backlog, Closed, Next};
use crate::server::{TURN_AWAY_LIMIT, hear_out};
use crate::upstream::Upstream;
use crate::wake::answer::Outcome;
use crate::wake::record::Record;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelWriteHalf};
use std::future::pending;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Most bytes read of a client at once.
const PIECE: usize = 32 * 1024;

/// Hands on bytes and ends of both directions, as they come, until the box's side has closed, the client has left, or
/// nothing moved for `idle_limit`.
pub async fn stream(
    socket: TcpStream,
    upstream: &Upstream,
    channel: Channel<Msg>,
    record: &Record,
    idle_limit: Duration,
) -> Outcome {
    let (mut from_client, mut to_client) = socket.into_split();
    let (mut from_box, to_box) = channel.split();
    let backlog = Backlog::new(upstream.pressure.clone());
    let ended = tokio::select! {
        ended = down(&backlog, &mut to_client, record) => ended,
        ended = up(&mut from_client, &to_box, record) => ended,
        () = upstream.ended() => Outcome::Lost,
        () = record.idle(idle_limit) => Outcome::Idle,
        never = async { backlog.fill(&mut from_box, |_| {}).await; pending().await } => never,
    };
    let _ = to_box.close().await;
    if ended == Outcome::Served {
        let last = async {
            to_client.shutdown().await?;
            hear_out(&mut from_client).await
        };
        let _ = tokio::time::timeout(TURN_AWAY_LIMIT, last).await;
    }
    ended
}

async fn down(backlog: &Backlog, client: &mut OwnedWriteHalf, record: &Record) -> Outcome {
    loop {
        let sent = match backlog.next().await {
            Next::Data(None, data) => {
                record.said(data.len());
                client.write_all(&data).await
            }
            Next::Message(ChannelMsg::Eof) => client.shutdown().await,
            Next::Data(Some(_), _) | Next::Message(_) => Ok(()),
            Next::Closed(Closed::Properly) => return Outcome::Served,
            Next::Closed(Closed::Broken) => return Outcome::Lost,
        };
        if sent.is_err() {
            return Outcome::Left;
        }
    }
}

/// Does not return while the box may still answer.
async fn up(client: &mut OwnedReadHalf, to_box: &ChannelWriteHalf<Msg>, record: &Record) -> Outcome {
    let mut piece = vec![0; PIECE];
    loop {
        match client.read(&mut piece).await {
            Ok(0) => {
                let _ = to_box.eof().await;
                return pending().await;
            }
            Ok(read) => {
                if to_box.data_bytes(piece[..read].to_vec()).await.is_err() {
                    return pending().await; // the box's side has closed; what it said last is still handed on
                }
                record.heard(read);
            }
            Err(_) => return Outcome::Left,
        }
    }
}
