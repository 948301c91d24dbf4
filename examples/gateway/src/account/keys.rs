//! The keys of one account: list, add, remove, rename.

use super::record::{AccountRecord, KeyEntry, KeyId, KeyRecord};
use super::{Accounts, TRIES, Written, contended, is_stale};
use crate::plain::plain;
use boxpool::{Error, ErrorKind, Report, Result, Timestamp, UserId, Version};
use russh::keys::{Algorithm, PublicKey};

/// Longest public key in OpenSSH's format, so that the keys of an account fit in one record of any store. An RSA key of
/// 8192 bits has 1,400 characters.
const KEY_LINE_MAX: usize = 1500;

/// Shortest RSA key, as OpenSSH has it.
const RSA_BITS_MIN: u32 = 1024;

/// Longest label.
const LABEL_MAX: usize = 64;

/// Why a key of an account was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The account belongs to certificates.
    #[error("you are here by a certificate of \"{0}\", which takes the place of keys; there are none to change")]
    Certified(String),
    /// The key that asks was removed from the account while its connection was open.
    #[error("the key that you are logged in with was removed from your account")]
    Gone,
    /// The account has the key already.
    #[error("this key is yours already, as \"{0}\"")]
    Yours(String),
    /// Another account has the key. Which is not said.
    #[error("this key is in use here and cannot be added; a key can open one account only")]
    Taken,
    /// The account has as many keys as it may have.
    #[error("you have {0} keys, which is the most; remove one first")]
    TooMany(usize),
    /// The account has a key of that label.
    #[error("you have a key named \"{0}\" already; choose another name")]
    LabelTaken(String),
    /// No label.
    #[error(
        "\"{0}\" cannot be the name of a key: it has 1 to {LABEL_MAX} letters, digits or the signs . _ @ + -, and begins with a letter or digit"
    )]
    BadLabel(String),
    /// No key that would be of use.
    #[error("{0}")]
    BadKey(&'static str),
    /// The account has no such key.
    #[error("you have no key \"{0}\"; see \"key list\"")]
    NotFound(String),
    /// Nothing would open the account any more.
    #[error("\"{0}\" is the last key that opens your account; add another one first")]
    Last(String),
    /// The key is the one that asks, and nobody said that this is meant.
    #[error(
        "you are logged in with \"{0}\", and could not log in with it again; if you have one of the other keys, say --yes"
    )]
    InUse(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// A key that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Which.
    pub key: KeyEntry,
    /// How many the account has now.
    pub keys: usize,
}

/// A key that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRemoved {
    /// Which.
    pub key: KeyEntry,
    /// Whether it is the one that asked.
    pub in_use: bool,
}

/// Who asks: an account, by the key that logged in.
#[derive(Debug, Clone)]
pub struct KeyInUse {
    /// Whose keys.
    pub account: UserId,
    /// With which key the account logged in.
    pub key: KeyId,
}

impl Accounts {
    /// The keys of the account, in the order in which they were added. Entries that open nothing are left out, and taken out.
    ///
    /// # Errors
    /// When the account belongs to certificates, or the store fails.
    pub async fn keys(&self, who: &KeyInUse) -> std::result::Result<Vec<KeyEntry>, KeyError> {
        let (version, mut record) = self.of(who).await?;
        let mut keys = Vec::new();
        for entry in &record.keys {
            let pointer = self.pointer(&entry.id).await?;
            if pointer.map_or(entry.id.as_str() == who.account.as_str(), |(_, key)| key.account == who.account) {
                keys.push(entry.clone());
            }
        }
        if keys.len() < record.keys.len() {
            record.keys.clone_from(&keys);
            // Of no weight: when the account has changed meanwhile, the next one does it.
            self.update(&AccountRecord::at(&who.account), &version, &record).await?;
        }
        Ok(keys)
    }

    /// Adds `key` to the account, called `label`, or else something that is free. `most` keys at most.
    ///
    /// # Errors
    /// [`KeyError`]; afterwards the key is what it was.
    pub async fn add_key(
        &self,
        who: &KeyInUse,
        key: &PublicKey,
        label: Option<&str>,
        most: usize,
        now: Timestamp,
    ) -> std::result::Result<Added, KeyError> {
        check_key(key)?;
        if let Some(label) = label {
            check_label(label)?;
        }
        let (id, mut listed_here) = (KeyId::of(key), false);
        for _ in 0..TRIES {
            let (version, mut record) = self.of(who).await?;
            if let Some(entry) = record.entry(&id).cloned() {
                let keys = record.keys.len();
                if self.secure(&id, &who.account).await? {
                    return if listed_here {
                        Ok(Added { key: entry, keys })
                    } else {
                        Err(KeyError::Yours(entry.label))
                    };
                }
                record.keys.retain(|each| each.id != id);
                self.update(&AccountRecord::at(&who.account), &version, &record).await?;
                return Err(KeyError::Taken);
            }
            if record.keys.len() >= most {
                return Err(KeyError::TooMany(most));
            }
            let label = free_label(&record, key, label)?;
            let look = self.look(&id).await?;
            match look.opens {
                Some(account) if account.id == who.account => continue, // added by somebody else just now
                Some(_) => return Err(KeyError::Taken),
                None => {}
            }
            let Written::Yes(_) = self.claim(&id, &who.account, look.pointer).await? else { continue };
            record.keys.push(KeyEntry::new(key, &label, now)?);
            // Whether it was written, and whether the claim still stood then, is seen in the next turn.
            self.update(&AccountRecord::at(&who.account), &version, &record).await?;
            listed_here = true;
        }
        Err(contended("add key", &id).into())
    }

