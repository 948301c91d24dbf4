//! Everything that the simulator has to say about the core, in one test that ends at the first thing that is wrong: what
//! `cargo mutants` asks about each mutant. The same is done by the other tests, with more histories, and to the end.
#![allow(clippy::unwrap_used)]

mod told;

use boxpool_sim::crashpoints::{Options, survey};
use boxpool_sim::{Case, Profile, corpus, run};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use told::Told;

/// Histories of each profile, unless `BOXPOOL_VERDICT_SEEDS` says otherwise; with fewer there are no crash points either.
const SEEDS: u64 = 300;
/// Fewer situations than this are reached only when something does not happen any more.
const FEWEST_SITUATIONS: usize = 150;

const TOLD: &[Told] = &[
    told::who_came_first_is_served_first,
    told::who_waits_elsewhere_is_provided_for,
    told::one_slow_create_does_not_hold_up_the_others,
    told::what_was_just_used_is_kept_for_a_while,
    told::a_refused_delete_is_no_delete,
    told::a_claim_whose_answer_was_lost_is_known,
    told::a_claim_that_comes_late_is_swept,
    told::an_insert_that_comes_late_brings_no_name_back,
    told::a_list_of_the_past_shows_no_orphans,
    told::what_was_clean_before_it_served_is_looked_at_again,
    told::who_was_parked_by_a_wrong_clock_goes_in_time,
    told::who_stood_still_gives_no_session_of_before,
    told::who_comes_back_holds_its_boxes_again,
    told::who_wakes_late_deletes_no_other_box,
    told::a_snapshot_of_a_box_that_came_up_meanwhile_is_none,
    told::what_is_deleted_meanwhile_is_not_made_again,
    told::who_did_not_get_a_volume_does_not_take_it_along,
    told::an_attach_that_comes_late_takes_nothing_away,
    told::who_is_attached_elsewhere_is_fetched_from_there,
    told::a_box_that_comes_back_keeps_its_volume,
    told::who_was_cut_off_does_not_take_others_for_dead,
    told::who_makes_does_not_wait_for_who_deletes,
    told::a_volume_may_go_while_it_is_deleted,
    told::only_for_those_who_still_wait_one_more_is_begun,
    told::what_another_gateway_frees_is_seen,
    told::who_lingers_makes_room,
    told::a_request_for_a_volume_that_comes_twice_harms_nothing,
    told::a_used_volume_without_a_record_is_kept,
    told::a_used_volume_without_a_box_is_kept,
    told::what_is_kept_comes_up_again,
    told::what_is_deleted_can_be_had_back_in_time,
    told::who_is_let_in_is_looked_at_when_the_volume_is_there,
    told::what_is_left_of_a_rename_is_no_box,
    told::who_wakes_late_renames_nothing,
    told::what_is_being_renamed_is_listed_once,
    told::who_recovers_claims_nothing_out_of_use,
    told::no_more_are_begun_than_may_be,
    told::who_was_expected_in_vain_is_not_expected_again,
    told::what_a_dead_gateway_was_stopping_is_no_reserve,
];

fn is_sound(what: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{what}: {}", violations[0]);
}

/// Runs these histories of each profile and notes what situations they reach.
fn histories(seeds: Range<u64>, reached: &mut BTreeSet<String>) {
    for seed in seeds {
        for profile in Profile::ALL {
            let outcome = run(&Case::random(seed, profile));
            is_sound(&format!("seed {seed} of {profile:?}"), &outcome.violations);
            reached.extend(outcome.marks.into_keys());
        }
    }
}

fn told(histories: &[Told]) {
    for (number, history) in histories.iter().enumerate() {
        is_sound(&format!("told history {number}"), &history().into_iter().collect::<Vec<_>>());
    }
}

/// What ends soonest when something is wrong comes first.
#[test]
#[ignore = "for cargo mutants, which asks for it by name"]
fn the_core_is_sound() {
    let seeds = std::env::var("BOXPOOL_VERDICT_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let mut reached = BTreeSet::new();
    histories(0..seeds.min(10), &mut reached);
    for (name, entry) in corpus::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap() {
        is_sound(&name, &run(&entry.case).violations);
    }
    told(TOLD);
    histories(seeds.min(10)..seeds, &mut reached);
    assert!(reached.len() >= FEWEST_SITUATIONS, "only {} situations: {reached:?}", reached.len());
    if seeds < SEEDS {
        return;
    }
    // Hundreds of histories by itself.
    told(&[told::who_wakes_late_does_not_end_a_later_claim]);
    let mut options = Options::default();
    options.threads = 1;
    survey(&options, |report| {
        let failures: Vec<String> = report.failures.iter().map(|(point, what)| format!("{what} at {point}")).collect();
        is_sound(report.flow, &failures);
        assert!(report.most_repairs <= 6, "{} took {} repairs", report.flow, report.most_repairs);
        assert!(report.points >= 40, "{} has only {} points", report.flow, report.points);
    });
}
