//! The status page: one HTML document, without a script and without anything from elsewhere. All text in it is escaped.

use crate::moment::rfc3339;
use crate::overview::View;
use crate::plain::plain;
use crate::tally::Counts;
use boxpool::record::EventRecord;
use boxpool::{PoolStatus, Region, Timestamp};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// As much of an account's id as is shown: enough to find it, and not more than needed.
const ACCOUNT_SHOWN: usize = 12;

/// What the page shows.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Now.
    pub at: Timestamp,
    /// Why the gateway is not ready; empty when it is.
    pub obstacles: Vec<&'static str>,
    /// Whose pool is shown, where there are several regions.
    pub region: Option<Region>,
    /// All of them, each with a page.
    pub regions: Vec<Region>,
    /// What this gateway knows.
    pub status: PoolStatus,
    /// What is on record; `None` when the store does not answer.
    pub view: Option<Arc<View>>,
    /// The newest events, oldest first, and whether these are surely the newest.
    pub events: (Vec<EventRecord>, bool),
    /// Connections that are logged in here.
    pub sessions: usize,
    /// Channels that are open here.
    pub channels: usize,
    /// How much was counted here of late, and in which time.
    pub rise: Option<(Counts, Duration)>,
}

/// The page.
#[must_use]
pub fn html(facts: &Facts) -> String {
    let mut page = String::with_capacity(16 * 1024);
    let status = &facts.status;
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"10\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>boxpool</title>\
         <style>{STYLE}</style></head><body>\n<header><h1>boxpool</h1><p>gateway <b>{}</b>, version {}, seen {}</p>",
        text(status.node.as_str()),
        env!("CARGO_PKG_VERSION"),
        rfc3339(facts.at),
    );
    match facts.obstacles.as_slice() {
        [] => page.push_str("<p id=\"ready\" class=\"good\">ready</p>"),
        obstacles => {
            let _ = write!(page, "<p id=\"ready\" class=\"bad\">not ready: {}</p>", text(&obstacles.join("; ")));
        }
    }
    if let Some(shown) = &facts.region {
        page.push_str("<p id=\"regions\">region");
        for region in &facts.regions {
            // A region's name has nothing that would have to be escaped.
            let _ = match region == shown {
                true => write!(page, " <b>{region}</b>"),
                false => write!(page, " <a href=\"/region/{region}\">{region}</a>"),
            };
        }
        page.push_str("</p>");
    }
    page.push_str("</header>\n<main>");
    here(&mut page, facts);
    rates(&mut page, facts.rise);
    match &facts.view {
        Some(view) => records(&mut page, view),
        None => page.push_str("<section><h2>Records</h2><p class=\"bad\">the store does not answer</p></section>"),
    }
    events(&mut page, &facts.events);
    page.push_str("</main></body></html>\n");
    page
}

fn here(page: &mut String, facts: &Facts) {
    let status = &facts.status;
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    table(
        page,
        "here",
        "This gateway",
        &["", ""],
        [
            ("connections logged in", facts.sessions.to_string()),
            ("channels open", facts.channels.to_string()),
            ("boxes at work or held", status.active.to_string()),
            ("waiting for a machine", status.waiting.to_string()),
            ("maintains the pool", yes(status.maintainer)),
            (
                "maintenance rests until",
                status.paused.as_ref().map_or_else(|| "it does not".into(), |rest| rfc3339(rest.until)),
            ),
            ("in touch with the store", yes(status.in_touch)),
            ("gateways that live", status.live_nodes.to_string()),
        ],
    );
}

fn rates(page: &mut String, rise: Option<(Counts, Duration)>) {
    let Some((rise, over)) = rise else { return };
    let minutes = (over.as_secs_f64() / 60.0).max(1.0 / 60.0);
    // Counts and bytes of minutes are far below where a float loses whole numbers.
    let per_minute = |count: u64| format!("{:.1} a minute", count as f64 / minutes);
    let per_second = |bytes: u64| format!("{:.1} KiB/s", bytes as f64 / minutes / 60.0 / 1024.0);
    let title = format!("Rates, over {} s", over.as_secs());
    table(
        page,
        "rates",
        &title,
        &["", ""],
        [
            ("connections", per_minute(rise.connections)),
            ("logins", per_minute(rise.logins)),
            ("ended without a login", per_minute(rise.refused)),
            ("channels", per_minute(rise.channels)),
            ("from users", per_second(rise.bytes_in)),
            ("to users", per_second(rise.bytes_out)),
        ],
    );
}

