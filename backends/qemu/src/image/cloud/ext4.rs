//! Reads and changes an ext4 file system in a file with `debugfs`: no mount, no privileges, and owners, modes and attributes
//! of everything else stay as they are.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::error::{ImageError, IoContext};
use super::super::tool::Tool;

/// A file system in a file.
pub(super) struct Ext4 {
    pub(super) file: PathBuf,
    /// An empty directory.
    scratch: PathBuf,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File,
    Dir,
    Other,
}

/// One change. Directories on the way are made; what has the path already is replaced, unless it is a directory.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// `owner` is user and group.
    Write {
        path: String,
        mode: u32,
        owner: (u32, u32),
        content: Vec<u8>,
    },
    Link {
        path: String,
        to: String,
    },
    Dir {
        path: String,
        owner: (u32, u32),
    },
    Remove {
        path: String,
    },
}

impl Change {
    pub(super) fn path(&self) -> &str {
        let (Change::Write { path, .. }
        | Change::Link { path, .. }
        | Change::Dir { path, .. }
        | Change::Remove { path }) = self;
        path
    }
}

impl Ext4 {
    pub(super) fn new(file: PathBuf, scratch: PathBuf) -> Result<Self, ImageError> {
        std::fs::create_dir_all(&scratch).on("create", &scratch)?;
        Ok(Ext4 { file, scratch })
    }

    /// What each of these absolute paths names; those that name nothing are left out. The last part is not followed if it
    /// is a link.
    pub(super) async fn look(
        &self,
        paths: impl IntoIterator<Item = String>,
    ) -> Result<BTreeMap<String, Node>, ImageError> {
        let paths: Vec<String> = paths.into_iter().collect();
        let mut script = String::new();
        for path in &paths {
            let _ = writeln!(script, "stat {}", quoted(path)?);
        }
        let said = self.run(&script, false).await?;
        let mut found = BTreeMap::new();
        for (index, path) in paths.into_iter().enumerate() {
            // Each command is repeated in front of its answer.
            let answer = said.split("debugfs: stat ").nth(index + 1).unwrap_or_default();
            let kind = answer.split_once("Type: ").and_then(|(_, rest)| rest.split_whitespace().next());
            let node = match kind {
                None => continue,
                Some("regular") => Node::File,
                Some("directory") => Node::Dir,
                Some(_) => Node::Other,
            };
            found.insert(path, node);
        }
        Ok(found)
    }

