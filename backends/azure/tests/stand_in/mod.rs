//! A small stand-in for Resource Manager: enough of its wire format to run a pool's machines and disks, with both styles
//! of long-running operations, ids in another case, pages of two, and answers that go missing.

#![allow(dead_code)]

use boxpool_azure::{AzureCloud, CloudOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long operations take.
const DELAY: Duration = Duration::from_millis(60);
pub(crate) const PREFIX: &str = "/subscriptions/0000-1111/resourceGroups/rg/providers/Microsoft.Compute";

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    Pass,
    /// Carried out; the connection breaks before the answer.
    LoseAnswer,
    /// Not carried out; this is the answer.
    Refuse(u16, Vec<(&'static str, String)>, Value),
}

type Judge = Box<dyn FnMut(&str, &str) -> Fate + Send>;

#[derive(Default)]
pub(crate) struct State {
    /// By kind and lower-case name: `virtualmachines/pool-i1`.
    pub(crate) resources: BTreeMap<String, Value>,
    operations: BTreeMap<u64, Operation>,
    number: u64,
    /// Sizes that are full, the code, and whether that is told at once.
    pub(crate) full: BTreeMap<String, (&'static str, bool)>,
    /// Every request: method and path with query.
    pub(crate) requests: Vec<String>,
    judge: Option<Judge>,
    /// Detaches do not end.
    pub(crate) stuck: bool,
}

struct Operation {
    due: Instant,
    what: What,
    done: bool,
    error: Option<&'static str>,
}

#[derive(Clone)]
enum What {
    Settle(String),
    Fail(String, &'static str),
    Power(String, &'static str),
    Remove(String),
    Attached(String),
    Detached(String, String),
}

#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stand_in = Self { port, state: Arc::default() };
        let serving = stand_in.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || drop(serving.serve(client)));
            }
        });
        stand_in
    }

    /// One that listens there in another process: for its options.
    pub(crate) fn at(port: u16) -> Self {
        Self { port, state: Arc::default() }
    }

    pub(crate) fn options(&self) -> CloudOptions {
        crate::arm::options(&format!("http://127.0.0.1:{}", self.port))
    }

    pub(crate) fn cloud(&self) -> AzureCloud {
        AzureCloud::open(self.options()).unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn judge(&self, judge: impl FnMut(&str, &str) -> Fate + Send + 'static) {
        self.state().judge = Some(Box::new(judge));
    }

    /// The next request whose method and path fit meets that fate.
    pub(crate) fn once(&self, method: &'static str, part: &'static str, fate: Fate) {
        let mut fate = Some(fate);
        self.judge(
            move |found, path| {
                if found == method && path.contains(part) { fate.take().unwrap_or(Fate::Pass) } else { Fate::Pass }
            },
        );
    }

    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        self.state().requests.iter().filter(|line| line.starts_with(method) && line.contains(part)).count()
    }

    pub(crate) fn put(&self, kind: &str, name: &str, mut body: Value) {
        body["id"] = format!("{PREFIX}/{kind}/{name}").into();
        body["name"] = name.into();
        self.state().resources.insert(key(kind, name), body);
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let (head, body) = read_request(&mut client)?;
        let mut words = head.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let authorized = head.lines().any(|line| line.eq_ignore_ascii_case("authorization: bearer token"));
        let creates = head.lines().any(|line| line.eq_ignore_ascii_case("if-none-match: *"));
        let fate = {
            let mut state = self.state();
            state.requests.push(format!("{method} {target}"));
            match state.judge.take() {
                Some(mut judge) => {
                    let fate = judge(method, target);
                    state.judge.get_or_insert(judge);
                    fate
                }
                None => Fate::Pass,
            }
        };
        let lost = matches!(fate, Fate::LoseAnswer);
        let answer = match fate {
            Fate::Refuse(status, headers, body) => Answer { status, headers, body },
            _ if !authorized => error(401, "InvalidAuthenticationToken"),
            _ => {
                let mut state = self.state();
                state.settle();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                state.handle(self.port, method, target, &body, creates)
            }
        };
        if lost {
            return Ok(());
        }
        let text = if answer.body.is_null() { String::new() } else { answer.body.to_string() };
        let headers: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "HTTP/1.1 {} x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            answer.status,
            text.len()
        );
        client.write_all(format!("{head}{text}").as_bytes())
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

fn plain(status: u16, body: Value) -> Answer {
    Answer { status, headers: Vec::new(), body }
}

