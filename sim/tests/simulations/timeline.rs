//! The picture of a run, looked at by a real browser.

use boxpool_sim::{Case, Entry, Kind, Profile, Timeline, run_traced};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the browser makes of the page: its document after the script has run.
fn rendered(page: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("timeline.html");
    std::fs::write(&file, page).unwrap();
    let mut browser = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .args(["--virtual-time-budget=10000", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("file://{}", file.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("chromium is installed by scripts/install-packages tests");
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut out = browser.stdout.take().unwrap();
    let mut complaints = browser.stderr.take().unwrap();
    let read_complaints = std::thread::spawn(move || std::io::read_to_string(&mut complaints).unwrap_or_default());
    std::thread::spawn(move || sender.send(std::io::read_to_string(&mut out).unwrap_or_default()));
    let dom = receiver.recv_timeout(Duration::from_secs(120));
    let _ = browser.kill();
    browser.wait().unwrap();
    let complaints = read_complaints.join().unwrap();
    let script: Vec<&str> =
        complaints.lines().filter(|line| line.contains("CONSOLE") && line.contains("rror")).collect();
    assert!(script.is_empty(), "{script:?}");
    dom.unwrap_or_else(|_| panic!("the browser did not end: {complaints}"))
}

fn history() -> Vec<Entry> {
    (0..).map(|seed| run_traced(&Case::random(seed, Profile::Crashes)).trace).find(|trace| trace.len() > 300).unwrap()
}

#[test]
fn a_browser_draws_gateways_things_faults_and_the_broken_invariant() {
    let mut entries = history();
    let middle = entries[entries.len() / 2].at;
    let what = "I1: a guest runs twice <script>alert('no')</script>".to_owned();
    entries.push(Entry { at: middle, gateway: None, kind: Kind::Violation, resource: String::new(), what });
    let page = Timeline::new(7, entries).to_html();
    let dom = rendered(&page);
    for expected in
        ["gateway 0", "instance i00000", "class=\"call\"", "class=\"fault\"", "class=\"violation\"", "class=\"user\""]
    {
        assert!(dom.contains(expected), "the picture has no {expected}");
    }
    assert!(dom.contains("<span id=\"seed\">7</span>"));
    assert!(dom.contains("I1: a guest runs twice &lt;script&gt;"), "what was broken stands at the top, as text");
    assert!(dom.matches("<circle").count() > 5 && dom.matches("class=\"call").count() > 100);
}

#[test]
fn a_picture_needs_nothing_from_outside_and_is_not_large() {
    let page = Timeline::new(7, history()).to_html();
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("http"), "nothing is fetched");
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}
