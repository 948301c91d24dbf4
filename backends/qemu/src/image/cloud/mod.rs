//! A distribution's cloud image as the userland of a guest.

mod modules;
mod partition;
