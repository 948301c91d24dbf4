//! The lobby: the gateway's own commands.
//!
//! Answers go to standard output, refusals to standard error as one sentence. With `--json` the answer is one JSON
//! object; a refusal is one as well, still on standard error: `{"error":{"kind":"not_found","message":"…"}}`, and
//! standard output stays empty. Fields are only ever added. Exit codes: [`ExitCode`].

pub mod admin;
mod command;
pub mod input;
mod key;
mod share;
mod show;
mod snapshot;
mod words;

pub use command::{Command, Parsed, USAGES, is_command, parse};
pub use key::KeyCommand;
pub use share::ShareCommand;
pub use snapshot::SnapshotCommand;

use crate::boxes::BoxSummary;
use crate::connection::Connection;
use crate::exit::{ExitCode, Refusal};
use crate::login;
use crate::moment;
use crate::plain::plain;
use crate::size::Size;
use crate::visit::{ChannelRecord, Kind};
use boxpool::{BoxName, Region, UserId};
use input::Input;
use serde_json::{Value, json};
use share::SharedBox;
use std::fmt::Write;
use std::time::Duration;
use tokio::sync::watch;

/// How far something is that takes long: a line that stands in for the one before. Nobody need read it.
pub type Notes = watch::Sender<String>;

/// What the lobby answers.
#[derive(Debug)]
pub enum Reply {
    /// Text, and an exit code.
    Say {
        /// For standard output, complete with its line ends.
        stdout: Option<String>,
        /// One line for standard error.
        stderr: Option<String>,
        /// How it ends.
        code: ExitCode,
    },
    /// The channel goes on to a box.
    Connect {
        /// Whose.
        owner: UserId,
        /// Which.
        name: BoxName,
        /// A command line; the shell when there is none.
        command: Option<String>,
    },
}

/// Whether the command reads standard input: [`run`] is to be given it.
#[must_use]
pub fn reads_input(line: &[u8]) -> bool {
    let parsed = std::str::from_utf8(line).ok().and_then(|line| parse(line).ok());
    parsed.is_some_and(|parsed| matches!(parsed.command, Command::Key(KeyCommand::Add { key: None, .. })))
}

/// Tells which command it is, without what a stranger may have typed by mistake.
pub fn tell(connection: &Connection, record: &ChannelRecord, line: Option<&[u8]>) {
    if let Some(line) = line.filter(|line| admin::is_command(connection, line)) {
        record.is_for(Kind::Admin);
        return record.does(&String::from_utf8_lossy(line));
    }
    let line = line.map(String::from_utf8_lossy).unwrap_or_default();
    match parse(&line) {
        Ok(parsed) => {
            record.does(parsed.command.verb());
            parsed.command.target().into_iter().for_each(|name| record.leads_to(name));
        }
        Err(_) => record.does("unknown"),
    }
}

/// Answers one command line; `None` is a login without a command.
///
/// What takes long says in `notes` how far it is.
pub async fn run(connection: &Connection, line: Option<&[u8]>, input: Input, notes: &Notes) -> Reply {
    let Some(line) = line else { return greet(connection) };
    if let Some(reply) = admin::run(connection, line).await {
        return reply;
    }
    let Ok(line) = std::str::from_utf8(line) else {
        return refuse(&Refusal::usage("a command of the gateway is text; try \"help\""), false);
    };
    let parsed = match parse(line) {
        Ok(parsed) => parsed,
        Err((refusal, json)) => return refuse(&explain(connection, line, refusal), json),
    };
    if let Command::Connect { name, of, command } = parsed.command {
        return match find_of(connection, of, &name).await {
            Ok(owner) => {
                share::note_guest(connection, &owner);
                Reply::Connect { owner, name, command }
            }
            Err(refusal) => refuse(&refusal, parsed.json),
        };
    }
    // Standard error has one JSON object then, or nothing.
    let quiet = Notes::default();
    let notes = if parsed.json { &quiet } else { notes };
    match answer(connection, &parsed.command, input, notes).await {
        Ok(answer) => Reply::Say {
            stdout: Some(if parsed.json { format!("{}\n", answer.json) } else { answer.text }),
            stderr: None,
            code: ExitCode::Done,
        },
        Err(refusal) => refuse(&refusal, parsed.json),
    }
}

