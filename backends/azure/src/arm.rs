//! What is asked of Resource Manager, and what is understood of its answers: as little as possible, so that fields and
//! values that are new there break nothing here.

use crate::errors::Failure;
use crate::ids::ArmId;
use crate::poll::{Operation, Progress};
use async_trait::async_trait;
use boxpool::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use time::format_description::well_known::Rfc3339;

/// The calls on the wire; each is one request, but for reads, which are repeated while that may help.
#[async_trait]
pub(crate) trait Arm: Send + Sync {
    /// With its instance view.
    async fn machine(&self, name: &str) -> Result<Option<Machine>, Failure>;
    async fn machines(&self, next: Option<&str>) -> Result<Listing<Machine>, Failure>;
    /// Only when there is none of that name.
    async fn create_machine(&self, name: &str, body: Value) -> Result<Begun, Failure>;
    /// Changes what the body names.
    async fn update_machine(&self, name: &str, body: Value, etag: Option<&str>) -> Result<Begun, Failure>;
    async fn start(&self, name: &str) -> Result<Begun, Failure>;
    async fn deallocate(&self, name: &str) -> Result<Begun, Failure>;
    /// Says that what is on it is ready to be copied, and that it never boots again.
    #[cfg(feature = "hosts")]
    async fn generalize(&self, name: &str) -> Result<Begun, Failure>;
    async fn delete_machine(&self, name: &str) -> Result<Begun, Failure>;
    async fn attach(&self, machine: &str, disk: &ArmId, lun: u32) -> Result<Begun, Failure>;
    async fn detach(&self, machine: &str, disk: &ArmId, force: bool) -> Result<Begun, Failure>;

    async fn disk(&self, name: &str) -> Result<Option<Disk>, Failure>;
    async fn disks(&self, next: Option<&str>) -> Result<Listing<Disk>, Failure>;
    async fn put_disk(&self, name: &str, body: Value) -> Result<Begun, Failure>;
    async fn update_disk(&self, name: &str, body: Value) -> Result<Begun, Failure>;
    async fn delete_disk(&self, name: &str) -> Result<Begun, Failure>;

    async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, Failure>;
    async fn snapshots(&self, next: Option<&str>) -> Result<Listing<Snapshot>, Failure>;
    async fn put_snapshot(&self, name: &str, body: Value) -> Result<Begun, Failure>;
    async fn delete_snapshot(&self, name: &str) -> Result<Begun, Failure>;

    #[cfg(feature = "hosts")]
    async fn image(&self, name: &str) -> Result<Option<Common>, Failure>;
    #[cfg(feature = "hosts")]
    async fn put_image(&self, name: &str, body: Value) -> Result<Begun, Failure>;
    #[cfg(feature = "hosts")]
    async fn delete_image(&self, name: &str) -> Result<Begun, Failure>;

    /// What the subscription uses in our place, and may use.
    async fn usages(&self) -> Result<Vec<Usage>, Failure>;
    /// What the caller may do in our group.
    async fn permissions(&self) -> Result<Vec<Grant>, Failure>;

    /// The private address of a network interface; `None` while it has none.
    async fn address(&self, interface: &ArmId) -> Result<Option<String>, Failure>;

    /// Asks an operation how far it is, once.
    async fn poll(&self, machine: Option<&str>, operation: &mut Operation) -> Progress;

    /// The full id of a resource of ours: `kind` is `virtualMachines`, `disks`, `snapshots` or `images`.
    fn id(&self, kind: &str, name: &str) -> ArmId;
}

/// A write was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    /// `None` when nothing goes on after the answer.
    pub(crate) operation: Option<Operation>,
}

/// One page.
#[derive(Debug, Clone)]
pub(crate) struct Listing<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

impl<T> Listing<T> {
    /// Leaves out what cannot be a resource.
    pub(crate) fn read(body: &Value, item: impl Fn(&Value) -> Option<T>) -> Self {
        let items = body["value"].as_array().into_iter().flatten().filter_map(item).collect();
        let next = body["nextLink"].as_str().filter(|link| !link.is_empty()).map(str::to_owned);
        Self { items, next }
    }
}

