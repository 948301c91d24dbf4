//! Look at every state of a scope, and tell what was found.

use crate::action::Line;
use crate::marks::Mark;
use crate::model::Protocol;
use crate::picture::Picture;
use crate::scope::Scope;
use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Model};
use std::fmt;
use std::time::{Duration, Instant};

/// A run that breaks a property: as short as any.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What it breaks.
    pub property: &'static str,
    /// Within which bounds.
    pub scope: Scope,
    /// Step by step.
    pub steps: Vec<Line>,
    /// The same in words.
    #[serde(skip)]
    pub words: Vec<String>,
    /// What is true at its end.
    pub end: Picture,
}

impl Finding {
    /// As JSON, for another program to replay.
    ///
    /// # Errors
    /// None that can happen: it is numbers and words.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

/// What an exploration brought.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// States looked at, again and again reached ones counted each time.
    pub states: usize,
    /// Different ones.
    pub unique: usize,
    /// The longest shortest way to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Whether there is nothing left to look at.
    pub complete: bool,
    /// The first broken property.
    pub finding: Option<Finding>,
    /// How often each thing was seen to happen.
    pub marks: Vec<(Mark, u64)>,
}

/// How to explore.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many threads look.
    pub threads: usize,
    /// After so long it stops.
    pub limit: Duration,
    /// Only properties whose names begin so; empty for all.
    pub only: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self { threads: 1, limit: Duration::from_secs(600), only: String::new() }
    }
}

/// Explores `scope` breadth first until it is done, a property is broken or the limit is over. `progress` is told now and
/// then how many states were seen, and how many of them were new.
pub fn explore(scope: &Scope, plan: &Plan, mut progress: impl FnMut(usize, usize)) -> Outcome {
    let begun = Instant::now();
    let limit = plan.limit;
    let checker = Protocol::new(scope.clone(), plan.only.clone())
        .checker()
        .threads(plan.threads)
        .timeout(limit)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs();
    while !checker.is_done() && begun.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(50));
        progress(checker.state_count(), checker.unique_state_count());
    }
    let checker = checker.join();
    let took = begun.elapsed();
    let finding = checker.discoveries().into_iter().next().map(|(property, path)| {
        let end = Picture::of(path.last_state(), scope);
        let actions = path.into_actions();
        Finding {
            end,
            property,
            scope: scope.clone(),
            steps: actions.iter().map(crate::action::Action::line).collect(),
            words: actions.iter().map(crate::action::Action::words).collect(),
        }
    });
    Outcome {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        complete: finding.is_none() && took < limit,
        finding,
        marks: Mark::ALL.iter().map(|mark| (*mark, checker.model().marks.count(*mark))).collect(),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.property)?;
        for (number, words) in self.words.iter().enumerate() {
            writeln!(f, "{:>3}. {words}", number + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (&self.finding, self.complete) {
            (Some(_), _) => "a property is broken",
            (None, true) => "all looked at, no property is broken",
            (None, false) => "stopped at the limit, no property was broken",
        };
        write!(
            f,
            "{how}: {} states, {} different, depth {}, {:.1} s",
            self.states,
            self.unique,
            self.depth,
            self.took.as_secs_f64()
        )
    }
}
