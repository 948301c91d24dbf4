//! The golden snapshot: what new boxes are copied from. It holds memory, not only a disk, so a new box resumes in a
//! fraction of a second instead of booting.
//!
//! It is built once for a recipe (its id is a digest of the recipe and the machine), by one process at a time (others
//! wait and say so), beside its place, and moved there when it is whole. If the process dies here the next one goes on with the parts that
//! are complete; a half-built snapshot is never used.

use crate::LocalQemu;
use crate::host::{Command, Lock, must};
use crate::image::{self, Image, Recipe};
use crate::layout::VolumeDir;
use crate::mac::Mac;
use crate::machine::Machine;
use crate::qmp::Qmp;
use crate::send;
use boxpool::{Error, ErrorKind, Result, SnapshotId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How a build goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Which part: `wait`, `image`, `unpack`, `packages`, `kernel`, `disk`, `send`, `boot`, `save`, `done`.
    pub phase: &'static str,
    /// What is being done, for people.
    pub text: String,
}

impl Progress {
    pub(crate) fn new(phase: &'static str, text: impl Into<String>) -> Self {
        Self { phase, text: text.into() }
    }
}

/// What a golden snapshot is made from.
#[derive(Debug, Clone)]
pub struct GoldenSpec {
    /// The guest.
    pub recipe: Recipe,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// The private key to `recipe.authorized_key`, as a file: the guest is logged in to once, which warms its SSH server.
    pub private_key: PathBuf,
}

/// What is in a snapshot. Written last: a snapshot without it is not one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) schema: u32,
    pub(crate) machine: Machine,
    pub(crate) login: String,
    /// Size of each file, in bytes.
    pub(crate) sizes: BTreeMap<String, u64>,
    /// SHA-256 of each file. Snapshots of older versions have none.
    #[serde(default)]
    pub(crate) digests: BTreeMap<String, String>,
    /// When each file was written last: one that still has this time is not read through again, unless it is small.
    #[serde(default)]
    pub(crate) written: BTreeMap<String, String>,
}

/// Read through whenever the snapshot is looked at: a few tens of megabytes, 50 ms.
const SMALL_PARTS: [&str; 3] = ["state", "vmlinux", "initrd.cpio"];

const PARTS: [&str; 5] = ["disk.qcow2", "mem", "state", "vmlinux", "initrd.cpio"];
/// Another process may be downloading over a slow line.
const OTHERS_BUILD_LIMIT: Duration = Duration::from_secs(3_600);
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Packages, disk, memory and the copies of a build, for the larger recipe.
const BUILD_ROOM: u64 = 3 << 30;

impl LocalQemu {
    /// The id that a spec's snapshot has on this host.
    ///
    /// # Errors
    /// None that can be expected; the id is made of hex digits.
    pub fn golden_id(&self, spec: &GoldenSpec) -> Result<SnapshotId> {
        let machine = self.machine(spec);
        let shape = serde_json::to_string(&machine)
            .map_err(|error| Error::new(ErrorKind::Invalid, "name golden snapshot", "machine").with_source(error))?;
        let mut digest = Sha256::new();
        digest.update(spec.recipe.digest());
        digest.update(shape);
        let hex: String = digest.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
        SnapshotId::new(format!("golden-{hex}"))
            .map_err(|error| Error::new(ErrorKind::Invalid, "name golden snapshot", hex).with_source(error))
    }

    fn machine(&self, spec: &GoldenSpec) -> Machine {
        Machine {
            machine: Machine::type_for(self.inner.qemu_version).to_owned(),
            accel: self.inner.accel,
            memory_mib: spec.memory_mib,
            cpus: spec.cpus,
            network: self.inner.network,
            mac: Mac::GOLDEN,
        }
    }

