//! Between a user's channel and a box.
//!
//! Nothing is buffered beyond what the windows of both sides allow: bytes are taken from one side only when the other
//! has room ([`ChannelWriteHalf::data_bytes`](russh::ChannelWriteHalf::data_bytes) waits for its window). Messages are
//! handed on in the order in which they came, by one task per channel, so an exit status never overtakes output.

pub mod relay;
pub mod session;
