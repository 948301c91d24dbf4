//! The metrics: their names, and how they are shown to Prometheus.
//!
//! [`METERS`] is the whole list, the pool's own included. Every series is there from the start, with zero, so that what
//! has not happened yet can be told from what is not measured. The recorder belongs to the process: it is installed once,
//! and only when somebody is to see it.

use crate::visit::{Kind, Phase};
use crate::wake::record::Who;
use boxpool::{Error, ErrorKind, Region, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// Lines of the audit log that were lost.
pub const AUDIT_LOST: &str = "boxpool_gateway_audit_lost_total";
/// Bytes on the wire.
pub const BYTES: &str = "boxpool_gateway_bytes_total";
/// Channels that ended.
pub const CHANNELS: &str = "boxpool_gateway_channels_total";
/// Channels that are open.
pub const CHANNELS_OPEN: &str = "boxpool_gateway_channels_open";
/// Parts of the way to a box.
pub const CONNECT_SECONDS: &str = "boxpool_gateway_connect_seconds";
/// Connections that came.
pub const CONNECTIONS: &str = "boxpool_gateway_connections_total";
/// Connections that were not let in.
pub const TURNED_AWAY: &str = "boxpool_gateway_connections_turned_away_total";
/// Logins.
pub const LOGINS: &str = "boxpool_gateway_logins_total";
/// Connections that are logged in.
pub const SESSIONS: &str = "boxpool_gateway_sessions";
/// Wakes without a login that ended.
pub const WAKES: &str = "boxpool_gateway_wakes_total";
/// Connects that wait for a machine.
pub const WAITING: &str = "boxpool_gateway_waiting";
/// Suspended boxes that keep their machine.
pub const PARKED: &str = "boxpool_gateway_parked";
/// Whether it is ready.
pub const READY: &str = "boxpool_gateway_ready";

/// What kind of thing is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Durations, in buckets.
    Histogram,
}

impl Scale {
    /// As Prometheus calls it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What tells a series from the others of its metric: names and values, none for a single series.
pub type Labels = Vec<(&'static str, &'static str)>;

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub scale: Scale,
    /// All its series.
    pub series: fn() -> Vec<Labels>,
    /// What it says.
    pub help: &'static str,
}

impl Meter {
    /// Whether each region's pool has one of its own.
    fn is_of_a_pool(&self) -> bool {
        self.scale == Scale::Gauge && !self.name.starts_with("boxpool_gateway_")
    }

    /// All its series in a gateway that has these regions, if any.
    fn labels(&self, regions: &[Region]) -> Vec<Vec<metrics::Label>> {
        if self.is_of_a_pool() && !regions.is_empty() {
            let of = |region: &Region| vec![metrics::Label::new("region", region.to_string())];
            return regions.iter().map(of).collect();
        }
        let label = |(name, value)| metrics::Label::from_static_parts(name, value);
        (self.series)().into_iter().map(|labels| labels.into_iter().map(label).collect()).collect()
    }
}

const fn meter(name: &'static str, scale: Scale, help: &'static str) -> Meter {
    by(name, scale, || vec![Vec::new()], help)
}

const fn by(name: &'static str, scale: Scale, series: fn() -> Vec<Labels>, help: &'static str) -> Meter {
    Meter { name, scale, series, help }
}

/// A series for each value of one label.
fn each<const N: usize>(label: &'static str, values: [&'static str; N]) -> Vec<Labels> {
    values.map(|value| vec![(label, value)]).to_vec()
}

fn via() -> Vec<Labels> {
    each("via", ["running", "parked", "detached"])
}

fn wakes() -> Vec<Labels> {
    let of = |who: Who| {
        let outcomes = who.outcomes().iter();
        outcomes.map(move |outcome| vec![("who", who.word()), ("outcome", outcome.word())])
    };
    Who::ALL.into_iter().flat_map(of).collect()
}

