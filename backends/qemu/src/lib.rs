//! Boxes as QEMU machines on this host: volumes are qcow2 clones of a golden snapshot, instances are slots, and the guest runtime
//! drives QEMU over QMP.
//!
//! Nothing of it must be installed: QEMU, `mmdebstrap` and a handful of standard programs are used as they are
//! ([`check_up`] says what is there). A QEMU survives the process that started it and is found again by the next one.

mod accel;
mod agent;
mod check_up;
mod golden;
mod host;
mod hosted;
mod hosts;
pub mod image;
mod kept;
mod layout;
mod mac;
mod machine;
mod process;
mod qmp;
mod runtime;
mod saved;
mod send;
mod slots;
#[cfg(feature = "ssh")]
mod ssh_host;
mod volumes;

pub use accel::{Accel, probe};
pub use check_up::{CheckUp, check_up};
pub use golden::{GoldenSpec, Progress};
pub use host::{Command, FileFacts, Host, LocalHost, Lock, Output, Stream};
pub use hosted::{HostedOptions, HostedQemu, prepare_disk};
pub use hosts::Hosts;
pub use image::{CloudImage, ImageError, Kind, Recipe};
pub use mac::{Mac, NoMac};
pub use machine::{Machine, Network};
#[cfg(feature = "ssh")]
pub use ssh_host::{SshAddress, SshHost};

use boxpool::{Error, ErrorKind, Result};
use layout::Layout;
use std::path::PathBuf;
use std::sync::Arc;

/// How boxes are run on this host.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QemuOptions {
    /// Where volumes and snapshots are kept. Made when it is not there.
    pub state_dir: PathBuf,
    /// Where snapshots are kept, when not in the state directory: several of those can share one golden snapshot.
    pub snapshot_dir: Option<PathBuf>,
    /// KVM or TCG; found out by running something when not given.
    pub accel: Option<Accel>,
    /// The user that QEMU runs as when we are root. When there is no such user, QEMU runs as we do.
    pub user: String,
    /// What guests may reach.
    pub network: Network,
    /// So much disk space is always left free.
    pub keep_free_bytes: u64,
}

impl QemuOptions {
    /// Options with the required part given.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            snapshot_dir: None,
            accel: None,
            user: "boxpool".into(),
            network: Network::Isolated,
            keep_free_bytes: 512 << 20,
        }
    }
}

/// QEMU on this host: instance provider, volume provider and guest runtime in one. Cheap to clone.
#[derive(Clone)]
pub struct LocalQemu {
    inner: Arc<Inner>,
}

struct Inner {
    host: Arc<dyn Host>,
    layout: Layout,
    accel: Accel,
    qemu_version: (u32, u32),
    network: Network,
    keep_free_bytes: u64,
    /// User and group that QEMU runs as, when that differs from ours.
    run_as: Option<(u32, u32)>,
}

impl LocalQemu {
    /// Looks at the host and prepares the state directory.
    ///
    /// # Errors
    /// `NotFound` when QEMU is missing, `Unauthorized` when the state directory cannot be written, each with what to do.
    pub async fn open(options: QemuOptions) -> Result<Self> {
        Self::open_on(Arc::new(LocalHost), options).await
    }

