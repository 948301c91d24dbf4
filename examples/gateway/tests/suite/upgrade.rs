//! A gateway takes up what an earlier one has stored.

use crate::harness::site::{Site, config};
use boxpool::{Attach, Epoch, InstanceId, InstanceProvider, InstanceSpec, VolumeId, VolumeProvider};
use boxpool::{VolumeSource, VolumeSpec};
use boxpool_gateway::account::account_id;
use russh::keys::{HashAlg, PublicKey};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// When the gateway of that time made its records, by the Unix clock in seconds. It ended within the next second.
const STORED_AT: u64 = 1_795_733_180;
/// What was there beside the records.
const INSTANCES: [&str; 2] = ["i00000-af5fee9465386514", "i00001-e10f88be87908f7e"];
const VOLUMES: [&str; 2] = ["v-fce364899c707c55", "v-c5692e36db09c611"];

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_gateway_from_when_accounts_had_one_key_is_taken_up() {
    let site = Site::new();
    let public = std::fs::read_to_string(site.dir.path().join("id.pub")).unwrap();
    let key = PublicKey::from_openssh(&public).unwrap();
    let account = account_id(&key).unwrap();
    // A minute ago, so that the box that was parked then still is.
    let stored_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 60;
    let records = include_str!("../stored/one-key-accounts.sql")
        .replace(&STORED_AT.to_string(), &stored_at.to_string())
        .replace(&(STORED_AT + 1).to_string(), &(stored_at + 1).to_string())
        .replace("@ACCOUNT@", account.as_str())
        .replace("@FINGERPRINT@", &key.fingerprint(HashAlg::Sha256).to_string())
        .replace("@KEY@", &public.split(' ').take(2).collect::<Vec<_>>().join(" "));
    store(&site, &records);
    for id in INSTANCES {
        let spec = InstanceSpec::new(InstanceId::new(id).unwrap(), "1");
        InstanceProvider::ensure(&*site.machines, &spec).await.unwrap();
    }
    for id in VOLUMES {
        let spec = VolumeSpec::new(VolumeId::new(id).unwrap(), VolumeSource::Empty { bytes: 1 });
        VolumeProvider::ensure(&*site.machines, &spec).await.unwrap();
    }
    let (volume, instance) = (VolumeId::new(VOLUMES[0]).unwrap(), InstanceId::new(INSTANCES[0]).unwrap());
    site.machines.attach(&Attach::new(volume, instance, Epoch(1))).await.unwrap();
    std::fs::create_dir(site.dir.path().join(VOLUMES[0])).unwrap();
    std::fs::write(site.dir.path().join(VOLUMES[0]).join("file"), "kept\n").unwrap();

    let gateway = site.start(config()).await;
    let who = site.run(&gateway, "gateway", &["whoami", "--json"]).await.json();
    assert_eq!(
        (who["account"].as_str(), who["created"].as_u64()),
        (Some(account.as_str()), Some(stored_at * 1000 + 590))
    );
    assert_eq!(site.state(&gateway, "dev1").await, "parked");
    assert_eq!(site.run(&gateway, "dev1", &["cat $BOXHOME/file"]).await.text(), "kept\n");
    site.until_state(&gateway, "dev1", "parked").await;

    crate::harness::make_key(site.dir.path(), "work");
    let work = std::fs::read_to_string(site.dir.path().join("work.pub")).unwrap();
    assert_eq!(site.run(&gateway, "gateway", &["key", "add", work.trim()]).await.code, 0);
    assert_eq!(
        crate::harness::finish(site.ssh_as("work", &gateway, "dev1", &["true"])).await.code,
        0,
        "both keys lead in"
    );
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev2"]).await.code, 0);
    assert_eq!(site.run(&gateway, "gateway", &["delete dev1 --yes"]).await.code, 0);
    gateway.stop().await;
}

/// Writes records into the file that the gateway of `site` will open.
fn store(site: &Site, records: &str) {
    let write = "import sqlite3, sys\nsqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())";
    let mut python = Command::new("python3")
        .args(["-c", write])
        .arg(site.dir.path().join("state.sqlite"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(records.as_bytes()).unwrap();
    assert!(python.wait().unwrap().success());
}