/// That the login names no box, and what to do.
#[must_use]
pub fn no_box(login: &str) -> Refusal {
    match login::box_name(login) {
        Ok(name) => Refusal::new(
            ExitCode::NotFound,
            format!(
                "no box named \"{name}\"; make it with the command \"spinup {name}\", or see \"list\" and \"help\""
            ),
        ),
        Err(_) => Refusal::usage(format!("\"{login}\" is not the name of a box; try the command \"help\"")),
    }
}

/// Makes a box for the user, within their limit; in that region, if one is said.
///
/// # Errors
/// Why not.
pub async fn create_box(
    connection: &Connection,
    name: &BoxName,
    region: Option<&Region>,
) -> Result<BoxSummary, Refusal> {
    let (boxes, owner) = (&connection.gateway.boxes, &connection.account()?.id);
    if let Some(region) = region {
        check_region(connection, region)?;
    }
    room_for(connection, name).await?;
    let created = match region {
        Some(region) => boxes.create_in(owner, name, region).await,
        None => boxes.create(owner, name).await,
    };
    created.map_err(|error| match error.kind() {
        boxpool::ErrorKind::AlreadyExists => exists(name),
        _ => Refusal::from(error),
    })
}

fn exists(name: &BoxName) -> Refusal {
    Refusal {
        kind: "already_exists",
        ..Refusal::new(ExitCode::Failed, format!("you have a box named \"{name}\" already"))
    }
}

/// Whether the user may have one more box, of that name.
async fn room_for(connection: &Connection, name: &BoxName) -> Result<(), Refusal> {
    let most = connection.gateway.settings.boxes_per_user;
    let boxes = connection.gateway.boxes.list(&connection.account()?.id).await?;
    if boxes.iter().any(|known| known.name == name.as_str()) {
        return Err(exists(name));
    }
    if boxes.len() >= most {
        return Err(Refusal::new(
            ExitCode::Failed,
            format!("you have {most} boxes, which is the most; delete one first"),
        ));
    }
    Ok(())
}

struct Answer {
    text: String,
    json: Value,
}

async fn find(connection: &Connection, name: &BoxName) -> Result<BoxSummary, Refusal> {
    let owner = &connection.account()?.id;
    connection.gateway.boxes.get(owner, name).await?.ok_or_else(|| no_box(name.as_str()))
}

/// The owner of a box that the user may connect to. Others' boxes that are not shared with them are not there for them.
async fn find_of(connection: &Connection, of: Option<UserId>, name: &BoxName) -> Result<UserId, Refusal> {
    let user = &connection.account()?.id;
    let Some(owner) = of.filter(|owner| owner != user) else {
        return find(connection, name).await.map(|_| user.clone());
    };
    let found = connection.gateway.boxes.get(&owner, name).await?;
    if found.is_some_and(|found| found.shares.iter().any(|share| share.account == *user)) {
        return Ok(owner);
    }
    let sentence = format!("no box named \"{name}\" of that account is shared with you");
    Err(Refusal::new(ExitCode::NotFound, sentence))
}

