//! Who comes when, and for how long: read from a file, or made from a few words and a seed.

use super::luck::Luck;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What can be written for [`Arrivals`].
pub const FORMS: &str = "poisson:RATE[,DAYS], diurnal:PEAK,TROUGH[,DAYS], office:PEOPLE[,DAYS], class:STUDENTS[,DAYS] \
     (a RATE is a number per s, min, h or day, as in 45/min), or the path of a CSV file with the header at_s,box,stay_s";

/// A trace with more visits is refused: a plan is to take minutes.
const MOST_VISITS: usize = 1_000_000;
/// No visit begins later or lasts longer than this.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
const DAY_S: f64 = 86_400.0;

/// Why there are no visits to plan for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrivalsError {
    /// The words do not say what is to come.
    #[error("arrivals {spec:?}: {why}; write {FORMS}")]
    Spec {
        /// What was written.
        spec: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be read.
    #[error("arrivals: cannot read {path:?}; write {FORMS}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A line of a trace is wrong.
    #[error("arrivals, line {line}: {why}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it, and what it should be.
        why: String,
    },
    /// Nobody comes.
    #[error("arrivals: nobody comes; a plan needs at least one visit")]
    Nobody,
}

/// One use of one box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// When the user connects, from the trace's beginning: a Monday, 0:00, where days of the week matter.
    pub at: Duration,
    /// Which box: an index into [`Trace::boxes`].
    pub which: usize,
    /// For how long the user stays once connected.
    pub stay: Duration,
}

/// Visits, by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    visits: Vec<Visit>,
    boxes: Vec<String>,
}

impl Trace {
    /// Reads a trace: a header `at_s,box,stay_s`, then one visit in each line, in any order. Seconds may have fractions; lines that
    /// begin with `#` say nothing.
    ///
    /// # Errors
    /// [`ArrivalsError::Line`] names the first line that is wrong; [`ArrivalsError::Nobody`].
    pub fn from_csv(text: &str) -> Result<Self, ArrivalsError> {
        let mut reader =
            csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(text.as_bytes());
        // A record's own position is that of the remarks before it.
        let wrong = |end: &csv::Position, why: String| {
            let read = text.as_bytes().get(..end.byte() as usize).unwrap_or_default().trim_ascii_end();
            ArrivalsError::Line { line: read.iter().filter(|byte| **byte == b'\n').count() as u64 + 1, why }
        };
        let header = reader.headers().cloned().map_err(|error| wrong(reader.position(), no_csv(&error)))?;
        if header != vec!["at_s", "box", "stay_s"] {
            let why = format!("the header is {:?}, not at_s,box,stay_s", header.iter().collect::<Vec<_>>().join(","));
            return Err(wrong(reader.position(), why));
        }
        let (mut visits, mut names, mut record) = (Vec::new(), BTreeMap::new(), csv::StringRecord::new());
        loop {
            match reader.read_record(&mut record) {
                Ok(true) if visits.len() == MOST_VISITS => {
                    let why = format!("more than {MOST_VISITS} visits; plan for a part of them");
                    return Err(wrong(reader.position(), why));
                }
                Ok(true) => {
                    let visit = visit_of(&record, &mut names);
                    visits.push(visit.map_err(|why| wrong(reader.position(), why))?);
                }
                Ok(false) => break,
                Err(error) => return Err(wrong(reader.position(), no_csv(&error))),
            }
        }
        let mut boxes = vec![String::new(); names.len()];
        names.into_iter().for_each(|(name, which)| boxes[which] = name);
        Self::new(visits, &boxes)
    }

    /// Puts visits in order, and boxes in that of their first visits; what is never visited is left out.
    fn new(mut visits: Vec<Visit>, names: &[String]) -> Result<Self, ArrivalsError> {
        visits.sort_unstable_by_key(|visit| (visit.at, &names[visit.which], visit.stay));
        let (mut boxes, mut place) = (Vec::new(), vec![None; names.len()]);
        for visit in &mut visits {
            let name = &names[visit.which];
            visit.which = *place[visit.which].get_or_insert_with(|| {
                boxes.push(name.clone());
                boxes.len() - 1
            });
        }
        if visits.is_empty() { Err(ArrivalsError::Nobody) } else { Ok(Self { visits, boxes }) }
    }

