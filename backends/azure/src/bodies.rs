//! What is sent to make things.

use crate::cloud_options::{Candidate, CloudOptions};
use crate::ids::ArmId;
use crate::names::{PoolName, interface, os_disk};
use base64::Engine;
use boxpool::Result;
use serde_json::{Value, json};

/// Of every resource of a pool: which one's.
pub(crate) const POOL_TAG: &str = "boxpool-pool";
/// Of every resource of a pool: its id there.
pub(crate) const ID_TAG: &str = "boxpool-id";
/// Of a machine: the edition of its template.
pub(crate) const GENERATION_TAG: &str = "boxpool-generation";

/// The network's version that machines bring their interfaces with.
const NETWORK_VERSION: &str = "2020-11-01";

pub(crate) fn tags(pool: &PoolName, id: &str) -> Value {
    json!({ POOL_TAG: pool.as_str(), ID_TAG: id })
}

/// A machine that is to be made.
pub(crate) struct Making<'a> {
    pub(crate) name: &'a str,
    pub(crate) id: &'a str,
    pub(crate) generation: &'a str,
    /// As [`MachineOptions::image`](crate::MachineOptions::image).
    pub(crate) image: &'a str,
    pub(crate) place: &'a Candidate,
}

/// A machine that leaves nothing behind when it is deleted: its OS disk and interface go with it.
pub(crate) fn machine(options: &CloudOptions, pool: &PoolName, making: &Making<'_>) -> Result<Value> {
    let Making { name, id, generation, image, place } = *making;
    let machines = &options.machines;
    let user = &machines.admin_user;
    let mut tags = tags(pool, id);
    tags[GENERATION_TAG] = generation.into();
    let mut interface_properties = json!({
        "primary": true,
        "deleteOption": "Delete",
        "enableAcceleratedNetworking": machines.accelerated_networking,
        "ipConfigurations": [{
            "name": "main",
            "properties": { "subnet": { "id": machines.subnet }, "primary": true },
        }],
    });
    if let Some(group) = &machines.security_group {
        interface_properties["networkSecurityGroup"] = json!({ "id": group });
    }
    let mut os_profile = json!({
        "computerName": name,
        "adminUsername": user,
        "linuxConfiguration": {
            "disablePasswordAuthentication": true,
            "ssh": { "publicKeys": [{
                "path": format!("/home/{user}/.ssh/authorized_keys"),
                "keyData": machines.ssh_public_key.trim(),
            }] },
        },
    });
    #[cfg(not(feature = "hosts"))]
    let cloud_init = &machines.cloud_init;
    #[cfg(feature = "hosts")]
    let cloud_init = &if machines.for_boxes {
        let key = crate::host_key::HostKey::generate()?;
        let text = crate::cloud_init::text(&key, &machines.ssh_public_key);
        tags[crate::host_key::HOST_KEY_TAG] = key.public.into();
        text
    } else {
        machines.cloud_init.clone()
    };
    if !cloud_init.is_empty() {
        os_profile["customData"] = base64::engine::general_purpose::STANDARD.encode(cloud_init).into();
    }
    let parts: Vec<&str> = image.split(':').collect();
    let image = match parts[..] {
        [publisher, offer, sku, version] => {
            json!({ "publisher": publisher, "offer": offer, "sku": sku, "version": version })
        }
        _ => json!({ "id": image }),
    };
    let mut body = json!({
        "location": options.location,
        "tags": tags,
        "properties": {
            "hardwareProfile": { "vmSize": place.size },
            "storageProfile": {
                "imageReference": image,
                "osDisk": {
                    "name": os_disk(name),
                    "createOption": "FromImage",
                    "caching": "ReadWrite",
                    "deleteOption": "Delete",
                    "managedDisk": { "storageAccountType": machines.os_disk_sku },
                },
            },
            "osProfile": os_profile,
            "networkProfile": {
                "networkApiVersion": NETWORK_VERSION,
                "networkInterfaceConfigurations": [{ "name": interface(name), "properties": interface_properties }],
            },
        },
    });
    if let Some(zone) = &place.zone {
        body["zones"] = json!([zone]);
    }
    Ok(body)
}

/// A disk, empty with that many bytes or a copy of a snapshot.
pub(crate) fn disk(options: &CloudOptions, pool: &PoolName, id: &str, source: &DiskSource) -> Value {
    let disks = &options.disks;
    let mut properties = match source {
        DiskSource::Empty { bytes } => json!({
            "creationData": { "createOption": "Empty" },
            "diskSizeGB": gib(*bytes),
        }),
        DiskSource::Snapshot(id) => json!({
            "creationData": { "createOption": "Copy", "sourceResourceId": id.as_str() },
        }),
    };
    // Nobody is to read it but the machine it is attached to.
    properties["networkAccessPolicy"] = "DenyAll".into();
    properties["publicNetworkAccess"] = "Disabled".into();
    if disks.frequent_attach {
        properties["optimizedForFrequentAttach"] = true.into();
    }
    let mut body = json!({
        "location": options.location,
        "tags": tags(pool, id),
        "sku": { "name": disks.sku },
        "properties": properties,
    });
    if let Some(zone) = &disks.zone {
        body["zones"] = json!([zone]);
    }
    body
}

/// What a disk is filled with.
pub(crate) enum DiskSource {
    Empty { bytes: u64 },
    Snapshot(ArmId),
}

/// An incremental snapshot.
pub(crate) fn snapshot(options: &CloudOptions, pool: &PoolName, id: &str, disk: &ArmId) -> Value {
    json!({
        "location": options.location,
        "tags": tags(pool, id),
        "sku": { "name": options.disks.snapshot_sku },
        "properties": {
            "creationData": { "createOption": "Copy", "sourceResourceId": disk.as_str() },
            "incremental": true,
            "networkAccessPolicy": "DenyAll",
            "publicNetworkAccess": "Disabled",
        },
    })
}

/// A copy of a snapshot of another region. Azure copies it in the background, and tells how far it is in `completionPercent`; only
/// incremental snapshots can be copied so.
pub(crate) fn snapshot_copy(options: &CloudOptions, pool: &PoolName, id: &str, snapshot: &ArmId) -> Value {
    let mut body = self::snapshot(options, pool, id, snapshot);
    body["properties"]["creationData"]["createOption"] = "CopyStart".into();
    body
}

/// An image of a generalized machine. `firmware` is `V1` or `V2`, as the machine has it.
#[cfg(feature = "hosts")]
pub(crate) fn image(options: &CloudOptions, pool: &PoolName, id: &str, machine: &ArmId, firmware: &str) -> Value {
    json!({
        "location": options.location,
        "tags": tags(pool, id),
        "properties": {
            "sourceVirtualMachine": { "id": machine.as_str() },
            "hyperVGeneration": firmware,
        },
    })
}

/// Sizes are whole GiB; never less than asked for.
pub(crate) fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_never_less_than_asked_for() {
        assert_eq!((gib(0), gib(1), gib(1 << 30), gib((1 << 30) + 1)), (1, 1, 1, 2));
    }
}
