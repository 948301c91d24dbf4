//! The commands about the account's keys.

use super::Answer;
use super::input::Input;
use crate::account::{KeyEntry, KeyError, KeyId, KeyInUse};
use crate::connection::Connection;
use crate::exit::{ExitCode, Refusal};
use crate::moment::minute;
use crate::plain::plain;
use crate::removed;
use boxpool::{Clock, SystemClock};
use russh::keys::PublicKey;
use serde_json::{Value, json};
use std::fmt::Write;

/// A command about keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyCommand {
    /// The account's keys.
    List,
    /// One more.
    Add {
        /// What to call it.
        label: Option<String>,
        /// The key in OpenSSH's format; it comes by standard input when there is none.
        key: Option<String>,
    },
    /// One less.
    Remove {
        /// Its label or fingerprint.
        named: String,
        /// Whether the user said that it is meant.
        yes: bool,
    },
    /// Calls one something else.
    Rename {
        /// Its label or fingerprint.
        named: String,
        /// The new label.
        label: String,
    },
}

impl KeyCommand {
    /// Which it is, without what was typed after it.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::List => "key list",
            Self::Add { .. } => "key add",
            Self::Remove { .. } => "key remove",
            Self::Rename { .. } => "key rename",
        }
    }
}

/// How the commands are written.
pub(super) const USAGE: &str =
    "key list, key add [LABEL] [PUBLIC-KEY], key remove LABEL|FINGERPRINT, or key rename OLD NEW";

/// Parses the words after `key`.
///
/// # Errors
/// What is wrong with them.
pub(super) fn parse(words: &[&str]) -> Result<KeyCommand, String> {
    let written = |why: &str| format!("{why}; it is written: {USAGE}");
    let (verb, words) = words.split_first().ok_or_else(|| written("key needs to be told what to do"))?;
    if *verb == "add" {
        return parse_add(words).map_err(|why| written(&why));
    }
    let (flags, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
    let yes = flags.contains(&"--yes");
    if let Some(flag) = flags.iter().find(|flag| **flag != "--yes" || *verb != "remove") {
        return Err(written(&format!("key {verb} does not know {flag}")));
    }
    match (*verb, names.as_slice()) {
        ("list", []) => Ok(KeyCommand::List),
        ("remove", [named]) => Ok(KeyCommand::Remove { named: (*named).to_owned(), yes }),
        ("rename", [named, label]) => Ok(KeyCommand::Rename { named: (*named).to_owned(), label: (*label).to_owned() }),
        ("list" | "remove" | "rename", _) => Err(written(&format!("key {verb} has too few or too many words"))),
        _ => Err(written(&format!("\"key {verb}\" is not a command of the gateway"))),
    }
}

fn parse_add(words: &[&str]) -> Result<KeyCommand, String> {
    let begins_key = |word: &&str| ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| word.starts_with(kind));
    let key_at = words.iter().position(begins_key).unwrap_or(words.len());
    let (before, key) = words.split_at(key_at);
    let label = match before {
        [] => None,
        [flag] if flag.starts_with('-') => return Err(format!("key add does not know {flag}")),
        [label] => Some((*label).to_owned()),
        _ => return Err("key add has a word too many".into()),
    };
    Ok(KeyCommand::Add { label, key: (!key.is_empty()).then(|| key.join(" ")) })
}

