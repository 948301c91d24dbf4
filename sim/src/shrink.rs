//! Makes a failing history small: fewer faults, fewer events, fewer users, shorter times, until nothing more can be left out.
//!
//! Rates become a script first: the calls that were struck, each with its fate. Since luck is keyed, the rest of the history
//! keeps its luck when a part of it goes. What is left out is found by delta debugging (Zeller & Hildebrandt 2002): halves, then
//! quarters, down to single parts.

mod easier;

use crate::case::Case;
use crate::engine::Faults;
use crate::run::run;
use easier::easier;
use std::collections::BTreeSet;

/// What kind of violation it is: the part before the colon, as `I4`, `contract` or `at rest: I5`.
#[must_use]
pub fn kind_of(violation: &str) -> &str {
    const AT_REST: &str = "at rest: ";
    let begin = if violation.starts_with(AT_REST) { AT_REST.len() } else { 0 };
    let end = violation[begin..].find(':').map_or(violation.len(), |colon| begin + colon);
    &violation[..end]
}

/// Makes `case` smaller while `fails` holds, in at most `runs` runs. Returns `case` itself when it does not fail.
pub fn shrink(case: &Case, runs: usize, fails: impl FnMut(&Case) -> bool) -> Case {
    let mut shrinker = Shrinker { best: case.clone(), left: runs, tried: BTreeSet::new(), fails };
    if !(shrinker.fails)(case) {
        return case.clone();
    }
    shrinker.script_the_faults();
    loop {
        let before = shrinker.best.clone();
        shrinker.leave_out(|case| &mut case.script);
        shrinker.leave_out(|case| &mut case.events);
        shrinker.leave_out(|case| &mut case.ops);
        shrinker.simplify();
        if shrinker.best == before || shrinker.left == 0 {
            return shrinker.best;
        }
    }
}

/// [`shrink`]s a case that [`run`] finds wrong, keeping to the kind of its first violation.
#[must_use]
pub fn shrink_violation(case: &Case, runs: usize) -> Case {
    let violations = run(case).violations;
    let Some(kind) = violations.first().map(|first| kind_of(first).to_owned()) else { return case.clone() };
    shrink(case, runs, |smaller| run(smaller).violations.iter().any(|violation| kind_of(violation) == kind))
}

struct Shrinker<F> {
    best: Case,
    left: usize,
    /// Cases that did not fail, so that no round tries them again.
    tried: BTreeSet<String>,
    fails: F,
}

impl<F: FnMut(&Case) -> bool> Shrinker<F> {
    /// Takes the case over if it still fails.
    fn try_case(&mut self, case: Case) -> bool {
        if self.left == 0 || case == self.best {
            return false;
        }
        // A case is plain data; one that could not be written down would only be tried again.
        let name = serde_json::to_string(&case).unwrap_or_default();
        if !self.tried.insert(name) {
            return false;
        }
        self.left -= 1;
        let fails = (self.fails)(&case);
        if fails {
            self.best = case;
        }
        fails
    }

    fn script_the_faults(&mut self) {
        if self.best.faults == Faults::none() {
            return;
        }
        let mut scripted = self.best.clone();
        scripted.script = run(&self.best).struck;
        scripted.faults = Faults::none();
        self.try_case(scripted);
    }

    fn leave_out<T: Clone>(&mut self, list: impl Fn(&mut Case) -> &mut Vec<T>) {
        let mut size = list(&mut self.best).len();
        while size > 0 {
            let mut at = 0;
            while at < list(&mut self.best).len() {
                let mut smaller = self.best.clone();
                let items = list(&mut smaller);
                items.drain(at..(at + size).min(items.len()));
                if !self.try_case(smaller) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    /// Takes steps to easier cases until none of them fails any more.
    fn simplify(&mut self) {
        let (mut steps, mut at) = (easier(&self.best), 0);
        while at < steps.len() && self.left > 0 {
            if self.try_case(steps[at].clone()) {
                // The next steps are those from here; the ones before `at` come again in the next round.
                steps = easier(&self.best);
            } else {
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Happening, Profile, What};
    use crate::engine::Pace;

    #[test]
    fn what_does_not_matter_is_left_out() {
        // A failure that needs one delete and one crash of gateway 0, and nothing else.
        let fails = |case: &Case| {
            case.ops.iter().any(|op| op.what == What::Delete)
                && case.events.iter().any(|event| matches!(event.what, Happening::Crash { .. }))
        };
        let seed = (0..10_000).find(|seed| fails(&Case::random(*seed, Profile::Crashes))).unwrap();
        let small = shrink(&Case::random(seed, Profile::Crashes), 1_000, fails);
        assert_eq!((small.ops.len(), small.events.len(), small.gateways), (1, 1, 1), "{small:?}");
        assert_eq!(small.pace, Pace::Host);
    }

    #[test]
    fn rates_become_the_strikes_that_they_made() {
        let case =
            (0..).map(|seed| Case::random(seed, Profile::Calls)).find(|case| !run(case).struck.is_empty()).unwrap();
        let first = run(&case);
        let mut scripted = case.clone();
        scripted.script = first.struck.clone();
        scripted.faults = Faults::none();
        let again = run(&scripted);
        assert_eq!(again.struck, first.struck);
        assert_eq!(again.fingerprint, first.fingerprint, "the same calls are struck, so all goes the same way");
        let small = shrink(&case, 1_000, |case| !run(case).struck.is_empty());
        assert_eq!(small.script.len(), 1);
        assert!(small.ops.len() <= 3, "{small:?}");
    }

    #[test]
    fn a_sound_case_stays_as_it_is() {
        let case = Case::random(1, Profile::Calm);
        assert_eq!(shrink_violation(&case, 100), case);
    }
}
