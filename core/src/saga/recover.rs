//! Finish what is half done: forward where that is cheap, back where nobody asks for the box.
//!
//! | found, with its node out of it | done |
//! | --- | --- |
//! | `Detached`, its volume half made | the volume is made and bound |
//! | `Placing` | taken off the instance; memory saved if a guest runs |
//! | `Suspending` | suspended, then `Parked` |
//! | `Detaching` | detached |
//! | `Deleting` | deleted |
//! | `Renaming` | renamed, when the record under the new name is there; else it keeps its name |
//! | `Arriving`, whoever is at it | the box, when its volume says so and the old record is gone; nothing, when no rename stands for it |
//! | `Running`, held by nobody alive | held by us through the linger, then suspended |
//! | `Running`, with sessions of ours and not held by us, who were taken for dead | held by us again |
//! | `Parked` for longer than the limit | its instance is given back |

use crate::actor::Actor;
use crate::error::{ErrorKind, Result};
use crate::record::{Mode, Placement, PlacementEvent, VolumeBinding};
use tokio::time::Instant;

impl Actor {
    pub(crate) async fn recover(&mut self) {
        self.held = None;
        match self.try_recover().await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Fenced | ErrorKind::NotFound) => {
                self.held = None; // somebody else was faster
            }
            Err(error) => {
                self.held = None;
                tracing::warn!(owner = %self.key.0, name = %self.key.1, error = %crate::Report(&error), "recovery did not finish; the next pass tries again");
            }
        }
    }

    async fn try_recover(&mut self) -> Result<()> {
        self.shared.check_in_touch("recover box")?;
        let held = self.load().await?;
        let node = self.shared.node.clone();
        let placement = held.record.placement.clone();
        match &placement {
            Placement::Detached => match held.record.volume {
                VolumeBinding::Wanted(_) => self.bind(held, None).await.map(drop),
                VolumeBinding::Bound(_) => Ok(()),
            },
            Placement::Parked { since, .. } => {
                if self.shared.parked_for(&held.record.owner, *since) < self.shared.config.park_limit {
                    return Ok(());
                }
                self.withdraw(held, false).await
            }
            Placement::Running { .. } => {
                let mut record = held.record.clone();
                record.holders.retain(|holder| !self.shared.is_dead(holder));
                let forgotten =
                    record.holders.contains(&node) && self.sessions.is_empty() && self.linger_until.is_none();
                let unheld = record.holders.is_empty() && record.mode == Mode::SuspendOnLeave;
                if unheld || forgotten {
                    self.linger_until = Some(Instant::now() + self.shared.config.linger);
                }
                if unheld || forgotten || self.serves() == Some(held.record.epoch) {
                    record.holders.insert(node);
                }
                if record.holders != held.record.holders {
                    self.write(&held, record).await?;
                }
                Ok(())
            }
            Placement::Arriving { .. } => {
                self.held = None;
                self.shared.settle(&held).await
            }
            _ if !self.is_up_to_us(&placement) => Ok(()),
            Placement::Renaming { .. } => {
                self.log_take_over(&held);
                self.recover_rename(held).await
            }
            Placement::Placing { .. } => {
                self.log_take_over(&held);
                self.withdraw(held, false).await
            }
            Placement::Suspending { .. } => {
                self.log_take_over(&held);
                let held = self.step(&held, &PlacementEvent::TakeOver { node }).await?;
                self.suspend(held).await
            }
            Placement::Detaching { .. } => {
                self.log_take_over(&held);
                let held = self.step(&held, &PlacementEvent::TakeOver { node }).await?;
                self.vacate(held, true, false).await
            }
            Placement::Deleting { .. } => {
                self.log_take_over(&held);
                let held = self.step(&held, &PlacementEvent::TakeOver { node }).await?;
                self.finish_delete(held).await
            }
        }
    }
}
