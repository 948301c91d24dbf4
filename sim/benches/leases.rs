//! An experiment: what if each gateway leased free instances by the batch, with one write for a batch, instead of claiming each with a write of its
//! own, as the pool does? Two small models of a claim on the simulated cloud's own store, with its latencies, in virtual time: every machine prints the same.
//!
//! `cargo bench -p boxpool-sim --bench leases`. The models take instances and do nothing else; no box runs. What the pool itself does is in `pools`.
#![allow(clippy::unwrap_used)]

use boxpool::{ErrorKind, Key, StateStore, Table, Version};
use boxpool_sim::{Pace, SimCloud, draw};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Who names an instance: the write that a claim begins with, in either model.
const BOXES: Table = Table::new("modelboxes");
/// What is fought for: batches of instances; of one instance each where none is leased.
const BATCHES: Table = Table::new("modelbatches");

#[derive(Clone, Copy)]
enum Model {
    /// Each claim is a write of the instance, of those first that prefer this gateway.
    Claims,
    /// So many are leased with one write, and are this gateway's alone from then on.
    Leases(usize),
}

impl Model {
    fn batch(self) -> usize {
        match self {
            Self::Claims => 1,
            Self::Leases(batch) => batch,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Claims => "a write each".into(),
            Self::Leases(batch) => format!("leases of {batch}"),
        }
    }
}

/// What the gateways of one run have spent and got.
#[derive(Debug, Default)]
struct Tally {
    won: usize,
    writes: usize,
    lost: usize,
    took: Vec<Duration>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.won += other.won;
        self.writes += other.writes;
        self.lost += other.lost;
        self.took.extend(other.took);
    }

    fn took(&mut self, part: usize) -> f64 {
        self.took.sort_unstable();
        self.took
            .get((self.took.len().saturating_sub(1) * part).div_ceil(100))
            .map_or(0.0, |took| took.as_secs_f64() * 1e3)
    }
}

struct Gateway {
    number: usize,
    store: Arc<dyn StateStore>,
    model: Model,
    /// Batches that nobody had taken when this gateway looked, the best last.
    known: Vec<(Key, Version)>,
    /// Instances that are leased and not used yet.
    leased: usize,
    tally: Tally,
}

