//! A rest for the maintainer, ordered by a person: while somebody repairs things at the cloud by hand, nothing is made, deleted or
//! swept behind their back.
//!
//! The order stands in the maintainer's lease, which every node reads with each heartbeat anyway: it costs no request, whoever takes
//! the lease over takes the order along, and it ends by itself.

use crate::error::{Error, ErrorKind, Result};
use crate::heartbeat::MAINTAINER;
use crate::pool::Pool;
use crate::record::{EventKind, EventRecord, LeaseRecord, Pause};
use crate::records::lease_key;
use crate::shared::Shared;
use std::time::Duration;

/// Nobody is to forget a pool that rests for ever.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The maintainer renews its lease every few seconds; so often in a row it is not quicker.
const TRIES: usize = 8;

impl Shared {
    /// Whether the maintainer is to rest.
    pub(crate) fn is_paused(&self) -> bool {
        self.pause().is_some()
    }

    /// The order that stands, as last seen.
    pub(crate) fn pause(&self) -> Option<Pause> {
        let now = self.now();
        self.state().pause.clone().filter(|pause| pause.until > now)
    }
}

impl Pool {
    /// Lets the maintenance of the pool rest for so long, at most 24 hours: no node makes or retires instances and volumes for stock,
    /// builds or deletes golden snapshots, sweeps what has no record, or removes deleted boxes for good. Other nodes, also
    /// ones that start, know it within a heartbeat; what is under way is finished. Connects go on, with what is free and with volumes made for a new box, and so does
    /// what a dead node left half done. Called again, the new time and reason count. It is measured with wall clocks.
    ///
    /// # Errors
    /// `Invalid` for more than 24 hours; `Conflict` when others were quicker every time; the store's own.
    pub async fn pause_maintenance(&self, for_so_long: Duration, why: &str) -> Result<Pause> {
        if for_so_long > LONGEST {
            let detail = format!("it can rest for {} hours at most; say so again then", LONGEST.as_secs() / 3600);
            return Err(Error::new(ErrorKind::Invalid, "pause maintenance", "pool").with_detail(detail));
        }
        let until = self.shared.now().plus(for_so_long);
        let pause = Pause { until, why: why.to_owned() };
        self.order(Some(pause.clone())).await?;
        self.shared.log(EventRecord { detail: pause.why.clone(), ..self.shared.event(EventKind::MaintenancePaused) });
        Ok(pause)
    }

    /// Ends a [pause](Pool::pause_maintenance) before its time. Without one, nothing happens.
    ///
    /// # Errors
    /// `Conflict` when others were quicker every time; the store's own.
    pub async fn resume_maintenance(&self) -> Result<()> {
        if self.order(None).await? {
            self.shared.log(self.shared.event(EventKind::MaintenanceResumed));
            self.shared.refill_instances.notify_one();
            self.shared.refill_volumes.notify_one();
        }
        Ok(())
    }

    /// Whether something changed.
    async fn order(&self, pause: Option<Pause>) -> Result<bool> {
        let (shared, key) = (&self.shared, lease_key(MAINTAINER));
        let mut overtaken = Error::new(ErrorKind::Conflict, "pause maintenance", "pool");
        for _ in 0..TRIES {
            let written = match shared.records.get::<LeaseRecord>(&key).await? {
                Some(held) if held.record.pause == pause => return Ok(false),
                Some(held) => {
                    let record = LeaseRecord { pause: pause.clone(), ..held.record.clone() };
                    shared.records.update(&key, &held.version, record).await
                }
                None if pause.is_none() => return Ok(false),
                // Nobody is the maintainer; whoever asks is, and rests.
                None => {
                    let lease = LeaseRecord { pause: pause.clone(), ..LeaseRecord::new(shared.node.clone()) };
                    shared.records.insert(&key, lease).await
                }
            };
            match written {
                Ok(held) => {
                    shared.state().pause = held.record.pause;
                    return Ok(true);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::AlreadyExists) =>
                {
                    overtaken = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(overtaken)
    }
}
