//! Snapshots of other regions: Azure copies them in the background, from one region's storage to the other's, without a machine.
//!
//! A copy is begun once, by a request that makes the snapshot; from then on it is only looked at. If the process dies meanwhile the
//! snapshot tells how far it is, and it is deleted as any other, which ends the copy.

use crate::ancestry;
use crate::bodies;
use crate::cloud::{AzureCloud, busy};
use crate::errors::Act;
use crate::ids::ArmId;
use crate::volumes::absent;
use async_trait::async_trait;
use boxpool::{Error, ErrorKind, Result, SnapshotCopier, SnapshotCopy, SnapshotId, SnapshotLocation, VolumeId};
use serde::{Deserialize, Serialize};

/// Where other regions find a snapshot, and what volumes that are made of it are tagged with.
#[derive(Debug, Serialize, Deserialize)]
struct Location {
    snapshot: String,
    #[serde(default)]
    copied_from: Vec<VolumeId>,
}

#[async_trait]
impl SnapshotCopier for AzureCloud {
    async fn locate_snapshot(&self, id: &SnapshotId) -> Result<SnapshotLocation> {
        const ACT: &str = "find snapshot";
        let found = self.inner.found_snapshot(ACT, id).await?.ok_or_else(|| absent(ACT, id, "snapshot"))?;
        let copied_from = ancestry::copied_from(&found.common);
        let location = Location { snapshot: found.common.id.as_str().to_owned(), copied_from };
        let text = serde_json::to_string(&location)
            .map_err(|error| Error::new(ErrorKind::Invalid, ACT, id).with_source(error))?;
        Ok(SnapshotLocation(text))
    }

    async fn copy_snapshot(&self, from: &SnapshotLocation, id: &SnapshotId) -> Result<SnapshotCopy> {
        let act = Act::write("copy snapshot", id.as_str());
        let from: Location = serde_json::from_str(&from.0).map_err(|error| {
            let detail = "the location was not made by this backend";
            Error::new(ErrorKind::Invalid, act.operation, id).with_detail(detail).with_source(error)
        })?;
        let inner = &*self.inner;
        let name = inner.pool.snapshot(id)?;
        let _alone = inner.alone(format!("snapshot/{name}")).await;
        let mut copy = SnapshotCopy::new(false);
        if let Some(found) = inner.found_snapshot(act.operation, id).await? {
            if found.common.is_in("Deleting") {
                return Err(busy(act.operation, id, "an earlier snapshot of that id is still being deleted"));
            }
            let failed = found.common.is_in("Failed").then(|| "its provisioning failed".to_owned());
            if let Some(why) = found.copy_error.clone().or(failed) {
                let detail = format!("the copy has failed: {why}; delete it and copy again");
                return Err(Error::new(ErrorKind::Permanent, act.operation, id).with_detail(detail));
            }
            copy.ready = found.is_ready();
            copy.percent = found.percent.map(|percent| percent.clamp(0.0, 100.0) as u8);
            return Ok(copy);
        }
        let mut body = bodies::snapshot_copy(&inner.options, &inner.pool, id.as_str(), &ArmId::new(from.snapshot));
        ancestry::tag(&mut body, &from.copied_from);
        inner.arm.put_snapshot(&name, body).await.map_err(|failure| act.failed(failure))?;
        copy.percent = Some(0);
        Ok(copy)
    }
}
