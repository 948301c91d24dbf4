//! What one user may have at once, with the real OpenSSH client.

use crate::harness::{Bench, finish, settings, until};
use boxpool_gateway::server::Settings;
use boxpool_gateway::size::Size;
use tokio::io::AsyncReadExt;

#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_many_boxes_running_is_told_which_and_may_join_those_and_comes_in_when_one_is_left() {
    let bench = Bench::with(Settings { running_boxes_per_user: 1, ..settings() }).await;
    bench.make_key("other");
    bench.spinup("dev1").await;
    bench.spinup("dev2").await;
    let mut first = bench.ssh("dev1", &["echo there; sleep 60"]).spawn().unwrap();
    first.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();

    let refused = bench.run("dev2", &["true"]).await;
    assert_eq!((refused.code, refused.stderr.lines().count()), (75, 1), "{refused:?}");
    assert!(refused.stderr.contains("1 box of yours runs (dev1), which is the most"), "{refused:?}");
    assert_eq!(bench.run("dev1", &["true"]).await.code, 0, "the box that runs can be joined");
    assert_eq!(finish(bench.ssh_as("other", "gateway", &["spinup", "dev3"])).await.code, 0);
    assert_eq!(finish(bench.ssh_as("other", "dev3", &["true"])).await.code, 0, "others are not affected");

    first.kill().await.unwrap();
    until("dev1 is left", || bench.boxes.sessions("dev1") == 0).await;
    assert_eq!(bench.run("dev2", &["echo in"]).await.text(), "in\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_much_disk_makes_no_box_more_and_others_do() {
    let bench = Bench::with(Settings { disk_per_user: Size(15 << 30), ..settings() }).await;
    bench.make_key("other");
    bench.spinup("dev1").await;
    for command in ["spinup dev2", "resize dev1 20G --yes"] {
        let refused = bench.run("gateway", &["--", command]).await;
        assert_eq!((refused.code, refused.stderr.lines().count()), (1, 1), "{refused:?}");
        assert!(refused.stderr.contains("20G of disks, where you may have 15G"), "{refused:?}");
    }
    // Boxes without the operation: what is within the limit gets as far as them.
    let refused = bench.run("gateway", &["--", "resize dev1 12G --yes"]).await;
    assert!(refused.code == 1 && refused.stderr.contains("no such operation"), "{refused:?}");
    assert_eq!(finish(bench.ssh_as("other", "gateway", &["spinup", "dev2"])).await.code, 0);
    assert_eq!(bench.run("gateway", &["delete dev1 --yes"]).await.code, 0);
    bench.spinup("dev2").await;
}