/// Does what a command about keys says.
///
/// # Errors
/// Why not.
pub(super) async fn answer(connection: &Connection, command: &KeyCommand, input: Input) -> Result<Answer, Refusal> {
    let account = connection.account()?;
    let (accounts, most) = (&connection.gateway.accounts, connection.gateway.settings.keys_per_user);
    if let (KeyCommand::List, Some(certified)) = (command, &account.certified) {
        let (principal, authority) = (plain(&certified.principal), &certified.authority);
        let text = format!("no keys: you are here by a certificate of \"{principal}\", from {authority}\n");
        return Ok(Answer { text, json: json!({"keys": [], "keys_max": 0, "certificate": certified}) });
    }
    let in_use = PublicKey::from_openssh(&account.key)
        .map_err(|_| Refusal::new(ExitCode::Failed, "the key that you are logged in with cannot be read"))?;
    let who = KeyInUse { account: account.id.clone(), key: KeyId::of(&in_use) };
    Ok(match command {
        KeyCommand::List => {
            let keys = accounts.keys(&who).await?;
            let mut text = String::new();
            for each in &keys {
                let mark = if each.id == who.key { "*" } else { " " };
                let kind = each.key.split(' ').next().unwrap_or_default();
                let used = each.used.map_or_else(|| "never used".into(), |at| format!("last used {}", minute(at)));
                let _ = writeln!(text, "{mark} {:<24}  {}  {used}  {kind}", each.label, each.fingerprint);
            }
            let _ = writeln!(text, "* the key you are logged in with; {} of {most} keys", keys.len());
            let keys: Vec<Value> = keys.iter().map(|each| describe(each, &who.key)).collect();
            Answer { text, json: json!({"keys": keys, "keys_max": most, "certificate": null}) }
        }
        KeyCommand::Add { label, key } => {
            let line = match key {
                Some(line) => line.clone(),
                None => given(input, &connection.gateway.settings.ssh_line("gateway"))?,
            };
            let key = read_key(&line)?;
            let added = accounts.add_key(&who, &key, label.as_deref(), most, SystemClock.now()).await?;
            tracing::info!(account = %account.id, key = %added.key.fingerprint, "key added");
            let text = format!("key \"{}\" is added: {}\n", added.key.label, added.key.fingerprint);
            let mut json = describe(&added.key, &who.key);
            json["keys"] = added.keys.into();
            json["keys_max"] = most.into();
            Answer { text, json }
        }
        KeyCommand::Remove { named, yes } => {
            let gone = accounts.remove_key(&who, named, *yes, SystemClock.now()).await?;
            tracing::info!(account = %account.id, key = %gone.key.fingerprint, "key removed");
            let (label, fingerprint, in_use) = (&gone.key.label, &gone.key.fingerprint, gone.in_use);
            // This connection hears the answer first; like those to other gateways, it ends at the next look.
            let (me, key) = (Some(connection.visit.id), &gone.key.id);
            let ended = removed::key::end(&connection.gateway, &account.id, me, |each| each == key);
            let mut text = format!("key \"{label}\" is removed: {fingerprint}\n");
            if ended > 0 {
                let _ = writeln!(text, "connections that it had made here, and were ended: {ended}");
            }
            if in_use {
                text.push_str("it is the one you are logged in with: this connection ends in a moment, too, and the next login needs another key\n");
            }
            let json = json!({
                "label": label, "fingerprint": fingerprint, "in_use": in_use, "status": "removed", "ended": ended,
            });
            Answer { text, json }
        }
        KeyCommand::Rename { named, label } => {
            let renamed = accounts.rename_key(&who, named, label).await?;
            let text = format!("key \"{}\" is now \"{}\": {}\n", plain(named), renamed.label, renamed.fingerprint);
            Answer { text, json: describe(&renamed, &who.key) }
        }
    })
}

fn describe(entry: &KeyEntry, in_use: &KeyId) -> Value {
    json!({
        "label": entry.label, "fingerprint": entry.fingerprint, "public_key": entry.key, "added": entry.added,
        "last_used": entry.used, "in_use": entry.id == *in_use,
    })
}

/// The one line of standard input that holds a key.
fn given(input: Input, ssh: &str) -> Result<String, Refusal> {
    let how = format!("send one public key, for example: {ssh} key add < ~/.ssh/id_ed25519.pub");
    let refuse = |why: &str| Err(Refusal::usage(format!("{why}; {how}")));
    let text = match input {
        Input::All(bytes) => String::from_utf8(bytes).unwrap_or_default(),
        Input::TooLong => return refuse("standard input is too long for a public key"),
        Input::TooSlow => return refuse("no public key came in time"),
        Input::Terminal | Input::Unread => return refuse("a terminal cannot be read here"),
    };
    if text.contains("PRIVATE KEY") {
        return refuse(
            "this is a private key, which nobody should have but you: it was not kept, but do not send it again",
        );
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.to_owned()),
        (None, _) => refuse("no public key came by standard input"),
        _ => refuse("standard input holds more than one line"),
    }
}

