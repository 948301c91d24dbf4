//! What every [`InstanceProvider`] promises.

use super::until;
use boxpool::{Cursor, ErrorKind, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What an instance provider under test brings along.
pub trait InstanceBench: Send + Sync {
    /// The provider under test.
    fn instances(&self) -> Arc<dyn InstanceProvider>;
    /// An id that no instance ever had.
    fn fresh(&self) -> InstanceId;
    /// A generation that the provider can make.
    fn generation(&self) -> String;
    /// How long making, stopping or deleting an instance may take.
    fn patience(&self) -> Duration;
}

/// Makes one test of each promise of [`InstanceProvider`]. See [the suites](crate::conformance) for its arguments.
///
/// Capability `reserve`: instances can be stopped and started again.
#[macro_export]
macro_rules! instance_conformance {
    ($(#[$attribute:meta])* $bench:expr $(, $capability:ident)* $(,)?) => {
        $crate::instance_conformance! { @all [$(#[$attribute])*] $bench; $($capability)* }
    };
    (@all $attributes:tt $bench:expr; $($capability:ident)*) => {
        $crate::conformance_tests! { $attributes instances $bench;
            an_ensured_instance_comes_to_run,
            ensuring_again_finds_the_same_instance,
            ensuring_at_once_makes_one_instance,
            an_absent_instance_is_none,
            the_generation_is_reported,
            every_instance_is_listed_once,
            starting_a_running_instance_changes_nothing,
            starting_or_stopping_an_absent_instance_is_not_found,
            a_deleted_instance_ends_in_absence,
            deleting_again_or_what_never_was_is_success,
            deleting_one_instance_leaves_the_others,
        }
        $( $crate::instance_conformance! { @$capability $attributes $bench; } )*
    };
    (@reserve $attributes:tt $bench:expr;) => {
        $crate::conformance_tests! { $attributes instances $bench;
            a_stopped_instance_is_kept_and_starts_again,
            stopping_a_stopped_instance_changes_nothing,
            a_stopped_instance_can_be_deleted,
        }
    };
}

fn spec(bench: &impl InstanceBench, id: &InstanceId) -> InstanceSpec {
    InstanceSpec::new(id.clone(), bench.generation())
}

async fn running(bench: &impl InstanceBench) -> InstanceId {
    let id = bench.fresh();
    bench.instances().ensure(&spec(bench, &id)).await.unwrap();
    reach(bench, &id, &InstanceState::Running).await;
    id
}

async fn reach(bench: &impl InstanceBench, id: &InstanceId, state: &InstanceState) {
    let instances = bench.instances();
    until(&format!("instance {id} becomes {state:?}"), bench.patience(), async || {
        let view = instances.get(id).await.unwrap().unwrap_or_else(|| panic!("{id} is there"));
        assert!(!matches!(view.state, InstanceState::Failed(_)), "{view:?}");
        (view.state == *state).then_some(())
    })
    .await;
}

async fn remove(bench: &impl InstanceBench, id: &InstanceId) {
    let instances = bench.instances();
    instances.delete(id).await.unwrap();
    until(&format!("instance {id} is gone"), bench.patience(), async || {
        instances.get(id).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// Every instance of every page, by id, and how often it was listed.
async fn listed(bench: &impl InstanceBench) -> BTreeMap<InstanceId, Vec<InstanceView>> {
    let mut found: BTreeMap<InstanceId, Vec<InstanceView>> = BTreeMap::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = bench.instances().list(cursor.as_ref()).await.unwrap();
        for view in page.items {
            found.entry(view.id.clone()).or_default().push(view);
        }
        match page.next {
            Some(next) => {
                assert_ne!(cursor.as_ref(), Some(&next), "the listing does not get on");
                cursor = Some(next);
            }
            None => return found,
        }
    }
}

/// `ensure` begins; the instance runs some time later.
pub async fn an_ensured_instance_comes_to_run(bench: &impl InstanceBench) {
    let id = bench.fresh();
    let view = bench.instances().ensure(&spec(bench, &id)).await.unwrap();
    assert_eq!(view.id, id);
    assert!(matches!(view.state, InstanceState::Creating | InstanceState::Running), "{view:?}");
    reach(bench, &id, &InstanceState::Running).await;
    remove(bench, &id).await;
}

/// Repeating it after a lost answer is safe.
pub async fn ensuring_again_finds_the_same_instance(bench: &impl InstanceBench) {
    let id = running(bench).await;
    let before = bench.instances().get(&id).await.unwrap().unwrap();

    let again = bench.instances().ensure(&spec(bench, &id)).await.unwrap();

    assert_eq!(again, before);
    assert_eq!(listed(bench).await.get(&id).map(Vec::len), Some(1));
    remove(bench, &id).await;
}

/// Several nodes that make the same instance make one.
pub async fn ensuring_at_once_makes_one_instance(bench: &impl InstanceBench) {
    let id = bench.fresh();
    let racers: Vec<_> = (0..4)
        .map(|_| {
            let (instances, spec) = (bench.instances(), spec(bench, &id));
            tokio::spawn(async move { instances.ensure(&spec).await })
        })
        .collect();
    let mut made = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(view) => {
                assert_eq!(view.id, id);
                made += 1;
            }
            // A loser may be told to come again, but no more than that.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
    }
    assert!(made > 0);
    reach(bench, &id, &InstanceState::Running).await;
    assert_eq!(listed(bench).await.get(&id).map(Vec::len), Some(1));
    remove(bench, &id).await;
}

/// `None` is a sure answer.
pub async fn an_absent_instance_is_none(bench: &impl InstanceBench) {
    let id = bench.fresh();
    assert_eq!(bench.instances().get(&id).await.unwrap(), None);
    assert!(!listed(bench).await.contains_key(&id));
}

/// The pool tells old machines from new ones by it.
pub async fn the_generation_is_reported(bench: &impl InstanceBench) {
    let id = running(bench).await;
    assert_eq!(bench.instances().get(&id).await.unwrap().unwrap().generation, bench.generation());
    assert_eq!(listed(bench).await[&id][0].generation, bench.generation());
    remove(bench, &id).await;
}

/// What is ours is found by listing it.
pub async fn every_instance_is_listed_once(bench: &impl InstanceBench) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(running(bench).await);
    }
    // A listing may lag behind, so it is waited for; but it never shows an instance twice.
    until("all instances are listed", bench.patience(), async || {
        let found = listed(bench).await;
        assert!(found.values().all(|views| views.len() == 1), "{found:?}");
        ids.iter().all(|id| found.contains_key(id)).then_some(())
    })
    .await;
    for id in ids {
        remove(bench, &id).await;
    }
}

/// Already so is success.
pub async fn starting_a_running_instance_changes_nothing(bench: &impl InstanceBench) {
    let id = running(bench).await;
    let before = bench.instances().get(&id).await.unwrap().unwrap();

    let started = bench.instances().start(&id).await.unwrap();

    assert_eq!(started, before);
    remove(bench, &id).await;
}

/// Nothing is made by the way.
pub async fn starting_or_stopping_an_absent_instance_is_not_found(bench: &impl InstanceBench) {
    let id = bench.fresh();
    assert_eq!(bench.instances().start(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.instances().stop(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.instances().get(&id).await.unwrap(), None);
}

/// `delete` begins; the instance is gone when `get` says so, and it does not come back.
pub async fn a_deleted_instance_ends_in_absence(bench: &impl InstanceBench) {
    let id = running(bench).await;
    remove(bench, &id).await;
    assert_eq!(bench.instances().get(&id).await.unwrap(), None);
    until("it is not listed any more", bench.patience(), async || {
        (!listed(bench).await.contains_key(&id)).then_some(())
    })
    .await;
}

/// Absent is success.
pub async fn deleting_again_or_what_never_was_is_success(bench: &impl InstanceBench) {
    let id = running(bench).await;
    bench.instances().delete(&id).await.unwrap();
    bench.instances().delete(&id).await.unwrap();
    remove(bench, &id).await;
    bench.instances().delete(&id).await.unwrap();
    bench.instances().delete(&bench.fresh()).await.unwrap();
}

/// One instance's end is no other's.
pub async fn deleting_one_instance_leaves_the_others(bench: &impl InstanceBench) {
    let (going, staying) = (running(bench).await, running(bench).await);
    remove(bench, &going).await;
    let view = bench.instances().get(&staying).await.unwrap().unwrap();
    assert_eq!(view.state, InstanceState::Running);
    remove(bench, &staying).await;
}

/// The reserve: stopped, and running again.
pub async fn a_stopped_instance_is_kept_and_starts_again(bench: &impl InstanceBench) {
    let id = running(bench).await;
    let view = bench.instances().stop(&id).await.unwrap();
    assert!(matches!(view.state, InstanceState::Stopping | InstanceState::Stopped), "{view:?}");
    reach(bench, &id, &InstanceState::Stopped).await;

    bench.instances().start(&id).await.unwrap();

    reach(bench, &id, &InstanceState::Running).await;
    remove(bench, &id).await;
}

/// Already so is success.
pub async fn stopping_a_stopped_instance_changes_nothing(bench: &impl InstanceBench) {
    let id = running(bench).await;
    bench.instances().stop(&id).await.unwrap();
    reach(bench, &id, &InstanceState::Stopped).await;

    bench.instances().stop(&id).await.unwrap();

    reach(bench, &id, &InstanceState::Stopped).await;
    remove(bench, &id).await;
}

/// The reserve shrinks as well.
pub async fn a_stopped_instance_can_be_deleted(bench: &impl InstanceBench) {
    let id = running(bench).await;
    bench.instances().stop(&id).await.unwrap();
    reach(bench, &id, &InstanceState::Stopped).await;
    remove(bench, &id).await;
}
