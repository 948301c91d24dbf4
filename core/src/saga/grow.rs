//! Grow a box's volume: the wish is written with a [stop](super::stop), and fulfilled while the box is detached, by whoever stops
//! it or, when that node dies, by whoever places it next. To grow to a size twice is to grow once.

use crate::actor::{Actor, HeldBox};
use crate::error::{ErrorKind, Result};
use crate::planted::{self, Bug};
use crate::poll::{Poll, passes};
use crate::record::{BoxRecord, EventKind, EventRecord, Placement};
use crate::shared::limited;

impl Actor {
    /// The box with its volume as large as its owner wants it. What the provider refuses for good is wanted no more, or else
    /// the box could never come up.
    ///
    /// # Errors
    /// The provider's.
    pub(crate) async fn grown(&mut self, held: HeldBox) -> Result<HeldBox> {
        let (Some(bytes), Placement::Detached) = (held.record.grow_to, &held.record.placement) else { return Ok(held) };
        let volume = held.record.volume.volume();
        let mut poll = Poll::new(self.shared.config.limits.volume_ready);
        let outcome = loop {
            if planted::is(Bug::GrowthOnlyNoted) {
                break Ok(());
            }
            self.shared.check_in_touch("resize volume")?;
            let call = self.shared.volumes.resize(volume, bytes);
            match limited(poll.left(), "resize volume", volume, call).await {
                // Busy: a detach that the provider has not ended for itself.
                Err(error) if passes(&error) || error.kind() == ErrorKind::Busy => {
                    if !poll.again(error.retry_after()).await {
                        return Err(error);
                    }
                }
                outcome => break outcome,
            }
        };
        let grown_to = if outcome.is_ok() { held.record.grown_to.max(Some(bytes)) } else { held.record.grown_to };
        let record = BoxRecord { grow_to: None, grown_to, ..held.record.clone() };
        let held = self.write(&held, record).await?;
        outcome?;
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            volume: Some(held.record.volume.volume().clone()),
            epoch: Some(held.record.epoch),
            detail: bytes.to_string(),
            ..self.shared.event(EventKind::BoxResized)
        });
        Ok(held)
    }
}
