//! The multi-step changes of a box. Each is written as: record the intent, act, record the result. Every step can run
//! twice. If the process dies between two steps the record names the step, the node and the epoch, and another node
//! takes over with a higher epoch (`recover.rs`).

mod arrive;
mod change;
mod create;
mod delete;
mod grow;
mod keep;
mod leave;
mod place;
mod preattach;
mod recover;
mod rename;
mod retain;
mod share;
mod snapshot;
mod stop;
mod travel;
mod vacate;

pub(crate) use create::named;
pub(crate) use preattach::is_ready;
pub(crate) use snapshot::MARK;
pub(crate) use travel::{Guard, Travel};