    /// What [`Trace::from_csv`] reads.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut text = String::from("at_s,box,stay_s\n");
        for visit in &self.visits {
            let (at, name, stay) = (seconds(visit.at), &self.boxes[visit.which], seconds(visit.stay));
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{at},{name},{stay}");
        }
        text
    }

    /// Every visit, in the order in which they begin.
    #[must_use]
    pub fn visits(&self) -> &[Visit] {
        &self.visits
    }

    /// The boxes' names.
    #[must_use]
    pub fn boxes(&self) -> &[String] {
        &self.boxes
    }

    /// The visits that begin before `end`.
    ///
    /// # Errors
    /// [`ArrivalsError::Nobody`] when there are none.
    pub fn until(&self, end: Duration) -> Result<Self, ArrivalsError> {
        let visits = self.visits.iter().filter(|visit| visit.at < end).copied().collect();
        Self::new(visits, &self.boxes)
    }

    /// How many days the trace takes, whole ones.
    #[must_use]
    pub fn days(&self) -> f64 {
        let end = self.visits.iter().map(|visit| visit.at + visit.stay).max().unwrap_or_default();
        (end.as_secs_f64() / DAY_S).ceil().max(1.0)
    }
}

fn seconds(time: Duration) -> String {
    match time.subsec_millis() {
        0 => time.as_secs().to_string(),
        ms => format!("{}.{ms:03}", time.as_secs()).trim_end_matches('0').to_owned(),
    }
}

fn no_csv(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { len, .. } => format!("it has {len} fields; each line is at_s,box,stay_s"),
        _ => format!("{error}; each line is at_s,box,stay_s"),
    }
}

fn visit_of(record: &csv::StringRecord, names: &mut BTreeMap<String, usize>) -> Result<Visit, String> {
    let [at, name, stay] = [0, 1, 2].map(|column| record.get(column).unwrap_or_default());
    let time = |column: &str, text: &str| {
        let seconds = text.parse().ok().filter(|seconds| (0.0..=LONGEST.as_secs_f64()).contains(seconds));
        let milliseconds = seconds.map(|seconds: f64| Duration::from_millis((seconds * 1_000.0).round() as u64));
        milliseconds.ok_or(format!("{column} is {text:?}, not seconds from 0 to {}", LONGEST.as_secs()))
    };
    let (at, stay) = (time("at_s", at)?, time("stay_s", stay)?);
    if name.is_empty() || name.len() > 64 || name.contains(|c: char| c.is_control() || c == ',' || c == '"' || c == '#')
    {
        return Err(format!("box is {name:?}, not a name of 1 to 64 bytes without comma, quote or #"));
    }
    let next = names.len();
    Ok(Visit { at, which: *names.entry(name.to_owned()).or_insert(next), stay })
}

/// How often something happens, in a second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Rate(f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a rate such as 45/min");
        let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit.trim() {
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3_600.0,
            "day" => DAY_S,
            _ => return Err(format!("{}: the unit is one of s, min, h and day", wrong())),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        if !(0.0..=1e6).contains(&number) {
            return Err(format!("{}: from 0 to a million", wrong()));
        }
        Ok(Self(number / seconds))
    }
}

/// A kind of load, made from a seed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Load {
    /// Whoever comes knows nothing of the others, at any hour.
    Poisson(Rate),
    /// Most come in the afternoon, fewest at night and on weekends.
    Diurnal { peak: Rate, trough: Rate },
    /// People with working hours.
    Office { people: u32 },
    /// Students whose lessons begin at full hours.
    Class { students: u32 },
}

/// Where visits come from. Parsed from [`FORMS`].
///
/// ```
/// use boxpool_sim::planner::{Arrivals, Habits};
/// let arrivals: Arrivals = "diurnal:60/h,2/h,7".parse()?;
/// let trace = arrivals.trace(1, None, &Habits::default())?;
/// assert_eq!(trace, arrivals.trace(1, None, &Habits::default())?, "the same seed, the same visits");
/// # Ok::<(), boxpool_sim::planner::ArrivalsError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Arrivals(Source);

#[derive(Debug, Clone, PartialEq)]
enum Source {
    File(PathBuf),
    Made { load: Load, days: f64 },
}

