//! A whole life on Azure: the gateway program against a simulated Resource Manager whose machines are real OpenSSH servers with
//! real QEMU and whose disks are files, and against the real emulator of its tables. Needs root, for mounts.

#![allow(clippy::unwrap_used, clippy::duplicate_mod)]

#[path = "../../backends/azure/tests/azurite/mod.rs"]
mod azurite;
#[path = "../../backends/qemu/tests/vm/mod.rs"]
mod vm;

use async_trait::async_trait;
use azurite::Azurite;
use base64::Engine;
use boxpool::{StateStore, Table, record};
use boxpool_azure::{TableStore, TablesOptions};
use boxpool_sim::arm::{ArmServer, Filling, Kind, MachineFacts, Machines};
use boxpool_sim::conformance::{COUNTED, COUNTING};
use boxpool_tests::{Gateway, User, resource_manager};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use vm::Vm;

/// The emulator's account, which is in its manual.
const TABLES_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const STAND_IN: &str =
    "cd /var/lib/boxpool; printf '#!/bin/sh\nrm -f ready generalize\n' >generalize; chmod 700 generalize; touch ready";
const SOON: Duration = Duration::from_secs(120);

/// The machines and disks behind the simulated ones.
struct Iron {
    folder: tempfile::TempDir,
    port: u16,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    machines: BTreeMap<String, (Option<Vm>, MachineFacts, SocketAddr)>,
    plugged: BTreeMap<String, (String, u32)>,
    /// Disks that boxes use go in when this says so, and how many have asked.
    held: bool,
    asked: u32,
    done: u32,
}

impl Iron {
    fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        Arc::new(Self { folder, port: vm::free_port(), state: Mutex::default(), moved: Condvar::new() })
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.img"))
    }

    fn boot(facts: &MachineFacts, address: SocketAddr) -> Vm {
        let text = String::from_utf8(facts.custom_data.clone()).unwrap();
        let key = text.split_once("ed25519_private: |\n").unwrap().1.split_once("  ed25519_public").unwrap().0;
        let key: String = key.lines().map(|line| format!("{}\n", line.trim_start())).collect();
        let vm = Vm::start(address, &facts.ssh_keys.join("\n"), Some(&key));
        // What cloud-init would install is here. What it writes would change the files that this machine shares with the real
        // one, so its stand-in does the part that is the machine's own. The last thing that cloud-init does is to say that it is ready.
        assert!(text.contains("  - path: /var/lib/boxpool/generalize\n"));
        vm.run(&["sh", "-c", STAND_IN]);
        vm
    }

    /// A machine loses power.
    fn kill(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.machines.get_mut(name).unwrap().0 = None;
    }

    /// What a machine was made from; `None` for a published image.
    fn image_of(&self, machine: &str) -> Option<String> {
        self.state.lock().unwrap().machines[machine].1.image.clone()
    }

    fn hold(&self, held: bool) {
        let mut state = self.state.lock().unwrap();
        (state.held, state.asked, state.done) = (held, 0, 0);
        self.moved.notify_all();
    }

    /// Waits until so many disks are to go in, or are in.
    fn until(&self, what: &str, reached: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let (_state, timed_out) = self.moved.wait_timeout_while(state, SOON, |state| !reached(state)).unwrap();
        assert!(!timed_out.timed_out(), "no disk was {what}");
    }
}

