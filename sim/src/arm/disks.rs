//! Disks, snapshots, images, interfaces and groups: what is put, looked at and deleted whole.

use super::Server;
use super::id::{Id, Kind};
use super::machines::Filling;
use super::state::{Resource, State};
use super::vms::absent;
use super::wire::{Reply, Request, merge, without_nulls};
use super::work::{Work, name_in};
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = Result<Reply, Reply>;

impl Server {
    pub(super) fn put_resource(self: &Arc<Self>, id: &Id, request: &Request) -> Answer {
        let body = without_nulls(&request.json()?);
        if body["location"].as_str().is_none() && id.kind != Kind::Group && self.state().get(id).is_none() {
            return Err(Reply::error(
                400,
                "LocationRequired",
                "The location property is required for this definition.",
            ));
        }
        match id.kind {
            Kind::Disk | Kind::Snapshot => self.put_disk(id, &body, request),
            Kind::Nic => self.put_at_once(id, &body, &[("W/\"1\"", "etag")]),
            Kind::Image if self.state().get(id).is_none() => self.make_image(id, body, request),
            _ => self.put_at_once(id, &body, &[]),
        }
    }

    /// A copy of a generalized machine's disks, or of blobs and snapshots that nobody looks at here.
    fn make_image(self: &Arc<Self>, id: &Id, mut body: Value, request: &Request) -> Answer {
        let mut state = self.state();
        let source = body["properties"]["sourceVirtualMachine"]["id"].as_str().map(str::to_owned);
        if let Some(source) = source {
            let Some(machine) = state.find(&source) else {
                let message = format!("The source resource '{source}' was not found.");
                return Err(Reply::error_at(404, "NotFound", &source, &message));
            };
            if !machine.generalized {
                let message = format!("The VM '{}' is not generalized.", machine.id.name);
                return Err(Reply::error(409, "OperationNotAllowed", &message));
            }
            let storage = machine.body["properties"]["storageProfile"].clone();
            body["properties"]["storageProfile"] = json!({
                "osDisk": { "osType": "Linux", "osState": "Generalized", "managedDisk": storage["osDisk"]["managedDisk"] },
                "dataDisks": [],
            });
        }
        let mut image = Resource::new(id.clone(), body);
        image.set_state("Creating");
        let shown = image.shown(false);
        state.put(image);
        drop(state);
        let operation = self.begin(id, Work::Settle, false);
        let links = self.links(request, &operation, id);
        Ok(Reply::new(201, shown).with("Azure-AsyncOperation", links.0).with("Location", links.1))
    }

    /// Interfaces and groups are there with the answer, and so is what changes of an image.
    fn put_at_once(&self, id: &Id, body: &Value, extra: &[(&str, &str)]) -> Answer {
        let mut state = self.state();
        let new = state.get(id).is_none();
        if new {
            let mut shape = body.clone();
            if !shape["properties"].is_object() {
                shape["properties"] = json!({});
            }
            state.put(Resource::new(id.clone(), shape));
        } else if let Some(resource) = state.get_mut(id) {
            merge(&mut resource.body, body);
        }
        let number = state.number();
        let Some(resource) = state.get_mut(id) else { return Err(absent(id)) };
        resource.set_state("Succeeded");
        for (value, name) in extra {
            resource.body[*name] = json!(value);
        }
        if id.kind == Kind::Nic
            && let Some(first) =
                resource.properties()["ipConfigurations"].as_array_mut().and_then(|all| all.first_mut())
            && first["properties"]["privateIPAddress"].is_null()
        {
            first["properties"]["privateIPAddress"] =
                json!(format!("10.1.{}.{}", number / 250 % 250, number % 250 + 4));
        }
        Ok(Reply::new(if new { 201 } else { 200 }, resource.shown(false)))
    }

