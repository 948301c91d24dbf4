//! Most of the tests of Azure's backends, in one program: each would be linked, and Azure's crates into it, by itself otherwise. What keeps the
//! emulator of Azure Tables busier than others can stand is a program of its own beside this folder.
#![allow(clippy::unwrap_used)]

#[path = "../azurite/mod.rs"]
mod azurite;
#[path = "../proxy/mod.rs"]
mod proxy;
#[path = "../stand_in/mod.rs"]
mod stand_in;
#[path = "../until/mod.rs"]
mod until;

mod arm;
mod cloud;
mod conformance_arm;
mod conformance_tables;
mod connections;
mod credentials;
mod faults_arm;
mod guard;
mod lost_answers;
mod processes_arm;
mod requests;