#[async_trait]
impl Machines for Iron {
    async fn create(&self, machine: &MachineFacts) -> Result<Ipv4Addr, String> {
        let address = SocketAddr::new(vm::next_address(), self.port);
        let vm = tokio::task::block_in_place(|| Self::boot(machine, address));
        let mut state = self.state.lock().unwrap();
        state.machines.insert(machine.name.clone(), (Some(vm), machine.clone(), address));
        let IpAddr::V4(ip) = address.ip() else { unreachable!("it is made so") };
        Ok(ip)
    }
    async fn start(&self, name: &str) -> Result<(), String> {
        let (facts, address) = {
            let state = self.state.lock().unwrap();
            let (_, facts, address) = &state.machines[name];
            (facts.clone(), *address)
        };
        let vm = tokio::task::block_in_place(|| Self::boot(&facts, address));
        let mut state = self.state.lock().unwrap();
        for (disk, (on, lun)) in &state.plugged {
            if on == name {
                vm.attach(&self.disk(disk), *lun);
            }
        }
        state.machines.get_mut(name).unwrap().0 = Some(vm);
        Ok(())
    }
    async fn stop(&self, name: &str, _deallocated: bool) -> Result<(), String> {
        self.kill(name);
        Ok(())
    }
    async fn delete(&self, name: &str) -> Result<(), String> {
        let mut state = self.state.lock().unwrap();
        state.machines.remove(name);
        state.plugged.retain(|_, (on, _)| on != name);
        Ok(())
    }
    async fn plug(&self, machine: &str, lun: i64, disk: &str) -> Result<(), String> {
        tokio::task::block_in_place(|| {
            let mut state = self.state.lock().unwrap();
            state.asked += 1;
            self.moved.notify_all();
            let mut state = self.moved.wait_while(state, |state| state.held).unwrap();
            let lun = u32::try_from(lun).unwrap();
            if let Some((Some(vm), ..)) = state.machines.get(machine) {
                vm.attach(&self.disk(disk), lun);
            }
            state.plugged.insert(disk.to_owned(), (machine.to_owned(), lun));
            state.done += 1;
            self.moved.notify_all();
        });
        Ok(())
    }
    async fn unplug(&self, machine: &str, lun: i64, disk: &str) -> Result<(), String> {
        let mut state = self.state.lock().unwrap();
        if let Some((Some(vm), ..)) = state.machines.get(machine) {
            vm.detach(u32::try_from(lun).unwrap());
        }
        state.plugged.remove(disk);
        Ok(())
    }
    async fn fill(&self, name: &str, with: &Filling) -> Result<(), String> {
        match with {
            Filling::Empty { bytes } => std::fs::File::create(self.disk(name)).unwrap().set_len(*bytes).unwrap(),
            Filling::CopyOf(other) => {
                tokio::task::block_in_place(|| vm::copy_disk(&self.disk(other), &self.disk(name)));
            }
        }
        Ok(())
    }
    async fn discard(&self, name: &str) -> Result<(), String> {
        // Of OS disks there is no file.
        match std::fs::remove_file(self.disk(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

/// A region, with what a gateway needs to find it.
struct Region {
    arm: ArmServer,
    iron: Arc<Iron>,
    tables: Option<Azurite>,
    tables_dir: tempfile::TempDir,
    tables_port: u16,
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Region {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build().unwrap();
        let iron = Iron::new();
        let server = ArmServer::builder().seed(1).time_scale(0.01).machines(iron.clone());
        let arm = runtime.block_on(server.start()).unwrap();
        let (tables_dir, tables_port) = (tempfile::tempdir().unwrap(), vm::free_port());
        let tables = Some(Azurite::start_in(tables_dir.path(), tables_port));
        let dir = tempfile::tempdir().unwrap();
        let region = Self { arm, iron, tables, tables_dir, tables_port, dir, runtime };
        std::fs::write(region.config(), region.config_text()).unwrap();
        region
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    fn config_text(&self) -> String {
        let subnet =
            "/subscriptions/0000-1111/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/net/subnets/hosts";
        format!(
            "backend = \"azure\"\nmin_free = 1\nlinger = \"1s\"\npark_limit = \"2s\"\nlog = \"info\"\n\
             [box]\nrecipe = \"tiny\"\nmemory_mib = 192\ncpus = 1\ndisk_gib = 2\n\
             [azure]\nsubscription = \"0000-1111\"\nresource_group = \"rg\"\nlocation = \"westeurope\"\npool = \"p\"\n\
             storage_account = \"devstoreaccount1\"\ntables_endpoint = \"http://127.0.0.1:{}/devstoreaccount1\"\n\
             management_endpoint = \"{}\"\ncredential = \"token\"\nsubnet = \"{subnet}\"\nssh_port = {}\n\
             machines_min_free = 1\nmachines_max_free = 1\nmachines_max = 3\nrecycle = \"destroy\"\n",
            self.tables_port,
            self.arm.url(),
            self.iron.port
        )
    }

    const ENVIRONMENT: [(&str, &str); 3] =
        [("BOXPOOL_AZURE_TOKEN", "token"), ("BOXPOOL_AZURE_TABLES_KEY", TABLES_KEY), ("NO_PROXY", "127.0.0.1")];

    /// A gateway's own folder, with the keys that all of them share.
    fn state_dir(&self, name: &str) -> PathBuf {
        let place = self.dir.path().join(name);
        if !place.exists() {
            std::fs::create_dir(&place).unwrap();
            for key in ["box_ed25519_key", "machine_ed25519_key", "host_ed25519_key"] {
                let shared = self.dir.path().join(key);
                if !shared.exists() {
                    vm::make_key(&shared);
                }
                std::fs::copy(&shared, place.join(key)).unwrap();
            }
        }
        place
    }

    fn init(&self, name: &str) -> std::process::Child {
        Command::new(Gateway::program())
            .args(["init", "--state-dir"])
            .arg(self.state_dir(name))
            .arg("--config")
            .arg(self.config())
            .envs(Self::ENVIRONMENT)
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn gateway(&self, name: &str) -> Gateway {
        Gateway::serve(&self.state_dir(name), &self.config(), &Self::ENVIRONMENT)
    }

    fn restart_tables(&mut self) {
        self.tables = None;
        self.tables = Some(Azurite::start_in(self.tables_dir.path(), self.tables_port));
    }

    fn records(&self, table: Table) -> BTreeMap<String, serde_json::Value> {
        let mut options = TablesOptions::emulator(self.tables_port);
        options.prefix = "p".into();
        let all = self.runtime.block_on(async {
            TableStore::open(&options).unwrap().scan(table, None, None, 1_000).await.unwrap().items
        });
        let read = |entry: boxpool::Entry| {
            let value: serde_json::Value = serde_json::from_str(&entry.stored.value).unwrap();
            (entry.key.row.clone(), value)
        };
        all.into_iter().map(read).collect()
    }

    fn placement(&self, name: &str) -> serde_json::Value {
        self.records(record::BOXES).remove(name).map_or(serde_json::Value::Null, |record| record["placement"].clone())
    }

    fn until(&self, what: &str, reached: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !reached() {
            assert!(Instant::now() < deadline, "not {what} in time: {:?}", self.records(record::BOXES));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until_state(&self, name: &str, state: &str) {
        self.until(state, || self.placement(name)["state"] == state);
    }

    /// Somebody makes a copy of a disk or snapshot.
    fn copy(&self, to: &str, kind: Kind, from: &str) {
        let source = format!("/subscriptions/0000-1111/resourceGroups/rg/providers/Microsoft.Compute/{from}");
        let body = json!({ "location": "westeurope", "sku": { "name": "Premium_LRS" },
            "properties": { "creationData": { "createOption": "Copy", "sourceResourceId": source } } });
        resource_manager::call(self.arm.address(), "PUT", to, &body);
        let name = to.split_once('/').unwrap().1;
        let state = || self.arm.resource(kind, name).map(|found| found["properties"]["provisioningState"].clone());
        self.until("a copy", || state().is_some_and(|state| state == "Succeeded"));
    }

    fn adopt(&self, disk: &str, account: &str, name: &str) {
        let adopt = self.program(&["adopt-volume", disk, "--user", account, "--box", name]);
        assert!(adopt.status.success(), "{}", String::from_utf8_lossy(&adopt.stderr));
    }

    /// Runs a command of the gateway's to its end.
    fn program(&self, args: &[&str]) -> Output {
        Command::new(Gateway::program())
            .args(args)
            .arg("--config")
            .arg(self.config())
            .arg("--state-dir")
            .arg(self.state_dir("a"))
            .envs(Self::ENVIRONMENT)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Every machine and disk has a record, and the other way round; nothing else is there but what belongs to a machine, and
    /// the golden snapshot and its image.
    fn until_nothing_is_leaked(&self) {
        self.until_nothing_is_leaked_but(&[]);
    }

    fn until_nothing_is_leaked_but(&self, others: &[&str]) {
        let ids = |kind, part: &str| {
            let names = self.arm.names(kind).into_iter();
            let id = |name: String| Some(name.strip_prefix("p-")?.strip_suffix(part)?.to_owned());
            names.filter_map(id).collect::<BTreeSet<_>>()
        };
        let id = |record: serde_json::Value| record["id"].as_str().unwrap().to_owned();
        let recorded = |table| self.records(table).into_values().map(id).collect::<BTreeSet<_>>();
        let deadline = Instant::now() + SOON;
        loop {
            let machines = ids(Kind::Vm, "");
            let (interfaces, os_disks) = (ids(Kind::Nic, "-nic"), ids(Kind::Disk, "-os"));
            let mut disks = ids(Kind::Disk, "");
            disks.retain(|name| !name.ends_with("-os"));
            let own_parts = machines == interfaces && machines == os_disks;
            let all = [Kind::Disk, Kind::Nic].map(|kind| self.arm.names(kind).len());
            let no_others = all == [disks.len() + os_disks.len(), interfaces.len()];
            let (of_machines, of_disks) = (recorded(record::INSTANCES), recorded(record::VOLUMES));
            if own_parts && no_others && machines == of_machines && disks == of_disks {
                break;
            }
            let found = [machines, interfaces, os_disks, of_machines, disks, of_disks];
            assert!(Instant::now() < deadline, "machines, interfaces, OS disks, records; disks, records: {found:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let golden = [Kind::Snapshot, Kind::Image].map(|kind| {
            let names = self.arm.names(kind).into_iter();
            names.filter(|name| !others.contains(&name.as_str())).collect::<Vec<_>>()
        });
        assert!(golden[0].len() == 1 && golden[0] == golden[1], "{golden:?}");
    }
}

/// What of a box is on its disk, and what it is known by.
const WHO: &str = "cat file; hostname; cat /etc/machine-id /sys/class/net/e*/address";

fn count(user: &User, gateway: &Gateway) -> u64 {
    user.does(gateway, "dev1", COUNTED).parse().unwrap()
}

#[test]
#[ignore = "needs root, for mounts"]
fn a_box_is_moved_from_one_region_of_azure_to_another() {
    let region = Region::new();
    let regions =
        "[[region]]\nname = \"west\"\n[[region]]\nname = \"sweden\"\nazure = { location = \"swedencentral\" }\n";
    std::fs::write(region.config(), region.config_text() + regions).unwrap();
    assert!(region.init("a").wait().unwrap().success());
    let goldens = region.arm.names(Kind::Snapshot);
    assert_eq!(goldens.len(), 2, "one for each region: {goldens:?}");

    let (gateway, user) = (region.gateway("a"), User::new());
    let _ = user.does(&gateway, "gateway", "spinup dev1 --region sweden");
    let id = user.does(&gateway, "dev1", "echo kept > file; echo held > /dev/shm/note; cat /etc/machine-id");
    let machines = region.arm.names(Kind::Vm).into_iter().filter(|name| name.starts_with("psweden-"));
    for machine in machines {
        assert_eq!(region.arm.resource(Kind::Vm, &machine).unwrap()["location"], "swedencentral");
    }
    let told = user.does(&gateway, "gateway", "move dev1 west --yes");
    assert!(told.contains("dev1 lives in west now"), "{told}");
    let there = user.does(&gateway, "dev1", "cat file; ls /dev/shm; cat /etc/machine-id");
    assert!(there.starts_with("kept\n") && !there.contains("note") && !there.contains(&id), "{there}");
    assert_eq!(region.placement("dev1")["state"], "running", "it is on record in the other region's tables");
    let copied =
        |request: &boxpool_sim::arm::Logged| request.method == "PUT" && request.path.contains("/snapshots/p-of-box-");
    assert!(region.arm.requests().iter().any(copied), "a snapshot was copied to the other region");
    region.until("clear of copies", || region.arm.names(Kind::Snapshot) == goldens);
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
#[ignore = "needs root, for mounts"]
fn a_life_on_azure() {
    let mut region = Region::new();

    // Two at once build one golden snapshot, and leave nothing else.
    let mut both = [region.init("a"), region.init("b")];
    for init in &mut both {
        assert!(init.wait().unwrap().success());
    }
    assert_eq!(region.arm.names(Kind::Snapshot).len(), 1);
    let built = region.arm.requests().iter().filter(|r| r.method == "PUT" && r.path.contains("/snapshots/")).count();
    assert_eq!(built, 1, "it was built once");
    let images = region.arm.names(Kind::Image);
    assert_eq!(images, region.arm.names(Kind::Snapshot), "and an image of the same name, for machines");
    let is_scratch = |name: &String| name.starts_with("p-golden-");
    let scratch = [Kind::Vm, Kind::Disk].map(|kind| region.arm.names(kind).into_iter().find(is_scratch));
    assert_eq!(scratch, [None, None], "what it was built with is gone");
    assert!(region.init("a").wait().unwrap().success(), "again is safe");

    // A box, and its return on another machine with its processes.
    let gateway = region.gateway("a");
    assert!(region.init("b").wait().unwrap().success(), "beside a gateway, too");
    let user = User::new();
    let _ = user.does(&gateway, "gateway", "spinup dev1");
    let process = user.does(&gateway, "dev1", &format!("echo kept > file; {COUNTING}"));
    let first_count = count(&user, &gateway);
    let first_machine = region.placement("dev1")["instance"].clone();
    region.until_state("dev1", "detached");
    let second_count = count(&user, &gateway);
    assert!(second_count > first_count, "{second_count} after {first_count}");
    let second_machine = region.placement("dev1")["instance"].clone();
    assert_ne!(second_machine, first_machine, "on another machine");
    let image = region.iron.image_of(&format!("p-{}", second_machine.as_str().unwrap()));
    assert!(image.is_some_and(|image| image.ends_with(&format!("/images/{}", images[0]))), "of the golden image");
    let same = user.does(&gateway, "dev1", &format!("cat file; kill -0 {process} && echo {process}"));
    assert_eq!(same, format!("kept\n{process}"));

    // The gateway dies while the disk is being attached: before the answer, and after it.
    let mut before = second_count;
    let mut gateway = gateway;
    for held in [true, false] {
        region.until_state("dev1", "detached");
        region.iron.hold(held);
        let mut coming = user.stay(&gateway, "dev1", "true");
        match held {
            true => region.iron.until("asked for", |state| state.asked > 0),
            false => region.iron.until("attached", |state| state.done > 0),
        }
        gateway.kill();
        coming.kill().unwrap();
        coming.wait().unwrap();
        region.iron.hold(false);
        gateway = region.gateway("a");
        let after = count(&user, &gateway);
        assert!(after > before, "{after} after {before}: memory was kept");
        before = after;
    }

    // The machine dies under the box: the box boots on another one, with its disk.
    let _ = user.does(&gateway, "dev1", "echo durable > file; sync");
    let machine = region.placement("dev1")["instance"].as_str().unwrap().to_owned();
    let name = format!("p-{machine}");
    region.iron.kill(&name);
    region.arm.evict(&name);
    // Until the cloud says that the machine is off, whoever connects is asked to come again.
    let durable = || {
        let answer = user.ssh(&gateway, "dev1", "cat file");
        assert!(matches!(answer.code, 0 | 75), "{answer:?}");
        answer.out == "durable"
    };
    region.until("up on another machine", durable);
    assert_ne!(region.placement("dev1")["instance"], machine);

    // The tables die and come back: whoever is inside notices nothing, and a new connection works.
    let mut inside = user.stay(&gateway, "dev1", "echo in; read line; echo $line");
    let mut lines = BufReader::new(inside.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "in");
    region.restart_tables();
    inside.stdin.as_mut().unwrap().write_all(b"still here\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "still here");
    assert!(inside.wait().unwrap().success());
    region.until("connected again", || user.ssh(&gateway, "dev1", "cat file").out == "durable");

    // Copies of the box, on machines and disks of their own, with what it had and as nobody's twin.
    let _ = user.does(&gateway, "gateway", "duplicate dev1 dev2");
    let copy = user.does(&gateway, "dev2", WHO);
    let original = user.does(&gateway, "dev1", WHO);
    let (copy, original) = (copy.lines().collect::<Vec<_>>(), original.lines().collect::<Vec<_>>());
    assert_eq!((&copy[..2], &original[..2]), (&["durable", "dev2"][..], &["durable", "dev1"][..]));
    assert!(copy[2] != original[2] && copy[3] != original[3], "{copy:?} {original:?}");
    let _ = user.does(&gateway, "gateway", "snapshot create dev2 kept");
    assert!(user.does(&gateway, "gateway", "snapshot list").contains("kept"));
    let _ = user.does(&gateway, "gateway", "delete dev2 --yes");
    let _ = user.does(&gateway, "gateway", "snapshot restore kept dev3");
    let _ = user.does(&gateway, "gateway", "snapshot delete kept --yes");
    assert!(user.does(&gateway, "dev3", WHO).starts_with("durable\ndev3\n"));
    let _ = user.does(&gateway, "gateway", "delete dev3 --yes");

    // A disk that was restored under its name is adopted, beside the gateway, and is the box again, although that was deleted.
    region.until_state("dev1", "detached");
    let volume = region.records(record::BOXES)["dev1"]["volume"]["volume"].as_str().unwrap().to_owned();
    let disk = format!("p-{volume}");
    region.copy("snapshots/saved", Kind::Snapshot, &format!("disks/{disk}"));
    let _ = user.does(&gateway, "gateway", "delete dev1 --yes");
    region.until_nothing_is_leaked_but(&["saved"]);
    region.copy(&format!("disks/{disk}"), Kind::Disk, "snapshots/saved");
    resource_manager::call(region.arm.address(), "DELETE", "snapshots/saved", &serde_json::Value::Null);
    region.adopt(&disk, &user.account(&gateway), "dev1");
    assert_eq!(user.does(&gateway, "dev1", "cat file"), "durable");

    // Nothing is left that nobody knows, then nothing of the box.
    region.until_nothing_is_leaked();
    let _ = user.does(&gateway, "gateway", "delete dev1 --yes");
    region.until_nothing_is_leaked();
    assert!(region.records(record::BOXES).is_empty());
    let (code, _) = gateway.stop();
    assert_eq!(code, Some(0));
}

#[test]
#[ignore = "needs root, for mounts"]
fn a_machine_that_somebody_made_ready_is_adopted_once_and_for_all() {
    let region = Region::new();
    // It makes the key that enters the machines.
    let _ = region.state_dir("a");
    let their_key = region.dir.path().join("their_host_key");
    vm::make_key(&their_key);
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let public = read(their_key.with_extension("pub"));
    let private: String = read(their_key).lines().map(|line| format!("    {line}\n")).collect();
    let cloud_init = format!(
        "#cloud-config\nssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: \"{}\"\nwrite_files:\n  - path: /var/lib/boxpool/generalize\n",
        public.trim()
    );
    let interface = json!({ "name": "n", "properties": { "ipConfigurations": [{ "name": "i", "properties": { "subnet": { "id": "/s" } } }] } });
    let machine = json!({
        "location": "westeurope",
        "tags": { "Owner": "them", "boxpool-host-key": public.trim() },
        "properties": {
            "hardwareProfile": { "vmSize": "Standard_D2s_v5" },
            "storageProfile": { "osDisk": { "createOption": "FromImage" } },
            "osProfile": {
                "computerName": "old-host",
                "adminUsername": "azureuser",
                "customData": base64::engine::general_purpose::STANDARD.encode(cloud_init),
                "linuxConfiguration": { "ssh": { "publicKeys": [{
                    "path": "/home/azureuser/.ssh/authorized_keys",
                    "keyData": read(region.dir.path().join("machine_ed25519_key.pub")).trim(),
                }] } },
            },
            "networkProfile": { "networkApiVersion": "2020-11-01", "networkInterfaceConfigurations": [interface] },
        },
    });
    resource_manager::call(region.arm.address(), "PUT", "virtualMachines/old-host", &machine);
    let state = || region.arm.resource(Kind::Vm, "old-host").map(|vm| vm["properties"]["provisioningState"].clone());
    region.until("up", || state().is_some_and(|state| state == "Succeeded"));

    let adopt = |more: &str| region.program(&["adopt-instance", "old-host", more]);
    let told = adopt("--yes");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert!(String::from_utf8_lossy(&told.stdout).contains("is the pool's now"));
    let record = region.records(record::INSTANCES).remove("vm:old:host").unwrap();
    assert_eq!(record["status"]["is"], "provisioning", "a gateway looks at it before it is used");
    let tags = region.arm.resource(Kind::Vm, "old-host").unwrap()["tags"].clone();
    assert_eq!((&tags["Owner"], &tags["boxpool-pool"]), (&json!("them"), &json!("p")), "other tags stay");

    let told = adopt("--yes");
    assert!(told.status.success() && String::from_utf8_lossy(&told.stdout).contains("already"), "{told:?}");
    let told = adopt("--abandon");
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stderr).contains("cannot be had back"), "{told:?}");
    assert_eq!(region.arm.resource(Kind::Vm, "old-host").unwrap()["tags"], tags, "nothing was changed by it");
}
