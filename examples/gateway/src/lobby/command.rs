//! The gateway's commands, parsed.

use super::key::{self, KeyCommand};
use super::share::{self, ShareCommand};
use super::snapshot::{self, SnapshotCommand};
use super::words;
use crate::exit::Refusal;
use crate::login;
use crate::size::Size;
use boxpool::{BoxName, Region, UserId};

/// One command of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What there is.
    Help,
    /// Who the user is here.
    Whoami,
    /// What runs here.
    Version,
    /// Makes a box.
    Spinup {
        /// Which.
        name: BoxName,
        /// In which region, if the user said so.
        region: Option<Region>,
    },
    /// Takes a box to another region.
    Move {
        /// Which.
        name: BoxName,
        /// Where to.
        to: Region,
        /// Whether the user said that it is meant.
        yes: bool,
    },
    /// The user's boxes.
    List,
    /// All about one box.
    Show(BoxName),
    /// Goes into a box, to its shell or for one command line.
    Connect {
        /// Which.
        name: BoxName,
        /// Whose, if it is not the user's own.
        of: Option<UserId>,
        /// A command line; the shell when there is none.
        command: Option<String>,
    },
    /// Brings a box up without going into it.
    Start(BoxName),
    /// Shuts a box down.
    Stop(BoxName),
    /// Grows a box's disk.
    Resize {
        /// Which.
        name: BoxName,
        /// To what.
        size: Size,
        /// Whether the user said that it is meant.
        yes: bool,
    },
    /// Calls a box something else.
    Rename {
        /// Which.
        name: BoxName,
        /// What.
        to: BoxName,
    },
    /// What happened to a box.
    Events {
        /// Which.
        name: BoxName,
        /// How many at most, the newest.
        limit: usize,
    },
    /// Has a box run without anybody in it, or no more.
    Keepalive {
        /// Which.
        name: BoxName,
        /// Which of the two.
        on: bool,
    },
    /// Deletes a box for good.
    Delete {
        /// Which.
        name: BoxName,
        /// Whether the user said that it is meant.
        yes: bool,
        /// Whether it is not to be had back.
        now: bool,
    },
    /// Has a deleted box back.
    Undelete(BoxName),
    /// What the user's boxes have used.
    Usage(Option<BoxName>),
    /// Who else may connect.
    Share(ShareCommand),
    /// Copies of boxes.
    Snapshot(SnapshotCommand),
    /// How the pool does.
    Status,
    /// About the user's keys.
    Key(KeyCommand),
}

impl Command {
    /// Which it is, in the words that [`USAGES`] lists.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::Whoami => "whoami",
            Self::Version => "version",
            Self::Spinup { .. } => "spinup",
            Self::Move { .. } => "move",
            Self::List => "list",
            Self::Show(_) => "show",
            Self::Connect { .. } => "connect",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Resize { .. } => "resize",
            Self::Rename { .. } => "rename",
            Self::Events { .. } => "events",
            Self::Keepalive { .. } => "keepalive",
            Self::Delete { .. } => "delete",
            Self::Undelete(_) => "undelete",
            Self::Usage(_) => "usage",
            Self::Share(command) => command.verb(),
            Self::Snapshot(command) => command.verb(),
            Self::Status => "status",
            Self::Key(command) => command.verb(),
        }
    }

    /// The box that it names.
    #[must_use]
    pub fn target(&self) -> Option<&BoxName> {
        match self {
            Self::Spinup { name, .. }
            | Self::Move { name, .. }
            | Self::Show(name)
            | Self::Connect { name, .. }
            | Self::Undelete(name)
            | Self::Usage(Some(name))
            | Self::Start(name)
            | Self::Stop(name)
            | Self::Resize { name, .. }
            | Self::Rename { name, .. }
            | Self::Events { name, .. }
            | Self::Keepalive { name, .. }
            | Self::Delete { name, .. } => Some(name),
            Self::Share(command) => Some(command.target()),
            Self::Snapshot(command) => command.target(),
            Self::Help
            | Self::Whoami
            | Self::Version
            | Self::List
            | Self::Usage(None)
            | Self::Status
            | Self::Key(_) => None,
        }
    }
}

/// A command as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What to do.
    pub command: Command,
    /// Whether to answer in JSON.
    pub json: bool,
}

/// So many events are told when nobody says how many.
const EVENTS_SHOWN: usize = 50;
/// And so many at most.
const EVENTS_MAX: usize = 1_000;

/// Another word for `spinup`.
const CREATE: &str = "create";

