//! An exhaustive small-scope model of boxpool's protocol: every order of steps, losses, crashes and late effects there
//! is, within bounds. The README of this crate says what is modelled and what is not.

mod action;
mod explore;
mod marks;
mod model;
mod properties;
mod rules;
mod scope;
mod state;
mod world;

pub use action::{Action, Fate, Line, What};
pub use explore::{Finding, Outcome, explore};
pub use marks::{Mark, Marks};
pub use model::Protocol;
pub use rules::Rules;
pub use scope::{Backend, Flaw, MAX_BOXES, MAX_INSTANCES, MAX_NODES, Planted, Scope};
