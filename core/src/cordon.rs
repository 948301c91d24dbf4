//! Taking a machine out of use: nobody new comes onto it, and on request those who are there leave it when they can.
//!
//! The order stands in the machine's own record, so every claim sees it: who claims a machine must have read the record as it is. A drain
//! is carried out by whatever node looks at the machine next, so nobody who dies takes it along.

use crate::error::{Error, ErrorKind, Result};
use crate::id::InstanceId;
use crate::pool::Pool;
use crate::record::{Cordon, EventKind, EventRecord, InstanceRecord, InstanceStatus};
use crate::records::instance_key;

/// Others change a machine's record only when something happens to it; so often in a row it does not.
const TRIES: usize = 8;

impl Pool {
    /// Has nobody new come onto an instance, until [`uncordon_instance`](Self::uncordon_instance). The box that is on it stays and may come and go; once it
    /// has left for good the instance stands aside, and counts as one of `max_total`. With `drain` the box leaves as soon as nobody is
    /// connected to it, its memory saved, and the instance is deleted. Called again, the new order counts; `false` when it was just
    /// that already.
    ///
    /// A box that is kept running leaves only when it is stopped or no longer kept.
    ///
    /// # Errors
    /// `NotFound` when the pool has no such instance; `Conflict` when it is being deleted or was set aside, or when others were quicker
    /// every time; the store's own.
    pub async fn cordon_instance(&self, id: &InstanceId, drain: bool, why: &str) -> Result<bool> {
        let changed = self.order_cordon(id, Some(Cordon { drain, why: why.to_owned() })).await?;
        if changed {
            self.shared.state().free_instances.remove(id);
            let detail = format!(
                "{}{}{why}",
                if drain { "drained" } else { "cordoned" },
                if why.is_empty() { "" } else { ": " }
            );
            let event =
                EventRecord { instance: Some(id.clone()), detail, ..self.shared.event(EventKind::InstanceCordoned) };
            self.shared.log(event);
            self.shared.refill_instances.notify_one();
        }
        Ok(changed)
    }

    /// Takes an instance back into use. `false` when it was not out of it. One whose drain has ended is gone.
    ///
    /// # Errors
    /// As [`cordon_instance`](Self::cordon_instance).
    pub async fn uncordon_instance(&self, id: &InstanceId) -> Result<bool> {
        let changed = self.order_cordon(id, None).await?;
        if changed {
            let detail = "in use again".to_owned();
            let event =
                EventRecord { instance: Some(id.clone()), detail, ..self.shared.event(EventKind::InstanceCordoned) };
            self.shared.log(event);
            self.shared.look_for_instances().await;
        }
        Ok(changed)
    }

    /// Whether something changed.
    async fn order_cordon(&self, id: &InstanceId, cordon: Option<Cordon>) -> Result<bool> {
        const ACT: &str = "cordon instance";
        let (records, key) = (&self.shared.records, instance_key(id));
        let mut overtaken = Error::new(ErrorKind::Conflict, ACT, id);
        for _ in 0..TRIES {
            let found = records.get::<InstanceRecord>(&key).await?.filter(|held| held.record.id == *id);
            let Some(held) = found else {
                return Err(Error::new(ErrorKind::NotFound, ACT, id).with_detail("the pool has no such instance"));
            };
            if let status @ (InstanceStatus::Deleting { .. } | InstanceStatus::Quarantined { .. }) = &held.record.status
            {
                let detail = format!("it is {} already; nobody comes onto it", status.word());
                return Err(Error::new(ErrorKind::Conflict, ACT, id).with_detail(detail));
            }
            if held.record.cordon == cordon {
                return Ok(false);
            }
            let record = InstanceRecord { cordon: cordon.clone(), ..held.record.clone() };
            match records.update(&key, &held.version, record).await {
                Ok(_) => {
                    self.shared.look_now.notify_one();
                    return Ok(true);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => overtaken = error,
                Err(error) => return Err(error),
            }
        }
        Err(overtaken)
    }
}