pub(crate) type Tags = BTreeMap<String, String>;

/// What all resources have.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) id: ArmId,
    pub(crate) name: String,
    pub(crate) tags: Tags,
    /// As they came, for those who send them back: tags are only ever replaced as a whole.
    pub(crate) raw_tags: serde_json::Map<String, Value>,
    pub(crate) provisioning: String,
    pub(crate) created_at: Option<Timestamp>,
}

impl Common {
    pub(crate) fn read(body: &Value) -> Option<Self> {
        let id = ArmId::new(body["id"].as_str()?);
        let name = body["name"].as_str().unwrap_or_else(|| id.name()).to_owned();
        let tags = body["tags"].as_object().into_iter().flatten();
        // Names of tags do not tell upper case from lower case.
        let tags =
            tags.filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.as_str()?.to_owned()))).collect();
        let properties = &body["properties"];
        let provisioning = properties["provisioningState"].as_str().unwrap_or_default().to_owned();
        let created_at = properties["timeCreated"].as_str().and_then(timestamp);
        let raw_tags = body["tags"].as_object().cloned().unwrap_or_default();
        Some(Self { id, name, tags, raw_tags, provisioning, created_at })
    }

    pub(crate) fn is_in(&self, provisioning: &str) -> bool {
        self.provisioning.eq_ignore_ascii_case(provisioning)
    }

    pub(crate) fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name).map(String::as_str)
    }
}

fn timestamp(text: &str) -> Option<Timestamp> {
    let at = time::OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp)
}

/// A virtual machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) common: Common,
    pub(crate) etag: Option<String>,
    pub(crate) size: String,
    pub(crate) zone: Option<String>,
    pub(crate) disks: Vec<DataDisk>,
    pub(crate) interfaces: Vec<ArmId>,
    /// `running`, `deallocated`, …; empty when not told.
    pub(crate) power: String,
    /// Of a failed one: the code, as `AllocationFailed`; empty when not told.
    pub(crate) failure: String,
    /// It was made ready to be copied.
    #[cfg(feature = "hosts")]
    pub(crate) generalized: bool,
    /// `V1` or `V2`: how it boots.
    #[cfg(feature = "hosts")]
    pub(crate) firmware: Option<String>,
}

/// A quota and how much of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// As `cores`, `virtualMachines` or `standardDSv5Family`.
    pub(crate) name: String,
    /// The same for people.
    pub(crate) shown: String,
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

impl Usage {
    pub(crate) fn read(body: &Value) -> Option<Self> {
        let name = body["name"]["value"].as_str()?.to_owned();
        let shown = body["name"]["localizedValue"].as_str().unwrap_or(&name).to_owned();
        // -1 means no limit.
        let limit = body["limit"].as_u64().unwrap_or(u64::MAX);
        Some(Self { name, shown, used: body["currentValue"].as_u64()?, limit })
    }
}

/// What one role assignment allows. Patterns may hold `*`, and do not tell case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) actions: Vec<String>,
    pub(crate) not_actions: Vec<String>,
}

