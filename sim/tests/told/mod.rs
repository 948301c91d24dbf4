//! Histories that were made up for one bug each: where chance alone takes too long, or where only the history knows what was
//! promised. Each tells what went wrong, if anything did.

use boxpool::{
    BoxName, ConnectRequest, Key, Pool, PoolConfig, Session, Table, UserId, VolumeId, VolumeSource, VolumeState,
};
use boxpool_sim::backend::Operation;
use boxpool_sim::{
    CallId, Case, Event, Fate, Faults, Gateway, Happening, Kind, Op, Outcome, Pace, Parking, PoolShape, Refusal,
    SimCloud, Strike, What, corpus, golden, run, run_traced,
};
use std::path::Path;
use std::time::Duration;

pub(crate) type Told = fn() -> Option<String>;

/// One gateway, nothing goes wrong, every call takes milliseconds.
fn quiet(max_total: u32, ops: Vec<Op>) -> Case {
    Case {
        seed: 1,
        gateways: 1,
        pool: PoolShape {
            min_free: 0,
            max_free: 0,
            max_total,
            volumes_free: 1,
            linger: 0,
            park_limit: 20_000,
            destroy: false,
            forgets_epochs: false,
            ..PoolShape::default()
        },
        pace: Pace::Host,
        jitter: 0,
        faults: Faults::none(),
        script: Vec::new(),
        zones: 0,
        ops,
        events: Vec::new(),
        restart_after: 40_000,
    }
}

fn visit(at: u64, user: u8, stay: u64) -> Op {
    let what = What::Visit { stay, patience: 300_000, rude: false };
    Op { at, gateway: 0, user, name: user, what }
}

/// A machine is taken out of use: a user who was on it before goes elsewhere.
fn elsewhere(at: u64, gateway: usize) -> Op {
    Op { at, gateway, user: 9, name: 9, what: What::Cordon { nth: 0, drain: false } }
}

fn strike(operation: Operation, role: &str, nth: u32, fate: Fate) -> Strike {
    Strike { call: CallId { gateway: 0, operation, role: role.to_owned(), nth }, fate }
}

/// When somebody was connected to that box first.
fn connected(outcome: &Outcome, name: &str) -> Option<u64> {
    let found =
        |entry: &&boxpool_sim::Entry| entry.kind == Kind::User && entry.what == "connected" && entry.resource == name;
    outcome.trace.iter().find(found).map(|entry| entry.at)
}

fn first(outcome: &Outcome) -> Option<String> {
    outcome.violations.first().cloned()
}

/// With one machine, the second user stands in line before the third.
pub(crate) fn who_came_first_is_served_first() -> Option<String> {
    let outcome =
        run_traced(&quiet(1, vec![visit(5_000, 1, 60_000), visit(10_000, 2, 30_000), visit(20_000, 3, 30_000)]));
    let (second, third) = (connected(&outcome, "b2"), connected(&outcome, "b3"));
    let fair = second.is_some() && (third.is_none() || second < third);
    first(&outcome).or((!fair).then(|| format!("I6: the second came up at {second:?}, the third at {third:?}")))
}

/// No machine is kept, and whoever is not on the maintainer's node gets one all the same.
pub(crate) fn who_waits_elsewhere_is_provided_for() -> Option<String> {
    (0..2).find_map(|gateway| {
        let mut case = quiet(2, vec![Op { gateway, ..visit(40_000, 1, 1_000) }]);
        case.gateways = 2;
        let outcome = run(&case);
        first(&outcome).or((outcome.lives == 0).then(|| format!("I6: nobody came up through gateway {gateway}")))
    })
}

/// One create hangs for ten minutes; the other user's machine comes up meanwhile.
pub(crate) fn one_slow_create_does_not_hold_up_the_others() -> Option<String> {
    let mut case = quiet(3, vec![visit(1_000, 1, 1_000), visit(1_000, 2, 1_000)]);
    case.script = vec![strike(Operation::InstanceEnsure, "i00000", 1, Fate::Stuck { by: 600_000 })];
    let outcome = run(&case);
    first(&outcome).or((outcome.lives == 0).then(|| "I6: nobody came up beside a create that hangs".to_owned()))
}

