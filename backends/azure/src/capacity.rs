//! Where there was no room a while ago, nobody is sent again so soon. Each process learns for itself: what it does not
//! know costs it one refused machine.

use crate::cloud_options::Candidate;
use crate::errors::Refusal;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Room comes and goes within minutes.
const ALLOCATION: Duration = Duration::from_secs(600);
/// What is not offered is not offered soon.
const NOT_OFFERED: Duration = Duration::from_secs(3_600);

/// The places, and until when which of them is shunned.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    shunned: Mutex<BTreeMap<Candidate, Instant>>,
}

impl Capacity {
    /// Of the places that are not shunned the first in the list, but among neighbours of one size that with the fewest machines; else how
    /// long until one is not shunned.
    pub(crate) fn choose<'a>(
        &self,
        candidates: &'a [Candidate],
        machines_in: impl Fn(Option<&str>) -> usize,
    ) -> Result<&'a Candidate, Duration> {
        let shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let wait = |candidate: &Candidate| {
            shunned.get(candidate).map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
        };
        let emptiest = |of_one_size: &'a [Candidate]| {
            let with_room = of_one_size.iter().filter(|candidate| wait(candidate).is_zero());
            with_room.min_by_key(|candidate| machines_in(candidate.zone.as_deref()))
        };
        let chosen = candidates.chunk_by(|one, next| one.size == next.size).find_map(emptiest);
        chosen.ok_or_else(|| candidates.iter().map(wait).min().unwrap_or(ALLOCATION))
    }

    /// There was no room at that place, and perhaps at others like it.
    pub(crate) fn no_room(&self, at: &Candidate, candidates: &[Candidate], why: &Refusal) {
        // A zone's own shortage says nothing of other zones; a region's, a quota's and an offer's do.
        let zonal = why.code.to_ascii_lowercase().contains("zonal");
        let time = if why.has_code("SkuNotAvailable") { NOT_OFFERED } else { ALLOCATION };
        let until = Instant::now() + time;
        let mut shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        shunned.retain(|_, until| *until > now);
        // One that is shunned already is not shunned for longer: its end is when somebody looks again.
        let like = candidates.iter().filter(|each| each.size == at.size && !zonal && !why.has_code("SkuNotAvailable"));
        for place in like.chain([at]) {
            shunned.entry(place.clone()).or_insert(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn places() -> Vec<Candidate> {
        vec![Candidate::new("D2", Some("1")), Candidate::new("D2", Some("2")), Candidate::new("E2", Some("1"))]
    }

    fn even(_: Option<&str>) -> usize {
        3
    }

    fn why(code: &str) -> Refusal {
        Refusal::of_operation(&json!({ "code": code }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_zone_leaves_the_other_zones() {
        let (capacity, places) = (Capacity::default(), places());
        capacity.no_room(&places[0], &places, &why("ZonalAllocationFailed"));
        assert_eq!(capacity.choose(&places, even), Ok(&places[1]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_zone_with_the_fewest_machines_is_next_and_never_a_size_that_is_less_wanted() {
        let (capacity, places) = (Capacity::default(), places());
        let machines_in = |zone: Option<&str>| if zone == Some("1") { 5 } else { 4 };
        assert_eq!(capacity.choose(&places, machines_in), Ok(&places[1]));
        capacity.no_room(&places[1], &places, &why("ZonalAllocationFailed"));
        assert_eq!(capacity.choose(&places, machines_in), Ok(&places[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_region_or_quota_leaves_the_other_sizes() {
        for code in ["AllocationFailed", "OperationNotAllowed", "QuotaExceeded"] {
            let (capacity, places) = (Capacity::default(), places());
            capacity.no_room(&places[0], &places, &why(code));
            assert_eq!(capacity.choose(&places, even), Ok(&places[2]), "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_is_full_it_says_until_when_and_then_looks_again() {
        let (capacity, places) = (Capacity::default(), places());
        for place in &places {
            capacity.no_room(place, &places, &why("AllocationFailed"));
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        let wait = capacity.choose(&places, even).unwrap_err();
        assert!(wait <= ALLOCATION, "{wait:?}");
        tokio::time::advance(wait).await;
        assert_eq!(capacity.choose(&places, even), Ok(&places[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_told_full_again_and_again_is_still_tried_again() {
        let (capacity, places) = (Capacity::default(), places());
        for _ in 0..20 {
            capacity.no_room(&places[0], &places[..1], &why("AllocationFailed"));
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        assert_eq!(capacity.choose(&places[..1], even), Ok(&places[0]));
    }
}