    /// Names in a directory; none if there is no such directory.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<String>, ImageError> {
        let said = self.run(&format!("ls -p {}\n", quoted(path)?), false).await?;
        // /inode/mode/uid/gid/name/size/
        let name = |line: &str| {
            let name = line.strip_prefix('/')?.split('/').nth(4)?;
            (!matches!(name, "" | "." | "..")).then(|| name.to_owned())
        };
        Ok(said.lines().filter_map(name).collect())
    }

    /// Copies files out, into `to`, under their last names. Those that are no files are left out.
    pub(super) async fn take(&self, paths: &[String], to: &Path) -> Result<(), ImageError> {
        std::fs::create_dir_all(to).on("create", to)?;
        let found = self.look(paths.iter().cloned()).await?;
        let mut script = String::new();
        for path in paths.iter().filter(|path| found.get(*path) == Some(&Node::File)) {
            let target = to.join(last(path));
            let _ = writeln!(script, "dump {} {}", quoted(path)?, quoted(&target.to_string_lossy())?);
        }
        let said = self.run(&script, false).await?;
        refuse_complaints(&said)
    }

    /// The content of a file; none if there is no such file.
    pub(super) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let place = self.scratch.join("read");
        self.take(&[path.to_owned()], &place).await?;
        let file = place.join(last(path));
        if !file.exists() {
            return Ok(None);
        }
        let content = std::fs::read(&file).on("read", &file)?;
        std::fs::remove_file(&file).on("delete", &file)?;
        Ok(Some(content))
    }

    /// Makes all these changes, in this order.
    pub(super) async fn change(&self, changes: &[Change]) -> Result<(), ImageError> {
        let mut asked = BTreeSet::new();
        for change in changes {
            asked.extend(parents(change.path()));
            asked.insert(change.path().to_owned());
        }
        let mut found = self.look(asked).await?;
        let mut script = String::new();
        for (index, change) in changes.iter().enumerate() {
            let path = change.path();
            // With the dot also a link to a directory can be entered.
            let (folder, name) = (quoted(&format!("{}/.", folder(path)))?, quoted(last(path))?);
            let exists = found.get(path).copied();
            match (change, exists) {
                (Change::Remove { .. }, None) | (Change::Dir { .. }, Some(_)) => continue,
                (_, Some(Node::Dir)) => {
                    return Err(ImageError::unexpected(
                        path,
                        "is a directory in this image, where a file was expected",
                    ));
                }
                (Change::Remove { .. }, Some(_)) => {
                    let _ = writeln!(script, "rm {}", quoted(path)?);
                    found.remove(path);
                    continue;
                }
                (_, Some(_)) => {
                    let _ = writeln!(script, "rm {}", quoted(path)?);
                }
                (_, None) => {}
            }
            for parent in parents(path) {
                if let Entry::Vacant(absent) = found.entry(parent) {
                    let _ = writeln!(script, "mkdir {}", quoted(absent.key())?);
                    absent.insert(Node::Dir);
                }
            }
            match change {
                Change::Write { mode, owner, content, .. } => {
                    let source = self.scratch.join(format!("change-{index}"));
                    std::fs::write(&source, content).on("write", &source)?;
                    // `write` takes a name and no path.
                    let _ = writeln!(script, "cd {folder}\nwrite {} {name}", quoted(&source.to_string_lossy())?);
                    let _ = writeln!(script, "sif {name} mode 0{:o}", 0o100_000 | mode);
                    let _ = writeln!(script, "sif {name} uid {}\nsif {name} gid {}\ncd /", owner.0, owner.1);
                    found.insert(path.to_owned(), Node::File);
                }
                Change::Link { to, .. } => {
                    let _ = writeln!(script, "cd {folder}\nsymlink {name} {}\ncd /", quoted(to)?);
                    found.insert(path.to_owned(), Node::Other);
                }
                Change::Dir { owner, .. } => {
                    let quoted = quoted(path)?;
                    let _ =
                        writeln!(script, "mkdir {quoted}\nsif {quoted} uid {}\nsif {quoted} gid {}", owner.0, owner.1);
                    found.insert(path.to_owned(), Node::Dir);
                }
                Change::Remove { .. } => {}
            }
        }
        refuse_complaints(&self.run(&script, true).await?)
    }

    /// Repairs what is not in order, such as a journal that was not played back.
    pub(super) async fn check(&self) -> Result<(), ImageError> {
        // 1: all was repaired.
        Tool::new("sh", "dash", "checking the image's file system")
            .args(["-c", "e2fsck -f -y \"$1\" || [ $? -eq 1 ]", "sh"])
            .arg(&self.file)
            .limit(Duration::from_secs(600))
            .run()
            .await
            .map(|_| ())
    }

    /// Makes it `bytes` large.
    pub(super) async fn grow(&self, bytes: u64) -> Result<(), ImageError> {
        let file = std::fs::OpenOptions::new().write(true).open(&self.file).on("open", &self.file)?;
        file.set_len(bytes).on("grow", &self.file)?;
        Tool::new("resize2fs", "e2fsprogs", "growing the image's file system")
            // Here zeros are holes; else every guest would write them in its first minutes.
            .env("RESIZE2FS_FORCE_ITABLE_INIT", "1")
            .arg(&self.file)
            .limit(Duration::from_secs(600))
            .run()
            .await
            .map(|_| ())
    }

    async fn run(&self, script: &str, writes: bool) -> Result<String, ImageError> {
        if script.is_empty() {
            return Ok(String::new());
        }
        let commands = self.scratch.join("commands");
        std::fs::write(&commands, script).on("write", &commands)?;
        let said = Tool::new("sh", "dash", "reading or changing the image's file system")
            // It reports failed commands in words alone, among its answers.
            .args(["-c", "exec debugfs \"$@\" 2>&1", "debugfs"])
            .args(writes.then_some("-w"))
            .arg("-f")
            .args([&commands, &self.file])
            .limit(Duration::from_secs(300))
            .run()
            .await?;
        let said = String::from_utf8_lossy(&said).into_owned();
        // A file system that it cannot open is no failure to it either: it goes on and answers nothing.
        match said.lines().find(|line| line.contains("while trying to open") || line.contains("Filesystem not open")) {
            Some(line) => Err(ImageError::unexpected(
                "the image's file system",
                format!("cannot be opened by this machine's e2fsprogs, which may be too old for it: {line}"),
            )),
            None => Ok(said),
        }
    }
}

/// `Err` with what debugfs complained about, if it did.
fn refuse_complaints(said: &str) -> Result<(), ImageError> {
    let is_fine = |line: &str| {
        line.is_empty()
            || line.starts_with("debugfs: ")
            || line.starts_with("debugfs 1.")
            || line.starts_with("Allocated inode: ")
    };
    match said.lines().find(|line| !is_fine(line)) {
        None => Ok(()),
        Some(line) => Err(ImageError::unexpected("the image's file system", line)),
    }
}

