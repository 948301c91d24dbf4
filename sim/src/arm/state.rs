//! Everything that is there: resources and the operations on them.

use super::id::{Id, Kind};
use super::throttle::Buckets;
use super::wire::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::task::AbortHandle;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct State {
    /// By their ids in lower case.
    pub(super) resources: BTreeMap<String, Resource>,
    pub(super) operations: BTreeMap<String, Operation>,
    pub(super) buckets: Buckets,
    pub(super) requests: Vec<super::Logged>,
    /// How often each kind of request was made: faults are keyed by it.
    pub(super) nth: BTreeMap<String, u32>,
    numbers: u64,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) id: Id,
    /// As it is shown, but for what changes with every look.
    pub(super) body: Value,
    /// Only machines have one.
    pub(super) etag: u64,
    pub(super) power: &'static str,
    /// The operation that is at work on it.
    pub(super) working: Option<String>,
    /// It was made ready to be copied, and boots no more.
    pub(super) generalized: bool,
    /// Which disks are really plugged into a machine, and where.
    pub(super) plugged: BTreeMap<String, i64>,
    pub(super) created: Instant,
}

impl Resource {
    pub(super) fn new(id: Id, mut body: Value) -> Self {
        body["id"] = json!(id.text());
        body["name"] = json!(id.name);
        body["type"] = json!(id.kind.resource_type());
        Self {
            id,
            body,
            etag: 1,
            power: "creating",
            working: None,
            generalized: false,
            plugged: BTreeMap::new(),
            created: Instant::now(),
        }
    }

    pub(super) fn properties(&mut self) -> &mut Value {
        &mut self.body["properties"]
    }

    pub(super) fn set_state(&mut self, state: &str) {
        self.properties()["provisioningState"] = json!(state);
    }

    pub(super) fn state(&self) -> &str {
        self.body["properties"]["provisioningState"].as_str().unwrap_or_default()
    }

    pub(super) fn zone(&self) -> Option<&str> {
        self.body["zones"][0].as_str()
    }

    pub(super) fn is_zone_redundant(&self) -> bool {
        self.body["sku"]["name"].as_str().is_some_and(|sku| sku.ends_with("_ZRS"))
    }

    /// The machine that a disk is on, as it was written.
    pub(super) fn managed_by(&self) -> Option<&str> {
        self.body["managedBy"].as_str()
    }

    /// What is answered to a look at it.
    pub(super) fn shown(&self, with_instance_view: bool) -> Value {
        let mut shown = self.body.clone();
        if self.id.kind != Kind::Group {
            // Services tell more with time, and older clients must bear it.
            shown["addedLater"] = json!({ "kind": "Unheard", "since": null });
            shown["properties"]["addedLater"] = json!([{ "kind": "Unheard", "count": 1.5 }]);
        }
        if self.id.kind == Kind::Vm {
            shown["etag"] = json!(format!("\"{}\"", self.etag));
            if with_instance_view {
                shown["properties"]["instanceView"] = self.instance_view();
            }
        }
        shown
    }

    pub(super) fn instance_view(&self) -> Value {
        let state = self.state();
        let code = match self.body["failedWith"].as_str() {
            Some(code) if state == "Failed" => format!("ProvisioningState/failed/{code}"),
            _ => format!("ProvisioningState/{}", state.to_ascii_lowercase()),
        };
        let mut statuses = vec![json!({ "code": code, "level": "Info", "displayStatus": state })];
        if state != "Creating" {
            let power = format!("PowerState/{}", self.power);
            statuses.push(json!({ "code": power, "level": "Info", "displayStatus": format!("VM {}", self.power) }));
        }
        if self.generalized {
            statuses.push(json!({ "code": "OSState/generalized", "level": "Info", "displayStatus": "VM generalized" }));
        }
        json!({ "statuses": statuses, "hyperVGeneration": "V2" })
    }

    pub(super) fn data_disks(&mut self) -> &mut Vec<Value> {
        let disks = &mut self.body["properties"]["storageProfile"]["dataDisks"];
        if !disks.is_array() {
            *disks = json!([]);
        }
        match disks {
            Value::Array(disks) => disks,
            _ => unreachable!("it was just made an array"),
        }
    }
}

/// The id of the disk that an entry of a machine's data disks names.
pub(super) fn disk_of(entry: &Value) -> &str {
    entry["managedDisk"]["id"].as_str().unwrap_or_default()
}

/// A long-running operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) end: Option<Result<Option<Value>, Failure>>,
    pub(super) canceled: bool,
    pub(super) polls: u32,
    pub(super) task: Option<AbortHandle>,
}

impl State {
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn get(&self, id: &Id) -> Option<&Resource> {
        self.resources.get(&id.key())
    }

    pub(super) fn get_mut(&mut self, id: &Id) -> Option<&mut Resource> {
        self.resources.get_mut(&id.key())
    }

    /// The resource of that address, however it is written.
    pub(super) fn find(&mut self, text: &str) -> Option<&mut Resource> {
        self.resources.get_mut(&text.to_ascii_lowercase())
    }

    pub(super) fn put(&mut self, resource: Resource) {
        self.resources.insert(resource.id.key(), resource);
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        self.resources.values().filter(move |resource| resource.id.kind == kind)
    }

    pub(super) fn is_running(&self, operation: Option<&str>) -> bool {
        let found = operation.and_then(|id| self.operations.get(id));
        found.is_some_and(|operation| operation.end.is_none() && !operation.canceled)
    }

    /// Ends an operation before its time: a newer one takes its place.
    pub(super) fn supersede(&mut self, operation: &str) {
        if let Some(operation) = self.operations.get_mut(operation) {
            if let Some(task) = operation.task.take() {
                task.abort();
            }
            operation.canceled = true;
        }
    }
}
