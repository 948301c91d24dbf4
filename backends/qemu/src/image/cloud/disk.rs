//! A disk in a file, qcow2 or raw, of which parts are copied out with `qemu-img`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::super::error::{Flaw, ImageError, IoContext};
use super::super::tool::Tool;
use super::partition::{self, Part};

const HEAD_BYTES: u64 = 1 << 20;

/// The image's file, known to be a disk.
pub(super) struct Disk {
    path: PathBuf,
    is_qcow2: bool,
    /// In bytes, of a qcow2.
    cluster: u64,
    /// As a guest would see it.
    size: u64,
    /// Bytes of it that are not holes.
    pub(super) content: u64,
}

impl Disk {
    /// Looks at the file; `name` is what people call it.
    pub(super) async fn open(path: &Path, name: &str) -> Result<Disk, ImageError> {
        let unusable = |flaw| ImageError::Unusable { image: name.to_owned(), flaw };
        let mut head = Vec::new();
        File::open(path).on("open", path)?.take(HEAD_BYTES).read_to_end(&mut head).on("read", path)?;
        // Told by its content and never guessed by QEMU: a raw disk may begin with anything its maker likes.
        let (is_qcow2, size, cluster) = match read_qcow2(&head).map_err(unusable)? {
            Some((size, cluster)) => (true, size, cluster),
            None => (false, path.metadata().on("inspect", path)?.len(), 0),
        };
        let content = path.metadata().on("inspect", path)?.blocks().saturating_mul(512);
        let mut disk = Disk { path: path.to_owned(), is_qcow2, cluster, size, content };
        if is_qcow2 {
            disk.content = disk.check(name).await?;
        } else if partition::read(&head).is_empty() && !partition::is_ext(&head) {
            return Err(unusable(Flaw::NotAnImage { found: describe(&head).to_owned() }));
        }
        Ok(disk)
    }

    /// A cut-off image reads as zeros where it ends; this finds that.
    async fn check(&self, name: &str) -> Result<u64, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Checked {
            allocated_clusters: Option<u64>,
        }
        let checked = Tool::new("sh", "dash", "checking the image")
            // 3: space is wasted, which harms nobody.
            .args(["-c", "qemu-img check -f qcow2 --output=json \"$1\" || [ $? -eq 3 ]", "sh"])
            .arg(&self.path)
            .limit(Duration::from_secs(600))
            .run()
            .await;
        let text = checked.map_err(|error| match error {
            // What it says is one long object.
            ImageError::Tool { .. } => ImageError::unexpected(name, "is damaged or not whole: fetch it again"),
            other => other,
        })?;
        let checked: Checked = serde_json::from_slice(&text)
            .map_err(|error| ImageError::unexpected("qemu-img check", error.to_string()))?;
        Ok(checked.allocated_clusters.unwrap_or(0).saturating_mul(self.cluster).min(self.size))
    }

    /// What could hold a file system: the partitions, or the whole disk if it has no table.
    pub(super) async fn parts(&self, scratch: &Path) -> Result<Vec<Part>, ImageError> {
        let head = self.read(Part { start: 0, size: self.size.min(HEAD_BYTES) }, scratch).await?;
        let parts = partition::read(&head);
        if parts.is_empty() {
            return Ok(vec![Part { start: 0, size: self.size }]);
        }
        Ok(parts
            .into_iter()
            .filter(|part| part.start.checked_add(part.size).is_some_and(|end| end <= self.size))
            .collect())
    }

    /// The first bytes of a part.
    pub(super) async fn head(&self, part: Part, scratch: &Path) -> Result<Vec<u8>, ImageError> {
        self.read(Part { size: part.size.min(HEAD_BYTES), ..part }, scratch).await
    }

    async fn read(&self, part: Part, scratch: &Path) -> Result<Vec<u8>, ImageError> {
        let file = scratch.join("head");
        self.copy(part, &file).await?;
        std::fs::read(&file).on("read", &file)
    }

    /// Copies a part into a file of its own, holes as holes.
    pub(super) async fn copy(&self, part: Part, to: &Path) -> Result<(), ImageError> {
        // A comma ends an option's value; two of them stand for one.
        let path = self.path.to_string_lossy().replace(',', ",,");
        let file = if self.is_qcow2 {
            format!("file.driver=qcow2,file.file.driver=file,file.file.filename={path}")
        } else {
            format!("file.driver=file,file.filename={path}")
        };
        let Part { start, size } = part;
        Tool::new("qemu-img", "qemu-utils", "taking a part of the image")
            .args(["convert", "-q", "-O", "raw", "--image-opts"])
            .arg(format!("driver=raw,offset={start},size={},{file}", size - size % 512))
            .arg(to)
            .limit(Duration::from_secs(1200))
            .run()
            .await
            .map(|_| ())
    }
}

