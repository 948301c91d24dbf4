//! The whole gateway on the real pool, with guests that are SSH servers on this machine.

use crate::harness::site::{Site, config};
use crate::harness::{HANG, Ran, ask_until, finish, make_key, until};
use boxpool::{Key, Table};
use boxpool_gateway::backends::open_store;
use boxpool_gateway::config::{Config, Limits};
use boxpool_gateway::duration::Span;
use boxpool_gateway::place::Place;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Child;

#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_made_used_suspended_used_again_and_deleted() {
    let site = Site::new();
    let gateway = site.start(config()).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    assert_eq!(site.state(&gateway, "dev1").await, "detached");
    let ran = site.run(&gateway, "dev1", &["echo $BOXNAME; echo kept > $BOXHOME/file"]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "dev1\n"), "{ran:?}");
    site.until_state(&gateway, "dev1", "parked").await;
    assert_eq!(site.machines.running(), 0);
    assert_eq!(site.run(&gateway, "dev1", &["cat $BOXHOME/file"]).await.text(), "kept\n");
    assert_eq!(site.machines.starts(), 2);
    let ran = site.run(&gateway, "gateway", &["delete dev1 --yes"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(site.run(&gateway, "dev1", &["true"]).await.code, 3);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_how_long_each_part_of_the_last_connect_took() {
    let site = Site::new();
    let gateway = site.start(config()).await;
    let show = async || site.run(&gateway, "gateway", &["show", "dev1", "--json"]).await.json();
    assert_eq!(site.run(&gateway, "gateway", &["show", "dev1"]).await.code, 3);
    assert_eq!(site.run(&gateway, "gateway", &["create", "dev1"]).await.code, 0);
    let fresh = show().await;
    assert!(fresh["brought_up"].is_null() && fresh["last_connect"].is_null(), "{fresh}");
    for from in ["detached", "parked"] {
        let begun = std::time::Instant::now();
        assert_eq!(site.run(&gateway, "dev1", &["true"]).await.code, 0);
        let most = u64::try_from(begun.elapsed().as_millis()).unwrap();
        site.until_state(&gateway, "dev1", "parked").await;
        let shown = show().await;
        let (up, last) = (&shown["brought_up"], &shown["last_connect"]);
        assert_eq!((&shown["name"], &up["from"]), (&"dev1".into(), &from.into()), "{shown}");
        let parts = ["waited_ms", "attached_ms", "started_ms"].map(|part| up[part].as_u64().unwrap());
        assert!(parts.iter().sum::<u64>() <= up["total_ms"].as_u64().unwrap(), "{shown}");
        let parts = ["box_ms", "dial_ms", "start_ms"].map(|part| last[part].as_u64().unwrap());
        assert!((1..=most).contains(&parts.iter().sum()), "{most}: {shown}");
    }
    let text = site.run(&gateway, "gateway", &["show", "dev1"]).await.text();
    for part in ["state         parked", "from being parked: waited", "here: box up in"] {
        assert!(text.contains(part), "{text}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_stopped_started_and_kept_running() {
    let site = Site::new();
    let gateway = site.start(config()).await;
    let ask = async |command: &str| site.run(&gateway, "gateway", &[command, "--json"]).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    assert_eq!(ask("keepalive dev1 on").await.json()["keepalive"], true);
    assert_eq!(ask("start dev1").await.json()["name"], "dev1");
    tokio::time::sleep(Duration::from_millis(500)).await; // longer than the linger
    assert_eq!((site.machines.running(), site.state(&gateway, "dev1").await.as_str()), (1, "running"));
    let stopped = ask("stop dev1").await.json();
    assert_eq!((&stopped["state"], &stopped["keepalive"]), (&"detached".into(), &false.into()));
    assert_eq!(site.machines.running(), 0);
    assert_eq!(ask("start dev1").await.code, 0);
    site.until_state(&gateway, "dev1", "parked").await;
    for command in ["start nosuch", "stop nosuch", "keepalive nosuch on"] {
        assert_eq!(ask(command).await.code, 3, "{command}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_box_is_had_back_and_a_shared_one_lets_another_in() {
    let site = Site::new();
    let gateway = site.start(Config { retention: Span::seconds(3_600), ..config() }).await;
    let ask = async |command: &str| site.run(&gateway, "gateway", &[command, "--json"]).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    assert_eq!(site.run(&gateway, "dev1", &["echo kept > $BOXHOME/file"]).await.code, 0);
    assert!(ask("delete dev1 --yes").await.json()["deleted_until"].is_number());
    assert_eq!(site.run(&gateway, "dev1", &["true"]).await.code, 3);
    let listed = ask("list").await.json();
    assert_eq!((&listed["boxes"], &listed["deleted"][0]["name"]), (&serde_json::json!([]), &"dev1".into()));
    assert_eq!(ask("undelete dev1").await.json()["name"], "dev1");
    assert_eq!(site.run(&gateway, "dev1", &["cat $BOXHOME/file"]).await.text(), "kept\n");
    site.until_state(&gateway, "dev1", "parked").await;
    assert_eq!(ask("usage dev1").await.json()["boxes"][0]["connects"], 2);

    let stranger = "a".repeat(52);
    assert_eq!(ask(&format!("share add dev1 {stranger}")).await.json()["shares"][0]["account"], stranger.as_str());
    assert_eq!(ask(&format!("share remove dev1 {stranger}")).await.json()["shares"], serde_json::json!([]));
    assert_eq!(ask(&format!("connect dev1 --of {stranger} -- true")).await.code, 3);
    assert_eq!(ask("delete dev1 --yes --now").await.json()["deleted_until"], serde_json::Value::Null);
    assert_eq!(ask("undelete dev1").await.code, 3);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_box_is_the_same_box_and_its_old_name_is_free() {
    let site = Site::new();
    let gateway = site.start(Config { retention: Span::seconds(3_600), ..config() }).await;
    let ask = async |command: &str| site.run(&gateway, "gateway", &[command, "--json"]).await;
    for name in ["dev1", "taken", "gone"] {
        assert_eq!(ask(&format!("spinup {name}")).await.code, 0);
    }
    assert_eq!(site.run(&gateway, "gone", &["true"]).await.code, 0);
    assert_eq!(ask("delete gone --yes").await.code, 0);
    assert_eq!(site.run(&gateway, "dev1", &["echo kept > $BOXHOME/file"]).await.code, 0);
    assert_eq!(ask("keepalive dev1 on").await.code, 0);
    assert_eq!(ask("start dev1").await.code, 0);
    let busy = ask("rename dev1 dev2").await;
    assert_eq!(busy.code, 75, "{busy:?}");
    assert!(busy.stderr.contains("stop it first"), "{busy:?}");
    assert_eq!(ask("keepalive dev1 off").await.code, 0);
    site.until_state(&gateway, "dev1", "parked").await;
    for (command, code) in [
        ("rename dev1 dev1", 2),
        ("rename dev1 gateway", 2),
        ("rename dev1 taken", 1),
        ("rename dev1 gone", 1),
        ("rename nosuch dev2", 3),
    ] {
        let ran = ask(command).await;
        assert_eq!(ran.code, code, "{command}: {ran:?}");
    }

    let renamed = ask("rename dev1 dev2").await.json();

    assert_eq!(
        (&renamed["name"], &renamed["state"], &renamed["connects"]),
        (&"dev2".into(), &"detached".into(), &2.into())
    );
    let names: Vec<_> =
        ask("list").await.json()["boxes"].as_array().unwrap().iter().map(|each| each["name"].clone()).collect();
    assert_eq!(names, ["dev2", "taken"]);
    assert_eq!(site.run(&gateway, "dev1", &["true"]).await.code, 3);
    assert_eq!(site.run(&gateway, "dev2", &["cat $BOXHOME/file"]).await.text(), "kept\n");
    let events = ask("events dev2").await.json();
    let kinds: Vec<_> = events["events"].as_array().unwrap().iter().map(|each| each["kind"].clone()).collect();
    assert!(kinds.contains(&"box_created".into()) && kinds.contains(&"box_renamed".into()), "{kinds:?}");
    assert_eq!(ask("spinup dev1").await.code, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_in_by_a_share_alone_and_is_out_when_it_is_removed() {
    let site = Site::new();
    make_key(site.dir.path(), "guest");
    let (here, elsewhere) = (site.start(config()).await, site.start(config()).await);
    let account =
        async |key| finish(site.ssh_as(key, &here, "gateway", &["whoami", "--json"])).await.json()["account"].clone();
    let (owner, guest) = (account("id").await, account("guest").await);
    let (owner, guest) = (owner.as_str().unwrap(), guest.as_str().unwrap());
    let visit = |key, gateway| {
        let line = format!("connect dev1 --of {owner} -- echo in; sleep 600");
        let mut child = site.ssh_as(key, gateway, "gateway", &[&line]).spawn().unwrap();
        async move {
            let mut said = [0; 3];
            let reading = child.stdout.as_mut().unwrap().read_exact(&mut said);
            let read = tokio::time::timeout(HANG, reading).await.expect("it says something or ends");
            (read.is_ok_and(|_| said == *b"in\n"), child)
        }
    };
    let out =
        async |child: Child| tokio::time::timeout(HANG, child.wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(site.run(&here, "gateway", &["spinup", "dev1"]).await.code, 0);
    let (is_in, refused) = visit("guest", &here).await;
    assert_eq!((is_in, out(refused).await.status.code()), (false, Some(3)), "nothing is shared yet");

    assert_eq!(site.run(&here, "gateway", &["share", "add", "dev1", guest]).await.code, 0);
    let (owner_is_in, mut owners) = visit("id", &here).await;
    let (first_is_in, first) = visit("guest", &here).await;
    let (second_is_in, second) = visit("guest", &elsewhere).await;
    assert!(owner_is_in && first_is_in && second_is_in);

    let removed = site.run(&here, "gateway", &["share", "remove", "dev1", guest, "--json"]).await.json();
    assert_eq!((&removed["shares"], &removed["ended"]), (&serde_json::json!([]), &1.into()));
    for left in [out(first).await, out(second).await] {
        assert!(!left.status.success(), "{left:?}");
    }
    assert!(owners.try_wait().unwrap().is_none(), "the owner stays");
    let (is_in, refused) = visit("guest", &elsewhere).await;
    assert_eq!((is_in, out(refused).await.status.code()), (false, Some(3)));
    owners.kill().await.unwrap();
    here.stop().await;
    elsewhere.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_box_is_in_the_list_of_whom_it_is_shared_with_whatever_it_is_called_and_of_nobody_else() {
    let site = Site::new();
    for key in ["guest", "other"] {
        make_key(site.dir.path(), key);
    }
    let gateway = site.start(Config { retention: Span::seconds(3_600), ..config() }).await;
    let ask = async |key, command: &str| finish(site.ssh_as(key, &gateway, "gateway", &[command])).await;
    let owner = ask("id", "whoami --json").await.json()["account"].as_str().unwrap().to_owned();
    let guest = ask("guest", "whoami --json").await.json()["account"].as_str().unwrap().to_owned();
    let shared = async |key| ask(key, "list --json").await.json()["shared"].clone();
    let told = |name, state| serde_json::json!([{"account": owner, "box": name, "state": state}]);
    let none = serde_json::json!([]);
    for name in ["dev1", "mine"] {
        assert_eq!(ask("id", &format!("spinup {name}")).await.code, 0);
    }
    assert_eq!(site.run(&gateway, "dev1", &["true"]).await.code, 0);
    site.until_state(&gateway, "dev1", "parked").await;
    assert_eq!(shared("guest").await, none);

    assert_eq!(ask("id", &format!("share add dev1 {guest}")).await.code, 0);
    assert_eq!(shared("guest").await, told("dev1", "parked"));
    let text = ask("guest", "list").await.text();
    assert!(text.ends_with(&format!("parked  shared with you: connect dev1 --of {owner}\n")), "{text}");
    assert_eq!((shared("other").await, shared("id").await), (none.clone(), none.clone()));

    assert_eq!(ask("id", "rename dev1 dev2").await.code, 0);
    assert_eq!(shared("guest").await, told("dev2", "detached"));
    assert_eq!(ask("id", "delete dev2 --yes").await.code, 0);
    assert_eq!(shared("guest").await, none);
    assert_eq!(ask("id", "undelete dev2").await.code, 0);
    assert_eq!(shared("guest").await, told("dev2", "detached"));

    // As a gateway leaves it that dies before it has noted the share: a connect finds it all the same, and notes it.
    let store = open_store(&Place::ensure(site.dir.path()).unwrap()).unwrap();
    let note = Key::new(Table::new("accounts"), guest.as_str(), "sharers");
    store.delete(&note, &store.get(&note).await.unwrap().unwrap().version).await.unwrap();
    assert_eq!(shared("guest").await, none);
    assert_eq!(ask("guest", &format!("connect dev2 --of {owner} -- true")).await.code, 0);
    ask_until("it is noted", async || store.get(&note).await.unwrap().is_some(), |noted| *noted).await;
    assert_eq!(shared("guest").await[0]["box"], "dev2");

    assert_eq!(ask("id", &format!("share remove dev2 {guest}")).await.code, 0);
    assert_eq!(shared("guest").await, none);
    let left = store.get(&note).await.unwrap().unwrap().value;
    assert!(!left.contains(&owner), "who shares nothing is looked up no more: {left}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_grown_within_the_limit_and_the_box_tells_what_happened_to_it() {
    let site = Site::new();
    let limits = Limits { disk_gib_per_user: Some(25), ..Limits::default() };
    let gateway = site.start(Config { limits, retention: Span::seconds(3_600), ..config() }).await;
    let ask = async |command: &str| site.run(&gateway, "gateway", &[command, "--json"]).await;
    assert_eq!(ask("spinup dev1").await.code, 0);
    assert_eq!(ask("list").await.json()["boxes"][0]["disk_bytes"], 10_u64 << 30);
    assert_eq!(site.run(&gateway, "dev1", &["echo kept > $BOXHOME/file"]).await.code, 0);
    for (command, code, part) in [
        ("resize dev1 20G", 2, "--yes"),
        ("resize dev1 10G --yes", 2, "never shrinks"),
        ("resize dev1 26G --yes", 1, "26G of disks"),
        ("resize nosuch 20G --yes", 3, "no box named"),
        ("events nosuch", 3, "no box named"),
    ] {
        let ran = ask(command).await;
        assert!(ran.code == code && ran.stderr.contains(part), "{command}: {ran:?}");
    }
    let grown = ask("resize dev1 20G --yes").await.json();
    assert_eq!((&grown["state"], &grown["disk_bytes"]), (&"detached".into(), &(20_u64 << 30).into()));
    assert_eq!(site.machines.grown(), [20_u64 << 30]);
    assert_eq!(site.run(&gateway, "dev1", &["cat $BOXHOME/file"]).await.text(), "kept\n");
    site.until_state(&gateway, "dev1", "parked").await;

    // A deleted box does not count until it is had back.
    assert_eq!(ask("spinup dev2").await.code, 1);
    assert_eq!(ask("delete dev1 --yes").await.code, 0);
    assert_eq!(ask("spinup dev2").await.code, 0);
    let refused = ask("undelete dev1").await;
    assert!(refused.code == 1 && refused.stderr.contains("30G of disks"), "{refused:?}");
    assert_eq!(ask("delete dev2 --yes --now").await.code, 0);
    assert_eq!(ask("undelete dev1").await.json()["disk_bytes"], 20_u64 << 30);

    let told = ask("events dev1").await.json();
    let kinds: Vec<_> = told["events"].as_array().unwrap().iter().map(|each| each["kind"].as_str().unwrap()).collect();
    let at = |kind: &str| kinds.iter().position(|each| *each == kind).unwrap_or_else(|| panic!("{kind}: {kinds:?}"));
    assert!(at("box_created") < at("box_resized") && at("box_resized") < at("box_retained"), "{kinds:?}");
    assert_eq!(ask("events dev1 --limit 1").await.json()["events"][0]["kind"], "box_undeleted");
    crate::harness::make_key(site.dir.path(), "other");
    assert_eq!(finish(site.ssh_as("other", &gateway, "gateway", &["events dev1"])).await.code, 3, "it is not theirs");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_copied_by_a_snapshot_or_at_once_and_each_goes_its_own_way() {
    let site = Site::new();
    let limits = Limits { snapshots_per_user: 1, boxes_per_user: 2, ..Limits::default() };
    let gateway = site.start(Config { limits, ..config() }).await;
    let ask = async |command: &str| site.run(&gateway, "gateway", &[command, "--json"]).await;
    let inside = async |name: &str, command: &str| site.run(&gateway, name, &[command]).await.text();
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    inside("dev1", "echo old > $BOXHOME/file").await;
    site.until_state(&gateway, "dev1", "parked").await;

    let kept = ask("snapshot create dev1 monday").await.json();
    assert_eq!((&kept["name"], &kept["of"], &kept["state"]), (&"monday".into(), &"dev1".into(), &"ready".into()));
    let refused = ask("snapshot create dev1").await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(inside("dev1", "echo new > $BOXHOME/file; cat $BOXHOME/file").await, "new\n");
    assert_eq!(ask("snapshot restore monday dev2").await.json()["name"], "dev2");
    assert_eq!(inside("dev2", "cat $BOXHOME/file; echo $BOXNAME").await, "old\ndev2\n");
    assert_eq!(inside("dev1", "cat $BOXHOME/file").await, "new\n");
    assert_eq!(ask("duplicate dev1 dev3").await.code, 1, "two boxes are the most");
    assert_eq!(ask("delete dev1 --yes").await.code, 0);
    assert_eq!(ask("snapshot list dev1").await.json()["snapshots"][0]["name"], "monday");

    assert_eq!(ask("snapshot delete monday").await.code, 2);
    assert_eq!(ask("snapshot delete monday --yes").await.code, 0);
    assert_eq!(ask("snapshot list").await.json()["snapshots"], serde_json::json!([]));
    assert_eq!(ask("duplicate dev2 dev3").await.json()["name"], "dev3");
    assert_eq!(inside("dev3", "cat $BOXHOME/file").await, "old\n");
    for command in [
        "snapshot create nosuch",
        "snapshot restore monday dev4",
        "snapshot delete monday --yes",
        "duplicate nosuch dev4",
    ] {
        assert_eq!(ask(command).await.code, 3, "{command}");
    }
    let taken = ask("duplicate dev2 dev3").await;
    assert_eq!((taken.code, taken.stderr.contains("already_exists")), (1, true), "{taken:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_one_guest_and_it_is_suspended_when_both_have_left() {
    let site = Site::new();
    let (a, b) = (site.start(config()).await, site.start(config()).await);
    assert_eq!(site.run(&a, "gateway", &["spinup", "dev1"]).await.code, 0);
    for gateway in [&a, &b] {
        site.until_gateways(gateway, 2).await;
    }
    let go_on = site.dir.path().join("go-on");
    let wait = format!("echo there; until [ -e {} ]; do sleep 0.05; done", go_on.display());
    let mut sessions = Vec::new();
    for gateway in [&a, &b] {
        let mut session = site.ssh(gateway, "dev1", &[&wait]).spawn().unwrap();
        session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
        sessions.push(session);
    }
    assert_eq!((site.machines.starts(), site.machines.running()), (1, 1));
    sessions.remove(0).kill().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await; // longer than the linger: the other one still holds it
    assert_eq!(site.machines.running(), 1);
    std::fs::write(&go_on, "").unwrap();
    assert!(sessions.remove(0).wait().await.unwrap().success());
    until("it is suspended", || site.machines.running() == 0).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_machine_waiters_are_told_their_place_and_refused_at_the_deadline() {
    let site = Site::new();
    let gateway = site.start(Config { slots: 1, ..config() }).await;
    for name in ["one", "two"] {
        assert_eq!(site.run(&gateway, "gateway", &["spinup", name]).await.code, 0);
    }
    let mut holder = site.ssh(&gateway, "one", &["echo there; sleep 60"]).spawn().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    let mut waiter = site.ssh(&gateway, "two", &[]);
    waiter.arg("-tt");
    let ran = finish(waiter).await;
    assert_eq!(ran.code, 75, "{ran:?}");
    assert!(ran.stderr.contains("you are number 1 in line"), "{ran:?}");
    let ran = site.run(&gateway, "two", &["true"]).await;
    assert_eq!((ran.code, ran.stderr.lines().count()), (75, 1), "{ran:?}");
    holder.kill().await.unwrap();
    assert_eq!(site.run(&gateway, "two", &["echo $BOXNAME"]).await.text(), "two\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_died_is_started_again_by_the_next_connect() {
    let site = Site::new();
    let gateway = site.start(config()).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let mut session = site.ssh(&gateway, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
    session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    site.machines.kill_guests();
    let ran: Ran = tokio::time::timeout(HANG, session.wait_with_output()).await.unwrap().unwrap().into();
    assert_eq!((ran.code, ran.stderr.contains("was lost")), (255, true), "{ran:?}");
    assert_eq!(site.run(&gateway, "dev1", &["echo back"]).await.text(), "back\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_users_suspends_their_boxes_and_the_next_start_has_them() {
    let site = Site::new();
    let gateway = site.start(Config { linger: Span::seconds(60), ..config() }).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    let mut session = site.ssh(&gateway, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
    session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    gateway.stop().await;
    let ran: Ran = tokio::time::timeout(HANG, session.wait_with_output()).await.unwrap().unwrap().into();
    assert_eq!((ran.code, ran.stderr.contains("the gateway is stopping")), (255, true), "{ran:?}");
    assert_eq!(site.machines.running(), 0);
    let gateway = site.start(config()).await;
    assert_eq!(site.state(&gateway, "dev1").await, "parked");
    assert_eq!(site.run(&gateway, "dev1", &["echo again"]).await.text(), "again\n");
    gateway.stop().await;
}
