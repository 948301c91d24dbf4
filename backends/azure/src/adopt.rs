//! Taking disks and machines into the pool that were there before it.
//!
//! They get the pool's tags and ids of their own, and keep everything else. Whoever adopts writes the record **first**
//! ([`Adoption`](boxpool::Adoption)): a resource with the pool's tags and without a record is nobody's, and is swept. Adopting
//! twice is safe. If the process dies in between, the tags are there or not.

use crate::ancestry::COPIED_FROM_TAG;
use crate::arm::Common;
use crate::bodies::{GENERATION_TAG, ID_TAG, POOL_TAG};
use crate::cloud::{AzureCloud, Inner};
use crate::errors::Act;
use crate::names::check_foreign;
use boxpool::{Error, ErrorKind, InstanceId, InstanceProvider, InstanceView, Result, VolumeId, VolumeView};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How long tags may take to be seen.
const LIMIT: Duration = Duration::from_secs(120);

impl AzureCloud {
    /// The id that a disk of the resource group has once it is adopted: for its record, which is written first.
    ///
    /// # Errors
    /// `Invalid` when no disk can be called so.
    pub fn id_of_disk(&self, name: &str) -> Result<VolumeId> {
        check_foreign(name).map_err(|rule| unfit("adopt volume", name, rule))?;
        self.inner.pool.volume_of(name).ok_or_else(|| unfit("adopt volume", name, "the name is too long"))
    }

    /// The id that a machine of the resource group has once it is adopted: for its record, which is written first.
    ///
    /// # Errors
    /// `Invalid` when no machine can be called so.
    pub fn id_of_machine(&self, name: &str) -> Result<InstanceId> {
        check_foreign(name).map_err(|rule| unfit("adopt instance", name, rule))?;
        self.inner.pool.instance_of(name).ok_or_else(|| unfit("adopt instance", name, "the name is too long"))
    }

    /// Takes a disk of the resource group into the pool.
    ///
    /// # Errors
    /// `NotFound`; `Busy` when another pool has it.
    pub async fn adopt_volume(&self, name: &str) -> Result<VolumeView> {
        let id = self.id_of_disk(name)?;
        let act = Act::write("adopt volume", id.as_str());
        let name = self.inner.pool.disk(&id)?;
        let _alone = self.inner.alone_with_disk(&name).await;
        let deadline = Instant::now() + LIMIT;
        let mut sent = false;
        loop {
            let found = self.inner.arm.disk(&name).await.map_err(|failure| act.failed(failure))?;
            let disk = found.ok_or_else(|| gone(act, "disk"))?;
            if self.inner.is_adopted(act, &disk.common, id.as_str())? {
                return Ok(self.inner.volume_view(&id, &disk));
            }
            if !sent {
                let tags = self.inner.tags_with(&disk.common, id.as_str(), None);
                let update = self.inner.arm.update_disk(&name, json!({ "tags": tags })).await;
                update.map_err(|failure| act.failed(failure))?;
                sent = true;
            }
            wait(act, deadline).await?;
        }
    }

    /// Takes a machine of the resource group into the pool. `generation` is what edition of the template it counts as.
    ///
    /// # Errors
    /// `NotFound`; `Busy` when another pool has it; `Conflict` when its tags change meanwhile: try again.
    pub async fn adopt_instance(&self, name: &str, generation: &str) -> Result<InstanceView> {
        let id = self.id_of_machine(name)?;
        let act = Act::write("adopt instance", id.as_str());
        let name = self.inner.pool.machine(&id)?;
        let deadline = Instant::now() + LIMIT;
        let mut sent = false;
        let alone = self.inner.alone_with_machine(&name).await;
        loop {
            let found = self.inner.arm.machine(&name).await.map_err(|failure| act.failed(failure))?;
            let machine = found.ok_or_else(|| gone(act, "machine"))?;
            if self.inner.is_adopted(act, &machine.common, id.as_str())? {
                break;
            }
            if !sent {
                let tags = self.inner.tags_with(&machine.common, id.as_str(), Some(generation));
                let body = json!({ "tags": tags });
                let update = self.inner.arm.update_machine(&name, body, machine.etag.as_deref()).await;
                update.map_err(|failure| act.failed(failure))?;
                sent = true;
            }
            wait(act, deadline).await?;
        }
        drop(alone);
        InstanceProvider::get(self, &id).await?.ok_or_else(|| gone(act, "machine"))
    }

