use boxpool_sim::{Case, Profile, corpus, run_traced, shrink_violation};
use std::path::Path;
use std::process::ExitCode;

/// As many runs as a shrink may take: a few seconds.
const SHRINK_RUNS: usize = 3_000;

pub(crate) fn replay(
    history: &str,
    profile: Profile,
    shrink: bool,
    only: Option<&str>,
    timeline: Option<&Path>,
) -> Result<ExitCode, String> {
    let mut case = match history.parse::<u64>() {
        Ok(seed) => Case::random(seed, profile),
        Err(_) if history == "-" => {
            let text = std::io::read_to_string(std::io::stdin()).map_err(|error| format!("standard input: {error}"))?;
            corpus::parse(&text)
                .map_err(|error| format!("standard input is not a history of this version: {error}"))?
                .case
        }
        Err(_) => corpus::Entry::read(Path::new(history)).map_err(|error| error.to_string())?.case,
    };
    if shrink {
        case = shrink_violation(&case, SHRINK_RUNS);
    }
    let outcome = run_traced(&case);
    for entry in &outcome.trace {
        let line = entry.to_string();
        if only.is_none_or(|only| line.contains(only)) {
            println!("{line}");
        }
    }
    println!(
        "{} calls, {} lives, {:?} of virtual time, fingerprint {:016x}",
        outcome.calls, outcome.lives, outcome.elapsed, outcome.fingerprint
    );
    for (repair, count) in &outcome.repairs {
        println!("put right: {count} × {repair}");
    }
    if shrink {
        let data = serde_json::to_string(&case).map_err(|error| error.to_string())?;
        println!("as data, for a file that `replay` takes:\n{data}");
    }
    if let Some(path) = timeline {
        let page = boxpool_sim::Timeline::new(case.seed, outcome.trace).to_html();
        std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("drawn in {}", path.display());
    }
    if outcome.violations.is_empty() {
        println!("no violation");
        return Ok(ExitCode::SUCCESS);
    }
    for violation in &outcome.violations {
        println!("VIOLATION {violation}");
    }
    Ok(ExitCode::FAILURE)
}
