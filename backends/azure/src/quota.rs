//! How many machines the subscription's quotas leave room for.
//!
//! A machine counts by its processors against the region's total and against its family's, and by one against the number of machines.
//! Which family a size belongs to, and how many processors it has, Azure's naming of sizes tells: `Standard_D2s_v5` has 2 and
//! is of `standardDSv5Family`. Of a size that is not named so only the quotas are looked at that need no name.

use crate::arm::Usage;
use crate::cloud::AzureCloud;
use crate::errors::Act;
use boxpool::Result;

/// A quota that machines of the pool's sizes count against.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// As the portal calls it.
    pub name: String,
    /// How much of it is used, by everybody in the subscription; processors, or machines.
    pub used: u64,
    /// How much of it there is; `u64::MAX` when it has no limit.
    pub limit: u64,
    /// For how many more machines there is room, of the hungriest size that counts against it.
    pub machines: u64,
}

impl AzureCloud {
    /// The quotas that the machines of the configured sizes count against. Reads the whole subscription's use of the region, for which a
    /// role in the resource group alone is not enough.
    ///
    /// # Errors
    /// `Unauthorized` without the right to read usage; `Unavailable`, `Throttled`.
    pub async fn quotas(&self) -> Result<Vec<Quota>> {
        let act = Act::read("read quotas", &self.inner.options.location);
        let usages = self.inner.arm.usages().await.map_err(|failure| act.failed(failure))?;
        let sizes = self.inner.options.machines.candidates.iter().map(|place| place.size.as_str());
        Ok(of_sizes(usages, &sizes.collect::<Vec<_>>()))
    }
}

/// A size's processors, and the quota of its family in lower case.
fn named(size: &str) -> Option<(u64, String)> {
    let lower = size.to_ascii_lowercase();
    let name = lower.strip_prefix("standard_")?;
    let (kind, version) = name.split_once('_').unwrap_or((name, ""));
    let letters = kind.find(|c: char| c.is_ascii_digit())?;
    let rest = &kind[letters..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    // `E8-4s`: the family pays for 8.
    let features = rest[digits..].trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
    let processors = rest[..digits].parse().ok()?;
    Some((processors, format!("standard{}{features}{version}family", &kind[..letters])))
}

fn of_sizes(usages: Vec<Usage>, sizes: &[&str]) -> Vec<Quota> {
    let known: Vec<(u64, String)> = sizes.iter().filter_map(|size| named(size)).collect();
    let hungriest = known.iter().map(|(processors, _)| *processors).max();
    let needs = |usage: &Usage| match usage.name.to_ascii_lowercase().as_str() {
        "virtualmachines" => Some(1),
        "cores" => hungriest,
        family => known.iter().filter(|(_, of)| of == family).map(|(processors, _)| *processors).max(),
    };
    let quota = |usage: Usage| {
        let each = needs(&usage)?.max(1);
        let Usage { shown: name, used, limit, .. } = usage;
        Some(Quota { name, used, limit, machines: limit.saturating_sub(used) / each })
    };
    usages.into_iter().filter_map(quota).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(name: &str, used: u64, limit: u64) -> Usage {
        Usage { name: name.into(), shown: name.into(), used, limit }
    }

    #[test]
    fn a_size_tells_its_family_and_its_processors() {
        for (size, processors, family) in [
            ("Standard_D2s_v5", 2, "standardDSv5Family"),
            ("Standard_D16ads_v5", 16, "standardDADSv5Family"),
            ("standard_e8-4s_v3", 8, "standardESv3Family"),
            ("Standard_B2s", 2, "standardBSFamily"),
            ("Standard_F4", 4, "standardFFamily"),
        ] {
            assert_eq!(named(size), Some((processors, family.to_ascii_lowercase())), "{size}");
        }
        for size in ["Basic_A1", "Standard_", "Standard_D", "x"] {
            assert_eq!(named(size), None, "{size}");
        }
    }

    #[test]
    fn room_is_what_is_left_over_what_the_hungriest_size_takes() {
        let usages = vec![
            usage("cores", 90, 100),
            usage("virtualMachines", 3, 25_000),
            usage("standardDSv5Family", 10, 12),
            usage("standardESv3Family", 0, u64::MAX),
            usage("PremiumDiskCount", 1, 1),
        ];
        let quotas = of_sizes(usages, &["Standard_D2s_v5", "Standard_E4s_v3"]);
        let seen: Vec<(&str, u64)> = quotas.iter().map(|quota| (quota.name.as_str(), quota.machines)).collect();
        assert_eq!(
            seen,
            [
                ("cores", 2),
                ("virtualMachines", 24_997),
                ("standardDSv5Family", 1),
                ("standardESv3Family", u64::MAX / 4)
            ]
        );
        assert_eq!(
            of_sizes(vec![usage("cores", 9, 3)], &["Standard_D2s_v5"])[0].machines,
            0,
            "lowered below what is used"
        );
    }
}
