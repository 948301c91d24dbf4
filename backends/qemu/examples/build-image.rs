//! Builds a guest image: `build-image tiny|debian DIRECTORY 'ssh-ed25519 AAAA…'`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use boxpool_qemu::image::{self, PhaseState, Progress, Recipe, Userland};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [userland, dir, key] = arguments.as_slice() else {
        eprintln!("usage: build-image tiny|debian DIRECTORY 'ssh-ed25519 AAAA…'");
        return ExitCode::from(2);
    };
    let userland = match userland.as_str() {
        "tiny" => Userland::Tiny,
        "debian" => Userland::Debian,
        other => {
            eprintln!("build-image: there is no userland {other}: say tiny or debian");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    let report = |progress: Progress| {
        if progress.state != PhaseState::Running {
            eprintln!("{progress}");
        }
    };
    match image::build(&Recipe::new(userland, key), Path::new(dir), &report).await {
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
