//! What must always be true.

use crate::model::Protocol;
use crate::scope::{Backend, MAX_BOXES, MAX_INSTANCES};
use crate::state::{InstanceStatus, Place, State, VolumeStatus, bad, bit};
use stateright::Property;

pub(crate) fn properties() -> Vec<Property<Protocol>> {
    vec![
        Property::always("I1: a volume is attached to at most one instance", |_, state: &State| {
            state.links.iter().all(|on| on.count_ones() <= 1)
        }),
        Property::always("I1: a guest runs in at most one place", |_, state: &State| {
            state.guests.iter().all(|on| on.count_ones() <= 1)
        }),
        Property::always("I1: a guest runs only where its volume is", |_, state: &State| {
            state.bad & bad::PULLED == 0
                && state.guests.iter().zip(&state.links).all(|(guest, link)| guest & !link == 0)
        }),
        Property::always("I2: volumes and guests of one box at most are on an instance", |_, state: &State| {
            (0..MAX_INSTANCES as u8).all(|instance| {
                let here = |boxed: &usize| (state.links[*boxed] | state.guests[*boxed]) & bit(instance) != 0;
                (0..MAX_BOXES).filter(here).count() <= 1
            })
        }),
        Property::always("I2: a box is started only where no other has left anything", |_, state: &State| {
            state.bad & bad::RESIDUE == 0
        }),
        Property::always("I2: the instance of a box at rest is claimed by it", claims_hold),
        Property::always("I2: a free instance is empty", |protocol: &Protocol, state: &State| {
            // A provider that ignores epochs can let an attach land at any time: there this cannot be promised.
            protocol.scope.backend != Backend::Local
                || (0..MAX_INSTANCES)
                    .all(|at| state.instances[at] != Some(InstanceStatus::Free) || !state.occupied(at as u8))
        }),
        Property::always("I3: a volume goes only on its owner's word", |protocol: &Protocol, state: &State| {
            (0..protocol.scope.boxes).filter(|boxed| state.asked & bit(*boxed) == 0).all(|boxed| {
                state.disks & bit(boxed) != 0 && state.volumes[usize::from(boxed)] == Some(VolumeStatus::Bound)
            })
        }),
        Property::always("I4: memory is lost only by those who know that it could not be saved", |_, state: &State| {
            state.bad & bad::KILLED == 0
        }),
        Property::always(
            "I4: where nothing breaks, a box that is said to run runs",
            |protocol: &Protocol, state: &State| {
                protocol.scope.breakdowns > 0
                    || (0..protocol.scope.boxes).all(|boxed| {
                        match state.boxes[usize::from(boxed)].map(|record| record.place) {
                            Some(Place::Running { instance }) => state.runs(boxed, instance),
                            _ => true,
                        }
                    })
            },
        ),
        Property::always("I5: where nothing breaks, a free instance exists", |protocol: &Protocol, state: &State| {
            protocol.scope.breakdowns > 0
                || (0..MAX_INSTANCES)
                    .all(|at| state.instances[at] != Some(InstanceStatus::Free) || state.machine(at as u8))
        }),
        Property::always("I9: an older epoch never acts after a newer one was seen", |_, state: &State| {
            state.bad & bad::OLD_EPOCH == 0
        }),
    ]
}

/// `Running`, `Suspending`, `Parked`: its instance says so, too, and two boxes never name one instance.
fn claims_hold(_: &Protocol, state: &State) -> bool {
    state.boxes.iter().enumerate().all(|(boxed, record)| match record.map(|record| record.place) {
        Some(Place::Running { instance } | Place::Suspending { instance, .. } | Place::Parked { instance }) => {
            matches!(
                state.instances[usize::from(instance)],
                Some(InstanceStatus::Claimed { boxed: owner, .. }) if usize::from(owner) == boxed
            )
        }
        _ => true,
    })
}
