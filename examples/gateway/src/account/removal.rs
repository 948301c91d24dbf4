//! That a key is about to be removed, told to all gateways, so that each ends the connections that were made with it.
//!
//! One record for each account that removed a key lately, all of them in one place of the accounts' table: a gateway reads
//! that place with one question, however many are connected to it. The record is written *before* the account lists the key
//! no more, so no removal that happened is missed. It decides nothing: the account's list does.

use super::record::ACCOUNTS;
use super::{Accounts, KeyId, TRIES, Written, contended};
use boxpool::{ErrorKind, Key, Result, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// The partition of these records. No account and no key has such an id.
const PARTITION: &str = "removals";

/// How long they are kept: far longer than a gateway takes to see one, and than clocks differ.
const KEPT: Duration = Duration::from_secs(3_600);

/// Records in one answer of the store.
const PAGE: usize = 500;

/// That an account removes a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Removal {
    schema: u32,
    at: Timestamp,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Removal {
    fn new(at: Timestamp) -> Self {
        Self { schema: 1, at, unknown: Map::new() }
    }

    fn at(account: &UserId) -> Key {
        Key::new(ACCOUNTS, PARTITION, account.as_str())
    }
}

impl Accounts {
    /// Tells all gateways that `account` is about to remove a key.
    pub(super) async fn announce_removal(&self, account: &UserId, now: Timestamp) -> Result<()> {
        let (at, removal) = (Removal::at(account), Removal::new(now));
        for _ in 0..TRIES {
            let written = match self.store.get(&at).await? {
                None => self.insert(&at, &removal).await?,
                Some(stored) => self.update(&at, &stored.version, &removal).await?,
            };
            if let Written::Yes(_) = written {
                return Ok(());
            }
        }
        Err(contended("announce removal", account))
    }

    /// The accounts that have removed a key lately, or were about to. What is old is deleted on the way.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn removals(&self, now: Timestamp) -> Result<Vec<UserId>> {
        let (mut accounts, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.store.scan(ACCOUNTS, Some(PARTITION), cursor.as_ref(), PAGE).await?;
            for entry in page.items {
                let (removal, account) =
                    (serde_json::from_str(&entry.stored.value), UserId::new(entry.key.row.as_str()));
                let (Ok::<Removal, _>(removal), Ok(account)) = (removal, account) else {
                    tracing::warn!(key = %entry.key, "this record of a removal cannot be read");
                    continue; // the others can
                };
                if u128::from(now.0.saturating_sub(removal.at.0)) > KEPT.as_millis() {
                    match self.store.delete(&entry.key, &entry.stored.version).await {
                        Err(error) if error.kind() == ErrorKind::Conflict => {} // the account removes one again
                        result => result?,
                    }
                    continue;
                }
                accounts.push(account);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(accounts);
            }
        }
    }

    /// The keys that `account` lists; `None` when there is no such account.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn listed_keys(&self, account: &UserId) -> Result<Option<BTreeSet<KeyId>>> {
        let found = self.account(account).await?;
        Ok(found.map(|(_, record)| record.keys.into_iter().map(|entry| entry.id).collect()))
    }
}
