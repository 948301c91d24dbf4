//! Snapshots of boxes that nobody is at work on any more, and such that have no record. Each node looks at what it has left itself and
//! the dead have left, with each census; the maintainer alone asks the provider, unless it is told to rest.

use crate::error::Result;
use crate::id::SnapshotId;
use crate::planted::{self, Bug};
use crate::record::SnapshotRecord;
use crate::records::Held;
use crate::saga::MARK;
use crate::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

impl Shared {
    /// `strays` is what had no record when it was looked last, and since when.
    pub(crate) async fn look_at_snapshots(self: &Arc<Self>, strays: &mut BTreeMap<SnapshotId, Instant>) -> Result<()> {
        // The provider's before the records: a record is there before its snapshot is.
        let there =
            if self.is_maintainer() && !self.is_paused() { self.snapshots_there().await } else { Ok(Vec::new()) };
        let mut there = there.map(BTreeSet::from_iter);
        let see = |_, held: Held<SnapshotRecord>| {
            self.look_at_snapshot(&held);
            if let Ok(there) = &mut there {
                there.remove(&held.record.id);
            }
        };
        self.records.scan_each(None, see).await?;
        let there: BTreeSet<SnapshotId> = match there {
            Ok(there) => there,
            Err(error) => {
                tracing::warn!(error = %crate::Report(&error), "snapshots could not be listed; the next census tries again");
                return Ok(());
            }
        };
        let grace = planted::grace(self.config.orphan_grace);
        let mut seen = BTreeMap::new();
        for id in there {
            let since = strays.get(&id).copied().unwrap_or_else(Instant::now);
            if since.elapsed() >= grace {
                tracing::warn!(snapshot = %id, "a snapshot without a record is deleted");
                metrics::counter!("boxpool_orphans_total", "of" => "snapshot").increment(1);
                if let Err(error) = self.volumes.delete_snapshot(&id).await {
                    tracing::warn!(snapshot = %id, error = %crate::Report(&error), "it could not be deleted; the next census tries again");
                }
            }
            seen.insert(id, since);
        }
        *strays = seen;
        Ok(())
    }

    /// Those of boxes that the provider has.
    async fn snapshots_there(&self) -> Result<Vec<SnapshotId>> {
        let mut there = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.volumes.list_snapshots(cursor.as_ref()).await?;
            there.extend(page.items.into_iter().map(|view| view.id).filter(|id| id.as_str().starts_with(MARK)));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(there),
            }
        }
    }

    /// One that is being taken or deleted by nobody any more is deleted: its owner was never told that it was taken.
    fn look_at_snapshot(self: &Arc<Self>, held: &Held<SnapshotRecord>) {
        let Some(node) = held.record.status.worker() else { return };
        if planted::is(Bug::NoRecoveryOfSnapshots) || *node != self.node && !self.is_dead(node) {
            return;
        }
        // Our own may be under way.
        let Some(guard) = self.busy.enter(held.record.id.as_str()) else { return };
        let (shared, held) = (Arc::clone(self), held.clone());
        self.spawn(async move {
            let _guard = guard;
            if let Err(error) = shared.remove_snapshot(&held).await {
                tracing::info!(error = %crate::Report(&error), "a snapshot that was half taken or half deleted is left for the next census");
            }
        });
    }
}
