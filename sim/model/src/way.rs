//! The shortest ways to interesting places of the sound model, for others to follow.

use crate::action::{Action, Line};
use crate::marks::Mark;
use crate::model::Protocol;
use crate::picture::Picture;
use crate::scope::Scope;
use serde::Serialize;
use stateright::Model;
use std::collections::HashSet;

/// A run of the model.
#[derive(Debug, Clone, Serialize)]
pub struct Way {
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

/// The shortest way on which that happens, if it happens within `limit` different states.
#[must_use]
pub fn way_to(scope: &Scope, mark: Mark, limit: usize) -> Option<Way> {
    let protocol = Protocol::new(scope.clone(), String::new());
    let mut seen = HashSet::new();
    // Each with the one that it was reached from, and how.
    let mut found: Vec<(_, usize, Option<Action>)> = Vec::new();
    for state in protocol.init_states() {
        seen.insert(state.clone());
        found.push((state, 0, None));
    }
    let mut at = 0;
    let mut actions = Vec::new();
    while at < found.len() && found.len() < limit {
        protocol.actions(&found[at].0, &mut actions);
        for action in actions.drain(..) {
            let before = protocol.marks.count(mark);
            let Some(next) = protocol.next_state(&found[at].0, action) else { continue };
            let end = (protocol.marks.count(mark) > before).then(|| Picture::of(&next, scope));
            if end.is_none() && !seen.insert(next.clone()) {
                continue;
            }
            found.push((next, at, Some(action)));
            if let Some(end) = end {
                let mut taken = Vec::new();
                let mut last = found.len() - 1;
                while let (_, from, Some(action)) = &found[last] {
                    taken.push(*action);
                    last = *from;
                }
                taken.reverse();
                return Some(Way {
                    scope: scope.clone(),
                    steps: taken.iter().map(Action::line).collect(),
                    words: taken.iter().map(Action::words).collect(),
                    end,
                });
            }
        }
        at += 1;
    }
    None
}
