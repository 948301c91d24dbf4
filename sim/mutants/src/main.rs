//! Which changes to the core go unnoticed. `cargo mutants` says which changes there are; here all of them are built into one
//! program, each behind a switch, so that asking about one costs seconds and no build.
//!
//! ```text
//! cargo mutants --list --json > mutants.json
//! cargo run --release -p boxpool-mutants -- mutants.json --folder /var/tmp/mutants > mutants.md
//! ```

mod ask;
mod error;
mod mutant;
mod syntax;
mod tree;
mod weave;

use ask::{Answer, Witness, ask_all};
use clap::Parser;
use error::{Error, Result};
use mutant::{Mutant, Number};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tree::Tree;

#[derive(Parser)]
#[command(about = "Asks the simulator and the named tests about every mutant of the core, with one build")]
struct Args {
    /// What `cargo mutants --list --json` prints
    list: PathBuf,
    /// Where the copy with the mutants is made and built; it may be there from an earlier run
    #[arg(long)]
    folder: PathBuf,
    /// Histories of each profile; with 300 and more every crash point, too
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// How many are asked at once; as many as there are processors, unless said
    #[arg(long)]
    threads: Option<usize>,
    /// Only mutants whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

/// Both kinds of tests, asked by themselves.
struct Asked {
    simulator: Answer,
    named: Answer,
}

/// No test of the core's own takes longer; in truth they take a tenth of a second.
const NAMED_LIMIT: Duration = Duration::from_secs(30);
/// A verdict takes at most so many times as long as one on the core as it is.
const SLOWER: u32 = 6;
/// How often progress is told.
const TELL_EVERY: usize = 20;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let text = std::fs::read_to_string(&args.list).map_err(|why| Error::of(&args.list, &why))?;
    let mutants: Vec<Mutant> =
        serde_json::from_str(&text).map_err(|why| Error::new(format!("{}: {why}", args.list.display())))?;
    std::fs::create_dir_all(&args.folder).map_err(|why| Error::of(&args.folder, &why))?;
    let folder = args.folder.canonicalize().map_err(|why| Error::of(&args.folder, &why))?;
    let tree = Tree::grow(&folder, &mutants)?;
    let simulator = simulator(&tree, args.seeds)?;
    let named = named(&tree)?;
    let wanted: Vec<Number> =
        tree.viable.iter().copied().filter(|number| mutants[number - 1].name.contains(&args.only)).collect();
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let asked = ask_about(&wanted, threads, |number| {
        Ok(Asked { simulator: simulator.ask(number)?, named: ask_all(&named, number)? })
    })?;
    report(&mutants, &asked);
    Ok(())
}

/// The verdict, which must be good on the core as it is.
fn simulator(tree: &Tree, seeds: u64) -> Result<Witness> {
    let built = tree.build(&["--release", "--package", "boxpool-sim", "--test", "verdict"])?;
    let program = built.get("verdict").ok_or_else(|| Error::new("the verdict was not built"))?;
    let mut verdict = Witness::new(program, tree.place("sim"), Duration::from_secs(3_600));
    verdict.arguments = vec!["--ignored".to_owned()];
    verdict.environment = vec![("BOXPOOL_VERDICT_SEEDS".to_owned(), seeds.to_string())];
    let begun = Instant::now();
    sound(&verdict)?;
    verdict.limit = begun.elapsed() * SLOWER + NAMED_LIMIT;
    Ok(verdict)
}

fn named(tree: &Tree) -> Result<Vec<Witness>> {
    let built = tree.build(&["--package", "boxpool", "--lib", "--tests"])?;
    let witnesses: Vec<Witness> =
        built.values().map(|program| Witness::new(program, tree.place("core"), NAMED_LIMIT)).collect();
    if witnesses.is_empty() {
        return Err(Error::new("the core's own tests were not built"));
    }
    witnesses.iter().try_for_each(sound)?;
    Ok(witnesses)
}

fn sound(witness: &Witness) -> Result<()> {
    match witness.ask(0)? {
        Answer::Missed => Ok(()),
        answer => Err(Error::new(format!("{} says {answer:?} where nothing was changed", witness.program.display()))),
    }
}

fn ask_about(
    numbers: &[Number],
    threads: usize,
    ask: impl Fn(Number) -> Result<Asked> + Sync,
) -> Result<BTreeMap<Number, Asked>> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        let work = || {
            while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let asked = ask(*number)?;
                let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.insert(*number, asked);
                if all.len() % TELL_EVERY == 0 {
                    eprintln!("{} of {} mutants", all.len(), numbers.len());
                }
            }
            Ok(())
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err(Error::new("a thread has panicked"))))
    })?;
    Ok(all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// A table by file, and everything that nobody noticed.
fn report(mutants: &[Mutant], asked: &BTreeMap<Number, Asked>) {
    let caught = |answer: Answer| answer != Answer::Missed;
    let mut files: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for (number, Asked { simulator, named }) in asked {
        let row = files.entry(mutants[number - 1].file.as_str()).or_default();
        let column = match (caught(*simulator), caught(*named)) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        row[0] += 1;
        row[column] += 1;
    }
    println!(
        "| file | viable mutants | noticed by the simulator | else by a named test | by nobody |\n|---|---|---|---|---|"
    );
    let all = files.values().fold([0; 4], |sum, row| std::array::from_fn(|column| sum[column] + row[column]));
    for (file, row) in files.iter().chain([(&"all", &all)]) {
        println!("| {file} | {} | {} | {} | {} |", row[0], row[1], row[2], row[3]);
    }
    println!("\nBy nobody:\n");
    for (number, _) in asked.iter().filter(|(_, asked)| !caught(asked.simulator) && !caught(asked.named)) {
        println!("- {}", mutants[number - 1].name);
    }
}
