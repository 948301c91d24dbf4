//! Builds a guest image: `build-image tiny|debian DIRECTORY 'ssh-ed25519 AAAA…'`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use boxpool_qemu::image::{self, Kind, PhaseState, Progress, Recipe};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [kind, dir, key] = arguments.as_slice() else {
        eprintln!("usage: build-image tiny|debian DIRECTORY 'ssh-ed25519 AAAA…'");
        return ExitCode::from(2);
    };
    let kind = match kind.as_str() {
        "tiny" => Kind::Tiny,
        "debian" => Kind::Debian,
        other => {
            eprintln!("build-image: there is no {other}: say tiny or debian");
            return ExitCode::from(2);
        }
    };
    let disk_bytes = 4 << 30;
    let mirror = "http://deb.debian.org/debian".to_owned();
    let recipe = Recipe { kind, disk_bytes, authorized_key: key.clone(), mirror };
    let start = Instant::now();
    let report = |progress: Progress| {
        if progress.state != PhaseState::Running {
            eprintln!("{progress}");
        }
    };
    match image::make(&recipe, Path::new(dir), &report).await {
        Ok(image) => {
            let seconds = start.elapsed().as_secs_f64();
            println!("{} with Linux {} in {seconds:.1} s", image.disk().display(), image.kernel_release);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("build-image: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
