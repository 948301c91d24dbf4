//! Accounts: one person, one or more keys.
//!
//! A key that nobody knows makes an account, whose id is the SHA-256 of the key's blob in hex. More keys can be added to
//! it, and the first one removed; the id stays. The account of a certificate has the SHA-256 of its authority and its
//! principal for an id.
//!
//! Two records are involved ([`record`]): the account's, which lists its keys and decides, and the key's, which names one
//! account. A key opens an account when both agree. Each is changed by compare-and-swap alone, in this order:
//!
//! ```text
//! add      the key names A  →  A lists the key  →  the key names A, written once more
//! remove   another key names A, written once more  →  the removal is announced (`removal.rs`)  →  A lists the key no more
//!          →  the key's record is deleted
//! ```
//!
//! A gateway that dies between two steps leaves a key that opens nothing and that anybody may claim, or one that opens
//! its account. A key is taken over only with the version of its record that was read *before* its account was seen not
//! to list it. So a key whose record is written while it is listed stays with its account for as long as it is listed:
//! who read the record before that fails, and who reads it later sees that it is listed. That is why the record of a key
//! that is to remain is written before another one is removed: it can be counted on.

mod keys;
pub mod record;
mod removal;
mod sharers;

pub use keys::{Added, KeyError, KeyInUse, KeyRemoved};
pub use record::{Certified, KeyEntry, KeyId};
pub use sharers::Sharers;

use crate::plain::plain;
use boxpool::{Clock, Effect, Error, ErrorKind, Result, StateStore, SystemClock, Timestamp, UserId, Version};
use record::{AccountRecord, KeyRecord, hex, texts};
use russh::keys::PublicKey;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// How often one change is tried. Each try fails only because another change of the same account or key succeeded.
const TRIES: usize = 20;

/// How often it is noted at most that a key logged in, so that it costs no write for each login.
pub const USED_EVERY: Duration = Duration::from_secs(3_600);

/// A user of the gateway, as one login shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who owns the boxes.
    pub id: UserId,
    /// The fingerprint of the key that logged in, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The key that logged in, in OpenSSH's format without its comment.
    pub key: String,
    /// Whether the key was added to the account, rather than having made it.
    pub key_was_added: bool,
    /// When the key logged in before, as far as was noted.
    pub key_used: Option<Timestamp>,
    /// When the account was made.
    pub created: Timestamp,
    /// What the certificate says, when one logged in.
    pub certified: Option<Certified>,
}

impl Account {
    /// Whether it is to be noted that the key logged in at `now`. Counted both ways: a clock that ran ahead once must not
    /// keep this from being noted for ever.
    #[must_use]
    pub fn use_is_to_be_noted(&self, now: Timestamp) -> bool {
        self.certified.is_none() && is_stale(self.key_used, now)
    }
}

fn is_stale(used: Option<Timestamp>, now: Timestamp) -> bool {
    used.is_none_or(|used| u128::from(now.0.abs_diff(used.0)) >= USED_EVERY.as_millis())
}

/// The account id that `key` makes when nobody knows it.
///
/// # Errors
/// Never for a key that could be parsed.
pub fn account_id(key: &PublicKey) -> Result<UserId> {
    KeyId::of(key).account()
}

/// What a key is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It opens this account.
    Opens(Account),
    /// Nobody knows it; it may make an account.
    Unknown,
    /// It made an account, and was removed from it. It makes no second one, since the id would be the same.
    Removed,
}

/// Accounts and their keys, beside the boxes in the pool's own store.
#[derive(Clone)]
pub struct Accounts {
    store: Arc<dyn StateStore>,
}

/// What a key's record says, with its version, and which account follows from it.
struct Look {
    pointer: Option<(Version, KeyRecord)>,
    opens: Option<AccountRecord>,
    removed: bool,
}

/// How a conditional write went.
enum Written {
    Yes(Version),
    /// Something changed meanwhile, or the answer was lost: look again.
    LookAgain,
}

