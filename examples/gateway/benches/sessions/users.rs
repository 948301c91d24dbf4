//! The sessions: each with a key of their own, and some connections with a terminal and a shell.

use super::EACH;
use super::harness::light::{Trusting, log_in_with};
use super::harness::{milliseconds, quantile};
use futures::stream::{self, StreamExt};
use russh::client::{Handle, Msg};
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use russh::{Channel, ChannelMsg};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many log in at a time: below what the gateway allows from one address.
const AT_ONCE: usize = 32;
/// In so many a byte is sent and awaited, one after the other.
const ECHOES: usize = 500;
/// Nothing takes so long unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

struct Session {
    channel: Channel<Msg>,
    _connection: Arc<Handle<Trusting>>,
}

/// Does what it is told, until it is killed. Of the sessions of a user so many share a connection.
pub(crate) async fn serve(port: u16, shared_by: usize) {
    let mut sessions = Vec::new();
    // Waiting here keeps nobody up: connections are served by the runtime's own threads.
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let said = match line.split_once(' ') {
            Some(("in", most)) => log_in(port, shared_by, &mut sessions, most.parse().unwrap()).await,
            _ if line == "echo" => echo(&mut sessions).await,
            _ => echo_all(&mut sessions).await,
        };
        println!("{said}");
    }
}

/// Logs in until there are so many.
async fn log_in(port: u16, shared_by: usize, sessions: &mut Vec<Session>, most: usize) -> String {
    let began = Instant::now();
    let fewer = sessions.len();
    let firsts = (fewer..most).step_by(shared_by);
    let coming = firsts.map(|first| tokio::spawn(Session::open(port, first, shared_by.min(most - first))));
    let come: Vec<_> = stream::iter(coming).buffer_unordered(AT_ONCE).collect().await;
    sessions.extend(come.into_iter().filter_map(Result::ok).flatten());
    let (failed, took) = (most - sessions.len(), began.elapsed());
    format!("{} more sessions in {took:.1?}, one in {EACH} with a new box; {failed} failed", most - fewer)
}

/// A byte there and back in some of them, which are far from each other in time.
async fn echo(sessions: &mut [Session]) -> String {
    let step = (sessions.len() / ECHOES).max(1);
    let (mut taken, mut failed) = (Vec::new(), 0);
    for session in sessions.iter_mut().step_by(step) {
        match session.echo().await {
            Some(took) => taken.push(milliseconds(took)),
            None => failed += 1,
        }
    }
    let (median, slow) = (quantile(taken.clone(), 0.5), quantile(taken.clone(), 0.99));
    format!(
        "a byte there and back in {} of them: median {median:.2} ms, 99 of 100 {slow:.2} ms; {failed} failed",
        taken.len()
    )
}

/// A byte there and back in all of them.
async fn echo_all(sessions: &mut [Session]) -> String {
    let began = Instant::now();
    let all: Vec<_> = stream::iter(sessions.iter_mut()).map(Session::echo).buffer_unordered(AT_ONCE).collect().await;
    let failed = all.iter().filter(|took| took.is_none()).count();
    format!("a byte there and back in each of {}: {:.1?}; {failed} failed", all.len(), began.elapsed())
}

impl Session {
    /// The session of this number and those that follow, on one connection.
    async fn open(port: u16, first: usize, many: usize) -> Vec<Self> {
        tokio::time::timeout(LIMIT, async {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&((1 + first / EACH) as u64).to_be_bytes());
            let key = PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed)), "").unwrap();
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
            let connection = Arc::new(log_in_with(port, key, "dev1".to_owned()).await);
            let mut sessions = Vec::with_capacity(many);
            for _ in 0..many {
                let channel = connection.channel_open_session().await.unwrap();
                channel.request_pty(true, "xterm-256color", 80, 24, 0, 0, &[]).await.unwrap();
                channel.request_shell(true).await.unwrap();
                let mut session = Self { channel, _connection: Arc::clone(&connection) };
                session.echo().await.unwrap();
                sessions.push(session);
            }
            sessions
        })
        .await
        .unwrap()
    }

    /// How long a byte takes there and back; what is shown while a box comes up is read as well.
    async fn echo(&mut self) -> Option<Duration> {
        const BYTE: &[u8] = b"\x07";
        let began = Instant::now();
        self.channel.data_bytes(BYTE).await.ok()?;
        let answered = async {
            loop {
                match self.channel.wait().await? {
                    ChannelMsg::Data { data } if data.ends_with(BYTE) => return Some(began.elapsed()),
                    ChannelMsg::Close | ChannelMsg::Eof | ChannelMsg::Failure => return None,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(LIMIT, answered).await.ok()?
    }
}
