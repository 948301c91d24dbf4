//! Where things are on a host.
//!
//! ```text
//! <state>/                       0710, of QEMU's own group, which must pass through; 0700 where QEMU runs as we do
//!   snapshots/<id>/              0444 files: disk.qcow2 mem state vmlinux initrd.cpio manifest.json
//!   kept/<id>/                   0700: disk.qcow2 snapshot.json, a snapshot of a box
//!   volumes/<id>/                disk.qcow2 mem state saved.json meta.json epoch attached.json lock alive
//!   slots/<id>/                  volume (the id of the volume that is on it) lock
//! <run>/<volume>/                0700: qmp.sock qga.sock pid – a short path, as sockets need
//! ```

use boxpool::{InstanceId, SnapshotId, VolumeId};
use std::path::{Path, PathBuf};

/// A unix socket's path has at most 107 bytes (`sun_path`). A volume's folder and a socket's name take up to 40 of them.
const LONGEST_RUN_DIR: usize = 66;

/// The folders of one state directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
    snapshots: PathBuf,
}

impl Layout {
    /// The layout under an absolute state directory. Every process finds the same one.
    pub(crate) fn new(state: PathBuf, snapshots: Option<PathBuf>) -> Self {
        let beside = state.join("run");
        let run = if beside.as_os_str().len() <= LONGEST_RUN_DIR {
            beside
        } else {
            use sha2::Digest;
            let digest = sha2::Sha256::digest(state.as_os_str().as_encoded_bytes());
            let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            PathBuf::from(format!("/tmp/boxpool-{hex}"))
        };
        let snapshots = snapshots.unwrap_or_else(|| state.join("snapshots"));
        Self { state, run, snapshots }
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.snapshots.clone()
    }
    pub(crate) fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }
    /// Snapshots of boxes.
    pub(crate) fn kept(&self) -> PathBuf {
        self.state.join("kept")
    }
    pub(crate) fn slots(&self) -> PathBuf {
        self.state.join("slots")
    }
    pub(crate) fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots().join(id.as_str())
    }
    pub(crate) fn volume(&self, id: &VolumeId) -> VolumeDir {
        VolumeDir { dir: self.volumes().join(id.as_str()), run: self.run.join(id.as_str()) }
    }
    pub(crate) fn slot(&self, id: &InstanceId) -> PathBuf {
        self.slots().join(id.as_str())
    }
}

/// The files of one volume.
#[derive(Debug, Clone)]
pub(crate) struct VolumeDir {
    pub(crate) dir: PathBuf,
    pub(crate) run: PathBuf,
}

impl VolumeDir {
    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join("disk.qcow2")
    }
    pub(crate) fn mem(&self) -> PathBuf {
        self.dir.join("mem")
    }
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }
    pub(crate) fn saved(&self) -> PathBuf {
        self.dir.join("saved.json")
    }
    pub(crate) fn meta(&self) -> PathBuf {
        self.dir.join("meta.json")
    }
    pub(crate) fn epoch(&self) -> PathBuf {
        self.dir.join("epoch")
    }
    pub(crate) fn attached(&self) -> PathBuf {
        self.dir.join("attached.json")
    }
    pub(crate) fn host_key(&self) -> PathBuf {
        self.dir.join("host_key")
    }
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }
    /// Locked by the volume's QEMU for as long as that lives. Beside the disk and not with the sockets, which may lie
    /// where old files are swept away.
    pub(crate) fn alive(&self) -> PathBuf {
        self.dir.join("alive")
    }
    pub(crate) fn qmp(&self) -> PathBuf {
        self.run.join("qmp.sock")
    }
    pub(crate) fn agent(&self) -> PathBuf {
        self.run.join("qga.sock")
    }
    pub(crate) fn pid(&self) -> PathBuf {
        self.run.join("pid")
    }
}

/// Whether a file name could be an id of ours: what lies beside (locks, partial folders) is passed over.
pub(crate) fn is_plain(name: &Path) -> bool {
    name.to_str().is_some_and(|name| !name.starts_with('.'))
}
