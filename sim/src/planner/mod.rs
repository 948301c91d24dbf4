//! Compares ways to run a pool on a load, before anything is paid for: the real pool, in virtual time, for days or weeks of visits, with
//! what it costs and how long users wait.
//!
//! `boxpool-sim plan` is this with arguments; `docs/planning.md` shows how it is used. Policies are named by their settings
//! ([`Policy`]), loads are read from a file or made from a seed ([`Arrivals`]), and prices come from a file ([`PriceList`]).

mod arrivals;
mod equal;
mod interval;
mod luck;
mod plan;
mod plot;
mod policy;
mod prices;
mod run;
mod span;
mod table;

pub use arrivals::{Arrivals, ArrivalsError, FORMS, Habits, Trace, Visit};
pub use equal::Saving;
pub use interval::Interval;
pub use plan::{Plan, PlanError, Progress};
pub use plot::{PlotError, html, svg};
pub use policy::{Policy, PolicyError, USUAL, policies};
pub use prices::{PriceList, PricesError};
pub use run::{Bounds, Connect, Run, RunError, pool, run_policy};
pub use span::parse_span;
pub use table::{OfSeed, Percentile, Row, Table};
