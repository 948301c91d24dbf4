//! Disks that are copies of other boxes' disks.

use super::*;
use crate::guests::faults::{Fault, FaultyHost, Plan};
use boxpool_qemu::{Accel, Mac};
use serde_json::{Value, json};

const SHUT_DOWN: std::time::Duration = std::time::Duration::from_secs(10);

impl Bench {
    /// A box whose volume is a copy of that one as it is now, on a machine of its own, attached in that epoch.
    async fn copy_of(&self, original: &VolumeId, name: &str, epoch: u64) -> Guest {
        let snapshot = SnapshotId::new(format!("of-box-{}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap();
        assert!(self.cloud.snapshot(original, &snapshot).await.unwrap().ready);
        let (instance, volume) = (self.fresh_instance(), self.fresh_volume());
        InstanceProvider::ensure(&*self.cloud, &InstanceSpec::new(instance.clone(), "1")).await.unwrap();
        let spec = VolumeSpec::new(volume.clone(), VolumeSource::Snapshot(snapshot.clone()));
        VolumeProvider::ensure(&*self.cloud, &spec).await.unwrap();
        self.cloud.delete_snapshot(&snapshot).await.unwrap();
        let owner = guests::owner(name);
        self.attach(&Guest::new(instance, volume, owner, Epoch(epoch)).copied(true)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_copy_of_a_box_has_its_disk_as_it_was_and_is_another_machine() {
    let bench = Bench::new().await;
    let original = bench.guest("original").await;
    let first = bench.qemu.start(&original).await.unwrap();
    bench.run(&first.endpoint, "echo old > ~/file; echo held > /dev/shm/note; sync").await;
    bench.qemu.suspend(&guests::later(&original, 2)).await.unwrap();
    let copy = bench.copy_of(&original.volume, "copy", 3).await;
    let again = bench.qemu.start(&guests::later(&original, 3)).await.unwrap();
    assert_eq!(again.by, boxpool::StartedBy::Resume, "the original is as it was");
    bench.run(&again.endpoint, "echo new > ~/file; sync").await;

    // Neither of the two is enough, and a copy of something else is none of this.
    let device = copy.device.clone().unwrap();
    let not_told = Device(Vm::device(LUN));
    let of_another = Device(format!("{} v-0000000000000bad", Vm::device(LUN)));
    for doubtful in
        [copy.clone().copied(false), copy.clone().on_device(not_told.clone()), copy.clone().on_device(of_another)]
    {
        let error = bench.qemu.start(&doubtful).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(original.volume.as_str()), "{error}");
    }

    let copied = bench.qemu.start(&copy).await.unwrap();
    assert_eq!(copied.by, boxpool::StartedBy::Boot);
    assert_ne!(copied.endpoint.host_key, again.endpoint.host_key);
    let who = "cat ~/file; hostname; ls /dev/shm; cat /sys/class/net/e*/address";
    let mac = Mac::of(&copy.volume);
    assert_eq!(bench.run(&copied.endpoint, who).await, format!("old\ncopy\n{mac}"));
    let golden = Mac::GOLDEN;
    assert_eq!(bench.run(&again.endpoint, who).await, format!("new\noriginal\nnote\n{golden}"));
    let machine_id = "cat /etc/machine-id";
    assert_ne!(bench.run(&copied.endpoint, machine_id).await, bench.run(&again.endpoint, machine_id).await);

    // A volume like any other from now on.
    bench.qemu.suspend(&guests::later(&copy, 4)).await.unwrap();
    let plain = guests::later(&copy, 5).copied(false).on_device(not_told);
    let back = bench.qemu.start(&plain).await.unwrap();
    assert_eq!((back.by, &back.endpoint.host_key), (boxpool::StartedBy::Resume, &copied.endpoint.host_key));
    assert_eq!(device.0, format!("{} {}", Vm::device(LUN), original.volume));
}

/// So many steps of a start do nothing that concerns a copy: the disk is mounted.
const FIRST: u64 = 24;

/// A file system with the parts of a box that this is about.
const BOX: &str = r#"set -e; truncate -s 16M "$1"; mkfs.ext4 -q -m 0 "$1"
mount -o loop "$1" /mnt; mkdir -p "/mnt/volumes/$2"; cd "/mnt/volumes/$2"
echo content >disk.qcow2; echo memory >mem; echo state >state; echo '{"disk_generation":7,"state_bytes":6}' >saved.json
echo 5 >epoch; echo '{"instance":"i1","epoch":5}' >attached.json; echo "$3" >meta.json
[ -z "$4" ] || printf %s "$4" >/mnt/volume
cd /; umount /mnt"#;

/// This machine as somebody's, whose callers die when the plan says so. Its disks are in memory.
struct Here {
    folder: tempfile::TempDir,
    plan: Arc<Plan>,
    copied_from: Vec<VolumeId>,
}

impl Here {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> HostedOptions {
        let mut options = options();
        (options.mount_point, options.memory_dir) = (self.path("mnt"), self.path("memory"));
        // No guest is run, so it need not be found out.
        options.accel = Some(Accel::Tcg);
        options
    }

    fn make(&self, volume: &VolumeId, meta: &Value, plate: &str) {
        let mut made = std::process::Command::new("unshare");
        made.args(["--mount", "--propagation", "private", "sh", "-c", BOX, "sh"]).arg(self.path("original"));
        assert!(made.args([volume.as_str(), &meta.to_string(), plate]).status().unwrap().success());
    }

    fn run(program: &str, args: &[&std::path::Path]) -> String {
        let output = std::process::Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let at = self.path("mnt");
        let _ = std::process::Command::new("umount").arg("-q").arg(at).status();
        if let Ok(device) = std::fs::read_link(self.path("device")) {
            let _ = std::process::Command::new("losetup").arg("-d").arg(device).status();
        }
    }
}

/// With a plan or without.
struct Way(Arc<Here>, Option<Arc<Plan>>);

#[async_trait]
impl Hosts for Way {
    async fn host(&self, _: &InstanceId) -> Result<Arc<dyn Host>> {
        Ok(match &self.1 {
            Some(plan) => Arc::new(FaultyHost::new(plan.clone())),
            None => Arc::new(boxpool_qemu::LocalHost),
        })
    }
    fn copied_from(&self, _: &Device) -> Result<Vec<VolumeId>> {
        Ok(self.0.copied_from.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, for mounts"]
async fn a_copy_is_made_its_own_wherever_the_one_before_died() {
    let meta = json!({
        "schema": 1, "snapshot": "golden-1", "login": "root", "host_key": "ssh-ed25519 THEIRS", "identified": true,
        "disk_generation": 7,
        "machine": { "machine": "pc-q35-7.2", "accel": "tcg", "memory_mib": 192, "cpus": 1, "network": "isolated" },
    });
    let volume = |name: &str| VolumeId::new(name).unwrap();
    let (original, never_started, copy) = (volume("v-1"), volume("v-2"), volume("v-3"));
    let here = Arc::new(Here {
        folder: tempfile::tempdir_in("/dev/shm").unwrap(),
        plan: Plan::new(Fault::Death),
        copied_from: vec![never_started, original.clone()],
    });
    let runtime = |plan| HostedQemu::new(Arc::new(Way(here.clone(), plan)), here.options());
    let (mortal, sound) = (runtime(Some(here.plan.clone())), runtime(None));
    let template =
        Guest::new(InstanceId::new("i1").unwrap(), copy.clone(), guests::owner("copy"), Epoch(5)).copied(true);
    let (mut epoch, mut deaths) = (5, 0);
    // Of one that died in its first start, too: its volume was made, and its plate was not.
    for plate in [original.as_str(), ""] {
        here.make(&original, &meta, plate);
        for steps in FIRST.. {
            vm::copy_disk(&here.path("original"), &here.path("copy"));
            let device = Here::run("losetup", &["--find".as_ref(), "--show".as_ref(), &here.path("copy")]);
            std::os::unix::fs::symlink(&device, here.path("device")).unwrap();
            epoch += 1;
            let guest = guests::later(&template, epoch).on_device(Device(device.clone()));
            here.plan.arm(steps);
            let died = tokio::select! {
                ended = mortal.shut_down(&guest, SHUT_DOWN) => { ended.unwrap(); false }
                () = here.plan.struck() => true,
            };
            here.plan.disarm();
            let at = here.path("mnt");
            // What comes before is any start's.
            assert!(steps > FIRST || at.join("volumes").join(original.as_str()).exists(), "nothing was done yet");
            sound.shut_down(&guest, SHUT_DOWN).await.unwrap();

            Here::run("mount", &[device.as_ref(), &at]);
            let read = |name: &str| std::fs::read_to_string(at.join("volumes").join(copy.as_str()).join(name)).unwrap();
            let names = |folder: &str| vm::names_in(&at.join(folder)).into_iter();
            let last = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            let mut files: Vec<_> = names(&format!("volumes/{copy}")).map(last).collect();
            files.sort_unstable();
            let when = format!("{plate:?}, after {steps} steps");
            assert_eq!(std::fs::read_to_string(at.join("volume")).unwrap(), copy.as_str(), "{when}");
            assert_eq!(names("volumes").map(last).collect::<Vec<_>>(), [copy.as_str()], "{when}");
            let own = ["alive", "disk.qcow2", "epoch", "host_key", "host_key.pub", "lock", "meta.json"];
            assert_eq!(files, own, "{when}");
            assert_eq!((read("disk.qcow2"), read("epoch")), ("content\n".into(), epoch.to_string()), "{when}");
            let now: Value = serde_json::from_str(&read("meta.json")).unwrap();
            let public: Vec<_> = read("host_key.pub").split(' ').take(2).map(str::to_owned).collect();
            let mut wanted = meta.clone();
            (wanted["host_key"], wanted["identified"]) = (public.join(" ").into(), false.into());
            wanted["machine"]["mac"] = Mac::of(&copy).to_string().into();
            wanted["disk_generation"] = now["disk_generation"].clone();
            assert_eq!(now, wanted, "{when}");
            assert!(now["disk_generation"].as_u64() > Some(7), "no saved memory fits");
            Here::run("umount", &[&at]);
            Here::run("losetup", &["-d".as_ref(), device.as_ref()]);
            std::fs::remove_file(here.path("device")).unwrap();
            if !died {
                break;
            }
            deaths += 1;
        }
    }
    println!("{deaths} deaths");
}
