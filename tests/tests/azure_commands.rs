//! What an operator of a gateway on Azure types, against a simulated Resource Manager and the real emulator of its tables.

#![allow(clippy::unwrap_used)]

#[path = "../../backends/azure/tests/azurite/mod.rs"]
mod azurite;

use boxpool::{Key, StateStore, record};
use boxpool_azure::{ACTIONS, TableStore, TablesOptions};
use boxpool_sim::arm::{ArmBuilder, ArmServer, Kind};
use boxpool_tests::{Gateway, resource_manager};
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The emulator's account, which is in its manual.
const TABLES_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const SOON: Duration = Duration::from_secs(60);

struct Region {
    arm: ArmServer,
    tables: TablesOptions,
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Region {
    fn new(builder: ArmBuilder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let arm = runtime.block_on(builder.start()).unwrap();
        let mut tables = azurite::fresh_options();
        // Pools share no table.
        tables.prefix = tables.prefix.chars().take(16).collect();
        let region = Self { arm, tables, dir: tempfile::tempdir().unwrap(), runtime };
        let subnet =
            "/subscriptions/0000-1111/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/n/subnets/s";
        let config = format!(
            "backend = \"azure\"\n[azure]\nsubscription = \"0000-1111\"\nresource_group = \"rg\"\nlocation = \"westeurope\"\n\
             pool = \"{}\"\nstorage_account = \"devstoreaccount1\"\ntables_endpoint = \"{}\"\nmanagement_endpoint = \"{}\"\n\
             credential = \"token\"\nsubnet = \"{subnet}\"\nmachines_max = 3\n",
            region.tables.prefix,
            region.tables.endpoint,
            region.arm.url(),
        );
        std::fs::write(region.dir.path().join("config.toml"), config).unwrap();
        region
    }

    fn program(&self, args: &[&str]) -> Output {
        let (command, rest) = args.split_first().unwrap();
        Command::new(Gateway::program())
            .arg(command)
            .arg("--config")
            .arg(self.dir.path().join("config.toml"))
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .args(rest)
            .envs([
                ("BOXPOOL_AZURE_TOKEN", "token"),
                ("BOXPOOL_AZURE_TABLES_KEY", TABLES_KEY),
                ("NO_PROXY", "127.0.0.1"),
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn does(&self, args: &[&str]) -> String {
        let output = self.program(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one sentence with which it refuses.
    fn refuses(&self, args: &[&str]) -> String {
        let output = self.program(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// What `doctor` says of each thing: verdict and detail.
    fn doctor(&self, what: &str) -> Vec<(String, String)> {
        let report: Value = serde_json::from_slice(&self.program(&["doctor", "--json"]).stdout).unwrap();
        let text = |finding: &Value, part: &str| finding[part].as_str().unwrap().to_owned();
        let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["what"] == what);
        findings.map(|finding| (text(finding, "verdict"), text(finding, "detail"))).collect()
    }

    fn call(&self, method: &str, resource: &str, body: &Value) {
        resource_manager::call(self.arm.address(), method, resource, body);
    }

    fn until(&self, kind: Kind, name: &str, reached: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + SOON;
        while !self.arm.resource(kind, name).is_some_and(|resource| reached(&resource)) {
            assert!(Instant::now() < deadline, "{:?}", self.arm.resource(kind, name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn put_disk(&self, name: &str, tags: &Value) {
        self.put_disk_in("westeurope", name, tags);
    }

    fn put_disk_in(&self, location: &str, name: &str, tags: &Value) {
        let properties = json!({ "creationData": { "createOption": "Empty" }, "diskSizeGB": 4 });
        self.call(
            "PUT",
            &format!("disks/{name}"),
            &json!({ "location": location, "tags": tags, "properties": properties }),
        );
        self.until(Kind::Disk, name, |disk| disk["properties"]["provisioningState"] == "Succeeded");
    }

    fn record(&self, key: &Key) -> Option<Value> {
        let found = self.runtime.block_on(async { TableStore::open(&self.tables).unwrap().get(key).await.unwrap() });
        found.map(|stored| serde_json::from_str(&stored.value).unwrap())
    }
}

#[test]
fn doctor_has_a_line_for_each_thing_that_azure_must_have() {
    let region = Region::new(ArmServer::builder());
    for what in ["azure settings", "clock", "permissions", "quota", "machines", "disks", "snapshots"] {
        let lines = region.doctor(what);
        assert!(!lines.is_empty() && lines.iter().all(|(verdict, _)| verdict == "good"), "{what}: {lines:?}");
    }
    let tables = region.doctor("tables");
    assert_eq!(tables[0].0, "warning");
    assert!(tables[0].1.contains("boxpool-gateway init"), "{tables:?}");
    assert!(region.arm.requests().iter().all(|request| request.method == "GET"), "looking changes nothing");
    assert!(!region.dir.path().join("state").exists());
}

#[test]
fn doctor_says_what_to_do_about_rights_and_quota_that_do_not_suffice() {
    let allowed = ACTIONS.iter().filter(|action| !action.contains("snapshots/"));
    let region = Region::new(ArmServer::builder().allowed(allowed.copied()).most_machines(1));
    let permissions = region.doctor("permissions");
    assert_eq!(permissions[0].0, "bad");
    let detail = &permissions[0].1;
    assert!(detail.contains("Microsoft.Compute/snapshots/write") && !detail.contains("disks/"), "{detail}");
    assert!(detail.contains("main.bicep"), "{detail}");
    let quota = region.doctor("quota");
    assert_eq!(quota[0].0, "warning");
    assert!(quota[0].1.contains("room for 1 more") && quota[0].1.contains("portal"), "{quota:?}");
}

#[test]
fn doctor_says_what_to_do_about_a_clock_that_is_off() {
    for (service_ahead, side) in [(400, "behind Azure's"), (-400, "ahead of Azure's")] {
        let region = Region::new(ArmServer::builder().clock_ahead_s(service_ahead));
        let clock = region.doctor("clock");
        assert_eq!(clock[0].0, "bad", "{clock:?}");
        assert!(clock[0].1.contains(side) && clock[0].1.contains("set the clock (chrony)"), "{clock:?}");
        assert_eq!(region.program(&["doctor"]).status.code(), Some(1), "whoever only asks for the status is told too");
    }
    let region = Region::new(ArmServer::builder().clock_ahead_s(30));
    let clock = region.doctor("clock");
    assert_eq!(clock[0].0, "good", "{clock:?}");
}

#[test]
fn doctor_says_what_to_do_when_azure_cannot_be_reached() {
    let mut region = Region::new(ArmServer::builder());
    let text = std::fs::read_to_string(region.dir.path().join("config.toml")).unwrap();
    let nowhere = format!("http://127.0.0.1:{}", azurite::free_port());
    let text = text.replace(&region.arm.url(), &nowhere);
    region.tables.endpoint = nowhere;
    std::fs::write(region.dir.path().join("config.toml"), text).unwrap();
    let line = region.doctor("resource manager");
    assert_eq!(line[0].0, "bad");
    assert!(line[0].1.contains("management_endpoint"), "{line:?}");
}

#[test]
fn each_region_is_looked_at_and_disks_are_adopted_where_they_are() {
    let region = Region::new(ArmServer::builder());
    let (config, mut there) = (region.dir.path().join("config.toml"), region.tables.clone());
    there.prefix.replace_range(..1, "z");
    let text = format!(
        "[[region]]\nname = \"west\"\n[[region]]\nname = \"sweden\"\nazure = {{ location = \"swedencentral\", pool = \"{}\" }}\n",
        there.prefix
    );
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &text).unwrap();
    let looked = region.doctor("azure settings");
    assert!(looked.len() == 2 && looked.iter().all(|(verdict, _)| verdict == "good"), "{looked:?}");

    region.put_disk_in("swedencentral", "Restored", &json!({}));
    let adopt = ["adopt-volume", "Restored", "--user", "u1", "--box", "dev1", "--region"];
    let told = region.refuses(&[&adopt[..], &["north"]].concat());
    assert!(told.contains("no such region"), "{told}");
    region.does(&[&adopt[..], &["sweden"]].concat());
    assert_eq!(region.arm.resource(Kind::Disk, "Restored").unwrap()["tags"]["boxpool-pool"], there.prefix);
    let key = Key::new(record::BOXES, "u1", "dev1");
    let found = region.runtime.block_on(async { TableStore::open(&there).unwrap().get(&key).await.unwrap() });
    assert!(found.is_some(), "in the region's own tables");
}

#[test]
fn a_disk_is_adopted_as_a_box_once_and_for_all() {
    let region = Region::new(ArmServer::builder());
    region.put_disk("Restored", &json!({ "Owner": "them" }));
    let adopt = ["adopt-volume", "Restored", "--user", "u1", "--box", "dev1"];

    let told = region.does(&adopt);
    assert!(told.contains("is the box dev1 now"), "{told}");
    let told = region.does(&adopt);
    assert!(told.contains("already"), "{told}");

    let disk = region.arm.resource(Kind::Disk, "Restored").unwrap();
    assert_eq!(disk["tags"]["Owner"], "them", "other tags stay");
    assert_eq!(disk["tags"]["boxpool-pool"], region.tables.prefix);
    let of_box = region.record(&Key::new(record::BOXES, "u1", "dev1")).unwrap();
    assert_eq!(of_box["volume"], json!({ "binding": "bound", "volume": "disk:restored" }));
    assert_eq!(of_box["placement"]["state"], "detached");
    let volume = region.record(&Key::new(record::VOLUMES, "disk:restored", "disk:restored")).unwrap();
    assert_eq!(volume["status"]["owner"]["name"], "dev1");

    let told = region.refuses(&["adopt-volume", "Restored", "--user", "u1", "--box", "dev2"]);
    assert!(told.contains("already"), "{told}");
    let told = region.refuses(&["adopt-volume", "Restored", "--user", "u1", "--box", "dev1", "--abandon"]);
    assert!(told.contains("delete the box"), "{told}");
    region.put_disk("second", &json!({}));
    let told = region.refuses(&["adopt-volume", "second", "--user", "u1", "--box", "dev1"]);
    assert!(told.contains("choose another one"), "{told}");
}

#[test]
fn what_cannot_be_adopted_is_refused_with_what_to_do_and_leaves_nothing() {
    let region = Region::new(ArmServer::builder());
    let told = region.refuses(&["adopt-volume", "nowhere", "--user", "u1", "--box", "dev1"]);
    assert!(told.contains("no such disk"), "{told}");
    region.put_disk("theirs", &json!({ "boxpool-pool": "other" }));
    let told = region.refuses(&["adopt-volume", "theirs", "--user", "u1", "--box", "dev1"]);
    assert!(told.contains("take its tags away first"), "{told}");
    for volume in ["disk:nowhere", "disk:theirs"] {
        assert_eq!(region.record(&Key::new(record::VOLUMES, volume, volume)), None);
    }
    assert_eq!(region.record(&Key::new(record::BOXES, "u1", "dev1")), None);

    let told = region.refuses(&["adopt-instance", "nowhere", "--yes"]);
    assert!(told.contains("no such machine"), "{told}");
    assert_eq!(region.record(&Key::new(record::INSTANCES, "vm:nowhere", "vm:nowhere")), None);
    assert_eq!(region.program(&["adopt-instance", "nowhere"]).status.code(), Some(2), "it must be said that it may go");

    let interface = json!({ "name": "n", "properties": { "ipConfigurations": [{ "name": "i", "properties": { "subnet": { "id": "/s" } } }] } });
    region.call(
        "PUT",
        "virtualMachines/plain-vm",
        &json!({ "location": "westeurope", "properties": {
        "hardwareProfile": { "vmSize": "Standard_D2s_v5" },
        "storageProfile": { "osDisk": { "createOption": "FromImage" } },
        "networkProfile": { "networkApiVersion": "2020-11-01", "networkInterfaceConfigurations": [interface] } } }),
    );
    region.until(Kind::Vm, "plain-vm", |machine| machine["properties"]["provisioningState"] == "Succeeded");
    let told = region.refuses(&["adopt-instance", "plain-vm", "--yes"]);
    assert!(told.contains("boxpool-host-key"), "{told}");
    let kept = region.record(&Key::new(record::INSTANCES, "vm:plain:vm", "vm:plain:vm")).unwrap();
    assert_eq!(kept["status"]["is"], "quarantined", "nobody deletes it while it is made ready");

    let told = region.does(&["adopt-instance", "plain-vm", "--abandon"]);
    assert!(told.contains("nothing of the pool's"), "{told}");
    assert_eq!(region.record(&Key::new(record::INSTANCES, "vm:plain:vm", "vm:plain:vm")), None);
    let tags = region.arm.resource(Kind::Vm, "plain-vm").unwrap()["tags"].clone();
    assert!(tags.as_object().is_none_or(serde_json::Map::is_empty), "{tags}");
}
