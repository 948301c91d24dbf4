//! The golden OS image: a machine on which all that hosts need is installed, made ready to be copied, so that new machines
//! install nothing. It has the name of its golden snapshot, and lives and goes with it.
//!
//! machine that is ready → marked → generalized from inside → deallocated → generalized for the service → image
//!
//! Between the mark and the deallocation nobody can tell how far the inside is, so whoever finds a marked machine that
//! runs, and did not mark it, takes another one. An image that cannot be made is done without: machines install what they
//! need themselves, as before there was one. Managed images know no Trusted Launch: name an image of a gallery as
//! [`MachineOptions::image`](crate::MachineOptions::image) where that is wanted.

use crate::arm::{Common, Machine};
use crate::bodies;
use crate::cloud::Inner;
use crate::cloud_init::GENERALIZE;
use crate::errors::{Act, Failure};
use crate::golden::{AzureGolden, Wait};
use boxpool::{Error, ErrorKind, InstanceId, InstanceProvider, InstanceState, Permit, Result, SnapshotId};
use boxpool_qemu::Command;
use serde_json::json;
use std::time::Duration;

/// Of a machine that is being made ready to be copied.
const MARK: &str = "boxpool-generalizing";
/// Machine, installation, copy.
const LIMIT: Duration = Duration::from_secs(1_800);
/// Deleting logs and keys takes seconds.
const INSIDE_LIMIT: Duration = Duration::from_secs(120);

impl Inner {
    pub(crate) fn makes_image(&self) -> bool {
        self.options.machines.for_boxes && self.options.machines.is_published()
    }

    async fn image(&self, act: Act<'_>, id: &SnapshotId) -> Result<Option<Common>> {
        let found = self.arm.image(&self.pool.snapshot(id)?).await.map_err(|failure| act.failed(failure))?;
        if let Some(image) = &found {
            self.check_ours(act.operation, image, id.as_str())?;
        }
        Ok(found)
    }

    /// New machines boot the image of that snapshot, if there is one.
    pub(crate) async fn take_up_image(&self, id: &SnapshotId) -> Result<()> {
        if !self.makes_image() {
            return Ok(());
        }
        let image = self.image(Act::read("find golden image", id.as_str()), id).await?;
        let image = image.filter(|image| image.is_in("Succeeded"));
        if image.is_none() {
            tracing::warn!(snapshot = %id, "there is no image beside the golden snapshot; machines install what they need themselves");
        }
        self.use_golden_image(image.map(|image| image.id.as_str().to_owned()));
        Ok(())
    }
}

impl AzureGolden {
    /// Makes the image, or goes on where an earlier attempt stopped.
    pub(crate) async fn image_made(&self, id: &SnapshotId, instance: &InstanceId, permit: &Permit) -> Result<()> {
        let inner = &self.hosts.cloud().inner;
        let act = Act::write("make golden image", id.as_str());
        let mut wait = Wait::new("make golden image", LIMIT);
        let mut marked = false;
        loop {
            permit.check().await?;
            match inner.image(act, id).await? {
                Some(image) if image.is_in("Succeeded") => return Ok(()),
                Some(image) if image.is_in("Failed") => self.delete_image(act, id).await?,
                Some(_) => {}
                None => self.toward_image(act, id, instance, permit, &mut marked).await?,
            }
            wait.pause(id).await?;
        }
    }

    /// The next step. `marked`: this attempt has marked the machine.
    async fn toward_image(
        &self,
        act: Act<'_>,
        id: &SnapshotId,
        instance: &InstanceId,
        permit: &Permit,
        marked: &mut bool,
    ) -> Result<()> {
        let inner = &self.hosts.cloud().inner;
        let view = InstanceProvider::get(self.hosts.cloud(), instance).await?;
        let machine = inner.machine(act.operation, instance).await?;
        let (Some(view), Some(machine)) = (view, machine) else {
            return self.machine_ready(instance, permit).await.map(drop);
        };
        let wrong = |failure: Failure| act.failed(failure);
        let name = inner.pool.machine(instance)?;
        match (view.state, machine.common.tag(MARK).is_some()) {
            (InstanceState::Stopped, true) if machine.generalized => {
                let firmware = machine.firmware.as_deref().unwrap_or("V2");
                let source = &machine.common.id;
                let body = bodies::image(&inner.options, &inner.pool, id.as_str(), source, firmware);
                inner.arm.put_image(&inner.pool.snapshot(id)?, body).await.map(drop).map_err(wrong).or_else(unless_busy)
            }
            (InstanceState::Stopped, true) => inner.arm.generalize(&name).await.map(drop).map_err(wrong),
            (InstanceState::Running, true) if *marked => {
                InstanceProvider::stop(&self.hosts, instance).await.map(drop).or_else(unless_busy)
            }
            (InstanceState::Running, true) | (InstanceState::Failed(_), _) => {
                InstanceProvider::delete(&self.hosts, instance).await.or_else(unless_busy)
            }
            (InstanceState::Running | InstanceState::Stopped, false) => {
                let host = self.machine_ready(instance, permit).await?;
                permit.check().await?;
                self.mark(act, &name, &machine).await?;
                let command = Command::new(GENERALIZE).limit(INSIDE_LIMIT);
                let inside = host.run(command).await;
                if !matches!(&inside, Ok(output) if output.success) {
                    // Half done is not undone.
                    InstanceProvider::delete(&self.hosts, instance).await.or_else(unless_busy)?;
                    let why = inside.map(|output| output.stderr.trim().to_owned())?;
                    return Err(Error::new(ErrorKind::Unavailable, act.operation, instance)
                        .with_detail(format!("the machine could not be made ready to be copied: {why}")));
                }
                *marked = true;
                InstanceProvider::stop(&self.hosts, instance).await.map(drop).or_else(unless_busy)
            }
            _ => Ok(()),
        }
    }

    async fn mark(&self, act: Act<'_>, name: &str, machine: &Machine) -> Result<()> {
        let inner = &self.hosts.cloud().inner;
        let mut tags = machine.common.raw_tags.clone();
        tags.insert(MARK.into(), "1".into());
        let body = json!({ "tags": tags });
        let update = inner.arm.update_machine(name, body, machine.etag.as_deref()).await;
        update.map(drop).map_err(|failure| act.failed(failure))
    }

    async fn delete_image(&self, act: Act<'_>, id: &SnapshotId) -> Result<()> {
        let inner = &self.hosts.cloud().inner;
        inner.arm.delete_image(&inner.pool.snapshot(id)?).await.map(drop).map_err(|failure| act.failed(failure))
    }

    /// `Ok` means that it is gone.
    pub(crate) async fn image_gone(&self, id: &SnapshotId) -> Result<()> {
        let inner = &self.hosts.cloud().inner;
        let act = Act::write("delete golden image", id.as_str());
        let mut wait = Wait::new("delete golden image", LIMIT);
        while let Some(image) = inner.image(act, id).await? {
            if !image.is_in("Deleting") {
                self.delete_image(act, id).await?;
            }
            wait.pause(id).await?;
        }
        Ok(())
    }
}

/// Another change is under way: it is looked at again.
fn unless_busy(error: Error) -> Result<()> {
    if error.kind() == ErrorKind::Busy { Ok(()) } else { Err(error) }
}
