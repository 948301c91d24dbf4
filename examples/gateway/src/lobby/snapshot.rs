//! The commands about copies of boxes: snapshots that are kept, and boxes made of them or of other boxes.

use super::Answer;
use crate::boxes::{BoxSummary, SnapshotSummary};
use crate::connection::Connection;
use crate::exit::{ExitCode, Refusal};
use crate::login;
use crate::moment;
use boxpool::{BoxName, Clock, ErrorKind, SnapshotName, SystemClock, Timestamp};
use serde_json::json;
use std::fmt::Write;

/// A command about copies of boxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotCommand {
    /// One more.
    Create {
        /// Of which box.
        of: BoxName,
        /// What it is to be called; made up when it is not said.
        called: Option<SnapshotName>,
    },
    /// Which there are, of one box or of all.
    List(Option<BoxName>),
    /// A box is made of it.
    Restore {
        /// Of which.
        from: SnapshotName,
        /// What the box is to be called.
        to: BoxName,
    },
    /// It goes.
    Delete {
        /// Which.
        called: SnapshotName,
        /// Whether the user said that it is meant.
        yes: bool,
    },
    /// A box is made of another one.
    Duplicate {
        /// Of which.
        of: BoxName,
        /// What the new one is to be called.
        to: BoxName,
    },
}

impl SnapshotCommand {
    /// Which it is, without what was typed after it.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "snapshot create",
            Self::List(_) => "snapshot list",
            Self::Restore { .. } => "snapshot restore",
            Self::Delete { .. } => "snapshot delete",
            Self::Duplicate { .. } => "duplicate",
        }
    }

    /// The box that it names.
    #[must_use]
    pub fn target(&self) -> Option<&BoxName> {
        match self {
            Self::Create { of: name, .. }
            | Self::List(Some(name))
            | Self::Restore { to: name, .. }
            | Self::Duplicate { of: name, .. } => Some(name),
            Self::List(None) | Self::Delete { .. } => None,
        }
    }
}

/// How the commands are written.
pub(super) const USAGE: &str = "snapshot create BOX [NAME], snapshot list [BOX], snapshot restore NAME NEWBOX, or \
                                snapshot delete NAME --yes";
pub(super) const USAGE_OF_DUPLICATE: &str = "duplicate BOX NEWBOX";

/// Parses the words after `snapshot`.
///
/// # Errors
/// What is wrong with them.
pub(super) fn parse(words: &[&str]) -> Result<SnapshotCommand, String> {
    let name = |name: &str| login::box_name(name).map_err(|refusal| refusal.message);
    let called = |name: &str| SnapshotName::new(name).map_err(|error| error.to_string());
    match words {
        ["create", of] => Ok(SnapshotCommand::Create { of: name(of)?, called: None }),
        ["create", of, to] => Ok(SnapshotCommand::Create { of: name(of)?, called: Some(called(to)?) }),
        ["list"] => Ok(SnapshotCommand::List(None)),
        ["list", of] => Ok(SnapshotCommand::List(Some(name(of)?))),
        ["restore", from, to] => Ok(SnapshotCommand::Restore { from: called(from)?, to: name(to)? }),
        ["delete", which] => Ok(SnapshotCommand::Delete { called: called(which)?, yes: false }),
        ["delete", which, "--yes"] | ["delete", "--yes", which] => {
            Ok(SnapshotCommand::Delete { called: called(which)?, yes: true })
        }
        _ => Err(format!("it is written: {USAGE}")),
    }
}

/// Parses the words after `duplicate`.
///
/// # Errors
/// What is wrong with them.
pub(super) fn parse_duplicate(words: &[&str]) -> Result<SnapshotCommand, String> {
    let name = |name: &str| login::box_name(name).map_err(|refusal| refusal.message);
    match words {
        [of, to] => Ok(SnapshotCommand::Duplicate { of: name(of)?, to: name(to)? }),
        _ => Err(format!("it is written: {USAGE_OF_DUPLICATE}")),
    }
}