/// What the forms leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// How many boxes there are, for `poisson` and `diurnal`. Without it, as many as are visited some three times a day.
    pub boxes: Option<u32>,
    /// Half of the visits of `poisson` and `diurnal` are shorter than this. Their lengths are log-normal, with a mean of 1.65 times
    /// this.
    pub median_stay: Duration,
}

impl Default for Habits {
    fn default() -> Self {
        Self { boxes: None, median_stay: Duration::from_secs(25 * 60) }
    }
}

impl FromStr for Arrivals {
    type Err = ArrivalsError;

    fn from_str(spec: &str) -> Result<Self, ArrivalsError> {
        let Some((kind, rest)) = spec.split_once(':') else { return Ok(Self(Source::File(spec.into()))) };
        let parts: Vec<&str> = rest.split(',').map(str::trim).collect();
        let made = match kind {
            "poisson" => rate(&parts, 0).and_then(|rate| made(Load::Poisson(rate), &parts[1..], 1.0)),
            "diurnal" => diurnal(&parts),
            "office" => count(parts[0]).and_then(|people| made(Load::Office { people }, &parts[1..], 7.0)),
            "class" => count(parts[0]).and_then(|students| made(Load::Class { students }, &parts[1..], 7.0)),
            _ => return Ok(Self(Source::File(spec.into()))),
        };
        made.map(Self).map_err(|why| ArrivalsError::Spec { spec: spec.to_owned(), why })
    }
}

fn rate(parts: &[&str], place: usize) -> Result<Rate, String> {
    parts.get(place).ok_or("a rate is missing".to_owned())?.parse()
}

fn count(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=100_000).contains(number));
    number.ok_or(format!("{text:?} is not a number of people from 1 to 100000"))
}

fn diurnal(parts: &[&str]) -> Result<Source, String> {
    let (peak, trough) = (rate(parts, 0)?, rate(parts, 1)?);
    if trough > peak {
        return Err("the second rate, at night, is above the first, in the afternoon".into());
    }
    made(Load::Diurnal { peak, trough }, &parts[2..], 7.0)
}

fn made(load: Load, rest: &[&str], days_unless_said: f64) -> Result<Source, String> {
    let days = match rest {
        [] => days_unless_said,
        [days] => days.parse().map_err(|_| format!("{days:?} is not a number of days"))?,
        [_, more, ..] => return Err(format!("{more:?} is one too many")),
    };
    check_days(days)?;
    Ok(Source::Made { load, days })
}

pub(super) fn check_days(days: f64) -> Result<(), String> {
    let most = LONGEST.as_secs_f64() / DAY_S;
    if days > 0.0 && days <= most { Ok(()) } else { Err(format!("{days} days: more than 0, at most {most}")) }
}

impl Arrivals {
    /// The visits. Those that are made follow from the seed; a file is the same for each. With `days`, so many and not as many as the
    /// words say; visits of a file that begin later are left out.
    ///
    /// # Errors
    /// [`ArrivalsError`].
    pub fn trace(&self, seed: u64, days: Option<f64>, habits: &Habits) -> Result<Trace, ArrivalsError> {
        match &self.0 {
            Source::File(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|source| ArrivalsError::Read { path: path.clone(), source })?;
                let trace = Trace::from_csv(&text)?;
                days.map_or(Ok(trace.clone()), |days| trace.until(Duration::from_secs_f64(days * DAY_S)))
            }
            Source::Made { load, days: said } => load.trace(seed, days.unwrap_or(*said), habits),
        }
    }

    /// How many days are to be made; `None` for a file, which says so itself.
    #[must_use]
    pub fn days(&self) -> Option<f64> {
        match &self.0 {
            Source::File(_) => None,
            Source::Made { days, .. } => Some(*days),
        }
    }

    /// Whether another seed gives other visits.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.days().is_some()
    }
}

/// A visit that is being made: seconds, and not yet in order.
struct Draft {
    at: f64,
    which: usize,
    stay: f64,
}

