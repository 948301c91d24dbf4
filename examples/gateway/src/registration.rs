//! Who may log in, and who may have an account.

use crate::account::KeyId;
use crate::login;
use crate::plain::plain;
use boxpool::{Error, ErrorKind, Result, UserId};
use russh::keys::PublicKey;
use std::collections::BTreeSet;
use std::path::Path;

/// Who may have an account.
#[derive(Debug, Clone)]
pub enum Registration {
    /// Whoever shows a key.
    Open,
    /// Whoever says so by the login name: `ssh new@gateway` or `ssh register@gateway`.
    ByName,
    /// Whoever's key is listed, and nobody else logs in.
    AllowList(BTreeSet<KeyId>),
}

impl Registration {
    /// Reads an allow-list: one public key a line, as in `authorized_keys`; empty lines and `#` comments are skipped.
    ///
    /// # Errors
    /// When the file cannot be read or a line is not a public key; the message names the line.
    pub fn read_allow_list(path: &Path) -> Result<Self> {
        Ok(Self::AllowList(read_keys("the allow-list", path)?.iter().map(KeyId::of).collect()))
    }

    /// Whether a key that nobody knows makes an account under this login name.
    #[must_use]
    pub fn may_register(&self, key: &KeyId, login: &str) -> bool {
        match self {
            Self::Open => true,
            Self::ByName => login::is_registration(login),
            Self::AllowList(listed) => listed.contains(key),
        }
    }

    /// Whether a key of an account logs in. A list admits its keys, and the other keys of the accounts that they made.
    #[must_use]
    pub fn admits(&self, key: &KeyId, account: &UserId) -> bool {
        match self {
            Self::Open | Self::ByName => true,
            Self::AllowList(listed) => {
                listed.contains(key) || listed.iter().any(|listed| listed.as_str() == account.as_str())
            }
        }
    }
}

/// The public keys of a file, `what` it is: one a line, as in `authorized_keys`.
///
/// # Errors
/// When the file cannot be read or a line is not a public key; the message names the line.
pub fn read_keys(what: &str, path: &Path) -> Result<Vec<PublicKey>> {
    let fail = |detail: String| Error::new(ErrorKind::Invalid, "read keys", path.display()).with_detail(detail);
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| fail(format!("{what} {shown} cannot be read: {error}")))?;
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            PublicKey::from_openssh(line).map_err(|_| {
                let number = number + 1;
                fail(format!("line {number} of {what} {shown} is not a public key without options: {}", plain(line)))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@here";

    #[test]
    fn an_allow_list_names_the_line_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, format!("# people\n\n{KEY}\nnot a key\n")).unwrap();
        assert!(Registration::read_allow_list(&path).unwrap_err().to_string().contains("line 4"));
    }

    #[test]
    fn a_list_admits_its_keys_and_the_accounts_that_they_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, format!("# people\n\n{KEY}\n")).unwrap();
        let list = Registration::read_allow_list(&path).unwrap();
        let listed = KeyId::of(&PublicKey::from_openssh(KEY).unwrap());
        let other = KeyId::of(&PublicKey::from_openssh(&KEY.replace("HR4f", "HR4e")).unwrap());
        let (own, elsewhere) = (listed.account().unwrap(), other.account().unwrap());
        assert!(list.may_register(&listed, "gateway") && !list.may_register(&other, "new"));
        assert!(list.admits(&listed, &elsewhere) && list.admits(&other, &own) && !list.admits(&other, &elsewhere));
    }

    #[test]
    fn by_name_only_the_reserved_names_make_accounts() {
        let key = KeyId::of(&PublicKey::from_openssh(KEY).unwrap());
        let registers = |login| Registration::ByName.may_register(&key, login);
        assert!(registers("new") && registers("register") && !registers("gateway") && !registers(""));
    }
}
