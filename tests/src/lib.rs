//! What the cross-crate tests share: a real gateway process, real users with real keys, the real OpenSSH client.

#![allow(clippy::unwrap_used)] // a test harness: what goes wrong here is the test's failure

mod gateway;
pub mod resource_manager;
mod user;

pub use gateway::{Gateway, Settings, State};
pub use user::{Answer, User};
