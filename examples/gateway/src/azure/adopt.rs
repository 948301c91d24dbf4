//! Taking disks and machines of the resource group into the pool, beside gateways that serve.
//!
//! record set aside → tags → (machine: seen to be ready) → record as it is to be. What was cut off is ended by calling again.

use super::{all_tables, cloud, hosts, tables};
use crate::config::Config;
use crate::place::Place;
use crate::serve::pool_config;
use boxpool::{
    Adoption, BoxName, Error, ErrorKind, InstanceState, Result, SystemClock, UserId, VolumeSource, VolumeState,
};
use std::sync::Arc;

async fn adoption(config: &Config) -> Result<Adoption> {
    let store = tables(config)?;
    store.make_tables(&all_tables()).await?;
    let seed = getrandom::u64()
        .map_err(|error| Error::new(ErrorKind::Unavailable, "adopt", "random source").with_detail(error.to_string()))?;
    Adoption::new(Arc::new(store), Arc::new(SystemClock), seed)
}

/// Whether nothing was changed by an adoption that failed like this: the resource is not there, or is another pool's.
fn is_hopeless(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Busy)
}

/// Makes a box of `user` of a disk that holds one. Says what was done, in a line.
///
/// # Errors
/// `NotFound` when there is no such disk; `AlreadyExists` when the user has a box of that name; `Busy` when another pool, or a machine,
/// has the disk; each says what to do.
pub async fn adopt_volume(config: &Config, disk: &str, user: &UserId, name: &BoxName) -> Result<String> {
    // No machine is made here, so any key will do.
    let cloud = cloud(config, "ssh-ed25519 AAAA")?;
    let id = cloud.id_of_disk(disk)?;
    let adoption = adoption(config).await?;
    if !adoption.begin_volume(&id, user, name).await? {
        return Ok(format!("the disk {disk} is the box {name} already"));
    }
    let view = match cloud.adopt_volume(disk).await {
        Ok(view) => view,
        Err(error) if is_hopeless(&error) => {
            adoption.abandon_volume(&id).await?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    if let Some(on) = view.attached_to {
        let detail = format!("the disk {disk} is attached to {on}; detach it there and adopt it again");
        return Err(Error::new(ErrorKind::Busy, "adopt volume", disk).with_detail(detail));
    }
    if view.state != VolumeState::Ready {
        let detail = format!("the disk {disk} is not ready ({:?}); adopt it again when it is", view.state);
        return Err(Error::new(ErrorKind::Unavailable, "adopt volume", disk).with_detail(detail));
    }
    adoption.end_volume(&id, user, name).await?;
    Ok(format!("the disk {disk} is the box {name} now; the next connect attaches it"))
}

/// Takes an adoption of a disk back that was begun and not ended. Says what was done, in a line.
///
/// # Errors
/// `Conflict` when the disk is a box already; the backend's own.
pub async fn abandon_volume(config: &Config, disk: &str, user: &UserId, name: &BoxName) -> Result<String> {
    let cloud = cloud(config, "ssh-ed25519 AAAA")?;
    let id = cloud.id_of_disk(disk)?;
    let adoption = adoption(config).await?;
    // Set aside, if it was not: nobody may use it while its tags go.
    if !adoption.begin_volume(&id, user, name).await? {
        let detail = format!("the disk {disk} is the box {name}; to be rid of it delete the box");
        return Err(Error::new(ErrorKind::Conflict, "abandon volume", disk).with_detail(detail));
    }
    cloud.release_volume(disk).await?;
    adoption.abandon_volume(&id).await?;
    Ok(format!("the disk {disk} is nothing of the pool's"))
}

/// The same for a machine.
///
/// # Errors
/// `Conflict` when the machine is in use already; the backend's own.
pub async fn abandon_instance(config: &Config, machine: &str) -> Result<String> {
    let cloud = cloud(config, "ssh-ed25519 AAAA")?;
    let id = cloud.id_of_machine(machine)?;
    let adoption = adoption(config).await?;
    if !adoption.begin_instance(&id, u32::MAX).await? {
        let detail = format!("the machine {machine} is in use; it cannot be had back");
        return Err(Error::new(ErrorKind::Conflict, "abandon instance", machine).with_detail(detail));
    }
    cloud.release_instance(machine).await?;
    adoption.abandon_instance(&id).await?;
    Ok(format!("the machine {machine} is nothing of the pool's"))
}

/// Makes a machine one of the pool's, to be used and **deleted** as the others are. Says what was done, in a line.
///
/// # Errors
/// `NotFound` when there is no such machine; `NoCapacity` when the pool is full; `Busy` when another pool has it; `Permanent` and
/// `Unavailable` when it is not made into a host for boxes, with what is missing.
pub async fn adopt_instance(config: &Config, place: &Place, machine: &str) -> Result<String> {
    let hosts = hosts(config, place)?;
    let id = hosts.cloud().id_of_machine(machine)?;
    // Which edition of the template machines are held to be.
    let generation = pool_config(config, VolumeSource::Empty { bytes: 1 }, String::new()).instance_generation;
    let adoption = adoption(config).await?;
    if !adoption.begin_instance(&id, config.azure.machines_max).await? {
        return Ok(format!("the machine {machine} is the pool's already"));
    }
    match hosts.cloud().adopt_instance(machine, &generation).await {
        Ok(view) if view.state == InstanceState::Running => {}
        Ok(view) => {
            let detail = format!("the machine {machine} does not run ({:?}); start it and adopt it again", view.state);
            return Err(Error::new(ErrorKind::Unavailable, "adopt instance", machine).with_detail(detail));
        }
        Err(error) => {
            if is_hopeless(&error) {
                adoption.abandon_instance(&id).await?;
            }
            return Err(error);
        }
    }
    // A gateway would delete one that is not.
    hosts.check_ready(&id).await?;
    adoption.end_instance(&id, &generation).await?;
    Ok(format!("the machine {machine} is the pool's now; a gateway looks at it and takes it into use"))
}
