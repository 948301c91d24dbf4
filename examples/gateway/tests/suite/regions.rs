//! Several regions behind one gateway, each with machines and records of its own.

use crate::harness::site::{Running, Site, config};
use crate::harness::web::{curl, value};
use crate::harness::{HANG, ask_until, free_port};
use boxpool::Region;
use boxpool_gateway::config::Config;
use boxpool_gateway::region_config::RegionConfig;
use serde_json::Value;
use std::collections::BTreeMap;

fn regions(names: &[&str]) -> Config {
    let region = |name: &&str| RegionConfig {
        name: Region::new(*name).unwrap(),
        dir: None,
        slots: None,
        azure: BTreeMap::new(),
    };
    Config { region: names.iter().map(region).collect(), ..config() }
}

async fn listed(site: &Site, gateway: &Running) -> Vec<(String, Value)> {
    let all = site.run(gateway, "gateway", &["list", "--json"]).await.json();
    let boxes = all["boxes"].as_array().unwrap().iter();
    boxes.map(|each| (each["name"].as_str().unwrap().to_owned(), each["region"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_made_in_one_region_is_moved_to_another_with_its_disk() {
    let site = Site::new();
    let gateway = site.start(regions(&["a", "b"])).await;
    let run = async |login: &str, args: &[&str]| site.run(&gateway, login, args).await;
    let made = run("gateway", &["spinup", "dev1", "--region", "b"]).await;
    assert!(made.text().contains("dev1 is ready in b"), "{made:?}");
    assert_eq!(run("gateway", &["spinup", "dev2", "--json"]).await.json()["region"], "a");
    assert_eq!(listed(&site, &gateway).await, [("dev1".into(), "b".into()), ("dev2".into(), "a".into())]);
    let ran = run("dev1", &["echo kept > $BOXHOME/file; echo $BOXHOME"]).await;
    assert!(ran.text().contains("/region-b/"), "{ran:?}");

    let asked = run("gateway", &["move", "dev1", "a"]).await;
    assert!(asked.code == 2 && asked.stderr.contains("move dev1 a --yes"), "{asked:?}");
    let moved = run("gateway", &["move", "dev1", "a", "--yes"]).await;
    assert!(moved.code == 0 && moved.text().contains("dev1 lives in a now"), "{moved:?}");
    assert!(moved.stderr.contains("boxpool: shutting the box down"), "{moved:?}");
    let ran = run("dev1", &["cat $BOXHOME/file; echo $BOXHOME"]).await;
    assert!(ran.text().starts_with("kept\n") && !ran.text().contains("region-b"), "{ran:?}");

    assert_eq!(listed(&site, &gateway).await, [("dev1".into(), "a".into()), ("dev2".into(), "a".into())]);
    assert_eq!(run("gateway", &["show", "dev1", "--json"]).await.json()["region"], "a");
    let again = run("gateway", &["move", "dev1", "a", "--yes"]).await;
    assert!(again.code == 0 && again.text().contains("already"), "{again:?}");
    let told = run("gateway", &["events", "dev1"]).await;
    let parts = ["box_created", "from b", "it lives in another region now"];
    assert!(parts.iter().all(|part| told.text().contains(part)), "{told:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_region_that_is_not_there_is_refused_in_words() {
    let site = Site::new();
    let gateway = site.start(regions(&["a", "b"])).await;
    let run = async |args: &[&str]| site.run(&gateway, "gateway", args).await;
    assert_eq!(run(&["spinup", "dev1"]).await.code, 0);
    for (args, code, part) in [
        (&["spinup", "dev2", "--region", "c"][..], 2, "there are a, b"),
        (&["move", "dev1", "c", "--yes"], 2, "there are a, b"),
        (&["move", "dev3", "b", "--yes"], 3, "no box named"),
        (&["spinup", "dev1", "--region", "b"], 1, "already"),
    ] {
        let ran = run(args).await;
        assert!(ran.code == code && ran.stderr.contains(part), "{args:?}: {ran:?}");
    }
    assert_eq!(listed(&site, &gateway).await, [("dev1".into(), "a".into())]);
    gateway.stop().await;

    let alone = site.start(config()).await;
    let refused = site.run(&alone, "gateway", &["move", "dev1", "b", "--yes"]).await;
    assert!(refused.code == 2 && refused.stderr.contains("one region only"), "{refused:?}");
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_boxes_gets_regions_by_listing_them() {
    let site = Site::new();
    let before = site.start(config()).await;
    assert_eq!(site.run(&before, "gateway", &["spinup", "dev1"]).await.code, 0);
    assert_eq!(site.run(&before, "dev1", &["echo kept > $BOXHOME/file"]).await.code, 0);
    before.stop().await;

    let gateway = site.start(regions(&["a", "b"])).await;
    assert_eq!(site.run(&gateway, "dev1", &["cat $BOXHOME/file"]).await.text(), "kept\n", "at once");
    assert_eq!(listed(&site, &gateway).await, [("dev1".into(), "a".into())]);
    let taken = site.run(&gateway, "gateway", &["spinup", "dev1", "--region", "b"]).await;
    assert_eq!(taken.code, 1, "{taken:?}");
    assert_eq!(site.run(&gateway, "gateway", &["move", "dev1", "b", "--yes"]).await.code, 0);
    assert_eq!(site.run(&gateway, "dev1", &["cat $BOXHOME/file"]).await.text(), "kept\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_copies_and_names_are_one_user_s_in_all_regions() {
    let site = Site::new();
    let gateway = site.start(regions(&["a", "b"])).await;
    let run = async |args: &[&str]| site.run(&gateway, "gateway", args).await;
    assert_eq!(run(&["spinup", "dev1", "--region", "b"]).await.code, 0);
    assert_eq!(run(&["spinup", "dev2"]).await.code, 0);
    assert_eq!(site.run(&gateway, "dev1", &["echo kept > $BOXHOME/file"]).await.code, 0);
    site.until_state(&gateway, "dev1", "parked").await;
    assert_eq!(run(&["snapshot", "create", "dev1", "first", "--json"]).await.json()["region"], "b");
    assert_eq!(run(&["snapshot", "create", "dev2", "first"]).await.code, 1, "it is the name of one in b");
    assert!(run(&["snapshot", "list"]).await.text().contains("of dev1  in b"));
    assert_eq!(run(&["snapshot", "restore", "first", "dev2"]).await.code, 1, "there is a box of that name in a");
    assert_eq!(run(&["snapshot", "restore", "first", "dev3"]).await.code, 0);
    assert_eq!(run(&["duplicate", "dev1", "dev4"]).await.code, 0);
    assert_eq!(run(&["rename", "dev4", "dev2"]).await.code, 1);
    assert_eq!(run(&["rename", "dev4", "dev5"]).await.code, 0);
    let all = listed(&site, &gateway).await;
    let wanted = [("dev1", "b"), ("dev2", "a"), ("dev3", "b"), ("dev5", "b")];
    assert_eq!(all, wanted.map(|(name, region)| (name.to_owned(), region.into())));
    assert_eq!(site.run(&gateway, "dev3", &["cat $BOXHOME/file"]).await.text(), "kept\n");
    assert_eq!(run(&["snapshot", "delete", "first", "--yes"]).await.code, 0);
    assert_eq!(run(&["delete", "dev1", "--yes"]).await.code, 0);
    assert_eq!(run(&["spinup", "dev1"]).await.code, 0);
    tokio::time::timeout(HANG, gateway.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_region_has_gauges_of_its_own() {
    let (site, port) = (Site::new(), free_port());
    // No other test of this program has regions of these names; all of them share one recorder.
    let mut config = regions(&["east", "west"]);
    config.region[1].slots = Some(3);
    let gateway = site.start(Config { metrics_listen: Some(([127, 0, 0, 1], port).into()), ..config }).await;
    site.run(&gateway, "gateway", &["version"]).await; // it serves
    let machines = async || {
        let page = curl(port, "/metrics", &["--fail"]).await.text();
        ["east", "west"].map(|region| value(&page, &format!("boxpool_instances_total{{region=\"{region}\"}}")))
    };
    ask_until("each region has its own", machines, |machines| *machines == [2.0, 3.0]).await;
    gateway.stop().await;
}
