//! Times at which a box is woken and held for a while, as the configuration says.
//!
//! With several gateways on one store each that has the schedule wakes the box: they join one resume, and the box lingers
//! when the last of them has let go. What would have been woken while no gateway ran, or while this one's machine slept,
//! is not made up for.

use crate::duration::Span;
use crate::plain::plain;
use crate::server::Gateway;
use crate::wake::BoxRef;
use crate::wake::answer::Outcome;
use crate::wake::record::{Record, Who};
use crate::wake::waker::Waker;
use boxpool::{Clock, Timestamp};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Longest sleep until the clock is looked at again: it may have been set, or its machine have slept.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is later than this is missed.
const LATE_MAX: Duration = Duration::from_secs(60);

/// One `[[schedule]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The box that is woken.
    #[serde(rename = "box")]
    pub target: BoxRef,
    /// When.
    pub cron: Times,
    /// Where it is that time.
    #[serde(default)]
    pub time_zone: Zone,
    /// How long it is held then, before it lingers.
    pub hold: Span,
}

/// A cron expression of five fields: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone)]
pub struct Times {
    text: String,
    cron: Cron,
}

/// A time zone; UTC unless one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Times {
    /// Reads an expression.
    ///
    /// # Errors
    /// A sentence that says what is wrong, and how it is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| {
            let (text, why) = (plain(text), plain(&why.to_string()).into_owned());
            let why = why.trim_end_matches('.');
            format!(
                "{text:?} is not a cron expression ({why}); write minute, hour, day, month and weekday, as \"0 7 * * 1-5\""
            )
        };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| wrong(&error))?;
        let times = Self { text: text.to_owned(), cron };
        if times.after(Timestamp(0), &TimeZone::UTC).is_none() {
            return Err(wrong(&"such a day never comes"));
        }
        Ok(times)
    }

    fn after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(i64::try_from(after.0).ok()?).ok()?;
        let next = self.cron.find_next_occurrence(&after.to_zoned(zone.clone()), false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok().map(Timestamp)
    }
}

impl PartialEq for Times {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Times {}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".into(), zone: TimeZone::UTC }
    }
}

impl Zone {
    /// Finds the zone called `name`.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn find(name: &str) -> Result<Self, String> {
        if name == "UTC" {
            return Ok(Self::default());
        }
        let zone = TimeZone::get(name).map_err(|_| {
            let name = plain(name);
            format!("{name:?} is no time zone of this machine; write one as \"Europe/Berlin\" (from the package tzdata), or \"UTC\"")
        })?;
        Ok(Self { name: name.to_owned(), zone })
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::find(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl ScheduleConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn check(&self) -> Result<(), String> {
        if (Span::seconds(1)..=Span::seconds(24 * 3600)).contains(&self.hold) {
            return Ok(());
        }
        Err(format!("schedule.hold of {} must be 1s to 1d", self.target))
    }

    /// The first time after `after`.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.after(after, &self.time_zone.zone)
    }

    /// Wakes the box at its times until the gateway is told to stop.
    pub async fn run(self, gateway: Arc<Gateway>, clock: Arc<dyn Clock>) {
        let waker = Waker::new(Arc::clone(&gateway), self.target.clone(), gateway.settings.connect_limit);
        let waker = Arc::new(waker);
        let mut wakes = JoinSet::new();
        let mut seen = clock.now();
        while let Some(next) = self.next(seen) {
            tokio::select! {
                () = comes(&*clock, next) => {}
                Some(_) = wakes.join_next() => continue,
                () = gateway.operator.drain_asked() => break,
            }
            let now = clock.now();
            seen = now.max(next);
            if now.0.saturating_sub(next.0) > LATE_MAX.as_millis() as u64 {
                tracing::warn!(target = %self.target, "the time to wake it was missed");
                continue;
            }
            let record = Record::new(gateway.operator.audit.clone(), Who::Schedule, None, self.target.clone());
            wakes.spawn(wake(Arc::clone(&waker), record, self.hold.0));
        }
        wakes.shutdown().await;
    }
}

/// Returns when the clock shows `at`, or later.
async fn comes(clock: &dyn Clock, at: Timestamp) {
    loop {
        let left = Duration::from_millis(at.0.saturating_sub(clock.now().0));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
    }
}

async fn wake(waker: Arc<Waker>, mut record: Record, span: Duration) {
    tracing::info!(target = %waker.target(), "waking a box on schedule");
    let hold = waker.hold();
    match hold.up().await {
        Ok(_) => {
            record.reached();
            tokio::time::sleep(span).await;
            record.ends(Outcome::Held);
        }
        Err(refusal) => {
            tracing::warn!(target = %waker.target(), why = %refusal, "box not woken; its next time tries again");
            record.ends(Outcome::of(&refusal));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::rfc3339;

    fn schedule(cron: &str, zone: &str) -> ScheduleConfig {
        ScheduleConfig {
            target: BoxRef::parse("aa/dev1").unwrap(),
            cron: Times::parse(cron).unwrap(),
            time_zone: Zone::find(zone).unwrap(),
            hold: Span::seconds(60),
        }
    }

    fn stamp(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp(u64::try_from(at.as_millisecond()).unwrap())
    }

    #[test]
    fn times_follow_the_expression_in_its_zone_and_over_a_change_of_the_clocks() {
        for (cron, zone, after, next) in [
            ("0 7 * * 1-5", "UTC", "2026-11-27T06:59:59Z", "2026-11-27T07:00:00.000Z"),
            ("0 7 * * 1-5", "UTC", "2026-11-27T07:00:00Z", "2026-11-30T07:00:00.000Z"), // a Friday, strictly after
            ("0 7 * * MON-FRI", "Europe/Berlin", "2026-10-23T12:00:00Z", "2026-10-26T06:00:00.000Z"), // winter has come
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00.000Z"), // there is no 02:30
            ("@daily", "UTC", "2026-12-31T00:00:01Z", "2027-01-01T00:00:00.000Z"),
            ("0 0 29 2 *", "UTC", "2026-11-27T00:00:00Z", "2028-02-29T00:00:00.000Z"),
        ] {
            let found = schedule(cron, zone).next(stamp(after)).unwrap();
            assert_eq!(rfc3339(found), next, "{cron} {zone} after {after}");
        }
    }

    #[test]
    fn a_wrong_expression_and_an_unknown_zone_are_answered_with_what_to_write() {
        for text in
            ["", "daily", "* * * *", "0 0 7 * * 1", "61 * * * *", "0 7 * * 1-5 2027", "0 0 30 2 *", "0 7 * * \u{1b}"]
        {
            let told = Times::parse(text).unwrap_err();
            assert!(told.contains("is not a cron expression") && told.contains("0 7 * * 1-5"), "{text:?}: {told}");
            assert!(!told.chars().any(char::is_control), "{told:?}");
        }
        for name in ["", "Berlin", "../../etc/passwd", "Mars/Olympus"] {
            assert!(Zone::find(name).unwrap_err().contains("tzdata"), "{name}");
        }
    }
}
