//! The commands for administrators: `admin …`, for listed keys only.
//!
//! Everybody else is answered as if there were no such command. What an administrator asks for is told in the audit log,
//! with the whole command line. Answers and refusals have the form that the lobby's have.

mod command;
mod explain;
mod keys;
mod machines;
mod plan;
mod upkeep;

pub use command::{Command, Parsed, USAGES, parse};
pub use explain::{Known, explain};
pub use keys::AdminKeys;

use super::{Answer, Reply, refuse};
use crate::connection::Connection;
use crate::exit::{ExitCode, Refusal};
use crate::moment::rfc3339;
use crate::overview::Overview;
use crate::page;
use crate::plain::plain;
use crate::visit::{Ending, VisitId};
use boxpool::{BoxName, Census, Clock, Region, SystemClock, UserId};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Events that are shown.
const EVENTS_SHOWN: usize = 50;

/// Shortest beginning of an account's id that may stand for it.
const BEGINNING_MIN: usize = 6;

/// How long an administrator who drains the gateway has to leave by themselves.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Whether `line` is a command for administrators, and from one.
#[must_use]
pub fn is_command(connection: &Connection, line: &[u8]) -> bool {
    let admins = &connection.gateway.operator.admins;
    let first = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
    first == Some(b"admin") && connection.visit.proven_key().is_some_and(|key| admins.has(key))
}

/// Answers a command for administrators; `None` when it is none, or not from one.
pub async fn run(connection: &Connection, line: &[u8]) -> Option<Reply> {
    if !is_command(connection, line) {
        return None;
    }
    let text = String::from_utf8_lossy(line);
    tracing::info!(peer = %connection.peer, session = %connection.visit.id, command = %plain(&text), "administrator");
    let (command, json) = parse(&text);
    let answered = match command {
        Ok(command) => answer(connection, &command).await,
        Err(refusal) => Err(refusal),
    };
    Some(match answered {
        Ok(answer) => Reply::Say {
            stdout: Some(if json { format!("{}\n", answer.json) } else { answer.text }),
            stderr: None,
            code: ExitCode::Done,
        },
        Err(refusal) => refuse(&refusal, json),
    })
}

async fn answer(connection: &Connection, Parsed { command, region }: &Parsed) -> Result<Answer, Refusal> {
    let overview = |connection| overview(connection, region.as_ref());
    match command {
        Command::Help => Ok(help()),
        Command::Sessions => Ok(sessions(connection)),
        Command::Kick(whom) => kick(connection, whom),
        Command::Pools => pools(overview(connection)?).await,
        Command::Plan => plan_ahead(overview(connection)?).await,
        Command::Quarantine => upkeep::list(overview(connection)?).await,
        Command::Release { disk, owner, name } => {
            upkeep::release(connection, overview(connection)?, disk, owner, name).await
        }
        Command::Erase { disk, yes } => upkeep::delete(overview(connection)?, disk, *yes).await,
        Command::Machines => machines::list(overview(connection)?).await,
        Command::Cordon { machine, drain, why } => machines::cordon(overview(connection)?, machine, *drain, why).await,
        Command::Uncordon(machine) => machines::uncordon(overview(connection)?, machine).await,
        Command::Pause { time, why } => upkeep::pause(overview(connection)?, *time, why).await,
        Command::Resume => upkeep::resume(overview(connection)?).await,
        Command::Drain { yes } => drain(connection, *yes),
        Command::Explain { owner, name } => explain_box(overview(connection)?, owner, name).await,
        Command::Events(whose) => events(overview(connection)?, whose.as_deref()).await,
    }
}

/// The pool of a region; without one, that of the first.
fn overview<'a>(connection: &'a Connection, region: Option<&Region>) -> Result<&'a Overview, Refusal> {
    let all = &connection.gateway.operator.overviews;
    if let Some(region) = region {
        super::check_region(connection, region)?;
    }
    let found = all.iter().find(|each| region.is_none() || each.region() == region);
    found
        .map(AsRef::as_ref)
        .ok_or_else(|| Refusal::new(ExitCode::Failed, "this gateway has no pool that could be looked at"))
}

fn help() -> Answer {
    let mut text = String::new();
    for (_, usage, what) in USAGES {
        let _ = writeln!(text, "  {usage:<44}  {what}");
    }
    text.push_str(
        "\nEvery command takes --json. Instead of an account's id its first letters do. Where there are several regions, what is about \
         the pool is about the first region's, or with --region REGION about that one's.\n",
    );
    let commands: Vec<Value> =
        USAGES.iter().map(|(name, usage, what)| json!({"name": name, "usage": usage, "what": what})).collect();
    Answer { text, json: json!({"commands": commands}) }
}

