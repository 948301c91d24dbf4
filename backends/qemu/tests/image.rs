//! Building the tiny image: what a build promises about interruption, repetition and refusal.
//! Needs a Debian mirror, and the programs that `run-tests` installs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use boxpool_qemu::image::{self, Image, ImageError, Kind, Phase, PhaseState, Progress, Recipe};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUIXuCchFh0VWBN5REV6SFV8hMyDmEtAVY+MBPNLJqd test";

fn tiny() -> Recipe {
    Recipe {
        kind: Kind::Tiny,
        disk_bytes: 512 << 20,
        authorized_key: KEY.to_owned(),
        mirror: "http://deb.debian.org/debian".to_owned(),
    }
}

fn silent(_: Progress) {}

/// The one image that all tests and runs share; the lock in its directory makes one of them build it.
#[expect(clippy::unwrap_used, reason = "a helper of tests is not seen as one")]
async fn shared() -> Image {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image-tiny").join(tiny().digest());
    image::make(&tiny(), &dir, &silent).await.unwrap()
}

fn fresh(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

#[tokio::test]
async fn a_finished_image_is_found_and_not_built_again() {
    let built = shared().await;
    assert_eq!(built.digest, tiny().digest());
    assert_eq!(built.login, "root");
    assert!(built.kernel_release.starts_with("6.1."), "{}", built.kernel_release);
    assert!(std::fs::read(built.kernel()).unwrap().starts_with(b"\x7fELF"));
    assert!(std::fs::read(built.initrd()).unwrap().starts_with(b"070701"));
    assert!(std::fs::read(built.disk()).unwrap().starts_with(b"QFI\xfb"));

    let files = || [built.kernel(), built.initrd(), built.disk()].map(|file| std::fs::metadata(file).unwrap().ino());
    let before = files();
    assert_eq!(shared().await, built);
    assert_eq!(files(), before, "the same files");
    assert_eq!(Image::open(&built.dir).unwrap(), Some(built));
}

#[tokio::test]
async fn the_image_of_another_recipe_is_left_alone() {
    let built = shared().await;
    let other = Recipe { disk_bytes: 1 << 30, ..tiny() };
    let error = image::make(&other, &built.dir, &silent).await.unwrap_err();
    assert!(matches!(error, ImageError::OtherImage { .. }), "{error}");
    assert_eq!(Image::open(&built.dir).unwrap(), Some(built));
}

#[tokio::test]
async fn an_interrupted_build_is_no_image_and_continues_where_it_was() {
    let dir = fresh("image-interrupted");
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let stop = Mutex::new(Some(stop));
    let at_the_disk = |progress: Progress| {
        if progress.phase == Phase::Disk
            && let Some(stop) = stop.lock().unwrap().take()
        {
            stop.send(()).unwrap();
        }
    };
    let recipe = tiny();
    tokio::select! {
        built = image::make(&recipe, &dir, &at_the_disk) => panic!("not interrupted: {built:?}"),
        signal = stopped => signal.unwrap(),
    }
    assert_eq!(Image::open(&dir).unwrap(), None);
    // As if the process had died in the middle of writing.
    std::fs::write(dir.join("parts/disk-0.qcow2.1.partial"), "half").unwrap();

    let seen = Mutex::new(Vec::new());
    let note = |progress: Progress| seen.lock().unwrap().push((progress.phase, progress.state));
    // A change of the key concerns the disk alone.
    let recipe = Recipe { authorized_key: KEY.replace("HUIXu", "HUIXv"), ..tiny() };
    let built = image::make(&recipe, &dir, &note).await.unwrap();

    let seen = seen.into_inner().unwrap();
    assert!(seen.contains(&(Phase::Packages, PhaseState::Reused)), "{seen:?}");
    assert!(seen.contains(&(Phase::Kernel, PhaseState::Reused)), "{seen:?}");
    assert!(seen.contains(&(Phase::Disk, PhaseState::Finished)), "{seen:?}");
    assert_eq!(built.digest, recipe.digest());
    assert!(!dir.join("parts").exists());

    std::fs::OpenOptions::new().write(true).open(built.disk()).unwrap().set_len(1000).unwrap();
    assert!(matches!(Image::open(&dir).unwrap_err(), ImageError::Unexpected { .. }), "a cut file goes unnoticed");
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_mirror_that_does_not_answer_is_named() {
    let dir = fresh("image-no-mirror");
    let recipe = Recipe { mirror: "http://127.0.0.1:9/debian".to_owned(), ..tiny() };
    let error = image::make(&recipe, &dir, &silent).await.unwrap_err();
    assert!(matches!(error, ImageError::MirrorUnreachable { .. }), "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:9/debian"), "{error}");
    assert_eq!(Image::open(&dir).unwrap(), None);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_recipe_nobody_could_enter_is_refused_before_anything_is_done() {
    let dir = fresh("image-invalid");
    let recipes = [
        Recipe { authorized_key: String::new(), ..tiny() },
        Recipe { authorized_key: "two\nlines of text".to_owned(), ..tiny() },
        Recipe { disk_bytes: 1, ..tiny() },
        Recipe { kind: Kind::Debian, ..tiny() },
        Recipe { mirror: "deb.debian.org".to_owned(), ..tiny() },
    ];
    for recipe in recipes {
        let error = image::make(&recipe, &dir, &silent).await.unwrap_err();
        assert!(matches!(error, ImageError::InvalidRecipe { .. }), "{error}");
    }
    assert!(!dir.exists());
}

#[test]
fn the_digest_follows_everything_but_the_mirror() {
    let digest = tiny().digest();
    assert_eq!(digest.len(), 64);
    assert_eq!(digest, Recipe { mirror: "http://mirror.example/debian".to_owned(), ..tiny() }.digest());
    assert_eq!(digest, Recipe { authorized_key: format!("{KEY} of somebody"), ..tiny() }.digest());
    assert_ne!(digest, Recipe { kind: Kind::Debian, ..tiny() }.digest());
    assert_ne!(digest, Recipe { authorized_key: KEY.replace("HUIXu", "HUIXv"), ..tiny() }.digest());
    assert_ne!(digest, Recipe { disk_bytes: 1 << 30, ..tiny() }.digest());
}
