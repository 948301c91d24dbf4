//! Machines and disks keep every promise of instances and volumes, against the simulated Resource Manager.

use async_trait::async_trait;
use boxpool::{InstanceId, InstanceProvider, VolumeId, VolumeProvider, VolumeSource};
use boxpool_azure::{AzureCloud, CloudOptions, CredentialChoice, Proxy, Secret};
use boxpool_sim::arm::{ArmFaults, ArmServer};
use boxpool_sim::conformance::{InstanceBench, VolumeBench};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(1);

struct Bench {
    cloud: AzureCloud,
    _service: ArmServer,
}

fn options(service: &ArmServer) -> CloudOptions {
    let mut options = CloudOptions::new("0000-1111", "rg", "westeurope", "pool");
    options.endpoint = service.url();
    options.credential = CredentialChoice::Fixed(Secret::new("token"));
    let provider = "/subscriptions/0000-1111/resourceGroups/rg/providers";
    options.machines.image = format!("{provider}/Microsoft.Compute/images/host");
    options.machines.subnet = format!("{provider}/Microsoft.Network/virtualNetworks/net/subnets/hosts");
    options.machines.ssh_public_key = "ssh-ed25519 AAAA boxpool".into();
    options.proxy = Proxy::None;
    options.budgets = false;
    options
}

async fn bench(faults: ArmFaults) -> Bench {
    let service = ArmServer::builder().seed(7).time_scale(0.002).page_size(2).faults(faults).start().await.unwrap();
    Bench { cloud: AzureCloud::open(options(&service)).unwrap(), _service: service }
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
