//! How long the way into each box took when somebody last went in here: told to its owner, and forgotten with the process.

use crate::lock::lock;
use boxpool::{BoxName, Clock, SystemClock, Timestamp, UserId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// So many boxes are remembered; beyond that the one that was longest not gone into is forgotten.
const REMEMBERED: usize = 10_000;

/// The parts of one way into a box, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it was over.
    pub at: Timestamp,
    /// Until the box could be dialled.
    pub box_ms: u64,
    /// Until its SSH server had let the gateway in.
    pub dial_ms: u64,
    /// Until it had started what was asked for.
    pub start_ms: u64,
}

/// The last way into each box.
#[derive(Debug, Default)]
pub struct Latest(Mutex<BTreeMap<(UserId, BoxName), Entry>>);

impl Latest {
    /// Notes one that is over now.
    pub fn note(&self, owner: &UserId, name: &BoxName, [up, dialled, started]: [Duration; 3]) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let entry = Entry { at: SystemClock.now(), box_ms: ms(up), dial_ms: ms(dialled), start_ms: ms(started) };
        let mut all = lock(&self.0);
        all.insert((owner.clone(), name.clone()), entry);
        if all.len() > REMEMBERED
            && let Some(oldest) = all.iter().min_by_key(|(_, entry)| entry.at).map(|(key, _)| key.clone())
        {
            all.remove(&oldest);
        }
    }

    /// The last one into that box, here.
    #[must_use]
    pub fn of(&self, owner: &UserId, name: &BoxName) -> Option<Entry> {
        lock(&self.0).get(&(owner.clone(), name.clone())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_way_into_each_box_is_remembered_and_only_so_many() {
        let (latest, owner) = (Latest::default(), UserId::new("u").unwrap());
        let name = |n: usize| BoxName::new(format!("b{n}")).unwrap();
        let ms = Duration::from_millis;
        latest.note(&owner, &name(0), [ms(1), ms(2), ms(3)]);
        latest.note(&owner, &name(0), [ms(4), ms(5), ms(6)]);
        let entry = latest.of(&owner, &name(0)).unwrap();
        assert_eq!((entry.box_ms, entry.dial_ms, entry.start_ms), (4, 5, 6));
        assert_eq!(latest.of(&owner, &name(1)), None);
        for n in 1..=REMEMBERED {
            latest.note(&owner, &name(n), [ms(1); 3]);
        }
        assert_eq!(lock(&latest.0).len(), REMEMBERED);
        assert!(latest.of(&owner, &name(REMEMBERED)).is_some());
    }
}