/// The size of the disk and of a cluster in a qcow2 that begins with `head`; `None` if it is none.
fn read_qcow2(head: &[u8]) -> Result<Option<(u64, u64)>, Flaw> {
    const DATA_FILE: u64 = 1 << 2;
    if !head.starts_with(b"QFI\xfb") {
        return Ok(None);
    }
    let cut = || Flaw::NotAnImage { found: "the beginning of a qcow2".to_owned() };
    let number = |at: usize, length: usize| {
        let bytes = head.get(at..at + length).ok_or_else(cut)?;
        Ok::<_, Flaw>(bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (version, backing, length, size) = (number(4, 4)?, number(8, 8)?, number(16, 4)?, number(24, 8)?);
    if backing != 0 {
        let name = usize::try_from(backing).ok().and_then(|at| head.get(at..)).unwrap_or_default();
        let name = &name[..name.len().min(length as usize)];
        return Err(Flaw::NotWhole { file: String::from_utf8_lossy(name).into_owned() });
    }
    if version >= 3 && number(72, 8)? & DATA_FILE != 0 {
        return Err(Flaw::NotWhole { file: "its data file".to_owned() });
    }
    let cluster = 1_u64.checked_shl(number(20, 4)? as u32).ok_or_else(cut)?;
    Ok(Some((size, cluster)))
}

/// What a file that is no disk seems to be.
fn describe(head: &[u8]) -> &'static str {
    let text = head.trim_ascii_start();
    let html = [&b"<!DOCTYPE"[..], b"<!doctype", b"<html", b"<HTML", b"<?xml"];
    match head {
        [] => "an empty file",
        [0x1f, 0x8b, ..]
        | [b'B', b'Z', b'h', ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..] => "a packed file (unpack it first)",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [b'K', b'D', b'M', b'V', ..] => "a VMDK (convert it with `qemu-img convert -O qcow2`)",
        _ if html.iter().any(|start| text.starts_with(start)) => "a web page",
        _ if head.get(257..262) == Some(b"ustar") => "a tar archive",
        _ if head.get(0x8001..0x8006) == Some(b"CD001") => "a CD, perhaps an installer",
        _ => "something without a partition table or an ext4 file system",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(content: &[u8]) -> ImageError {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, content).unwrap();
        Disk::open(&path, "image").await.map(|_| ()).unwrap_err()
    }

    #[tokio::test]
    async fn what_is_no_disk_is_refused_with_what_it_is() {
        for (content, found) in [
            (&b""[..], "an empty file"),
            (b"\n<!DOCTYPE html><p>Not found", "a web page"),
            (b"\xfd7zXZ\0...", "a packed file"),
            (b"PK\x03\x04", "a zip archive"),
            (b"QFI\xfb\0\0\0\x03", "the beginning of a qcow2"),
            (&[0; 4096], "something without a partition table"),
        ] {
            let error = open(content).await;
            assert!(matches!(error, ImageError::Unusable { flaw: Flaw::NotAnImage { .. }, .. }), "{error}");
            assert!(error.to_string().contains(found), "{error}");
        }
    }

    async fn qemu_img(arguments: &[&str], dir: &Path) {
        Tool::new("qemu-img", "qemu-utils", "testing").args(arguments).current_dir(dir).run().await.unwrap();
    }

    #[tokio::test]
    async fn an_image_over_another_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), vec![7; 65536]).unwrap();
        qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "secret", "over.qcow2"], dir.path()).await;
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", "data_file=data", "out.qcow2", "1M"], dir.path()).await;
        for (name, file) in [("over.qcow2", "secret"), ("out.qcow2", "its data file")] {
            let error = Disk::open(&dir.path().join(name), name).await.map(|_| ()).unwrap_err();
            let ImageError::Unusable { flaw, .. } = error else { panic!("{error}") };
            assert_eq!(flaw, Flaw::NotWhole { file: file.to_owned() });
        }
    }

    #[tokio::test]
    async fn a_cut_off_image_is_noticed_and_a_whole_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, path) = (dir.path().join("raw"), dir.path().join("whole, with a comma.qcow2"));
        let mut content = vec![0; 4 << 20];
        content[1 << 20..].fill(7);
        std::fs::write(&raw, &content).unwrap();
        let (from, to) = (raw.to_str().unwrap(), path.to_str().unwrap());
        qemu_img(&["convert", "-f", "raw", "-O", "qcow2", from, to], dir.path()).await;

        let disk = Disk::open(&path, "image").await.unwrap();
        assert_eq!(disk.parts(dir.path()).await.unwrap(), [Part { start: 0, size: 4 << 20 }]);
        let head = disk.head(Part { start: (1 << 20) - 512, size: 1024 }, dir.path()).await.unwrap();
        assert_eq!(head, [[0; 512], [7; 512]].concat());

        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let error = Disk::open(&path, "image").await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("not whole"), "{error}");
    }
}
