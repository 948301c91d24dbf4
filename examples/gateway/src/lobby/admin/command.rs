//! The commands for administrators, parsed.

use crate::duration::Span;
use crate::exit::Refusal;
use crate::lobby::words;
use boxpool::Region;
use std::time::Duration;

/// One command for administrators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// What there is.
    Help,
    /// Who is connected to this gateway.
    Sessions,
    /// Ends one connection, or all of an account.
    Kick(String),
    /// What there is in the pool.
    Pools,
    /// What the maintainer would do.
    Plan,
    /// What was set aside for a person.
    Quarantine,
    /// Makes what was set aside somebody's box.
    Release {
        /// Which disk.
        disk: String,
        /// Whose: an account's id, or how it begins.
        owner: String,
        /// What the box is called.
        name: String,
    },
    /// Deletes what was set aside.
    Erase {
        /// Which disk.
        disk: String,
        /// Whether it is meant.
        yes: bool,
    },
    /// The machines, one by one.
    Machines,
    /// Takes a machine out of use.
    Cordon {
        /// Which: its id, or how that begins.
        machine: String,
        /// Whether it is to be emptied and deleted.
        drain: bool,
        /// Why; may be empty.
        why: String,
    },
    /// Takes a machine back into use.
    Uncordon(String),
    /// Lets the pool's maintenance rest.
    Pause {
        /// For so long.
        time: Duration,
        /// Why; may be empty.
        why: String,
    },
    /// Ends that rest.
    Resume,
    /// Stops this gateway.
    Drain {
        /// Whether it is meant.
        yes: bool,
    },
    /// Why a box is where it is.
    Explain {
        /// Whose: an account's id, or how it begins.
        owner: String,
        /// Which.
        name: String,
    },
    /// The newest events, of one account or of all.
    Events(Option<String>),
}

/// How each is written, and what it does.
pub const USAGES: &[(&str, &str, &str)] = &[
    ("help", "admin help", "what there is"),
    ("sessions", "admin sessions", "who is connected to this gateway"),
    ("kick", "admin kick SESSION|ACCOUNT", "end a connection, or all of an account"),
    ("pools", "admin pools", "machines, disks, boxes and gateways, counted"),
    ("plan", "admin plan", "what would be made or retired now, and why"),
    ("quarantine", "admin quarantine list", "what was set aside for a person, and why"),
    ("quarantine", "admin quarantine release DISK ACCOUNT/BOX", "make a disk that was set aside somebody's box"),
    ("quarantine", "admin quarantine delete DISK --yes", "delete a disk that was set aside, for good"),
    ("machines", "admin machines", "the machines, one by one"),
    ("cordon", "admin cordon MACHINE [--drain] [--why TEXT]", "have nobody new come onto a machine, or empty it"),
    ("uncordon", "admin uncordon MACHINE", "take a machine back into use"),
    ("pause", "admin pause DURATION [WHY]", "let the pool's maintenance rest, at most 24h"),
    ("resume", "admin resume", "end that rest"),
    ("drain", "admin drain --yes", "stop this gateway as SIGTERM does"),
    ("explain", "admin explain ACCOUNT/BOX", "where a box is, and why"),
    ("events", "admin events [ACCOUNT]", "the newest events"),
];

/// A command for administrators as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What to do.
    pub command: Command,
    /// In which region, if that was said.
    pub region: Option<Region>,
}

/// Parses a command line that begins with `admin`. The second part says whether JSON was asked for.
pub fn parse(line: &str) -> (Result<Parsed, Refusal>, bool) {
    let words = match words::split(line) {
        Ok(words) => words,
        Err(why) => return (Err(Refusal::usage(format!("{why}; try \"admin help\""))), false),
    };
    let json = words.iter().any(|word| word.text == "--json");
    let mut words: Vec<&str> = words.iter().map(|word| word.text.as_str()).filter(|word| *word != "--json").collect();
    let mut region = None;
    if let Some(at) = words.iter().position(|word| *word == "--region") {
        let named = words.get(at + 1).map(|name| Region::new(*name));
        let Some(Ok(named)) = named else {
            return (Err(Refusal::usage("--region needs the name of a region; try \"admin help\"")), json);
        };
        region = Some(named);
        words.drain(at..at + 2);
    }
    (command(words.get(1..).unwrap_or_default()).map(|command| Parsed { command, region }), json)
}

