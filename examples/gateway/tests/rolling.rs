//! Gateways are stopped and started again while people work.

#![allow(clippy::unwrap_used)] // a test may

mod harness;

use boxpool_gateway::config::Config;
use boxpool_gateway::duration::Span;
use harness::site::{Site, config};
use harness::{HANG, Ran};
use tokio::io::AsyncReadExt;

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