fn read_key(line: &str) -> Result<PublicKey, Refusal> {
    if line.contains("-cert-v01@openssh.com") {
        return Err(Refusal::usage("this is a certificate; what can be added is a public key"));
    }
    PublicKey::from_openssh(line)
        .map_err(|_| Refusal::usage("this is not a public key as ssh-keygen writes it, such as: ssh-ed25519 AAAA…"))
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        let (kind, code) = match &error {
            KeyError::Store(error) => return Refusal::from(error),
            KeyError::Certified(_) => ("certified", ExitCode::Failed),
            KeyError::Gone => ("not_allowed", ExitCode::Failed),
            KeyError::Yours(_) | KeyError::LabelTaken(_) => ("already_exists", ExitCode::Failed),
            KeyError::Taken => ("taken", ExitCode::Failed),
            KeyError::TooMany(_) => ("too_many", ExitCode::Failed),
            KeyError::BadLabel(_) | KeyError::BadKey(_) | KeyError::InUse(_) => ("usage", ExitCode::Usage),
            KeyError::NotFound(_) => ("not_found", ExitCode::NotFound),
            KeyError::Last(_) => ("last_key", ExitCode::Failed),
        };
        Self { kind, ..Self::new(code, error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_words_of_the_line_or_comes_by_standard_input() {
        let add = |label: Option<&str>, key: Option<&str>| KeyCommand::Add {
            label: label.map(str::to_owned),
            key: key.map(str::to_owned),
        };
        assert_eq!(parse(&["add"]).unwrap(), add(None, None));
        assert_eq!(parse(&["add", "work"]).unwrap(), add(Some("work"), None));
        assert_eq!(parse(&["add", "ssh-rsa", "AA", "me", "x"]).unwrap(), add(None, Some("ssh-rsa AA me x")));
        assert_eq!(parse(&["add", "work", "sk-ssh-x", "AA"]).unwrap(), add(Some("work"), Some("sk-ssh-x AA")));
        let remove = KeyCommand::Remove { named: "work".into(), yes: true };
        assert_eq!(parse(&["remove", "work", "--yes"]).unwrap(), remove);
        for words in [
            &[][..],
            &["list", "x"],
            &["remove"],
            &["rename", "a"],
            &["add", "a", "b"],
            &["burn"],
            &["list", "--yes"],
            &["add", "-x"],
        ] {
            assert!(parse(words).unwrap_err().contains("key list"), "{words:?}");
        }
    }

    #[test]
    fn standard_input_holds_one_key_and_a_private_one_is_never_repeated() {
        let read = |text: &str| given(Input::All(text.into()), "ssh gateway");
        assert_eq!(read("# mine\n\n ssh-ed25519 AAAA me \n").unwrap(), "ssh-ed25519 AAAA me");
        for (text, part) in [("", "no public key"), ("a\nb\n", "more than one"), ("\n#x\n", "no public key")] {
            assert!(read(text).unwrap_err().message.contains(part), "{text:?}");
        }
        let private = read("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n").unwrap_err();
        assert!(private.message.contains("private key") && !private.message.contains("secret"));
        for input in [Input::TooLong, Input::TooSlow, Input::Terminal] {
            assert_eq!(given(input, "ssh gateway").unwrap_err().code, ExitCode::Usage);
        }
        assert!(read_key("ssh-ed25519-cert-v01@openssh.com AAAA").unwrap_err().message.contains("certificate"));
        assert!(!read_key("no\u{1b}key").unwrap_err().message.contains('\u{1b}'));
    }
}
