//! Between a user's channel and a box.
//!
//! Both sides are always read ([`backlog`]), and bytes are handed on only when the other side has room
//! ([`ChannelWriteHalf::data_bytes`](russh::ChannelWriteHalf::data_bytes) waits for its window). Messages are handed on
//! in the order in which they came, by one task per channel, so an exit status never overtakes output.

pub mod backlog;
pub mod reach;
pub mod relay;
pub mod session;