fn records(page: &mut String, view: &View) {
    let counted = |counts: &BTreeMap<&'static str, usize>| {
        let total = ("in all", counts.values().sum::<usize>().to_string());
        counts.iter().map(|(word, count)| (*word, count.to_string())).chain([total]).collect::<Vec<_>>()
    };
    table(page, "boxes", "Boxes", &["placement", ""], counted(&view.boxes));
    table(page, "instances", "Machines", &["status", ""], counted(&view.instances));
    table(page, "volumes", "Disks", &["status", ""], counted(&view.volumes));
    rows(
        page,
        "gateways",
        "Gateways on record",
        &["id", "since", "waiting"],
        view.gateways.iter().map(|node| vec![node.id.clone(), rfc3339(node.started), node.waiting.to_string()]),
    );
    if !view.quarantined.is_empty() {
        let set_aside = view.quarantined.iter();
        rows(
            page,
            "quarantined",
            "Set aside for a person",
            &["what", "id", "since", "why"],
            set_aside.map(|each| vec![each.what.to_owned(), each.id.clone(), rfc3339(each.created), each.why.clone()]),
        );
    }
    if !view.complete {
        page.push_str("<section><p class=\"bad\">There are more records than are looked at here.</p></section>");
    }
}

fn events(page: &mut String, (events, complete): &(Vec<EventRecord>, bool)) {
    let title = if *complete { "Recent events" } else { "Events (there are more than are looked at here)" };
    rows(
        page,
        "events",
        title,
        &["at", "what", "account", "box", "machine", "took", "detail"],
        events.iter().rev().map(|event| {
            let owner = event.owner.as_ref();
            vec![
                rfc3339(event.at),
                kind(event),
                owner.map(|owner| short(owner.owner.as_str())).unwrap_or_default(),
                owner.map(|owner| owner.name.to_string()).unwrap_or_default(),
                event.instance.as_ref().map(ToString::to_string).unwrap_or_default(),
                event.took_ms.map(|took| format!("{took} ms")).unwrap_or_default(),
                event.detail.clone(),
            ]
        }),
    );
}

/// What happened, as the store has it.
#[must_use]
pub fn kind(event: &EventRecord) -> String {
    // A kind is written as one word.
    serde_json::to_value(event.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default()
}

fn short(account: &str) -> String {
    account.chars().take(ACCOUNT_SHOWN).collect()
}

fn table(
    page: &mut String,
    id: &str,
    title: &str,
    head: &[&str],
    lines: impl IntoIterator<Item = (&'static str, String)>,
) {
    rows(page, id, title, head, lines.into_iter().map(|(what, much)| vec![what.to_owned(), much]));
}

fn rows(page: &mut String, id: &str, title: &str, head: &[&str], lines: impl Iterator<Item = Vec<String>>) {
    let _ = write!(page, "\n<section id=\"{id}\"><h2>{}</h2><table>", text(title));
    if head.iter().any(|cell| !cell.is_empty()) {
        page.push_str("<tr>");
        head.iter().for_each(|cell| {
            let _ = write!(page, "<th>{}</th>", text(cell));
        });
        page.push_str("</tr>");
    }
    for line in lines {
        page.push_str("<tr>");
        for cell in line {
            let _ = write!(page, "<td>{}</td>", text(&cell));
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></section>");
}

/// Outside text for a place between tags.
fn text(outside: &str) -> String {
    let mut escaped = String::with_capacity(outside.len());
    for c in plain(outside).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1b1f24}\
header{background:#1b2a41;color:#fff;padding:16px 24px}h1{margin:0;font-size:22px}header p{margin:4px 0}\
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:16px;padding:24px}\
section{background:#fff;border-radius:6px;padding:12px 16px;box-shadow:0 1px 3px #0002;overflow-x:auto}\
#events,#gateways,#quarantined{grid-column:1/-1}h2{font-size:15px;margin:0 0 8px}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:3px 12px 3px 0;border-top:1px solid #e6e8eb;vertical-align:top}\
td:last-child{font-variant-numeric:tabular-nums}.good{color:#7ee0a1}.bad{color:#d1242f;font-weight:600}header .bad{color:#ff9b9b}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_become_markup() {
        assert_eq!(text("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
        assert_eq!(text("a\u{1b}[2J"), "a\\u{1b}[2J");
    }
}
