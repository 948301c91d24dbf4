//! What is easier to think about: every history that is one step simpler than a given one.
//!
//! Each step goes one way only (a fate to a gentler one, a time to a shorter or rounder one), so taking steps comes to an end.

use crate::case::{Case, Event, Happening, Op, Parking, What};
use crate::engine::{Fate, Faults, Pace, Strike};

/// A rate of [`Faults`].
type Rate = fn(&mut Faults) -> &mut f64;

const RATES: [Rate; 10] = [
    |faults| &mut faults.transient,
    |faults| &mut faults.permanent,
    |faults| &mut faults.throttled,
    |faults| &mut faults.capacity,
    |faults| &mut faults.lost,
    |faults| &mut faults.late,
    |faults| &mut faults.stall,
    |faults| &mut faults.stuck,
    |faults| &mut faults.stale,
    |faults| &mut faults.crash,
];

/// Every case that is one step easier than `case`, the largest steps first.
pub(super) fn easier(case: &Case) -> Vec<Case> {
    let mut found = Vec::new();
    let mut offer = |change: &dyn Fn(&mut Case)| {
        let mut changed = case.clone();
        change(&mut changed);
        if changed != *case {
            found.push(changed);
        }
    };
    for rate in RATES {
        offer(&|case| *rate(&mut case.faults) = 0.0);
    }
    offer(&|case| case.pace = Pace::Host);
    offer(&|case| case.jitter = 0);
    offer(&|case| drop_gateway(case, case.gateways.saturating_sub(1)));
    offer(&|case| case.pool.destroy = false);
    offer(&|case| case.pool.forgets_epochs = false);
    offer(&|case| case.pool.linger = 0);
    offer(&|case| case.pool.park_limit = 3_600_000);
    offer(&|case| case.pool.held_percent = 100);
    offer(&|case| case.pool.parking = Parking::default());
    offer(&|case| case.pool.goal_percent = 0);
    offer(&|case| case.pool.volumes_free = 0);
    offer(&|case| (case.pool.min_free, case.pool.max_free) = (0, 0));
    offer(&|case| case.pool.min_free = case.pool.min_free.min(1));
    offer(&|case| case.pool.max_free = case.pool.min_free);
    offer(&|case| case.pool.retention = 0);
    offer(&|case| case.pool.max_total = 1);
    offer(&|case| case.pool.max_total = case.pool.max_total.min(2));
    offer(&|case| case.restart_after = 100);
    for (index, op) in case.ops.iter().enumerate() {
        for simpler in easier_ops(op) {
            offer(&|case| case.ops[index] = simpler.clone());
        }
    }
    for (index, event) in case.events.iter().enumerate() {
        for simpler in easier_events(event) {
            offer(&|case| case.events[index] = simpler.clone());
        }
    }
    for (index, Strike { fate, .. }) in case.script.iter().enumerate() {
        for gentler in gentler(*fate) {
            offer(&|case| case.script[index].fate = gentler);
        }
    }
    found
}

/// Takes the last gateway out; what was to go through it goes through another.
fn drop_gateway(case: &mut Case, left: usize) {
    if left == 0 {
        return;
    }
    case.gateways = left;
    case.ops.iter_mut().for_each(|op| op.gateway %= left);
    case.events.iter_mut().filter_map(|event| event.what.gateway_mut()).for_each(|number| *number %= left);
}

fn easier_ops(op: &Op) -> Vec<Op> {
    let mut found: Vec<Op> = rounder(op.at).into_iter().map(|at| Op { at, ..op.clone() }).collect();
    found.push(Op { name: 1, ..op.clone() });
    found.push(Op { user: 1, ..op.clone() });
    found.push(Op { gateway: 0, ..op.clone() });
    let mut what = |what| found.push(Op { what, ..op.clone() });
    match op.what {
        What::Visit { stay, patience, rude } => {
            what(What::Create);
            what(What::Visit { stay, patience, rude: false });
            what(What::Visit { stay, patience: 300_000, rude });
            rounder(stay).into_iter().for_each(|stay| what(What::Visit { stay, patience, rude }));
        }
        What::GiveUp { .. } => what(What::Visit { stay: 0, patience: 300_000, rude: false }),
        What::Start { .. } => what(What::Create),
        What::Guest => what(What::Create),
        What::Resize { .. } | What::Rename { .. } => what(What::Stop),
        What::Duplicate { .. } => what(What::Snapshot { called: 1 }),
        What::Share { on: true } => what(What::Share { on: false }),
        What::Keep { on: true } => what(What::Keep { on: false }),
        What::Cordon { nth, drain: true } => what(What::Cordon { nth, drain: false }),
        What::Create
        | What::Delete
        | What::List
        | What::Adopt
        | What::Drain
        | What::Stop
        | What::Undelete
        | What::Purge
        | What::Snapshot { .. }
        | What::DropSnapshot { .. }
        | What::Restore { .. }
        | What::Cordon { drain: false, .. }
        | What::Uncordon { .. }
        | What::Share { on: false }
        | What::Keep { on: false } => {}
    }
    found
}

