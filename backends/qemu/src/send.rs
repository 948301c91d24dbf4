//! A large file goes to another host: piece by piece, and known to be whole before it has its name.
//!
//! If the process dies here, the next one begins with the piece after the last whole one.

use crate::host::{Command, Host, must};
use boxpool::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// One command's input.
const PIECE: u64 = 8 << 20;
/// A piece over a slow line: 8 MiB at 0.6 Mbit/s.
const PIECE_LIMIT: Duration = Duration::from_secs(120);
const DIGEST_LIMIT: Duration = Duration::from_secs(600);

/// A file of this machine, whole.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| unreadable(file, error))
}

fn unreadable(file: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::NotFound, "read file", file.display()).with_detail(error.to_string()).with_source(error)
}

/// Sends a file of this machine. One that is there already, with the same content, is left alone.
pub(crate) async fn send(host: &dyn Host, from: &Path, to: &Path) -> Result<()> {
    let mut file = std::fs::File::open(from).map_err(|error| unreadable(from, error))?;
    let size = file.metadata().map_err(|error| unreadable(from, error))?.len();
    let partial = to.with_extension("sent");
    let present = host.look(&partial).await?.map_or(0, |facts| facts.bytes.min(size) / PIECE * PIECE);
    let mut digest = Sha256::new();
    let mut at = 0;
    while at < size {
        let mut piece = Vec::new();
        let read = (&mut file).take(PIECE).read_to_end(&mut piece).map_err(|error| unreadable(from, error))?;
        if read == 0 {
            let detail = "it became shorter while it was read";
            return Err(Error::new(ErrorKind::Unavailable, "send file", from.display()).with_detail(detail));
        }
        digest.update(&piece);
        if at >= present {
            let mut target = std::ffi::OsString::from("of=");
            target.push(&partial);
            let seek = format!("seek={}", at / PIECE);
            let write = Command::new("dd").args(["bs=8M", "iflag=fullblock", "conv=notrunc", "status=none", &seek]);
            must(host, "send file", write.arg(target).stdin(piece).limit(PIECE_LIMIT)).await?;
        }
        at += read as u64;
    }
    must(host, "send file", Command::new("truncate").args(["-s", &size.to_string()]).arg(&partial)).await?;
    let wanted: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let found = must(host, "check file", Command::new("sha256sum").arg(&partial).limit(DIGEST_LIMIT)).await?.stdout;
    // With odd names it puts a backslash first.
    if found.trim_start_matches('\\').split_whitespace().next() != Some(&wanted) {
        host.remove(std::slice::from_ref(&partial)).await?;
        let detail = "what arrived is not what was sent; it was removed, try again";
        return Err(Error::new(ErrorKind::Unavailable, "send file", to.display()).with_detail(detail));
    }
    must(host, "send file", Command::new("mv").arg("-fT").arg(&partial).arg(to)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::LocalHost;

    fn sample(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at / 7 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn a_file_arrives_whole_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for bytes in [0, 1, PIECE as usize, 2 * PIECE as usize + 5] {
            std::fs::write(&from, sample(bytes)).unwrap();
            send(&LocalHost, &from, &to).await.unwrap();
            assert!(std::fs::read(&to).unwrap() == sample(bytes));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing half-sent is left");
    }

    #[tokio::test]
    async fn what_an_earlier_attempt_sent_counts_and_what_it_damaged_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let content = sample(PIECE as usize + 9);
        std::fs::write(&from, &content).unwrap();
        std::fs::write(dir.path().join("to.sent"), &content[..PIECE as usize + 3]).unwrap();
        send(&LocalHost, &from, &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == content);
        std::fs::write(dir.path().join("to.sent"), vec![1; PIECE as usize]).unwrap();
        assert_eq!(send(&LocalHost, &from, &to).await.unwrap_err().kind(), ErrorKind::Unavailable);
        send(&LocalHost, &from, &to).await.unwrap();
    }
}
