//! `cargo run --release -p boxpool-model -- --help`

use boxpool_model::{Backend, MAX_BOXES, MAX_INSTANCES, MAX_NODES, Plan, Planted, Scope, explore};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Looks at every state of boxpool's protocol within bounds.
#[derive(Debug, Parser)]
struct Arguments {
    /// Users, each with one box and its volume
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MAX_BOXES as i64))]
    users: u8,
    /// Instances at the start
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=MAX_INSTANCES as i64))]
    instances: u8,
    /// Instances made in place of deleted ones
    #[arg(long, default_value_t = 0)]
    makes: u8,
    /// Nodes; one that starts again counts as another
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=MAX_NODES as i64))]
    nodes: u8,
    /// The highest epoch of a box
    #[arg(long, default_value_t = 5)]
    epochs: u8,
    /// Nodes that may die
    #[arg(long, default_value_t = 1)]
    crashes: u8,
    /// Answers that may be lost
    #[arg(long, default_value_t = 1)]
    losses: u8,
    /// Times that a living node is taken for dead
    #[arg(long, default_value_t = 1)]
    doubts: u8,
    /// Guests or machines that may break
    #[arg(long, default_value_t = 0)]
    breakdowns: u8,
    /// The free index may be out of date
    #[arg(long)]
    stale_index: bool,
    /// Owners delete their boxes
    #[arg(long)]
    deletes: bool,
    /// What the backend promises
    #[arg(long, value_enum, default_value = "local")]
    backend: Backend,
    /// A mistake to be found
    #[arg(long, value_enum)]
    planted: Option<Planted>,
    /// Threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seconds after which it stops
    #[arg(long, default_value_t = 3_600)]
    limit: u64,
    /// Look only at properties whose names begin so (I1 … I9)
    #[arg(long, default_value = "")]
    only: String,
    /// Print a finding as JSON instead of words
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let a = Arguments::parse();
    let scope = Scope {
        boxes: a.users,
        instances: a.instances,
        makes: a.makes.min(MAX_INSTANCES as u8 - a.instances),
        nodes: a.nodes,
        epochs: a.epochs,
        crashes: a.crashes,
        losses: a.losses,
        doubts: a.doubts,
        breakdowns: a.breakdowns,
        stale_index: a.stale_index,
        deletes: a.deletes,
        backend: a.backend,
        planted: a.planted,
    };
    let mut told = Instant::now();
    let plan = Plan { threads: a.threads, limit: Duration::from_secs(a.limit), only: a.only };
    let outcome = explore(&scope, &plan, |states, unique| {
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            eprintln!("{states} states, {unique} different …");
        }
    });
    eprintln!("{outcome}");
    let mut out = std::io::stdout().lock();
    let written = match &outcome.finding {
        Some(finding) if a.json => finding.json().map_err(Into::into).and_then(|json| writeln!(out, "{json}")),
        Some(finding) => write!(out, "{finding}"),
        None => outcome.marks.iter().try_for_each(|(mark, count)| writeln!(out, "{count:>12}  {}", mark.words())),
    };
    if let Err(error) = written {
        eprintln!("could not write: {error}");
        return ExitCode::from(2);
    }
    if outcome.finding.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}
