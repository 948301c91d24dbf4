//! What the store holds about accounts and keys.
//!
//! An account's record lists its keys and is the authority on which they are. A key's record says which account the key
//! belongs to, so that it belongs to one at most. Both are in one table: an account at (account id, `account`), a key at
//! (key id, `key`). A key without a record belongs to the account that it made, whose id is its own.

use crate::hostkey::fingerprint_bytes;
use boxpool::{Error, ErrorKind, Key, Result, Table, Timestamp, UserId};
use russh::keys::{HashAlg, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

pub(crate) const ACCOUNTS: Table = Table::new("accounts");

/// The layout that is written. 1 had one key for each account, in the fields `fingerprint` and `key`; gateways that know
/// only that refuse to read 2, and so let no removed key in.
const SCHEMA: u32 = 2;

/// What the key is called that made the account.
const FIRST_LABEL: &str = "first";

/// A public key: the SHA-256 of its blob in hex, the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id of `key`.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        Self(hex(&fingerprint_bytes(key)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The account that this key makes.
    ///
    /// # Errors
    /// Never for the id of a key.
    pub fn account(&self) -> Result<UserId> {
        UserId::new(self.0.as_str())
            .map_err(|error| Error::new(ErrorKind::Invalid, "read key", "public key").with_source(error))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key's two texts: its fingerprint as `ssh-keygen -l` prints it, and the key in OpenSSH's format without its comment.
///
/// # Errors
/// When the key cannot be written as text.
pub(super) fn texts(key: &PublicKey) -> Result<(String, String)> {
    let line = key
        .to_openssh()
        .map_err(|error| Error::new(ErrorKind::Invalid, "read key", "public key").with_detail(error.to_string()))?;
    let line = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok((key.fingerprint(HashAlg::Sha256).to_string(), line))
}

/// One key of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Which key.
    pub id: KeyId,
    /// Its fingerprint as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The key in OpenSSH's format, without its comment.
    pub key: String,
    /// What its owner calls it.
    pub label: String,
    /// When it was added.
    pub added: Timestamp,
    /// When it last logged in, as far as was noted: [`USED_EVERY`](super::USED_EVERY). Gateways that do not know of this keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl KeyEntry {
    /// An entry for `key`.
    ///
    /// # Errors
    /// When the key cannot be written as text.
    pub fn new(key: &PublicKey, label: &str, added: Timestamp) -> Result<Self> {
        let (fingerprint, line) = texts(key)?;
        let (id, label) = (KeyId::of(key), label.to_owned());
        Ok(Self { id, fingerprint, key: line, label, added, used: None, unknown: Map::new() })
    }
}

/// Whose certificates an account belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// The fingerprint of the certificate authority.
    pub authority: String,
    /// The principal that its certificates name.
    pub principal: String,
}

/// An account's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    schema: u32,
    /// Who owns the boxes.
    pub id: UserId,
    /// When the account was made.
    pub created: Timestamp,
    /// The keys that open it; none when certificates do.
    #[serde(default)]
    pub keys: Vec<KeyEntry>,
    /// The certificates that open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<Certified>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl AccountRecord {
    /// The account that `key` makes by logging in.
    ///
    /// # Errors
    /// When the key cannot be written as text.
    pub fn of_key(key: &PublicKey, created: Timestamp) -> Result<Self> {
        let id = KeyId::of(key).account()?;
        let keys = vec![KeyEntry { used: Some(created), ..KeyEntry::new(key, FIRST_LABEL, created)? }];
        Ok(Self { schema: SCHEMA, id, created, keys, certified: None, unknown: Map::new() })
    }

    /// The account of certificates.
    #[must_use]
    pub fn of_certificates(id: UserId, certified: Certified, created: Timestamp) -> Self {
        let (keys, unknown) = (Vec::new(), Map::new());
        Self { schema: SCHEMA, id, created, keys, certified: Some(certified), unknown }
    }

    /// Where the record of the account `id` lives.
    #[must_use]
    pub fn at(id: &UserId) -> Key {
        Key::new(ACCOUNTS, id.as_str(), "account")
    }

    /// The entry of `key`.
    #[must_use]
    pub fn entry(&self, key: &KeyId) -> Option<&KeyEntry> {
        self.keys.iter().find(|entry| entry.id == *key)
    }

    /// Reads a record of any layout there ever was.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    pub fn read(text: &str, id: &UserId) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "read account", id);
        let mut record: Self = serde_json::from_str(text).map_err(|error| corrupt().with_source(error))?;
        match record.schema {
            1 => {
                let mut text = |field: &str| match record.unknown.remove(field) {
                    Some(Value::String(text)) => Ok(text),
                    _ => Err(corrupt().with_detail(format!("the record has no {field}"))),
                };
                let (fingerprint, key) = (text("fingerprint")?, text("key")?);
                record.keys = vec![KeyEntry {
                    id: KeyId(record.id.as_str().to_owned()),
                    fingerprint,
                    key,
                    label: FIRST_LABEL.into(),
                    added: record.created,
                    used: None,
                    unknown: Map::new(),
                }];
                record.schema = SCHEMA;
                Ok(record)
            }
            SCHEMA => Ok(record),
            newer => Err(corrupt().with_detail(format!("the record has layout {newer}, which a newer gateway wrote"))),
        }
    }
}

/// A key's record: which account the key belongs to, if that one lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    schema: u32,
    /// Whose it is.
    pub account: UserId,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl KeyRecord {
    /// That `account` has, or is about to have, the key.
    #[must_use]
    pub fn new(account: &UserId) -> Self {
        Self { schema: 1, account: account.clone(), unknown: Map::new() }
    }

    /// Where the record of `key` lives.
    #[must_use]
    pub fn at(key: &KeyId) -> Key {
        Key::new(ACCOUNTS, key.as_str(), "key")
    }

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt` when it is none.
    pub fn read(text: &str, key: &KeyId) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::new(ErrorKind::Corrupt, "read key", key).with_source(error))
    }
}
