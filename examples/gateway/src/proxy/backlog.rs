//! What one side has said and the other has not yet taken: bounded, and never in the way of anything else.
//!
//! The SSH library runs one loop per connection, and that loop stops while the queue of any channel is full: then no
//! other channel moves, nor does the other direction. Two such loops that wait for each other wait for ever, as in
//! `cat file | ssh box cat | less`. So here every channel is read at once, always, into a backlog.
//!
//! What bounds the backlog differs on the two legs, because the library does:
//! - *From the user.* The library refills a window when bytes arrive, up to a target that its handler may change at each
//!   refill. When a backlog grows past [`HIGH`], the [`Pressure`] of the connection makes that target [`TRICKLE`] bytes:
//!   the client spends the rest of its window and then sends two bytes at a time, which are answered slowly. When the
//!   backlog has been worked off, the next such packet opens the window again. So the loop of a user's connection never
//!   stops, and that is what keeps everything else moving. One backlog holds at most about [`HIGH`] and twice
//!   [`WINDOW`]. The target belongs to the connection: while one channel stands still, the others keep the window they
//!   have, and new ones get theirs, but one that sends more than that waits as well. The other direction is not affected.
//! - *From the box.* Here the target cannot be changed, so the loop of that one connection is held back while its backlog
//!   is high. That connection serves this channel only. What the user does meanwhile (a key, a signal, an end) is let
//!   through: each such thing lets a few more packets in, up to [`HARD`]; beyond that only reading helps.

use crate::lock::lock;
use bytes::{Bytes, BytesMut};
use russh::{ChannelMsg, ChannelReadHalf};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// The window a speaker is given.
pub const WINDOW: u32 = 2 * 1024 * 1024;

/// The window of a speaker that is to wait. Not less: at one byte the library would never ask for a new target.
pub const TRICKLE: u32 = 2;

/// A backlog above this makes its speaker wait.
pub const HIGH: usize = 1024 * 1024;

/// A backlog below this lets its speaker go on.
const LOW: usize = HIGH / 2;

/// How long a packet of a waiting speaker is left unanswered: a hundred such packets a second cost nothing, and a key
/// that is pressed meanwhile in another channel is not felt to be late.
const BRAKE: Duration = Duration::from_millis(10);

/// Pieces smaller than this are put together.
const SMALL: usize = 1024;

/// Largest piece that small ones are put together to.
const PIECE: usize = 32 * 1024;

/// Above this a box is held back whatever its user does.
pub const HARD: usize = 12 * 1024 * 1024;

/// How long one packet of a box is held back at a time, below [`HARD`].
const HOLD_BACK: Duration = Duration::from_secs(1);

/// How long it is above: only so that no wait is without a limit.
const HOLD_BACK_HARD: Duration = Duration::from_secs(600);

/// How many packets get in when the user does something: mostly one of the first is followed by what the user did.
const LET_IN: usize = 4;

/// Whether any backlog of a connection is high.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<Gauge>);

#[derive(Debug, Default)]
struct Gauge {
    /// How many backlogs are high.
    high: AtomicUsize,
    /// What all of them hold.
    bytes: AtomicUsize,
    /// How many packets may pass.
    let_in: AtomicUsize,
    eased: Notify,
}

impl Pressure {
    /// The window target of a user: what the library's `adjust_window` is to answer.
    #[must_use]
    pub fn window(&self) -> u32 {
        if self.is_high() { TRICKLE } else { WINDOW }
    }

    fn is_high(&self) -> bool {
        self.0.high.load(Ordering::Acquire) > 0
    }

    /// Slows a user's client that is to wait. Called with each packet's length inside the library's loop.
    pub async fn brake(&self, length: usize) {
        if self.is_high() && length <= TRICKLE as usize {
            tokio::time::sleep(BRAKE).await;
        }
    }

    /// Holds a box back. Called after each packet inside the library's loop.
    pub async fn hold_back(&self) {
        let pass = |left: usize| left.checked_sub(1);
        if !self.is_high() || self.0.let_in.fetch_update(Ordering::AcqRel, Ordering::Acquire, pass).is_ok() {
            return;
        }
        let hard = self.0.bytes.load(Ordering::Acquire) >= HARD;
        let limit = if hard { HOLD_BACK_HARD } else { HOLD_BACK };
        let _ = tokio::time::timeout(limit, self.0.eased.notified()).await;
    }

    /// Lets a few packets in, because the user did something that must get out on the same connection.
    pub fn hurry(&self) {
        if self.is_high() && self.0.bytes.load(Ordering::Acquire) < HARD {
            self.0.let_in.store(LET_IN, Ordering::Release);
            self.0.eased.notify_one();
        }
    }

    fn ease(&self) {
        if self.0.high.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.eased.notify_one();
        }
    }
}

/// What was said and not yet taken, in order.
#[derive(Debug)]
pub struct Backlog {
    state: Mutex<State>,
    changed: Notify,
    pressure: Pressure,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    bytes: usize,
    high: bool,
    closed: Option<Closed>,
}

#[derive(Debug)]
enum Item {
    /// Bytes of a stream: `None` is the main one.
    Bulk(Option<u32>, Bytes),
    /// Small pieces put together.
    Small(Option<u32>, BytesMut),
    Other(ChannelMsg),
}

/// How a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The speaker closed it.
    Properly,
    /// Its connection broke.
    Broken,
}

/// The next thing said.
#[derive(Debug)]
pub enum Next {
    /// Bytes of a stream: `None` is the main one.
    Data(Option<u32>, Bytes),
    /// Anything else.
    Message(ChannelMsg),
    /// Nothing more comes.
    Closed(Closed),
}

