//! The commands about who else may connect to a box.

use super::Answer;
use crate::account::Accounts;
use crate::boxes::BoxSummary;
use crate::connection::Connection;
use crate::exit::Refusal;
use crate::login;
use crate::moment;
use crate::removed;
use boxpool::{BoxName, Report, UserId};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Owners whose boxes are looked up at the same time.
const LOOKS_AT_ONCE: usize = 8;

/// A command about who else may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareCommand {
    /// Who may, and has.
    List(BoxName),
    /// One more, or one less.
    Set {
        /// To which box.
        name: BoxName,
        /// Whose account.
        account: UserId,
        /// Which of the two.
        allowed: bool,
    },
}

impl ShareCommand {
    /// Which it is, without what was typed after it.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::List(_) => "share list",
            Self::Set { allowed: true, .. } => "share add",
            Self::Set { allowed: false, .. } => "share remove",
        }
    }

    /// The box that it names.
    #[must_use]
    pub fn target(&self) -> &BoxName {
        match self {
            Self::List(name) | Self::Set { name, .. } => name,
        }
    }
}

/// How the commands are written.
pub(super) const USAGE: &str = "share list NAME, share add NAME ACCOUNT, or share remove NAME ACCOUNT";

/// Parses the words after `share`.
///
/// # Errors
/// What is wrong with them.
pub(super) fn parse(words: &[&str]) -> Result<ShareCommand, String> {
    let name = |name: &str| login::box_name(name).map_err(|refusal| refusal.message);
    match words {
        ["list", of] => Ok(ShareCommand::List(name(of)?)),
        [verb @ ("add" | "remove"), of, account] => {
            let account = UserId::new(*account)
                .map_err(|error| format!("that is not an account as \"whoami\" shows it: {error}"))?;
            Ok(ShareCommand::Set { name: name(of)?, account, allowed: *verb == "add" })
        }
        _ => Err(format!("it is written: {USAGE}")),
    }
}

/// Does what a command about sharing says.
///
/// # Errors
/// Why not.
pub(super) async fn answer(connection: &Connection, command: &ShareCommand) -> Result<Answer, Refusal> {
    let found = super::find(connection, command.target()).await?;
    let owner = &connection.account()?.id;
    match command {
        ShareCommand::List(_) => Ok(told(&found, String::new())),
        ShareCommand::Set { name, account, allowed } => {
            let shared = connection.gateway.boxes.share(owner, name, account, *allowed).await?;
            if *allowed {
                note(&connection.gateway.accounts, account, owner).await;
                let ssh = connection.gateway.settings.ssh_line("gateway");
                return Ok(told(&shared, format!("they connect with: {ssh} -t connect {name} --of {owner}\n")));
            }
            // Those at other gateways end at the next look.
            let ended = removed::share::end(&connection.gateway, owner, name, |guest| guest == account);
            let mut answer = told(&shared, format!("it connects no more; connections that were ended here: {ended}\n"));
            answer.json["ended"] = ended.into();
            Ok(answer)
        }
    }
}

/// A box of somebody else that the user may connect to. Nothing more is told of it.
#[derive(Debug, Serialize)]
pub(super) struct SharedBox {
    pub(super) account: UserId,
    #[serde(rename = "box")]
    pub(super) name: String,
    pub(super) state: String,
}

/// The boxes of others that are shared with the user. Owners who share nothing with them any more are looked up no longer.
///
/// # Errors
/// When the store fails.
pub(super) async fn with_user(connection: &Connection) -> Result<Vec<SharedBox>, Refusal> {
    let (user, accounts) = (&connection.account()?.id, &connection.gateway.accounts);
    let boxes = &connection.gateway.boxes;
    let is_meant = |each: &BoxSummary| each.shares.iter().any(|share| share.account == *user);
    let sharers = accounts.sharers(user).await?;
    let look = |owner: UserId| async move {
        let mut shared = boxes.list(&owner).await?;
        shared.retain(is_meant);
        // One that is deleted can be had back, with its shares.
        let is_gone = shared.is_empty() && !boxes.list_deleted(&owner).await?.iter().any(is_meant);
        Ok::<_, Refusal>((owner, shared, is_gone))
    };
    let looks = futures::stream::iter(sharers.owners().to_vec()).map(look).buffered(LOOKS_AT_ONCE);
    let (mut all, mut gone) = (Vec::new(), BTreeSet::new());
    for (owner, shared, is_gone) in looks.try_collect::<Vec<_>>().await? {
        let of_owner = |each: BoxSummary| SharedBox { account: owner.clone(), name: each.name, state: each.state };
        all.extend(shared.into_iter().map(of_owner));
        if is_gone {
            gone.insert(owner);
        }
    }
    if !gone.is_empty() {
        accounts.drop_sharers(sharers, &gone).await?;
    }
    Ok(all)
}

/// Notes for `guest` that `owner` shares a box with them. The share stands without it: they connect all the same.
async fn note(accounts: &Accounts, guest: &UserId, owner: &UserId) {
    if let Err(error) = accounts.note_sharer(guest, owner).await {
        tracing::warn!(%guest, %owner, error = %Report(&error), "the share is not in the guest's list");
    }
}

/// Sees to it that what the user connects to as a guest of `owner` is in their list: it may have been shared through a gateway
/// that died before it noted that, or that did not know how to. Nobody waits for it.
pub(super) fn note_guest(connection: &Connection, owner: &UserId) {
    let Ok(guest) = connection.account().map(|account| account.id.clone()) else { return };
    if guest == *owner {
        return;
    }
    let (accounts, owner) = (connection.gateway.accounts.clone(), owner.clone());
    tokio::spawn(async move {
        if !accounts.sharers(&guest).await.is_ok_and(|sharers| sharers.owners().contains(&owner)) {
            note(&accounts, &guest, &owner).await;
        }
    });
}

fn told(shared: &BoxSummary, after: String) -> Answer {
    let mut text = String::new();
    for each in &shared.shares {
        let used = each.last_used.map_or_else(|| "never".to_owned(), moment::rfc3339);
        let _ = writeln!(text, "{}  {} connects, the last: {used}", each.account, each.connects);
    }
    if shared.shares.is_empty() {
        let _ = writeln!(text, "box {} is yours alone", shared.name);
    }
    text.push_str(&after);
    Answer { text, json: json!({"name": shared.name, "shares": shared.shares}) }
}
