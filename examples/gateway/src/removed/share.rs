//! Connections of guests whose share of a box was removed are ended: at once at the gateway where it was removed, and at the
//! others when they look the next time.
//!
//! Each gateway reads the boxes that somebody else than their owner uses here, every few seconds; nothing is asked while
//! there are none.

use crate::connection::Connection;
use crate::server::Gateway;
use crate::visit::Ending;
use boxpool::{BoxName, Report, UserId};
use std::collections::BTreeSet;
use std::sync::Arc;

const WHY: &str =
    "a box that you were in is not shared with you any more; what else you had open here may be opened again";

pub(super) async fn look(gateway: &Gateway) {
    let all = gateway.operator.sessions.all();
    let used: BTreeSet<(UserId, BoxName)> = all.iter().flat_map(|connection| connection.boxes_of_others()).collect();
    for (owner, name) in used {
        match gateway.boxes.get(&owner, &name).await {
            Ok(found) => {
                let shares = found.map(|found| found.shares).unwrap_or_default();
                end(gateway, &owner, &name, |guest| !shares.iter().any(|share| share.account == *guest));
            }
            // An outage of the store is told by many others; the next look makes up for this one.
            Err(error) => tracing::warn!(%owner, box_name = %name, error = %Report(&error), "shares not looked up"),
        }
    }
}

/// Ends the connections that use the box `name` of `owner` as a guest whose share is `removed`. Answers how many.
pub(crate) fn end(gateway: &Gateway, owner: &UserId, name: &BoxName, removed: impl Fn(&UserId) -> bool) -> usize {
    let is_meant = |connection: &Arc<Connection>| {
        let uses = connection.boxes_of_others().iter().any(|(of, used)| of == owner && used == name);
        uses && !connection.visit.is_ending() && connection.account().is_ok_and(|guest| removed(&guest.id))
    };
    let mut meant = gateway.operator.sessions.all();
    meant.retain(is_meant);
    for each in &meant {
        tracing::info!(%owner, box_name = %name, peer = %each.peer, "ended: the box is not shared with them any more");
        each.dismiss(Ending::ShareRemoved, WHY);
    }
    meant.len()
}