    fn put_disk(self: &Arc<Self>, id: &Id, body: &Value, request: &Request) -> Answer {
        let mut state = self.state();
        if state.get(id).is_some() {
            return self.change_disk_in(state, id, body, request);
        }
        let creation = &body["properties"]["creationData"];
        let filling = match creation["createOption"].as_str().unwrap_or_default() {
            "Empty" if id.kind == Kind::Disk => {
                let Some(gigabytes) = body["properties"]["diskSizeGB"].as_u64().filter(|size| *size > 0) else {
                    let message = "Required parameter 'disk.diskSizeGB' is missing (null).";
                    return Err(Reply::error_at(400, "InvalidParameter", "disk.diskSizeGB", message));
                };
                Filling::Empty { bytes: gigabytes << 30 }
            }
            "CopyStart" if id.kind == Kind::Snapshot => return self.start_copy(state, id, body, request),
            "Copy" => {
                let from = creation["sourceResourceId"]
                    .as_str()
                    .or_else(|| creation["sourceUri"].as_str())
                    .unwrap_or_default();
                if state.find(from).is_none() {
                    let message = format!("The source resource '{from}' was not found.");
                    return Err(Reply::error_at(404, "ResourceNotFound", from, &message));
                }
                if state.find(from).is_some_and(|source| !is_whole(&source.body)) {
                    let message = format!("The snapshot '{from}' is still being copied.");
                    return Err(Reply::error(409, "OperationNotAllowed", &message));
                }
                Filling::CopyOf(name_in(from).to_owned())
            }
            other => {
                let message = format!("The value '{other}' of parameter creationData.createOption is invalid.");
                return Err(Reply::error_at(400, "InvalidParameter", "creationData.createOption", &message));
            }
        };
        let mut shape = body.clone();
        let unique = state.number();
        let properties = &mut shape["properties"];
        properties["uniqueId"] = json!(format!("{unique:08x}-0000-4000-8000-00000000d15c"));
        if properties["diskSizeGB"].is_null() {
            let from = creation["sourceResourceId"].as_str().unwrap_or_default();
            let size = state.find(from).map(|source| source.body["properties"]["diskSizeGB"].clone());
            properties["diskSizeGB"] = size.unwrap_or_else(|| json!(1));
        }
        properties["diskState"] = json!("Unattached");
        if id.kind == Kind::Snapshot {
            properties["completionPercent"] = json!(0.0);
        }
        let mut disk = Resource::new(id.clone(), shape);
        disk.set_state("Updating");
        let shown = disk.shown(false);
        state.put(disk);
        drop(state);
        let operation = self.begin(id, Work::Fill(filling), false);
        Ok(self.accepted_with(request, &operation, id, Some(2), shown))
    }

    /// A copy of a snapshot of another region goes on in the background after the request has ended, and tells how far it is.
    fn start_copy(
        self: &Arc<Self>,
        mut state: std::sync::MutexGuard<'_, State>,
        id: &Id,
        body: &Value,
        request: &Request,
    ) -> Answer {
        let from = body["properties"]["creationData"]["sourceResourceId"].as_str().unwrap_or_default().to_owned();
        let Some(source) = state.find(&from).filter(|source| source.id.kind == Kind::Snapshot) else {
            let message = format!("The source resource '{from}' was not found.");
            return Err(Reply::error_at(404, "ResourceNotFound", &from, &message));
        };
        if source.body["properties"]["incremental"] != true || body["properties"]["incremental"] != true {
            let message = "CopyStart is supported for incremental snapshots only.";
            return Err(Reply::error_at(400, "InvalidParameter", "creationData.createOption", message));
        }
        if !is_whole(&source.body) {
            let message = format!("The snapshot '{from}' is still being copied.");
            return Err(Reply::error(409, "OperationNotAllowed", &message));
        }
        let size = source.body["properties"]["diskSizeGB"].clone();
        let mut shape = body.clone();
        let unique = format!("{:08x}-0000-4000-8000-00000000d15c", state.number());
        let properties = &mut shape["properties"];
        properties["uniqueId"] = json!(unique);
        properties["diskSizeGB"] = size;
        properties["diskState"] = json!("Unattached");
        properties["completionPercent"] = json!(0.0);
        let mut copy = Resource::new(id.clone(), shape);
        copy.set_state("Updating");
        let shown = copy.shown(false);
        state.put(copy);
        drop(state);
        let operation = self.begin(id, Work::Settle, false);
        let (server, id_of_copy) = (Arc::clone(self), id.clone());
        tokio::spawn(async move { server.copy_over(&id_of_copy, &unique, &from).await });
        Ok(self.accepted_with(request, &operation, id, Some(2), shown))
    }

