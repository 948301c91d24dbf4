//! What a node says of the pool: what it knows is a hint, but at rest the hint must be right.

use super::records::Books;
use boxpool::PoolStatus;
use boxpool::record::{Placement, VolumeStatus};

/// Where `says`, of one of `nodes` live nodes, differs from the records.
pub(crate) fn complaints(books: &Books, says: &PoolStatus, nodes: usize) -> Vec<String> {
    let free = books.instances.values().filter(|record| record.is_open()).count();
    let volumes = books.volumes.values().filter(|record| record.status == VolumeStatus::Free).count();
    let parked = books.boxes.values().filter(|record| matches!(record.placement, Placement::Parked { .. })).count();
    let mut wrong: Vec<String> = [
        ("free instances", says.free_instances, free),
        ("free volumes", says.free_volumes, volumes),
        ("parked boxes", says.parked, parked),
        ("live nodes", says.live_nodes, nodes),
        ("who wait", says.waiting, 0),
        ("boxes that it is at work on", says.active, 0),
    ]
    .into_iter()
    .filter(|(_, said, is)| said != is)
    .map(|(what, said, is)| format!("I7: {} says that there are {said} {what}, and there are {is}", says.node))
    .collect();
    if !says.in_touch || says.draining {
        wrong.push(format!("I7: {} says that it is out of touch or draining", says.node));
    }
    wrong
}
