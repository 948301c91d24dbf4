//! What must be true once faults have stopped and everything had its time: I5 (no leak, nothing dangling), I7 and I8.

use crate::backend::{Phase, State};
use boxpool::record::{GoldenRecord, GoldenState, InstanceStatus, Mode, Placement, VolumeBinding, VolumeStatus};
use boxpool::{PoolConfig, SnapshotId};

/// Everything that is not as it must be when the world has come to rest; `live` names the nodes that are alive.
pub(crate) fn complaints(state: &State, config: &PoolConfig, live: &[boxpool::NodeId]) -> Vec<String> {
    let mut found = Vec::new();
    let books = &state.oracle.books;
    for (id, machine) in &state.instances {
        let known = books.instances.values().any(|record| record.id == *id);
        if !known && machine.phase != Phase::Deleting {
            found.push(format!("I5: instance {id} has no record"));
        }
    }
    for record in books.instances.values() {
        let id = &record.id;
        if let Some(node) = record.status.worker()
            && !live.contains(node)
        {
            found.push(format!("I5: instance {id} is {} by {node}, which is no more", record.status.word()));
        }
        let exists = state.instances.contains_key(id);
        let kept = match &record.status {
            InstanceStatus::Claimed { owner, .. } => {
                books.box_of(owner).is_some_and(|record| record.mode == Mode::KeepRunning)
            }
            _ => false,
        };
        if record.is_draining() && !kept {
            found.push(format!("I7: instance {id} was to be emptied and is {}", record.status.word()));
        }
        match &record.status {
            InstanceStatus::Claimed { owner, .. } => {
                let stands = books.box_of(owner).is_some_and(|record| record.placement.instance() == Some(id));
                if !stands {
                    found.push(format!("I5: instance {id} is claimed by {owner}, which is elsewhere"));
                }
            }
            InstanceStatus::Free if !exists => found.push(format!("I5: instance {id} is free and does not exist")),
            InstanceStatus::Free if state.instances.get(id).is_some_and(|machine| machine.phase != Phase::Running) => {
                found.push(format!("I5: instance {id} is free and does not run"));
            }
            InstanceStatus::Stopped if !exists => {
                found.push(format!("I5: instance {id} is in the reserve and does not exist"));
            }
            InstanceStatus::Stopped
                if state.instances.get(id).is_some_and(|machine| machine.phase != Phase::Stopped) =>
            {
                found.push(format!("I5: instance {id} is in the reserve and runs"));
            }
            InstanceStatus::Quarantined { why } => found.push(format!("I5: instance {id} is quarantined: {why}")),
            _ => {}
        }
    }
    for (id, volume) in &state.volumes {
        if !books.volumes.contains_key(id) && volume.phase != Phase::Deleting {
            found.push(format!("I5: volume {id} has no record"));
        }
    }
    for (id, record) in &books.volumes {
        if let Some(node) = record.status.worker()
            && !live.contains(node)
        {
            found.push(format!("I5: volume {id} is {} by {node}, which is no more", record.status.word()));
        }
        if let VolumeStatus::Bound { owner } = &record.status {
            if !state.volumes.contains_key(id) {
                found.push(format!("I3: volume {id} of {owner} does not exist any more"));
            }
            let stands = books.box_of(owner).is_some_and(|record| record.volume.volume() == id);
            if !stands {
                found.push(format!("I5: volume {id} is bound to {owner}, which is not there or has another"));
            }
        }
    }
    for record in books.goldens.values() {
        let generation = &record.generation;
        match &record.state {
            GoldenState::Building { node, .. } => {
                found.push(format!("I7: golden snapshot {generation} is still being built by {node}"));
            }
            GoldenState::Retired { snapshot } => found.push(format!("I5: {snapshot} is retired and not deleted")),
            GoldenState::Ready { .. } if *generation != config.volume_generation => {
                found.push(format!("I5: golden snapshot {generation} is kept and nobody wants it"));
            }
            GoldenState::Ready { .. } | GoldenState::Gone => {}
        }
    }
    for record in books.snapshots.values() {
        let (id, word) = (&record.id, record.status.word());
        if let Some(node) = record.status.worker() {
            found.push(format!("I7: snapshot {id} of {} is still {word} by {node}", record.of));
        } else if !state.has_ready_snapshot(id) {
            found.push(format!("I5: snapshot {id} of {} is {word} and does not exist", record.of));
        }
    }
    let of_boxes = |id: &SnapshotId| id.as_str().starts_with("of-box-");
    for snapshot in state.snapshots.keys().filter(|snapshot| of_boxes(snapshot)) {
        if !books.snapshots.values().any(|record| record.id == *snapshot) {
            found.push(format!("I5: snapshot {snapshot} has no record"));
        }
    }
    for snapshot in state.snapshots.keys().filter(|snapshot| **snapshot != crate::golden() && !of_boxes(snapshot)) {
        let ready = |record: &GoldenRecord| record.state == GoldenState::Ready { snapshot: snapshot.clone() };
        if !books.goldens.is_empty() && !books.goldens.values().any(ready) {
            found.push(format!("I5: snapshot {snapshot} is left and nobody uses it"));
        }
    }
    for record in books.boxes.values() {
        let owner = &record.owner;
        if let Some(node) = record.placement.worker()
            && !live.contains(node)
        {
            found.push(format!("I5: {owner} is {} by {node}, which is no more", record.placement));
        }
        if record.placement.worker().is_some() {
            found.push(format!("I7: {owner} is still {}", record.placement));
        }
        if let Some(dead) = record.holders.iter().find(|holder| !live.contains(holder)) {
            found.push(format!("I5: {owner} is held by {dead}, which is no more"));
        }
        if let VolumeBinding::Wanted(volume) = &record.volume
            && books.volumes.get(volume).is_some_and(|volume| volume.status.worker().is_some())
        {
            found.push(format!("I5: {owner} waits for {volume}"));
        }
    }
    let free = books
        .instances
        .values()
        .filter(|record| record.is_open() && record.generation == config.instance_generation)
        .count();
    let (min, max, total) =
        (config.instances.min_free as usize, config.instances.max_free as usize, config.instances.max_total as usize);
    if free < min && books.instances.len() < total {
        found.push(format!("I8: {free} instances are free, {min} are wanted, and there is room"));
    }
    if free > max {
        found.push(format!("I8: {free} instances are free and at most {max} should be"));
    }
    let held = books.boxes.values().filter(|record| matches!(record.placement, Placement::Parked { .. })).count();
    let most = (f64::from(config.instances.max_total) * config.held_share).floor() as usize;
    if held > most {
        found.push(format!("I8: {held} instances are held by parked boxes and at most {most} should be"));
    }
    let reserve = books
        .instances
        .values()
        .filter(|record| record.status == InstanceStatus::Stopped && record.generation == config.instance_generation)
        .count();
    let (min, max) = (config.instances.min_reserve as usize, config.instances.max_reserve as usize);
    if reserve < min && books.instances.len() < total {
        found.push(format!("I8: {reserve} instances are in the reserve, {min} are wanted, and there is room"));
    }
    if reserve > max {
        found.push(format!("I8: {reserve} instances are in the reserve and at most {max} should be"));
    }
    let free = books
        .volumes
        .values()
        .filter(|record| record.status == VolumeStatus::Free && record.generation == config.volume_generation)
        .count();
    let (min, max, total) =
        (config.volumes.min_free as usize, config.volumes.max_free as usize, config.volumes.max_total as usize);
    if free < min && books.volumes.len() < total {
        found.push(format!("I8: {free} volumes are free, {min} are wanted, and there is room"));
    }
    if free > max {
        found.push(format!("I8: {free} volumes are free and at most {max} should be"));
    }
    found
}
