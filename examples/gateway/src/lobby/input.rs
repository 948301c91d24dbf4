//! What a client sends to a command of the gateway on standard input: little, and soon.

use russh::{ChannelMsg, ChannelReadHalf};
use std::time::Duration;

/// Most bytes that are taken.
const INPUT_MAX: usize = 64 * 1024;

/// How long the client may take.
const INPUT_LIMIT: Duration = Duration::from_secs(60);

/// Standard input of a command. It is never printed: people send private keys by mistake.
pub enum Input {
    /// The command does not read it.
    Unread,
    /// All of it.
    All(Vec<u8>),
    /// It was too long.
    TooLong,
    /// It did not end in time.
    TooSlow,
    /// It is a terminal, which sends keys one by one and no end.
    Terminal,
}

/// Reads standard input to its end; `None` when the channel is closed.
pub async fn read(input: &mut ChannelReadHalf) -> Option<Input> {
    let mut all = Vec::new();
    let reading = async {
        loop {
            match input.wait().await {
                None | Some(ChannelMsg::Close) => return None,
                Some(ChannelMsg::Eof) => return Some(Input::All(std::mem::take(&mut all))),
                Some(ChannelMsg::Data { data }) => {
                    if all.len() + data.len() > INPUT_MAX {
                        return Some(Input::TooLong);
                    }
                    all.extend_from_slice(&data);
                }
                Some(_) => {}
            }
        }
    };
    tokio::time::timeout(INPUT_LIMIT, reading).await.unwrap_or(Some(Input::TooSlow))
}
