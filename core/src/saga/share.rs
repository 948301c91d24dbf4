//! Who else may connect to a box: one write of its record, which is looked at by every connect of somebody else.

use crate::actor::Actor;
use crate::error::{Error, ErrorKind, Result};
use crate::id::UserId;
use crate::record::{BoxRecord, EventKind, EventRecord, Share};
use tokio::time::Instant;

/// With so many others a box may be shared: its record has to fit the store.
const MOST_SHARES: usize = 100;
/// How often a guest's connect is written down again because others were quicker.
const NOTE_TRIES: usize = 3;

impl Actor {
    pub(crate) async fn share(&mut self, with: UserId, allowed: bool, deadline: Instant) -> Result<BoxRecord> {
        const WHAT: &str = "share box";
        let shared = self.shared.clone();
        let refuse = |kind, detail: String| Err(Error::new(kind, WHAT, &with).with_detail(detail));
        let (held, changed) = self
            .change(WHAT, deadline, |found| {
                shared.check_there(found, WHAT)?;
                let mut record = found.clone();
                match (allowed, found.shares.contains_key(&with)) {
                    (true, true) | (false, false) => return Ok(None),
                    (true, false) if with == found.owner.owner => {
                        return refuse(ErrorKind::Invalid, "the box is theirs".into());
                    }
                    (true, false) if found.shares.len() >= MOST_SHARES => {
                        return refuse(
                            ErrorKind::Invalid,
                            format!("a box is shared with {MOST_SHARES} others at most"),
                        );
                    }
                    (true, false) => {
                        let share = Share { added_at: shared.now(), used_at: None, connects: 0 };
                        record.shares.insert(with.clone(), share);
                    }
                    (false, true) => drop(record.shares.remove(&with)),
                }
                Ok(Some(record))
            })
            .await?;
        if changed {
            self.shared.log(EventRecord {
                owner: Some(held.record.owner.clone()),
                epoch: Some(held.record.epoch),
                detail: format!("{} {with}", if allowed { "add" } else { "remove" }),
                ..self.shared.event(EventKind::ShareSet)
            });
        }
        Ok(held.record.clone())
    }

    /// Writes down that somebody else has connected. They have: what cannot be written stands in the event log alone.
    pub(crate) async fn note_guest(&mut self, guest: &UserId) {
        let Ok(held) = self.load().await else { return };
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            instance: held.record.placement.instance().cloned(),
            epoch: Some(held.record.epoch),
            detail: guest.to_string(),
            ..self.shared.event(EventKind::GuestConnected)
        });
        for _ in 0..NOTE_TRIES {
            let Ok(held) = self.load().await else { return };
            let mut record = held.record.clone();
            let Some(share) = record.shares.get_mut(guest) else { return };
            share.used_at = Some(self.shared.now());
            share.connects += 1;
            match self.write(&held, record).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => {
                    return tracing::warn!(owner = %held.record.owner, %guest, error = %crate::Report(&error), "a guest's connect was not written down");
                }
                Ok(_) => return,
            }
        }
    }
}