/// Every metric, the gateway's and the pool's.
pub const METERS: &[Meter] = {
    use Scale::{Counter, Gauge, Histogram};
    &[
        meter(AUDIT_LOST, Counter, "lines of the audit log that could not be written"),
        by(BYTES, Counter, || each("direction", ["in", "out"]), "bytes on the wire, from and to users"),
        meter(CHANNELS_OPEN, Gauge, "channels that are open"),
        by(CHANNELS, Counter, || each("kind", Kind::ALL.map(Kind::word)), "channels that ended, by what they were for"),
        by(CONNECT_SECONDS, Histogram, || each("phase", Phase::ALL.map(Phase::word)), "parts of the way to a box"),
        meter(CONNECTIONS, Counter, "connections that came"),
        meter(
            TURNED_AWAY,
            Counter,
            "connections that were turned away: too many were logging in, or too many logins from the address had failed",
        ),
        by(
            LOGINS,
            Counter,
            || each("outcome", ["accepted", "refused"]),
            "logins, and connections that ended before one",
        ),
        meter(PARKED, Gauge, "suspended boxes that keep their machine, as last seen"),
        meter(READY, Gauge, "1 when `/ready` would say so"),
        meter(SESSIONS, Gauge, "connections that are logged in"),
        meter(WAITING, Gauge, "connects of this gateway that wait for a machine"),
        by(WAKES, Counter, wakes, "wakes without a login that ended, by what woke the box and how they ended"),
        meter("boxpool_boxes_created_total", Counter, "boxes that were made"),
        meter("boxpool_boxes_deleted_total", Counter, "boxes that were deleted"),
        meter("boxpool_boxes_moved_total", Counter, "boxes that were moved to another region"),
        meter("boxpool_claim_conflicts_total", Counter, "claims of a machine that another gateway won"),
        meter("boxpool_claims_swept_total", Counter, "claims that were left behind and ended"),
        by("boxpool_connect_seconds", Histogram, via, "bringing a box up, by where it was"),
        by("boxpool_connects_total", Counter, via, "boxes that were brought up or joined, by where they were"),
        meter("boxpool_snapshots_taken_total", Counter, "snapshots of boxes that were taken"),
        meter("boxpool_goldens_built_total", Counter, "golden snapshots that were built"),
        meter("boxpool_goal_changes_total", Counter, "changes of how many machines are kept free for the goal"),
        meter("boxpool_guests_lost_total", Counter, "boxes that were found gone and started again"),
        meter("boxpool_instances_doubted_total", Counter, "machines that were deleted because they may not be clean"),
        meter("boxpool_instances_failed_total", Counter, "machines that could not be made"),
        meter("boxpool_instances_free", Gauge, "machines that are free (known to the maintainer)"),
        meter("boxpool_instances_lost_total", Counter, "machines that were found gone"),
        meter("boxpool_instances_reserve", Gauge, "machines that are kept stopped (known to the maintainer)"),
        meter("boxpool_instances_total", Gauge, "machines in all (known to the maintainer)"),
        meter("boxpool_nodes_live", Gauge, "gateways of the pool that live"),
        by(
            "boxpool_orphans_total",
            Counter,
            || each("of", ["box", "instance", "snapshot", "volume"]),
            "what was found and no record wants: boxes left by a rename or a move, machines, disks, snapshots",
        ),
        meter(
            "boxpool_pass_interval_seconds",
            Gauge,
            "seconds between two looks of this gateway for half-done work; longer with more to read",
        ),
        meter("boxpool_placements_failed_total", Counter, "boxes that could not be brought up"),
        meter("boxpool_preattached_total", Counter, "boxes that were given a machine ahead of their user's return"),
        meter("boxpool_strays_total", Counter, "volumes that were attached where nobody had put them, and taken off"),
        meter("boxpool_suspend_seconds", Histogram, "suspending a box"),
        meter("boxpool_suspends_failed_total", Counter, "boxes that could not be suspended"),
        by(
            "boxpool_takeovers_total",
            Counter,
            || each("of", ["box", "golden", "home", "instance"]),
            "steps of dead gateways that were taken over",
        ),
        meter("boxpool_volumes_failed_total", Counter, "disks that could not be made"),
        meter("boxpool_volumes_free", Gauge, "disks that are free (known to the maintainer)"),
        meter("boxpool_volumes_total", Gauge, "disks in all (known to the maintainer)"),
        meter("boxpool_waits_total", Counter, "connects that had to wait for a machine"),
    ]
};

/// Upper bounds of the buckets of durations, in seconds: from a warm box to a machine that must be made first.
const BUCKETS: [f64; 15] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];

/// The process's metrics, as Prometheus reads them. Cheap to clone.
#[derive(Clone)]
pub struct Exposition(PrometheusHandle);

