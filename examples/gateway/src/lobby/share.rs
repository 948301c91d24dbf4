//! The commands about who else may connect to a box.

use super::Answer;
use crate::boxes::BoxSummary;
use crate::connection::Connection;
use crate::exit::Refusal;
use crate::login;
use crate::moment;
use crate::removed_share;
use boxpool::{BoxName, UserId};
use serde_json::json;
use std::fmt::Write;

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
                let ssh = connection.gateway.settings.ssh_line("gateway");
                return Ok(told(&shared, format!("they connect with: {ssh} -t connect {name} --of {owner}\n")));
            }
            // Those at other gateways end at the next look.
            let ended = removed_share::end(&connection.gateway, owner, name, |guest| guest == account);
            let mut answer = told(&shared, format!("it connects no more; connections that were ended here: {ended}\n"));
            answer.json["ended"] = ended.into();
            Ok(answer)
        }
    }
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
