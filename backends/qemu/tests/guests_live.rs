//! Real guests under real QEMU: suspended, resumed, killed, taken over.

mod guests;

use boxpool::{ErrorKind, GuestRuntime, StartedBy, Suspended};
use boxpool_sim::conformance::{COUNTED, COUNTING};
use guests::{Bench, later};

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_goes_on_over_suspend_and_resume_and_the_file_is_there() {
    let bench = Bench::new().await;
    let guest = bench.guest("dev1").await;
    let begun = std::time::Instant::now();
    let started = bench.start(&guest).await;
    eprintln!("first start: {:?} {:?}", begun.elapsed(), started.by);
    assert_eq!(started.by, StartedBy::Resume, "a new box resumes the golden's memory");
    assert_eq!(bench.ssh(&started.endpoint, "hostname"), "dev1");
    let pid = bench.ssh(&started.endpoint, &format!("echo kept > file; {COUNTING}"));

    assert_eq!(bench.qemu.suspend(&later(&guest, 2)).await.unwrap(), Suspended::Saved);
    assert_eq!(bench.pid(&guest.volume), None);
    assert_eq!(bench.qemu.suspend(&later(&guest, 2)).await.unwrap(), Suspended::NotRunning);

    let begun = std::time::Instant::now();
    let started = bench.start(&later(&guest, 3)).await;
    eprintln!("resume: {:?}", begun.elapsed());
    assert_eq!(started.by, StartedBy::Resume);
    let counted = |command: &str| bench.ssh(&started.endpoint, command).parse::<u64>().unwrap();
    let before = counted(COUNTED);
    assert!(before > 1, "the counter was not lost");
    let after = counted(&format!("sleep 1; {COUNTED}"));
    assert!(after > before, "it counts on");
    assert_eq!(bench.ssh(&started.endpoint, "cat file"), "kept");
    assert_eq!(bench.ssh(&started.endpoint, &format!("kill -0 {pid} && echo alive")), "alive", "the same process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_guest_boots_again_with_its_disk() {
    let bench = Bench::new().await;
    let guest = bench.guest("dev2").await;
    let started = bench.start(&guest).await;
    bench.ssh(
        &started.endpoint,
        "echo durable > /root/file; sync; mkdir /root/more; head -c 1000000 /dev/urandom > /root/more/noise",
    );
    bench.kill(&guest.volume);
    let started = bench.start(&later(&guest, 2)).await;
    assert_eq!(started.by, StartedBy::Boot);
    assert_eq!(bench.ssh(&started.endpoint, "cat /root/file; hostname"), "durable\ndev2");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_of_one_snapshot_are_two_machines() {
    let bench = Bench::new().await;
    let (one, two) = (bench.guest("one").await, bench.guest("two").await);
    let (a, b) = (bench.start(&one).await, bench.start(&two).await);
    assert_ne!(a.endpoint.host_key, b.endpoint.host_key);
    for question in ["cat /etc/machine-id", "head -c 32 /dev/urandom | base64", "cat /proc/sys/kernel/random/uuid"] {
        assert_ne!(bench.ssh(&a.endpoint, question), bench.ssh(&b.endpoint, question), "{question}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_epoch_is_refused_and_a_second_start_adopts() {
    let bench = Bench::new().await;
    let guest = bench.guest("dev3").await;
    let first = bench.start(&later(&guest, 5)).await;
    let another = bench.another().await;
    let second = another.start(&later(&guest, 5)).await.unwrap();
    assert_eq!((second.by, second.endpoint), (StartedBy::Adoption, first.endpoint));
    for outcome in [
        another.start(&later(&guest, 4)).await.map(drop),
        another.suspend(&later(&guest, 4)).await.map(drop),
        another.stop(&later(&guest, 4)).await,
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Fenced);
    }
    assert!(bench.pid(&guest.volume).is_some(), "and nothing was changed");
}
