//! Virtual machines.

use super::Server;
use super::id::{Id, Kind};
use super::machines::MachineFacts;
use super::state::{Resource, State, disk_of};
use super::wire::{Reply, Request, merge, without_nulls};
use super::work::Work;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

type Answer = Result<Reply, Reply>;

/// How many data disks a machine takes, by its size.
fn most_disks(size: &str) -> usize {
    match size.to_ascii_lowercase().as_str() {
        "standard_b1s" => 2,
        "standard_d4s_v5" | "standard_e4s_v5" | "standard_d2s_v6" => 8,
        "standard_d4s_v6" => 12,
        "standard_d8s_v5" => 16,
        "standard_d16s_v5" | "standard_d32s_v5" => 32,
        _ => 4,
    }
}

impl Server {
    pub(super) fn put_vm(self: &Arc<Self>, id: &Id, request: &Request) -> Answer {
        let body = without_nulls(&request.json()?);
        let exists = {
            let state = self.state();
            match state.get(id) {
                Some(machine) => {
                    check_etag(request, machine)?;
                    true
                }
                None => false,
            }
        };
        if exists { self.change_vm(id, &body, request, true) } else { self.create_vm(id, body, request) }
    }

    fn create_vm(self: &Arc<Self>, id: &Id, mut body: Value, request: &Request) -> Answer {
        if body["location"].as_str().is_none() {
            return Err(Reply::error(
                400,
                "LocationRequired",
                "The location property is required for this definition.",
            ));
        }
        let size = body["properties"]["hardwareProfile"]["vmSize"].as_str().unwrap_or_default().to_owned();
        if size.is_empty() {
            return Err(Reply::error_at(
                400,
                "InvalidParameter",
                "vmSize",
                "The value of parameter vmSize is invalid.",
            ));
        }
        if self.settings.unavailable_sizes.iter().any(|gone| gone.eq_ignore_ascii_case(&size)) {
            let message = format!("The requested size for resource '{}' is currently not available.", id.text());
            return Err(Reply::error(409, "SkuNotAvailable", &message));
        }
        let mut state = self.state();
        let running = state.of_kind(Kind::Vm).count();
        if self.settings.most_machines.is_some_and(|most| running >= most) {
            let message = format!(
                "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. \
                 Current Limit: {running}, Current Usage: {running}, Additional Required: 1"
            );
            return Err(Reply::error(409, "OperationNotAllowed", &message));
        }
        let facts = facts_of(id, &size, &body)?;
        let interfaces = self.interfaces_for(&mut state, id, &mut body)?;
        let storage = &mut body["properties"]["storageProfile"];
        let wanted: Vec<Value> = storage["dataDisks"].as_array().cloned().unwrap_or_default();
        storage["dataDisks"] = json!([]);
        if storage["osDisk"]["deleteOption"].is_null() {
            storage["osDisk"]["deleteOption"] = json!("Detach");
        }
        body["properties"]["networkProfile"] = json!({ "networkInterfaces": interfaces });
        body["properties"]["vmId"] = json!(format!("{:08x}-0000-4000-8000-000000000000", state.number()));
        if let Some(profile) = body["properties"]["osProfile"].as_object_mut() {
            // Shown to nobody afterwards.
            profile.remove("customData");
            profile.remove("adminPassword");
        }
        let mut machine = Resource::new(id.clone(), body);
        machine.set_state("Creating");
        state.put(machine);
        for entry in wanted {
            let disk = disk_of(&entry).to_owned();
            let lun = entry["lun"].as_i64();
            if let Err(refused) = plug(&mut state, id, &disk, lun, &entry) {
                state.resources.remove(&id.key());
                return Err(refused);
            }
        }
        let shown = state.get(id).map(|machine| machine.shown(false)).unwrap_or_default();
        drop(state);
        let operation = self.begin(id, Work::CreateMachine(facts), false);
        let links = self.links(request, &operation, id);
        Ok(Reply::new(201, shown)
            .with("Azure-AsyncOperation", links.0)
            .with("Retry-After", self.retry_after(10))
            .with("ETag", "\"1\""))
    }