impl Load {
    fn trace(self, seed: u64, days: f64, habits: &Habits) -> Result<Trace, ArrivalsError> {
        let luck = Luck::new(seed);
        let end = days * DAY_S;
        let expected = self.visits_a_day() * days;
        if expected > MOST_VISITS as f64 {
            let why = format!("some {expected:.0} visits; at most {MOST_VISITS} are planned for");
            return Err(ArrivalsError::Spec { spec: format!("{self:?}"), why });
        }
        let several =
            |a_day: f64| habits.boxes.unwrap_or(((a_day * days.min(1.0) / 3.0).ceil() as u32).max(1)) as usize;
        let stay = habits.median_stay.as_secs_f64();
        let (drafts, boxes) = match self {
            Self::Poisson(rate) => {
                // Whoever is there for less than a day comes once.
                let boxes = several(self.visits_a_day() * if days < 1.0 { 3.0 } else { 1.0 });
                (poisson(luck, rate, end, boxes, stay), boxes)
            }
            Self::Diurnal { peak, trough } => {
                let boxes = several(self.visits_a_day());
                (by_day(luck, peak, trough, days, boxes, stay), boxes)
            }
            Self::Office { people } => (office(luck, people as usize, days), people as usize),
            Self::Class { students } => (class(luck, students as usize, days), students as usize),
        };
        let whole_seconds = !matches!(self, Self::Poisson(_));
        let names: Vec<_> = (0..boxes).map(|which| format!("b{which}")).collect();
        Trace::new(one_at_a_time(drafts, end, boxes, whole_seconds), &names)
    }

    /// At most, and about.
    fn visits_a_day(self) -> f64 {
        match self {
            Self::Poisson(Rate(rate)) => rate * DAY_S,
            Self::Diurnal { peak, trough } => Daily::new(peak, trough).total,
            Self::Office { people } => f64::from(people) * 8.0,
            Self::Class { students } => f64::from(students) * 3.0,
        }
    }
}

/// Gaps between arrivals are exponential, and any box is as likely as any other.
fn poisson(luck: Luck, Rate(rate): Rate, end: f64, boxes: usize, stay: f64) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut at = 0.0;
    for n in 0.. {
        let mut luck = luck.of("arrival", n);
        at += luck.gap(rate);
        if at >= end {
            break;
        }
        drafts.push(Draft { at, which: luck.one_of(boxes), stay: luck.length(stay) });
    }
    drafts
}

/// How many come in each minute of a day.
struct Daily {
    peak: Rate,
    trough: Rate,
    total: f64,
}

impl Daily {
    const MINUTES: u32 = 1_440;

    fn new(peak: Rate, trough: Rate) -> Self {
        let mut daily = Self { peak, trough, total: 0.0 };
        daily.total = (0..Self::MINUTES).map(|minute| daily.in_minute(minute)).sum();
        daily
    }

    /// A squared cosine from 7:00 to 21:00 on top of the trough, highest at 14:00.
    fn in_minute(&self, minute: u32) -> f64 {
        let from_peak = (f64::from(minute) - 840.0) / 420.0;
        let bell = if from_peak.abs() < 1.0 { (from_peak * std::f64::consts::FRAC_PI_2).cos().powi(2) } else { 0.0 };
        60.0 * (self.trough.0 + (self.peak.0 - self.trough.0) * bell)
    }