fn parents(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
    ends.map(|at| path[..at].to_owned()).collect()
}

fn folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        None => "",
        Some((folder, _)) => folder,
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// As an argument in a script of debugfs, which knows no escapes.
fn quoted(path: &str) -> Result<String, ImageError> {
    if path.contains(['"', '\n', '\0']) {
        return Err(ImageError::unexpected(path, "has characters in its name that debugfs cannot take"));
    }
    Ok(format!("\"{path}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn made(dir: &Path) -> Ext4 {
        let (tree, file) = (dir.join("tree"), dir.join("fs"));
        std::fs::create_dir_all(tree.join("etc/deep")).unwrap();
        std::fs::write(tree.join("etc/hosts"), "old").unwrap();
        std::os::unix::fs::symlink("../run/resolv.conf", tree.join("etc/resolv.conf")).unwrap();
        std::os::unix::fs::symlink("etc", tree.join("config")).unwrap();
        // More names than one block of a directory holds.
        for index in 0..400 {
            std::fs::write(tree.join(format!("etc/deep/{index}-with-a-long-name-to-fill-the-block")), "x").unwrap();
        }
        let tool = Tool::new("mke2fs", "e2fsprogs", "testing").args(["-q", "-F", "-t", "ext4", "-d"]);
        tool.arg(&tree).arg(&file).arg("16m").run().await.unwrap();
        Ext4::new(file, dir.join("scratch")).unwrap()
    }

    #[tokio::test]
    async fn what_is_changed_is_there_and_the_file_system_is_sound() {
        let dir = tempfile::tempdir().unwrap();
        let fs = made(dir.path()).await;
        let write = |path: &str, mode, owner| Change::Write {
            path: path.into(),
            mode,
            owner: (owner, owner),
            content: b"new".to_vec(),
        };
        fs.change(&[
            write("/etc/hosts", 0o600, 0),
            write("/etc/resolv.conf", 0o644, 0),
            write("/etc/deep/one-more", 0o644, 0),
            write("/config/through-a-link", 0o4755, 0),
            Change::Dir { path: "/home/box".into(), owner: (1000, 1000) },
            write("/home/box/.profile", 0o644, 1000),
            Change::Link { path: "/etc/systemd/system/x.service".into(), to: "/dev/null".into() },
            Change::Remove { path: "/etc/deep/1-with-a-long-name-to-fill-the-block".into() },
            Change::Remove { path: "/etc/absent".into() },
        ])
        .await
        .unwrap();

        for path in ["/etc/hosts", "/etc/resolv.conf", "/etc/deep/one-more", "/etc/through-a-link"] {
            assert_eq!(fs.read(path).await.unwrap().as_deref(), Some(&b"new"[..]), "{path}");
        }
        assert_eq!(fs.read("/etc/deep/1-with-a-long-name-to-fill-the-block").await.unwrap(), None);
        assert_eq!(fs.list("/home/box").await.unwrap(), [".profile"]);
        assert_eq!(fs.list("/no/such").await.unwrap(), [""; 0]);
        let stat = fs.run("stat /home/box\nstat /etc/hosts\nstat /config/through-a-link\n", false).await.unwrap();
        for part in ["User:  1000   Group:  1000", "Mode:  0600", "Mode:  04755"] {
            assert!(stat.contains(part), "{part}: {stat}");
        }
        let sound = Tool::new("e2fsck", "e2fsprogs", "testing").args(["-f", "-n"]).arg(&fs.file).run().await;
        sound.unwrap();

        fs.check().await.unwrap();
        fs.grow(64 << 20).await.unwrap();
        assert_eq!(fs.read("/etc/hosts").await.unwrap().as_deref(), Some(&b"new"[..]));
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_a_directory_and_no_file_system_at_all_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fs = made(dir.path()).await;
        let error = fs.change(&[Change::Link { path: "/etc".into(), to: "x".into() }]).await.unwrap_err();
        assert!(error.to_string().contains("/etc: is a directory"), "{error}");
        let error = fs.change(&[Change::Dir { path: "/etc/hosts/below".into(), owner: (0, 0) }]).await.unwrap_err();
        assert!(matches!(error, ImageError::Unexpected { .. }), "{error}");

        std::fs::write(&fs.file, vec![0; 1 << 20]).unwrap();
        let error = fs.list("/").await.unwrap_err();
        assert!(error.to_string().contains("cannot be opened"), "{error}");
    }
}
