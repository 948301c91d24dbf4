//! An exhaustive small-scope model of boxpool's protocol: every order of steps, losses, crashes and late effects there
//! is, within bounds. The README of this crate says what is modelled and what is not.

mod action;
mod explore;
mod marks;
mod model;
mod picture;
mod properties;
mod rules;
mod scope;
mod state;
mod way;
mod world;

pub use action::Line;
pub use explore::{Finding, Outcome, Plan, explore};
pub use marks::Mark;
pub use picture::{BoxPicture, InstancePicture, Picture};
pub use scope::{Backend, MAX_BOXES, MAX_INSTANCES, MAX_NODES, Planted, Scope};
pub use way::{Way, way_to};
