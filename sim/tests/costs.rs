//! What the flows cost is what `COSTS.md` says.
#![allow(clippy::unwrap_used)]

use boxpool_sim::costs::{costs, strains, sums};
use std::path::Path;

/// A table of `COSTS.md`, as it must stand there.
fn stands(lines: &[String]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("COSTS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let table = lines.join("\n");
    assert!(text.contains(&table), "where this is meant, COSTS.md must say:\n{table}");
}

#[test]
fn what_a_flow_costs() {
    stands(&costs().iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn what_a_failed_call_costs() {
    stands(&strains().iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn what_random_histories_come_to() {
    stands(&sums().iter().map(ToString::to_string).collect::<Vec<_>>());
}
