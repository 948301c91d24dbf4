//! Instances that are machines of their own: how each one's host is found.

use crate::host::Host;
use async_trait::async_trait;
use boxpool::{InstanceId, Result};
use std::sync::Arc;

/// Finds the machine of an instance.
#[async_trait]
pub trait Hosts: Send + Sync + 'static {
    /// The machine, once it is ready to run boxes. Whoever answers is surely that machine: an SSH host is known by a host
    /// key that was pinned when the machine was made.
    ///
    /// # Errors
    /// `NotFound`: there is no such machine. `Unavailable`: it does not answer, or is not ready yet.
    async fn host(&self, instance: &InstanceId) -> Result<Arc<dyn Host>>;
}
