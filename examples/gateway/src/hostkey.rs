//! Keys of the gateway itself: made once, kept with mode 0600, safe when two processes start at once.
//!
//! A key is written to a file of its own name, made durable, and then linked to its final name; the link fails when
//! another process was first, and then that one's key is read. A process that dies leaves at most a file with a
//! temporary name, which nobody reads.

use boxpool::{Error, ErrorKind, Result};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{HashAlg, PrivateKey};
use std::fs;
use std::io::{ErrorKind as IoErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The key clients see: `ssh_host_ed25519_key` in the state directory.
pub const HOST_KEY_FILE: &str = "ssh_host_ed25519_key";

/// The key the gateway logs in to boxes with: `box_ed25519_key` in the state directory.
pub const BOX_KEY_FILE: &str = "box_ed25519_key";

/// Reads the key at `path`, or makes it.
///
/// # Errors
/// When the file is not a private key, when others may read it, or when the directory cannot be written.
pub fn ensure_key(path: &Path, comment: &str) -> Result<PrivateKey> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let fail = |what: &str, error: std::io::Error| {
        Error::new(ErrorKind::Permanent, "make key", path.display()).with_detail(format!("{what}: {error}"))
    };
    let (mut seed, mut mark) = ([0_u8; 32], [0_u8; 8]);
    getrandom::fill(&mut seed)
        .and_then(|()| getrandom::fill(&mut mark))
        .map_err(|error| Error::new(ErrorKind::Permanent, "make key", path.display()).with_detail(error.to_string()))?;
    let pair = Ed25519Keypair::from_seed(&seed);
    let bad_key = |error: russh::keys::ssh_key::Error| {
        Error::new(ErrorKind::Permanent, "make key", path.display()).with_detail(error.to_string())
    };
    let key = PrivateKey::new(KeypairData::from(pair), comment).map_err(bad_key)?;
    let text = key.to_openssh(LineEnding::LF).map_err(bad_key)?;

    let temporary = path.with_extension(format!("new-{:016x}", u64::from_ne_bytes(mark)));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|error| fail("it cannot be written", error))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => {
            if let Some(parent) = path.parent() {
                fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(|error| fail("its directory", error))?;
            }
            Ok(key)
        }
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => read_key(path)?.ok_or_else(|| {
            Error::new(ErrorKind::Conflict, "read key", path.display()).with_detail("it was removed while it was read")
        }),
        Err(error) => Err(fail("it cannot be written", error)),
    }
}

/// Reads the key at `path`; `None` when there is none.
///
/// # Errors
/// When it cannot be read, is not a private key, or may be read by others.
pub fn read_key(path: &Path) -> Result<Option<PrivateKey>> {
    let fail = |detail: String| Error::new(ErrorKind::Corrupt, "read key", path.display()).with_detail(detail);
    let shown = path.display();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(format!("the key file {shown} cannot be read: {error}"))),
    };
    let mode = fs::metadata(path).map_err(|error| fail(format!("{shown}: {error}")))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(fail(format!("the key file {shown} may be read by others; run: chmod 600 {shown}")));
    }
    PrivateKey::from_openssh(&text)
        .map(Some)
        .map_err(|error| fail(format!("the key file {shown} is damaged ({error}); restore it, or move it away")))
}

/// The lines an operator gives to users: fingerprint, `known_hosts` line, and the SSHFP record.
///
/// # Errors
/// When the key cannot be written as text.
pub fn describe(key: &PrivateKey, host: &str, port: u16) -> Result<String> {
    let public = key.public_key();
    let line = public
        .to_openssh()
        .map_err(|error| Error::new(ErrorKind::Corrupt, "show key", host).with_detail(error.to_string()))?;
    let blob: Vec<&str> = line.split_whitespace().take(2).collect();
    let known_host = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    let hex: String = fingerprint_bytes(public).iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!(
        "fingerprint: {}\nknown_hosts: {known_host} {}\nsshfp: {host}. IN SSHFP 4 2 {hex}\n",
        public.fingerprint(HashAlg::Sha256),
        blob.join(" "),
    ))
}

/// SHA-256 of a public key's blob.
#[must_use]
pub fn fingerprint_bytes(key: &russh::keys::PublicKey) -> [u8; 32] {
    // Asked for SHA-256, the fingerprint is one.
    key.fingerprint(HashAlg::Sha256).sha256().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HOST_KEY_FILE);
        let first = ensure_key(&path, "test").unwrap();
        let second = ensure_key(&path, "test").unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn many_at_once_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HOST_KEY_FILE);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || ensure_key(&path, "test").unwrap().public_key().clone())
            })
            .collect();
        let keys: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_key_others_may_read_or_a_damaged_one_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HOST_KEY_FILE);
        ensure_key(&path, "test").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(ensure_key(&path, "test").unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(ensure_key(&path, "test").unwrap_err().to_string().contains("damaged"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "nonsense");
    }

    #[test]
    fn the_description_names_host_and_port() {
        let dir = tempfile::tempdir().unwrap();
        let key = ensure_key(&dir.path().join("k"), "test").unwrap();
        let text = describe(&key, "127.0.0.1", 2222).unwrap();
        assert!(text.contains("SHA256:") && text.contains("[127.0.0.1]:2222 ssh-ed25519 AAAA"), "{text}");
    }
}
