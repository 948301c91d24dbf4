//! Who keeps a slot when nobody uses their box, as the configuration says.

use crate::harness::site::{Running, Site, config};
use boxpool_gateway::config::Config;
use boxpool_gateway::stock::Parking;

async fn use_box(site: &Site, gateway: &Running, name: &str, command: &str) -> String {
    let used = site.run(gateway, name, &[command]).await.text();
    site.until_state(gateway, name, "parked").await;
    used
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_keeps_its_slot_for_as_long_as_it_is_to_and_no_longer() {
    let site = Site::new();
    let parking = Parking::try_from("keep 1s".to_owned()).unwrap();
    let gateway = site.start(Config { parking, ..config() }).await;
    assert_eq!(site.run(&gateway, "gateway", &["spinup", "dev1"]).await.code, 0);
    use_box(&site, &gateway, "dev1", "echo kept > $BOXHOME/file").await;
    site.until_state(&gateway, "dev1", "detached").await;
    assert_eq!(use_box(&site, &gateway, "dev1", "cat $BOXHOME/file").await, "kept\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_keep_no_more_slots_than_their_share() {
    let site = Site::new();
    let gateway = site.start(Config { slots: 2, parked_percent: 50, ..config() }).await;
    for name in ["dev1", "dev2"] {
        assert_eq!(site.run(&gateway, "gateway", &["spinup", name]).await.code, 0);
        use_box(&site, &gateway, name, "true").await;
    }
    site.until_state(&gateway, "dev1", "detached").await;
    assert_eq!(site.state(&gateway, "dev2").await, "parked", "its user was there last");
    gateway.stop().await;
}