async fn answer(connection: &Connection, command: &Command, input: Input, notes: &Notes) -> Result<Answer, Refusal> {
    let account = connection.account()?;
    let gateway = &connection.gateway;
    Ok(match command {
        Command::Help | Command::Connect { .. } => help(connection),
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            let json = json!({"name": "boxpool-gateway", "version": version});
            Answer { text: format!("boxpool-gateway {version}\n"), json }
        }
        Command::Whoami => {
            let boxes = gateway.boxes.list(&account.id).await?.len();
            let mut text = String::new();
            let _ = writeln!(text, "account  {}\nkey      {}", account.id, account.fingerprint);
            if let Some(certified) = &account.certified {
                let _ = writeln!(text, "by       a certificate of \"{}\"", plain(&certified.principal));
            }
            let _ = writeln!(text, "boxes    {boxes} of {}", gateway.settings.boxes_per_user);
            let json = json!({
                "account": account.id, "key": account.fingerprint, "public_key": account.key,
                "certificate": account.certified, "created": account.created, "boxes": boxes, "boxes_max": gateway.settings.boxes_per_user,
            });
            Answer { text, json }
        }
        Command::Spinup { name, region } => {
            let made = create_box(connection, name, region.as_ref()).await?;
            let connect = gateway.settings.ssh_line(name.as_str());
            let place = made.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
            let text = format!("box {name} is ready{place}; connect with: {connect}\n");
            let mut json = json!({"name": made.name, "state": made.state, "connect": connect});
            if let Some(region) = made.region {
                json["region"] = json!(region);
            }
            Answer { text, json }
        }
        Command::Move { name, to, yes } => travel(connection, name, to, *yes, notes).await?,
        Command::List => {
            let boxes = gateway.boxes.list(&account.id).await?;
            let mut text = String::new();
            for each in &boxes {
                let kept = if each.keepalive { "  kept running" } else { "" };
                let place = each.region.as_ref().map(|region| format!("  in {region}")).unwrap_or_default();
                let _ = writeln!(text, "{:<32}  {}{place}{kept}", each.name, each.state);
            }
            if boxes.is_empty() {
                text.push_str("no boxes yet; make one with: spinup NAME\n");
            }
            let deleted = gateway.boxes.list_deleted(&account.id).await?;
            for each in &deleted {
                let until = each.deleted_until.map(moment::rfc3339).unwrap_or_default();
                let _ = writeln!(text, "{:<32}  deleted; until {until}: undelete {}", each.name, each.name);
            }
            let shared = share::with_user(connection).await?;
            for each in &shared {
                let SharedBox { account, name, state } = each;
                let _ = writeln!(text, "{name:<32}  {state}  shared with you: connect {name} --of {account}");
            }
            Answer { text, json: json!({"boxes": boxes, "deleted": deleted, "shared": shared}) }
        }
        Command::Show(name) => show::answer(connection, find(connection, name).await?, name)?,
        Command::Start(name) => {
            find(connection, name).await?;
            let started = gateway.boxes.start(&account.id, name, gateway.settings.connect_limit).await?;
            Answer { text: format!("box {name} is up\n"), json: json!(started) }
        }
        Command::Stop(name) => {
            find(connection, name).await?;
            let stopped = gateway.boxes.stop(&account.id, name).await?;
            Answer { text: format!("box {name} is shut down; it boots when you come back\n"), json: json!(stopped) }
        }
        Command::Resize { name, size, yes } => resize(connection, name, *size, *yes).await?,
        Command::Rename { name, to } => rename(connection, name, to).await?,
        Command::Events { name, limit } => events(connection, name, *limit).await?,
        Command::Keepalive { name, on } => {
            find(connection, name).await?;
            let kept = gateway.boxes.keep(&account.id, name, *on).await?;
            let text = match on {
                true => format!("box {name} runs without anybody in it, until: keepalive {name} off, or stop {name}\n"),
                false => format!("box {name} waits suspended when nobody is in it\n"),
            };
            Answer { text, json: json!(kept) }
        }
        Command::Delete { name, yes, now } => delete(connection, name, *yes, *now).await?,
        Command::Undelete(name) => {
            let back = gateway.boxes.undelete(&account.id, name).await?;
            Answer { text: format!("you have box {name} back\n"), json: json!(back) }
        }
        Command::Usage(name) => {
            let boxes = match name {
                Some(name) => vec![find(connection, name).await?],
                None => gateway.boxes.list(&account.id).await?,
            };
            let mut text = String::new();
            for each in &boxes {
                let ran = Duration::from_secs(each.ran_ms / 1_000);
                let _ = writeln!(text, "{:<32}  ran {ran:?}, {} connects", each.name, each.connects);
            }
            let used = |each: &BoxSummary| json!({"name": each.name, "ran_ms": each.ran_ms, "connects": each.connects});
            Answer { text, json: json!({"boxes": boxes.iter().map(used).collect::<Vec<Value>>()}) }
        }
        Command::Share(command) => share::answer(connection, command).await?,
        Command::Snapshot(command) => snapshot::answer(connection, command).await?,
        Command::Key(command) => key::answer(connection, command, input).await?,
        Command::Status => {
            let status = gateway.boxes.status().await?;
            let mut text = String::new();
            let _ = writeln!(text, "free machines  {}\nfree disks     {}", status.instances_free, status.volumes_free);
            let _ = writeln!(text, "parked boxes   {}\nwaiting        {}", status.parked, status.waiting);
            let _ = writeln!(text, "gateways       {}", status.gateways);
            Answer { text, json: json!(status) }
        }
    })
}

