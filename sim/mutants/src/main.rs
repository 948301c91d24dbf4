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
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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
    /// Histories of each profile that are tried first
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// How many are asked at once; as many as there are processors, unless said
    #[arg(long)]
    threads: Option<usize>,
    /// Only mutants whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Only those that nobody noticed according to this earlier report
    #[arg(long)]
    again: Option<PathBuf>,
    /// Do not try every crash point, which takes most of the time
    #[arg(long)]
    quick: bool,
}

/// Who is asked, in this order: what the simulator's flows cost; its judges in a few histories of each profile; its judges again
/// at every crash point, and in three times as many histories; and at last the core's own tests.
const WITNESSES: [&str; 4] = ["costs", "histories", "crash points", "named tests"];

/// With so many histories the verdict looks at every crash point, too.
const WHOLE_VERDICT: u64 = 300;

/// Nothing that is asked about the core as it is takes longer.
const LONGEST: Duration = Duration::from_secs(3_600);
/// No test of the core's own takes longer; in truth they take a tenth of a second.
const NAMED_LIMIT: Duration = Duration::from_secs(30);
/// What a processor may be busy with something else.
const PAUSE: Duration = Duration::from_secs(5);
/// A verdict takes at most so many times as long as one on the core as it is.
const SLOWER: u32 = 6;

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
    let witnesses = witnesses(&tree, args)?;
    let earlier = args.again.as_ref().map(std::fs::read_to_string).transpose();
    let earlier = earlier.map_err(|why| Error::new(format!("the earlier report cannot be read: {why}")))?;
    let again: Option<BTreeSet<&str>> =
        earlier.as_ref().map(|text| text.lines().filter_map(|line| line.strip_prefix("- ")).collect());
    let is_wanted = |name: &str| name.contains(&args.only) && again.as_ref().is_none_or(|again| again.contains(name));
    let wanted: Vec<Number> =
        tree.viable.iter().copied().filter(|number| is_wanted(&mutants[number - 1].name)).collect();
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let tell = |number: Number, who: Option<usize>, count: usize| {
        let who = who.map_or("nobody", |who| WITNESSES[who]);
        eprintln!("{count} of {}: {who} noticed {}", wanted.len(), mutants[number - 1].name);
    };
    report(&mutants, &ask_about(&wanted, threads, |number| who_notices(&witnesses, number), tell)?);
    Ok(())
}

/// Which of [`WITNESSES`] notices it first.
fn who_notices(witnesses: &[Vec<Witness>; 4], number: Number) -> Result<Option<usize>> {
    for (who, programs) in witnesses.iter().enumerate() {
        if ask_all(programs, number)? != Answer::Missed {
            return Ok(Some(who));
        }
    }
    Ok(None)
}

fn witnesses(tree: &Tree, args: &Args) -> Result<[Vec<Witness>; 4]> {
    let built = tree.build(&["--release", "--package", "boxpool-sim", "--test", "verdict", "--test", "costs"])?;
    let program = |name: &str| built.get(name).ok_or_else(|| Error::new(format!("{name} was not built")));
    let verdict = |seeds: u64| verdict(program("verdict")?, tree, seeds);
    let costs = timed(Witness::new(program("costs")?, tree.place("sim"), LONGEST))?;
    let whole = if args.quick { Vec::new() } else { vec![verdict(args.seeds.max(WHOLE_VERDICT))?] };
    Ok([vec![costs], vec![verdict(args.seeds)?], whole, named(tree)?])
}

/// The verdict, which must be good on the core as it is.
fn verdict(program: &Path, tree: &Tree, seeds: u64) -> Result<Witness> {
    let mut verdict = Witness::new(program, tree.place("sim"), LONGEST);
    verdict.arguments = vec!["--ignored".to_owned()];
    verdict.environment = vec![("BOXPOOL_VERDICT_SEEDS".to_owned(), seeds.to_string())];
    timed(verdict)
}

/// Asks about the core as it is, and allows some times as long for the others.
fn timed(mut witness: Witness) -> Result<Witness> {
    let begun = Instant::now();
    sound(&witness)?;
    witness.limit = begun.elapsed() * SLOWER + PAUSE;
    Ok(witness)
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
    ask: impl Fn(Number) -> Result<Option<usize>> + Sync,
    tell: impl Fn(Number, Option<usize>, usize) + Sync,
) -> Result<BTreeMap<Number, Option<usize>>> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        let work = || {
            while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                let asked = ask(*number)?;
                let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.insert(*number, asked);
                tell(*number, asked, all.len());
            }
            Ok(())
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err(Error::new("a thread has panicked"))))
    })?;
    Ok(all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// A table by file, and everything that nobody noticed.
fn report(mutants: &[Mutant], noticed: &BTreeMap<Number, Option<usize>>) {
    const NOBODY: usize = WITNESSES.len();
    let mut files: BTreeMap<&str, [usize; NOBODY + 1]> = BTreeMap::new();
    for (number, who) in noticed {
        files.entry(mutants[number - 1].file.as_str()).or_default()[who.unwrap_or(NOBODY)] += 1;
    }
    let all = files.values().fold([0; NOBODY + 1], |sum, row| std::array::from_fn(|column| sum[column] + row[column]));
    println!("| file | viable mutants | noticed by {} | nobody |", WITNESSES.join(" | else by "));
    println!("|---{}|", "|---".repeat(NOBODY + 2));
    for (file, row) in files.iter().chain([(&"all", &all)]) {
        let columns = row.map(|count| count.to_string()).join(" | ");
        println!("| {file} | {} | {columns} |", row.iter().sum::<usize>());
    }
    println!("\nBy nobody:\n");
    for (number, _) in noticed.iter().filter(|(_, who)| who.is_none()) {
        println!("- {}", mutants[number - 1].name);
    }
}
