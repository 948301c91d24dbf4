//! Operations that take a while: each is a task of its own, so that a caller who goes away changes nothing.

use super::Server;
use super::id::{Id, Kind};
use super::machines::{Filling, MachineFacts};
use super::state::{Operation, disk_of};
use super::wire::Failure;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What an operation does when its time has come.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// A machine boots for the first time.
    CreateMachine(MachineFacts),
    /// A machine is as its body says: disks are plugged and pulled.
    ArrangeDisks,
    /// A machine boots, is switched off, or off and on.
    Power {
        to: &'static str,
    },
    DeleteMachine,
    /// A disk or snapshot is filled.
    Fill(Filling),
    /// A disk, snapshot, image or interface goes.
    Delete,
    /// A group goes, and all that is in it.
    DeleteGroup,
    /// Nothing that is seen.
    Settle,
}

impl Work {
    /// Measured times, in milliseconds: see the facts about each in the crate's page on latencies.
    pub(super) fn takes(&self, force: bool) -> u64 {
        match self {
            Self::CreateMachine(_) => 42_900,
            Self::ArrangeDisks if force => 640,
            Self::ArrangeDisks => 8_500,
            Self::Power { to: "running" } => 75_600,
            Self::Power { to: "deallocated" } => 29_600,
            Self::Power { .. } => 12_100,
            Self::DeleteMachine => 19_600,
            Self::Fill(_) => 2_000,
            Self::Delete => 300,
            Self::DeleteGroup => 15_000,
            Self::Settle => 500,
        }
    }
}

