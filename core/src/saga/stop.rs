//! Stop a box on its owner's word: `Running`, `Parked` → `Detaching` → `Detached`, and its memory is dropped.
//!
//! The intent is one write: the step, and that memory is to be forgotten (`forget_memory`). From then on whoever goes on with the
//! box, here or on another node, shuts the guest down and does not suspend it, and whoever places the box drops what was saved
//! before it starts a guest. Only a write that follows such a drop takes the mark back. So if the process dies anywhere here, the
//! memory may lie on the volume for longer, but it is never resumed.
//!
//! A detached box is not brought to an instance only for that: the mark alone is written, and the next start drops the memory.

use super::change::is_overtaken;
use crate::actor::Actor;
use crate::error::Result;
use crate::record::{BoxRecord, EventKind, Mode, Placement, PlacementEvent};
use tokio::time::Instant;

impl Actor {
    /// Shuts the box down, and grows its volume while it is down when asked to.
    pub(crate) async fn stop(&mut self, grow_to: Option<u64>, deadline: Instant) -> Result<BoxRecord> {
        loop {
            match self.try_stop(grow_to, deadline).await {
                Err(error) if is_overtaken(&error) && Instant::now() < deadline => {
                    self.held = None;
                }
                answer => return answer,
            }
        }
    }

    async fn try_stop(&mut self, grow_to: Option<u64>, deadline: Instant) -> Result<BoxRecord> {
        let found = self.at_rest("stop box", deadline).await?;
        let node = self.shared.node.clone();
        let mut record = match found.record.placement {
            Placement::Detached => found.record.clone(),
            _ => self.after(&found, &PlacementEvent::Stop { node })?,
        };
        record.forget_memory = true;
        if grow_to.is_none() {
            record.mode = Mode::SuspendOnLeave;
        }
        record.grow_to = record.grow_to.max(grow_to);
        record.holders.clear();
        if record == found.record {
            return self.grown(found).await.map(|held| held.record.clone());
        }
        let held = self.write(&found, record).await?;
        self.end_sessions();
        self.shared.state().parked.remove(&held.record.owner);
        self.log_of(&held, EventKind::BoxStopped);
        if matches!(found.record.placement, Placement::Running { .. }) {
            self.log_stay(&held);
        }
        let held = match self.vacate(held, false, false).await {
            Ok(()) => self.load().await?,
            // Another node took this one for dead, and goes on with it.
            Err(error) if is_overtaken(&error) => {
                let held = self.at_rest("stop box", deadline).await?;
                if held.record.grow_to.is_some() && held.record.placement != Placement::Detached {
                    // Somebody has even started it again, with the volume that it had.
                    return Err(error);
                }
                held
            }
            Err(error) => return Err(error),
        };
        self.grown(held).await.map(|held| held.record.clone())
    }
}