    /// The moments, in seconds, that part the day into `n` parts in which equally many come, each drawn from within its part.
    fn moments(&self, n: usize, luck: &mut Luck) -> Vec<f64> {
        let (mut moments, mut passed, mut minute) = (Vec::with_capacity(n), 0.0, 0);
        for part in 0..n {
            let wanted = (part as f64 + luck.share()) / n as f64 * self.total;
            while minute + 1 < Self::MINUTES && passed + self.in_minute(minute) < wanted {
                passed += self.in_minute(minute);
                minute += 1;
            }
            let within = ((wanted - passed) / self.in_minute(minute).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
            moments.push((f64::from(minute) + within) * 60.0);
        }
        moments
    }
}

/// On so many of the days on which a user might come, they do.
const COMES: f64 = 0.8;

/// Each box has its usual times of day, which together follow the day's course, and is visited there, give or take 20 minutes, on most
/// days. On weekends as many are left as come at night.
fn by_day(luck: Luck, peak: Rate, trough: Rate, days: f64, boxes: usize, stay: f64) -> Vec<Draft> {
    let daily = Daily::new(peak, trough);
    let times = (daily.total / COMES).round().max(1.0) as usize;
    let mut usual: Vec<(f64, usize)> = daily
        .moments(times, &mut luck.of("moments", 0))
        .into_iter()
        .enumerate()
        .map(|(n, at)| (at, n % boxes))
        .collect();
    luck.of("whose", 0).shuffle_second(&mut usual);
    let mut drafts = Vec::new();
    for day in 0..days.ceil() as u64 {
        for (n, (usual, which)) in usual.iter().enumerate() {
            let mut luck = luck.of("visit", day * times as u64 + n as u64);
            let rate = daily.in_minute((usual / 60.0) as u32) / 60.0;
            let comes = COMES * if is_weekend(day) { trough.0 / rate } else { 1.0 };
            let at = day as f64 * DAY_S + usual + 1_200.0 * luck.normal();
            let stay = luck.length(stay);
            if luck.chance(comes) {
                drafts.push(Draft { at, which: *which, stay });
            }
        }
    }
    drafts
}

fn is_weekend(day: u64) -> bool {
    day % 7 >= 5
}

/// Each has an hour of their own to begin, at about nine, a lunch, and eight hours and three quarters to be there; they connect for most of an
/// hour, and take breaks.
fn office(luck: Luck, people: usize, days: f64) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for which in 0..people {
        let usual = 9.0 * 3_600.0 + 2_700.0 * luck.of("begins", which as u64).normal();
        for day in 0..days.ceil() as u64 {
            let mut luck = luck.of("day", day * people as u64 + which as u64);
            if !luck.chance(if is_weekend(day) { 0.05 } else { 0.9 }) {
                continue;
            }
            let begins = day as f64 * DAY_S + usual + 720.0 * luck.normal();
            let lunch = day as f64 * DAY_S + 12.25 * 3_600.0 + 600.0 * luck.normal();
            let ends = begins + 8.75 * 3_600.0 + 1_200.0 * luck.normal();
            for (from, to) in [(begins, lunch), (lunch + 2_700.0, ends)] {
                let mut at = from;
                while at < to - 300.0 {
                    let stay = luck.length(3_000.0).min(to - at);
                    drafts.push(Draft { at, which, stay });
                    at += stay + luck.length(720.0);
                }
            }
        }
    }
    drafts
}

/// Lessons of 90 minutes at 10:00 and 14:00 from Monday to Friday, to which nine of ten come, within minutes; every third works at home
/// in the evening, at an hour of their own.
fn class(luck: Luck, students: usize, days: f64) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for which in 0..students {
        let evening = 19.5 * 3_600.0 + 3_600.0 * luck.of("evening", which as u64).normal();
        for day in (0..days.ceil() as u64).filter(|day| !is_weekend(*day)) {
            let mut luck = luck.of("day", day * students as u64 + which as u64);
            let midnight = day as f64 * DAY_S;
            for hour in [10.0, 14.0] {
                let at = midnight + hour * 3_600.0 + 30.0 + 90.0 * luck.normal();
                let ends = midnight + hour * 3_600.0 + 5_400.0 + 180.0 * luck.normal();
                if luck.chance(0.9) {
                    drafts.push(Draft { at, which, stay: ends - at });
                }
            }
            let at = midnight + evening + 1_200.0 * luck.normal();
            let stay = luck.length(2_400.0);
            if luck.chance(0.35) {
                drafts.push(Draft { at, which, stay });
            }
        }
    }
    drafts
}

/// A user's visit ends before the same user's next one begins, and none is shorter than half a minute.
fn one_at_a_time(mut drafts: Vec<Draft>, end: f64, boxes: usize, whole_seconds: bool) -> Vec<Visit> {
    drafts.retain(|draft| (0.0..end).contains(&draft.at));
    drafts.sort_unstable_by(|one, other| other.at.total_cmp(&one.at).then(one.which.cmp(&other.which)));
    let mut next = vec![f64::INFINITY; boxes];
    drafts
        .into_iter()
        .map(|Draft { at, which, stay }| {
            let stay = stay.min(next[which] - at - 60.0).max(30.0);
            next[which] = at;
            let time = |seconds: f64| match whole_seconds {
                true => Duration::from_secs(seconds as u64),
                false => Duration::from_millis((seconds * 1_000.0) as u64),
            };
            Visit { at: time(at), which, stay: time(stay) }
        })
        .collect()
}
