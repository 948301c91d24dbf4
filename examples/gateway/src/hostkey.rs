//! Keys of the gateway itself: made once, kept with mode 0600, safe when two processes start at once.
//!
//! A key is written to a file of its own name, made durable, and then linked to its final name; the link fails when
//! another process was first, and then that one's key is read. A process that dies leaves at most a file with a
//! temporary name, which nobody reads.

use boxpool::{Error, ErrorKind, Result};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData, RsaKeypair};
use russh::keys::ssh_key::rand_core::UnwrapErr;
use russh::keys::{Algorithm, HashAlg, PrivateKey};
use std::fs;
use std::io::{ErrorKind as IoErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The key clients see: `ssh_host_ed25519_key` in the state directory.
pub const HOST_KEY_FILE: &str = "ssh_host_ed25519_key";

/// The key that clients see that know RSA alone: `ssh_host_rsa_key` in the state directory.
pub const RSA_HOST_KEY_FILE: &str = "ssh_host_rsa_key";

/// Length of an RSA key that is made, as `ssh-keygen` has it.
const RSA_BITS: usize = 3072;

/// The key the gateway logs in to boxes with: `box_ed25519_key` in the state directory.
pub const BOX_KEY_FILE: &str = "box_ed25519_key";

/// Reads the key at `path`, or makes one of the kind ed25519.
///
/// # Errors
/// When the file is not a private key, when others may read it, or when the directory cannot be written.
pub fn ensure_key(path: &Path, comment: &str) -> Result<PrivateKey> {
    ensure(path, comment, || {
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        Ok(KeypairData::from(Ed25519Keypair::from_seed(&seed)))
    })
}

/// Reads the key at `path`, or makes one of the kind RSA, which takes seconds.
///
/// # Errors
/// As [`ensure_key`]; when the file holds a key of another kind.
pub fn ensure_rsa_key(path: &Path, comment: &str) -> Result<PrivateKey> {
    let key = ensure(path, comment, || {
        // Like every program that makes keys, it ends when the system has no randomness.
        let pair = RsaKeypair::random(&mut UnwrapErr(getrandom::SysRng), RSA_BITS);
        pair.map(KeypairData::from).map_err(|error| error.to_string())
    })?;
    if matches!(key.algorithm(), Algorithm::Rsa { .. }) {
        return Ok(key);
    }
    let detail = format!("the key file {} holds no RSA key", path.display());
    Err(Error::new(ErrorKind::Corrupt, "read key", path.display()).with_detail(detail))
}

fn ensure(
    path: &Path,
    comment: &str,
    make: impl FnOnce() -> std::result::Result<KeypairData, String>,
) -> Result<PrivateKey> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let fail = |what: &str, error: std::io::Error| {
        Error::new(ErrorKind::Permanent, "make key", path.display()).with_detail(format!("{what}: {error}"))
    };
    let no_key = |detail: String| Error::new(ErrorKind::Permanent, "make key", path.display()).with_detail(detail);
    let mut mark = [0_u8; 8];
    getrandom::fill(&mut mark).map_err(|error| no_key(error.to_string()))?;
    let key = PrivateKey::new(make().map_err(no_key)?, comment).map_err(|error| no_key(error.to_string()))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|error| no_key(error.to_string()))?;

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
    // The numbers of RFC 4255 and RFC 7479; the gateway has no keys of other kinds.
    let kind = if matches!(public.algorithm(), Algorithm::Rsa { .. }) { 1 } else { 4 };
    let hex: String = fingerprint_bytes(public).iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!(
        "fingerprint: {}\nknown_hosts: {known_host} {}\nsshfp: {host}. IN SSHFP {kind} 2 {hex}\n",
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
    fn an_rsa_key_is_made_once_of_its_length_and_no_other_kind_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(RSA_HOST_KEY_FILE);
        let first = ensure_rsa_key(&path, "test").unwrap();
        assert_eq!(first.public_key(), ensure_rsa_key(&path, "test").unwrap().public_key());
        assert_eq!(first.public_key().key_data().rsa().unwrap().key_size(), 3072);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(describe(&first, "h", 22).unwrap().contains("sshfp: h. IN SSHFP 1 2 "));
        let other = dir.path().join(HOST_KEY_FILE);
        ensure_key(&other, "test").unwrap();
        assert!(ensure_rsa_key(&other, "test").unwrap_err().to_string().contains("no RSA key"));
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