fn sessions(connection: &Connection) -> Answer {
    let (mut text, mut all) = (String::new(), Vec::new());
    for each in connection.gateway.operator.sessions.all() {
        let visit = &each.visit;
        let Some(identity) = visit.identity() else { continue };
        let names: Vec<String> = each.boxes().iter().map(ToString::to_string).collect();
        let (bytes_in, bytes_out) = visit.bytes();
        let (id, since) = (visit.id.to_string(), rfc3339(visit.began_at));
        let (login, client) = (plain(&identity.login), visit.client());
        let _ = writeln!(
            text,
            "{id:<8}  {}  {:<16}  {:<22}  {since}  {} channels  {bytes_in} in  {bytes_out} out  {}",
            short(&identity.account),
            login,
            visit.peer,
            visit.open_channels(),
            names.join(" "),
        );
        all.push(json!({
            "session": id, "account": identity.account, "key": identity.key, "login": login,
            "peer": visit.peer.to_string(), "client": client, "since": since, "channels": visit.open_channels(),
            "boxes": names, "bytes_in": bytes_in, "bytes_out": bytes_out,
        }));
    }
    Answer { text, json: json!({"sessions": all}) }
}

fn kick(connection: &Connection, whom: &str) -> Result<Answer, Refusal> {
    let own = connection.visit.id;
    let wanted = VisitId::parse(whom);
    if wanted == Some(own) {
        return Err(Refusal::usage("that is the connection you are asking on"));
    }
    let is_meant = |each: &Arc<Connection>| match wanted {
        Some(id) => each.visit.id == id,
        None => each.visit.identity().is_some_and(|identity| begins(&identity.account, whom)),
    };
    let mut meant: Vec<Arc<Connection>> = connection.gateway.operator.sessions.all();
    meant.retain(|each| is_meant(each) && each.visit.id != own);
    let mut accounts: Vec<_> = meant.iter().filter_map(|each| each.visit.identity()).map(|who| &who.account).collect();
    accounts.dedup();
    if accounts.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(ambiguous(whom));
    }
    if meant.is_empty() {
        return Err(not_found(format!("nobody is connected as \"{whom}\"; see \"admin sessions\"")));
    }
    for each in &meant {
        each.dismiss(Ending::Kicked, "an administrator ended this connection");
    }
    let ids: Vec<String> = meant.iter().map(|each| each.visit.id.to_string()).collect();
    Ok(Answer { text: format!("ended: {}\n", ids.join(" ")), json: json!({"kicked": ids}) })
}

async fn pools(overview: &Overview) -> Result<Answer, Refusal> {
    let (view, status) = (overview.view().await?, overview.status());
    let mut text = String::new();
    for (title, counts) in [("boxes", &view.boxes), ("machines", &view.instances), ("disks", &view.volumes)] {
        let each = counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>();
        let each = if each.is_empty() { "none".to_owned() } else { each.join(", ") };
        let _ = writeln!(text, "{title:<9}  {each}");
    }
    for node in &view.gateways {
        let own = if node.id == status.node.as_str() { ", this one" } else { "" };
        let _ = writeln!(text, "gateway    {} since {}, {} waiting{own}", node.id, rfc3339(node.started), node.waiting);
    }
    let _ = writeln!(text, "waiting    {} here; set aside: {}", status.waiting, view.quarantined.len());
    if let Some(pause) = &status.paused {
        let _ = writeln!(text, "{}", upkeep::words(pause));
    }
    text.push_str(&upkeep::failing(&status.breakers));
    if !view.complete {
        text.push_str("there are more records than are looked at here\n");
    }
    let json = json!({
        "boxes": view.boxes, "instances": view.instances, "volumes": view.volumes, "gateways": view.gateways,
        "quarantined": view.quarantined.len(), "complete": view.complete, "node": status.node,
        "maintainer": status.maintainer, "in_touch": status.in_touch, "waiting": status.waiting, "active": status.active,
        "draining": status.draining, "paused": upkeep::json(status.paused.as_ref()),
        "failing": upkeep::failing_json(&status.breakers),
    });
    Ok(Answer { text, json })
}

async fn plan_ahead(overview: &Overview) -> Result<Answer, Refusal> {
    let (instances, volumes, waiting) = overview.stock().await?;
    let pool = overview.config();
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
    let machines = Census { waiting, ..Census::of_instances(&instances, &pool.instance_generation) };
    let disks = Census::of_volumes(&volumes, &pool.volume_generation);
    let demand = match pool.instances.goal {
        Some(_) => overview.demand().await?,
        None => None,
    };
    let (of_machines, machines) = plan::tell("machines", machines, plan::aimed(pool.instances, demand.as_ref()));
    let (of_disks, disks) = plan::tell("disks", disks, pool.volumes);
    let status = overview.status();
    let (paused, breakers) = (status.paused, status.breakers);
    let rests = paused.as_ref().map(|pause| format!("None of it now: {}.\n", upkeep::words(pause))).unwrap_or_default();
    let goal = demand.as_ref().map(|demand| format!("For the goal: {}.\n", demand.why)).unwrap_or_default();
    let failing = upkeep::failing(&breakers);
    let text = format!("{rests}{failing}{of_machines}\n{goal}{of_disks}");
    let goal = demand.map(|demand| json!({"wanted": demand.wanted, "why": demand.why}));
    let json = json!({"instances": machines, "volumes": disks, "goal": goal, "paused": upkeep::json(paused.as_ref()),
        "failing": upkeep::failing_json(&breakers)});
    Ok(Answer { text, json })
}

