//! What this crate does in the resource group, and whether the identity may.

use crate::arm::Grant;
use crate::cloud::AzureCloud;
use crate::errors::Act;
use boxpool::Result;

/// Every action that is taken in the resource group. What is done in the subnet, the images and the tables is allowed there.
pub const ACTIONS: &[&str] = &[
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.Compute/virtualMachines/delete",
    "Microsoft.Compute/virtualMachines/start/action",
    "Microsoft.Compute/virtualMachines/deallocate/action",
    "Microsoft.Compute/virtualMachines/generalize/action",
    "Microsoft.Compute/virtualMachines/attachDetachDataDisks/action",
    "Microsoft.Compute/disks/read",
    "Microsoft.Compute/disks/write",
    "Microsoft.Compute/disks/delete",
    "Microsoft.Compute/disks/beginGetAccess/action",
    "Microsoft.Compute/snapshots/read",
    "Microsoft.Compute/snapshots/write",
    "Microsoft.Compute/snapshots/delete",
    "Microsoft.Compute/images/read",
    "Microsoft.Compute/images/write",
    "Microsoft.Compute/images/delete",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Network/networkInterfaces/write",
    "Microsoft.Network/networkInterfaces/join/action",
    "Microsoft.Network/networkInterfaces/delete",
];

impl AzureCloud {
    /// Which of [`ACTIONS`] the identity may not take in the resource group; none when all is well. Reads role assignments and changes
    /// nothing. Deny assignments and policies do not show in it.
    ///
    /// # Errors
    /// `Unauthorized` when it may not even ask, for which `Microsoft.Authorization/permissions/read` is needed; `Unavailable`,
    /// `Throttled`.
    pub async fn missing_rights(&self) -> Result<Vec<&'static str>> {
        let act = Act::read("read permissions", &self.inner.options.resource_group);
        let grants = self.inner.arm.permissions().await.map_err(|failure| act.failed(failure))?;
        Ok(missing(&grants))
    }
}

/// An action is allowed when one assignment grants it that does not except it.
fn missing(grants: &[Grant]) -> Vec<&'static str> {
    let any = |patterns: &[String], action: &str| patterns.iter().any(|pattern| fits(pattern, action));
    let may = |action: &str| grants.iter().any(|it| any(&it.actions, action) && !any(&it.not_actions, action));
    ACTIONS.iter().copied().filter(|action| !may(action)).collect()
}

/// `*` stands for any text, slashes too.
fn fits(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == action };
    let Some(mut left) = action.strip_prefix(start) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let Some((end, middle)) = parts.split_last() else { return true };
    for part in middle {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(actions: &[&str], not_actions: &[&str]) -> Grant {
        let texts = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect();
        Grant { actions: texts(actions), not_actions: texts(not_actions) }
    }

    #[test]
    fn an_action_is_allowed_by_any_assignment_that_does_not_except_it() {
        assert_eq!(missing(&[]), ACTIONS);
        assert!(missing(&[grant(&["*"], &["Microsoft.Authorization/*/write"])]).is_empty());
        let by_parts = [grant(&["microsoft.compute/*"], &[]), grant(&["Microsoft.Network/networkInterfaces/*"], &[])];
        assert!(missing(&by_parts).is_empty());
        let reader = missing(&[grant(&["*/read"], &[])]);
        assert!(reader.contains(&"Microsoft.Compute/disks/write") && !reader.contains(&"Microsoft.Compute/disks/read"));
        let excepted = missing(&[grant(&["*"], &["Microsoft.Compute/snapshots/*"])]);
        assert_eq!(excepted.len(), 3);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(fits("a/*/c", "A/b/b/C") && fits("*", "") && fits("a*", "a") && fits("*a*b*", "xaxbx"));
        assert!(!fits("a/*/c", "a/c") && !fits("a", "ab") && !fits("a*b", "a") && !fits("*ab", "b"));
    }

    /// The role of the deployment template grants every action.
    #[test]
    fn the_template_grants_what_is_needed() {
        let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/gateway/deploy/main.bicep");
        let template = std::fs::read_to_string(template).unwrap();
        for action in ACTIONS.iter().chain(&["Microsoft.Authorization/permissions/read"]) {
            assert!(template.contains(&format!("'{action}'")), "{action}");
        }
    }
}
