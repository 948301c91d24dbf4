//! Who shares boxes with an account, so that it can be told which: hints, for boxes are found by their owner alone.
//!
//! One record for each account names the owners. Which boxes of theirs are shared, and whether any still is, the boxes' own
//! records say, each time anew. So nothing is to be done here when a box is renamed, deleted or had back.
//!
//! A hint is written *after* the box says so, and once more where it is there already: who has seen before that an owner shares
//! nothing, and is about to drop the hint, finds the record changed and leaves it. A gateway that dies before the hint leaves
//! a share without one; the same command again makes up for that, and so does a connect of the guest.
//!
//! The record is beside the account's own and not in it, since others have it written: however often they do, the account's
//! keys can be changed meanwhile.

use super::record::ACCOUNTS;
use super::{Accounts, TRIES, Written, contended};
use boxpool::{Error, ErrorKind, Key, Result, UserId, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// So many owners are remembered; the one that was noted longest ago makes room.
const MOST: usize = 100;

/// Who shares boxes with an account, as far as was noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SharersRecord {
    schema: u32,
    /// The one that was noted last comes last.
    owners: Vec<UserId>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl SharersRecord {
    fn at(account: &UserId) -> Key {
        Key::new(ACCOUNTS, account.as_str(), "sharers")
    }
}

/// Owners who may share boxes with an account, as they were read.
#[derive(Debug)]
pub struct Sharers {
    account: UserId,
    seen: Option<(Version, SharersRecord)>,
}

impl Sharers {
    /// Who they are.
    #[must_use]
    pub fn owners(&self) -> &[UserId] {
        self.seen.as_ref().map_or(&[], |(_, record)| &record.owners)
    }
}

impl Accounts {
    /// The owners who may share boxes with `account`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sharers(&self, account: &UserId) -> Result<Sharers> {
        let seen = match self.store.get(&SharersRecord::at(account)).await? {
            None => None,
            Some(stored) => {
                let corrupt = |error| Error::new(ErrorKind::Corrupt, "read sharers", account).with_source(error);
                Some((stored.version, serde_json::from_str(&stored.value).map_err(corrupt)?))
            }
        };
        Ok(Sharers { account: account.clone(), seen })
    }

    /// Notes that `owner` shares a box with `account`, once the box's record says so. An account that nobody has made is not
    /// noted anything: else anybody could fill the store with names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_sharer(&self, account: &UserId, owner: &UserId) -> Result<()> {
        if self.account(account).await?.is_none() {
            return Ok(());
        }
        let at = SharersRecord::at(account);
        for _ in 0..TRIES {
            let written = match self.sharers(account).await?.seen {
                None => {
                    let owners = vec![owner.clone()];
                    self.insert(&at, &SharersRecord { schema: 1, owners, unknown: Map::new() }).await?
                }
                Some((version, mut record)) => {
                    record.owners.retain(|each| each != owner);
                    record.owners.push(owner.clone());
                    let too_many = record.owners.len().saturating_sub(MOST);
                    record.owners.drain(..too_many);
                    self.update(&at, &version, &record).await?
                }
            };
            if let Written::Yes(_) = written {
                return Ok(());
            }
        }
        Err(contended("note sharer", account))
    }

    /// Drops those who turned out to share nothing, unless anything was noted since they were read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn drop_sharers(&self, read: Sharers, gone: &BTreeSet<UserId>) -> Result<()> {
        let Some((version, mut record)) = read.seen else { return Ok(()) };
        record.owners.retain(|owner| !gone.contains(owner));
        // When it has changed meanwhile, the next look does it.
        self.update(&SharersRecord::at(&read.account), &version, &record).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::record::{AccountRecord, Certified};
    use boxpool::{MemoryStore, Timestamp};
    use std::sync::Arc;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    /// Accounts of which ada has one.
    async fn accounts() -> Accounts {
        let accounts = Accounts::new(Arc::new(MemoryStore::new()));
        let certified = Certified { authority: "ca".into(), principal: "ada".into() };
        let record = AccountRecord::of_certificates(user("ada"), certified, Timestamp(1));
        accounts.insert(&AccountRecord::at(&user("ada")), &record).await.unwrap();
        accounts
    }

    #[tokio::test]
    async fn an_owner_who_shares_again_is_not_dropped_by_who_looked_before() {
        let (accounts, ada, bob) = (accounts().await, user("ada"), user("bob"));
        accounts.note_sharer(&ada, &bob).await.unwrap();
        let before = accounts.sharers(&ada).await.unwrap();
        accounts.note_sharer(&ada, &bob).await.unwrap();
        let gone = BTreeSet::from([bob.clone()]);
        accounts.drop_sharers(before, &gone).await.unwrap();
        assert_eq!(accounts.sharers(&ada).await.unwrap().owners(), std::slice::from_ref(&bob));
        accounts.drop_sharers(accounts.sharers(&ada).await.unwrap(), &gone).await.unwrap();
        assert!(accounts.sharers(&ada).await.unwrap().owners().is_empty());
    }

    #[tokio::test]
    async fn so_many_owners_are_remembered_the_latest_of_them_and_only_for_accounts_that_are_there() {
        let (accounts, ada) = (accounts().await, user("ada"));
        for number in 0..=MOST {
            accounts.note_sharer(&ada, &user(&format!("owner-{number}"))).await.unwrap();
        }
        accounts.note_sharer(&ada, &user("owner-1")).await.unwrap();
        let noted = accounts.sharers(&ada).await.unwrap();
        let (first, last) = (noted.owners().first(), noted.owners().last());
        assert_eq!((first, last, noted.owners().len()), (Some(&user("owner-2")), Some(&user("owner-1")), MOST));

        accounts.note_sharer(&user("nobody"), &ada).await.unwrap();
        assert!(accounts.sharers(&user("nobody")).await.unwrap().seen.is_none());
    }
}
