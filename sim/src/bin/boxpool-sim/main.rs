//! Explores histories of the real pool in a simulated cloud: see `boxpool-sim --help`.

#[cfg(feature = "arm")]
mod arm;
mod bench;
mod explore;
mod plan;
mod replay;
mod survey;

use boxpool_sim::Profile;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "boxpool-sim",
    about = "Runs the real boxpool core against a simulated cloud, in virtual time, from seeds"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many histories and sums up what was seen; ends with 1 when an invariant was broken
    Explore {
        /// How many histories
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Stop after so many minutes
        #[arg(long)]
        minutes: Option<f64>,
        /// Which kind of histories: swarm, calm, crashes, calls, machines, golden, zones, verbs, reserve, parking, or all in turn
        #[arg(long, default_value = "all")]
        profile: String,
        /// How many at once; as many as there are processors, unless said
        #[arg(long)]
        threads: Option<usize>,
        /// Stop after so many failing histories
        #[arg(long, default_value_t = 3)]
        failures: usize,
    },
    /// Runs one history again and tells what happened
    Replay {
        /// A seed, a file with a history, or - for a history on standard input
        history: String,
        /// The kind of history that the seed stands for
        #[arg(long, default_value = "swarm")]
        profile: Profile,
        /// Make it as small as it goes while it fails in the same way, and print it as data
        #[arg(long)]
        shrink: bool,
        /// Only lines that contain this
        #[arg(long)]
        only: Option<String>,
        /// Draw it, as a page for a browser
        #[arg(long)]
        timeline: Option<PathBuf>,
    },
    /// Prints the fingerprint of each seed, to compare runs byte for byte
    Fingerprint {
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
    /// Has a gateway die at every call of every flow, and tells how many points there are
    Crashpoints {
        /// Only flows whose name contains this
        #[arg(long, default_value = "")]
        only: String,
        /// Every n-th point of a second crash during the recovery; 0 for none
        #[arg(long, default_value_t = 20)]
        second_every: usize,
        /// Every n-th pair of faults in the short flows; 0 for none
        #[arg(long, default_value_t = 100)]
        pairs_every: usize,
    },
    /// Serves a simulated Azure Resource Manager until it is interrupted
    #[cfg(feature = "arm")]
    Arm {
        /// The port on the loopback address; 0 takes a free one
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// What luck follows from
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// How long operations take, against the real service
        #[arg(long, default_value_t = 0.01)]
        time_scale: f64,
        /// Meters callers as the service does; 10 has buckets ten times smaller, 0 none
        #[arg(long, default_value_t = 0.0)]
        throttle: f64,
        /// The quota of machines
        #[arg(long)]
        most_machines: Option<usize>,
        /// A size of machine for which there turns out to be no room
        #[arg(long)]
        full_size: Vec<String>,
    },
    /// Compares ways to run a pool: what each costs, and how long users wait
    #[command(after_help = plan::EXAMPLES)]
    Plan(plan::Options),
    /// Prints visits as CSV, for a plan: those that the arrivals stand for
    Trace {
        #[command(flatten)]
        visits: plan::Visits,
        /// What luck follows from
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Lives (connect, work, leave) per second and core without faults
    Bench {
        /// For how many seconds of real time
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
    },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Explore { seeds, from, minutes, profile, threads, failures } => {
            let profiles = if profile == "all" {
                Profile::ALL.to_vec()
            } else {
                match profile.parse::<Profile>() {
                    Ok(profile) => vec![profile],
                    Err(error) => return complain(&error),
                }
            };
            explore::explore(&explore::Plan { seeds, from, minutes, profiles, threads, failures })
        }
        Command::Replay { history, profile, shrink, only, timeline } => {
            match replay::replay(&history, profile, shrink, only.as_deref(), timeline.as_deref()) {
                Ok(code) => code,
                Err(error) => complain(&error),
            }
        }
        Command::Fingerprint { from, seeds } => {
            for seed in from..from.saturating_add(seeds) {
                let profile = Profile::ALL[(seed % Profile::ALL.len() as u64) as usize];
                let outcome = boxpool_sim::run(&boxpool_sim::Case::random(seed, profile));
                println!(
                    "{seed} {:016x} {} {:?} {:?}",
                    outcome.fingerprint, outcome.calls, outcome.marks, outcome.struck
                );
            }
            ExitCode::SUCCESS
        }
        Command::Crashpoints { only, second_every, pairs_every } => survey::survey(only, second_every, pairs_every),
        #[cfg(feature = "arm")]
        Command::Arm { port, seed, time_scale, throttle, most_machines, full_size } => {
            arm::serve(port, seed, time_scale, throttle, most_machines, full_size)
        }
        Command::Plan(options) => plan::plan(options).unwrap_or_else(|error| complain(&told(&*error))),
        Command::Trace { visits, seed } => plan::trace(&visits, seed).unwrap_or_else(|error| complain(&told(&*error))),
        Command::Bench { seconds } => bench::bench(seconds),
    }
}

/// An error and what caused it.
fn told(error: &dyn std::error::Error) -> String {
    boxpool::Report(error).to_string()
}

fn complain(error: &str) -> ExitCode {
    eprintln!("boxpool-sim: {error}");
    ExitCode::from(2)
}
