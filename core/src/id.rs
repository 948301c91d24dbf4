//! Checked newtypes: every id is parsed once and cannot be confused with another.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not a valid id. The message names the rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {shown:?} is not valid: {rule}")]
pub struct InvalidId {
    what: &'static str,
    shown: String,
    rule: &'static str,
}

impl InvalidId {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        // Outside text: cut and escaped (by `{:?}`) so that no log line is ever broken by it.
        Self { what, shown: text.chars().take(64).collect(), rule }
    }
}

fn check_opaque(what: &'static str, text: &str) -> Result<(), InvalidId> {
    const RULE: &str =
        "1 to 128 characters, each a letter, a digit, or one of . _ : -, and the first a letter or digit";
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
    let fits = (1..=128).contains(&text.len());
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if fits && starts_well && text.bytes().all(legal) { Ok(()) } else { Err(InvalidId::new(what, text, RULE)) }
}

fn check_name(what: &'static str, text: &str) -> Result<(), InvalidId> {
    const RULE: &str = "1 to 32 characters, each a lower-case letter, a digit or a hyphen, \
                        starting with a letter and not ending with a hyphen";
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=32).contains(&text.len());
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if fits && starts_well && !text.ends_with('-') && text.bytes().all(legal) {
        Ok(())
    } else {
        Err(InvalidId::new(what, text, RULE))
    }
}

macro_rules! checked_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and makes an id of it.
            ///
            /// # Errors
            /// [`InvalidId`] names the rule that `text` breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                $check($what, &text)?;
                Ok(Self(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

checked_id!(
    /// The account that owns boxes, as the embedder names it.
    UserId, "user id", check_opaque
);
checked_id!(
    /// What a user calls a box. Unique per user.
    ///
    /// ```
    /// use boxpool::BoxName;
    /// assert!(BoxName::new("dev1").is_ok());
    /// assert!(BoxName::new("../etc").is_err());
    /// ```
    BoxName, "box name", check_name
);
checked_id!(
    /// Where a pool is: a region of a cloud, as the embedder names it.
    Region, "region", check_name
);
checked_id!(
    /// What a user calls a snapshot of a box. Unique per user.
    SnapshotName, "snapshot name", check_name
);
checked_id!(
    /// One incarnation of a box: a box deleted and made again under the same name has another id.
    BoxId, "box id", check_opaque
);
checked_id!(
    /// A machine of the pool.
    InstanceId, "instance id", check_opaque
);
checked_id!(
    /// A block device that holds one box.
    VolumeId, "volume id", check_opaque
);
checked_id!(
    /// What volumes are copied from.
    SnapshotId, "snapshot id", check_opaque
);
checked_id!(
    /// One process that embeds the pool, named anew at each start.
    NodeId, "node id", check_opaque
);

/// Names a box for good: who owns it, what it is called, and which incarnation is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BoxRef {
    /// Whose box it is.
    pub owner: UserId,
    /// What the owner calls it.
    pub name: BoxName,
    /// Which incarnation of that name.
    pub id: BoxId,
}

impl fmt::Display for BoxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Counts a box's placement changes; the fencing token: whoever acts with an older one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// After which there is none: whoever takes apart what is used no more acts in it.
    pub(crate) const LAST: Self = Self(u64::MAX);

    /// The next epoch. Saturates: at one change a nanosecond that takes 584 years.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dangerous_names_are_refused_with_the_rule() {
        let long = "a".repeat(300);
        for bad in ["", "../x", "a b", "A", "-a", "a-", "1a", "a\n", "a\u{1b}[2J", "ä", "a/b", "a.b", long.as_str()] {
            let error = BoxName::new(bad).unwrap_err().to_string();
            assert!(error.contains("lower-case letter"), "{error}");
            assert!(!error.contains(|c: char| c.is_control()), "{error:?}");
            assert!(error.len() < 400, "{error}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_survives_a_round_trip(text in "\\PC{0,40}") {
            if let Ok(name) = BoxName::new(text.clone()) {
                prop_assert_eq!(name.as_str(), text.as_str());
                let json = serde_json::to_string(&name).unwrap();
                prop_assert_eq!(serde_json::from_str::<BoxName>(&json).unwrap(), name);
            }
        }

        #[test]
        fn what_is_stored_is_checked_again_when_read(text in "\\PC{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<UserId>(&json).is_ok(), UserId::new(text).is_ok());
        }
    }
}