/// How each command is written, and what it does.
pub const USAGES: &[(&str, &str, &str)] = &[
    ("help", "help", "what there is"),
    ("whoami", "whoami", "your account and your key"),
    ("version", "version", "the gateway's version"),
    ("spinup", "spinup NAME [--region REGION]", "make a new box; so does create NAME"),
    ("list", "list", "your boxes, and where each of them is"),
    ("show", "show NAME", "all about one box, and how long the last connect took"),
    (
        "connect",
        "connect NAME [--of ACCOUNT] [-- COMMAND…]",
        "go into a box, yours or shared, or run one command in it",
    ),
    ("start", "start NAME", "bring a box up without going into it"),
    ("stop", "stop NAME", "shut a box down; it boots when you come back"),
    ("resize", "resize NAME SIZE --yes", "grow a box's disk, to 20G, say; the box is shut down for it"),
    ("move", "move NAME REGION --yes", "take a box to another region, where there are several; it is shut down for it"),
    ("rename", "rename OLD NEW", "call a box something else; it must not be running"),
    ("keepalive", "keepalive NAME on|off", "have a box run without anybody in it"),
    ("delete", "delete NAME --yes [--now]", "delete a box and everything in it; with --now it cannot be had back"),
    ("undelete", "undelete NAME", "have a deleted box back"),
    ("snapshot create", "snapshot create BOX [NAME]", "keep a copy of a box's disk; nobody may be in it meanwhile"),
    ("snapshot list", "snapshot list [BOX]", "your snapshots"),
    ("snapshot restore", "snapshot restore NAME NEWBOX", "make a box of a snapshot"),
    ("snapshot delete", "snapshot delete NAME --yes", "delete a snapshot; boxes made of it stay"),
    ("duplicate", "duplicate BOX NEWBOX", "make a box that is a copy of another"),
    ("share list", "share list NAME", "who else may connect to a box, and has"),
    ("share add", "share add NAME ACCOUNT", "let another account connect to a box"),
    ("share remove", "share remove NAME ACCOUNT", "let it connect no more"),
    ("usage", "usage [NAME]", "how often your boxes were connected to, and how long they ran"),
    ("events", "events NAME [--limit N]", "what happened to a box, the newest last"),
    ("status", "status", "how the pool does"),
    ("key list", "key list", "your keys; the one in use is marked"),
    ("key add", "key add [LABEL] [PUBLIC-KEY]", "add a key, or the one on standard input"),
    ("key remove", "key remove LABEL|FINGERPRINT", "remove a key; the one in use only with --yes"),
    ("key rename", "key rename OLD NEW", "call a key something else"),
];

/// Whether a command line begins with one of the gateway's commands. One that is no text is none.
#[must_use]
pub fn is_command(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let first = line.split_ascii_whitespace().next().unwrap_or_default();
    USAGES.iter().any(|(name, ..)| name.split(' ').next() == Some(first))
        || matches!(first, CREATE | "--help" | "-h" | "--version")
}