    /// The same on another host. The state directory is on that host.
    ///
    /// # Errors
    /// As [`LocalQemu::open`].
    pub async fn open_on(host: Arc<dyn Host>, options: QemuOptions) -> Result<Self> {
        let state = options.state_dir;
        if !state.is_absolute() {
            let detail = "the state directory must be given as an absolute path";
            return Err(Error::new(ErrorKind::Invalid, "open state directory", state.display()).with_detail(detail));
        }
        let qemu_version = find_qemu(&*host).await?;
        let user = user_to_run_as(&*host, &options.user).await?;
        let layout = Layout::new(state.clone(), options.snapshot_dir);
        if !layout.run.starts_with(&state) {
            make_own(&*host, &layout.run).await?;
        }
        // Also those of an older version, which let everybody pass through.
        let private = match user {
            Some((_, group)) => Command::new("install").args(["-d", "-m", "0710", "-g", &group.to_string()]),
            None => Command::new("install").args(["-d", "-m", "0700"]),
        };
        for folder in [state.clone(), layout.volumes(), layout.slots(), layout.run.clone()] {
            install(&*host, private.clone().arg(&folder), &state).await?;
        }
        // Nobody but us reads them: a box's disk is copied from there.
        install(&*host, Command::new("install").args(["-d", "-m", "0700"]).arg(layout.kept()), &state).await?;
        // They may lie, or lead, outside, and serve other state directories too, whose QEMU runs as another user. Those inside are
        // behind the state directory's own mode.
        let snapshots = layout.snapshots();
        if snapshots.starts_with(&state) || host.look(&snapshots).await?.is_none() {
            let mode = if user.is_some() { "0711" } else { "0700" };
            install(&*host, Command::new("install").args(["-d", "-m", mode]).arg(&snapshots), &snapshots).await?;
        }
        let accel = match options.accel {
            Some(accel) => accel,
            None => accel::remembered_probe(&*host, &layout.run).await?,
        };
        let run_as = match user {
            Some(user) => can_reach(&*host, user, &layout).await?.then_some(user),
            None => None,
        };
        let inner = Inner {
            host,
            layout,
            accel,
            qemu_version,
            network: options.network,
            keep_free_bytes: options.keep_free_bytes,
            run_as,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What executes the guests.
    #[must_use]
    pub fn accel(&self) -> Accel {
        self.inner.accel
    }

    /// Whether QEMU runs as a user of its own and not as we do.
    #[must_use]
    pub fn runs_unprivileged(&self) -> bool {
        self.inner.run_as.is_some()
    }
}

/// The version of the QEMU on a host.
///
/// # Errors
/// `NotFound` when there is none, with the packages to install; `Permanent` when it is too old.
pub async fn find_qemu(host: &dyn Host) -> Result<(u32, u32)> {
    machine::qemu_version(host).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "find QEMU", "qemu-system-x86_64")
            .with_detail("QEMU is missing; install the packages qemu-system-x86 and qemu-utils"),
        _ => error,
    })
}

/// The ids of the user for QEMU: only when we are root and there is such a user.
async fn user_to_run_as(host: &dyn Host, user: &str) -> Result<Option<(u32, u32)>> {
    let id = |flag: &'static str, of: Option<&str>| {
        let command = Command::new("id").arg(flag).args(of);
        async move {
            let output = host.run(command).await?;
            Ok::<_, Error>(output.stdout.trim().parse::<u32>().ok().filter(|_| output.success))
        }
    };
    if id("-u", None).await? != Some(0) || user.is_empty() || user.starts_with('-') {
        return Ok(None);
    }
    let (uid, gid) = (id("-u", Some(user)).await?, id("-g", Some(user)).await?);
    Ok(uid.zip(gid).filter(|(uid, _)| *uid != 0))
}

/// Runs what makes one of our folders, or gives it its mode.
async fn install(host: &dyn Host, command: Command, place: &std::path::Path) -> Result<()> {
    let made = host.run(command).await?;
    if made.success {
        return Ok(());
    }
    let detail = format!("the state directory cannot be used: {}", host::last_of(&made.stderr));
    Err(Error::new(ErrorKind::Unauthorized, "open state directory", place.display()).with_detail(detail))
}

/// Makes a run directory in a place where everybody may write. One that is there is left as it is, and refused unless it is
/// a folder of our own: whoever made it could put sockets of theirs in there.
async fn make_own(host: &dyn Host, run: &std::path::Path) -> Result<()> {
    install(host, Command::new("mkdir").args(["-p", "-m", "0700"]).arg(run), run).await?;
    let us = host.run(Command::new("id").arg("-u")).await?.stdout;
    let find = Command::new("find").arg(run).args(["-maxdepth", "0", "-type", "d", "-uid", us.trim()]);
    let found = host.run(find).await?;
    if found.success && !found.stdout.trim().is_empty() {
        return Ok(());
    }
    let detail =
        "it exists and belongs to somebody else; use a state directory with a shorter path, or have it removed";
    Err(Error::new(ErrorKind::Unauthorized, "open run directory", run.display()).with_detail(detail))
}

/// Whether that user can pass through to the volumes, their sockets and the snapshots.
async fn can_reach(host: &dyn Host, (uid, gid): (u32, u32), layout: &Layout) -> Result<bool> {
    let mut reached = true;
    for folder in [layout.volumes(), layout.run.clone(), layout.snapshots()] {
        let reach = Command::new("setpriv")
            .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()])
            .args(["test", "-x"])
            .arg(folder);
        reached &= host.run(reach).await?.success;
    }
    if !reached {
        tracing::warn!(uid, state = %layout.state.display(), "QEMU's own user cannot reach the state directory, so QEMU runs as root; keep the state where others may pass through");
    }
    Ok(reached)
}
