//! How many boxes of one user may run at once.
//!
//! A box counts from the moment somebody wants it up until it is suspended. Within one gateway the limit is exact: who
//! wants a box is counted before it is brought up. Gateways tell each other only by the boxes' own records, so two of them
//! that are asked at the same moment may let one too many run.

use crate::boxes::{BoxSession, BoxSummary};
use crate::lock::lock;
use async_trait::async_trait;
use boxpool::{BoxName, Endpoint, Epoch, Error, ErrorKind, Result, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Only so many boxes of each user run at once.
pub struct RunningLimit {
    most: usize,
    wanted: Wanted,
}

/// How many of this gateway's connections want which box up.
#[derive(Clone, Default)]
struct Wanted(Arc<Mutex<BTreeMap<UserId, BTreeMap<BoxName, usize>>>>);

/// One of them.
pub struct Count {
    wanted: Wanted,
    owner: UserId,
    name: BoxName,
}

impl RunningLimit {
    /// At most `most` for each user.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, wanted: Wanted::default() }
    }

    /// Counts one more who wants the box up, beside the `boxes` that there are.
    ///
    /// # Errors
    /// `NoCapacity` when too many others are up or wanted.
    pub fn count(&self, owner: &UserId, name: &BoxName, boxes: Vec<BoxSummary>) -> Result<Count> {
        let up = boxes.into_iter().filter(is_up).map(|each| each.name).collect();
        self.wanted.count(owner, name, up, self.most).map_err(|others| too_many(name, &others))
    }
}

/// Whether the box takes a machine's memory and processors, or is about to: one that is kept running is brought up again.
fn is_up(each: &BoxSummary) -> bool {
    each.keepalive || matches!(each.state.as_str(), "placing" | "running" | "suspending")
}

impl Wanted {
    /// Counts one more who wants the box, unless too many others are `up` or wanted.
    ///
    /// # Errors
    /// The names of the others.
    fn count(
        &self,
        owner: &UserId,
        name: &BoxName,
        up: BTreeSet<String>,
        most: usize,
    ) -> std::result::Result<Count, BTreeSet<String>> {
        let mut all = lock(&self.0);
        let own = all.get(owner);
        let mut others: BTreeSet<String> = own.into_iter().flat_map(BTreeMap::keys).map(ToString::to_string).collect();
        others.extend(up);
        let joins = others.remove(name.as_str());
        if !joins && others.len() >= most {
            return Err(others);
        }
        *all.entry(owner.clone()).or_default().entry(name.clone()).or_default() += 1;
        Ok(Count { wanted: self.clone(), owner: owner.clone(), name: name.clone() })
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let mut all = lock(&self.wanted.0);
        let Some(own) = all.get_mut(&self.owner) else { return };
        if let Some(count) = own.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                own.remove(&self.name);
            }
        }
        if own.is_empty() {
            all.remove(&self.owner);
        }
    }
}

fn too_many(name: &BoxName, others: &BTreeSet<String>) -> Error {
    let names: Vec<&str> = others.iter().map(String::as_str).collect();
    let (count, names) = (names.len(), names.join(", "));
    let noun = if count == 1 { "box of yours runs" } else { "boxes of yours run" };
    Error::new(ErrorKind::NoCapacity, "connect to box", name).with_detail(format!(
        "{count} {noun} ({names}), which is the most; leave or stop one, and try again in a moment, when it is suspended"
    ))
}

/// A session whose box counts for as long as it lasts.
pub struct Counted {
    count: Count,
    session: Box<dyn BoxSession>,
}

impl Counted {
    /// `session` on the box that was counted.
    #[must_use]
    pub fn new(count: Count, session: Box<dyn BoxSession>) -> Self {
        Self { count, session }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BoxSession for Counted {
    fn endpoint(&self) -> &Endpoint {
        self.session.endpoint()
    }

    fn epoch(&self) -> Epoch {
        self.session.epoch()
    }

    async fn ended(&self) {
        self.session.ended().await;
    }

    async fn release(self: Box<Self>) {
        let Self { count, session } = *self;
        drop(count); // from here on the box's own record says that it runs
        session.release().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_counts_as_soon_as_it_is_wanted_and_until_nobody_wants_it() {
        let (wanted, ada) = (Wanted::default(), UserId::new("ada").unwrap());
        let count = |owner: &UserId, name: &str, up: &[&str]| {
            let up = up.iter().map(|name| (*name).to_owned()).collect();
            wanted.count(owner, &BoxName::new(name).unwrap(), up, 1)
        };
        let first = count(&ada, "one", &[]).ok().unwrap();
        let joined = count(&ada, "one", &["one"]).ok().unwrap();
        assert!(count(&ada, "two", &[]).is_err(), "not on record yet, and counted all the same");
        assert!(count(&UserId::new("bob").unwrap(), "two", &[]).is_ok());
        drop(first);
        assert!(count(&ada, "two", &[]).is_err());
        drop(joined);
        assert!(count(&ada, "two", &["one"]).is_err(), "it is still being suspended");
        assert!(count(&ada, "two", &[]).is_ok());
        assert!(wanted.0.lock().unwrap().is_empty());
    }

    #[test]
    fn the_refusal_names_what_runs() {
        let others = ["a", "b"].map(str::to_owned).into();
        let error = too_many(&BoxName::new("c").unwrap(), &others);
        assert!(error.detail().contains("2 boxes of yours run (a, b), which is the most"), "{error}");
        let is_up = |state: &str, keepalive| {
            let found = BoxSummary::new(&BoxName::new("a").unwrap(), state, boxpool::Timestamp(0));
            is_up(&BoxSummary { keepalive, ..found })
        };
        assert!(is_up("placing", false) && is_up("suspending", false) && is_up("parked", true));
        assert!(!is_up("parked", false) && !is_up("detaching", false));
    }
}
