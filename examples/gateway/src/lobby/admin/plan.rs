//! What the maintainer would do now, and why: counted and decided by the core's own [`Census`] and [`plan`].

use boxpool::record::DemandRecord;
use boxpool::{Census, Step, WarmTarget, plan};
use serde_json::{Value, json};

/// The target that the maintainer aims at: with a goal, what it said last that it wants for that.
pub(super) fn aimed(target: WarmTarget, demand: Option<&DemandRecord>) -> WarmTarget {
    let Some(demand) = demand.filter(|_| target.goal.is_some()) else { return target };
    WarmTarget { min_free: demand.wanted, max_free: demand.wanted, ..target }
}

/// What would be done about `what` with these numbers: a sentence, and the same for programs.
pub(super) fn tell(what: &str, census: Census, target: WarmTarget) -> (String, Value) {
    let now = plan(census, target);
    let rested = plan(Census { quiet_for: target.cool_down, ..census }, target);
    let mut text = format!("{what}: {}", words(now));
    if rested != now {
        text.push_str(&format!(
            ", and {} once more than {} have been free for {:?}",
            words(rested),
            target.min_free,
            target.cool_down
        ));
    }
    let Census { free, coming, creating, reserve, stopping, stale, total, waiting, .. } = census;
    let WarmTarget { min_free, max_free, max_total, min_reserve, max_reserve, max_concurrent_creates, .. } = target;
    text.push_str(&format!(
        ", because {free} are free, {coming} will be, {stale} are of an older generation and {waiting} are waited for, where \
         {min_free} to {max_free} are wanted free; {creating} of at most {max_concurrent_creates} are being made, and {total} \
         of at most {max_total} exist"
    ));
    if max_reserve > 0 {
        text.push_str(&format!(
            "; {reserve} are stopped and {stopping} will be, where {min_reserve} to {max_reserve} are wanted"
        ));
    }
    let json = json!({
        "step": word(now), "count": amount(now), "step_when_quiet": word(rested), "count_when_quiet": amount(rested),
        "quiet_ms": u64::try_from(target.cool_down.as_millis()).unwrap_or(u64::MAX),
        "free": free, "coming": coming, "creating": creating, "reserve": reserve, "stopping": stopping, "stale": stale, "total": total,
        "waiting": waiting, "min_reserve": min_reserve, "max_reserve": max_reserve,
        "min_free": min_free, "max_free": max_free, "max_total": max_total, "max_creating": max_concurrent_creates,
    });
    (text, json)
}

fn words(step: Step) -> String {
    match step {
        Step::Wake(count) => format!("{count} of the reserve would be started"),
        Step::Provision(count) => format!("{count} would be made"),
        Step::RetireStale(count) => format!("{count} of an older generation would be retired"),
        Step::Stop(count) => format!("{count} would be stopped for the reserve"),
        Step::Retire(count) => format!("{count} would be retired"),
        Step::RetireReserve(count) => format!("{count} of the reserve would be retired"),
        Step::Rest => "nothing would be done".into(),
    }
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Wake(_) => "wake",
        Step::Provision(_) => "provision",
        Step::RetireStale(_) => "retire_stale",
        Step::Stop(_) => "stop",
        Step::Retire(_) => "retire",
        Step::RetireReserve(_) => "retire_reserve",
        Step::Rest => "rest",
    }
}

fn amount(step: Step) -> u32 {
    match step {
        Step::Wake(count)
        | Step::Provision(count)
        | Step::RetireStale(count)
        | Step::Stop(count)
        | Step::Retire(count)
        | Step::RetireReserve(count) => count.get(),
        Step::Rest => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxpool::record::{Envelope, InstanceRecord, InstanceStatus, VolumeRecord, VolumeStatus};
    use boxpool::{InstanceId, NodeId, Timestamp, VolumeId};

    fn instance(number: usize, status: InstanceStatus, generation: &str) -> InstanceRecord {
        let id = InstanceId::new(format!("i{number}-x")).unwrap();
        let (generation, created_at) = (generation.to_owned(), Timestamp(0));
        InstanceRecord::new(id, status, generation, created_at)
    }

    #[test]
    fn what_is_short_is_made_and_what_is_spare_is_retired_after_a_quiet_time_with_the_numbers() {
        let node = NodeId::new("n1").unwrap();
        let all = [
            instance(1, InstanceStatus::Free, "g"),
            instance(2, InstanceStatus::Free, "old"),
            instance(3, InstanceStatus::Provisioning { node }, "g"),
        ];
        let census = Census { waiting: 4, ..Census::of_instances(&all, "g") };
        assert_eq!((census.free, census.stale, census.coming, census.total, census.waiting), (1, 1, 1, 3, 4));
        let (text, json) = tell("machines", census, WarmTarget::new(1, 2, 10));
        assert!(text.contains("3 would be made") && text.contains("4 are waited for"), "{text}");
        assert_eq!((&json["step"], &json["count"]), (&"provision".into(), &3.into()));

        let volume = |number: usize| VolumeRecord {
            id: VolumeId::new(format!("v{number}")).unwrap(),
            status: VolumeStatus::Free,
            generation: "g".into(),
            source: None,
            created_at: Timestamp(0),
            envelope: Envelope::new(),
        };
        let census = Census::of_volumes(&[volume(1), volume(2), volume(3)], "g");
        let (text, json) = tell("disks", census, WarmTarget::new(0, 1, 10));
        assert!(text.contains("nothing would be done, and 2 would be retired once"), "{text}");
        assert_eq!((&json["step"], &json["step_when_quiet"]), (&"rest".into(), &"retire".into()));
    }
}