impl Grant {
    pub(crate) fn read(body: &Value) -> Option<Self> {
        let texts = |name: &str| {
            let items = body[name].as_array().into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        body.is_object().then(|| Self { actions: texts("actions"), not_actions: texts("notActions") })
    }
}

/// A data disk, as its machine sees it.
#[derive(Debug, Clone)]
pub(crate) struct DataDisk {
    pub(crate) id: ArmId,
    pub(crate) lun: Option<u32>,
    pub(crate) leaving: bool,
}

impl Machine {
    pub(crate) fn read(body: &Value) -> Option<Self> {
        let common = Common::read(body)?;
        let properties = &body["properties"];
        let disks = properties["storageProfile"]["dataDisks"].as_array().into_iter().flatten();
        let disks = disks
            .filter_map(|disk| {
                Some(DataDisk {
                    id: ArmId::new(disk["managedDisk"]["id"].as_str()?),
                    lun: number(&disk["lun"]),
                    leaving: disk["toBeDetached"].as_bool().unwrap_or(false),
                })
            })
            .collect();
        let interfaces = properties["networkProfile"]["networkInterfaces"].as_array().into_iter().flatten();
        let interfaces = interfaces.filter_map(|each| Some(ArmId::new(each["id"].as_str()?))).collect();
        let statuses = properties["instanceView"]["statuses"].as_array().into_iter().flatten();
        let codes: Vec<&str> = statuses.filter_map(|status| status["code"].as_str()).collect();
        let after = |prefix: &str| {
            let of = |code: &&str| code.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
            codes.iter().find(|code| of(code)).map(|code| code[prefix.len()..].to_owned()).unwrap_or_default()
        };
        Some(Self {
            etag: body["etag"].as_str().map(str::to_owned),
            size: properties["hardwareProfile"]["vmSize"].as_str().unwrap_or_default().to_owned(),
            zone: body["zones"][0].as_str().map(str::to_owned),
            disks,
            interfaces,
            power: after("PowerState/").to_ascii_lowercase(),
            failure: after("ProvisioningState/failed/"),
            #[cfg(feature = "hosts")]
            generalized: codes.iter().any(|code| code.eq_ignore_ascii_case("OSState/generalized")),
            #[cfg(feature = "hosts")]
            firmware: properties["instanceView"]["hyperVGeneration"].as_str().map(str::to_owned),
            common,
        })
    }

    pub(crate) fn holds(&self, disk: &ArmId) -> Option<&DataDisk> {
        self.disks.iter().find(|held| held.id == *disk)
    }

    /// The lowest slot that no disk has; `most` is how many there are.
    pub(crate) fn free_lun(&self, most: u32) -> Option<u32> {
        (0..most).find(|lun| self.disks.iter().all(|disk| disk.lun != Some(*lun)))
    }
}

/// A whole number, also one that is written as `0.0`.
fn number(value: &Value) -> Option<u32> {
    if let Some(whole) = value.as_u64() {
        return u32::try_from(whole).ok();
    }
    let float = value.as_f64()?;
    (float.fract() == 0.0 && (0.0..1e6).contains(&float)).then_some(float as u32)
}

/// A managed disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) common: Common,
    pub(crate) managed_by: Option<ArmId>,
    pub(crate) gib: u64,
    /// Tells a disk from one that had its name before.
    pub(crate) unique_id: String,
    /// It was attached or detached at some time.
    pub(crate) changed_hands: bool,
}

