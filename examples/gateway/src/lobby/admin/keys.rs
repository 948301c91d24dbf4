//! The keys of administrators.

use crate::account::KeyId;
use crate::registration::read_keys;
use boxpool::Result;
use std::collections::BTreeSet;
use std::path::Path;

/// Which keys may give the commands for administrators. A key counts, not an account: neither another key of the same
/// account nor a certificate gives the right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminKeys(BTreeSet<KeyId>);

impl AdminKeys {
    /// Reads a list: one public key a line, as in `authorized_keys`; empty lines and `#` comments are skipped. A line with
    /// options is refused, since what they restrict would not be obeyed.
    ///
    /// # Errors
    /// When the file cannot be read or a line is not a public key; the message names the line.
    pub fn read(path: &Path) -> Result<Self> {
        let keys = read_keys("the list of admin_keys", path)?;
        Ok(Self(keys.iter().map(KeyId::of).collect()))
    }

    /// Whether this key is an administrator's.
    #[must_use]
    pub fn has(&self, key: &KeyId) -> bool {
        self.0.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::PublicKey;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@here";

    #[test]
    fn a_line_that_is_wrong_or_has_options_is_named_and_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        for bad in ["not a key".to_owned(), format!("from=\"10.0.0.0/8\" {KEY}")] {
            std::fs::write(&path, format!("# us\n{KEY}\n{bad}\n")).unwrap();
            assert!(AdminKeys::read(&path).unwrap_err().detail().contains("line 3"));
        }
        std::fs::write(&path, format!("# us\n\n{KEY}\n")).unwrap();
        let key = KeyId::of(&PublicKey::from_openssh(KEY).unwrap());
        assert!(AdminKeys::read(&path).unwrap().has(&key) && !AdminKeys::default().has(&key));
    }
}