/// A machine that was taken a moment ago and is free again is kept until the pool has cooled down.
pub(crate) fn what_was_just_used_is_kept_for_a_while() -> Option<String> {
    let delete = Op { at: 10_000, gateway: 0, user: 1, name: 1, what: What::Delete };
    first(&run(&quiet(1, vec![visit(5_000, 1, 0), delete])))
}

/// A machine's deletion is refused once; the machine goes all the same, and nobody has to find it.
pub(crate) fn a_refused_delete_is_no_delete() -> Option<String> {
    let mut case = quiet(1, vec![visit(5_000, 1, 0), visit(300_000, 2, 0)]);
    case.pool.destroy = true;
    case.script = vec![strike(Operation::InstanceDelete, "i00000", 1, Fate::Refuse(Refusal::Unavailable))];
    nothing_to_find(&run(&case))
}

/// The answer of a claim is lost; the claim is known all the same, and nobody has to find it.
pub(crate) fn a_claim_whose_answer_was_lost_is_known() -> Option<String> {
    let mut case = quiet(3, vec![visit(30_000, 1, 60_000)]);
    (case.pool.min_free, case.pool.max_free) = (2, 3);
    // The first update of a seat says that it is ready, the second that it is claimed.
    let lost = |seat| strike(Operation::StoreUpdate, seat, 2, Fate::LoseAnswer);
    case.script = vec![lost("i00000"), lost("i00001")];
    nothing_to_find(&run(&case))
}

fn nothing_to_find(outcome: &Outcome) -> Option<String> {
    let found = ["boxpool_claims_swept_total", "boxpool_orphans_total"]
        .iter()
        .find(|name| outcome.repairs.contains_key(**name));
    first(outcome).or(found.map(|found| format!("repairs: {found}")))
}

/// A gateway dies while its claim is on the way, and the claim arrives when its box has long been taken elsewhere.
pub(crate) fn a_claim_that_comes_late_is_swept() -> Option<String> {
    // Who makes the seat's record, and so how many updates of it come before the claim, is a matter of luck.
    (1..=3).find_map(|nth| {
        let mut case = quiet(2, vec![visit(30_000, 1, 1_000), Op { gateway: 1, ..visit(240_000, 2, 1_000) }]);
        case.gateways = 2;
        (case.pool.min_free, case.pool.max_free) = (1, 1);
        case.script = vec![strike(Operation::StoreUpdate, "i00000", nth, Fate::CrashLater { by: 120_000 })];
        first(&run(&case))
    })
}

/// A box is deleted through one gateway while another makes its volume: the volume goes, and nobody has to find it.
pub(crate) fn what_is_deleted_meanwhile_is_not_made_again() -> Option<String> {
    (1..40).find_map(|step| {
        let delete = Op { at: 30_000 + 250 * step, gateway: 1, user: 1, name: 1, what: What::Delete };
        let mut case = quiet(1, vec![visit(30_000, 1, 1_000), delete]);
        (case.gateways, case.pace, case.pool.volumes_free) = (2, Pace::Cloud, 0);
        nothing_to_find(&run(&case))
    })
}

/// Two boxes want one volume. The one that did not get it is left half made, and is deleted: the other keeps its own.
pub(crate) fn who_did_not_get_a_volume_does_not_take_it_along() -> Option<String> {
    let delete = Op { at: 100_000, gateway: 0, user: 2, name: 2, what: What::Delete };
    let mut case = quiet(2, vec![visit(40_000, 1, 1_000), Op { gateway: 1, ..visit(40_000, 2, 0) }, delete]);
    case.gateways = 2;
    let made = CallId { gateway: 1, operation: Operation::StoreInsert, role: "u2/b2".to_owned(), nth: 1 };
    case.script = vec![Strike { call: made, fate: Fate::CrashAfter }];
    first(&run(&case))
}