impl Disk {
    pub(crate) fn read(body: &Value) -> Option<Self> {
        let properties = &body["properties"];
        let state = properties["diskState"].as_str().unwrap_or_default();
        let managed_by = body["managedBy"].as_str().filter(|id| !id.is_empty()).map(ArmId::new);
        Some(Self {
            common: Common::read(body)?,
            changed_hands: managed_by.is_some()
                || !["", "Unattached"].contains(&state)
                || properties["LastOwnershipUpdateTime"].as_str().is_some_and(|at| !at.is_empty()),
            managed_by,
            gib: properties["diskSizeGB"].as_u64().unwrap_or_default(),
            unique_id: properties["uniqueId"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

/// A snapshot of a disk.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) common: Common,
    /// Of a copy that goes on in the background.
    pub(crate) percent: Option<f64>,
    /// Why such a copy has failed for good.
    pub(crate) copy_error: Option<String>,
}

impl Snapshot {
    pub(crate) fn read(body: &Value) -> Option<Self> {
        let properties = &body["properties"];
        let error = &properties["copyCompletionError"];
        let copy_error = error["errorCode"]
            .as_str()
            .map(|code| format!("{code}: {}", error["errorMessage"].as_str().unwrap_or_default()));
        Some(Self { common: Common::read(body)?, percent: properties["completionPercent"].as_f64(), copy_error })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.common.is_in("Succeeded") && self.percent.is_none_or(|percent| percent >= 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_new_or_missing_breaks_nothing() {
        let machine = Machine::read(&json!({
            "id": "/subscriptions/S/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/VM1",
            "tags": {"Boxpool-Pool": "p", "other": null},
            "brandNew": {"x": [1]},
            "properties": {
                "provisioningState": "Succeeded",
                "timeCreated": "2026-02-03T04:05:06.789+00:00",
                "storageProfile": {"dataDisks": [
                    {"lun": 0.0, "caching": "Quantum", "managedDisk": {"id": "/d/A"}, "toBeDetached": null},
                    {"lun": 2, "managedDisk": {"id": "/d/b"}, "toBeDetached": true},
                    {"lun": 3}
                ]},
                "instanceView": {"statuses": [{"code": "ProvisioningState/succeeded"}, {"code": "powerstate/Running"}, {}]}
            }
        }))
        .unwrap();
        assert_eq!((machine.common.name.as_str(), machine.common.tag("boxpool-pool")), ("VM1", Some("p")));
        assert_eq!((machine.power.as_str(), machine.disks.len()), ("running", 2));
        assert_eq!(machine.common.created_at, Some(Timestamp(1_770_091_506_789)));
        assert_eq!(machine.holds(&ArmId::new("/D/a")).unwrap().lun, Some(0));
        assert!(machine.holds(&ArmId::new("/d/B")).unwrap().leaving);
        assert_eq!((machine.free_lun(64), machine.free_lun(1)), (Some(1), None));
        assert!(Machine::read(&json!({})).is_none());
        assert!(Machine::read(&json!({"id": "/x"})).is_some());
    }

    #[test]
    fn the_code_of_a_failed_machine_is_read() {
        let machine =
            Machine::read(&json!({"id": "/x", "properties": {"provisioningState": "Failed", "instanceView": {
            "statuses": [{"code": "ProvisioningState/failed/AllocationFailed", "level": "Error"}]}}}))
            .unwrap();
        assert_eq!((machine.failure.as_str(), machine.power.as_str()), ("AllocationFailed", ""));
    }

    #[test]
    fn a_disk_that_was_ever_attached_says_so() {
        let disk = |extra: Value| {
            let mut body = json!({"id": "/d", "properties": {"diskState": "Unattached"}});
            for (key, value) in extra.as_object().unwrap() {
                body[key] = value.clone();
            }
            Disk::read(&body).unwrap()
        };
        assert!(!disk(json!({})).changed_hands);
        assert!(!disk(json!({"managedBy": null})).changed_hands);
        assert!(disk(json!({"managedBy": "/vm"})).changed_hands);
        assert!(disk(json!({"properties": {"diskState": "Reserved"}})).changed_hands);
        assert!(
            disk(json!({"properties": {"diskState": "Unattached", "LastOwnershipUpdateTime": "2026-01-01T00:00:00Z"}}))
                .changed_hands
        );
    }

    #[test]
    fn how_far_a_copy_is_and_why_it_failed_is_read() {
        let snapshot = |properties: Value| Snapshot::read(&json!({"id": "/s", "properties": properties})).unwrap();
        for (percent, ready) in [(json!(99.5), false), (json!(100.0), true), (json!(null), true)] {
            let whole = snapshot(json!({"provisioningState": "Succeeded", "completionPercent": percent}));
            assert_eq!((whole.is_ready(), whole.copy_error), (ready, None), "{percent}");
        }
        let error = json!({"errorCode": "CopySourceNotFound", "errorMessage": "It was deleted."});
        let failed =
            snapshot(json!({"provisioningState": "Succeeded", "completionPercent": 7, "copyCompletionError": error}));
        assert_eq!(failed.copy_error.as_deref(), Some("CopySourceNotFound: It was deleted."));
    }

    #[test]
    fn a_page_with_oddities_is_read() {
        let page = Listing::read(&json!({"value": [{"id": "/a"}, {}, 7], "nextLink": ""}), Disk::read);
        assert_eq!((page.items.len(), page.next), (1, None));
        assert!(Listing::read(&json!({}), Disk::read).items.is_empty());
    }
}
