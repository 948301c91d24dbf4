//! The only place that names the Azure crates: what they are used for, and what they must not be.
//!
//! They build requests, sign them, and know the models; they do not wait, retry or poll. `azure_mgmt_compute` 0.21
//! repeats a PUT where it should poll and never sees an operation fail, so its long-running builders are only ever
//! `send()`, and `crate::poll` waits. Retries are off: a write that is sent twice behind its caller's back turns a
//! success into "conflict". A test looks through this crate for both.

pub(crate) mod compute;
pub(crate) mod http;
pub(crate) mod tables;
pub(crate) mod tokens;
