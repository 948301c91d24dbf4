//! The core must do the same thing in every run from one seed. What clippy's lists (`core/clippy.toml`) cannot see is looked
//! for here.

use std::path::{Path, PathBuf};

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_select_looks_at_its_branches_in_order() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut selects = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, _) in text.match_indices("select! {") {
            selects += 1;
            let body = text[at + "select! {".len()..].trim_start();
            assert!(body.starts_with("biased;"), "{}: a select! without `biased;` begins anywhere", file.display());
        }
    }
    assert!(selects >= 5, "only {selects} were found: has the way they are written changed?");
}