fn easier_events(event: &Event) -> Vec<Event> {
    let mut found: Vec<Event> = rounder(event.at).into_iter().map(|at| Event { at, ..event.clone() }).collect();
    let mut what = |what| found.push(Event { what, ..event.clone() });
    match event.what.clone() {
        Happening::Pause { gateway, time } => {
            rounder(time).into_iter().for_each(|time| what(Happening::Pause { gateway, time }));
        }
        Happening::Partition { gateway, store, cloud, time } => {
            if store && cloud {
                what(Happening::Partition { gateway, store, cloud: false, time });
                what(Happening::Partition { gateway, store: false, cloud, time });
            }
            rounder(time).into_iter().for_each(|time| what(Happening::Partition { gateway, store, cloud, time }));
        }
        Happening::StoreOutage { time } => {
            rounder(time).into_iter().for_each(|time| what(Happening::StoreOutage { time }));
        }
        Happening::KillInstance { nth } if nth > 0 => what(Happening::KillInstance { nth: 0 }),
        Happening::Preempt { nth } => {
            what(Happening::KillInstance { nth });
            what(Happening::Preempt { nth: 0 });
        }
        Happening::Reboot { nth } if nth > 0 => what(Happening::Reboot { nth: 0 }),
        Happening::HangGuest { user, name, time } => {
            rounder(time).into_iter().for_each(|time| what(Happening::HangGuest { user, name, time }));
        }
        Happening::Quota { instances, time } => {
            rounder(time).into_iter().for_each(|time| what(Happening::Quota { instances, time }));
        }
        Happening::ZoneOutage { zone, time } => {
            rounder(time).into_iter().for_each(|time| what(Happening::ZoneOutage { zone, time }));
        }
        Happening::Drift { gateway, .. } => what(Happening::Clock { gateway, ahead: 3_600_000 }),
        Happening::Crash { .. }
        | Happening::KillInstance { .. }
        | Happening::Reboot { .. }
        | Happening::KillGuest { .. }
        | Happening::Clock { .. } => {}
    }
    found
}

/// Shorter times, and rounder ones of about the same length. Each has fewer digits than the last, or is less.
fn rounder(time: u64) -> Vec<u64> {
    let mut found = vec![0];
    for grain in [60_000, 10_000, 1_000] {
        if !time.is_multiple_of(grain) {
            found.push(time / grain * grain);
        }
    }
    if time >= 20_000 {
        found.push(time / 2 / 1_000 * 1_000);
    }
    found.dedup();
    found
}

/// Fates that are easier to think about, the easiest first.
fn gentler(fate: Fate) -> Vec<Fate> {
    let shorter = |by: u64, make: fn(u64) -> Fate| -> Vec<Fate> {
        rounder(by).into_iter().filter(|by| *by >= 1_000).map(make).collect()
    };
    let mut found = Vec::new();
    match fate {
        Fate::Deliver
        | Fate::Refuse(_)
        | Fate::LoseAnswer
        | Fate::LoseCall
        | Fate::CrashBefore
        | Fate::Stale
        | Fate::Incomplete => {}
        Fate::Throttle { retry_after } => found = shorter(retry_after, |retry_after| Fate::Throttle { retry_after }),
        Fate::SwallowAnswer => found.push(Fate::LoseAnswer),
        Fate::SwallowCall => found.push(Fate::LoseCall),
        Fate::Late { by } => {
            found.push(Fate::LoseAnswer);
            found.extend(shorter(by, |by| Fate::Late { by }));
        }
        Fate::LateSilent { by } => {
            found.extend([Fate::SwallowAnswer, Fate::Late { by }]);
            found.extend(shorter(by, |by| Fate::LateSilent { by }));
        }
        Fate::Twice { by } => found = shorter(by, |by| Fate::Twice { by }),
        Fate::Stall { by } => found = shorter(by, |by| Fate::Stall { by }),
        Fate::SlowAnswer { by } => {
            found.push(Fate::Stall { by });
            found.extend(shorter(by, |by| Fate::SlowAnswer { by }));
        }
        Fate::Stuck { by } => found = shorter(by, |by| Fate::Stuck { by }),
        Fate::StandStill { by } => {
            found.push(Fate::SlowAnswer { by });
            found.extend(shorter(by, |by| Fate::StandStill { by }));
        }
        Fate::CrashAfter => found.push(Fate::CrashBefore),
        Fate::CrashLater { by } => {
            found.extend([Fate::CrashBefore, Fate::CrashAfter]);
            found.extend(shorter(by, |by| Fate::CrashLater { by }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Profile;

    #[test]
    fn taking_every_step_comes_to_an_end() {
        for seed in 0..20 {
            let mut case = Case::random(seed, Profile::Swarm);
            let mut steps = 0;
            while let Some(next) = easier(&case).into_iter().next_back() {
                case = next;
                steps += 1;
                assert!(steps < 5_000, "goes in circles: {case:?}");
            }
        }
    }

    #[test]
    fn no_step_leads_outside_of_the_world() {
        for seed in 0..50 {
            let case = Case::random(seed, Profile::Swarm);
            for easier in easier(&case) {
                assert!(easier.gateways >= 1);
                assert!(easier.ops.iter().all(|op| op.gateway < easier.gateways));
                assert!(easier.pool.min_free <= easier.pool.max_free && easier.pool.max_total >= 1);
            }
        }
    }
}