/// A gateway dies while it attaches, and the attach is done when the box runs elsewhere: it is refused.
pub(crate) fn an_attach_that_comes_late_takes_nothing_away() -> Option<String> {
    (1..12).find_map(|seed| {
        let again = Op { gateway: 1, ..visit(90_000, 1, 120_000) };
        let mut case = Case { seed, ..quiet(3, vec![visit(40_000, 1, 1_000), elsewhere(85_000, 1), again]) };
        (case.gateways, case.pool.forgets_epochs) = (2, true);
        (case.pool.min_free, case.pool.max_free) = (2, 3);
        case.script = vec![strike(Operation::Attach, "u1/b1", 1, Fate::CrashLater { by: 90_000 })];
        first(&run(&case))
    })
}

/// An attach is done a second time when the box has left: the box is fetched from there, and no other instance is doubted for it.
pub(crate) fn who_is_attached_elsewhere_is_fetched_from_there() -> Option<String> {
    (1..12).find_map(|seed| {
        let calm = quiet(4, vec![visit(60_000, 1, 0), elsewhere(170_000, 0), visit(180_000, 1, 0)]);
        let mut case = Case { seed, pace: Pace::Cloud, ..calm };
        (case.pool.min_free, case.pool.max_free, case.pool.forgets_epochs) = (3, 3, true);
        case.script = vec![strike(Operation::Attach, "u1/b1", 2, Fate::Twice { by: 70_000 })];
        let outcome = run(&case);
        let doubted = outcome.repairs.keys().any(|repair| repair == "boxpool_instances_doubted_total");
        first(&outcome)
            .or(doubted.then(|| "repairs: an instance was given up that had nothing to do with it".to_owned()))
    })
}

/// A box is deleted, the write that made it comes late, and another gateway deletes the volume that it had.
pub(crate) fn a_box_that_comes_back_keeps_its_volume() -> Option<String> {
    kept("a-box-comes-back-while-its-volume-goes.json")
}

/// A node that was cut off from the store for a while reads again.
pub(crate) fn who_was_cut_off_does_not_take_others_for_dead() -> Option<String> {
    kept("who-was-cut-off-takes-others-for-dead.json")
}

/// One gateway makes a disk for the box that the other deletes: neither waits for the other, and all is over in seconds.
pub(crate) fn who_makes_does_not_wait_for_who_deletes() -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/who-makes-waits-for-who-deletes.json");
    let outcome = run_traced(&corpus::Entry::read(&file).unwrap().case);
    let gone =
        |entry: &&boxpool_sim::Entry| entry.kind == Kind::Effect && entry.what == "ok" && entry.resource == "boxes/b2";
    let last = outcome.trace.iter().rfind(gone).map(|entry| entry.at);
    first(&outcome).or((last >= Some(70_000)).then(|| format!("I6: the box was looked at until {last:?}")))
}

/// What goes while it is deleted is deleted.
pub(crate) fn a_volume_may_go_while_it_is_deleted() -> Option<String> {
    kept("a-volume-goes-while-it-is-deleted.json")
}

/// A slow store takes seconds for each instance; only for those who still wait one more is begun.
pub(crate) fn only_for_those_who_still_wait_one_more_is_begun() -> Option<String> {
    kept("who-waited-waits-no-more.json")
}

/// The first of two inserts comes when its volume was used and deleted.
pub(crate) fn an_insert_that_comes_late_brings_no_name_back() -> Option<String> {
    kept("an-insert-comes-late.json")
}

/// That an instance is clean is told to nobody, because the answer is lost; meanwhile it serves another box, and is to be cleaned again.
pub(crate) fn what_was_clean_before_it_served_is_looked_at_again() -> Option<String> {
    kept("it-was-clean-before-it-served.json")
}

