//! Accounts: a public key is an account.
//!
//! The account's id is the SHA-256 of the key's blob in hex, the whole of it: two keys never share an account, and an
//! id cannot be had without the key. The record is written on the first login, by insert; of two first logins at once
//! one inserts and the other finds it.

use crate::hostkey::fingerprint_bytes;
use crate::plain::plain;
use async_trait::async_trait;
use boxpool::{Clock, Error, ErrorKind, Key, Result, StateStore, SystemClock, Table, Timestamp, UserId};
use russh::keys::{HashAlg, PublicKey};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) const ACCOUNTS: Table = Table::new("accounts");
const ROW: &str = "account";

/// A user of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Layout of this record.
    pub schema: u32,
    /// Who owns the boxes.
    pub id: UserId,
    /// The key's fingerprint as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The public key in OpenSSH's format, without its comment.
    pub key: String,
    /// When the account was made.
    pub created: Timestamp,
}

impl Account {
    /// The account of `key`.
    ///
    /// # Errors
    /// When the key cannot be written as text.
    pub fn of(key: &PublicKey, created: Timestamp) -> Result<Self> {
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Invalid, "read key", "public key").with_detail(error.to_string())
        };
        let line = key.to_openssh().map_err(|error| unreadable(&error))?;
        Ok(Self {
            schema: 1,
            id: account_id(key)?,
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
            key: line.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
            created,
        })
    }
}

/// The account id of `key`.
///
/// # Errors
/// Never for a key that could be parsed.
pub fn account_id(key: &PublicKey) -> Result<UserId> {
    let hex: String = fingerprint_bytes(key).iter().map(|byte| format!("{byte:02x}")).collect();
    UserId::new(hex).map_err(|error| Error::new(ErrorKind::Invalid, "read key", "public key").with_source(error))
}

/// Where accounts are kept.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// The account, when there is one.
    async fn get(&self, id: &UserId) -> Result<Option<Account>>;

    /// Keeps a new account. One that is there already stays as it is: registering twice is safe.
    async fn register(&self, account: &Account) -> Result<()>;
}

/// Accounts beside the boxes, in the pool's own store.
pub struct StoredAccounts(pub Arc<dyn StateStore>);

#[async_trait]
impl Accounts for StoredAccounts {
    async fn get(&self, id: &UserId) -> Result<Option<Account>> {
        let Some(stored) = self.0.get(&Key::new(ACCOUNTS, id.as_str(), ROW)).await? else { return Ok(None) };
        serde_json::from_str(&stored.value)
            .map(Some)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "read account", id).with_source(error))
    }

    async fn register(&self, account: &Account) -> Result<()> {
        let text = serde_json::to_string(account)
            .map_err(|error| Error::new(ErrorKind::Permanent, "write account", &account.id).with_source(error))?;
        match self.0.insert(&Key::new(ACCOUNTS, account.id.as_str(), ROW), &text).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result.map(drop),
        }
    }
}

/// Accounts in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryAccounts(Mutex<BTreeMap<UserId, Account>>);

#[async_trait]
impl Accounts for MemoryAccounts {
    async fn get(&self, id: &UserId) -> Result<Option<Account>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned())
    }

    async fn register(&self, account: &Account) -> Result<()> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.entry(account.id.clone()).or_insert_with(|| account.clone());
        Ok(())
    }
}

/// Who may have an account.
#[derive(Debug, Clone)]
pub enum Registration {
    /// Whoever shows a key.
    Open,
    /// Whoever's key is listed.
    AllowList(BTreeSet<UserId>),
}

impl Registration {
    /// Reads an allow-list: one public key a line, as in `authorized_keys`; empty lines and `#` comments are skipped.
    ///
    /// # Errors
    /// When the file cannot be read or a line is not a public key; the message names the line.
    pub fn read_allow_list(path: &Path) -> Result<Self> {
        let fail =
            |detail: String| Error::new(ErrorKind::Invalid, "read allow list", path.display()).with_detail(detail);
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| fail(format!("the allow-list {shown} cannot be read: {error}")))?;
        let mut listed = BTreeSet::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = PublicKey::from_openssh(line).map_err(|_| {
                fail(format!("line {} of the allow-list {shown} is not a public key: {}", number + 1, plain(line)))
            })?;
            listed.insert(account_id(&key)?);
        }
        Ok(Self::AllowList(listed))
    }

    /// Whether the key with this account id may log in.
    #[must_use]
    pub fn allows(&self, id: &UserId) -> bool {
        match self {
            Self::Open => true,
            Self::AllowList(listed) => listed.contains(id),
        }
    }
}

/// Finds the account of a key that has just proven itself, or registers it.
///
/// # Errors
/// When the store fails.
pub async fn ensure_account(accounts: &dyn Accounts, key: &PublicKey) -> Result<Account> {
    let id = account_id(key)?;
    if let Some(account) = accounts.get(&id).await? {
        return Ok(account);
    }
    let account = Account::of(key, SystemClock.now())?;
    accounts.register(&account).await?;
    tracing::info!(account = %account.id, key = %account.fingerprint, "new account");
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@here";

    #[test]
    fn the_account_id_is_the_whole_fingerprint_in_hex() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        let id = account_id(&key).unwrap();
        assert_eq!(id.as_str().len(), 64);
        assert!(id.as_str().bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
        let account = Account::of(&key, Timestamp(1)).unwrap();
        assert!(account.fingerprint.starts_with("SHA256:"));
        assert!(!account.key.contains("me@here"));
    }

    #[tokio::test]
    async fn an_account_is_made_on_the_first_login_and_kept() {
        let accounts = MemoryAccounts::default();
        let key = PublicKey::from_openssh(KEY).unwrap();
        let first = ensure_account(&accounts, &key).await.unwrap();
        let second = ensure_account(&accounts, &key).await.unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn an_allow_list_names_the_line_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, format!("# people\n\n{KEY}\nnot a key\n")).unwrap();
        assert!(Registration::read_allow_list(&path).unwrap_err().to_string().contains("line 4"));
        std::fs::write(&path, format!("# people\n\n{KEY}\n")).unwrap();
        let list = Registration::read_allow_list(&path).unwrap();
        assert!(list.allows(&account_id(&PublicKey::from_openssh(KEY).unwrap()).unwrap()));
        assert!(!list.allows(&UserId::new("aa").unwrap()));
    }
}
