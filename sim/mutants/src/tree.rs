//! A copy of the workspace in which all mutants that compile stand behind switches.

use crate::error::{Error, Result};
use crate::mutant::{Mutant, Number};
use crate::syntax::Piece;
use crate::weave::weave;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package whose files are mutated.
const MUTATED: &str = "boxpool";
/// What the switches ask. The copy alone has it.
const SWITCH: &str = r#"
pub(crate) fn mutated(number: u32) -> bool {
    static ACTIVE: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
        std::env::var("BOXPOOL_MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    });
    *ACTIVE == number
}
"#;
/// Each round leaves out what did not compile in the last: types first, then borrows.
const MOST_ROUNDS: u32 = 20;

/// What the compiler says, a line each.
#[derive(Deserialize)]
struct Line {
    message: Option<Complaint>,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Complaint {
    level: String,
    rendered: Option<String>,
    spans: Vec<Spot>,
}

#[derive(Deserialize)]
struct Spot {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    /// What is wrong lies here; the others only explain it.
    is_primary: bool,
}

/// The copy, and which mutants are in it.
pub(crate) struct Tree {
    root: PathBuf,
    /// Those that compile.
    pub(crate) viable: Vec<Number>,
}

impl Tree {
    /// Copies what git knows of the workspace into `root` and weaves in what compiles of `mutants`.
    pub(crate) fn grow(root: &Path, mutants: &[Mutant]) -> Result<Self> {
        copy_workspace(root)?;
        let originals = originals(root, mutants)?;
        let library = root.join("core/src/lib.rs");
        let library_text = read(&library)?;
        let mut left_out = BTreeSet::new();
        for round in 1..=MOST_ROUNDS {
            let mut places: BTreeMap<String, Vec<(Piece, Number)>> = BTreeMap::new();
            // The library first: it may hold mutants itself, and then gets the switch with them.
            write(&library, &(library_text.clone() + SWITCH))?;
            for (file, text) in &originals {
                let here: Vec<(Number, &Mutant)> = (1..)
                    .zip(mutants)
                    .filter(|(number, mutant)| mutant.file == *file && !left_out.contains(number))
                    .collect();
                let woven = weave(text, &here).map_err(|why| Error::new(format!("{file} cannot be read: {why}")))?;
                left_out.extend(woven.left_out);
                let switch = if root.join(file) == library { SWITCH } else { "" };
                write(&root.join(file), &(woven.text + switch))?;
                places.insert(file.clone(), woven.places);
            }
            let complaints = check(root)?;
            let guilty: BTreeSet<Number> =
                complaints.iter().flat_map(|complaint| guilty_of(complaint, &places)).collect();
            eprintln!("round {round}: {} mutants do not compile, {} complaints", guilty.len(), complaints.len());
            if complaints.is_empty() {
                let viable = (1..=mutants.len()).filter(|number| !left_out.contains(number)).collect();
                return Ok(Self { root: root.to_owned(), viable });
            }
            // A match that a missing arm leaves open is complained of as a whole.
            let arms = |complaint: &Complaint| arms_near(complaint, mutants, &left_out);
            let guilty = if guilty.is_empty() { complaints.iter().flat_map(arms).collect() } else { guilty };
            if guilty.is_empty() {
                let first = complaints.into_iter().find_map(|complaint| complaint.rendered).unwrap_or_default();
                return Err(Error::new(format!("the compiler complains of no mutant: {first}")));
            }
            left_out.extend(guilty);
        }
        Err(Error::new(format!("it does not compile after {MOST_ROUNDS} rounds")))
    }

    /// Builds tests and returns their programs by name.
    pub(crate) fn build(&self, arguments: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
        let lines = cargo(&self.root, &[&["test", "--no-run"], arguments].concat())?;
        let found = lines.into_iter().filter_map(|line| Some((line.target?.name, line.executable?)));
        Ok(found.collect())
    }

    /// Where a package's tests are run.
    pub(crate) fn place(&self, package: &str) -> PathBuf {
        self.root.join(package)
    }
}

fn copy_workspace(root: &Path) -> Result<()> {
    let listed =
        Command::new("git").args(["ls-files", "-z"]).output().map_err(|why| Error::new(format!("git: {why}")))?;
    for file in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|file| !file.is_empty()) {
        let to = root.join(file);
        let folder = to.parent().unwrap_or(root);
        std::fs::create_dir_all(folder).map_err(|why| Error::of(folder, &why))?;
        // What was deleted and not committed is listed, too.
        if Path::new(file).exists() {
            std::fs::copy(file, &to).map_err(|why| Error::of(&to, &why))?;
        }
    }
    Ok(())
}

fn originals(root: &Path, mutants: &[Mutant]) -> Result<BTreeMap<String, String>> {
    let files: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.file.as_str()).collect();
    files.into_iter().map(|file| Ok((file.to_owned(), read(&root.join(file))?))).collect()
}

fn check(root: &Path) -> Result<Vec<Complaint>> {
    let lines = cargo(root, &["check", "--package", MUTATED, "--features", "planted"])?;
    let complaints = lines.into_iter().filter_map(|line| line.message).filter(|complaint| complaint.level == "error");
    Ok(complaints.filter(|complaint| !complaint.spans.is_empty()).collect())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Vec<Line>> {
    let output = Command::new("cargo")
        .args(arguments)
        .args(["--locked", "--message-format=json"])
        .current_dir(root)
        // Of its own: the workspace's is somebody else's to fill.
        .env("CARGO_TARGET_DIR", root.join("target"))
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|why| Error::new(format!("cargo: {why}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn guilty_of(complaint: &Complaint, places: &BTreeMap<String, Vec<(Piece, Number)>>) -> BTreeSet<Number> {
    let touched_by = |primary: bool| {
        let mut guilty = BTreeSet::new();
        for spot in complaint.spans.iter().filter(|spot| spot.is_primary == primary) {
            let here = places.get(&spot.file_name).into_iter().flatten();
            let touched = here.filter(|(piece, _)| piece.start < spot.byte_end && spot.byte_start < piece.end);
            guilty.extend(touched.map(|(_, number)| *number));
        }
        guilty
    };
    let guilty = touched_by(true);
    if guilty.is_empty() { touched_by(false) } else { guilty }
}

/// The mutants that delete an arm in a file that is complained of.
fn arms_near(complaint: &Complaint, mutants: &[Mutant], left_out: &BTreeSet<Number>) -> Vec<Number> {
    let here = |mutant: &Mutant| complaint.spans.iter().any(|spot| spot.file_name == mutant.file);
    let arms = (1..).zip(mutants).filter(|(number, mutant)| {
        mutant.genre == crate::mutant::Genre::MatchArm && here(mutant) && !left_out.contains(number)
    });
    arms.map(|(number, _)| number).collect()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|why| Error::of(path, &why))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|why| Error::of(path, &why))
}
