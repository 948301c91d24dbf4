//! The commands for administrators, on the real pool and with the real OpenSSH client.

use crate::harness::site::{Running, Site, config};
use crate::harness::{HANG, Ran, ask_until, finish, make_key, sign_key};
use boxpool::record::{Envelope, Record, VolumeRecord, VolumeStatus};
use boxpool::{Key, Timestamp, VolumeId};
use boxpool_gateway::backends::open_store;
use boxpool_gateway::config::Config;
use boxpool_gateway::place::Place;
use serde_json::Value;
use std::time::Instant;
use tokio::io::AsyncReadExt;
use tokio::process::Child;

/// A site whose administrator has the key `admin`.
fn site() -> (Site, Config) {
    let site = Site::new();
    make_key(site.dir.path(), "admin");
    let config = Config {
        admin_keys: Some(site.dir.path().join("admin.pub")),
        audit_log: Some(site.dir.path().join("audit.jsonl")),
        ..config()
    };
    (site, config)
}

async fn admin(site: &Site, gateway: &Running, line: &[&str]) -> Ran {
    let words: Vec<&str> = ["admin"].into_iter().chain(line.iter().copied()).collect();
    finish(site.ssh_as("admin", gateway, "gateway", &words)).await
}

async fn admin_json(site: &Site, gateway: &Running, line: &[&str]) -> Value {
    let ran = admin(site, gateway, &[line, &["--json"]].concat()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()
}

/// Somebody in the box dev1, for as long as the answer is kept.
async fn visitor(site: &Site, gateway: &Running) -> Child {
    let mut session = site.ssh(gateway, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
    session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn for_everybody_else_there_are_no_such_commands() {
    let (site, config) = site();
    let gateway = site.start(config).await;
    for login in ["gateway", "nosuch", "admin"] {
        for (flag, rest) in [("", "sessions"), ("--json", "kick c1"), ("", ""), ("", "drain --yes")] {
            let real = site.run(&gateway, login, &["admin", rest, flag]).await;
            let made_up = site.run(&gateway, login, &["zdmin", rest, flag]).await;
            assert_eq!((real.code, &real.stdout), (made_up.code, &made_up.stdout), "{login} {rest}: {real:?}");
            assert_eq!(
                real.stderr.replace("admin\\\"", "X\\\"").replace("\"admin\" is", "\"X\" is"),
                made_up.stderr.replace("zdmin\\\"", "X\\\"").replace("\"zdmin\" is", "\"X\" is"),
                "{login} {rest}"
            );
            assert_ne!(real.code, 0);
        }
    }
    for help in [vec!["help"], vec!["help", "--json"]] {
        for key in ["id", "admin"] {
            let text = finish(site.ssh_as(key, &gateway, "gateway", &help)).await.text();
            assert!(text.contains("spinup") && !text.contains("admin"), "{text}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_who_is_there_what_there_is_what_happened_and_why() {
    let (site, config) = site();
    let gateway = site.start(Config { spinup_on_connect: true, ..config }).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let account = site.run(&gateway, "gateway", &["whoami", "--json"]).await.json()["account"].clone();
    let account = account.as_str().unwrap();
    let visitor = visitor(&site, &gateway).await;

    let sessions = admin_json(&site, &gateway, &["sessions"]).await;
    let all = sessions["sessions"].as_array().unwrap();
    let theirs = all.iter().find(|each| each["login"] == "dev1").unwrap();
    assert_eq!((&theirs["account"], &theirs["boxes"]), (&account.into(), &serde_json::json!(["dev1"])), "{sessions}");
    assert!(theirs["key"].as_str().unwrap().starts_with("SHA256:") && theirs["channels"] == 1, "{sessions}");
    assert_eq!(all.len(), 2, "the administrator is there, too: {sessions}");

    let pools = admin_json(&site, &gateway, &["pools"]).await;
    assert_eq!((&pools["boxes"]["running"], &pools["instances"]["claimed"]), (&1.into(), &1.into()), "{pools}");
    assert_eq!((pools["gateways"].as_array().unwrap().len(), &pools["complete"]), (1, &true.into()), "{pools}");

    let plan = admin_json(&site, &gateway, &["plan"]).await;
    assert_eq!((&plan["instances"]["max_total"], plan["instances"]["total"].is_u64()), (&2.into(), true), "{plan}");
    assert!(plan["instances"]["step"].is_string() && plan["volumes"]["step"].is_string(), "{plan}");

    let which = format!("{}/dev1", &account[..8]);
    let why = admin_json(&site, &gateway, &["explain", &which]).await;
    assert_eq!((&why["account"], &why["state"]), (&account.into(), &"running".into()), "{why}");
    let because = why["because"].to_string();
    for part in ["it runs on", "claimed by this box", "bound to it", "held by n-"] {
        assert!(because.contains(part), "{because}");
    }
    let events = admin_json(&site, &gateway, &["events", account]).await;
    assert_eq!((&events["events"][0]["kind"], &events["events"][0]["box"]), (&"box_created".into(), &"dev1".into()));

    // The same for people; a new name as the login makes no box of it, not even where that is on.
    for line in [
        &["sessions"][..],
        &["pools"],
        &["explain", &which],
        &["events"],
        &["plan"],
        &["quarantine", "list"],
        &["help"],
        &[],
    ] {
        let words: Vec<&str> = ["admin"].into_iter().chain(line.iter().copied()).collect();
        let ran = finish(site.ssh_as("admin", &gateway, "newname", &words)).await;
        assert!(ran.code == 0 && !ran.stdout.is_empty() && !ran.text().contains('{'), "{line:?}: {ran:?}");
    }
    assert!(admin_json(&site, &gateway, &["pools"]).await["boxes"]["detached"].is_null());
    for (line, code) in [
        (&["explain", "ffffffff/dev1"][..], 3),
        (&["explain", &format!("{account}/other")], 3),
        (&["explain", "dev1"], 2),
        (&["frobnicate"], 2),
        (&["drain"], 2),
        (&["kick", "c99"], 3),
    ] {
        let ran = admin(&site, &gateway, line).await;
        assert_eq!((ran.code, ran.stderr.lines().count(), ran.stdout.len()), (code, 1, 0), "{line:?}: {ran:?}");
    }
    drop(visitor);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_another_key_of_the_account_nor_a_certificate_gives_the_right() {
    let (site, config) = site();
    let path = |name: &str| site.dir.path().join(name);
    ["work", "ca"].iter().for_each(|name| make_key(site.dir.path(), name));
    let gateway = site.start(Config { trusted_user_ca_keys: Some(path("ca.pub")), ..config }).await;
    let work = std::fs::read_to_string(path("work.pub")).unwrap();
    let added = finish(site.ssh_as("admin", &gateway, "gateway", &["key", "add", work.trim()])).await;
    assert_eq!(added.code, 0, "{added:?}");
    // A key that logs in comes before its certificate, unless the client does not offer it.
    let by_key = ["-o", "PubkeyAcceptedAlgorithms=ssh-ed25519"];
    let by_certificate = ["-o", "PubkeyAcceptedAlgorithms=ssh-ed25519-cert-v01@openssh.com"];
    let run = async |key: &str, how: [&str; 2], line: [&str; 2]| {
        finish(site.ssh_as(key, &gateway, "gateway", &[how, line].concat())).await
    };
    let refused = async |key: &str, how: [&str; 2]| {
        let ran = run(key, how, ["admin", "sessions"]).await;
        assert!(ran.code == 2 && ran.stderr.contains("is not a command of the gateway"), "{key}: {ran:?}");
    };
    let account = run("admin", by_key, ["whoami", "--json"]).await.json()["account"].clone();
    assert_eq!(run("work", by_key, ["whoami", "--json"]).await.json()["account"], account);
    refused("work", by_key).await;
    sign_key(&path("ca"), &path("admin"), &["-n", "admin", "-V", "+1h"]);
    let who = run("admin", by_certificate, ["whoami", "--json"]).await.json();
    assert_eq!(who["certificate"]["principal"], "admin", "{who}");
    refused("admin", by_certificate).await;
    assert_eq!(run("admin", by_key, ["admin", "sessions"]).await.code, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_kicked_is_told_and_nobody_else_is_touched() {
    let (site, config) = site();
    let gateway = site.start(config).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let account = site.run(&gateway, "gateway", &["whoami", "--json"]).await.json()["account"].clone();
    for by_account in [true, false] {
        let visitor = visitor(&site, &gateway).await;
        let sessions = admin_json(&site, &gateway, &["sessions"]).await;
        let all = sessions["sessions"].as_array().unwrap();
        let theirs = all.iter().find(|each| each["login"] == "dev1").unwrap()["session"].as_str().unwrap();
        let whom = if by_account { &account.as_str().unwrap()[..12] } else { theirs };
        assert_eq!(admin_json(&site, &gateway, &["kick", whom]).await["kicked"], serde_json::json!([theirs]));
        let ran: Ran = tokio::time::timeout(HANG, visitor.wait_with_output()).await.unwrap().unwrap().into();
        assert_eq!((ran.code, ran.stderr.contains("an administrator ended this")), (255, true), "{ran:?}");
    }
    gateway.stop().await;
    let log = std::fs::read_to_string(site.dir.path().join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["ended"] == "kicked").count(), 2);
    let kick = lines.iter().find(|line| line["what"].as_str().is_some_and(|what| what.contains("kick"))).unwrap();
    assert_eq!((&kick["kind"], &kick["exit_status"]), (&"admin".into(), &0.into()), "{kick}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_stops_the_gateway_in_good_order_and_its_answer_goes_out_first() {
    let (site, config) = site();
    let gateway = site.start(config).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let visitor = visitor(&site, &gateway).await;
    let refused = admin(&site, &gateway, &["drain"]).await;
    assert_eq!((refused.code, refused.stderr.contains("--yes")), (2, true), "{refused:?}");
    assert_eq!(admin_json(&site, &gateway, &["drain", "--yes"]).await["status"], "draining");
    let ran: Ran = tokio::time::timeout(HANG, visitor.wait_with_output()).await.unwrap().unwrap().into();
    assert!(ran.stderr.contains("the gateway is stopping"), "{ran:?}");
    gateway.ended().await;
    assert_eq!(site.machines.running(), 0, "its boxes are suspended");
}

/// A disk that was set aside before any gateway runs.
async fn set_aside(site: &Site, id: &str) {
    let store = open_store(&Place::ensure(site.dir.path()).unwrap()).unwrap();
    let volume = VolumeRecord {
        id: VolumeId::new(id).unwrap(),
        status: VolumeStatus::Quarantined { why: "it has no record\u{1b}[2J".into() },
        generation: String::new(),
        source: None,
        created_at: Timestamp(1),
        envelope: Envelope::new(),
    };
    let key = Key::new(VolumeRecord::TABLE, id, id);
    store.insert(&key, &serde_json::to_string(&volume).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_is_listed_with_its_reason() {
    let (site, config) = site();
    set_aside(&site, "v-orphan").await;
    let gateway = site.start(config).await;
    let listed = admin_json(&site, &gateway, &["quarantine", "list"]).await;
    assert_eq!(
        (&listed["quarantined"][0]["id"], &listed["quarantined"][0]["what"]),
        (&"v-orphan".into(), &"volume".into())
    );
    let text = admin(&site, &gateway, &["quarantine", "list"]).await.text();
    assert!(text.contains("it has no record\\u{1b}") && !text.contains('\u{1b}'), "{text}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_gets_in_beyond_the_limit_of_connections() {
    let (site, mut config) = site();
    config.limits.connections_per_user = 1;
    let gateway = site.start(config).await;
    assert_eq!(finish(site.ssh_as("admin", &gateway, "gateway", &["spinup", "dev1"])).await.code, 0);
    let mut first = site.ssh_as("admin", &gateway, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
    first.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    assert_eq!(admin_json(&site, &gateway, &["sessions"]).await["sessions"].as_array().unwrap().len(), 2);
    first.kill().await.unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_is_given_to_an_account_or_deleted() {
    let (site, config) = site();
    set_aside(&site, "v-theirs").await;
    set_aside(&site, "v-nobodys").await;
    let gateway = site.start(config).await;
    let account = site.run(&gateway, "gateway", &["whoami", "--json"]).await.json()["account"].clone();
    let account = account.as_str().unwrap();
    // An account that has no box is named by its whole id.
    let begins = format!("{}/back", &account[..12]);
    assert_eq!(admin(&site, &gateway, &["quarantine", "release", "v-theirs", &begins]).await.code, 3);
    let whole = format!("{account}/back");
    let released = admin_json(&site, &gateway, &["quarantine", "release", "v-theirs", &whole]).await;
    assert_eq!((&released["account"], &released["box"]), (&account.into(), &"back".into()), "{released}");
    let listed = site.run(&gateway, "gateway", &["list", "--json"]).await.json();
    assert_eq!((&listed["boxes"][0]["name"], &listed["boxes"][0]["state"]), (&"back".into(), &"detached".into()));
    assert_eq!(admin(&site, &gateway, &["quarantine", "release", "v-theirs", &whole]).await.code, 0, "once more");

    let refused = admin(&site, &gateway, &["quarantine", "delete", "v-nobodys"]).await;
    assert_eq!((refused.code, refused.stderr.contains("--yes")), (2, true), "{refused:?}");
    assert_eq!(admin(&site, &gateway, &["quarantine", "delete", "v-theirs", "--yes"]).await.code, 75, "it is a user's");
    assert_eq!(admin(&site, &gateway, &["quarantine", "delete", "v-none", "--yes"]).await.code, 3);
    let deleted = admin_json(&site, &gateway, &["quarantine", "delete", "v-nobodys", "--yes"]).await;
    assert_eq!(deleted["deleted"], "v-nobodys");
    let limit = Instant::now() + HANG;
    while !admin_json(&site, &gateway, &["quarantine", "list"]).await["quarantined"].as_array().unwrap().is_empty() {
        assert!(Instant::now() < limit, "it is still set aside");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_taken_out_of_use_and_emptied() {
    let (site, config) = site();
    let gateway = site.start(config).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let mut session = visitor(&site, &gateway).await;
    let machine = |listed: &Value, wanted: &dyn Fn(&Value) -> bool| {
        listed["machines"].as_array().unwrap().iter().find(|each| wanted(each)).cloned()
    };
    let listed = admin_json(&site, &gateway, &["machines"]).await;
    let under = machine(&listed, &|each| each["box"].is_string()).unwrap_or_else(|| panic!("{listed}"));
    let seat = under["id"].as_str().unwrap().split('-').next().unwrap().to_owned();
    assert_eq!((&under["status"], under["cordon"].is_null()), (&"claimed".into(), true), "{under}");

    for line in [&["cordon"][..], &["cordon", &seat, "because"], &["uncordon"]] {
        assert_eq!(admin(&site, &gateway, line).await.code, 2, "{line:?}");
    }
    assert_eq!(admin(&site, &gateway, &["cordon", "i99999"]).await.code, 3);
    let cordoned = admin_json(&site, &gateway, &["cordon", &seat, "--why", "noisy"]).await;
    assert_eq!(cordoned["cordon"], serde_json::json!({"drain": false, "why": "noisy"}), "{cordoned}");
    let text = admin(&site, &gateway, &["machines"]).await.text();
    assert!(text.contains("cordoned: noisy"), "{text}");
    assert!(admin_json(&site, &gateway, &["uncordon", &seat]).await["cordon"].is_null());

    assert_eq!(admin(&site, &gateway, &["cordon", &seat, "--drain"]).await.code, 0);
    assert!(session.try_wait().unwrap().is_none(), "who is connected stays");
    session.kill().await.unwrap();
    let listed = async || admin_json(&site, &gateway, &["machines"]).await;
    ask_until("it is emptied and goes", listed, |listed| machine(listed, &|each| each["id"] == under["id"]).is_none())
        .await;
    let events = admin_json(&site, &gateway, &["events"]).await;
    let told = events["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "instance_cordoned").count();
    assert_eq!(told, 3, "{events}");
    assert_eq!(site.run(&gateway, "dev1", &["true"]).await.code, 0, "the box comes up on another");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_rests_when_an_administrator_says_so() {
    let (site, config) = site();
    let gateway = site.start(config).await;
    for line in [&["pause"][..], &["pause", "soon"], &["pause", "25h"]] {
        assert_eq!(admin(&site, &gateway, line).await.code, 2, "{line:?}");
    }
    assert!(admin_json(&site, &gateway, &["pools"]).await["paused"].is_null());
    let paused = admin_json(&site, &gateway, &["pause", "2h", "moving", "house"]).await;
    assert_eq!(paused["paused"]["why"], "moving house", "{paused}");
    for command in ["pools", "plan"] {
        assert_eq!(admin_json(&site, &gateway, &[command]).await["paused"], paused["paused"], "{command}");
        let text = admin(&site, &gateway, &[command]).await.text();
        assert!(text.contains("maintenance rests until") && text.contains("moving house"), "{text}");
    }
    let events = admin_json(&site, &gateway, &["events"]).await;
    let told = |kind: &str| events["events"].as_array().unwrap().iter().any(|event| event["kind"] == kind);
    assert!(told("maintenance_paused"), "{events}");
    assert!(admin_json(&site, &gateway, &["resume"]).await["paused"].is_null());
    assert!(admin_json(&site, &gateway, &["pools"]).await["paused"].is_null());
    gateway.stop().await;
}
