//! Builds a golden snapshot and says how long each part took.
//!
//! `cargo run --release -p boxpool-qemu --example golden -- DIR debian|tiny|ubuntu|IMAGE`, where `IMAGE` is a cloud image's URL or absolute path.

use boxpool_qemu::{CloudImage, GoldenSpec, Kind, LocalQemu, QemuOptions, Recipe};
use std::path::PathBuf;
use std::time::Instant;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("say where: an absolute folder")?);
    let kind = match args.next().as_deref() {
        None | Some("tiny") => Kind::Tiny,
        Some("debian") => Kind::Debian,
        Some("ubuntu") => Kind::Cloud(CloudImage::ubuntu(None)?),
        Some(image) => Kind::Cloud(CloudImage::new(image, None)?),
    };
    let qemu = LocalQemu::open(QemuOptions::new(&folder)).await?;
    let private_key = folder.join("box_key");
    if !private_key.exists() {
        let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
        std::process::Command::new("ssh-keygen").args(keygen).arg(&private_key).status()?;
    }
    let authorized_key = std::fs::read_to_string(private_key.with_extension("pub"))?;
    let mirror = "http://deb.debian.org/debian".to_owned();
    let recipe = Recipe { kind, disk_bytes: 4 << 30, authorized_key, mirror };
    let spec = GoldenSpec { recipe, memory_mib: 512, cpus: 1, private_key };
    let begun = Instant::now();
    let golden = qemu
        .ensure_golden(&spec, &|progress| {
            println!("{:6.1} s  {}: {}", begun.elapsed().as_secs_f64(), progress.phase, progress.text)
        })
        .await?;
    println!("{:6.1} s  {golden}", begun.elapsed().as_secs_f64());
    Ok(())
}