    /// Takes the pool's tags away from a disk again, and nothing else. Of one that is not there, or not this pool's, nothing is changed. Only for
    /// one whose record is set aside: a volume that is in use without its tags cannot be used any more.
    ///
    /// # Errors
    /// `Busy` when another pool has it.
    pub async fn release_volume(&self, name: &str) -> Result<()> {
        let id = self.id_of_disk(name)?;
        let act = Act::write("release volume", id.as_str());
        let name = self.inner.pool.disk(&id)?;
        let _alone = self.inner.alone_with_disk(&name).await;
        let found = self.inner.arm.disk(&name).await.map_err(|failure| act.failed(failure))?;
        let Some(disk) = found else { return Ok(()) };
        if !self.inner.is_adopted(act, &disk.common, id.as_str())? {
            return Ok(());
        }
        let body = json!({ "tags": foreign_tags(&disk.common) });
        self.inner.arm.update_disk(&name, body).await.map(drop).map_err(|failure| act.failed(failure))
    }

    /// The same for a machine.
    ///
    /// # Errors
    /// As [`release_volume`](Self::release_volume); `Conflict` when its tags change meanwhile: try again.
    pub async fn release_instance(&self, name: &str) -> Result<()> {
        let id = self.id_of_machine(name)?;
        let act = Act::write("release instance", id.as_str());
        let name = self.inner.pool.machine(&id)?;
        let _alone = self.inner.alone_with_machine(&name).await;
        let found = self.inner.arm.machine(&name).await.map_err(|failure| act.failed(failure))?;
        let Some(machine) = found else { return Ok(()) };
        if !self.inner.is_adopted(act, &machine.common, id.as_str())? {
            return Ok(());
        }
        let body = json!({ "tags": foreign_tags(&machine.common) });
        let update = self.inner.arm.update_machine(&name, body, machine.etag.as_deref()).await;
        update.map(drop).map_err(|failure| act.failed(failure))
    }
}

/// The tags that are not the pool's.
fn foreign_tags(common: &Common) -> Map<String, Value> {
    let mut tags = common.raw_tags.clone();
    tags.retain(|name, value| {
        let own = [POOL_TAG, ID_TAG, GENERATION_TAG, COPIED_FROM_TAG].iter().any(|own| name.eq_ignore_ascii_case(own));
        !own && value.is_string()
    });
    tags
}

impl Inner {
    fn is_adopted(&self, act: Act<'_>, common: &Common, id: &str) -> Result<bool> {
        match common.tag(POOL_TAG) {
            None => Ok(false),
            Some(pool) if pool != self.pool.as_str() => Err(Error::new(ErrorKind::Busy, act.operation, act.resource)
                .with_detail(format!("it belongs to the pool {:?}; take its tags away first", pool))),
            Some(_) => Ok(common.tag(ID_TAG) == Some(id)),
        }
    }

    /// Tags are replaced as a whole, so the others are sent along.
    fn tags_with(&self, common: &Common, id: &str, generation: Option<&str>) -> Map<String, Value> {
        let mut tags = foreign_tags(common);
        tags.insert(POOL_TAG.into(), self.pool.as_str().into());
        tags.insert(ID_TAG.into(), id.into());
        if let Some(generation) = generation {
            tags.insert(GENERATION_TAG.into(), generation.into());
        }
        tags
    }
}

fn unfit(operation: &'static str, name: &str, rule: &str) -> Error {
    Error::new(ErrorKind::Invalid, operation, name.escape_debug()).with_detail(rule)
}

fn gone(act: Act<'_>, what: &str) -> Error {
    Error::new(ErrorKind::NotFound, act.operation, act.resource)
        .with_detail(format!("there is no such {what} in the resource group"))
}

async fn wait(act: Act<'_>, deadline: Instant) -> Result<()> {
    let pause = Duration::from_secs(1);
    if Instant::now() + pause >= deadline {
        return Err(Error::new(ErrorKind::TimedOut, act.operation, act.resource)
            .with_detail(format!("its tags are not seen after {LIMIT:?}")));
    }
    tokio::time::sleep(pause).await;
    Ok(())
}
