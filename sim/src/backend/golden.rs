use async_trait::async_trait;
use boxpool::{
    Error, ErrorKind, GoldenBuilder, Permit, Result, SnapshotId, VolumeId, VolumeProvider, VolumeSource, VolumeSpec,
    VolumeState,
};
use std::sync::Arc;
use std::time::Duration;

const POLL_EVERY: Duration = Duration::from_millis(500);
const BYTES: u64 = 1 << 30;
const SCRATCH: &str = "scratch-";

/// Builds golden snapshots in a simulated cloud: a scratch volume is made, copied into a snapshot, and deleted.
///
/// Every step finds what an earlier attempt has done. Works on any [`VolumeProvider`] whose `snapshot` finds a snapshot whose
/// volume is gone.
pub struct SimGolden {
    volumes: Arc<dyn VolumeProvider>,
    generation: String,
}

impl SimGolden {
    /// A builder of that generation.
    #[must_use]
    pub fn new(volumes: Arc<dyn VolumeProvider>, generation: impl Into<String>) -> Self {
        Self { volumes, generation: generation.into() }
    }

    fn scratch(id: &SnapshotId) -> Result<VolumeId> {
        VolumeId::new(format!("{SCRATCH}{id}"))
            .map_err(|error| Error::new(ErrorKind::Invalid, "build golden snapshot", id).with_source(error))
    }

    async fn delete_scratch(&self, scratch: &VolumeId) -> Result<()> {
        while self.volumes.get(scratch).await?.is_some() {
            self.volumes.delete(scratch).await?;
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// Whether there is such a snapshot, and whether it is ready.
    async fn find(&self, id: &SnapshotId) -> Result<Option<bool>> {
        match self.volumes.snapshot(&Self::scratch(id)?, id).await {
            Ok(view) => Ok(Some(view.ready)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl GoldenBuilder for SimGolden {
    fn generation(&self) -> &str {
        &self.generation
    }

    async fn build(&self, id: &SnapshotId, permit: &Permit) -> Result<()> {
        let scratch = Self::scratch(id)?;
        permit.check().await?;
        // It may be copied already, and its scratch volume gone.
        while self.find(id).await? != Some(true) {
            let spec = VolumeSpec::new(scratch.clone(), VolumeSource::Empty { bytes: BYTES });
            permit.check().await?;
            let broken =
                matches!(self.volumes.ensure(&spec).await?.state, VolumeState::Deleting | VolumeState::Failed(_));
            if broken {
                self.delete_scratch(&scratch).await?;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        permit.check().await?;
        self.delete_scratch(&scratch).await
    }

    async fn verify(&self, id: &SnapshotId) -> Result<bool> {
        Ok(self.find(id).await? == Some(true))
    }

    async fn discard(&self, id: &SnapshotId) -> Result<()> {
        self.delete_scratch(&Self::scratch(id)?).await?;
        while self.find(id).await?.is_some() {
            self.volumes.delete_snapshot(id).await?;
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    fn is_scratch(&self, name: &str) -> bool {
        name.starts_with(SCRATCH)
    }
}