async fn resize(connection: &Connection, name: &BoxName, size: Size, yes: bool) -> Result<Answer, Refusal> {
    let (owner, found) = (&connection.account()?.id, find(connection, name).await?);
    if let Some(has) = found.disk_bytes.map(Size).filter(|has| *has >= size) {
        return Err(Refusal::usage(format!("the disk of box {name} has {has}; it grows and never shrinks")));
    }
    if !yes {
        return Err(Refusal::usage(format!(
            "this shuts the box \"{name}\" down, and what runs in it ends; if you mean it: resize {name} {size} --yes"
        )));
    }
    let grown = connection.gateway.boxes.resize(owner, name, size).await?;
    let text = format!("the disk of box {name} has {size}; in the box, see that the file system has grown, too\n");
    Ok(Answer { text, json: json!(grown) })
}

/// `move NAME REGION`.
async fn travel(
    connection: &Connection,
    name: &BoxName,
    to: &Region,
    yes: bool,
    notes: &Notes,
) -> Result<Answer, Refusal> {
    check_region(connection, to)?;
    let (owner, found) = (&connection.account()?.id, find(connection, name).await?);
    if found.region.as_ref() == Some(to) && found.state != "moving" {
        return Ok(Answer { text: format!("box {name} lives in {to} already\n"), json: json!(found) });
    }
    if !yes {
        return Err(Refusal::usage(format!(
            "this shuts the box \"{name}\" down, and what runs in it ends; its disk is copied to {to}, and nobody can connect \
             meanwhile; if you mean it: move {name} {to} --yes"
        )));
    }
    let (sender, mut progress) = boxpool::move_progress();
    let moving = connection.gateway.boxes.move_to(owner, name, to, sender);
    tokio::pin!(moving);
    let moved = loop {
        tokio::select! {
            moved = &mut moving => break moved?,
            Ok(()) = progress.changed() => {
                let step = progress.borrow_and_update().to_string();
                notes.send_replace(step);
            }
        }
    };
    let connect = connection.gateway.settings.ssh_line(name.as_str());
    let text = format!("box {name} lives in {to} now; it boots when you connect with: {connect}\n");
    Ok(Answer { text, json: json!(moved) })
}

/// That there is such a region.
fn check_region(connection: &Connection, region: &Region) -> Result<(), Refusal> {
    let known = connection.gateway.boxes.regions();
    if known.contains(region) {
        return Ok(());
    }
    Err(Refusal::usage(match known.as_slice() {
        [] => "this gateway has one region only".to_owned(),
        known => {
            let known: Vec<_> = known.iter().map(Region::as_str).collect();
            format!("there is no region \"{region}\" here; there are {}", known.join(", "))
        }
    }))
}

async fn rename(connection: &Connection, name: &BoxName, to: &BoxName) -> Result<Answer, Refusal> {
    find(connection, name).await?;
    let renamed = connection.gateway.boxes.rename(&connection.account()?.id, name, to).await?;
    let connect = connection.gateway.settings.ssh_line(to.as_str());
    let text = format!("box {name} is called {to} now; connect with: {connect}\n");
    Ok(Answer { text, json: json!(renamed) })
}

