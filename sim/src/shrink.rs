//! Makes a failing history small: fewer faults, fewer events, fewer users, shorter times, until nothing more can be left out.
//!
//! Rates become a script first: the calls that were struck, each with its fate. Since luck is keyed, the rest of the history
//! keeps its luck when a part of it goes. What is left out is found by delta debugging (Zeller & Hildebrandt 2002): halves, then
//! quarters, down to single parts.

use crate::case::{Case, Happening, What};
use crate::engine::{Fate, Faults, Pace};
use crate::run::run;

/// What kind of violation it is: the part before the colon, as `I4` or `contract`.
#[must_use]
pub fn kind_of(violation: &str) -> &str {
    violation.split(':').next().unwrap_or(violation)
}

/// Makes `case` smaller while `fails` holds, in at most `runs` runs. Returns `case` itself when it does not fail.
pub fn shrink(case: &Case, runs: usize, fails: impl FnMut(&Case) -> bool) -> Case {
    let mut shrinker = Shrinker { best: case.clone(), left: runs, fails };
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
    fails: F,
}

impl<F: FnMut(&Case) -> bool> Shrinker<F> {
    /// Takes the case over if it still fails.
    fn try_case(&mut self, case: Case) -> bool {
        if self.left == 0 || case == self.best {
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

    fn simplify(&mut self) {
        self.change(|case| case.pace = Pace::Host);
        self.change(|case| case.jitter = 0);
        self.change(|case| case.pool.destroy = false);
        self.change(|case| case.pool.forgets_epochs = false);
        self.change(|case| case.pool.linger = 0);
        self.change(|case| case.pool.park_limit = 3_600_000);
        self.change(|case| case.pool.volumes_free = 0);
        self.change(|case| (case.pool.min_free, case.pool.max_free) = (0, 0));
        self.change(|case| case.pool.max_total = 1);
        self.change(|case| case.restart_after = 100);
        while self.best.gateways > 1 && self.change(drop_last_gateway) {}
        for index in 0..self.best.ops.len() {
            self.change(|case| case.ops[index].at = case.ops[index].at / 1_000 * 1_000);
            self.change(|case| {
                if let What::Visit { stay, rude, .. } = &mut case.ops[index].what {
                    (*stay, *rude) = (0, false);
                }
            });
            self.change(|case| case.ops[index].name = 1);
            self.change(|case| case.ops[index].user = 1);
        }
        for index in 0..self.best.script.len() {
            for gentler in gentler(self.best.script[index].fate) {
                self.change(|case| case.script[index].fate = gentler);
            }
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Case)) -> bool {
        let mut changed = self.best.clone();
        change(&mut changed);
        self.try_case(changed)
    }
}

fn drop_last_gateway(case: &mut Case) {
    case.gateways -= 1;
    let left = case.gateways;
    case.ops.iter_mut().for_each(|op| op.gateway %= left);
    for event in &mut case.events {
        match &mut event.what {
            Happening::Crash { gateway }
            | Happening::Pause { gateway, .. }
            | Happening::Partition { gateway, .. }
            | Happening::Clock { gateway, .. } => *gateway %= left,
            Happening::StoreOutage { .. }
            | Happening::KillInstance { .. }
            | Happening::Preempt { .. }
            | Happening::Reboot { .. }
            | Happening::KillGuest { .. }
            | Happening::HangGuest { .. }
            | Happening::Quota { .. } => {}
        }
    }
}

/// Fates that are easier to think about, the easiest last.
fn gentler(fate: Fate) -> Vec<Fate> {
    match fate {
        Fate::Late { by } | Fate::LateSilent { by } | Fate::Twice { by } if by > 1_000 => {
            vec![Fate::LoseAnswer, Fate::SwallowAnswer]
        }
        Fate::CrashLater { .. } => vec![Fate::CrashAfter, Fate::CrashBefore],
        Fate::SwallowAnswer => vec![Fate::LoseAnswer],
        Fate::SwallowCall => vec![Fate::LoseCall],
        Fate::Stall { by } if by > 2_000 => vec![Fate::Stall { by: by / 2 }],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Profile;

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
        let small = shrink(&case, 200, |case| !run(case).struck.is_empty());
        assert_eq!(small.script.len(), 1);
        assert!(small.ops.len() <= 1, "{small:?}");
    }

    #[test]
    fn a_sound_case_stays_as_it_is() {
        let case = Case::random(1, Profile::Calm);
        assert_eq!(shrink_violation(&case, 100), case);
    }
}
