//! Connections end whose key, or whose share of a box, was removed: at once at the gateway where that was done, and at the others when they
//! look the next time.

pub(crate) mod key;
pub(crate) mod share;

use crate::server::Gateway;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often each gateway looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks again and again, for as long as it is awaited.
pub(crate) async fn watch(gateway: Arc<Gateway>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        tokio::join!(key::look(&gateway), share::look(&gateway));
    }
}
