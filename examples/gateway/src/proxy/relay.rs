//! Joins two plain channels: a forwarded connection, an agent, an X11 client.

use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};

/// Hands on bytes and ends of both directions until one side closes, then closes both.
///
/// An end of one direction leaves the other open: protocols with a half-close work.
pub async fn relay<A, B>(a: Channel<A>, b: Channel<B>)
where
    A: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
    B: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let ((mut a_read, a_write), (mut b_read, b_write)) = (a.split(), b.split());
    tokio::select! {
        () = one_way(&mut a_read, &b_write) => {}
        () = one_way(&mut b_read, &a_write) => {}
    }
    // A side that is gone already does not mind.
    let _ = a_write.close().await;
    let _ = b_write.close().await;
}

/// Returns when `from` is closed or `to` is gone.
async fn one_way<T>(from: &mut ChannelReadHalf, to: &ChannelWriteHalf<T>)
where
    T: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    while let Some(message) = from.wait().await {
        let sent = match message {
            ChannelMsg::Data { data } => to.data_bytes(data).await,
            ChannelMsg::Eof => to.eof().await,
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}