async fn events(connection: &Connection, name: &BoxName, limit: usize) -> Result<Answer, Refusal> {
    let all = connection.gateway.boxes.events(&connection.account()?.id, name, limit).await?;
    if all.is_empty() {
        find(connection, name).await?;
    }
    let mut text = String::new();
    for each in &all {
        let took = each.took_ms.map(|took| format!("  {took} ms")).unwrap_or_default();
        let line = format!("{}  {:<17}{took}  {}", moment::rfc3339(each.at), each.kind, plain(&each.detail));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    Ok(Answer { text, json: json!({"name": name, "events": all}) })
}

async fn delete(connection: &Connection, name: &BoxName, yes: bool, now: bool) -> Result<Answer, Refusal> {
    let (owner, boxes) = (&connection.account()?.id, &connection.gateway.boxes);
    // One that was deleted before can still be deleted for good.
    let deleted = now && boxes.list_deleted(owner).await?.iter().any(|each| each.name == name.as_str());
    if !deleted {
        find(connection, name).await?;
    }
    if !yes {
        return Err(Refusal::usage(format!(
            "this deletes the box \"{name}\" and everything in it; if you mean it: delete {name} --yes"
        )));
    }
    if now {
        boxes.purge(owner, name).await?;
    } else {
        boxes.delete(owner, name).await?;
    }
    let kept = boxes.list_deleted(owner).await?.into_iter().find(|each| each.name == name.as_str());
    let until = kept.and_then(|each| each.deleted_until);
    let text = match until {
        Some(until) => {
            format!("box {name} is deleted; until {} you can have it back: undelete {name}\n", moment::rfc3339(until))
        }
        None => format!("box {name} is deleted\n"),
    };
    Ok(Answer { text, json: json!({"name": name, "status": "deleted", "deleted_until": until}) })
}

fn help(connection: &Connection) -> Answer {
    let settings = &connection.gateway.settings;
    let mut text = String::from("Your boxes are machines of your own. Leave one, and it waits for you as it is.\n\n");
    let _ = writeln!(text, "  {:<44}  go into the box NAME", settings.ssh_line("NAME"));
    let _ = writeln!(text, "  {:<44}  run a command of the gateway:\n", settings.ssh_line("gateway") + " COMMAND");
    for (_, usage, what) in USAGES {
        let _ = writeln!(text, "  {usage:<30}  {what}");
    }
    text.push_str(
        "\nEvery command takes --json. A login name that is not the name of one of your boxes leads here.\n\
         Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no such box, snapshot or key, 75 try again later,\n\
         255 the connection broke.\n",
    );
    let commands: Vec<Value> =
        USAGES.iter().map(|(name, usage, what)| json!({"name": name, "usage": usage, "what": what})).collect();
    let codes = json!({"0": "done", "1": "refused or failed", "2": "wrong usage", "3": "no such box, snapshot or key",
        "75": "try again later", "130": "given up", "255": "the connection broke"});
    Answer { text, json: json!({"commands": commands, "exit_codes": codes, "json_flag": "--json"}) }
}

/// A login without a command that leads to no box: help where the name says so, else what is wrong with it.
fn greet(connection: &Connection) -> Reply {
    if let (true, Ok(account)) = (login::is_registration(connection.named()), connection.account()) {
        let (id, key, next) = (&account.id, &account.fingerprint, connection.gateway.settings.ssh_line("gateway"));
        let mut text = format!(
            "you have an account\n\naccount  {id}\nkey      {key}\n\nmake a box with: {next} spinup NAME\nall commands:    {next} help\n"
        );
        if account.key_was_added {
            text.push_str(
                "\nThe account was made by another key, whose owner added yours. If that is not you, take your key out and\n\
                 make an account of your own: key list, key remove LABEL --yes, and log in as \"new\" again.\n",
            );
        }
        Reply::Say { stdout: Some(text), stderr: None, code: ExitCode::Done }
    } else if login::is_reserved(connection.named()) {
        Reply::Say { stdout: Some(help(connection).text), stderr: None, code: ExitCode::Done }
    } else {
        refuse(&no_box(connection.named()), false)
    }
}

/// A command nobody knows, sent to a login that reads like a box: the missing box is the more likely mistake.
fn explain(connection: &Connection, line: &str, refusal: Refusal) -> Refusal {
    let login = connection.named();
    let verb = line.split_ascii_whitespace().next().unwrap_or_default();
    match login::box_name(login) {
        Ok(_) if !is_command(line.as_bytes()) && !verb.starts_with('-') => Refusal::new(
            ExitCode::NotFound,
            format!("no box named \"{login}\", and \"{}\" is not a command of the gateway; try \"help\"", plain(verb)),
        ),
        _ => refusal,
    }
}

fn refuse(refusal: &Refusal, json: bool) -> Reply {
    let stderr = if json { json!({"error": refusal}).to_string() } else { format!("boxpool: {}", refusal.message) };
    Reply::Say { stdout: None, stderr: Some(stderr), code: refusal.code }
}