    /// Takes a key out of the account, named by its label or fingerprint. The one that asks only when `even_in_use`, and
    /// never the last one. Once this returns the key opens nothing. That it is about to happen was announced before
    /// ([`Accounts::removals`]), so that whoever has connections of the account can look.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn remove_key(
        &self,
        who: &KeyInUse,
        named: &str,
        even_in_use: bool,
        now: Timestamp,
    ) -> std::result::Result<KeyRemoved, KeyError> {
        let Some(entry) = self.unlist_named(who, named, even_in_use, now).await? else {
            return Err(contended("remove key", &who.account).into());
        };
        if let Err(error) = self.let_go(&entry.id, &who.account).await {
            // The key opens nothing without being listed, and whoever wants it may claim it.
            tracing::warn!(key = %entry.id, error = %Report(&error), "record of a removed key left behind");
        }
        let in_use = entry.id == who.key;
        Ok(KeyRemoved { key: entry, in_use })
    }

    /// The list's part of a removal; `None` when others changed the account again and again.
    async fn unlist_named(
        &self,
        who: &KeyInUse,
        named: &str,
        even_in_use: bool,
        now: Timestamp,
    ) -> std::result::Result<Option<KeyEntry>, KeyError> {
        let mut target: Option<KeyEntry> = None;
        for _ in 0..TRIES {
            let (version, mut record) = match (target.take(), self.of(who).await) {
                // Its own removal, whose answer was lost.
                (Some(entry), Err(KeyError::Gone)) if entry.id == who.key => return Ok(Some(entry)),
                (Some(entry), Ok((_, record))) if record.entry(&entry.id).is_none() => return Ok(Some(entry)),
                (before, read) => {
                    target = before;
                    read?
                }
            };
            let entry = match target.take() {
                Some(entry) => entry,
                None => named_in(&record, named)?.clone(),
            };
            if record.keys.len() == 1 && record.entry(&entry.id).is_some() {
                return Err(KeyError::Last(entry.label));
            }
            if entry.id == who.key && !even_in_use {
                return Err(KeyError::InUse(entry.label));
            }
            record.keys.retain(|each| each.id != entry.id);
            if !self.any_secured(&record).await? {
                return Err(KeyError::Last(entry.label));
            }
            self.announce_removal(&who.account, now).await?;
            if let Written::Yes(_) = self.update(&AccountRecord::at(&who.account), &version, &record).await? {
                return Ok(Some(entry));
            }
            target = Some(entry);
        }
        Ok(None)
    }

    /// Notes that the key logged in at `now`, if that is worth a write. `false`: it is not, another login has noted it, or
    /// the key is no longer one of the account's.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_use(&self, who: &KeyInUse, now: Timestamp) -> Result<bool> {
        for _ in 0..TRIES {
            let Some((version, mut record)) = self.account(&who.account).await? else { return Ok(false) };
            let entry = record.keys.iter_mut().find(|entry| entry.id == who.key);
            let Some(entry) = entry.filter(|entry| is_stale(entry.used, now)) else { return Ok(false) };
            entry.used = Some(now);
            if let Written::Yes(_) = self.update(&AccountRecord::at(&who.account), &version, &record).await? {
                return Ok(true);
            }
        }
        Err(contended("note use of key", &who.key))
    }

    /// Calls a key, named by its label or fingerprint, something else.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn rename_key(
        &self,
        who: &KeyInUse,
        named: &str,
        label: &str,
    ) -> std::result::Result<KeyEntry, KeyError> {
        check_label(label)?;
        let mut target: Option<KeyId> = None;
        for _ in 0..TRIES {
            let (version, mut record) = self.of(who).await?;
            let id = match &target {
                Some(id) => id.clone(),
                None => named_in(&record, named)?.id.clone(),
            };
            if record.keys.iter().any(|entry| entry.label == label && entry.id != id) {
                return Err(KeyError::LabelTaken(label.to_owned()));
            }
            let entry = record.keys.iter_mut().find(|entry| entry.id == id);
            let entry = entry.ok_or_else(|| KeyError::NotFound(plain(named).into_owned()))?;
            label.clone_into(&mut entry.label);
            let renamed = entry.clone();
            if let Written::Yes(_) = self.update(&AccountRecord::at(&who.account), &version, &record).await? {
                return Ok(renamed);
            }
            target = Some(id);
        }
        Err(contended("rename key", &who.account).into())
    }

    /// The account's record, when the key that asks is still one of its keys.
    async fn of(&self, who: &KeyInUse) -> std::result::Result<(Version, AccountRecord), KeyError> {
        let missing = || Error::new(ErrorKind::Corrupt, "read account", &who.account).with_detail("it is gone");
        let (version, record) = self.account(&who.account).await?.ok_or_else(missing)?;
        if let Some(certified) = record.certified {
            return Err(KeyError::Certified(plain(&certified.principal).into_owned()));
        }
        if record.entry(&who.key).is_none() {
            return Err(KeyError::Gone);
        }
        Ok((version, record))
    }

    /// Makes sure of one of the keys in `record`; `false` when none opens the account.
    async fn any_secured(&self, record: &AccountRecord) -> Result<bool> {
        for entry in &record.keys {
            if self.secure(&entry.id, &record.id).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes sure of a key that `account` lists: writes its record once more, so that whoever read it before it was listed
    /// cannot take the key. `false` when another account has it.
    async fn secure(&self, key: &KeyId, account: &UserId) -> Result<bool> {
        let (at, named) = (KeyRecord::at(key), KeyRecord::new(account));
        for _ in 0..TRIES {
            let written = match self.pointer(key).await? {
                None => self.insert(&at, &named).await?,
                Some((_, record)) if record.account != *account => return Ok(false),
                Some((version, _)) => self.update(&at, &version, &named).await?,
            };
            if let Written::Yes(_) = written {
                return Ok(true);
            }
        }
        Err(contended("secure key", key))
    }

    /// Deletes the record of a key that `account` lists no more.
    async fn let_go(&self, key: &KeyId, account: &UserId) -> Result<()> {
        let Some((version, record)) = self.pointer(key).await? else { return Ok(()) };
        // Looked at after the key's record: who adds it again meanwhile changes that first.
        let listed = self.account(account).await?.is_some_and(|(_, record)| record.entry(key).is_some());
        if record.account != *account || listed {
            return Ok(());
        }
        match self.store.delete(&KeyRecord::at(key), &version).await {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            result => result,
        }
    }
}

fn named_in<'a>(record: &'a AccountRecord, named: &str) -> std::result::Result<&'a KeyEntry, KeyError> {
    let found = record.keys.iter().find(|entry| entry.label == named || entry.fingerprint == named);
    found.ok_or_else(|| KeyError::NotFound(plain(named).into_owned()))
}

