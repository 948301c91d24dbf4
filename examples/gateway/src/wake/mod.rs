//! What wakes a box without a login: a connection to a port of the gateway ([`http`]), or a time
//! ([`schedule`]).
//!
//! Both are off unless the configuration names a box. The box comes up the way it does for its owner ([`waker`]): the
//! limits on running boxes, the stop of the gateway and the linger apply. When the gateway dies here the pool finds the
//! sessions by itself, as it does those of users.

pub mod answer;
pub mod http;
pub mod record;
pub mod schedule;
pub mod stream;
pub mod waker;

use crate::server::Gateway;
use boxpool::{BoxName, Clock, Result, UserId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// One box of one account, written `ACCOUNT/BOX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxRef {
    /// Whose: the account as `whoami` shows it.
    pub owner: UserId,
    /// Which.
    pub name: BoxName,
}

impl BoxRef {
    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// A sentence that says how it is written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| {
            format!("{text:?} is not a box ({why}); write \"ACCOUNT/BOX\", with the account as whoami shows it")
        };
        let (owner, name) = text.split_once('/').ok_or_else(|| wrong(&"there is no slash in it"))?;
        Ok(Self {
            owner: UserId::new(owner).map_err(|error| wrong(&error))?,
            name: crate::login::box_name(name).map_err(|refusal| wrong(&refusal))?,
        })
    }
}

impl fmt::Display for BoxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl<'de> Deserialize<'de> for BoxRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for BoxRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// All that wakes boxes here. Ends when dropped.
#[derive(Default)]
pub struct Wakes(JoinSet<()>);

impl Wakes {
    /// Begins to serve `doors` and to follow `schedules` by `clock`, until the gateway is told to stop.
    #[must_use]
    pub fn begin(
        gateway: &Arc<Gateway>,
        doors: Vec<http::Door>,
        schedules: &[schedule::ScheduleConfig],
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut all = JoinSet::new();
        for door in doors {
            all.spawn(door.serve(Arc::clone(gateway)));
        }
        for schedule in schedules {
            all.spawn(schedule.clone().run(Arc::clone(gateway), Arc::clone(&clock)));
        }
        Self(all)
    }

    /// Waits until all have ended, which they do when the gateway is told to stop; after `limit` they are ended.
    pub async fn ended(mut self, limit: Duration) {
        let _ = tokio::time::timeout(limit, async { while self.0.join_next().await.is_some() {} }).await;
        self.0.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_written_with_its_account_and_a_mistake_is_answered_with_how() {
        for text in ["aa/dev1", "0f3c/a-1"] {
            assert_eq!(BoxRef::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "dev1", "/dev1", "aa/", "aa/../b", "aa/Dev1", "aa/gateway", "a a/dev1"] {
            let told = BoxRef::parse(text).unwrap_err();
            assert!(told.contains("ACCOUNT/BOX"), "{text}: {told}");
        }
    }
}
