//! What every `InstanceProvider` promises.

use super::InstanceBench;
use boxpool::{ErrorKind, InstanceId, InstanceSpec, InstanceState};
use std::time::Duration;

/// How long an instance may take to be made or to go. The cloud's own are minutes; tests run on something quicker.
/// Clouds have taken ten minutes for what takes half a minute as a rule.
const LIMIT: Duration = Duration::from_secs(900);

/// Makes an instance and waits until it runs.
pub async fn ready_instance(bench: &(impl InstanceBench + ?Sized)) -> InstanceId {
    let id = bench.fresh_instance();
    let spec = InstanceSpec::new(id.clone(), "1");
    let made = async {
        while bench.instances().ensure(&spec).await.unwrap().state != InstanceState::Running {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("an instance becomes ready");
    id
}

async fn listed(bench: &impl InstanceBench, id: &InstanceId) -> bool {
    let mut cursor = None;
    loop {
        let page = bench.instances().list(cursor.as_ref()).await.unwrap();
        if page.items.iter().any(|view| view.id == *id) {
            return true;
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return false,
        }
    }
}

/// Making an instance again finds the one that is there.
pub async fn ensure_twice_is_one_instance(bench: impl InstanceBench) {
    let id = ready_instance(&bench).await;
    let again = bench.instances().ensure(&InstanceSpec::new(id.clone(), "1")).await.unwrap();
    assert_eq!((again.id, again.state), (id.clone(), InstanceState::Running));
    assert!(listed(&bench, &id).await);
}

/// What does not exist is `None`, not an error.
pub async fn an_absent_instance_is_none(bench: impl InstanceBench) {
    let id = bench.fresh_instance();
    assert!(bench.instances().get(&id).await.unwrap().is_none());
    assert!(!listed(&bench, &id).await);
}

/// Starting or stopping what does not exist says so.
pub async fn starting_or_stopping_an_absent_instance_is_not_found(bench: impl InstanceBench) {
    let id = bench.fresh_instance();
    assert_eq!(bench.instances().start(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.instances().stop(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Deleting may be repeated, and ends with the instance gone.
pub async fn a_deleted_instance_is_gone_and_deleting_may_be_repeated(bench: impl InstanceBench) {
    let id = ready_instance(&bench).await;
    bench.instances().delete(&id).await.unwrap();
    let gone = async {
        while bench.instances().get(&id).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("a deleted instance goes");
    bench.instances().delete(&id).await.unwrap();
    assert!(!listed(&bench, &id).await);
}

/// Makes one test of each promise. The expression makes an [`InstanceBench`](crate::conformance::InstanceBench); it may `.await`.
///
/// With `virtual` before it the tests run on one thread in virtual time, as a [`SimCloud`](crate::SimCloud) needs it.
#[macro_export]
macro_rules! instance_conformance {
    (@all $bench:tt) => {
        $crate::instance_conformance!(@each $bench
            ensure_twice_is_one_instance
            an_absent_instance_is_none
            starting_or_stopping_an_absent_instance_is_not_found
            a_deleted_instance_is_gone_and_deleting_may_be_repeated
        );
    };
    (@each [virtual $bench:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $promise() {
                $crate::conformance::instances::$promise($bench).await;
            }
        )*
    };
    (@each [$bench:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                $crate::conformance::instances::$promise($bench).await;
            }
        )*
    };
    (virtual $bench:expr) => {
        $crate::instance_conformance!(@all [virtual $bench]);
    };
    ($bench:expr) => {
        $crate::instance_conformance!(@all [$bench]);
    };
}
