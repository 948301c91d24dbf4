//! The pool's tests, in one program: each would be linked, and the pool compiled into it, by itself otherwise.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../world/mod.rs"]
mod world;

mod adopt;
mod answers;
mod conversations;
mod crashes;
mod determinism;
mod editions;
mod lives;
mod parking;
mod pause;
mod rename;
mod snapshots;
mod threads;
mod verbs;