/// A clock that was ahead is put right after a box was parked by it.
pub(crate) fn who_was_parked_by_a_wrong_clock_goes_in_time() -> Option<String> {
    kept("parked-by-a-clock-that-was-ahead.json")
}

/// A cloud's list may show a machine that is gone, and its record with it.
pub(crate) fn a_list_of_the_past_shows_no_orphans() -> Option<String> {
    kept("a-list-of-the-past.json")
}

/// A box comes up while a snapshot is taken of it.
pub(crate) fn a_snapshot_of_a_box_that_came_up_meanwhile_is_none() -> Option<String> {
    kept("a-box-comes-up-while-it-is-copied.json")
}

/// A box that is to run without a session is brought up again when its machine is gone, though nobody asks.
pub(crate) fn what_is_kept_comes_up_again() -> Option<String> {
    let keep = Op { at: 42_000, gateway: 0, user: 1, name: 1, what: What::Keep { on: true } };
    let wait = Op { at: 190_000, what: What::List, ..keep.clone() };
    let mut case = quiet(2, vec![visit(40_000, 1, 1_000), keep, wait]);
    case.events = vec![Event { at: 60_000, what: Happening::KillInstance { nth: 0 } }];
    let outcome = run_traced(&case);
    let again =
        outcome.trace.iter().any(|entry| (60_000..190_000).contains(&entry.at) && entry.what.contains("start guest"));
    first(&outcome).or((!again).then(|| "contract: a box that is to run stays down".to_owned()))
}

/// Who has deleted a box can have it back for as long as was promised.
pub(crate) fn what_is_deleted_can_be_had_back_in_time() -> Option<String> {
    let delete = Op { at: 60_000, gateway: 0, user: 1, name: 1, what: What::Delete };
    let undelete = Op { at: 1_000_000, what: What::Undelete, ..delete.clone() };
    let mut case = quiet(2, vec![visit(40_000, 1, 1_000), delete, undelete]);
    case.pool.retention = 1_000_000;
    let outcome = run_traced(&case);
    let back = outcome.trace.iter().any(|entry| entry.kind == Kind::User && entry.what == "undelete: ok");
    first(&outcome).or((!back).then(|| "contract: a box went before its time was over".to_owned()))
}

/// A box may be deleted while its volume is bound for somebody who connects.
pub(crate) fn who_is_let_in_is_looked_at_when_the_volume_is_there() -> Option<String> {
    kept("a-connect-while-its-box-is-made-and-deleted.json")
}

/// A box that is left alone for a minute and is renamed then, in `gateways`.
fn renamed(gateways: usize, others: Vec<Op>) -> Case {
    let rename = Op { at: 90_000, gateway: 0, user: 1, name: 1, what: What::Rename { to: 2 } };
    let mut case = quiet(2, vec![visit(30_000, 1, 1_000), rename]);
    case.ops.extend(others);
    case.gateways = gateways;
    case
}

/// The record under the new name arrives when the rename was given up: it is no box, and goes, and the box is used as before.
pub(crate) fn what_is_left_of_a_rename_is_no_box() -> Option<String> {
    let mut case = renamed(2, vec![visit(130_000, 1, 60_000), visit(300_000, 1, 1_000)]);
    case.script = vec![strike(Operation::StoreInsert, "u1/b2", 1, Fate::Late { by: 60_000 })];
    first(&run(&case))
}

/// A gateway stands still in the middle of a rename, which another one gives up, and wakes when its record has arrived.
pub(crate) fn who_wakes_late_renames_nothing() -> Option<String> {
    (0..20).find_map(|step| {
        let by = 30_000 + 1_000 * step;
        let mut case = renamed(2, vec![Op { gateway: 1, ..visit(300_000, 1, 1_000) }]);
        case.script = vec![strike(Operation::StoreInsert, "u1/b2", 1, Fate::Stall { by })];
        case.events = vec![Event { at: 91_000, what: Happening::Pause { gateway: 0, time: by } }];
        first(&run(&case))
    })
}

