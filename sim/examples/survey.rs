use boxpool_sim::planted::{Bug, plant};
use boxpool_sim::*;
use std::time::{Duration, Instant};
fn main() {
    let mut args = std::env::args().skip(1);
    let from: u64 = args.next().unwrap().parse().unwrap();
    let n: u64 = args.next().unwrap().parse().unwrap();
    let secs: f64 = args.next().unwrap().parse().unwrap();
    let profiles: Vec<Profile> = args.next().unwrap().split(',').map(|p| p.parse().unwrap()).collect();
    let only: Vec<String> = args.collect();
    let bugs: Vec<Bug> =
        Bug::ALL.iter().copied().filter(|b| only.is_empty() || only.contains(&format!("{b:?}"))).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(bug) = bugs.get(i) else { return };
                    for profile in &profiles {
                        let begun = Instant::now();
                        let mut found = None;
                        let mut ran = 0;
                        for seed in from..from + n {
                            if begun.elapsed() > Duration::from_secs_f64(secs) {
                                break;
                            }
                            plant(Some(*bug));
                            let case = Case::random(seed, *profile);
                            let out = std::panic::catch_unwind(|| run(&case));
                            plant(None);
                            ran += 1;
                            match out {
                                Err(e) => {
                                    let _ = e;
                                    found = Some((seed, "PANIC".to_string(), vec![]));
                                    break;
                                }
                                Ok(o) if !o.violations.is_empty() => {
                                    found = Some((seed, o.violations[0].clone(), o.violations));
                                    break;
                                }
                                _ => {}
                            }
                        }
                        let t = begun.elapsed().as_secs_f64();
                        match found {
                            Some((seed, what, all)) => println!(
                                "{bug:?} {profile:?} FOUND seed {seed} after {ran} {t:.2}s ({} v) {what}",
                                all.len()
                            ),
                            None => println!("{bug:?} {profile:?} -- not in {ran} {t:.2}s"),
                        }
                    }
                }
            });
        }
    });
}