impl Gateway {
    /// One instance for one box, or `None` when all that this gateway knows of is taken.
    async fn claim(&mut self, box_number: usize) -> Option<()> {
        let begun = Instant::now();
        let of_box = Key::new(BOXES, format!("g{}", self.number), format!("b{box_number}"));
        self.tally.writes += 1;
        self.store.insert(&of_box, "placing").await.unwrap();
        while self.leased == 0 {
            let (key, version) = self.known.pop()?;
            self.tally.writes += 1;
            match self.store.update(&key, &version, "taken").await {
                Ok(_) => self.leased = self.model.batch(),
                Err(error) if error.kind() == ErrorKind::Conflict => self.tally.lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
        self.leased -= 1;
        self.tally.won += 1;
        self.tally.took.push(begun.elapsed());
        Some(())
    }
}

/// Gateways that have all just looked. Each batch prefers one of them, and each is preferred by as many as any other.
async fn gateways(cloud: &SimCloud, model: Model, count: usize, free: usize) -> Vec<Gateway> {
    let batches = free / model.batch();
    let first = cloud.gateway().unwrap().store();
    let mut versions = Vec::new();
    for batch in 0..batches {
        let key = Key::new(BATCHES, format!("{batch:05}"), "batch");
        let version = first.insert(&key, "free").await.unwrap();
        versions.push((key, version));
    }
    let part = batches.div_ceil(count);
    let mut load = vec![0; count];
    let owners: Vec<usize> = (0..batches)
        .map(|batch| {
            let open = (0..count).filter(|gateway| load[*gateway] < part);
            let best = open.max_by_key(|gateway| draw(*gateway as u64, &format!("batch {batch}"))).unwrap_or(0);
            load[best] += 1;
            best
        })
        .collect();
    let mut all = Vec::new();
    for number in 0..count {
        let mut known: Vec<_> = versions.iter().cloned().zip(&owners).collect();
        known.sort_by_key(|((key, _), owner)| (**owner == number, draw(number as u64, &key.partition)));
        let known = known.into_iter().map(|(batch, _)| batch).collect();
        let store = cloud.gateway().unwrap().store();
        all.push(Gateway { number, store, model, known, leased: 0, tally: Tally::default() });
    }
    all
}

/// Every gateway takes so many, one after the other, and all begin at the same moment.
async fn take(gateways: Vec<Gateway>, each: impl Fn(usize) -> usize) -> (Vec<Gateway>, Duration) {
    let begun = Instant::now();
    let visits: Vec<_> = gateways
        .into_iter()
        .map(|mut gateway| {
            let (wanted, before) = (each(gateway.number), gateway.tally.won);
            tokio::spawn(async move {
                for n in 0..wanted {
                    if gateway.claim(before + n).await.is_none() {
                        break;
                    }
                }
                gateway
            })
        })
        .collect();
    let mut back = Vec::new();
    for visit in visits {
        back.push(visit.await.unwrap());
    }
    (back, begun.elapsed())
}

fn in_virtual_time<T>(world: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(world)
}

const MODELS: [Model; 4] = [Model::Claims, Model::Leases(4), Model::Leases(8), Model::Leases(32)];

/// All gateways alike.
fn even(count: usize, free: usize, each: usize) {
    println!("{count} gateways, {free} free instances, each takes {each} one after the other, all at the same moment");
    println!(
        "{:<14} {:>7} {:>14} {:>12} {:>12} {:>10} {:>10} {:>11}",
        "", "served", "lost of 100", "writes each", "claims/s", "p50 ms", "p99 ms", "unused left"
    );
    for model in MODELS {
        let (mut tally, mut time, mut left) = (Tally::default(), Duration::ZERO, 0);
        for seed in 0..10 {
            let (of_world, took, unused) = in_virtual_time(async {
                let cloud = SimCloud::builder().seed(seed).pace(Pace::Cloud).build().unwrap();
                let (all, took) = take(gateways(&cloud, model, count, free).await, |_| each).await;
                let mut tally = Tally::default();
                let unused: usize = all.iter().map(|gateway| gateway.leased).sum();
                all.into_iter().for_each(|gateway| tally.add(gateway.tally));
                (tally, took, unused)
            });
            tally.add(of_world);
            time += took;
            left += unused;
        }
        let won = tally.won.max(1) as f64;
        println!(
            "{:<14} {:>5.0} % {:>14.2} {:>12.2} {:>12.0} {:>10.0} {:>10.0} {:>11.1}",
            model.name(),
            10.0 * won / (count * each) as f64,
            100.0 * tally.lost as f64 / won,
            tally.writes as f64 / won,
            won / time.as_secs_f64(),
            tally.took(50),
            tally.took(99),
            left as f64 / 10.0
        );
    }
}

/// Each gateway has had one visitor; from then on all come to one of them. And one of the others dies.
fn uneven(count: usize, free: usize) {
    println!(
        "{count} gateways, {free} free instances; each takes one, then all come to one gateway until it finds none"
    );
    println!(
        "{:<14} {:>16} {:>22} {:>32}",
        "", "served by it", "free but out of reach", "lost for a while, when one dies"
    );
    for model in MODELS {
        let (served, stranded, of_one) = in_virtual_time(async {
            let cloud = SimCloud::builder().seed(1).pace(Pace::Cloud).build().unwrap();
            let (all, _) = take(gateways(&cloud, model, count, free).await, |_| 1).await;
            let of_one = all[1].leased;
            let (all, _) = take(all, |gateway| if gateway == 0 { free } else { 0 }).await;
            (all[0].tally.won, all[1..].iter().map(|gateway| gateway.leased).sum::<usize>(), of_one)
        });
        println!("{:<14} {served:>16} {stranded:>22} {of_one:>32}", model.name());
    }
}

fn main() {
    even(64, 1_024, 10);
    even(64, 64, 1);
    uneven(8, 256);
}