/// The label that was asked for, or one from the key's comment, or one with a number.
fn free_label(record: &AccountRecord, key: &PublicKey, label: Option<&str>) -> std::result::Result<String, KeyError> {
    let taken = |label: &str| record.keys.iter().any(|entry| entry.label == label);
    match label {
        Some(label) if taken(label) => Err(KeyError::LabelTaken(label.to_owned())),
        Some(label) => Ok(label.to_owned()),
        None => {
            let comment = key.comment().as_str().ok().filter(|comment| check_label(comment).is_ok());
            let numbered = (2..).map(|number| format!("key-{number}"));
            let mut wanted = comment.map(str::to_owned).into_iter().chain(numbered);
            // Fewer keys than numbers: one is free.
            Ok(wanted.find(|label| !taken(label)).unwrap_or_default())
        }
    }
}

fn check_label(label: &str) -> std::result::Result<(), KeyError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
    let begins = label.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && label.len() <= LABEL_MAX && label.bytes().all(legal) {
        Ok(())
    } else {
        Err(KeyError::BadLabel(plain(label).into_owned()))
    }
}

fn check_key(key: &PublicKey) -> std::result::Result<(), KeyError> {
    let (_, line) = super::texts(key)?;
    match key.algorithm() {
        Algorithm::Dsa => {
            Err(KeyError::BadKey("keys of the kind ssh-dss prove nothing any more; make one of the kind ed25519"))
        }
        Algorithm::Rsa { .. } if key.key_data().rsa().is_some_and(|rsa| rsa.key_size() < RSA_BITS_MIN) => {
            Err(KeyError::BadKey("this RSA key is too short; make a key of the kind ed25519"))
        }
        _ if line.len() > KEY_LINE_MAX => Err(KeyError::BadKey("this key is too long; make one of the kind ed25519")),
        _ => Ok(()),
    }
}