/// While a box has two records it is in the list once.
pub(crate) fn what_is_being_renamed_is_listed_once() -> Option<String> {
    let list = |step: u64| Op { at: 90_500 + 500 * step, gateway: 1, user: 1, name: 1, what: What::List };
    let mut case = renamed(2, (0..10).map(list).collect());
    case.script = vec![strike(Operation::StoreDelete, "u1/b1", 1, Fate::Stall { by: 3_000 })];
    first(&run(&case))
}

/// A history of the corpus.
fn kept(file: &str) -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(file);
    first(&run(&corpus::Entry::read(&file).unwrap().case))
}

/// With one machine, which another gateway frees, whoever waits at this one is served.
pub(crate) fn what_another_gateway_frees_is_seen() -> Option<String> {
    let delete = Op { at: 60_000, gateway: 0, user: 1, name: 1, what: What::Delete };
    let mut case = quiet(1, vec![visit(30_000, 1, 60_000), Op { gateway: 1, ..visit(40_000, 2, 1_000) }, delete]);
    case.gateways = 2;
    // It stays when it is free, and there can be no other.
    (case.pool.min_free, case.pool.max_free) = (1, 1);
    let outcome = run_traced(&case);
    let in_time = connected(&outcome, "b2").is_some_and(|at| at < 120_000);
    first(&outcome).or((!in_time).then(|| "I6: who waited was not told that there is room".to_owned()))
}

/// With one machine, on which a box lingers for ten minutes after its user, the next one does not wait for that.
pub(crate) fn who_lingers_makes_room() -> Option<String> {
    let mut case = quiet(1, vec![visit(30_000, 1, 1_000), visit(60_000, 2, 1_000)]);
    case.pool.linger = 600_000;
    let outcome = run_traced(&case);
    let in_time = connected(&outcome, "b2").is_some_and(|at| at < 120_000);
    first(&outcome)
        .or((!in_time).then(|| "I6: who waited was not given the place of a box that only lingers".to_owned()))
}

/// A box whose owner is expected is attached ahead, and its owner does not come: it gives its instance back, and that goes. Where it is
/// attached again and again, that never ends; whether it shows at the end is up to the seed, and does in a third of them.
pub(crate) fn who_was_expected_in_vain_is_not_expected_again() -> Option<String> {
    let mut case = quiet(1, vec![visit(50_000, 1, 0)]);
    (case.pool.volumes_free, case.pool.linger, case.restart_after) = (0, 10_000, 100);
    case.pool.parking = Parking::ReturnTime(40_000);
    // The gateway begins late, and its clock is an hour ahead.
    case.events = vec![
        Event { at: 0, what: Happening::Pause { gateway: 0, time: 10_000 } },
        Event { at: 0, what: Happening::Clock { gateway: 0, ahead: 3_600_000 } },
    ];
    (0..30).find_map(|seed| first(&run(&Case { seed, ..case.clone() })))
}

/// A gateway dies while it stops a machine for the reserve, and the machine is lost after it: the record goes, too. How far the gateway
/// has come is up to the seed: half of them show it.
pub(crate) fn what_a_dead_gateway_was_stopping_is_no_reserve() -> Option<String> {
    let mut case = quiet(1, Vec::new());
    (case.pace, case.restart_after) = (Pace::Cloud, 100);
    (case.pool.volumes_free, case.pool.min_reserve, case.pool.max_reserve) = (0, 1, 2);
    case.events = vec![
        Event { at: 90_000, what: Happening::Crash { gateway: 0 } },
        Event { at: 120_000, what: Happening::KillInstance { nth: 0 } },
    ];
    (0..20).find_map(|seed| first(&run(&Case { seed, ..case.clone() })))
}

