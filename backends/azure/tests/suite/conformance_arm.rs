//! Machines and disks keep every promise of instances and volumes, against the simulated Resource Manager.

use crate::arm::options;
use async_trait::async_trait;
use boxpool::{InstanceId, InstanceProvider, VolumeId, VolumeProvider, VolumeSource};
use boxpool_azure::AzureCloud;
use boxpool_sim::arm::{ArmFaults, ArmServer};
use boxpool_sim::conformance::{InstanceBench, VolumeBench};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(1);

struct Bench {
    cloud: AzureCloud,
    _service: ArmServer,
}

async fn bench(faults: ArmFaults) -> Bench {
    let service = ArmServer::builder().seed(7).time_scale(0.002).page_size(2).faults(faults).start().await.unwrap();
    Bench { cloud: AzureCloud::open(options(&service.url())).unwrap(), _service: service }
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
    boxpool_sim::instance_conformance!(bench(ArmFaults::default()).await);
}

mod volumes {
    use super::*;
    boxpool_sim::volume_conformance!(bench(ArmFaults::default()).await, snapshots);
}