impl Server {
    /// Begins an operation on a resource and returns its id. `fate` says how it ends, if not well.
    pub(super) fn begin(self: &Arc<Self>, id: &Id, work: Work, force: bool) -> String {
        let mut state = self.state();
        let number = state.number();
        let operation = format!("{:08x}-0000-4000-8000-{number:012x}", self.settings.seed & 0xffff_ffff);
        if let Some(resource) = state.get_mut(id) {
            resource.working = Some(operation.clone());
        }
        let takes = Duration::from_millis(work.takes(force)).mul_f64(self.settings.time_scale);
        let (server, of, name) = (Arc::clone(self), id.clone(), operation.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            let failure = server.doom_of(&name);
            let end = match failure {
                Some(Doom::Stuck) => return std::future::pending().await,
                Some(Doom::Fails(code)) => Err((code, "The operation failed.".to_owned())),
                None => server.perform(&of, &work).await,
            };
            server.finish(&of, &name, &work, end);
        });
        let entry = Operation { end: None, canceled: false, polls: 0, task: Some(task.abort_handle()) };
        state.operations.insert(operation.clone(), entry);
        operation
    }

    fn doom_of(&self, operation: &str) -> Option<Doom> {
        self.dooms().remove(operation)
    }

    /// Does what the operation is for, first behind the scenes, then in what is shown.
    async fn perform(&self, id: &Id, work: &Work) -> Result<Option<Value>, Failure> {
        let wrong = |message: String| ("InternalOperationError".to_owned(), message);
        let name = id.name.as_str();
        match work {
            Work::CreateMachine(facts) => {
                if let Some(code) = self.without_room(facts, id) {
                    let message = "Allocation failed. We do not have sufficient capacity for the requested VM size.";
                    return Err((code, message.to_owned()));
                }
                let address =
                    self.machines.create(facts).await.map_err(|why| ("OSProvisioningClientError".into(), why))?;
                self.booted(id, &address.to_string());
                self.arrange(id).await?;
            }
            Work::ArrangeDisks => self.arrange(id).await?,
            Work::Power { to } => {
                match *to {
                    "running" => self.machines.start(name).await.map_err(wrong)?,
                    "restarted" => {
                        self.machines.stop(name, false).await.map_err(wrong)?;
                        self.machines.start(name).await.map_err(wrong)?;
                    }
                    off => self.machines.stop(name, off == "deallocated").await.map_err(wrong)?,
                }
                self.powered(id, if *to == "restarted" { "running" } else { to });
            }
            Work::DeleteMachine => {
                self.pull_all(id).await.map_err(wrong)?;
                self.machines.delete(name).await.map_err(wrong)?;
                for gone in self.remove_machine(id) {
                    self.machines.discard(&gone).await.map_err(wrong)?;
                }
            }
            Work::Fill(filling) => {
                self.machines.fill(name, filling).await.map_err(wrong)?;
                let mut state = self.state();
                if let Some(resource) = state.get_mut(id) {
                    let properties = resource.properties();
                    if properties["diskState"].is_null() || properties["diskState"] == "Preparing" {
                        properties["diskState"] = json!("Unattached");
                    }
                    properties["completionPercent"] = json!(100.0);
                    return Ok(Some(resource.body.clone()));
                }
            }
            Work::Delete => {
                if matches!(id.kind, Kind::Disk | Kind::Snapshot) {
                    self.machines.discard(name).await.map_err(wrong)?;
                }
                self.state().resources.remove(&id.key());
            }
            Work::DeleteGroup => {
                let inside: Vec<Id> = {
                    let state = self.state();
                    let of_group = |of: &&Id| of.group.eq_ignore_ascii_case(name);
                    state.resources.values().map(|resource| &resource.id).filter(of_group).cloned().collect()
                };
                for of in &inside {
                    match of.kind {
                        Kind::Vm => self.machines.delete(&of.name).await.map_err(wrong)?,
                        Kind::Disk | Kind::Snapshot => self.machines.discard(&of.name).await.map_err(wrong)?,
                        _ => {}
                    }
                }
                let mut state = self.state();
                inside.iter().for_each(|of| drop(state.resources.remove(&of.key())));
            }
            Work::Settle => {}
        }
        Ok(None)
    }

    /// Plugs and pulls until a machine has the disks that its body says. Pulled ones vanish from it only then.
    async fn arrange(&self, id: &Id) -> Result<(), Failure> {
        let wrong = |message: String| ("AttachDiskFailed".to_owned(), message);
        let (pull, plug) = {
            let mut state = self.state();
            let Some(machine) = state.get_mut(id) else { return Ok(()) };
            let plugged = machine.plugged.clone();
            let mut plug = Vec::new();
            let mut pull = Vec::new();
            for entry in machine.data_disks().iter() {
                let (disk, lun) = (disk_of(entry).to_owned(), entry["lun"].as_i64().unwrap_or_default());
                if entry["toBeDetached"] == true {
                    pull.push((disk, lun));
                } else if !plugged.contains_key(&disk.to_ascii_lowercase()) {
                    plug.push((disk, lun));
                }
            }
            (pull, plug)
        };
        for (disk, lun) in pull {
            self.machines.unplug(&id.name, lun, name_in(&disk)).await.map_err(wrong)?;
            self.pulled(id, &disk);
        }
        for (disk, lun) in plug {
            self.machines.plug(&id.name, lun, name_in(&disk)).await.map_err(wrong)?;
            let mut state = self.state();
            let Some(machine) = state.get_mut(id) else { return Ok(()) };
            machine.plugged.insert(disk.to_ascii_lowercase(), lun);
            let reserved = machine.power == "deallocated";
            if let Some(disk) = state.find(&disk) {
                disk.properties()["diskState"] = json!(if reserved { "Reserved" } else { "Attached" });
            }
        }
        Ok(())
    }

    async fn pull_all(&self, id: &Id) -> Result<(), String> {
        let plugged = self.state().get(id).map(|machine| machine.plugged.clone()).unwrap_or_default();
        for (disk, lun) in plugged {
            self.machines.unplug(&id.name, lun, name_in(&disk)).await?;
        }
        Ok(())
    }

    fn finish(&self, id: &Id, operation: &str, work: &Work, end: Result<Option<Value>, Failure>) {
        let mut state = self.state();
        if let Some(resource) = state.get_mut(id) {
            if resource.working.as_deref() == Some(operation) {
                resource.working = None;
            }
            match &end {
                Ok(_) => {
                    resource.set_state("Succeeded");
                    resource.body["failedWith"] = Value::Null;
                    let pulled = matches!(work, Work::ArrangeDisks | Work::CreateMachine(_));
                    resource.etag += u64::from(pulled);
                }
                Err((code, _)) => {
                    resource.set_state("Failed");
                    resource.body["failedWith"] = json!(code);
                }
            }
        }
        if let Some(entry) = state.operations.get_mut(operation) {
            entry.end = Some(end);
            entry.task = None;
        }
    }
}

/// How an operation ends that does not end well.
#[derive(Debug, Clone)]
pub(super) enum Doom {
    /// Never.
    Stuck,
    /// With that code.
    Fails(String),
}

/// The last part of an id.
pub(super) fn name_in(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}