/// A request for a volume arrives once more when the volume is in use: nothing is lost.
pub(crate) fn a_request_for_a_volume_that_comes_twice_harms_nothing() -> Option<String> {
    let mut case = quiet(1, vec![visit(30_000, 1, 1_000), visit(120_000, 1, 1_000)]);
    case.pool.volumes_free = 0;
    case.script = vec![strike(Operation::VolumeEnsure, "u1/b1", 1, Fate::Twice { by: 60_000 })];
    first(&run(&case))
}

/// A gateway stands still while it gives an instance back, and goes on when the same box is there again.
pub(crate) fn who_wakes_late_does_not_end_a_later_claim() -> Option<String> {
    (0..1_500).find_map(|step| first(&run(&late(12 + step / 150, step % 150))))
}

pub(crate) fn late(seed: u64, step: u64) -> Case {
    let again = Op { gateway: 1, ..visit(100_000, 1, 60_000) };
    let mut case = Case { seed, ..quiet(1, vec![visit(20_000, 1, 0), again]) };
    (case.gateways, case.pace) = (2, Pace::Wild);
    (case.pool.min_free, case.pool.max_free) = (1, 1);
    let what = Happening::Pause { gateway: 0, time: 75_000 };
    case.events = vec![Event { at: 40_000 + 200 * step, what }];
    case
}

/// A used volume loses its record, as after a store was restored from a backup: it is kept for a person to look at.
pub(crate) fn a_used_volume_without_a_record_is_kept() -> Option<String> {
    used_volume_after(async |stage, volume| {
        stage.forget(Table::new("volumes"), volume.as_str(), volume.as_str()).await;
    })
}

/// The same when it is the box's record that is lost.
pub(crate) fn a_used_volume_without_a_box_is_kept() -> Option<String> {
    used_volume_after(async |stage, _| stage.forget(Table::new("boxes"), "u", "b").await)
}

struct Stage {
    cloud: SimCloud,
    gateway: Gateway,
    pool: Pool,
    config: PoolConfig,
}

impl Stage {
    async fn new() -> Self {
        let cloud = SimCloud::builder().seed(1).pace(Pace::Host).build().unwrap();
        let gateway = cloud.gateway().unwrap();
        let mut config = PoolConfig::new(VolumeSource::Snapshot(golden()), "g1");
        config.linger = Duration::from_secs(1);
        config.park_limit = Duration::from_secs(20);
        config.orphan_grace = Duration::from_secs(120);
        let (pool, worker) = gateway.pool(1, config.clone()).build().await.unwrap();
        gateway.spawn(worker.run());
        Self { cloud, gateway, pool, config }
    }

    async fn connect(&self) -> Session {
        self.pool.connect(ConnectRequest::new(UserId::new("u").unwrap(), BoxName::new("b").unwrap())).await.unwrap()
    }

    async fn forget(&self, table: Table, partition: &str, row: &str) {
        let key = Key::new(table, partition, row);
        let store = self.gateway.store();
        let found = store.get(&key).await.unwrap().unwrap();
        store.delete(&key, &found.version).await.unwrap();
    }
}

/// Uses a box, lets it come to rest, has its store damaged, and looks whether the volume survives an hour.
fn used_volume_after(damage: impl AsyncFnOnce(&Stage, &VolumeId)) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let stage = Stage::new().await;
        let (user, name) = (UserId::new("u").unwrap(), BoxName::new("b").unwrap());
        let volume = stage.pool.create_box(&user, &name).await.unwrap().volume;
        let session = stage.connect().await;
        stage.cloud.write(session.owner(), "what must not be lost").unwrap();
        session.release().await;
        stage.cloud.advance(stage.config.park_limit * 6).await.unwrap();
        damage(&stage, &volume).await;
        stage.cloud.advance(Duration::from_secs(3_600)).await.unwrap();
        let left = stage.gateway.volumes().get(&volume).await.unwrap();
        let kept = left.is_some_and(|view| view.state == VolumeState::Ready);
        (!kept).then(|| format!("I3: {volume} held a user's data and is gone"))
    })
}