impl Accounts {
    /// Accounts in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store }
    }

    /// What `key` is here.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find(&self, key: &PublicKey) -> Result<Finding> {
        let id = KeyId::of(key);
        let made = id.account()?;
        // Most keys open the account that they made: one wait for the store instead of two.
        let (pointer, own) = futures::join!(self.pointer(&id), self.account(&made));
        if let (Some((_, record)), true) = (own?, pointer?.is_none_or(|(_, key)| key.account == made))
            && record.entry(&id).is_some()
        {
            return Ok(Finding::Opens(seen_by(&record, key)?));
        }
        let look = self.look(&id).await?;
        match look.opens {
            Some(record) => Ok(Finding::Opens(seen_by(&record, key)?)),
            None if look.removed => Ok(Finding::Removed),
            None => Ok(Finding::Unknown),
        }
    }

    /// The account that `key` opens; made when nobody knows the key. Doing it twice is safe, and so is doing it on several
    /// gateways at once.
    ///
    /// # Errors
    /// `Unauthorized` when the key was removed from the account that it made; when the store fails.
    pub async fn ensure(&self, key: &PublicKey) -> Result<Account> {
        let id = KeyId::of(key);
        for _ in 0..TRIES {
            let look = self.look(&id).await?;
            if let Some(record) = look.opens {
                return seen_by(&record, key);
            }
            if look.removed {
                let detail = "this key was removed from its account; it makes no other one";
                return Err(Error::new(ErrorKind::Unauthorized, "make account", &id).with_detail(detail));
            }
            let record = AccountRecord::of_key(key, SystemClock.now())?;
            let Written::Yes(claim) = self.claim(&id, &record.id, look.pointer).await? else { continue };
            let Written::Yes(_) = self.insert(&AccountRecord::at(&record.id), &record).await? else { continue };
            tracing::info!(account = %record.id, key = %id, "new account");
            let named = KeyRecord::new(&record.id);
            if let Written::Yes(_) = self.update(&KeyRecord::at(&id), &claim, &named).await? {
                return seen_by(&record, key);
            }
        }
        Err(contended("make account", &id))
    }

    /// The account of certificates that name `certified`; `key` is the certificate's.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn ensure_certified(&self, certified: Certified, key: &PublicKey) -> Result<Account> {
        // The id of a key is the hash of a key's blob, which never begins like this.
        let named = format!("boxpool certificate\n{}\n{}", certified.authority, certified.principal);
        let id = UserId::new(hex(&Sha256::digest(named.as_bytes())))
            .map_err(|error| Error::new(ErrorKind::Invalid, "read certificate", "certificate").with_source(error))?;
        for _ in 0..TRIES {
            if let Some((_, record)) = self.account(&id).await? {
                return seen_by(&record, key);
            }
            let record = AccountRecord::of_certificates(id.clone(), certified.clone(), SystemClock.now());
            if let Written::Yes(_) = self.insert(&AccountRecord::at(&id), &record).await? {
                tracing::info!(account = %id, principal = %plain(&certified.principal), "new account");
                return seen_by(&record, key);
            }
        }
        Err(contended("make account", &id))
    }

    /// Follows a key to its account.
    async fn look(&self, key: &KeyId) -> Result<Look> {
        let made = key.account()?;
        for _ in 0..TRIES {
            let pointer = self.pointer(key).await?;
            if let Some((_, record)) = pointer.as_ref().filter(|(_, record)| record.account != made) {
                let named = self.account(&record.account).await?.map(|(_, account)| account);
                if let Some(account) = named.filter(|account| account.entry(key).is_some()) {
                    return Ok(Look { pointer, opens: Some(account), removed: false });
                }
            }
            let own = self.account(&made).await?.map(|(_, account)| account);
            let Some(own) = own else { return Ok(Look { pointer, opens: None, removed: false }) };
            if own.entry(key).is_none() {
                return Ok(Look { pointer, opens: None, removed: true });
            }
            match &pointer {
                // Claimed by another account that died before it listed the key, while the key made its own account.
                Some((version, record)) if record.account != made => {
                    self.update(&KeyRecord::at(key), version, &KeyRecord::new(&made)).await?;
                }
                _ => return Ok(Look { pointer, opens: Some(own), removed: false }),
            }
        }
        Err(contended("find key", key))
    }

    /// Claims a key that opens nothing for `account`, from what was seen of its record.
    async fn claim(&self, key: &KeyId, account: &UserId, seen: Option<(Version, KeyRecord)>) -> Result<Written> {
        let (at, claim) = (KeyRecord::at(key), KeyRecord::new(account));
        match seen {
            None => self.insert(&at, &claim).await,
            Some((version, _)) => self.update(&at, &version, &claim).await,
        }
    }

    async fn account(&self, id: &UserId) -> Result<Option<(Version, AccountRecord)>> {
        let Some(stored) = self.store.get(&AccountRecord::at(id)).await? else { return Ok(None) };
        Ok(Some((stored.version, AccountRecord::read(&stored.value, id)?)))
    }

    async fn pointer(&self, key: &KeyId) -> Result<Option<(Version, KeyRecord)>> {
        let Some(stored) = self.store.get(&KeyRecord::at(key)).await? else { return Ok(None) };
        Ok(Some((stored.version, KeyRecord::read(&stored.value, key)?)))
    }

    async fn insert(&self, at: &boxpool::Key, record: &impl serde::Serialize) -> Result<Written> {
        written(self.store.insert(at, &text(at, record)?).await)
    }

    async fn update(&self, at: &boxpool::Key, version: &Version, record: &impl serde::Serialize) -> Result<Written> {
        written(self.store.update(at, version, &text(at, record)?).await)
    }
}

fn text(at: &boxpool::Key, record: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(record)
        .map_err(|error| Error::new(ErrorKind::Permanent, "write account", at).with_source(error))
}

fn written(result: Result<Version>) -> Result<Written> {
    match result {
        Ok(version) => Ok(Written::Yes(version)),
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Conflict | ErrorKind::NotFound) => {
            Ok(Written::LookAgain)
        }
        Err(error) if error.effect() == Effect::Unknown => Ok(Written::LookAgain),
        Err(error) => Err(error),
    }
}

fn seen_by(record: &AccountRecord, key: &PublicKey) -> Result<Account> {
    let (fingerprint, line) = texts(key)?;
    let (id, certified) = (record.id.clone(), record.certified.clone());
    let key = KeyId::of(key);
    let key_was_added = certified.is_none() && key.as_str() != id.as_str();
    let key_used = record.entry(&key).and_then(|entry| entry.used);
    Ok(Account { id, fingerprint, key: line, key_was_added, key_used, created: record.created, certified })
}

fn contended(operation: &'static str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Busy, operation, what).with_detail("too many changes at once; try again in a moment")
}

#[cfg(test)]
mod tests;