    /// The interfaces of a new machine: those it names, or new ones as it describes them.
    fn interfaces_for(&self, state: &mut State, id: &Id, body: &mut Value) -> Result<Vec<Value>, Reply> {
        let profile = body["properties"]["networkProfile"].take();
        let mut interfaces = Vec::new();
        for named in profile["networkInterfaces"].as_array().into_iter().flatten() {
            let text = named["id"].as_str().unwrap_or_default();
            let machine = id.text();
            let Some(interface) = state.find(text) else {
                let message = format!("Resource {text} referenced by resource {machine} was not found.");
                return Err(Reply::error(400, "InvalidResourceReference", &message));
            };
            if let Some(other) = interface.body["properties"]["virtualMachine"]["id"].as_str()
                && !other.eq_ignore_ascii_case(&machine)
            {
                let message = format!("Network Interface {text} is used by existing resource {other}.");
                return Err(Reply::error(400, "NicInUse", &message));
            }
            interface.properties()["virtualMachine"] = json!({ "id": machine });
            interfaces.push(named.clone());
        }
        for wanted in profile["networkInterfaceConfigurations"].as_array().into_iter().flatten() {
            let name = wanted["name"].as_str().unwrap_or_default();
            if !Kind::Nic.allows(name) {
                let message = format!("Resource name {name} is invalid.");
                return Err(Reply::error_at(400, "InvalidResourceName", "networkInterfaceConfigurations", &message));
            }
            let interface = id.sibling(Kind::Nic, name);
            let mut shape =
                json!({ "location": body["location"], "tags": body["tags"], "properties": wanted["properties"] });
            shape["properties"]["virtualMachine"] = json!({ "id": id.text() });
            shape["properties"]["provisioningState"] = json!("Succeeded");
            state.put(Resource::new(interface.clone(), shape));
            let delete = wanted["properties"]["deleteOption"].as_str().unwrap_or("Detach");
            let primary = wanted["properties"]["primary"].as_bool().unwrap_or(true);
            interfaces
                .push(json!({ "id": interface.text(), "properties": { "primary": primary, "deleteOption": delete } }));
        }
        if interfaces.is_empty() {
            let message = "The value of parameter networkProfile.networkInterfaces is invalid.";
            return Err(Reply::error_at(400, "InvalidParameter", "networkProfile", message));
        }
        Ok(interfaces)
    }

    pub(super) fn patch_vm(self: &Arc<Self>, id: &Id, request: &Request) -> Answer {
        let body = without_nulls(&request.json()?);
        {
            let state = self.state();
            check_etag(request, state.get(id).ok_or_else(|| absent(id))?)?;
        }
        self.change_vm(id, &body, request, false)
    }

    /// What PUT and PATCH of an existing machine have in common.
    fn change_vm(self: &Arc<Self>, id: &Id, body: &Value, request: &Request, whole: bool) -> Answer {
        let mut state = self.state();
        if body["properties"]["osProfile"]["customData"].is_string() {
            let message = "Changing property 'osProfile.customData' is not allowed.";
            return Err(Reply::error_at(409, "PropertyChangeNotAllowed", "osProfile.customData", message));
        }
        let wanted = body["properties"]["storageProfile"]["dataDisks"].as_array().cloned();
        let forced = wanted.iter().flatten().any(|entry| entry["detachOption"] == "ForceDetach");
        let moves = match &wanted {
            Some(wanted) => {
                self.make_way(&mut state, id)?;
                rearrange(&mut state, id, wanted)?
            }
            None => false,
        };
        let machine = state.get_mut(id).ok_or_else(|| absent(id))?;
        let mut rest = body.clone();
        if let Some(storage) = rest["properties"]["storageProfile"].as_object_mut() {
            storage.remove("dataDisks");
        }
        if let Some(properties) = rest["properties"].as_object_mut() {
            properties.remove("networkProfile");
            properties.remove("provisioningState");
        }
        let before = machine.body.clone();
        if rest["tags"].is_object() {
            machine.body["tags"] = json!({});
        }
        merge(&mut machine.body, &rest);
        let tags_only = !whole && body.as_object().is_some_and(|body| body.keys().all(|key| key == "tags"));
        let changed = moves || machine.body != before;
        machine.etag += 1;
        let etag = format!("\"{}\"", machine.etag);
        if tags_only || !changed {
            let mut shown = machine.shown(false);
            if tags_only {
                shown["properties"]["provisioningState"] = json!("Updating");
            }
            return Ok(Reply::new(200, shown).with("ETag", etag));
        }
        machine.set_state("Updating");
        let shown = machine.shown(false);
        drop(state);
        let work = if moves { Work::ArrangeDisks } else { Work::Settle };
        let operation = self.begin(id, work, forced);
        let links = self.links(request, &operation, id);
        Ok(Reply::new(200, shown).with("Azure-AsyncOperation", links.0).with("ETag", etag))
    }

