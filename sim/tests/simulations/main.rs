//! The simulator's tests, in one program: each would be linked, and the simulator compiled into it, by itself otherwise.
#![allow(clippy::unwrap_used)]

mod arm;
mod backends;
mod breakers;
mod cloud;
mod crashpoints;
mod faults;
mod histories;
mod memory_store;
mod outages;
mod planner;
mod regions;
mod rest;
mod shrink;
mod timeline;
mod worlds;
mod zones;
