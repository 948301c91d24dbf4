//! Connections whose key was removed from its account are ended: at once at the gateway where it was removed, and at the
//! others when they look the next time.
//!
//! Each gateway asks the store one question every few seconds, whoever is connected to it; only of an account that removed a
//! key lately, and has a connection here, the list of keys is read as well.

use crate::account::KeyId;
use crate::server::Gateway;
use crate::visit::{Ending, VisitId};
use boxpool::{Clock, Report, Result, SystemClock, UserId};

const WHY: &str = "the key that you logged in with was removed from your account; log in with another one";

pub(super) async fn look(gateway: &Gateway) {
    // An outage of the store is told by many others; the next look makes up for this one.
    if gateway.operator.sessions.count() > 0
        && let Err(error) = look_once(gateway).await
    {
        tracing::warn!(error = %Report(&error), "removed keys not looked up");
    }
}

async fn look_once(gateway: &Gateway) -> Result<()> {
    let sessions = &gateway.operator.sessions;
    for account in gateway.accounts.removals(SystemClock.now()).await? {
        if sessions.of(&account).is_empty() {
            continue;
        }
        if let Some(listed) = gateway.accounts.listed_keys(&account).await? {
            end(gateway, &account, None, |key| !listed.contains(key));
        }
    }
    Ok(())
}

/// Ends the connections of `account` whose key is `removed`, but for `but`. Answers how many.
pub(crate) fn end(
    gateway: &Gateway,
    account: &UserId,
    but: Option<VisitId>,
    removed: impl Fn(&KeyId) -> bool,
) -> usize {
    let mut meant = gateway.operator.sessions.of(account);
    meant.retain(|each| Some(each.visit.id) != but && !each.visit.is_ending());
    meant.retain(|each| each.visit.proven_key().is_some_and(&removed));
    for each in &meant {
        tracing::info!(%account, peer = %each.peer, "ended: its key was removed");
        each.dismiss(Ending::KeyRemoved, WHY);
    }
    meant.len()
}