    pub(super) fn delete_vm(self: &Arc<Self>, id: &Id, request: &Request) -> Answer {
        let mut state = self.state();
        let Some(machine) = state.get_mut(id) else { return Ok(Reply::empty(204)) };
        machine.set_state("Deleting");
        // A deletion does not wait for anything.
        if let Some(other) = machine.working.take() {
            state.supersede(&other);
        }
        drop(state);
        let operation = self.begin(id, Work::DeleteMachine, false);
        Ok(self.accepted(request, &operation, id, Some(10)))
    }

    pub(super) fn act_on_vm(self: &Arc<Self>, id: &Id, action: &str, request: &Request) -> Answer {
        let to = match action.to_ascii_lowercase().as_str() {
            "start" => "running",
            "poweroff" => "stopped",
            "deallocate" => "deallocated",
            "restart" => "restarted",
            "attachdetachdatadisks" => return self.attach_detach(id, request),
            "generalize" => return self.generalize(id),
            "simulateeviction" => {
                self.evict(id)?;
                return Ok(Reply::empty(204));
            }
            _ => return Err(Reply::error(404, "InvalidResourceType", "The action could not be found.")),
        };
        let mut state = self.state();
        let machine = state.get(id).ok_or_else(|| absent(id))?;
        if machine.state() == "Deleting" {
            return Err(Reply::error(409, "OperationNotAllowed", "The VM is marked for deletion."));
        }
        if machine.generalized && to != "deallocated" {
            let message =
                format!("Operation '{action}' is not allowed on VM '{}' since the VM is generalized.", id.name);
            return Err(Reply::error(409, "OperationNotAllowed", &message));
        }
        self.make_way(&mut state, id)?;
        let machine = state.get_mut(id).ok_or_else(|| absent(id))?;
        machine.set_state("Updating");
        machine.power = match to {
            "running" | "restarted" => "starting",
            "deallocated" => "deallocating",
            _ => "stopping",
        };
        drop(state);
        let operation = self.begin(id, Work::Power { to }, false);
        Ok(self.accepted(request, &operation, id, (to != "stopped").then_some(10)))
    }

    /// It never boots again, and may be copied.
    fn generalize(&self, id: &Id) -> Answer {
        let mut state = self.state();
        let machine = state.get_mut(id).ok_or_else(|| absent(id))?;
        if !matches!(machine.power, "stopped" | "deallocated") {
            let message = format!("Operation 'generalize' is not allowed on VM '{}' since the VM is running.", id.name);
            return Err(Reply::error(409, "OperationNotAllowed", &message));
        }
        machine.generalized = true;
        Ok(Reply::empty(200))
    }

    fn attach_detach(self: &Arc<Self>, id: &Id, request: &Request) -> Answer {
        let body = without_nulls(&request.json()?);
        let mut state = self.state();
        let machine = state.get(id).ok_or_else(|| absent(id))?;
        if machine.state() == "Deleting" {
            return Err(Reply::error(409, "OperationNotAllowed", "The VM is marked for deletion."));
        }
        let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
        let (attach, detach) = (list("dataDisksToAttach"), list("dataDisksToDetach"));
        if attach.is_empty() && detach.is_empty() {
            let message = "Either dataDisksToAttach or dataDisksToDetach must be specified.";
            return Err(Reply::error(400, "InvalidParameter", message));
        }
        let forced = !detach.is_empty() && detach.iter().all(|entry| entry["detachOption"] == "ForceDetach");
        if forced {
            // What hangs is overtaken by force.
            let working = state.get_mut(id).and_then(|machine| machine.working.take());
            if let Some(other) = working {
                state.supersede(&other);
            }
        } else {
            self.make_way(&mut state, id)?;
        }
        for entry in &detach {
            unplug(&mut state, id, entry["diskId"].as_str().unwrap_or_default())?;
        }
        for entry in &attach {
            let disk = entry["diskId"].as_str().unwrap_or_default().to_owned();
            plug(&mut state, id, &disk, entry["lun"].as_i64(), entry)?;
        }
        let machine = state.get_mut(id).ok_or_else(|| absent(id))?;
        machine.set_state("Updating");
        machine.etag += 1;
        let etag = format!("\"{}\"", machine.etag);
        let shown = machine.body["properties"]["storageProfile"].clone();
        drop(state);
        let operation = self.begin(id, Work::ArrangeDisks, forced);
        let links = self.links(request, &operation, id);
        // Neither Location nor Retry-After: this is what the service really answers.
        Ok(Reply::new(200, shown).with("Azure-AsyncOperation", links.0).with("ETag", etag))
    }

