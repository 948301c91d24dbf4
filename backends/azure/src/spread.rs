//! In which zones this pool's machines are, as far as this process has seen. New ones go where the fewest are, so that a zone that fails takes as few as
//! can be.

use boxpool::InstanceId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is known of each machine. A hint: what others make and delete is seen with the next list.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    machines: BTreeMap<InstanceId, Place>,
    /// How many lists were begun.
    lists: u64,
}

#[derive(Debug)]
struct Place {
    zone: Option<String>,
    /// The list in which, or after which, it was seen last.
    list: u64,
}

impl Spread {
    /// The machine is there, or is being made.
    pub(crate) fn saw(&self, machine: &InstanceId, zone: Option<&str>) {
        let mut seen = self.seen();
        let place = Place { zone: zone.map(str::to_owned), list: seen.lists };
        seen.machines.insert(machine.clone(), place);
    }

    /// The machine is not there, or is being deleted.
    pub(crate) fn gone(&self, machine: &InstanceId) {
        self.seen().machines.remove(machine);
    }

    /// A list of all machines begins.
    pub(crate) fn list_begins(&self) {
        self.seen().lists += 1;
    }

    /// A list has ended. What was not in it and was not made since it began is gone.
    pub(crate) fn list_ended(&self) {
        let mut seen = self.seen();
        let list = seen.lists;
        seen.machines.retain(|_, place| place.list == list);
    }

    /// How many are in that zone.
    pub(crate) fn machines_in(&self, zone: Option<&str>) -> usize {
        self.seen().machines.values().filter(|place| place.zone.as_deref() == zone).count()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: &str) -> InstanceId {
        InstanceId::new(id).unwrap()
    }

    fn counts(spread: &Spread) -> [usize; 2] {
        [Some("1"), Some("2")].map(|zone| spread.machines_in(zone))
    }

    #[test]
    fn what_others_have_deleted_is_not_counted_after_the_next_list() {
        let spread = Spread::default();
        spread.saw(&id("a"), Some("1"));
        spread.saw(&id("b"), Some("1"));
        spread.saw(&id("c"), Some("2"));
        assert_eq!(counts(&spread), [2, 1]);
        spread.list_begins();
        spread.saw(&id("b"), Some("1"));
        // Made while the list went on, behind the page on which it would be.
        spread.saw(&id("d"), Some("2"));
        spread.list_ended();
        assert_eq!(counts(&spread), [1, 1]);
        spread.gone(&id("d"));
        assert_eq!(counts(&spread), [1, 0]);
    }
}