/// Whoever finishes the placement of a gateway that died does not put its box onto a machine that was taken out of use meanwhile.
pub(crate) fn who_recovers_claims_nothing_out_of_use() -> Option<String> {
    (1..=3).find_map(|nth| {
        let cordon = Op { gateway: 1, what: What::Cordon { nth: 0, drain: false }, ..visit(62_000, 1, 0) };
        let again = Op { gateway: 1, ..visit(64_000, 1, 0) };
        let mut case = quiet(2, vec![visit(60_000, 1, 0), cordon, again]);
        case.gateways = 2;
        (case.pool.min_free, case.pool.max_free) = (1, 1);
        case.script = vec![strike(Operation::StoreUpdate, "i00000", nth, Fate::CrashBefore)];
        first(&run(&case))
    })
}

/// Four users come at once, and one machine may be begun a minute.
pub(crate) fn no_more_are_begun_than_may_be() -> Option<String> {
    let mut case = quiet(4, (1..=4).map(|user| visit(30_000, user, 200_000)).collect());
    case.pool.per_minute = 1;
    first(&run(&case))
}

/// A gateway stands still just when it is told that a box runs, for so long that another takes it for dead and the box off.
pub(crate) fn who_stood_still_gives_no_session_of_before() -> Option<String> {
    let mut case = quiet(1, vec![visit(10_000, 1, 0), visit(60_000, 1, 0)]);
    case.gateways = 2;
    let undisturbed = run_traced(&case);
    let answered = undisturbed.trace.iter().rfind(|entry| entry.kind == Kind::User && entry.what == "connected")?.at;
    (0..5).find_map(|before| {
        case.events = vec![Event { at: answered - before, what: Happening::Pause { gateway: 0, time: 60_000 } }];
        first(&run(&case))
    })
}

/// A gateway is cut off from the store for long enough to be taken for dead, and comes back while its user is still at work: the
/// other, which holds the box through a linger, does not take it away.
pub(crate) fn who_comes_back_holds_its_boxes_again() -> Option<String> {
    let mut case = quiet(1, vec![visit(10_000, 1, 300_000)]);
    case.gateways = 2;
    case.pool.linger = 60_000;
    let away = Happening::Partition { gateway: 0, store: true, cloud: false, time: 40_000 };
    case.events = vec![Event { at: 60_000, what: away }];
    let outcome = run_traced(&case);
    let first_of = |what: &str| outcome.trace.iter().find(|entry| entry.what.starts_with(what)).map(|entry| entry.at);
    let (suspended, left) = (first_of("suspend guest"), first_of("left"));
    let taken_away = left.is_none() || suspended.is_some_and(|at| Some(at) < left);
    first(&outcome)
        .or(taken_away.then(|| format!("I6: a user left at {left:?}, and their box was suspended at {suspended:?}")))
}

/// A gateway stands still while it deletes a box. Others bring that to its end, and the user makes another box of that name.
pub(crate) fn who_wakes_late_deletes_no_other_box() -> Option<String> {
    let delete = Op { at: 60_000, gateway: 0, user: 1, name: 1, what: What::Delete };
    let anew = Op { gateway: 1, ..visit(110_000, 1, 1_000) };
    let again = Op { gateway: 1, ..visit(200_000, 1, 1_000) };
    let mut case = quiet(2, vec![visit(10_000, 1, 1_000), delete, anew, again]);
    case.gateways = 2;
    case.script = vec![
        strike(Operation::VolumeDelete, "u1/b1", 1, Fate::StandStill { by: 60_000 }),
        // When it learns that the record is not the one it knew, it is in touch again.
        strike(Operation::StoreDelete, "u1/b1", 1, Fate::Stall { by: 9_000 }),
    ];
    let outcome = run_traced(&case);
    let made = outcome.trace.iter().filter(|entry| entry.kind == Kind::User && entry.what == "create: ok").count();
    first(&outcome).or((made != 2).then(|| format!("I3: two boxes were made, one after the other, and then {made}")))
}
