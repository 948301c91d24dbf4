//! A picture of a run: a page that needs nothing but itself.
//!
//! Lanes are gateways, and beneath them the instances, volumes and boxes that were acted on; bars are calls from request to
//! effect; red dots are faults, and a red line across everything is where an invariant was broken.

use crate::engine::Entry;
use serde::Serialize;

const PAGE: &str = include_str!("timeline.html");

/// What happened in a world, to be drawn.
#[derive(Debug, Clone, Serialize)]
pub struct Timeline {
    seed: u64,
    entries: Vec<Entry>,
}

impl Timeline {
    /// A picture of these entries.
    #[must_use]
    pub fn new(seed: u64, entries: Vec<Entry>) -> Self {
        Self { seed, entries }
    }

    /// The page, to be written to a file and opened in a browser.
    #[must_use]
    pub fn to_html(&self) -> String {
        // A seed is a number that JavaScript may not hold: it goes as text. `<` is written so that no text of a run can end
        // the script.
        let run = serde_json::json!({ "seed": self.seed.to_string(), "entries": self.entries });
        PAGE.replacen("/*RUN*/null", &run.to_string().replace('<', "\\u003c"), 1)
    }
}