/// Parses a command line. The second part of an error says whether JSON was asked for.
///
/// # Errors
/// A usage refusal that names what is wrong.
pub fn parse(line: &str) -> Result<Parsed, (Refusal, bool)> {
    let words = words::split(line).map_err(|why| (Refusal::usage(format!("{why}; try \"help\"")), false))?;
    // What follows `--` belongs to the command in the box, `--json` included.
    let own = words.iter().position(|word| word.text == "--").unwrap_or(words.len());
    let rest = words.get(own).map(|dashes| line[dashes.end..].trim().to_owned()).filter(|rest| !rest.is_empty());
    let json = words[..own].iter().any(|word| word.text == "--json");
    let fail = |message: String| (Refusal::usage(message), json);

    let mut plain = words[..own].iter().map(|word| word.text.as_str()).filter(|word| *word != "--json");
    let Some(verb) = plain.next() else { return Ok(Parsed { command: Command::Help, json }) };
    let verb = if verb == CREATE { "spinup" } else { verb };
    if matches!(verb, "key" | "share" | "snapshot" | "duplicate") {
        let usage = match verb {
            "key" => key::USAGE,
            "share" => share::USAGE,
            "snapshot" => snapshot::USAGE,
            _ => snapshot::USAGE_OF_DUPLICATE,
        };
        if rest.is_some() {
            return Err(fail(format!("{verb} takes nothing after --; it is written: {usage}")));
        }
        let words = plain.collect::<Vec<_>>();
        let command = match verb {
            "key" => Command::Key(key::parse(&words).map_err(fail)?),
            "share" => Command::Share(share::parse(&words).map_err(fail)?),
            "snapshot" => Command::Snapshot(snapshot::parse(&words).map_err(fail)?),
            _ => Command::Snapshot(snapshot::parse_duplicate(&words).map_err(fail)?),
        };
        return Ok(Parsed { command, json });
    }
    let Some((_, usage, _)) = USAGES.iter().find(|(name, ..)| *name == verb) else {
        return match verb {
            "--help" | "-h" => Ok(Parsed { command: Command::Help, json }),
            "--version" => Ok(Parsed { command: Command::Version, json }),
            _ => Err(fail(format!("\"{verb}\" is not a command of the gateway; try \"help\""))),
        };
    };
    let (mut names, mut yes, mut now, mut of, mut limit) = (Vec::new(), false, false, None, EVENTS_SHOWN);
    let mut region = None;
    while let Some(word) = plain.next() {
        match word {
            "--yes" if matches!(verb, "delete" | "resize" | "move") => yes = true,
            "--now" if verb == "delete" => now = true,
            "--of" if verb == "connect" => {
                let account = plain.next().map(UserId::new);
                let Some(Ok(account)) = account else {
                    return Err(fail(format!("--of needs an account, as \"whoami\" shows it; it is written: {usage}")));
                };
                of = Some(account);
            }
            "--region" if verb == "spinup" => {
                let Some(Ok(named)) = plain.next().map(Region::new) else {
                    return Err(fail(format!("--region needs the name of a region; it is written: {usage}")));
                };
                region = Some(named);
            }
            "--limit" if verb == "events" => {
                let number = plain.next().and_then(|number| number.parse().ok());
                let Some(number) = number.filter(|number| (1..=EVENTS_MAX).contains(number)) else {
                    return Err(fail(format!("--limit is 1 to {EVENTS_MAX}; it is written: {usage}")));
                };
                limit = number;
            }
            flag if flag.starts_with('-') => {
                return Err(fail(format!("{verb} does not know {flag}; it is written: {usage}")));
            }
            name => names.push(name),
        }
    }
    let takes_name = matches!(
        verb,
        "spinup"
            | "show"
            | "connect"
            | "delete"
            | "undelete"
            | "start"
            | "stop"
            | "keepalive"
            | "resize"
            | "move"
            | "rename"
            | "events"
    );
    let mut size = None;
    if verb == "resize" && !names.is_empty() {
        size = match names.split_off(1).as_slice() {
            [size] => Size::parse(size),
            _ => None,
        };
        if size.is_none() {
            return Err(fail(format!("resize needs a size such as 20G or 1T; it is written: {usage}")));
        }
    }
    if verb == "move" && !names.is_empty() {
        region = match names.split_off(1).as_slice() {
            [to] => Region::new(*to).ok(),
            _ => None,
        };
        if region.is_none() {
            return Err(fail(format!("move needs the name of a box and of a region; it is written: {usage}")));
        }
    }
    let mut to = None;
    if verb == "rename" && !names.is_empty() {
        to = match names.split_off(1).as_slice() {
            [to] => Some(*to),
            _ => return Err(fail(format!("rename needs the name of a box and its new one; it is written: {usage}"))),
        };
    }
    let mut on = false;
    if verb == "keepalive" {
        on = match names.split_off(names.len().min(1)).as_slice() {
            ["on"] => true,
            ["off"] => false,
            _ if names.is_empty() => false,
            _ => return Err(fail(format!("keepalive is on or off; it is written: {usage}"))),
        };
    }
    let name = match names.as_slice() {
        [] if takes_name => return Err(fail(format!("{verb} needs the name of a box; it is written: {usage}"))),
        [name] if takes_name || verb == "usage" => Some(*name),
        [] => None,
        [.., extra] => return Err(fail(format!("{verb} has a word too many, \"{extra}\"; it is written: {usage}"))),
    };
    if rest.is_some() && verb != "connect" {
        return Err(fail(format!("{verb} takes nothing after --; it is written: {usage}")));
    }
    let checked = |name: Option<&str>| login::box_name(name.unwrap_or_default()).map_err(|refusal| (refusal, json));
    let command = match verb {
        "help" => Command::Help,
        "whoami" => Command::Whoami,
        "version" => Command::Version,
        "spinup" => Command::Spinup { name: checked(name)?, region },
        "move" => {
            let Some(to) = region else { return Err(fail(format!("it is written: {usage}"))) };
            Command::Move { name: checked(name)?, to, yes }
        }
        "list" => Command::List,
        "show" => Command::Show(checked(name)?),
        "connect" => Command::Connect { name: checked(name)?, of, command: rest },
        "start" => Command::Start(checked(name)?),
        "stop" => Command::Stop(checked(name)?),
        "resize" => {
            let Some(size) = size else { return Err(fail(format!("it is written: {usage}"))) };
            Command::Resize { name: checked(name)?, size, yes }
        }
        "rename" => Command::Rename { name: checked(name)?, to: checked(to)? },
        "events" => Command::Events { name: checked(name)?, limit },
        "keepalive" => Command::Keepalive { name: checked(name)?, on },
        "delete" => Command::Delete { name: checked(name)?, yes, now },
        "undelete" => Command::Undelete(checked(name)?),
        "usage" => Command::Usage(name.map(|name| checked(Some(name))).transpose()?),
        _ => Command::Status,
    };
    Ok(Parsed { command, json })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> BoxName {
        BoxName::new(text).unwrap()
    }

    #[test]
    fn json_may_stand_anywhere_before_the_dashes() {
        for line in ["list --json", "--json list"] {
            assert_eq!(parse(line).unwrap(), Parsed { command: Command::List, json: true });
        }
        let parsed = parse("connect dev1 -- echo --json  'a  b'").unwrap();
        let command = Command::Connect { name: name("dev1"), of: None, command: Some("echo --json  'a  b'".into()) };
        assert_eq!(parsed, Parsed { command, json: false });
    }

    #[test]
    fn create_is_spinup() {
        let made = Command::Spinup { name: name("dev1"), region: None };
        assert_eq!(parse("create dev1").unwrap().command, made);
        assert!(is_command(b"create dev1"));
    }

    #[test]
    fn wrong_usage_is_refused_with_the_right_usage() {
        for (line, part) in [
            ("frobnicate", "not a command"),
            ("spinup", "needs the name"),
            ("spinup a b", "a word too many"),
            ("list dev1", "a word too many"),
            ("list --force", "does not know --force"),
            ("spinup ../etc", "not valid"),
            ("spinup root", "reserved"),
            ("list -- x", "nothing after --"),
            ("spinup 'x", "not closed"),
            ("stop", "needs the name"),
            ("connect dev1 --of", "needs an account"),
            ("connect dev1 --of ../x", "needs an account"),
            ("share", "share list"),
            ("share add dev1", "share list"),
            ("share add dev1 ../x", "account"),
            ("keepalive", "needs the name"),
            ("keepalive a", "on or off"),
            ("keepalive a maybe", "on or off"),
            ("keepalive a on off", "on or off"),
            ("spinup a --region", "name of a region"),
            ("spinup a --region ../b", "name of a region"),
            ("list --region b", "does not know --region"),
            ("move", "needs the name"),
            ("move a", "a box and of a region"),
            ("move a b c", "a box and of a region"),
            ("move a ../b", "a box and of a region"),
            ("resize", "needs the name"),
            ("resize a", "needs a size"),
            ("resize a 20", "needs a size"),
            ("resize a 20G 30G", "needs a size"),
            ("rename", "needs the name"),
            ("rename a", "its new one"),
            ("rename a b c", "its new one"),
            ("rename a root", "reserved"),
            ("rename a ../b", "not valid"),
            ("list --yes", "does not know --yes"),
            ("events", "needs the name"),
            ("events a --limit 0", "--limit is 1 to"),
            ("events a --limit", "--limit is 1 to"),
        ] {
            let (refusal, _) = parse(line).unwrap_err();
            assert!(refusal.message.contains(part), "{line}: {refusal}");
            assert_eq!(refusal.code, crate::exit::ExitCode::Usage);
        }
    }

    #[test]
    fn an_empty_line_and_flags_alone_are_understood() {
        assert_eq!(parse("").unwrap().command, Command::Help);
        assert_eq!(parse("--help").unwrap().command, Command::Help);
        assert!(
            is_command(b"list --json")
                && is_command(b"key")
                && !is_command(b"uname -a")
                && !is_command(b"\xff\xfe")
                && !is_command(b"-h\n\xcf")
        );
        let kept = Command::Keepalive { name: name("dev1"), on: true };
        assert_eq!(parse("keepalive dev1 on").unwrap().command, kept);
        let theirs = Command::Connect { name: name("dev1"), of: Some(UserId::new("ada").unwrap()), command: None };
        assert_eq!(parse("connect dev1 --of ada").unwrap().command, theirs);
        let resize = Command::Resize { name: name("dev1"), size: Size(20 << 30), yes: true };
        assert_eq!(parse("resize dev1 20G --yes").unwrap().command, resize);
        let rename = Command::Rename { name: name("dev1"), to: name("dev2") };
        assert_eq!(parse("rename dev1 dev2").unwrap().command, rename);
        let events = Command::Events { name: name("dev1"), limit: 7 };
        assert_eq!(parse("events dev1 --limit 7").unwrap().command, events);
        assert_eq!(parse("usage").unwrap().command, Command::Usage(None));
        let delete = Command::Delete { name: name("dev1"), yes: true, now: false };
        assert_eq!(parse("delete dev1 --yes").unwrap().command, delete);
    }
}