    /// A second change of a machine while one runs is refused, or takes its place.
    fn make_way(&self, state: &mut State, id: &Id) -> Result<(), Reply> {
        let working = state.get(id).and_then(|machine| machine.working.clone());
        let Some(other) = working.filter(|other| state.is_running(Some(other))) else { return Ok(()) };
        if self.settings.preempts {
            state.supersede(&other);
            return Ok(());
        }
        let message = format!("The request failed due to conflict with a concurrent request on '{}'.", id.text());
        Err(Reply::error(409, "Conflict", &message))
    }

    /// The machine is taken away by the service: it is deallocated without anybody having asked.
    pub(super) fn evict(&self, id: &Id) -> Result<(), Reply> {
        self.powered(id, "deallocated");
        self.state().get(id).map(drop).ok_or_else(|| absent(id))
    }

    /// Why there is no room for that machine, if there is none.
    pub(super) fn without_room(&self, facts: &MachineFacts, id: &Id) -> Option<String> {
        let full = self.settings.full_sizes.iter().any(|size| size.eq_ignore_ascii_case(&facts.size));
        let zonal = self.state().get(id).is_some_and(|machine| machine.zone().is_some());
        full.then(|| if zonal { "ZonalAllocationFailed" } else { "AllocationFailed" }.to_owned())
    }

    /// A new machine has booted: its system disk and its address are there.
    pub(super) fn booted(&self, id: &Id, address: &str) {
        let mut state = self.state();
        let number = state.number();
        let Some(machine) = state.get_mut(id) else { return };
        machine.power = "running";
        let os = &mut machine.properties()["storageProfile"]["osDisk"];
        let invented = format!("{}_OsDisk_1_{number:08x}", id.name);
        let disk = id.sibling(Kind::Disk, os["name"].as_str().unwrap_or(&invented));
        os["name"] = json!(disk.name);
        os["managedDisk"]["id"] = json!(disk.text());
        let mut body = json!({ "location": machine.body["location"], "zones": machine.body["zones"], "managedBy": id.text(),
            "properties": { "provisioningState": "Succeeded", "diskState": "Attached", "osType": "Linux", "diskSizeGB": 30 } });
        body = without_nulls(&body);
        let interfaces = machine.body["properties"]["networkProfile"]["networkInterfaces"].clone();
        state.put(Resource::new(disk, body));
        for interface in interfaces.as_array().into_iter().flatten() {
            if let Some(interface) = state.find(interface["id"].as_str().unwrap_or_default()) {
                let configurations = &mut interface.properties()["ipConfigurations"];
                if let Some(first) = configurations.as_array_mut().and_then(|all| all.first_mut()) {
                    first["properties"]["privateIPAddress"] = json!(address);
                }
            }
        }
    }

    pub(super) fn powered(&self, id: &Id, to: &'static str) {
        let mut state = self.state();
        let Some(machine) = state.get_mut(id) else { return };
        machine.power = to;
        let disks: Vec<String> = machine.plugged.keys().cloned().collect();
        let disk_state = if to == "deallocated" { "Reserved" } else { "Attached" };
        for disk in disks {
            if let Some(disk) = state.find(&disk) {
                disk.properties()["diskState"] = json!(disk_state);
            }
        }
    }

    /// A disk is off a machine.
    pub(super) fn pulled(&self, id: &Id, disk: &str) {
        let mut state = self.state();
        if let Some(machine) = state.get_mut(id) {
            machine.plugged.remove(&disk.to_ascii_lowercase());
            machine.data_disks().retain(|entry| !disk_of(entry).eq_ignore_ascii_case(disk));
        }
        release(&mut state, disk);
    }

