//! The scopes that are looked at to the last state in every run of the tests.

use boxpool_model::{Backend, Mark, Outcome, Plan, Scope, explore};

fn all_of(scope: &Scope) -> Outcome {
    let outcome = explore(scope, &Plan::default(), |_, _| {});
    println!("{outcome}\n  {scope:?}");
    if let Some(finding) = &outcome.finding {
        panic!("{finding}");
    }
    assert!(outcome.complete, "not all states were looked at: {outcome}");
    outcome
}

/// Everything named in [`Mark`] happens somewhere in these, or they would prove nothing.
#[test]
fn no_order_of_steps_losses_and_deaths_breaks_a_promise() {
    let one = Scope::one_box;
    let two = Scope::two_boxes;
    let scopes = [
        Scope { epochs: 4, ..one() },
        Scope { losses: 2, epochs: 3, deletes: false, ..one() },
        Scope { breakdowns: 1, epochs: 3, makes: 1, stale_index: true, deletes: false, ..one() },
        Scope { backend: Backend::Cloud, epochs: 4, deletes: false, ..one() },
        two(),
        Scope { instances: 2, losses: 0, crashes: 0, ..two() },
        Scope { losses: 0, epochs: 4, stale_index: true, ..two() },
    ];
    let mut seen: Vec<(Mark, u64)> = Mark::ALL.iter().map(|mark| (*mark, 0)).collect();
    for scope in &scopes {
        for (sum, (_, count)) in seen.iter_mut().zip(all_of(scope).marks) {
            sum.1 += count;
        }
    }
    let never: Vec<_> = seen.iter().filter(|(_, count)| *count == 0).map(|(mark, _)| mark.words()).collect();
    assert!(never.is_empty(), "never seen: {never:?}");
}