    /// Builds the golden snapshot, or finds it. Takes about a minute the first time and milliseconds afterwards. May be called by any number of
    /// processes at once.
    ///
    /// # Errors
    /// As [`build`](crate::image::Recipe)'s parts: a missing program, a mirror that does not answer, a full disk, each with what to do.
    pub async fn ensure_golden(
        &self,
        spec: &GoldenSpec,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<SnapshotId> {
        let id = self.golden_id(spec)?;
        if self.is_whole(&id).await? {
            return Ok(id);
        }
        let _building = self.golden_lock(&id, progress).await?;
        if self.is_whole(&id).await? {
            return Ok(id);
        }
        self.require_room(&self.inner.layout.state, BUILD_ROOM).await?;
        let begun = Instant::now();
        let parts = self.inner.layout.snapshots().join(format!(".{}.parts", spec.recipe.digest()));
        self.make_dir(&parts, "0755").await?;
        image::build(&*self.inner.host, &spec.recipe, &parts, progress).await?;
        self.boot_and_save(spec, &id, &parts, progress).await?;
        self.parts_done(&parts, &id, begun, progress).await?;
        Ok(id)
    }

    /// [`LocalQemu::ensure_golden`] on a host that does not see this machine's files: the image that was made here is sent
    /// there, booted, and saved with its memory as that host's processor has it.
    ///
    /// # Errors
    /// The host's.
    pub(crate) async fn ensure_golden_of(
        &self,
        spec: &GoldenSpec,
        image: &Image,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<SnapshotId> {
        let id = self.golden_id(spec)?;
        let _building = self.golden_lock(&id, progress).await?;
        if self.is_whole(&id).await? {
            return Ok(id);
        }
        let begun = Instant::now();
        let parts = self.inner.layout.snapshots().join(format!(".{}.parts", spec.recipe.digest()));
        self.make_dir(&parts, "0755").await?;
        let host = &*self.inner.host;
        for (file, name) in [(image.disk(), "disk.qcow2"), (image.kernel(), "vmlinux"), (image.initrd(), "initrd.cpio")]
        {
            progress(Progress::new("send", format!("sending {name}")));
            send::send(host, &file, &parts.join(name)).await?;
        }
        let key = send::read(&spec.private_key)?;
        let there = GoldenSpec { private_key: self.inner.layout.run.join("warm_key"), ..spec.clone() };
        host.put(&there.private_key, &key, 0o600).await?;
        let built = self.boot_and_save(&there, &id, &parts, progress).await;
        host.remove(std::slice::from_ref(&there.private_key)).await?;
        built?;
        self.parts_done(&parts, &id, begun, progress).await?;
        Ok(id)
    }

    async fn parts_done(
        &self,
        parts: &Path,
        id: &SnapshotId,
        begun: Instant,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<()> {
        // The parts have done their work; what is left of them is the packages, some hundred megabytes.
        must(&*self.inner.host, "build golden snapshot", Command::new("rm").arg("-rf").arg(parts)).await?;
        progress(Progress::new("done", format!("golden snapshot {id} ready after {} s", begun.elapsed().as_secs())));
        Ok(())
    }

    async fn golden_lock(&self, id: &SnapshotId, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<Box<dyn Lock>> {
        let path = self.inner.layout.snapshots().join(format!(".{id}.lock"));
        let deadline = Instant::now() + OTHERS_BUILD_LIMIT;
        loop {
            match self.inner.host.lock(&path, Duration::from_secs(5)).await {
                Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < deadline => {
                    progress(Progress::new("wait", "another process is building the golden snapshot; waiting for it"));
                }
                answer => return answer,
            }
        }
    }

    /// Whether the snapshot is there with all its parts in their sizes.
    async fn is_whole(&self, id: &SnapshotId) -> Result<bool> {
        let place = self.inner.layout.snapshot(id);
        let manifest: Option<Manifest> = self.load(&place.join("manifest.json")).await?;
        let Some(manifest) = manifest else { return Ok(false) };
        for (name, size) in &manifest.sizes {
            let found = self.size(&place.join(name)).await?;
            if found != Some(*size) {
                let detail = format!(
                    "{name} has {found:?} bytes and not {size}: it was changed or damaged; boxes that are based on it may not start. \
                     Restore {}, or move it away to build it anew",
                    place.display()
                );
                return Err(Error::new(ErrorKind::Corrupt, "verify golden snapshot", id).with_detail(detail));
            }
        }
        let written = self.times(&place, &PARTS).await?;
        let doubtful = |name: &str| SMALL_PARTS.contains(&name) || written.get(name) != manifest.written.get(name);
        let doubtful: Vec<&str> = manifest.digests.keys().map(String::as_str).filter(|name| doubtful(name)).collect();
        for (name, digest) in self.digests(&place, &doubtful).await? {
            if manifest.digests.get(&name) != Some(&digest) {
                let detail = format!(
                    "the content of {name} is not what was built: it was changed or damaged; boxes that are based on it may not \
                     start. Restore {}, or move it away to build it anew",
                    place.display()
                );
                return Err(Error::new(ErrorKind::Corrupt, "verify golden snapshot", id).with_detail(detail));
            }
        }
        Ok(true)
    }

    /// SHA-256 of files in a folder, as hex.
    async fn digests(&self, folder: &Path, names: &[&str]) -> Result<BTreeMap<String, String>> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let files = names.iter().map(|name| folder.join(name));
        let command = Command::new("sha256sum").args(files).limit(Duration::from_secs(600));
        let output = must(&*self.inner.host, "verify golden snapshot", command).await?;
        let digests = output.stdout.lines().filter_map(|line| line.split_whitespace().next());
        Ok(names.iter().map(ToString::to_string).zip(digests.map(str::to_owned)).collect())
    }

    /// When files in a folder were written last, in seconds with fractions.
    async fn times(&self, folder: &Path, names: &[&str]) -> Result<BTreeMap<String, String>> {
        let files = names.iter().map(|name| folder.join(name));
        let output =
            must(&*self.inner.host, "verify golden snapshot", Command::new("stat").args(["-c", "%.9Y"]).args(files))
                .await?;
        Ok(names.iter().map(ToString::to_string).zip(output.stdout.lines().map(str::to_owned)).collect())
    }

    async fn boot_and_save(
        &self,
        spec: &GoldenSpec,
        id: &SnapshotId,
        parts: &Path,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<()> {
        let host = &*self.inner.host;
        let machine = self.machine(spec);
        let work = VolumeDir {
            dir: self.inner.layout.snapshots().join(format!(".{id}.partial")),
            run: self.inner.layout.run.join(id.as_str()),
        };
        // A QEMU of an attempt that was cut short.
        self.end(&work).await?;
        must(host, "build golden snapshot", Command::new("rm").arg("-rf").arg(&work.dir)).await?;
        self.make_dir(&work.dir, "0755").await?;
        let files = ["disk.qcow2", "vmlinux", "initrd.cpio"].map(|name| parts.join(name));
        must(
            host,
            "build golden snapshot",
            Command::new("cp").args(files).arg(&work.dir).limit(Duration::from_secs(300)),
        )
        .await?;
        let memory = Command::new("truncate").args(["-s", &format!("{}M", spec.memory_mib)]).arg(work.mem());
        must(host, "build golden snapshot", memory).await?;

        progress(Progress::new("boot", format!("booting it once ({})", machine.accel)));
        let qmp = self.spawn(&work, &machine, &work.dir, None).await?;
        let outcome = self.warm_and_save(spec, &work, qmp, progress).await;
        self.end(&work).await?;
        outcome?;

        must(host, "build golden snapshot", Command::new("mv").arg(work.dir.join("state.partial")).arg(work.state()))
            .await?;
        host.remove(&[work.alive()]).await?;
        let login = spec.recipe.kind.login().to_owned();
        self.seal(&work.dir, &self.inner.layout.snapshot(id), machine, login).await
    }

    async fn warm_and_save(
        &self,
        spec: &GoldenSpec,
        work: &VolumeDir,
        mut qmp: Qmp,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<()> {
        self.await_ready(work, &mut qmp, BOOT_LIMIT).await?;
        let address = self.port(work, &mut qmp).await?;
        progress(Progress::new("save", "logging in once, and saving its memory"));
        let login = format!("{}@{}", spec.recipe.kind.login(), address.ip());
        // Host key unknown on purpose: every copy gets its own before anybody uses it.
        let warm = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "BatchMode=yes",
            ])
            .args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60", "-p", &address.port().to_string(), "-i"])
            .arg(&spec.private_key)
            .args([login.as_str(), "sync; bash -lic true; echo warm"])
            .limit(Duration::from_secs(120));
        must(&*self.inner.host, "log in to golden guest", warm).await?;
        self.hook(work, "/bin/true", &[], b"").await?;
        qmp.call("stop", Value::Null).await?;
        self.save_state(work, &mut qmp, &work.dir.join("state.partial")).await
    }

    /// Makes the parts read-only and durable, writes the manifest, and moves all to its place.
    async fn seal(&self, work: &Path, place: &Path, machine: Machine, login: String) -> Result<()> {
        let host = &*self.inner.host;
        let files = PARTS.map(|name| work.join(name));
        if self.inner.run_as.is_some() {
            must(host, "seal snapshot", Command::new("chown").arg("0:0").args(&files)).await?;
        }
        must(host, "seal snapshot", Command::new("chmod").arg("0444").args(&files)).await?;
        must(host, "seal snapshot", Command::new("sync").args(&files).limit(Duration::from_secs(300))).await?;
        let mut sizes = BTreeMap::new();
        for name in PARTS {
            sizes.extend(self.size(&work.join(name)).await?.map(|size| (name.to_owned(), size)));
        }
        let (digests, written) = (self.digests(work, &PARTS).await?, self.times(work, &PARTS).await?);
        let manifest = Manifest { schema: 1, machine, login, sizes, digests, written };
        self.save(&work.join("manifest.json"), &manifest).await?;
        must(host, "seal snapshot", Command::new("rm").arg("-rf").arg(place)).await?;
        must(host, "seal snapshot", Command::new("mv").arg("-T").arg(work).arg(place)).await?;
        must(host, "seal snapshot", Command::new("sync").arg(self.inner.layout.snapshots())).await.map(drop)
    }
}