fn error(status: u16, code: &str) -> Answer {
    plain(status, json!({ "error": { "code": code, "message": format!("the stand-in says {code}") } }))
}

fn key(kind: &str, name: &str) -> String {
    format!("{kind}/{name}").to_lowercase()
}

/// As the service gives ids back.
fn shouted(id: &str) -> String {
    id.replace("resourceGroups/rg", "resourceGroups/RG")
}

impl State {
    fn begin(&mut self, port: u16, what: What, error: Option<&'static str>) -> (&'static str, String) {
        self.number += 1;
        let never = self.stuck && matches!(what, What::Detached(..));
        let due = Instant::now() + if never { Duration::from_secs(3_600) } else { DELAY };
        self.operations.insert(self.number, Operation { due, what, done: false, error });
        ("Azure-AsyncOperation", format!("http://127.0.0.1:{port}/operations/{}", self.number))
    }

    fn settle(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for operation in self.operations.values_mut().filter(|each| !each.done && each.due <= now) {
            operation.done = true;
            due.push(operation.what.clone());
        }
        for what in due {
            match what {
                What::Settle(key) => self.provisioned(&key, "Succeeded"),
                What::Power(key, power) => {
                    self.provisioned(&key, "Succeeded");
                    self.power(&key, power);
                }
                What::Fail(key, code) => {
                    self.provisioned(&key, "Failed");
                    if let Some(machine) = self.resources.get_mut(&key) {
                        machine["properties"]["instanceView"] =
                            json!({ "statuses": [{ "code": format!("ProvisioningState/failed/{code}") }] });
                    }
                }
                What::Remove(key) => {
                    let id = self.resources.remove(&key).and_then(|gone| gone["id"].as_str().map(str::to_lowercase));
                    let name = key.rsplit('/').next().unwrap_or_default().to_owned();
                    if key.starts_with("virtualmachines/") {
                        self.resources.remove(&format!("disks/{name}-os"));
                        for disk in self.resources.values_mut() {
                            if disk["managedBy"].as_str().map(str::to_lowercase) == id {
                                disk["managedBy"] = Value::Null;
                            }
                        }
                    }
                }
                What::Attached(machine) => self.provisioned(&machine, "Succeeded"),
                What::Detached(machine, disk) => {
                    self.provisioned(&machine, "Succeeded");
                    let id = self.resources.get(&disk).and_then(|disk| disk["id"].as_str().map(str::to_lowercase));
                    if let Some(disks) = self.resources.get_mut(&machine).and_then(data_disks) {
                        disks.retain(|held| held["managedDisk"]["id"].as_str().map(str::to_lowercase) != id);
                    }
                    if let Some(disk) = self.resources.get_mut(&disk) {
                        disk["managedBy"] = Value::Null;
                        disk["properties"]["diskState"] = "Unattached".into();
                    }
                }
            }
        }
    }

    fn provisioned(&mut self, key: &str, state: &str) {
        if let Some(resource) = self.resources.get_mut(key) {
            resource["properties"]["provisioningState"] = state.into();
        }
    }

    fn power(&mut self, key: &str, power: &str) {
        if let Some(machine) = self.resources.get_mut(key) {
            machine["properties"]["instanceView"] = json!({ "newThing": 1, "statuses": [
                { "code": "ProvisioningState/succeeded" }, { "code": format!("PowerState/{power}") }] });
        }
    }

