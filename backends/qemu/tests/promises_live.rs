//! What a box may rely on when things are not as they should be: no room, damaged files, two callers at once.
#![allow(clippy::unwrap_used)]

mod guests;

use boxpool::{
    Attach, EndpointAddress, Epoch, ErrorKind, GuestRuntime, GuestStatus, SnapshotId, StartedBy, Suspended, VolumeId,
    VolumeProvider, VolumeSource, VolumeSpec,
};
use boxpool_qemu::{LocalQemu, Mac};
use guests::{Bench, later, stranger};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn two_callers_at_once_get_one_guest() {
    let bench = Bench::new().await;
    let guest = bench.guest("twice").await;
    let (one, two) = (bench.another().await, bench.another().await);
    let (first, second) = tokio::join!(one.start(&guest), two.start(&guest));
    let (first, second) = (first.unwrap(), second.unwrap());
    let mut by = [first.by, second.by].map(|by| format!("{by:?}"));
    by.sort();
    assert_eq!(by, ["Adoption", "Resume"]);
    assert_eq!(first.endpoint, second.endpoint);
    assert_eq!(bench.pids("/v-").len(), 1);
    assert_eq!(bench.ssh(&second.endpoint, "hostname"), "twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_has_not_said_its_pid_is_not_run_twice() {
    let bench = Bench::new().await;
    let guest = bench.guest("hidden").await;
    let first = bench.start(&guest).await;
    let pid = bench.dir.path().join("run").join(guest.volume.as_str()).join("pid");
    let aside = pid.with_extension("aside");
    // As it is for some moments after QEMU was started.
    std::fs::rename(&pid, &aside).unwrap();
    let (second, ()) = tokio::join!(bench.qemu.start(&guest), async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        std::fs::rename(&aside, &pid).unwrap();
    });
    let second = second.unwrap();
    assert_eq!((second.by, second.endpoint), (StartedBy::Adoption, first.endpoint));
    assert_eq!(bench.pids("/v-").len(), 1);

    // One that never says it: nothing is started, detached or deleted.
    std::fs::rename(&pid, &aside).unwrap();
    assert_eq!(bench.qemu.start(&guest).await.unwrap_err().kind(), ErrorKind::TimedOut);
    let attach = Attach::new(guest.volume.clone(), guest.instance.clone(), Epoch(1));
    assert_eq!(bench.qemu.detach(&attach).await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(bench.pids("/v-").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_killed_right_after_its_first_start_keeps_its_own_keys() {
    let bench = Bench::new().await;
    let guest = bench.guest("newborn").await;
    let first = bench.start(&guest).await;
    bench.kill(&guest.volume);
    let second = bench.start(&later(&guest, 2)).await;
    assert_eq!(second.by, StartedBy::Boot);
    assert_eq!(second.endpoint.host_key, first.endpoint.host_key);
    assert_eq!(bench.ssh(&second.endpoint, "hostname"), "newborn");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_nothing_is_made_started_or_suspended_and_a_running_guest_runs_on() {
    let bench = Bench::new().await;
    let guest = bench.guest("full").await;
    let mut options = bench.options();
    options.keep_free_bytes = u64::MAX / 4;
    let full = LocalQemu::open(options).await.unwrap();

    let id = VolumeId::new("v-00000000000000ff").unwrap();
    let spec = VolumeSpec::new(id.clone(), VolumeSource::Snapshot(bench.golden.clone()));
    let refused = VolumeProvider::ensure(&full, &spec).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoCapacity);
    assert!(refused.to_string().contains("MiB"), "it says how much is missing: {refused}");
    assert!(VolumeProvider::get(&full, &id).await.unwrap().is_none());
    assert!(!bench.file(&id, "disk.qcow2").exists());

    assert_eq!(full.start(&guest).await.unwrap_err().kind(), ErrorKind::NoCapacity);
    assert!(bench.pids("/v-").is_empty());

    let started = bench.start(&guest).await;
    assert_eq!(full.suspend(&guest).await.unwrap_err().kind(), ErrorKind::NoCapacity);
    assert_eq!(bench.qemu.status(&guest).await.unwrap(), GuestStatus::Running(started.endpoint.clone()));
    assert_eq!(bench.ssh(&started.endpoint, "echo alive"), "alive");
    assert_eq!(bench.qemu.suspend(&guest).await.unwrap(), Suspended::Saved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_fails_at_its_end_leaves_the_guest_running() {
    let bench = Bench::new().await;
    let guest = bench.guest("failing").await;
    let started = bench.start(&guest).await;
    bench.ssh(&started.endpoint, "echo kept > /dev/shm/note");
    // Something that the saved state cannot take the place of. The one that was used up still lies there.
    std::fs::remove_file(bench.file(&guest.volume, "state")).unwrap();
    std::fs::create_dir(bench.file(&guest.volume, "state")).unwrap();
    assert!(bench.qemu.suspend(&guest).await.is_err());
    assert_eq!(bench.ssh(&started.endpoint, "cat /dev/shm/note"), "kept");
    std::fs::remove_dir_all(bench.file(&guest.volume, "state")).unwrap();
    assert_eq!(bench.qemu.suspend(&guest).await.unwrap(), Suspended::Saved);
    let started = bench.start(&later(&guest, 2)).await;
    assert_eq!(started.by, StartedBy::Resume);
    assert_eq!(bench.ssh(&started.endpoint, "cat /dev/shm/note"), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_memory_leads_to_a_boot_with_the_disk_whole() {
    let bench = Bench::new().await;
    let guest = bench.guest("damaged").await;
    let started = bench.start(&guest).await;
    bench.ssh(&started.endpoint, "echo durable > /root/file; sync");
    bench.qemu.suspend(&guest).await.unwrap();
    let state = bench.file(&guest.volume, "state");
    let size = usize::try_from(std::fs::metadata(&state).unwrap().len()).unwrap();
    std::fs::write(&state, vec![0x5a; size]).unwrap();
    let started = bench.start(&later(&guest, 2)).await;
    assert_eq!(started.by, StartedBy::Boot);
    assert_eq!(bench.ssh(&started.endpoint, "cat /root/file; hostname"), "durable\ndamaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_memory_is_not_loaded() {
    let bench = Bench::new().await;
    let guest = bench.guest("cut").await;
    bench.start(&guest).await;
    bench.qemu.suspend(&guest).await.unwrap();
    let state = std::fs::OpenOptions::new().write(true).open(bench.file(&guest.volume, "state")).unwrap();
    state.set_len(state.metadata().unwrap().len() / 2).unwrap();
    assert_eq!(bench.start(&later(&guest, 2)).await.by, StartedBy::Boot);
}

/// Changes one byte in the middle of a file, or changes it back. `quietly` leaves the file's time as it was.
fn flip(path: &Path, quietly: bool) {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut permissions = std::fs::metadata(path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(path, permissions).unwrap();
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let (middle, time) = (file.metadata().unwrap().len() / 2, file.metadata().unwrap().modified().unwrap());
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    if quietly {
        file.set_modified(time).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_golden_snapshot_that_was_changed_is_not_used_and_one_that_was_copied_is() {
    let bench = Bench::new().await;
    let mut options = bench.options();
    let shared = options.snapshot_dir.clone().unwrap().join(bench.golden.as_str());
    let own = bench.dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    // Without the files' times, as a backup would bring it back.
    let copied = std::process::Command::new("cp").args(["-r", "--sparse=always"]).arg(&shared).arg(&own).status();
    assert!(copied.unwrap().success());
    options.snapshot_dir = Some(own.clone());
    let qemu = LocalQemu::open(options).await.unwrap();
    let find = async || qemu.ensure_golden(&guests::spec(&bench.key), &|_| {}).await;
    assert_eq!(find().await.unwrap(), bench.golden);
    for (part, quietly) in
        [("vmlinux", true), ("initrd.cpio", true), ("state", true), ("disk.qcow2", false), ("mem", false)]
    {
        let file = own.join(bench.golden.as_str()).join(part);
        flip(&file, quietly);
        let refused = find().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{part}");
        assert!(refused.to_string().contains(part) && refused.to_string().contains("build it anew"), "{refused}");
        flip(&file, quietly);
        assert_eq!(find().await.unwrap(), bench.golden, "{part} is as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_cannot_be_read_stays_shut() {
    let bench = Bench::new().await;
    let guest = bench.guest("fenced").await;
    std::fs::write(bench.file(&guest.volume, "epoch"), "").unwrap();
    assert_eq!(bench.qemu.start(&later(&guest, 9)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(bench.pids("/v-").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_directory_of_somebody_else_is_refused() {
    let bench = Bench::new().await;
    // So long that sockets do not fit beneath it; the run directory is then in /tmp.
    let state = bench.dir.path().join("x".repeat(80));
    let mut options = bench.options();
    options.state_dir = state.clone();
    let opened = LocalQemu::open(options.clone()).await;
    assert!(opened.is_ok());
    let digest = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(state.to_str().unwrap()));
    let run = format!("/tmp/boxpool-{}", digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>());
    std::fs::remove_dir_all(&run).unwrap();
    std::os::unix::fs::symlink(bench.dir.path(), &run).unwrap();
    let refused = LocalQemu::open(options).await.err().map(|error| error.kind());
    std::fs::remove_file(&run).unwrap();
    assert_eq!(refused, Some(ErrorKind::Unauthorized));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, to become another user"]
async fn qemu_runs_as_a_user_of_its_own_and_another_user_of_the_host_finds_no_way_in() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let bench = Bench::new().await;
    // As an older version left them.
    for folder in ["", "volumes", "slots", "run"] {
        let mode = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(bench.dir.path().join(folder), mode).unwrap();
    }
    let mut options = bench.options();
    options.user = "nobody".into();
    let qemu = LocalQemu::open(options).await.unwrap();
    assert!(qemu.runs_unprivileged());
    let guest = bench.guest("lowly").await;
    let started = qemu.start(&guest).await.unwrap();
    assert_eq!(bench.ssh(&started.endpoint, "echo 1 > /dev/shm/note; hostname"), "lowly");
    let owner = std::fs::metadata(format!("/proc/{}", bench.pid(&guest.volume).unwrap())).unwrap().uid();
    assert_ne!(owner, 0);

    let EndpointAddress::Tcp(address) = &started.endpoint.address else { panic!("a TCP address") };
    assert_eq!(stranger::can_open(&bench), Vec::<String>::new());
    assert_eq!(stranger::finds_box_at(&started.endpoint), [address.port()], "its SSH server, and no other way to it");
    for login in ["root", "user", "lowly"] {
        let told = stranger::is_told(&started.endpoint, login);
        assert!(told.contains("Permission denied (publickey)"), "{login}: {told}");
    }

    assert_eq!(qemu.suspend(&guest).await.unwrap(), Suspended::Saved);
    let started = qemu.start(&later(&guest, 2)).await.unwrap();
    assert_eq!(started.by, StartedBy::Resume);
    assert_eq!(bench.ssh(&started.endpoint, "cat /dev/shm/note"), "1");
    bench.kill(&guest.volume);
    let started = qemu.start(&later(&guest, 3)).await.unwrap();
    assert_eq!(started.by, StartedBy::Boot);
    assert_eq!(bench.ssh(&started.endpoint, "hostname"), "lowly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_box_has_its_disk_as_it_was_and_is_another_machine() {
    let bench = Bench::new().await;
    let original = bench.guest("original").await;
    let first = bench.start(&original).await;
    bench.ssh(&first.endpoint, "echo old > /root/file; echo held > /dev/shm/note; sync");
    let its_machine = bench.ssh(&first.endpoint, "cat /etc/machine-id");
    let snapshot = SnapshotId::new("of-box-live").unwrap();
    let refused = bench.qemu.snapshot(&original.volume, &snapshot).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy, "its guest runs");
    bench.qemu.suspend(&original).await.unwrap();
    assert!(bench.qemu.snapshot(&original.volume, &snapshot).await.unwrap().ready);

    let again = bench.start(&later(&original, 2)).await;
    assert_eq!(again.by, StartedBy::Resume, "the original is as it was");
    bench.ssh(&again.endpoint, "echo new > /root/file; sync");
    let mut copy = bench.guest("copy").await;
    bench.qemu.detach(&Attach::new(copy.volume.clone(), copy.instance.clone(), Epoch(1))).await.unwrap();
    copy.volume = VolumeId::new("v-00000000000000cc").unwrap();
    let spec = VolumeSpec::new(copy.volume.clone(), VolumeSource::Snapshot(snapshot.clone()));
    VolumeProvider::ensure(&bench.qemu, &spec).await.unwrap();
    bench.qemu.attach(&Attach::new(copy.volume.clone(), copy.instance.clone(), Epoch(1))).await.unwrap();
    bench.qemu.delete_snapshot(&snapshot).await.unwrap();
    let copied = bench.start(&copy).await;

    assert_eq!(copied.by, StartedBy::Boot);
    assert_ne!(copied.endpoint.host_key, again.endpoint.host_key);
    // With its own host key and no other: the client checks it.
    assert_eq!(bench.ssh(&copied.endpoint, "cat /root/file; hostname; ls /dev/shm"), "old\ncopy");
    assert_ne!(bench.ssh(&copied.endpoint, "cat /etc/machine-id"), its_machine);
    let mac_of = |endpoint: &boxpool::Endpoint| bench.ssh(endpoint, "cat /sys/class/net/e*/address");
    let mac = mac_of(&copied.endpoint);
    assert_eq!(mac, Mac::of(&copy.volume).to_string(), "a card of its own");
    assert_eq!(mac_of(&again.endpoint), Mac::GOLDEN.to_string(), "what resumed the golden's memory has the golden's");
    assert_eq!(
        bench.ssh(&again.endpoint, "cat /root/file /dev/shm/note; hostname; cat /etc/machine-id"),
        format!("new\nheld\noriginal\n{its_machine}")
    );
    bench.qemu.suspend(&copy).await.unwrap();
    let back = bench.start(&later(&copy, 2)).await;
    assert_eq!((back.by, &back.endpoint.host_key), (StartedBy::Resume, &copied.endpoint.host_key));
    assert_eq!(mac_of(&back.endpoint), mac, "and keeps it");
}
