//! The suites, and what a backend shows of itself to them.

pub mod copies;
pub mod instances;
pub mod runtime;
pub mod store;
pub mod volumes;

use async_trait::async_trait;
use boxpool::{
    Endpoint, Guest, GuestRuntime, InstanceId, InstanceProvider, SnapshotCopier, VolumeId, VolumeProvider, VolumeSource,
};

/// A shell command that begins to count in a guest's memory, twenty a second, and prints the id of the process that does.
///
/// It adds a line for each, and so whoever reads never finds the file between two contents.
pub const COUNTING: &str =
    "(while :; do echo >> /dev/shm/count; sleep 0.05; done) >/dev/null 2>&1 </dev/null & echo $!";

/// A shell command that prints how far [`COUNTING`] has come, once it has begun.
pub const COUNTED: &str = "until [ -s /dev/shm/count ]; do :; done; wc -l < /dev/shm/count";

/// An instance provider under test.
#[async_trait]
pub trait InstanceBench: Send + Sync {
    /// The provider.
    fn instances(&self) -> &dyn InstanceProvider;
    /// An id that was never used.
    fn fresh_instance(&self) -> InstanceId;
}

/// A volume provider under test.
#[async_trait]
pub trait VolumeBench: InstanceBench {
    /// The provider.
    fn volumes(&self) -> &dyn VolumeProvider;
    /// An id that was never used.
    fn fresh_volume(&self) -> VolumeId;
    /// What volumes are filled with.
    fn source(&self) -> VolumeSource;
}

/// Two providers of one kind, each in a region of its own, under test.
#[async_trait]
pub trait RegionsBench: VolumeBench {
    /// Gives snapshots of the region whose volumes the bench has to others.
    fn copier(&self) -> &dyn SnapshotCopier;
    /// The volumes of another region.
    fn other_volumes(&self) -> &dyn VolumeProvider;
    /// Takes snapshots into that other region.
    fn other_copier(&self) -> &dyn SnapshotCopier;
}

/// A guest runtime under test.
#[async_trait]
pub trait RuntimeBench: VolumeBench {
    /// The runtime.
    fn runtime(&self) -> &dyn GuestRuntime;
    /// Runs a shell command in the guest, which must succeed, and returns what it printed, trimmed.
    async fn run(&self, endpoint: &Endpoint, command: &str) -> String;
    /// Kills the machine process of a running guest, as a crash would.
    async fn kill(&self, guest: &Guest);
}