/// Does what a command about copies says.
///
/// # Errors
/// Why not.
pub(super) async fn answer(connection: &Connection, command: &SnapshotCommand) -> Result<Answer, Refusal> {
    let (owner, boxes) = (&connection.account()?.id, &connection.gateway.boxes);
    match command {
        SnapshotCommand::Create { of, called } => {
            super::find(connection, of).await?;
            let most = connection.gateway.settings.snapshots_per_user;
            if boxes.list_snapshots(owner).await?.len() >= most {
                let sentence = format!("you have {most} snapshots, which is the most; delete one first");
                return Err(Refusal::new(ExitCode::Failed, sentence));
            }
            let called = match called {
                Some(called) => called.clone(),
                None => made_up(of, SystemClock.now())?,
            };
            let kept = boxes.take_snapshot(owner, of, &called).await.map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => taken(&called),
                _ => Refusal::from(error),
            })?;
            let text = format!(
                "snapshot {called} of box {of} is kept; make a box of it with: snapshot restore {called} NEWBOX\n\
                 it has what was on the disk: what the box held in memory alone is not in it (\"stop {of}\" writes all of it)\n"
            );
            Ok(Answer { text, json: json!(kept) })
        }
        SnapshotCommand::List(of) => {
            let mut all = boxes.list_snapshots(owner).await?;
            all.retain(|each| of.as_ref().is_none_or(|of| each.of == of.as_str()));
            let mut text = String::new();
            for SnapshotSummary { name, of, state, created, region, .. } in &all {
                let place = region.as_ref().map(|region| format!("  in {region}")).unwrap_or_default();
                let _ = writeln!(text, "{name:<32}  {state:<8}  {}  of {of}{place}", moment::rfc3339(*created));
            }
            if all.is_empty() {
                text.push_str("no snapshots; keep one with: snapshot create BOX\n");
            }
            Ok(Answer { text, json: json!({"snapshots": all}) })
        }
        SnapshotCommand::Restore { from, to } => {
            let known = boxes.list_snapshots(owner).await?.iter().any(|each| each.name == from.as_str());
            if !known {
                return Err(no_snapshot(from));
            }
            super::room_for(connection, to).await?;
            let made = boxes.restore(owner, from, to).await.map_err(|error| exists_or(error, to))?;
            Ok(told(connection, &made, &format!("snapshot {from}")))
        }
        SnapshotCommand::Delete { called, yes } => {
            let known = boxes.list_snapshots(owner).await?.iter().any(|each| each.name == called.as_str());
            if !known {
                return Err(no_snapshot(called));
            }
            if !yes {
                let sentence =
                    format!("this deletes the snapshot \"{called}\"; if you mean it: snapshot delete {called} --yes");
                return Err(Refusal::usage(sentence));
            }
            boxes.delete_snapshot(owner, called).await?;
            let text = format!("snapshot {called} is deleted; boxes that were made of it stay\n");
            Ok(Answer { text, json: json!({"name": called, "status": "deleted"}) })
        }
        SnapshotCommand::Duplicate { of, to } => {
            super::find(connection, of).await?;
            super::room_for(connection, to).await?;
            let made = boxes.duplicate(owner, of, to).await.map_err(|error| exists_or(error, to))?;
            Ok(told(connection, &made, &format!("box {of}")))
        }
    }
}

fn told(connection: &Connection, made: &BoxSummary, of: &str) -> Answer {
    let connect = connection.gateway.settings.ssh_line(&made.name);
    let text = format!(
        "box {} is a copy of {of}, with keys of its own; it boots when you connect with: {connect}\n",
        made.name
    );
    Answer { text, json: json!({"name": made.name, "state": made.state, "connect": connect}) }
}

fn no_snapshot(called: &SnapshotName) -> Refusal {
    Refusal::new(ExitCode::NotFound, format!("no snapshot named \"{called}\"; see \"snapshot list\""))
}

fn taken(called: &SnapshotName) -> Refusal {
    let refusal = Refusal::new(ExitCode::Failed, format!("you have a snapshot named \"{called}\" already"));
    Refusal { kind: "already_exists", ..refusal }
}

fn exists_or(error: boxpool::Error, to: &BoxName) -> Refusal {
    match error.kind() {
        ErrorKind::AlreadyExists => super::exists(to),
        _ => Refusal::from(error),
    }
}

/// The box's name, as much of it as there is room for, and when it was.
fn made_up(of: &BoxName, now: Timestamp) -> Result<SnapshotName, Refusal> {
    let when: String = moment::rfc3339(now).chars().filter(char::is_ascii_digit).take("202611261855".len()).collect();
    let box_name: String = of.as_str().chars().take(32 - 1 - when.len()).collect();
    SnapshotName::new(format!("{box_name}-{when}")).map_err(|error| Refusal::usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_made_up_fits() {
        let at = Timestamp(1_709_164_859_999);
        let made = |of: &str| made_up(&BoxName::new(of).unwrap(), at).unwrap().to_string();
        assert_eq!(made("dev1"), "dev1-202402290000");
        assert_eq!(made(&"x".repeat(32)), format!("{}-202402290000", "x".repeat(19)));
    }

    #[test]
    fn what_is_written_wrongly_is_told_how() {
        assert_eq!(parse(&["list"]), Ok(SnapshotCommand::List(None)));
        for words in [&[][..], &["create"], &["create", "a", "b", "c"], &["delete"], &["delete", "a", "--now"], &["x"]]
        {
            assert!(parse(words).unwrap_err().contains("snapshot create"), "{words:?}");
        }
        assert!(parse(&["create", "dev1", "../x"]).unwrap_err().contains("snapshot name"));
        assert!(parse(&["restore", "s", "root"]).unwrap_err().contains("reserved"));
        assert!(parse_duplicate(&["dev1"]).unwrap_err().contains("duplicate BOX NEWBOX"));
    }
}