fn drain(connection: &Connection, yes: bool) -> Result<Answer, Refusal> {
    if !yes {
        let sentence = "this ends every connection to this gateway, suspends its boxes and ends the program; if you mean it: \
                        admin drain --yes";
        return Err(Refusal::usage(sentence));
    }
    let (gateway, closer) = (Arc::clone(&connection.gateway), connection.closer.clone());
    tokio::spawn(async move {
        // The answer goes out first.
        let _ = tokio::time::timeout(LEAVE_LIMIT, closer.closed()).await;
        gateway.operator.ask_drain();
    });
    Ok(Answer { text: "this gateway stops\n".into(), json: json!({"status": "draining"}) })
}

async fn explain_box(overview: &Overview, owner: &str, name: &str) -> Result<Answer, Refusal> {
    let owner = account(overview, owner).await?;
    let name = BoxName::new(name).map_err(|error| Refusal::usage(error.to_string()))?;
    let found = overview.find_box(&owner, &name).await?;
    let record = found.ok_or_else(|| not_found(format!("the account has no box named \"{name}\"")))?;
    let instance = match record.placement.instance() {
        Some(id) => overview.find_instance(id.as_str()).await?,
        None => None,
    };
    let volume = overview.find_volume(record.volume.volume().as_str()).await?;
    let gateways = overview.view().await?.gateways.iter().map(|node| node.id.clone()).collect();
    let known = Known { record, instance, volume, gateways, at: SystemClock.now() };
    let told: Vec<String> = explain(&known).iter().map(|sentence| plain(sentence).into_owned()).collect();
    let record = &known.record;
    let text =
        format!("{owner}/{name}:\n{}\n", told.iter().map(|each| format!("- {each}")).collect::<Vec<_>>().join("\n"));
    let json = json!({
        "account": owner, "box": name, "state": record.placement.word(), "epoch": record.epoch.0,
        "instance": record.placement.instance(), "instance_status": known.instance.as_ref().map(|of| of.status.word()),
        "volume": record.volume.volume(), "volume_status": known.volume.as_ref().map(|of| of.status.word()),
        "holders": record.holders, "worker": record.placement.worker(), "created": record.created_at,
        "last_used": record.used_at, "because": told,
    });
    Ok(Answer { text, json })
}

async fn events(overview: &Overview, whose: Option<&str>) -> Result<Answer, Refusal> {
    let owner = match whose {
        Some(whose) => Some(account(overview, whose).await?),
        None => None,
    };
    let (events, complete) = overview.events(owner.as_ref(), EVENTS_SHOWN).await?;
    let (mut text, mut all) = (String::new(), Vec::new());
    for event in &events {
        let (at, kind, box_of) = (rfc3339(event.at), page::kind(event), event.owner.as_ref());
        let whose = box_of.map(|of| format!("{}/{}", short(&of.owner), of.name)).unwrap_or_default();
        let on = event.instance.as_ref().map(|on| format!(" on {on}")).unwrap_or_default();
        let took = event.took_ms.map(|took| format!(", {took} ms")).unwrap_or_default();
        let _ = writeln!(text, "{at}  {kind:<17}  {whose}{on}{took}  {}", plain(&event.detail));
        all.push(json!({
            "at": at, "node": event.node, "kind": kind, "account": box_of.map(|of| &of.owner),
            "box": box_of.map(|of| &of.name), "instance": event.instance, "volume": event.volume, "epoch": event.epoch,
            "took_ms": event.took_ms, "detail": event.detail,
        }));
    }
    if !complete {
        text.push_str("there are more events than are looked at here; name an account\n");
    }
    Ok(Answer { text, json: json!({"events": all, "complete": complete}) })
}

/// The account that is meant by an id or by how one begins.
async fn account(overview: &Overview, meant: &str) -> Result<UserId, Refusal> {
    let whole = UserId::new(meant).map_err(|error| Refusal::usage(error.to_string()))?;
    let owners = overview.owners().await?;
    if owners.contains(&whole) {
        return Ok(whole);
    }
    let mut like = owners.into_iter().filter(|owner| begins(owner, meant));
    match (like.next(), like.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(ambiguous(meant)),
        (None, _) => Err(not_found(format!("no account with boxes is \"{meant}\""))),
    }
}

fn begins(account: &UserId, meant: &str) -> bool {
    account.as_str() == meant || (meant.len() >= BEGINNING_MIN && account.as_str().starts_with(meant))
}

fn ambiguous(meant: &str) -> Refusal {
    Refusal::usage(format!("\"{meant}\" may be several accounts; write more of it"))
}

fn not_found(message: String) -> Refusal {
    Refusal::new(ExitCode::NotFound, message)
}

fn short(account: &UserId) -> String {
    account.as_str().chars().take(12).collect()
}