    /// In steps, as long as that very snapshot is there.
    async fn copy_over(&self, id: &Id, unique: &str, from: &str) {
        const STEPS: u32 = 4;
        for step in 1..=STEPS {
            tokio::time::sleep(COPY_STEP.mul_f64(self.settings.time_scale)).await;
            if step == STEPS && self.machines.fill(&id.name, &Filling::CopyOf(name_in(from).to_owned())).await.is_err()
            {
                return;
            }
            let mut state = self.state();
            let found = state.get_mut(id).filter(|found| found.body["properties"]["uniqueId"] == unique);
            let Some(copy) = found else { return };
            copy.properties()["completionPercent"] = json!(100.0 * f64::from(step) / f64::from(STEPS));
        }
    }

    pub(super) fn patch_resource(self: &Arc<Self>, id: &Id, request: &Request) -> Answer {
        let body = without_nulls(&request.json()?);
        let state = self.state();
        if state.get(id).is_none() {
            return Err(absent(id));
        }
        if matches!(id.kind, Kind::Disk | Kind::Snapshot) {
            return self.change_disk_in(state, id, &body, request);
        }
        drop(state);
        self.put_at_once(id, &body, &[])
    }

    fn change_disk_in(
        self: &Arc<Self>,
        mut state: std::sync::MutexGuard<'_, State>,
        id: &Id,
        body: &Value,
        request: &Request,
    ) -> Answer {
        let disk = state.get_mut(id).ok_or_else(|| absent(id))?;
        let (was, wanted) = (disk.body["properties"]["diskSizeGB"].as_u64(), body["properties"]["diskSizeGB"].as_u64());
        if wanted.is_some_and(|wanted| was.is_some_and(|was| wanted < was)) {
            let message = "Disk size reduction is not supported. Current size is larger.";
            return Err(Reply::error_at(409, "OperationNotAllowed", "diskSizeGB", message));
        }
        let mut rest = body.clone();
        if let Some(properties) = rest["properties"].as_object_mut() {
            // What it was made from stays as it is: putting the same disk again changes nothing.
            properties.remove("creationData");
        }
        if rest["tags"].is_object() {
            disk.body["tags"] = json!({});
        }
        merge(&mut disk.body, &rest);
        if disk.working.is_some() {
            return Ok(Reply::new(200, disk.shown(false)));
        }
        disk.set_state("Updating");
        let shown = disk.shown(false);
        drop(state);
        let operation = self.begin(id, Work::Settle, false);
        Ok(self.accepted_with(request, &operation, id, Some(2), shown))
    }

    pub(super) fn delete_resource(self: &Arc<Self>, id: &Id, request: &Request) -> Answer {
        let mut state = self.state();
        let Some(resource) = state.get_mut(id) else {
            return Ok(if id.kind == Kind::Group { group_absent(&id.name) } else { Reply::empty(204) });
        };
        if let Some(owner) = resource.managed_by() {
            let message = format!("Disk {} is attached to VM {owner}.", id.name);
            return Err(Reply::error(409, "OperationNotAllowed", &message));
        }
        if let Some(owner) = resource.body["properties"]["virtualMachine"]["id"].as_str() {
            let message = format!("Network Interface {} is used by existing resource {owner}.", id.text());
            return Err(Reply::error(400, "NicInUse", &message));
        }
        resource.set_state("Deleting");
        if let Some(other) = resource.working.take() {
            state.supersede(&other);
        }
        drop(state);
        if id.kind == Kind::Group {
            let operation = self.begin(id, Work::DeleteGroup, false);
            let location = format!(
                "{}/subscriptions/{}/operationresults/{operation}?api-version=2021-04-01",
                request.base, id.subscription
            );
            return Ok(Reply::empty(202).with("Location", location).with("Retry-After", self.retry_after(15)));
        }
        let operation = self.begin(id, Work::Delete, false);
        Ok(self.accepted(request, &operation, id, None))
    }
}

/// A part of a copy between regions: not measured.
const COPY_STEP: std::time::Duration = std::time::Duration::from_secs(30);

/// Whether a snapshot can be copied from; a disk always can.
fn is_whole(body: &Value) -> bool {
    let creation = &body["properties"]["creationData"]["createOption"];
    creation != "CopyStart" || body["properties"]["completionPercent"].as_f64().is_none_or(|percent| percent >= 100.0)
}

pub(super) fn group_absent(name: &str) -> Reply {
    Reply::error(404, "ResourceGroupNotFound", &format!("Resource group '{name}' could not be found."))
        .with("x-ms-failure-cause", "gateway")
}
