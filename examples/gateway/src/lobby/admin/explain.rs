//! Why a box is where it is: from what is on record to sentences. Pure.

use boxpool::record::{
    BoxRecord, InstanceRecord, InstanceStatus, Placement, VolumeBinding, VolumeRecord, VolumeStatus,
};
use boxpool::{NodeId, Timestamp};

/// What is on record of a box.
#[derive(Debug, Clone)]
pub struct Known {
    /// The box.
    pub record: BoxRecord,
    /// The machine that it names, if there is one under that name.
    pub instance: Option<InstanceRecord>,
    /// The disk that it names, if there is one under that name.
    pub volume: Option<VolumeRecord>,
    /// The gateways on record.
    pub gateways: Vec<String>,
    /// Now.
    pub at: Timestamp,
}

/// Where the box is and why, and whatever does not fit.
#[must_use]
pub fn explain(known: &Known) -> Vec<String> {
    let mut told = vec![placement(known)];
    told.push(holders(known));
    told.extend(instance(known));
    told.push(volume(known));
    told
}

fn is_there(known: &Known, node: &NodeId) -> bool {
    known.gateways.iter().any(|there| there == node.as_str())
}

/// Who does it, and whether anybody will when that one is gone.
fn by(known: &Known, node: &NodeId) -> String {
    if is_there(known, node) {
        format!("gateway {node} does it")
    } else {
        format!("gateway {node} began it and is not on record any more, so another one takes it over soon")
    }
}

fn placement(known: &Known) -> String {
    let epoch = known.record.epoch;
    match &known.record.placement {
        Placement::Detached => {
            "it is on no machine: it was never used, or another box wanted its machine, or it was parked for its limit; \
             the next connect gives it a free one"
                .into()
        }
        Placement::Placing { instance, node } => {
            format!("it is being brought up on {instance}, in epoch {epoch}; {}", by(known, node))
        }
        Placement::Running { instance, .. } => format!("it runs on {instance}, since epoch {epoch}"),
        Placement::Suspending { instance, node, .. } => {
            format!("its memory is being saved on {instance}, since nobody uses it; {}", by(known, node))
        }
        Placement::Parked { instance, since } => format!(
            "it has been suspended on {instance} for {} s and keeps that machine, so that a return is fast, until another \
             box needs the machine or the limit for parked boxes passes",
            known.at.since(*since).as_secs()
        ),
        Placement::Detaching { instance, node } => format!("its disk is leaving {instance}; {}", by(known, node)),
        Placement::Deleting { node, .. } => format!("its owner deleted it; {}", by(known, node)),
        Placement::Renaming { to, node, .. } => {
            format!("it is to be called {to}, or keeps its name when that fails; {}", by(known, node))
        }
        Placement::Arriving { from, .. } => format!(
            "it is what box {from} is to be called: the box, when its disk is bound to it, and else what is left of an attempt,              which the gateways remove"
        ),
    }
}

fn holders(known: &Known) -> String {
    let holders = &known.record.holders;
    if holders.is_empty() {
        return "no gateway holds a session on it".into();
    }
    let each = holders.iter().map(|node| {
        let gone = if is_there(known, node) { "" } else { " (not on record any more: others notice that and let go)" };
        format!("{node}{gone}")
    });
    format!("sessions on it are held by {}", each.collect::<Vec<_>>().join(", "))
}

fn instance(known: &Known) -> Option<String> {
    let named = known.record.placement.instance()?;
    let Some(instance) = &known.instance else {
        return Some(format!("{named} is not on record: the box leaves it at its next step"));
    };
    Some(match &instance.status {
        InstanceStatus::Claimed { owner, epoch } if *owner == known.record.owner => {
            format!("{named} is claimed by this box, in epoch {epoch}")
        }
        InstanceStatus::Claimed { owner, .. } => {
            format!("{named} is claimed by another box, {}/{}: this box cannot come up there", owner.owner, owner.name)
        }
        status => format!("{named} is {}, and not claimed by this box", status.word()),
    })
}

fn volume(known: &Known) -> String {
    let named = known.record.volume.volume();
    let wanted = matches!(known.record.volume, VolumeBinding::Wanted(_));
    match known.volume.as_ref().map(|volume| &volume.status) {
        None if wanted => format!("its disk {named} is still to be made"),
        None => format!("its disk {named} is not on record: the box cannot come up, and a person must look"),
        Some(VolumeStatus::Bound { owner }) if *owner == known.record.owner => {
            format!("its disk is {named}, and bound to it")
        }
        Some(VolumeStatus::Bound { owner }) => format!("its disk {named} is bound to {}/{}", owner.owner, owner.name),
        Some(VolumeStatus::Quarantined { why }) => format!("its disk {named} was set aside for a person: {why}"),
        Some(status) => format!("its disk {named} is {}", status.word()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxpool::record::Envelope;
    use boxpool::{BoxId, BoxName, BoxRef, Epoch, InstanceId, UserId, VolumeId};

    fn owner(name: &str) -> BoxRef {
        let (owner, id) = (UserId::new("ada").unwrap(), BoxId::new("b1").unwrap());
        BoxRef { owner, name: BoxName::new(name).unwrap(), id }
    }

    fn known(placement: Placement, status: InstanceStatus) -> Known {
        let volume = VolumeId::new("v1").unwrap();
        let mut record = BoxRecord::new(owner("dev1"), volume.clone(), Timestamp(0));
        (record.placement, record.volume) = (placement, VolumeBinding::Bound(volume.clone()));
        let (generation, created_at) = (String::new(), Timestamp(0));
        let bound = VolumeStatus::Bound { owner: owner("dev1") };
        let id = InstanceId::new("i1-a").unwrap();
        let instance = InstanceRecord::new(id, status, generation, created_at);
        let volume = VolumeRecord {
            id: volume,
            status: bound,
            generation: String::new(),
            source: None,
            created_at,
            envelope: Envelope::new(),
        };
        let gateways = vec!["n1".to_owned()];
        Known { record, instance: Some(instance), volume: Some(volume), gateways, at: Timestamp(90_000) }
    }

    #[test]
    fn a_parked_box_is_explained_with_its_time_its_claim_and_its_disk() {
        let at = InstanceId::new("i1-a").unwrap();
        let claimed = InstanceStatus::Claimed { owner: owner("dev1"), epoch: Epoch(3) };
        let told = explain(&known(Placement::Parked { instance: at, since: Timestamp(30_000) }, claimed)).join("\n");
        for part in ["suspended on i1-a for 60 s", "no gateway holds", "claimed by this box, in epoch 3", "bound to it"]
        {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_gateway_that_is_gone_another_boxs_claim_and_a_missing_disk_are_told() {
        let (instance, node) = (InstanceId::new("i1-a").unwrap(), NodeId::new("n2").unwrap());
        let claimed = InstanceStatus::Claimed { owner: owner("other"), epoch: Epoch(3) };
        let mut known = known(Placement::Placing { instance, node: node.clone() }, claimed);
        known.volume = None;
        known.record.holders.insert(node);
        let told = explain(&known).join("\n");
        for part in [
            "another one takes it over",
            "not on record any more",
            "claimed by another box, ada/other",
            "a person must",
        ] {
            assert!(told.contains(part), "{told}");
        }
        known.instance = None;
        assert!(explain(&known).join("\n").contains("i1-a is not on record"));
    }
}
