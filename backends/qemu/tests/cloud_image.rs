//! A box made of a cloud image: one laid out like Ubuntu's, made here of Debian packages (see `cloud/make-image`).

mod guests;

use boxpool::StartedBy;
use boxpool_qemu::image::{self, CloudImage, Flaw, Image, ImageError, Kind, Phase, PhaseState, Progress, Recipe};
use boxpool_qemu::{GoldenSpec, LocalQemu, QemuOptions};
use guests::{Bench, later};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const MIRROR: &str = "http://deb.debian.org/debian";

/// The disk that stands in for a distribution's: made once, and kept as long as what makes it is the same.
#[expect(clippy::unwrap_used, reason = "a helper of tests is not seen as one")]
fn cloud_image() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud/make-image");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cloud-image");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (disk, made_by) = (folder.join("disk.qcow2"), folder.join("made-by"));
    let text = std::fs::read_to_string(&script).unwrap();
    if disk.exists() && std::fs::read_to_string(&made_by).is_ok_and(|made_by| made_by == text) {
        return disk;
    }
    let mut command = std::process::Command::new("sh");
    let mirror = std::env::var("BOXPOOL_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
    command.arg(&script).args([&mirror, "/usr/share/keyrings/debian-archive-keyring.gpg"]).arg(&folder).arg(&disk);
    let output = command.output().unwrap();
    assert!(output.status.success(), "make-image: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(&made_by, text).unwrap();
    disk
}

fn recipe(image: CloudImage, key: &Path) -> Recipe {
    Recipe { kind: Kind::Cloud(image), disk_bytes: 2 << 30, ..guests::spec(key).recipe }
}

fn at(path: &Path) -> CloudImage {
    CloudImage::new(path.to_str().expect("a path of text"), None).expect("a file")
}

fn silent(_: Progress) {}

fn fresh(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

/// Serves a file over a line that breaks once, after a third of it. Says where, and counts the bytes it was asked for.
#[expect(clippy::unwrap_used, reason = "a helper of tests is not seen as one")]
async fn serve(file: PathBuf, sent: &'static AtomicUsize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/cloud.img", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let content = std::fs::read(file).unwrap();
        let mut cut = Some(content.len() / 3);
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let range = request.lines().find_map(|line| line.strip_prefix("Range: bytes="));
            let from = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
            let (total, body) = (content.len(), &content[from..]);
            let status = match range {
                Some(_) => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}", total - 1),
                None => "200 OK".to_owned(),
            };
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\nETag: \"one\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let body = &body[..cut.take().unwrap_or(length)];
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body).await.unwrap();
            sent.fetch_add(body.len(), Ordering::SeqCst);
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_of_a_fetched_image_is_entered_keeps_its_memory_and_boots_again() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let (file, key, dir) = (cloud_image(), guests::key(), tempfile::tempdir().unwrap());
    let url = serve(file.clone(), &SENT).await;
    let recipe = recipe(CloudImage::new(&url, None).unwrap(), &key);
    let spec = GoldenSpec { recipe, memory_mib: 256, cpus: 1, private_key: key.clone() };
    let qemu = LocalQemu::open(QemuOptions::new(dir.path())).await.unwrap();
    let begun = std::time::Instant::now();
    let tell = |progress: boxpool_qemu::Progress| eprintln!("golden: {}: {}", progress.phase, progress.text);
    let golden = qemu.ensure_golden(&spec, &tell).await.unwrap();
    eprintln!("golden snapshot of a cloud image: {:?}", begun.elapsed());
    assert_eq!(SENT.load(Ordering::SeqCst) as u64, file.metadata().unwrap().len(), "nothing was fetched twice");

    let bench = Bench { qemu, golden, key, dir };
    let guest = bench.guest("cloudy").await;
    let started = bench.start(&guest).await;
    assert_eq!((started.by, started.endpoint.login.as_str()), (StartedBy::Resume, "box"));
    let ask = |command: &str| bench.ssh(&started.endpoint, command);
    assert_eq!(ask("id -un; id -u; hostname; pwd; sudo -n id -u"), "box\n1001\ncloudy\n/home/box\n0");
    assert_eq!(ask("cat /etc/machine-id | wc -c; cat /etc/resolv.conf | head -n 1"), "33\nnameserver 10.0.2.3");
    assert_eq!(ask("ls /cloud-init-ran 2>&1 > /dev/null | wc -l"), "1", "cloud-init has run");
    assert_eq!(ask("uname -r"), ask("ls /lib/modules"), "the kernel is the image's own");
    let size: u64 = ask("df --output=size -B 1M / | tail -n 1").parse().unwrap();
    assert!(size > 1800, "the disk was not made larger: {size} MiB");
    assert_eq!(
        ask("systemctl --failed --no-legend | wc -l; sudo modprobe vfat && grep -c ^vfat /proc/modules"),
        "0\n1"
    );
    ask("echo durable > file; sync");

    bench.kill(&guest.volume);
    let again = later(&guest, 2);
    let started = bench.start(&again).await;
    assert_eq!(started.by, StartedBy::Boot);
    assert_eq!(bench.ssh(&started.endpoint, "cat file; hostname"), "durable\ncloudy");
}

