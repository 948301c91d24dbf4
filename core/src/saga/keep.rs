//! Boxes that run without a session. That a box is one of them stands in its record, so it needs no node that looks after it:
//! gateways die and leave, and it runs on. The maintainer looks with each census whether it does.

use crate::actor::{Actor, Connect};
use crate::error::{ErrorKind, Result};
use crate::record::{BoxRecord, EventKind, EventRecord, Mode, Placement};
use crate::runtime::GuestStatus;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

impl Actor {
    /// What happens when the last session ends. One that runs for nobody and is to be kept no longer lingers on our account.
    pub(crate) async fn set_mode(&mut self, mode: Mode, deadline: Instant) -> Result<BoxRecord> {
        let (node, shared) = (self.shared.node.clone(), self.shared.clone());
        let (held, changed) = self
            .change("set box's mode", deadline, |found| {
                shared.check_there(found, "set box's mode")?;
                if found.mode == mode {
                    return Ok(None);
                }
                let mut record = found.clone();
                record.mode = mode;
                record.holders.retain(|holder| !shared.is_dead(holder));
                let runs = matches!(record.placement, Placement::Running { .. });
                if runs && record.holders.is_empty() && mode == Mode::SuspendOnLeave {
                    record.holders.insert(node.clone());
                }
                Ok(Some(record))
            })
            .await?;
        if !changed {
            return Ok(held.record.clone());
        }
        if held.record.holders.contains(&node) && self.sessions.is_empty() {
            self.linger_until = Some(Instant::now() + self.shared.config.linger);
        }
        self.shared.log(EventRecord {
            owner: Some(held.record.owner.clone()),
            volume: Some(held.record.volume.volume().clone()),
            epoch: Some(held.record.epoch),
            detail: if mode == Mode::KeepRunning { "on".into() } else { "off".into() },
            ..self.shared.event(EventKind::KeepaliveSet)
        });
        Ok(held.record.clone())
    }

    /// Brings up a box that is to run and does not. When there is no room the next census tries again.
    pub(crate) async fn keep_up(&mut self) {
        if !self.sessions.is_empty() || self.linger_until.is_some() || self.shared.is_draining() {
            return;
        }
        match self.try_keep_up().await {
            Ok(()) => {}
            Err(error) => {
                self.held = None;
                tracing::warn!(owner = %self.key.0, name = %self.key.1, error = %crate::Report(&error), "a box that is to run does not; the next census tries again");
            }
        }
    }

    async fn try_keep_up(&mut self) -> Result<()> {
        self.shared.check_in_touch("keep box running")?;
        self.held = None;
        let held = self.load().await?;
        let record = &held.record;
        if record.mode != Mode::KeepRunning || !record.holders.is_empty() || record.placement.worker().is_some() {
            return Ok(());
        }
        if let Placement::Running { instance, endpoint } = &record.placement {
            match self.ask_guest(record, instance).await {
                Ok(GuestStatus::Running(seen)) if seen == *endpoint => return Ok(()),
                // What became of it, and what to do, is found out on the way.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // Nobody waits for the answer; the other end is held so that the wait in line is not given up.
        let (reply, _waits) = oneshot::channel();
        let patience = self.shared.config.census_every.min(self.shared.config.connect_deadline);
        let mut connect = Connect {
            only: None,
            guest: None,
            distrust: None,
            deadline: Instant::now() + patience,
            reply,
            admitted: Arc::default(),
        };
        let answer = self.arrive(&mut connect).await;
        self.all_told();
        answer?;
        self.linger_until = Some(Instant::now() + self.shared.config.linger);
        Ok(())
    }
}
