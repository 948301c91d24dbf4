//! Gateways are stopped and started again while people work.

use crate::harness::site::{Running, Site, config};
use crate::harness::{HANG, Ran};
use boxpool_gateway::config::Config;
use boxpool_gateway::duration::Span;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Child;

/// Who removes a key ends what it has open, here and at another gateway; what other keys have open stays.
#[tokio::test(flavor = "multi_thread")]
async fn removing_a_key_ends_its_connections_at_every_gateway_and_tells_why() {
    let site = Site::new();
    let (here, there) = (site.start(config()).await, site.start(config()).await);
    assert_eq!(site.run(&here, "gateway", &["spinup", "dev1"]).await.code, 0);
    site.until_gateways(&there, 2).await;
    crate::harness::make_key(site.dir.path(), "work");
    let work = std::fs::read_to_string(site.dir.path().join("work.pub")).unwrap();
    assert_eq!(site.run(&here, "gateway", &["key", "add", "work", work.trim()]).await.code, 0);
    let inside = async |key: &str, gateway: &Running| {
        let mut inside = site.ssh_as(key, gateway, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
        inside.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
        inside
    };
    let (mut mine_here, mut mine_there) = (inside("id", &here).await, inside("id", &there).await);
    let (near, far) = (inside("work", &here).await, inside("work", &there).await);

    let removed = site.run(&here, "gateway", &["key", "remove", "work", "--json"]).await.json();
    assert_eq!(removed["ended"], 1, "{removed}");
    let sent_away = async |client: Child, within| {
        let ran: Ran = tokio::time::timeout(within, client.wait_with_output()).await.expect("it ends").unwrap().into();
        assert!(ran.code == 255 && ran.stderr.contains("was removed from your account"), "{ran:?}");
    };
    sent_away(near, Duration::from_secs(4)).await;
    sent_away(far, Duration::from_secs(10)).await;
    assert!(mine_here.try_wait().unwrap().is_none() && mine_there.try_wait().unwrap().is_none());

    // The key that asks hears the answer, and what else it has open ends.
    assert_eq!(site.run(&here, "gateway", &["key", "add", "work", work.trim()]).await.code, 0);
    let removed = site.run(&here, "gateway", &["key", "remove", "first", "--yes", "--json"]).await.json();
    assert_eq!((&removed["ended"], &removed["in_use"]), (&1.into(), &true.into()));
    sent_away(mine_here, Duration::from_secs(4)).await;
    sent_away(mine_there, Duration::from_secs(10)).await;
    here.stop().await;
    there.stop().await;
}

/// One after the other stops while somebody is in a box through it. Who is sent away reconnects at once, through the other
/// one, into their box: no connect is refused.
#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_are_restarted_in_turn_and_nobody_waits_longer_than_a_reconnect() {
    let site = Site::new();
    let config = Config { connect_deadline: Span::seconds(20), ..config() };
    let (mut leaving, mut staying) = (site.start(config.clone()).await, site.start(config.clone()).await);
    assert_eq!(site.run(&leaving, "gateway", &["spinup", "dev1"]).await.code, 0);
    site.until_gateways(&staying, 2).await;
    for round in ["a", "b"] {
        let mut inside = site.ssh(&leaving, "dev1", &["echo there; sleep 60"]).spawn().unwrap();
        inside.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
        leaving.begin_stop();
        let sent_away = tokio::time::timeout(HANG, inside.wait_with_output());
        let note = [&*format!("echo {round} >> $BOXHOME/rounds; cat $BOXHOME/rounds")];
        let again = site.run(&staying, "dev1", &note);
        let (sent_away, again) = tokio::join!(sent_away, again);
        let sent_away: Ran = sent_away.unwrap().unwrap().into();
        assert!(sent_away.code == 255 && sent_away.stderr.contains("the gateway is stopping"), "{sent_away:?}");
        assert_eq!(again.code, 0, "{again:?}");
        assert!(again.text().ends_with(&format!("{round}\n")), "{again:?}");
        leaving.ended().await;
        leaving = std::mem::replace(&mut staying, site.start(config.clone()).await);
    }
    assert_eq!(site.run(&staying, "dev1", &["cat $BOXHOME/rounds"]).await.text(), "a\nb\n");
    leaving.stop().await;
    staying.stop().await;
}