#[tokio::test]
async fn an_interrupted_build_of_a_file_continues_and_the_file_stays_as_it_was() {
    let (file, key, dir) = (cloud_image(), guests::key(), fresh("cloud-interrupted"));
    let before = file.metadata().unwrap().modified().unwrap();
    let recipe = recipe(at(&file), &key);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let stop = Mutex::new(Some(stop));
    let at_the_disk = |progress: Progress| {
        if progress.phase == Phase::Disk
            && let Some(stop) = stop.lock().unwrap().take()
        {
            stop.send(()).unwrap();
        }
    };
    tokio::select! {
        built = image::make(&recipe, &dir, &at_the_disk) => panic!("not interrupted: {built:?}"),
        signal = stopped => signal.unwrap(),
    }
    assert_eq!(Image::open(&dir).unwrap(), None);

    let seen = Mutex::new(Vec::new());
    let note = |progress: Progress| seen.lock().unwrap().push((progress.phase, progress.state));
    let built = image::make(&recipe, &dir, &note).await.unwrap();
    let seen = seen.into_inner().unwrap();
    for phase in [Phase::Packages, Phase::Kernel] {
        assert!(seen.contains(&(phase, PhaseState::Reused)), "{seen:?}");
    }
    assert!(seen.iter().all(|(phase, _)| !matches!(phase, Phase::Image | Phase::Unpack)), "{seen:?}");
    assert_eq!((built.login.as_str(), built.disk_bytes), ("box", 2 << 30));
    assert!(built.kernel_release.starts_with("6.1."), "{}", built.kernel_release);
    assert_eq!(file.metadata().unwrap().modified().unwrap(), before);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn what_cannot_become_a_box_is_refused_with_the_reason() {
    let (file, key, dir) = (cloud_image(), guests::key(), fresh("cloud-refused"));
    let path = file.to_str().unwrap();

    let wrong = CloudImage::new(path, Some(&"0".repeat(64))).unwrap();
    let error = image::make(&recipe(wrong, &key), &dir, &silent).await.unwrap_err();
    assert!(matches!(error, ImageError::Checksum { .. }), "{error}");
    assert!(file.exists(), "a file of the caller's own is never deleted");

    let small = Recipe { disk_bytes: 512 << 20, ..recipe(at(&file), &key) };
    let error = image::make(&small, &dir, &silent).await.unwrap_err();
    assert!(matches!(error, ImageError::Unusable { flaw: Flaw::TooLarge { .. }, .. }), "{error}");

    let page = dir.join("page");
    std::fs::write(&page, "<html>Sign in to the network of this hotel</html>").unwrap();
    let error = image::make(&recipe(at(&page), &key), &dir, &silent).await.unwrap_err();
    assert!(error.to_string().contains("is no disk image but a web page"), "{error}");

    let named = recipe(at(&page), &key);
    std::fs::write(&page, "another").unwrap();
    let error = image::make(&named, &dir, &silent).await.unwrap_err();
    assert!(error.to_string().contains("was changed"), "{error}");

    let nowhere = CloudImage::new("http://127.0.0.1:9/cloud.img", None).unwrap();
    let error = image::make(&recipe(nowhere, &key), &dir, &silent).await.unwrap_err();
    assert!(matches!(error, ImageError::Download { .. }), "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:9/cloud.img"), "{error}");
    assert_eq!(Image::open(&dir).unwrap(), None);
    std::fs::remove_dir_all(dir).unwrap();
}
