//! Machines and disks keep every promise of instances and volumes, against a stand-in for Resource Manager.

#![allow(clippy::unwrap_used)]

mod stand_in;

use async_trait::async_trait;
use boxpool::{InstanceId, InstanceProvider, VolumeId, VolumeProvider, VolumeSource};
use boxpool_azure::AzureCloud;
use boxpool_sim::conformance::{InstanceBench, VolumeBench};
use stand_in::StandIn;
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(1);

struct Bench {
    cloud: AzureCloud,
    _service: StandIn,
}

fn bench() -> Bench {
    let service = StandIn::start();
    // Somebody else's things are in the group, too.
    service.put("virtualMachines", "customers-vm", serde_json::json!({ "properties": {} }));
    service.put(
        "disks",
        "customers-disk",
        serde_json::json!({ "tags": { "boxpool-pool": "other" }, "properties": {} }),
    );
    Bench { cloud: service.cloud(), _service: service }
}

#[async_trait]
impl InstanceBench for Bench {
    fn instances(&self) -> &dyn InstanceProvider {
        &self.cloud
    }
    fn fresh_instance(&self) -> InstanceId {
        InstanceId::new(format!("i{:05}-c", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn volumes(&self) -> &dyn VolumeProvider {
        &self.cloud
    }
    fn fresh_volume(&self) -> VolumeId {
        VolumeId::new(format!("v-{:016x}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
    }
    fn source(&self) -> VolumeSource {
        VolumeSource::Empty { bytes: 4 << 30 }
    }
}

mod instances {
    use super::*;
    boxpool_sim::instance_conformance!(bench());
}

mod volumes {
    use super::*;
    boxpool_sim::volume_conformance!(bench(), snapshots);
}
