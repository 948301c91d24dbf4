//! Most of the gateway's tests, in one program: each would be linked, and the gateway compiled into it, by itself otherwise. What changes
//! the limits or the signals of its process, or measures it, is a program of its own beside this folder.
#![allow(clippy::unwrap_used)] // a test may

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod audit;
mod identity;
mod leaving;
mod limits;
mod lobby;
mod monitor;
mod outside_input;
mod parking;
mod pool;
mod program;
mod proxy;
mod regions;
mod rolling;
mod schedule;
mod upgrade;
mod wake;