    /// Takes a machine away and what is deleted with it. Returns the names of the disks that go.
    pub(super) fn remove_machine(&self, id: &Id) -> Vec<String> {
        let mut state = self.state();
        let Some(machine) = state.resources.remove(&id.key()) else { return Vec::new() };
        let mut gone = Vec::new();
        let properties = &machine.body["properties"];
        let data = properties["storageProfile"]["dataDisks"].as_array().into_iter().flatten();
        for entry in data.chain([&properties["storageProfile"]["osDisk"]]) {
            let disk = disk_of(entry);
            if entry["deleteOption"] == "Delete" {
                if let Some(disk) = state.resources.remove(&disk.to_ascii_lowercase()) {
                    gone.push(disk.id.name);
                }
            } else {
                release(&mut state, disk);
            }
        }
        for entry in properties["networkProfile"]["networkInterfaces"].as_array().into_iter().flatten() {
            let interface = entry["id"].as_str().unwrap_or_default();
            if entry["properties"]["deleteOption"] == "Delete" {
                state.resources.remove(&interface.to_ascii_lowercase());
            } else if let Some(interface) = state.find(interface) {
                interface.properties()["virtualMachine"] = Value::Null;
            }
        }
        gone
    }
}

fn release(state: &mut State, disk: &str) {
    if let Some(disk) = state.find(disk) {
        disk.body["managedBy"] = Value::Null;
        disk.properties()["diskState"] = json!("Unattached");
    }
}

pub(super) fn absent(id: &Id) -> Reply {
    let message = format!(
        "The Resource '{}/{}' under resource group '{}' was not found.",
        id.kind.resource_type(),
        id.name,
        id.group
    );
    Reply::error(404, "ResourceNotFound", &message).with("x-ms-failure-cause", "gateway")
}

fn check_etag(request: &Request, machine: &Resource) -> Result<(), Reply> {
    let same = |wanted: &str| wanted == "*" || wanted.trim_matches('"') == machine.etag.to_string();
    let stale = request.header("if-match").is_some_and(|wanted| !same(wanted));
    let exists = request.header("if-none-match").is_some_and(same);
    if stale || exists {
        let message = "The condition specified using HTTP conditional header(s) is not met.";
        return Err(Reply::error(412, "PreconditionFailed", message));
    }
    Ok(())
}

/// What a new machine is made from.
fn facts_of(id: &Id, size: &str, body: &Value) -> Result<MachineFacts, Reply> {
    let profile = &body["properties"]["osProfile"];
    let text = profile["customData"].as_str().unwrap_or_default();
    let custom_data = BASE64.decode(text).ok().filter(|data| data.len() <= 65_535);
    let custom_data = custom_data.ok_or_else(|| {
        let message =
            "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.";
        Reply::error_at(400, "InvalidParameter", "customData", message)
    })?;
    let keys = profile["linuxConfiguration"]["ssh"]["publicKeys"].as_array().into_iter().flatten();
    Ok(MachineFacts {
        name: id.name.clone(),
        size: size.to_owned(),
        image: body["properties"]["storageProfile"]["imageReference"]["id"].as_str().map(str::to_owned),
        custom_data,
        admin: profile["adminUsername"].as_str().map(str::to_owned),
        ssh_keys: keys.filter_map(|key| key["keyData"].as_str().map(str::to_owned)).collect(),
    })
}