    fn handle(&mut self, port: u16, method: &str, target: &str, body: &Value, creates: bool) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if let Some(number) = path.strip_prefix("/operations/") {
            let Some(operation) = number.parse().ok().and_then(|number: u64| self.operations.get(&number)) else {
                return error(404, "NotFound");
            };
            return plain(
                200,
                match (operation.done, operation.error) {
                    (false, _) => json!({ "status": "InProgress" }),
                    (true, None) => json!({ "status": "Succeeded" }),
                    (true, Some(code)) => {
                        json!({ "status": "Failed", "error": { "code": code, "message": "none left" } })
                    }
                },
            );
        }
        let Some(rest) = path.strip_prefix(PREFIX) else { return error(404, "ResourceGroupNotFound") };
        let version = if rest.starts_with("/virtualMachines") { "2024-07-01" } else { "2024-03-02" };
        if !query.contains(&format!("api-version={version}")) {
            return error(400, "NoRegisteredProviderFound");
        }
        let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", [kind]) => self.list(port, kind, query, version),
            ("GET", [kind, name]) => self.get(kind, name),
            ("PUT", ["virtualMachines", name]) => self.make_machine(port, name, body, creates),
            ("PUT", [kind, name]) => self.make(port, kind, name, body),
            ("PATCH", [kind, name]) => self.patch(port, kind, name, body),
            ("DELETE", [kind, name]) => self.delete(port, kind, name),
            ("POST", ["virtualMachines", name, "attachDetachDataDisks"]) => self.move_disk(port, name, body),
            ("POST", ["virtualMachines", name, action]) => {
                let key = key("virtualMachines", name);
                if !self.resources.contains_key(&key) {
                    return error(404, "ResourceNotFound");
                }
                let power = if *action == "start" { "running" } else { "deallocated" };
                self.provisioned(&key, "Updating");
                self.power(&key, if *action == "start" { "starting" } else { "deallocating" });
                let link = self.begin(port, What::Power(key, power), None);
                Answer { status: 202, headers: vec![link, ("Retry-After", "1".into())], body: Value::Null }
            }
            _ => error(405, "MethodNotAllowed"),
        }
    }

    fn list(&self, port: u16, kind: &str, query: &str, version: &str) -> Answer {
        let from: usize = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("skip="))
            .and_then(|skip| skip.parse().ok())
            .unwrap_or(0);
        let prefix = format!("{}/", kind.to_lowercase());
        let all: Vec<_> = self.resources.iter().filter(|(key, _)| key.starts_with(&prefix)).collect();
        let page = all.iter().skip(from).take(2);
        let value: Vec<_> = page
            .map(|(_, resource)| {
                let mut resource = (*resource).clone();
                resource["properties"].as_object_mut().unwrap().remove("instanceView");
                resource
            })
            .collect();
        let mut body = json!({ "value": value });
        if from + 2 < all.len() {
            body["nextLink"] =
                format!("http://127.0.0.1:{port}{PREFIX}/{kind}?api-version={version}&skip={}", from + 2).into();
        }
        plain(200, body)
    }

    fn get(&self, kind: &str, name: &str) -> Answer {
        match self.resources.get(&key(kind, name)) {
            Some(resource) => plain(200, resource.clone()),
            None => error(404, "ResourceNotFound"),
        }
    }

    fn make_machine(&mut self, port: u16, name: &str, body: &Value, creates: bool) -> Answer {
        let key = key("virtualMachines", name);
        if creates && self.resources.contains_key(&key) {
            return error(412, "PreconditionFailed");
        }
        let size = body["properties"]["hardwareProfile"]["vmSize"].as_str().unwrap_or_default();
        let full = self.full.get(size).copied();
        if let Some((code, true)) = full {
            return error(409, code);
        }
        let mut machine = body.clone();
        machine["id"] = shouted(&format!("{PREFIX}/virtualMachines/{name}")).into();
        machine["name"] = name.into();
        machine["somethingNew"] = json!({ "x": 1 });
        machine["properties"]["provisioningState"] = "Creating".into();
        machine["properties"]["timeCreated"] = "2026-01-02T03:04:05.678+00:00".into();
        machine["properties"]["storageProfile"]["dataDisks"] = json!([]);
        let os = json!({ "id": format!("{PREFIX}/disks/{name}-os"), "name": format!("{name}-os"),
            "managedBy": machine["id"], "properties": { "provisioningState": "Succeeded", "diskState": "Attached" } });
        self.resources.insert(format!("disks/{}-os", name.to_lowercase()), os);
        self.resources.insert(key.clone(), machine.clone());
        let (what, failed) = match full {
            Some((code, _)) => (What::Fail(key, code), Some(code)),
            None => (What::Power(key, "running"), None),
        };
        let link = self.begin(port, what, failed);
        Answer { status: 201, headers: vec![link, ("Retry-After", "1".into())], body: machine }
    }

    fn make(&mut self, port: u16, kind: &str, name: &str, body: &Value) -> Answer {
        let key = key(kind, name);
        if let Some(source) = body["properties"]["creationData"]["sourceResourceId"].as_str() {
            let tail = source.rsplit('/').take(2).collect::<Vec<_>>();
            if !self.resources.contains_key(&format!("{}/{}", tail[1], tail[0]).to_lowercase()) {
                return error(404, "NotFound");
            }
        }
        self.number += 1;
        let unique = format!("unique-{}", self.number);
        let mut resource = body.clone();
        resource["id"] = shouted(&format!("{PREFIX}/{kind}/{name}")).into();
        resource["name"] = name.into();
        resource["properties"]["provisioningState"] = "Updating".into();
        resource["properties"]["diskState"] = "Unattached".into();
        resource["properties"]["uniqueId"] = unique.into();
        resource["properties"]["timeCreated"] = "2026-01-02T03:04:05+00:00".into();
        self.resources.insert(key.clone(), resource.clone());
        let link = self.begin(port, What::Settle(key), None);
        Answer { status: 202, headers: vec![link, ("Retry-After", "2".into())], body: resource }
    }

    fn patch(&mut self, port: u16, kind: &str, name: &str, body: &Value) -> Answer {
        let key = key(kind, name);
        let Some(resource) = self.resources.get_mut(&key) else { return error(404, "ResourceNotFound") };
        if body["tags"].is_object() {
            resource["tags"] = body["tags"].clone();
        }
        if let Some(size) = body["properties"]["diskSizeGB"].as_u64() {
            resource["properties"]["diskSizeGB"] = size.into();
        }
        resource["properties"]["provisioningState"] = "Updating".into();
        let resource = resource.clone();
        let link = self.begin(port, What::Settle(key), None);
        Answer { status: if kind == "virtualMachines" { 200 } else { 202 }, headers: vec![link], body: resource }
    }

    fn delete(&mut self, port: u16, kind: &str, name: &str) -> Answer {
        let key = key(kind, name);
        let Some(resource) = self.resources.get(&key) else { return plain(204, Value::Null) };
        if resource["managedBy"].is_string() {
            return error(409, "OperationNotAllowed");
        }
        self.provisioned(&key, "Deleting");
        let link = self.begin(port, What::Remove(key), None);
        let location = ("Location", format!("{}?monitor=true", link.1));
        Answer { status: 202, headers: vec![link, location, ("Retry-After", "1".into())], body: Value::Null }
    }

    fn move_disk(&mut self, port: u16, name: &str, body: &Value) -> Answer {
        let machine = key("virtualMachines", name);
        let Some(found) = self.resources.get(&machine) else { return error(404, "ResourceNotFound") };
        let machine_id = found["id"].as_str().unwrap().to_owned();
        if found["properties"]["provisioningState"] == "Updating" {
            return error(409, "OperationNotAllowed");
        }
        let (change, leaving) = match (&body["dataDisksToAttach"][0], &body["dataDisksToDetach"][0]) {
            (attach, Value::Null) => (attach.clone(), false),
            (_, detach) => (detach.clone(), true),
        };
        let id = change["diskId"].as_str().unwrap_or_default().to_owned();
        let disk = key("disks", id.rsplit('/').next().unwrap_or_default());
        let Some(found) = self.resources.get(&disk) else { return error(404, "NotFound") };
        let held_by = found["managedBy"].as_str().map(str::to_lowercase);
        let what = if leaving {
            if held_by != Some(machine_id.to_lowercase()) {
                return error(409, "DetachUnattachedDisk");
            }
            if let Some(disks) = self.resources.get_mut(&machine).and_then(data_disks) {
                disks.iter_mut().for_each(|held| held["toBeDetached"] = true.into());
            }
            What::Detached(machine.clone(), disk)
        } else {
            if held_by.is_some() {
                return error(409, "ConflictingUserInput");
            }
            assert_eq!(change["deleteOption"], "Detach", "a volume outlives its machine");
            let held = json!({ "lun": change["lun"], "managedDisk": { "id": shouted(&id) }, "caching": "Quantum" });
            if let Some(disks) = self.resources.get_mut(&machine).and_then(data_disks) {
                disks.push(held);
            }
            let disk = self.resources.get_mut(&disk).unwrap();
            disk["managedBy"] = machine_id.into();
            disk["properties"]["LastOwnershipUpdateTime"] = "2026-01-02T03:04:05+00:00".into();
            What::Attached(machine.clone())
        };
        self.provisioned(&machine, "Updating");
        let body = self.resources[&machine]["properties"]["storageProfile"].clone();
        let link = self.begin(port, what, None);
        Answer { status: 200, headers: vec![link, ("Retry-After", "1".into())], body }
    }
}

fn data_disks(machine: &mut Value) -> Option<&mut Vec<Value>> {
    machine["properties"]["storageProfile"]["dataDisks"].as_array_mut()
}

fn read_request(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let read = client.read(&mut chunk)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0_usize);
        if bytes.len() >= end + 4 + length {
            return Ok((head, bytes.split_off(end + 4)));
        }
    }
}
