//! Joins two plain channels: a forwarded connection, an agent, an X11 client.

use super::backlog::{Backlog, Next, Pressure};
use crate::visit::ChannelRecord;
use russh::{Channel, ChannelId, ChannelMsg, ChannelWriteHalf};

/// Hands on bytes and ends of both directions until one side closes or `stop` completes, then closes both. Each channel
/// comes with the pressure of its connection; the first is the user's, and `record` tells of it.
///
/// An end of one direction leaves the other open: protocols with a half-close work.
pub async fn relay<A, B>(
    (a, a_pressure): (Channel<A>, Pressure),
    (b, b_pressure): (Channel<B>, Pressure),
    record: &ChannelRecord,
    stop: impl Future<Output = ()>,
) where
    A: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
    B: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let ((mut a_read, a_write), (mut b_read, b_write)) = (a.split(), b.split());
    let (from_a, from_b) = (Backlog::new(a_pressure), Backlog::new(b_pressure));
    // A side that has closed takes nothing more, so what it said last is all that is left to hand on.
    tokio::select! {
        () = one_way(&from_a, &b_write, |bytes| record.heard(bytes)) => {}
        () = one_way(&from_b, &a_write, |bytes| record.said(bytes)) => {}
        () = stop => {}
        () = async {
            tokio::join!(from_a.fill(&mut a_read, |_| {}), from_b.fill(&mut b_read, |_| {}));
            std::future::pending::<()>().await;
        } => {}
    }
    // A side that is gone already does not mind. One that is not must be told: OpenSSH waits for its channels to end.
    let _ = a_write.close().await;
    let _ = b_write.close().await;
}

/// Returns when everything said was handed on and nothing more comes, or when `to` is gone.
async fn one_way<T>(from: &Backlog, to: &ChannelWriteHalf<T>, count: impl Fn(usize))
where
    T: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    loop {
        let sent = match from.next().await {
            Next::Data(_, data) => {
                count(data.len());
                Box::pin(to.data_bytes(data)).await // as in `UserSide`
            }
            Next::Message(ChannelMsg::Eof) => Box::pin(to.eof()).await,
            Next::Message(_) => Ok(()),
            Next::Closed(_) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}
