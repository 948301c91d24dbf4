//! A distribution's cloud image as the userland of a guest.

mod ext4;
mod fetch;
mod modules;
mod partition;
mod source;

pub use source::CloudImage;
