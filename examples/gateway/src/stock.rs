//! What the configuration says about stock, as people write it: a goal (`99% within 2s`) and who keeps a machine (`keep 1h`).

use crate::duration::Span;
use boxpool::{Goal, KeepFor, LeastRecentlyUsed, ParkingPolicy, ReturnTime};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A promise about waiting for a machine; empty for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Promise(Option<(u32, Span)>);

impl Promise {
    /// What is promised.
    #[must_use]
    pub fn goal(self) -> Option<Goal> {
        self.0.map(|(hundredths, within)| Goal::new(f64::from(hundredths) / 10_000.0, within.0))
    }
}

impl TryFrom<String> for Promise {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        let wrong = || format!("{text:?} is not a goal; write \"99% within 2s\", or \"\" for none");
        let (share, within) = text.split_once("% within ").ok_or_else(wrong)?;
        let within = Span::parse(within.trim()).ok_or_else(wrong)?;
        let percent: f64 = share.trim().parse().map_err(|_| wrong())?;
        let hundredths = (percent * 100.0).round();
        // Neither is anything kept for nobody, nor is everybody a promise that any number keeps.
        if !(1.0..10_000.0).contains(&hundredths) {
            return Err(format!("{text:?}: the share must be above 0% and below 100%"));
        }
        Ok(Self(Some((hundredths as u32, within))))
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((hundredths, within)) = self.0 else { return Ok(()) };
        write!(f, "{}% within {within}", f64::from(hundredths) / 100.0)
    }
}

impl From<Promise> for String {
    fn from(promise: Promise) -> Self {
        promise.to_string()
    }
}

/// Who keeps a machine while nobody is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Parking {
    /// Everybody, until somebody else needs it; who is away longest gives it first.
    #[default]
    LeastRecentlyUsed,
    /// Everybody for so long, or until somebody else needs it.
    Keep(Span),
    /// Who is likely to return within so long; and who is expected is given one ahead.
    Return(Span),
}

impl Parking {
    /// The policy.
    #[must_use]
    pub fn policy(self) -> Arc<dyn ParkingPolicy> {
        match self {
            Self::LeastRecentlyUsed => Arc::new(LeastRecentlyUsed),
            Self::Keep(time) => Arc::new(KeepFor(time.0)),
            Self::Return(horizon) => Arc::new(ReturnTime::default().within(horizon.0)),
        }
    }
}

impl TryFrom<String> for Parking {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "least-recently-used" {
            return Ok(Self::LeastRecentlyUsed);
        }
        let parsed = text.split_once(' ').and_then(|(word, span)| Some((word, Span::parse(span)?)));
        match parsed {
            Some(("keep", time)) => Ok(Self::Keep(time)),
            Some(("return", horizon)) if !horizon.0.is_zero() => Ok(Self::Return(horizon)),
            _ => Err(format!(
                "{text:?} is not a way to park; write \"least-recently-used\", \"keep 1h\" or \"return 15m\""
            )),
        }
    }
}

impl fmt::Display for Parking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeastRecentlyUsed => f.write_str("least-recently-used"),
            Self::Keep(time) => write!(f, "keep {time}"),
            Self::Return(horizon) => write!(f, "return {horizon}"),
        }
    }
}

impl From<Parking> for String {
    fn from(parking: Parking) -> Self {
        parking.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_goal_is_understood_and_shown_alike() {
        for text in ["99% within 2s", "99.9% within 0s", "50% within 1m", ""] {
            assert_eq!(Promise::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        let goal = Promise::try_from("99.5% within 2s".to_owned()).unwrap().goal().unwrap();
        assert_eq!((goal.share, goal.within), (0.995, Duration::from_secs(2)));
        assert!(Promise::default().goal().is_none());
        for text in ["99", "99%", "99 % within 2", "x% within 2s", "NaN% within 2s"] {
            assert!(Promise::try_from(text.to_owned()).is_err(), "{text}");
        }
        for text in ["0% within 2s", "100% within 2s", "-5% within 2s"] {
            let why = Promise::try_from(text.to_owned()).unwrap_err();
            assert!(why.contains("below 100%"), "{why}");
        }
    }

    #[test]
    fn a_way_to_park_is_understood_and_shown_alike() {
        for text in ["least-recently-used", "keep 1h", "return 15m", "keep 0s"] {
            assert_eq!(Parking::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["", "keep", "keep 1", "keep1h", "return 0s", "lru"] {
            let why = Parking::try_from(text.to_owned()).unwrap_err();
            assert!(why.contains("\"return 15m\""), "{why}");
        }
    }
}
