//! What the maintainer would do now, and why: counted as the core counts, decided by the core's own [`plan`].

use boxpool::record::{InstanceRecord, InstanceStatus, VolumeRecord, VolumeStatus};
use boxpool::{Census, Step, WarmTarget, plan};
use serde_json::{Value, json};
use std::time::Duration;

/// The machines, counted.
pub(super) fn count_instances(all: &[InstanceRecord], generation: &str, waiting: usize) -> Census {
    use InstanceStatus as S;
    let count = |test: &dyn Fn(&InstanceRecord) -> bool| number(all.iter().filter(|each| test(each)).count());
    let is_free = |each: &InstanceRecord| each.status == S::Free;
    let is_coming = |status: &S| matches!(status, S::Provisioning { .. } | S::Starting { .. } | S::Recycling { .. });
    Census {
        free: count(&|each| is_free(each) && each.generation == generation),
        stale: count(&|each| is_free(each) && each.generation != generation),
        coming: count(&|each| is_coming(&each.status)),
        creating: count(&|each| matches!(each.status, S::Provisioning { .. })),
        total: number(all.len()),
        waiting: number(waiting),
        quiet_for: Duration::ZERO,
    }
}

/// The disks, counted.
pub(super) fn count_volumes(all: &[VolumeRecord], generation: &str) -> Census {
    use VolumeStatus as S;
    let count = |test: &dyn Fn(&VolumeRecord) -> bool| number(all.iter().filter(|each| test(each)).count());
    let is_free = |each: &VolumeRecord| each.status == S::Free;
    let creating =
        count(&|each| matches!(each.status, S::Creating { wanted_by: None, .. }) && each.generation == generation);
    Census {
        free: count(&|each| is_free(each) && each.generation == generation),
        stale: count(&|each| is_free(each) && each.generation != generation),
        coming: creating,
        creating,
        total: number(all.len()),
        waiting: 0,
        quiet_for: Duration::ZERO,
    }
}

/// What would be done about `what` with these numbers: a sentence, and the same for programs.
pub(super) fn tell(what: &str, census: Census, target: WarmTarget) -> (String, Value) {
    let now = plan(census, target);
    let rested = plan(Census { quiet_for: target.cool_down, ..census }, target);
    let mut text = format!("{what}: {}", words(now));
    if rested != now {
        text.push_str(&format!(", and {} once none was taken or made for {:?}", words(rested), target.cool_down));
    }
    let Census { free, coming, creating, stale, total, waiting, .. } = census;
    let WarmTarget { min_free, max_free, max_total, max_concurrent_creates, .. } = target;
    text.push_str(&format!(
        ", because {free} are free, {coming} will be, {stale} are of an older generation and {waiting} are waited for, where \
         {min_free} to {max_free} are wanted free; {creating} of at most {max_concurrent_creates} are being made, and {total} \
         of at most {max_total} exist"
    ));
    let json = json!({
        "step": word(now), "count": amount(now), "step_when_quiet": word(rested), "count_when_quiet": amount(rested),
        "quiet_ms": u64::try_from(target.cool_down.as_millis()).unwrap_or(u64::MAX),
        "free": free, "coming": coming, "creating": creating, "stale": stale, "total": total, "waiting": waiting,
        "min_free": min_free, "max_free": max_free, "max_total": max_total, "max_creating": max_concurrent_creates,
    });
    (text, json)
}

fn words(step: Step) -> String {
    match step {
        Step::Provision(count) => format!("{count} would be made"),
        Step::RetireStale(count) => format!("{count} of an older generation would be retired"),
        Step::Retire(count) => format!("{count} would be retired"),
        Step::Rest => "nothing would be done".into(),
    }
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Provision(_) => "provision",
        Step::RetireStale(_) => "retire_stale",
        Step::Retire(_) => "retire",
        Step::Rest => "rest",
    }
}

fn amount(step: Step) -> u32 {
    match step {
        Step::Provision(count) | Step::RetireStale(count) | Step::Retire(count) => count.get(),
        Step::Rest => 0,
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxpool::record::Envelope;
    use boxpool::{InstanceId, NodeId, Timestamp, VolumeId};

    fn instance(number: usize, status: InstanceStatus, generation: &str) -> InstanceRecord {
        let id = InstanceId::new(format!("i{number}-x")).unwrap();
        let (generation, created_at) = (generation.to_owned(), Timestamp(0));
        InstanceRecord { id, status, generation, created_at, envelope: Envelope::new() }
    }

    #[test]
    fn what_is_short_is_made_and_what_is_spare_is_retired_after_a_quiet_time_with_the_numbers() {
        let node = NodeId::new("n1").unwrap();
        let all = [
            instance(1, InstanceStatus::Free, "g"),
            instance(2, InstanceStatus::Free, "old"),
            instance(3, InstanceStatus::Provisioning { node }, "g"),
        ];
        let census = count_instances(&all, "g", 4);
        assert_eq!((census.free, census.stale, census.coming, census.total, census.waiting), (1, 1, 1, 3, 4));
        let (text, json) = tell("machines", census, WarmTarget::new(1, 2, 10));
        assert!(text.contains("2 would be made") && text.contains("4 are waited for"), "{text}");
        assert_eq!((&json["step"], &json["count"]), (&"provision".into(), &2.into()));

        let volume = |number: usize| VolumeRecord {
            id: VolumeId::new(format!("v{number}")).unwrap(),
            status: VolumeStatus::Free,
            generation: "g".into(),
            source: None,
            created_at: Timestamp(0),
            envelope: Envelope::new(),
        };
        let census = count_volumes(&[volume(1), volume(2), volume(3)], "g");
        let (text, json) = tell("disks", census, WarmTarget::new(0, 1, 10));
        assert!(text.contains("nothing would be done, and 2 would be retired once"), "{text}");
        assert_eq!((&json["step"], &json["step_when_quiet"]), (&"rest".into(), &"retire".into()));
    }
}
