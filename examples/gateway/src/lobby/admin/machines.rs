//! The machines, one by one, and taking one out of use.

use super::{Answer, not_found};
use crate::exit::Refusal;
use crate::moment::rfc3339;
use crate::overview::Overview;
use crate::plain::plain;
use boxpool::InstanceId;
use boxpool::record::{InstanceRecord, InstanceStatus};
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) async fn list(overview: &Overview) -> Result<Answer, Refusal> {
    let (mut machines, ..) = overview.stock().await?;
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    let mut text = String::new();
    for each in &machines {
        let whose = box_on(each).map_or_else(String::new, |name| format!("  {name}"));
        let cordon = each.cordon.as_ref().map_or_else(String::new, |cordon| {
            let why = if cordon.why.is_empty() { String::new() } else { format!(": {}", plain(&cordon.why)) };
            format!("  {}{why}", if cordon.drain { "drained" } else { "cordoned" })
        });
        let (word, since) = (each.status.word(), rfc3339(each.created_at));
        let _ = writeln!(text, "{}  {word:<12}  since {since}{whose}{cordon}", each.id);
    }
    if machines.is_empty() {
        text.push_str("there are no machines\n");
    }
    let all: Vec<Value> = machines.iter().map(told).collect();
    Ok(Answer { text, json: json!({"machines": all}) })
}

pub(super) async fn cordon(overview: &Overview, meant: &str, drain: bool, why: &str) -> Result<Answer, Refusal> {
    let id = find(overview, meant).await?;
    overview.pool().cordon_instance(&id, drain, why).await?;
    let then = if drain { "; who is there leaves when nobody is connected, and then it is deleted" } else { "" };
    let text = format!("nobody new comes onto {id}{then}\n");
    Ok(Answer { text, json: json!({"machine": id, "cordon": {"drain": drain, "why": why}}) })
}

pub(super) async fn uncordon(overview: &Overview, meant: &str) -> Result<Answer, Refusal> {
    let id = find(overview, meant).await?;
    overview.pool().uncordon_instance(&id).await?;
    Ok(Answer { text: format!("{id} is in use\n"), json: json!({"machine": id, "cordon": null}) })
}

fn told(machine: &InstanceRecord) -> Value {
    json!({
        "id": machine.id, "status": machine.status.word(), "box": box_on(machine), "generation": machine.generation,
        "created": rfc3339(machine.created_at),
        "cordon": machine.cordon.as_ref().map(|cordon| json!({"drain": cordon.drain, "why": cordon.why})),
    })
}

fn box_on(machine: &InstanceRecord) -> Option<String> {
    match &machine.status {
        InstanceStatus::Claimed { owner, .. } => Some(format!("{}/{}", owner.owner, owner.name)),
        _ => None,
    }
}

/// The machine that is meant, by its id or how that begins.
async fn find(overview: &Overview, meant: &str) -> Result<InstanceId, Refusal> {
    let (machines, ..) = overview.stock().await?;
    let found: Vec<&InstanceId> =
        machines.iter().map(|each| &each.id).filter(|id| begins_with(id.as_str(), meant)).collect();
    match found[..] {
        [id] => Ok(id.clone()),
        [] => Err(not_found(format!("there is no machine \"{meant}\"; see \"admin machines\""))),
        _ => Err(Refusal::usage(format!("\"{meant}\" may be {} machines; say more of its id", found.len()))),
    }
}

/// Ids begin with the machine's seat, which is meant whole or not at all.
fn begins_with(id: &str, meant: &str) -> bool {
    id == meant || id.strip_prefix(meant).is_some_and(|rest| rest.starts_with('-') || meant.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::begins_with;

    #[test]
    fn a_machine_is_known_by_its_seat_or_by_more() {
        for meant in ["i00001-ab12", "i00001", "i00001-", "i00001-ab"] {
            assert!(begins_with("i00001-ab12", meant), "{meant}");
        }
        for meant in ["i0000", "", "i00001-b", "i00002", "ab12"] {
            assert!(!begins_with("i00001-ab12", meant), "{meant}");
        }
    }
}