fn command(words: &[&str]) -> Result<Command, Refusal> {
    Ok(match words {
        [] | ["help" | "--help" | "-h"] => Command::Help,
        ["sessions"] => Command::Sessions,
        ["kick", whom] => Command::Kick((*whom).to_owned()),
        ["pools"] => Command::Pools,
        ["plan"] => Command::Plan,
        ["quarantine", "list"] => Command::Quarantine,
        ["quarantine", "release", disk, which] if which.contains('/') => {
            let (owner, name) = box_of(which);
            Command::Release { disk: (*disk).to_owned(), owner, name }
        }
        ["quarantine", "delete", disk] => Command::Erase { disk: (*disk).to_owned(), yes: false },
        ["quarantine", "delete", disk, "--yes"] => Command::Erase { disk: (*disk).to_owned(), yes: true },
        ["machines"] => Command::Machines,
        ["cordon", machine, flags @ ..] if cordon_flags(flags).is_some() => {
            let (drain, why) = cordon_flags(flags).unwrap_or_default();
            Command::Cordon { machine: (*machine).to_owned(), drain, why: why.to_owned() }
        }
        ["uncordon", machine] => Command::Uncordon((*machine).to_owned()),
        ["pause", time, why @ ..] => {
            let Some(Span(time)) = Span::parse(time) else {
                return Err(Refusal::usage(
                    "it is written: admin pause DURATION [WHY], with a duration such as 30m or 2h",
                ));
            };
            Command::Pause { time, why: why.join(" ") }
        }
        ["resume"] => Command::Resume,
        ["drain"] => Command::Drain { yes: false },
        ["drain", "--yes"] => Command::Drain { yes: true },
        ["explain", which] if which.contains('/') => {
            let (owner, name) = box_of(which);
            Command::Explain { owner, name }
        }
        ["events"] => Command::Events(None),
        ["events", whose] => Command::Events(Some((*whose).to_owned())),
        [verb, ..] => {
            let usages: Vec<&str> =
                USAGES.iter().filter(|(name, ..)| name == verb).map(|(_, usage, _)| *usage).collect();
            return Err(Refusal::usage(match usages[..] {
                [_, ..] => format!("it is written: {}", usages.join(", or ")),
                [] => format!("\"{verb}\" is not a command for administrators; try \"admin help\""),
            }));
        }
    })
}

fn cordon_flags<'a>(flags: &[&'a str]) -> Option<(bool, &'a str)> {
    match *flags {
        [] => Some((false, "")),
        ["--drain"] => Some((true, "")),
        ["--why", why] => Some((false, why)),
        ["--drain", "--why", why] | ["--why", why, "--drain"] => Some((true, why)),
        _ => None,
    }
}

fn box_of(which: &str) -> (String, String) {
    let (owner, name) = which.split_once('/').unwrap_or_default();
    (owner.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_as_the_help_says_is_understood_and_all_else_is_refused_with_the_usage() {
        for (name, usage, _) in USAGES {
            let line = usage
                .replace("SESSION|ACCOUNT", "c1")
                .replace("ACCOUNT/BOX", "aa/dev1")
                .replace("[ACCOUNT]", "aa")
                .replace("DURATION", "2h")
                .replace(['[', ']'], "");
            assert!(parse(&line).0.is_ok(), "{line}");
            let (wrong, _) = parse(&format!("admin {name} a b c"));
            assert!(wrong.unwrap_err().message.contains("admin"), "{name}");
        }
        let plain = |command| Ok(Parsed { command, region: None });
        assert_eq!(parse("admin --json"), (plain(Command::Help), true));
        assert_eq!(parse("admin events --json").0, plain(Command::Events(None)));
        let there = Parsed { command: Command::Pools, region: Some(Region::new("b").unwrap()) };
        assert_eq!(parse("admin pools --region b").0, Ok(there.clone()));
        assert_eq!(parse("admin --region b pools").0, Ok(there));
        for line in [
            "admin pools --region",
            "admin pools --region ../b",
            "admin frobnicate",
            "admin explain dev1",
            "admin 'x",
            "admin quarantine",
            "admin kick",
        ] {
            assert_eq!(parse(line).0.unwrap_err().code, crate::exit::ExitCode::Usage, "{line}");
        }
    }
}