impl Exposition {
    /// Begins to record; once in a process, the next time answers the same. Every series is there from then on; gauges of pools are
    /// there for each of `regions`, if there are any.
    ///
    /// # Errors
    /// When the process records its metrics elsewhere already.
    pub fn install(regions: &[Region]) -> Result<Self> {
        static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| {
            let builder = PrometheusBuilder::new();
            let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS).ok()?;
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok()?;
            Some(handle)
        });
        let detail = "this process records its metrics elsewhere already; leave metrics_listen out";
        let error = || Error::new(ErrorKind::AlreadyExists, "record metrics", "recorder").with_detail(detail);
        let handle = installed.clone().ok_or_else(error)?;
        METERS.iter().for_each(|meter| announce(meter, regions));
        Ok(Self(handle))
    }

    /// All metrics as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.upkeep();
        self.0.render()
    }

    /// Puts what was recorded into its buckets; without it, and without a reader, durations would pile up.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Describes a metric, and makes its series.
fn announce(meter: &Meter, regions: &[Region]) {
    let Meter { name, scale, help, .. } = *meter;
    match scale {
        Scale::Counter => metrics::describe_counter!(name, help),
        Scale::Gauge => metrics::describe_gauge!(name, help),
        Scale::Histogram => metrics::describe_histogram!(name, metrics::Unit::Seconds, help),
    }
    for labels in meter.labels(regions) {
        match scale {
            Scale::Counter => metrics::counter!(name, labels).increment(0),
            Scale::Gauge => metrics::gauge!(name, labels).increment(0.0),
            Scale::Histogram => drop(metrics::histogram!(name, labels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = Exposition::install(&[]).unwrap().text();
        for meter in METERS {
            assert!(text.contains(&format!("# TYPE {} {}\n", meter.name, meter.scale.word())), "{}", meter.name);
            assert!(text.contains(&format!("# HELP {} ", meter.name)), "{}", meter.name);
            for labels in (meter.series)().into_iter().filter(|labels| !labels.is_empty()) {
                let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
                let is_it = |line: &str| line.starts_with(meter.name) && line.contains(&labels.join(","));
                assert!(text.lines().any(is_it), "{} {labels:?}: {text}", meter.name);
            }
        }
        assert_eq!(text.matches("# TYPE ").count(), METERS.len(), "{text}");
    }

    /// What is recorded by the pool: name, label and value, where the value is written in place.
    fn recorded_in(folder: &Path) -> BTreeSet<(String, Option<(String, String)>)> {
        let mut recorded = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                recorded.append(&mut recorded_in(&path));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for rest in text.split("(\"boxpool_").skip(1) {
                let (name, rest) = rest.split_once('"').unwrap();
                let arguments = rest.split_once(')').unwrap().0;
                let quoted: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
                let label =
                    <[&str; 2]>::try_from(quoted).ok().map(|[label, value]| (label.to_owned(), value.to_owned()));
                recorded.insert((format!("boxpool_{name}"), label));
            }
        }
        recorded
    }

    #[test]
    fn everything_the_pool_records_is_here() {
        let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/src");
        let recorded = recorded_in(&core);
        let names: BTreeSet<&str> = recorded.iter().map(|(name, _)| name.as_str()).collect();
        let pools = METERS.iter().map(|meter| meter.name).filter(|name| !name.starts_with("boxpool_gateway_"));
        assert_eq!(names, pools.collect());
        for (name, label) in &recorded {
            let Some((label, value)) = label else { continue };
            let meter = METERS.iter().find(|meter| meter.name == name).unwrap();
            let series = (meter.series)();
            assert!(series.iter().flatten().any(|at| *at == (label, value)), "{name} has no {label}=\"{value}\"");
        }
    }

    #[test]
    fn the_readme_lists_exactly_these() {
        let readme = include_str!("../README.md");
        let rows = readme.lines().filter_map(|line| line.strip_prefix("| `boxpool_")?.split_once("` | "));
        let listed: BTreeSet<(String, &str)> =
            rows.map(|(name, rest)| (format!("boxpool_{name}"), rest.split(" | ").next().unwrap())).collect();
        let known: BTreeSet<(String, &str)> =
            METERS.iter().map(|meter| (meter.name.to_owned(), meter.scale.word())).collect();
        assert_eq!(listed, known);
    }
}