impl Backlog {
    /// An empty backlog on a connection with `pressure`.
    #[must_use]
    pub fn new(pressure: Pressure) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), pressure }
    }

    /// Reads `from` until it ends. `seen` looks at each message as it comes.
    pub async fn fill(&self, from: &mut ChannelReadHalf, mut seen: impl FnMut(&ChannelMsg)) -> Closed {
        let closed = loop {
            match from.wait().await {
                None => break Closed::Broken,
                Some(ChannelMsg::Close) => break Closed::Properly,
                Some(message) => {
                    seen(&message);
                    self.push(message);
                }
            }
        };
        lock(&self.state).closed = Some(closed);
        self.changed.notify_one();
        closed
    }

    /// Adds one message.
    pub fn push(&self, message: ChannelMsg) {
        let mut state = lock(&self.state);
        let (stream, data) = match message {
            ChannelMsg::Data { data } => (None, data),
            ChannelMsg::ExtendedData { data, ext } => (Some(ext), data),
            ChannelMsg::WindowAdjusted { .. } => return, // the library has acted on it
            other => {
                state.queue.push_back(Item::Other(other));
                drop(state);
                return self.changed.notify_one();
            }
        };
        state.bytes += data.len();
        self.pressure.0.bytes.fetch_add(data.len(), Ordering::AcqRel);
        match state.queue.back_mut() {
            Some(Item::Small(of, pieces)) if *of == stream && data.len() < SMALL && pieces.len() < PIECE => {
                pieces.extend_from_slice(&data);
            }
            _ if data.len() < SMALL => state.queue.push_back(Item::Small(stream, BytesMut::from(&data[..]))),
            _ => state.queue.push_back(Item::Bulk(stream, data)),
        }
        if state.bytes > HIGH && !state.high {
            state.high = true;
            self.pressure.0.high.fetch_add(1, Ordering::AcqRel);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Takes the next thing said; waits for it. For one taker at a time.
    pub async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    fn try_next(&self) -> Option<Next> {
        let mut state = lock(&self.state);
        let (stream, data) = match state.queue.pop_front() {
            Some(Item::Bulk(stream, data)) => (stream, data),
            Some(Item::Small(stream, pieces)) => (stream, pieces.freeze()),
            Some(Item::Other(message)) => return Some(Next::Message(message)),
            None => return state.closed.map(Next::Closed),
        };
        state.bytes -= data.len();
        self.pressure.0.bytes.fetch_sub(data.len(), Ordering::AcqRel);
        if state.high && state.bytes < LOW {
            state.high = false;
            self.pressure.ease();
        }
        Some(Next::Data(stream, data))
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        let state = lock(&self.state);
        self.pressure.0.bytes.fetch_sub(state.bytes, Ordering::AcqRel);
        if state.high {
            self.pressure.ease();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(bytes: &'static [u8]) -> ChannelMsg {
        ChannelMsg::Data { data: Bytes::from_static(bytes) }
    }

    #[tokio::test]
    async fn order_is_kept_and_small_pieces_are_put_together() {
        let backlog = Backlog::new(Pressure::default());
        backlog.push(data(b"a"));
        backlog.push(data(b"b"));
        backlog.push(ChannelMsg::ExtendedData { data: Bytes::from_static(b"e"), ext: 1 });
        backlog.push(data(b"c"));
        backlog.push(ChannelMsg::Eof);
        assert!(matches!(backlog.next().await, Next::Data(None, bytes) if &bytes[..] == b"ab"));
        assert!(matches!(backlog.next().await, Next::Data(Some(1), bytes) if &bytes[..] == b"e"));
        assert!(matches!(backlog.next().await, Next::Data(None, bytes) if &bytes[..] == b"c"));
        assert!(matches!(backlog.next().await, Next::Message(ChannelMsg::Eof)));
    }

    #[tokio::test]
    async fn a_high_backlog_closes_the_window_until_it_is_worked_off() {
        const PIECE: &[u8] = &[0; 64 * 1024];
        let pressure = Pressure::default();
        let backlog = Backlog::new(pressure.clone());
        for _ in 0..17 {
            backlog.push(data(PIECE));
        }
        assert_eq!(pressure.window(), TRICKLE);
        for _ in 0..8 {
            backlog.next().await;
        }
        assert_eq!(pressure.window(), TRICKLE, "not before it is low");
        for _ in 0..2 {
            backlog.next().await;
        }
        assert_eq!(pressure.window(), WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn a_box_is_held_back_until_its_backlog_is_low_or_its_user_does_something() {
        let pressure = Pressure::default();
        let backlog = Backlog::new(pressure.clone());
        pressure.hold_back().await; // not at all while it is low
        for _ in 0..40 {
            backlog.push(data(&[0; 64 * 1024]));
        }
        let waiting = |pressure: &Pressure| {
            let pressure = pressure.clone();
            async move { tokio::time::timeout(HOLD_BACK / 2, pressure.hold_back()).await.is_err() }
        };
        assert!(waiting(&pressure).await);
        pressure.hurry();
        assert!(!waiting(&pressure).await);
        drop(backlog);
        assert!(!waiting(&pressure).await);
    }

    #[tokio::test]
    async fn a_backlog_that_is_dropped_takes_its_pressure_along() {
        let pressure = Pressure::default();
        let backlog = Backlog::new(pressure.clone());
        for _ in 0..40 {
            backlog.push(data(&[0; 64 * 1024]));
        }
        drop(backlog);
        assert_eq!(pressure.window(), WINDOW);
    }
}
