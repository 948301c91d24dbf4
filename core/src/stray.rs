//! A volume that is on an instance where no record puts it: an attach was held up on its way, and was done when the volume
//! had been detached. A cloud that knows no epochs does such a thing, and whoever attaches or deletes the volume is told `Busy`.

use crate::error::Result;
use crate::id::{Epoch, InstanceId, VolumeId};
use crate::planted::{self, Bug};
use crate::provider::Attach;
use crate::shared::{Shared, limited};
use std::time::Duration;

impl Shared {
    /// One try to take a volume off an instance that is not the one it is `meant` for. `false`: it is on no such instance.
    ///
    /// For whoever has its record to themselves, so that nobody can have put it there in this epoch or will in a later one.
    ///
    /// # Errors
    /// What the provider said; `Busy` when a guest runs on it there, which then keeps it.
    pub(crate) async fn take_off_elsewhere(
        &self,
        volume: &VolumeId,
        meant: Option<&InstanceId>,
        epoch: Epoch,
        limit: Duration,
    ) -> Result<bool> {
        let view = limited(limit, "find volume", volume, self.volumes.get(volume)).await?;
        let found = view.and_then(|view| view.attached_to).filter(|found| Some(found) != meant);
        let Some(instance) = found.filter(|_| !planted::is(Bug::StrayStays)) else { return Ok(false) };
        tracing::warn!(%volume, %instance, "a volume is attached where nobody put it; it is taken off");
        metrics::counter!("boxpool_strays_total").increment(1);
        let attach = Attach::new(volume.clone(), instance, epoch);
        limited(limit, "detach volume", volume, self.volumes.detach(&attach)).await?;
        Ok(true)
    }
}
