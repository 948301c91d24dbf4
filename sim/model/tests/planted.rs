//! The model can fail: each planted mistake is found, and the property that it breaks is the one it should.

use boxpool_model::{Backend, Finding, Plan, Planted, Scope, explore};
use std::time::Duration;

fn found(scope: &Scope, only: &str) -> Finding {
    let plan = Plan { limit: Duration::from_secs(60), only: only.into(), ..Plan::default() };
    let outcome = explore(scope, &plan, |_, _| {});
    println!("{outcome}\n  {scope:?}");
    let finding = outcome.finding.unwrap_or_else(|| panic!("nothing was found in {scope:?}"));
    println!("{finding}");
    finding
}

fn one() -> Scope {
    Scope { deletes: false, ..Scope::one_box() }
}

macro_rules! planted {
    ($($name:ident: $mistake:ident in $scope:expr, breaks $property:literal;)*) => {$(
        #[test]
        fn $name() {
            let finding = found(&$scope.with(Planted::$mistake), "");
            assert!(finding.property.starts_with($property), "{finding}");
        }
    )*};
}

planted! {
    a_claim_without_compare_and_swap_is_found: ClaimWithoutCas in Scope::two_boxes(), breaks "I2";
    a_runtime_without_a_fence_is_found: NoFence in one(), breaks "I9";
    a_take_over_that_keeps_the_epoch_is_found: TakeOverKeepsEpoch in one(), breaks "I4";
    a_sweep_with_the_boxs_current_epoch_is_found: SweepWithCurrentEpoch in one(), breaks "I4";
    a_sweep_that_reads_the_box_first_is_found: SweepReadsBoxFirst in one(), breaks "I2";
    a_sweep_that_deletes_volumes_is_found: SweepDeletesVolume in one(), breaks "I3";
    an_instance_freed_before_the_detach_is_found: FreedBeforeDetach in one(), breaks "I2";
    an_instance_freed_without_being_cleared_is_found: FreedWithoutClear in Scope::two_boxes(), breaks "I2";
    an_unknown_outcome_taken_as_success_is_found: UnknownIsSuccess in one(), breaks "I4";
    a_result_written_without_compare_and_swap_is_found: RunWithoutCas in one(), breaks "I4";
    a_volume_pulled_by_force_first_is_found: ForceFirst in one(), breaks "I1";
    a_backend_that_attaches_twice_is_found:
        AttachNotExclusive in Scope { backend: Backend::Cloud, epochs: 4, ..one() }, breaks "I1";
    a_leave_that_stops_is_found: LeaveStops in one(), breaks "I4";
}

#[test]
fn a_runtime_that_forgets_epochs_of_volumes_it_does_not_see_loses_memory() {
    let scope = Scope { backend: Backend::CloudForgetful, epochs: 4, ..one() };
    assert!(found(&scope, "").property.starts_with("I4"));
}

#[test]
fn a_release_that_ignores_the_epoch_ends_a_newer_claim() {
    let scope = Scope { losses: 0, crashes: 0, ..one() }.with(Planted::ReleaseIgnoresEpoch);
    let finding = found(&scope, "I4: memory");
    assert!(finding.steps.iter().any(|step| step.step == "retire.delete.machine"), "{finding}");
}

#[test]
fn a_machine_deleted_without_a_record_of_it_takes_another_boxs_guest_along() {
    let finding = found(&Scope::two_boxes().with(Planted::PullOutUnrecorded), "I4");
    assert!(finding.steps.last().is_some_and(|step| step.step == "delete.machine" && step.fate == "late"), "{finding}");
}

#[test]
fn a_ladder_that_ends_the_claim_before_it_condemns_the_instance_frees_it_too_early() {
    let scope = Scope { losses: 2, ..one() }.with(Planted::PullOutInTwoWrites);
    assert!(found(&scope, "").property.starts_with("I2: a free instance"));
}

#[test]
fn a_finding_is_told_in_words_and_as_json_steps() {
    let finding = found(&one().with(Planted::ForceFirst), "");
    assert_eq!(finding.words.len(), finding.steps.len());
    assert!(finding.words[0].contains("claim.box box 0 instance"), "{finding}");
    let json: serde_json::Value = serde_json::from_str(&finding.json().unwrap()).unwrap();
    let first = json["steps"][0].as_object().unwrap();
    assert_eq!(first["step"], "claim.box");
    assert_eq!(first["fate"], "done");
    assert!(["node", "box", "instance", "epoch"].iter().all(|what| first[*what].is_number()), "{first:?}");
    assert_eq!(json["scope"]["planted"], "force_first");
}
