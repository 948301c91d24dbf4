//! `show NAME`: all about one box.

use super::Answer;
use crate::boxes::BoxSummary;
use crate::connection::Connection;
use crate::exit::{ExitCode, Refusal};
use crate::moment::rfc3339;
use crate::size::Size;
use boxpool::BoxName;
use boxpool::record::BroughtUpFrom;
use serde_json::{Value, json};
use std::fmt::{Display, Write};
use std::time::Duration;

pub(super) fn answer(connection: &Connection, found: BoxSummary, name: &BoxName) -> Result<Answer, Refusal> {
    let entry = connection.gateway.latest.of(&connection.account()?.id, name);
    let mut text = String::new();
    let mut line = |what: &str, is: &dyn Display| {
        let _ = writeln!(text, "{what:<12}  {is}");
    };
    let ms = |time: u64| format!("{time} ms");
    line("name", &found.name);
    line("state", &found.state);
    if let Some(region) = &found.region {
        line("region", region);
    }
    line("created", &rfc3339(found.created));
    line("last used", &rfc3339(found.last_used));
    if let Some(bytes) = found.disk_bytes {
        line("disk", &Size(bytes));
    }
    line("keepalive", &if found.keepalive { "on" } else { "off" });
    line("used", &format!("{} connects, ran {:?}", found.connects, Duration::from_secs(found.ran_ms / 1_000)));
    if !found.shares.is_empty() {
        let with = found.shares.iter().map(|share| share.account.to_string()).collect::<Vec<_>>();
        line("shared with", &with.join(" "));
    }
    if let Some(up) = &found.brought_up {
        let from = match up.from {
            BroughtUpFrom::Parked => ", from being parked",
            BroughtUpFrom::Detached => ", from being detached",
            BroughtUpFrom::Running => ", as its guest was gone",
            _ => "",
        };
        let (all, waited) = (ms(up.total_ms), ms(up.waited_ms));
        let (attached, started) = (ms(up.attached_ms), ms(up.started_ms));
        let parts = format!("waited {waited}, attached in {attached}, started in {started}");
        line("brought up", &format!("{} in {all}{from}: {parts}", rfc3339(up.at)));
    }
    if let Some(entry) = &entry {
        let (up, dialled, started) = (ms(entry.box_ms), ms(entry.dial_ms), ms(entry.start_ms));
        let parts = format!("box up in {up}, dialled in {dialled}, began in {started}");
        line("last connect", &format!("{} here: {parts}", rfc3339(entry.at)));
    }
    let mut all = serde_json::to_value(&found).map_err(|error| Refusal::new(ExitCode::Failed, error.to_string()))?;
    if let Value::Object(fields) = &mut all {
        fields.insert("last_connect".into(), json!(entry));
    }
    Ok(Answer { text, json: all })
}
