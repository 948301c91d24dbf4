//! A rest for the pool's maintenance, and what becomes of what was set aside.

use super::{Answer, account, not_found};
use crate::connection::Connection;
use crate::exit::{ExitCode, Refusal};
use crate::moment::rfc3339;
use crate::overview::Overview;
use crate::plain::plain;
use boxpool::record::Pause;
use boxpool::{Adoption, BoxName, Breaker, Breakers, SystemClock, UserId, VolumeId};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// A rest, for people.
pub(super) fn words(pause: &Pause) -> String {
    let why = if pause.why.is_empty() { String::new() } else { format!(": {}", plain(&pause.why)) };
    format!("maintenance rests until {}{why}", rfc3339(pause.until))
}

/// A rest, for programs.
pub(super) fn json(pause: Option<&Pause>) -> Value {
    pause.map_or(Value::Null, |pause| json!({"until": rfc3339(pause.until), "why": pause.why}))
}

/// What the maintainer fails at, for people: a line each.
pub(super) fn failing(breakers: &Breakers) -> String {
    let line = |(what, breaker): (&str, &Breaker)| {
        let seconds = breaker.rest_ms.div_ceil(1_000);
        let next = match breaker.state() {
            "open" => format!("the next attempt is in {seconds} s"),
            "half-open" => "one is tried at a time".to_owned(),
            _ => "it is tried again".to_owned(),
        };
        let times = if breaker.failures == 1 { "once".into() } else { format!("{} times in a row", breaker.failures) };
        format!("{what} failed {times}; {next}: {}\n", plain(&breaker.why))
    };
    each(breakers).into_iter().filter_map(|(what, breaker)| Some((what, breaker?))).map(line).collect()
}

/// The same, for programs.
pub(super) fn failing_json(breakers: &Breakers) -> Value {
    let all = each(breakers).into_iter().filter_map(|(what, breaker)| Some((what, breaker?)));
    let json = |(what, breaker): (&str, &Breaker)| {
        json!({
            "what": what, "state": breaker.state(), "failures": breaker.failures, "rest_ms": breaker.rest_ms,
            "why": breaker.why,
        })
    };
    all.map(json).collect()
}

fn each(breakers: &Breakers) -> [(&'static str, Option<&Breaker>); 3] {
    [
        ("making machines", breakers.making_instances.as_ref()),
        ("waking machines", breakers.waking_instances.as_ref()),
        ("making disks", breakers.making_volumes.as_ref()),
    ]
}

pub(super) async fn pause(overview: &Overview, time: Duration, why: &str) -> Result<Answer, Refusal> {
    let pause = overview.pool().pause_maintenance(time, why).await?;
    Ok(Answer { text: format!("{}\n", words(&pause)), json: json!({"paused": json(Some(&pause))}) })
}

pub(super) async fn resume(overview: &Overview) -> Result<Answer, Refusal> {
    overview.pool().resume_maintenance().await?;
    Ok(Answer { text: "maintenance goes on\n".into(), json: json!({"paused": null}) })
}

pub(super) async fn list(overview: &Overview) -> Result<Answer, Refusal> {
    let view = overview.view().await?;
    let mut text = String::new();
    for each in &view.quarantined {
        let _ = writeln!(text, "{:<8}  {}  since {}: {}", each.what, each.id, rfc3339(each.created), plain(&each.why));
    }
    if view.quarantined.is_empty() {
        text.push_str("nothing is set aside\n");
    }
    Ok(Answer { text, json: json!({"quarantined": view.quarantined, "complete": view.complete}) })
}

pub(super) async fn release(
    connection: &Connection,
    overview: &Overview,
    disk: &str,
    owner: &str,
    name: &str,
) -> Result<Answer, Refusal> {
    let (disk, name) = (disk_id(disk)?, BoxName::new(name).map_err(|error| Refusal::usage(error.to_string()))?);
    let owner = recipient(connection, overview, owner).await?;
    adoption(overview)?.release_volume(&disk, &owner, &name).await?;
    let text = format!("{disk} is the disk of {owner}'s box {name}\n");
    Ok(Answer { text, json: json!({"released": disk, "account": owner, "box": name}) })
}

pub(super) async fn delete(overview: &Overview, disk: &str, yes: bool) -> Result<Answer, Refusal> {
    let disk = disk_id(disk)?;
    if !yes {
        let sentence =
            format!("this deletes what is on {disk}, for good; if you mean it: admin quarantine delete {disk} --yes");
        return Err(Refusal::usage(sentence));
    }
    adoption(overview)?.erase_volume(&disk).await?;
    Ok(Answer { text: format!("{disk} is deleted with the next census\n"), json: json!({"deleted": disk}) })
}

fn disk_id(text: &str) -> Result<VolumeId, Refusal> {
    VolumeId::new(text).map_err(|error| Refusal::usage(error.to_string()))
}

/// The account that is meant, by how its id begins if it has boxes, by its whole id if it has none.
async fn recipient(connection: &Connection, overview: &Overview, meant: &str) -> Result<UserId, Refusal> {
    match account(overview, meant).await {
        Err(refusal) if refusal.code == ExitCode::NotFound => {
            let whole = UserId::new(meant).map_err(|error| Refusal::usage(error.to_string()))?;
            match connection.gateway.accounts.listed_keys(&whole).await? {
                Some(_) => Ok(whole),
                None => {
                    Err(not_found(format!("{}; an account without boxes is named by its whole id", refusal.message)))
                }
            }
        }
        found => found,
    }
}

fn adoption(overview: &Overview) -> Result<Adoption, Refusal> {
    let seed =
        getrandom::u64().map_err(|error| Refusal::new(ExitCode::Failed, format!("no random source: {error}")))?;
    Ok(Adoption::new(Arc::clone(overview.store()), Arc::new(SystemClock), seed)?)
}
