//! Ids of Azure's resources. They come back in another case than they were sent, so they are compared without it.

use serde::Deserialize;
use std::fmt;

/// The full id of a resource: `/subscriptions/…/providers/…/<type>/<name>`.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct ArmId(String);

impl ArmId {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub(crate) fn name(&self) -> &str {
        self.0.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }
}

impl PartialEq for ArmId {
    fn eq(&self, other: &Self) -> bool {
        self.0.trim_end_matches('/').eq_ignore_ascii_case(other.0.trim_end_matches('/'))
    }
}

impl Eq for ArmId {}

impl fmt::Debug for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_makes_no_difference_and_a_name_does() {
        let id = ArmId::new("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/disks/d1");
        assert_eq!(id, ArmId::new("/SUBSCRIPTIONS/s/resourcegroups/RG/providers/microsoft.compute/disks/D1/"));
        assert_ne!(id, ArmId::new("/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/disks/d10"));
        assert_eq!(id.name(), "d1");
        assert_eq!(ArmId::new("").name(), "");
    }
}