/// Puts a disk into a machine's list, if everything allows it.
fn plug(state: &mut State, id: &Id, disk: &str, lun: Option<i64>, entry: &Value) -> Result<(), Reply> {
    let machine = state.get(id).ok_or_else(|| absent(id))?;
    let (zone, size) = (machine.zone().map(str::to_owned), &machine.body["properties"]["hardwareProfile"]["vmSize"]);
    let most = most_disks(size.as_str().unwrap_or_default());
    let Some(found) = state.resources.get(&disk.to_ascii_lowercase()) else {
        return Err(Reply::error_at(404, "NotFound", disk, &format!("Disk '{disk}' was not found.")));
    };
    let (text, vm) = (found.id.text(), id.text());
    if let Some(owner) = found.managed_by() {
        if !owner.eq_ignore_ascii_case(&vm) {
            let message = format!("Disk '{text}' is already attached to VM '{owner}'.");
            return Err(Reply::error_at(409, "ConflictingUserInput", &text, &message));
        }
        let detaching = state.get(id).and_then(|machine| {
            machine.body["properties"]["storageProfile"]["dataDisks"].as_array().map(|all| {
                all.iter().any(|entry| disk_of(entry).eq_ignore_ascii_case(disk) && entry["toBeDetached"] == true)
            })
        });
        let (code, what) = match detaching {
            Some(true) => ("AttachDiskWhileBeingDetached", "is currently being detached or the last detach failed"),
            _ => ("ConflictingUserInput", "is already attached to this VM"),
        };
        return Err(Reply::error_at(409, code, &text, &format!("Disk '{text}' {what}.")));
    }
    if !found.is_zone_redundant() && found.zone() != zone.as_deref() {
        let message = format!("Disk {text} cannot be attached to the VM because it is not in the same zone as the VM.");
        return Err(Reply::error(400, "BadRequest", &message));
    }
    if found.state() != "Succeeded" {
        let message = format!("Disk '{text}' is not ready: its state is {}.", found.state());
        return Err(Reply::error_at(409, "OperationNotAllowed", &text, &message));
    }
    let machine = state.get_mut(id).ok_or_else(|| absent(id))?;
    let taken: BTreeSet<i64> = machine.data_disks().iter().filter_map(|entry| entry["lun"].as_i64()).collect();
    if taken.len() >= most {
        let message =
            format!("The maximum number of data disks allowed to be attached to a VM of this size is {most}.");
        return Err(Reply::error_at(409, "OperationNotAllowed", "dataDisks", &message));
    }
    if lun.is_some_and(|lun| taken.contains(&lun)) {
        let message = format!("A disk at LUN {} already exists.", lun.unwrap_or_default());
        return Err(Reply::error_at(400, "InvalidParameter", "dataDisk.lun", &message));
    }
    let lun = lun.or_else(|| (0..64).find(|lun| !taken.contains(lun))).unwrap_or(63);
    machine.data_disks().push(json!({
        "lun": lun, "name": super::work::name_in(&text), "createOption": "Attach", "toBeDetached": false,
        "caching": entry["caching"].as_str().unwrap_or("None"),
        "deleteOption": entry["deleteOption"].as_str().unwrap_or("Detach"),
        "managedDisk": { "id": text },
    }));
    if let Some(disk) = state.find(disk) {
        // Who manages it is said at once; its state follows when the operation ends.
        disk.body["managedBy"] = json!(vm);
    }
    Ok(())
}

/// Marks a machine's disk as to be pulled.
fn unplug(state: &mut State, id: &Id, disk: &str) -> Result<(), Reply> {
    let machine = state.get_mut(id).ok_or_else(|| absent(id))?;
    let found = machine.data_disks().iter_mut().find(|entry| disk_of(entry).eq_ignore_ascii_case(disk));
    let Some(entry) = found else {
        let message = format!("Disk '{disk}' is not attached to this VM.");
        return Err(Reply::error_at(400, "DetachUnattachedDisk", disk, &message));
    };
    entry["toBeDetached"] = json!(true);
    Ok(())
}

/// Makes the list of a PUT or PATCH the machine's. Returns whether anything moves.
fn rearrange(state: &mut State, id: &Id, wanted: &[Value]) -> Result<bool, Reply> {
    let machine = state.get_mut(id).ok_or_else(|| absent(id))?;
    let present = machine.data_disks().clone();
    let named = |disk: &str| wanted.iter().find(|entry| disk_of(entry).eq_ignore_ascii_case(disk));
    let mut moves = false;
    for entry in &present {
        let disk = disk_of(entry);
        let keep = named(disk).is_some_and(|entry| entry["toBeDetached"] != true);
        if keep && entry["toBeDetached"] == true {
            let message = format!("Disk '{disk}' is currently being detached or the last detach for it failed.");
            return Err(Reply::error_at(409, "AttachDiskWhileBeingDetached", disk, &message));
        }
        if !keep {
            unplug(state, id, disk)?;
            moves = true;
        }
    }
    for entry in wanted {
        let disk = disk_of(entry).to_owned();
        let there = present.iter().any(|entry| disk_of(entry).eq_ignore_ascii_case(&disk));
        if entry["toBeDetached"] == true {
            if !there {
                let message = format!("Disk '{disk}' is not attached to this VM.");
                return Err(Reply::error_at(400, "DetachUnattachedDisk", &disk, &message));
            }
        } else if !there {
            plug(state, id, &disk, entry["lun"].as_i64(), entry)?;
            moves = true;
        }
    }
    Ok(moves)
}
