use boxpool_sim::planner::{
    Arrivals, Habits, Percentile, Plan, Policy, PriceList, Table, USUAL, html, parse_span, policies, svg,
};
use clap::Args;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(crate) const EXAMPLES: &str = "\
Examples:
  boxpool-sim plan --arrivals office:12
  boxpool-sim plan --arrivals visits.csv --prices prices.toml --plot plan.html
  boxpool-sim plan --arrivals diurnal:60/h,2/h,7 --seeds 3 --percentile 99.9
  boxpool-sim plan --arrivals diurnal:60/h,2/h,14 --seeds 12 --policy free=2 --policy free=3 --policy free=0,goal=98%
  boxpool-sim plan --arrivals poisson:45/min,0.1 --policy free=50 --policy free=100,park=0s

Arrivals are a file with the header at_s,box,stay_s, or made from a seed:
  poisson:RATE[,DAYS]           at any hour, whoever comes; a RATE is a number per s, min, h or day
  diurnal:PEAK,TROUGH[,DAYS]    most in the afternoon, fewest at night and on weekends; boxes with usual hours
  office:PEOPLE[,DAYS]          working hours with breaks, Monday to Friday
  class:STUDENTS[,DAYS]         lessons at 10:00 and 14:00, Monday to Friday, and homework
A policy is a list of settings:
  free=N      machines kept running and free       park=TIME    how long an unused box keeps its machine
  reserve=N   machines kept stopped beside         linger=TIME  how long a box runs after its last user
  makes=N     how many are made at the same time   cool=TIME    how long there are some to spare before one goes
  goal=SHARE  as many are kept free as it takes    within=TIME  for that share of users to find one in this time
  most=N      the goal keeps no more free          keep=TIME    the parking policy KeepFor
  held=SHARE  unused boxes hold no more machines   return=TIME  the parking policy ReturnTime, with this horizon
Prices are a TOML file; sim/prices/azure-east-us.toml, which is used unless another is named, shows every key.";

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) visits: Visits,
    /// A file with what things cost; Azure's list prices in East US, unless said
    #[arg(long)]
    prices: Option<PathBuf>,
    /// A policy to compare; may be repeated. A dozen usual ones, unless said
    #[arg(long)]
    policy: Vec<Policy>,
    /// Run each policy with so many seeds, count all of them, and say how sure the means are and what goals save
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of these seeds
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Run the first so many days without counting them, such as those in which a goal learns
    #[arg(long, default_value_t = 0.0)]
    skip_days: f64,
    /// The wait by which policies are compared
    #[arg(long, default_value = "99")]
    percentile: Percentile,
    /// At most so many machines; as many as are needed, unless said
    #[arg(long)]
    max_machines: Option<u32>,
    /// How long users wait before they give up
    #[arg(long, default_value = "5m", value_parser = parse_span)]
    patience: Duration,
    /// How many runs at once; as many as there are processors, unless said
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Draw cost against waiting, into a file that ends in .svg or .html
    #[arg(long)]
    plot: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Visits {
    /// Who comes when: a CSV file, or words such as office:12
    #[arg(long)]
    arrivals: Arrivals,
    /// So many days, and not as many as the arrivals say
    #[arg(long)]
    days: Option<f64>,
    /// How many boxes poisson and diurnal have; as many as are visited three times a day, unless said
    #[arg(long)]
    boxes: Option<u32>,
    /// Half of the visits of poisson and diurnal are shorter than this
    #[arg(long, default_value = "25m", value_parser = parse_span)]
    stay: Duration,
}

impl Visits {
    fn habits(&self) -> Habits {
        Habits { boxes: self.boxes, median_stay: self.stay }
    }
}

/// Prints the visits that the arrivals stand for.
pub(crate) fn trace(visits: &Visits, seed: u64) -> Result<ExitCode, Box<dyn Error>> {
    print!("{}", visits.arrivals.trace(seed, visits.days, &visits.habits())?.to_csv());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn plan(options: Options) -> Result<ExitCode, Box<dyn Error>> {
    let draw = options.plot.as_deref().map(drawer).transpose()?;
    let plan = to_plan(&options)?;
    let (begun, visits) = (Instant::now(), plan.traces()?);
    let count: usize = visits.iter().map(|trace| trace.visits().len()).sum();
    eprintln!("{} policies, {count} visits to {} boxes", plan.policies.len(), visits[0].boxes().len());
    let table = plan.run(|run| {
        let took = begun.elapsed().as_secs_f64();
        eprintln!(
            "{} of {} runs done after {took:.0} s: {} (seed {}), {} connects",
            run.done, run.of, run.policy, run.seed, run.connects
        );
    })?;
    println!("{table}");
    if let (Some(draw), Some(path)) = (draw, &options.plot) {
        std::fs::write(path, draw(&table)?).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_plan(options: &Options) -> Result<Plan, Box<dyn Error>> {
    let prices = match &options.prices {
        None => PriceList::example(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            PriceList::parse(&text.map_err(|error| format!("cannot read the prices {}: {error}", path.display()))?)?
        }
    };
    let chosen = if options.policy.is_empty() { policies(USUAL)? } else { options.policy.clone() };
    let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Ok(Plan {
        habits: options.visits.habits(),
        prices,
        percentile: options.percentile,
        seeds: options.seeds,
        first_seed: options.first_seed,
        days: options.visits.days,
        skip_days: options.skip_days,
        instances: options.max_machines,
        patience: options.patience,
        jobs: options.jobs.unwrap_or(processors),
        ..Plan::new(options.visits.arrivals.clone(), chosen)
    })
}

type Drawer = fn(&Table) -> Result<String, boxpool_sim::planner::PlotError>;

/// Asked before the work, so that no plan is lost to a wrong name.
fn drawer(path: &Path) -> Result<Drawer, String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(svg),
        Some("html") => Ok(|table| html(table, "What a pool costs, and how long users wait")),
        _ => Err(format!("{} ends neither in .svg nor in .html", path.display())),
    }
}
