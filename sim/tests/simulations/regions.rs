//! Several regions behind one front.

use boxpool::{BoxName, ErrorKind, UserId};
use boxpool_sim::regions::{Report, flows, open, region, replay, survey};
use boxpool_sim::{Pace, PoolShape, SimCloud};
use std::time::Duration;

#[test]
fn flows_over_regions_end_well_when_nothing_goes_wrong() {
    for flow in flows() {
        let (_, wrong) = replay(flow, &[]);
        assert!(wrong.is_empty(), "{flow}: {wrong:#?}");
    }
}

/// Of the second strikes after each first one, every so many-th is tried; `BOXPOOL_REGIONS_SECOND_EVERY` says otherwise.
const SECOND_EVERY: usize = 1_009;

#[test]
fn no_fault_at_any_call_leaves_a_box_without_a_home_or_with_two() {
    let said = std::env::var("BOXPOOL_REGIONS_SECOND_EVERY").ok();
    let second_every = said.map_or(SECOND_EVERY, |said| said.parse().unwrap());
    for report in survey("", second_every) {
        let Report { flow, points, second, longest, .. } = &report;
        eprintln!("{flow}: {points} points, {second} with a second strike, the longest took {longest:?}");
        assert!(report.failures.is_empty(), "{}: {:#?}", report.flow, report.failures);
        assert!(report.points > 0 && report.second > 0, "{} has no points", report.flow);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_to_delete_a_box_deletes_no_other_one() {
    let cloud = SimCloud::builder().pace(Pace::Host).regions(2).build().unwrap();
    let (here, there) = (cloud.gateway().unwrap(), cloud.gateway().unwrap());
    let config = PoolShape::default().config();
    let (waits, front) = (open(&here, 1, &config).await.unwrap(), open(&there, 1, &config).await.unwrap());
    let (user, name) = (UserId::new("u1").unwrap(), BoxName::new("dev1").unwrap());
    front.create_box(&user, &name, &region(0)).await.unwrap();

    let (mover, owner, called) = (front.clone(), user.clone(), name.clone());
    let moved = there.spawn(async move { mover.move_box(&owner, &called, &region(1)).await });
    cloud.advance(Duration::from_millis(20)).await.unwrap();
    let (owner, called) = (user.clone(), name.clone());
    let deleted = here.spawn(async move { waits.delete_box(&owner, &called).await });
    cloud.advance(Duration::from_millis(20)).await.unwrap();
    assert!(!moved.is_finished(), "the delete waits for the move");
    // For less than it takes to be taken for dead.
    cloud.pause_gateway(here.number(), true);
    moved.await.unwrap().unwrap();
    front.delete_box(&user, &name).await.unwrap();
    let made = front.create_box(&user, &name, &region(0)).await.unwrap();
    cloud.pause_gateway(here.number(), false);

    assert_eq!(deleted.await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(front.get_box(&user, &name).await.unwrap().map(|(_, view)| view.id), Some(made.id));
}

#[tokio::test(start_paused = true)]
async fn a_box_on_its_way_is_listed_once_and_as_such() {
    let cloud = SimCloud::builder().regions(2).build().unwrap();
    let gateway = cloud.gateway().unwrap();
    let front = open(&gateway, 1, &PoolShape::default().config()).await.unwrap();
    let (user, name) = (UserId::new("u1").unwrap(), BoxName::new("dev1").unwrap());
    front.create_box(&user, &name, &region(0)).await.unwrap();

    let listed = async || {
        let all = front.list_boxes(&user).await.unwrap();
        let [(there, view)] = all.as_slice() else { panic!("one box: {all:?}") };
        (there.clone(), view.state())
    };
    let mut seen = vec![listed().await];
    let (mover, owner, called) = (front.clone(), user.clone(), name.clone());
    let moved = gateway.spawn(async move { mover.move_box(&owner, &called, &region(1)).await });
    while !moved.is_finished() {
        cloud.advance(Duration::from_millis(10)).await.unwrap();
        seen.push(listed().await);
    }
    assert_eq!(moved.await.unwrap().unwrap().region, region(1));
    seen.push(listed().await);
    seen.dedup();
    let expected = [(0, "detached"), (0, "moving"), (1, "moving"), (1, "detached")];
    assert_eq!(seen, expected.map(|(number, state)| (region(number), state)));
}
