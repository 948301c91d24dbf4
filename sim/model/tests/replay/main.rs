//! Model and code say the same: runs of the model are taken, step by step, with the real pool on a simulated cloud, and end in
//! the same state; and where a mistake that the model finds is planted in the code, too, the simulator's judges see it.

mod stage;

use boxpool::planted::Bug;
use boxpool_model::{Mark, Plan, Planted, Scope, explore, way_to};
use stage::replay_any;

/// Takes the shortest way of the sound model to `mark` with the real pool.
fn goes_the_same_way(scope: &Scope, mark: Mark) {
    let way = way_to(scope, mark, 2_000_000).unwrap_or_else(|| panic!("{mark:?} never happens in {scope:?}"));
    for (number, words) in way.words.iter().enumerate() {
        println!("{:>3}. {words}", number + 1);
    }
    let (picture, violations) = replay_any(scope, &way.steps, None);
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(picture, way.end, "the model ends otherwise");
}

macro_rules! ways {
    ($($name:ident: $mark:ident in $scope:expr;)*) => {$(
        #[test]
        fn $name() {
            goes_the_same_way(&$scope, Mark::$mark);
        }
    )*};
}

fn calm() -> Scope {
    Scope { losses: 0, crashes: 0, doubts: 0, deletes: false, ..Scope::one_box() }
}

fn deadly() -> Scope {
    Scope { crashes: 1, ..calm() }
}

fn doubtful() -> Scope {
    Scope { doubts: 1, ..calm() }
}

fn lossy() -> Scope {
    Scope { losses: 1, ..calm() }
}

ways! {
    a_parked_box_runs_again: ParkedReconnect in calm();
    two_nodes_hold_one_box: TwoHolders in calm();
    saved_memory_is_resumed: MemoryResumed in calm();
    a_used_instance_is_free_again: InstanceFreeAgain in calm();
    a_step_of_a_dead_node_is_taken_over: TakenFromDead in deadly();
    an_attach_lands_after_a_take_over: LateAttachAfterTakeOver in deadly();
    a_start_lands_after_its_caller_died: LateStart in deadly();
    a_record_is_written_after_its_writer_died: LateWrite in deadly();
    a_start_finds_its_guest_running: GuestAdopted in deadly();
    a_step_of_a_living_node_is_taken_over: TakenFromLiving in doubtful();
    a_start_with_an_old_epoch_is_refused: StartFenced in doubtful();
    a_claim_that_no_box_stands_for_is_swept: ClaimSwept in deadly();
    an_instance_in_doubt_is_deleted: InstanceDeleted in lossy();
    a_machine_is_deleted_to_get_a_volume_off_it: PulledOut in lossy();
    a_box_that_cannot_be_suspended_runs_on: RanOn in lossy();
    an_instance_is_claimed_by_another_in_between: ClaimLost in Scope { boxes: 2, instances: 1, epochs: 3, ..calm() };
    an_instance_serves_another_box: NextBoxServed in Scope { boxes: 2, instances: 1, epochs: 3, ..calm() };
    a_guest_is_found_gone_and_started_again: GuestLost in Scope { breakdowns: 1, ..calm() };
    a_box_is_deleted_to_the_end: BoxDeleted in Scope { deletes: true, ..calm() };
}

/// How much of a finding the pool does likewise.
enum Replay {
    /// All of it: it ends in the same state.
    Whole,
    /// As much as the way in which the bug was written allows.
    InEffect,
}

/// Takes the shortest way on which the model breaks `property` with `planted`, with the real pool and `bug` in it, then lets the
/// pool run on; by then the simulator's judges have seen a breach of `invariant`.
fn breaks_likewise(scope: &Scope, property: &str, bug: Bug, invariant: &str, replay: &Replay) {
    let plan = Plan { only: property.into(), ..Plan::default() };
    let finding = explore(scope, &plan, |_, _| {}).finding.expect("the mistake is found");
    println!("{finding}");
    let (picture, violations) = replay_any(&finding.scope, &finding.steps, Some(bug));
    println!("{violations:#?}");
    if let Replay::Whole = replay {
        assert_eq!(picture, finding.end, "the model ends otherwise");
    }
    assert!(violations.iter().any(|wrong| wrong.starts_with(invariant)), "{violations:#?}\n{picture:#?}");
}

macro_rules! mistakes {
    ($($name:ident: $planted:ident is $bug:ident in $scope:expr, breaks $property:literal, seen as $invariant:literal, $replay:ident;)*) => {$(
        #[test]
        fn $name() {
            breaks_likewise(&$scope.with(Planted::$planted), $property, Bug::$bug, $invariant, &Replay::$replay);
        }
    )*};
}

fn one() -> Scope {
    Scope { deletes: false, ..Scope::one_box() }
}

mistakes! {
    // The bug reads the version when it asks to write and not when it writes, so the write of the finding is refused; the
    // next one is not.
    a_claim_without_compare_and_swap:
        ClaimWithoutCas is ClaimWithoutCas in Scope::two_boxes(), breaks "I2", seen as "I2", InEffect;
    // Nothing in the records of the model says that an intent has an epoch of its own; the judges see it at once.
    a_take_over_that_keeps_the_epoch:
        TakeOverKeepsEpoch is TakeOverKeepsEpoch in one(), breaks "I4", seen as "I9", Whole;
    an_instance_freed_without_being_cleared:
        FreedWithoutClear is ReleaseWithoutLook in Scope::two_boxes(), breaks "I2", seen as "I2", Whole;
    a_volume_detached_from_under_a_guest:
        ForceFirst is DetachBeforeStop in one(), breaks "I1", seen as "I1", Whole;
    a_leave_that_stops:
        LeaveStops is StopsInsteadOfSuspending in one(), breaks "I4", seen as "I4", Whole;
    a_release_that_ignores_the_epoch:
        ReleaseIgnoresEpoch is ReleaseWithoutEpoch in Scope { losses: 0, crashes: 0, ..one() },
        breaks "I4: memory", seen as "I2", Whole;
}

/// The judges look at older epochs only among calls that changed something, and here the newer call found nothing to change.
/// So that the pool goes the whole way of the finding is all there is to see.
#[test]
fn a_runtime_without_a_fence() {
    let finding = explore(&one().with(Planted::NoFence), &Plan::default(), |_, _| {}).finding.expect("it is found");
    assert!(finding.property.starts_with("I9"), "{finding}");
    let (picture, _) = replay_any(&finding.scope, &finding.steps, Some(Bug::RuntimeWithoutFence));
    assert_eq!(picture, finding.end, "the model ends otherwise");
    assert!(!picture.guests[0].is_empty(), "a guest was started by a node whose epoch is over");
}

#[test]
fn a_node_that_lost_touch_in_the_middle_of_a_vacate_does_not_give_memory_up_untried() {
    for seed in 0..20 {
        let asked = stage::first_call_after_losing_touch(seed);
        // A write here would be the one that condemns the machine, with the guest running on it.
        let condemns = asked.contains(&boxpool_sim::backend::Operation::StoreUpdate);
        assert!(!condemns, "with seed {seed} it asks for {asked:?}");
    }
}
