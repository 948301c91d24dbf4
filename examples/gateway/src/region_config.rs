//! The regions that the configuration lists, and what each of them has otherwise.
//!
//! The first one is what a gateway without regions is: its boxes and records are where they would be then, so that a gateway that
//! has boxes already gets regions by listing them. The homes of all boxes and the accounts are in its store.

use crate::config::{AzureConfig, Backend, Config};
use crate::place::Place;
use boxpool::{Error, ErrorKind, Region, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A region, and how it differs from what the rest of the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// What users call it.
    pub name: Region,
    /// Where its boxes and their records are kept, on this machine.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// Boxes that can run in it at once, on this machine.
    #[serde(default)]
    pub slots: Option<u32>,
    /// Options of `[azure]` that it has otherwise.
    #[serde(default)]
    pub azure: BTreeMap<String, Value>,
}

impl RegionConfig {
    /// The settings of `[azure]` as this region has them.
    fn azure_in(&self, azure: &AzureConfig, is_first: bool) -> std::result::Result<AzureConfig, String> {
        let told = |error: serde_json::Error| format!("region {}: azure: {error}", self.name);
        let mut all = serde_json::to_value(azure).map_err(told)?;
        if let Value::Object(all) = &mut all {
            if !is_first {
                all.insert("pool".into(), pool_in(&azure.pool, &self.name).into());
            }
            all.extend(self.azure.clone());
        }
        serde_json::from_value(all).map_err(told)
    }
}

/// A pool's name has letters and digits only.
fn pool_in(pool: &str, region: &Region) -> String {
    let region = region.as_str().chars().filter(char::is_ascii_alphanumeric);
    pool.chars().chain(region).collect()
}

impl Config {
    /// The regions and, for each, the configuration of a gateway that had it alone; empty where none is listed.
    ///
    /// # Errors
    /// A sentence that names the option.
    pub fn regions(&self) -> std::result::Result<Vec<(Region, Self)>, String> {
        let first = self.region.first().map(|first| &first.name);
        let alone = |region: &RegionConfig| {
            let is_first = Some(&region.name) == first;
            let mut alone = Self { region: Vec::new(), ..self.clone() };
            alone.slots = region.slots.unwrap_or(self.slots);
            if self.backend == Backend::Azure {
                alone.azure = region.azure_in(&self.azure, is_first)?;
            }
            Ok((region.name.clone(), alone))
        };
        self.region.iter().map(alone).collect()
    }

    /// The configuration of a gateway that had one region alone, for each region, the first one first; without regions it is this one.
    ///
    /// # Errors
    /// `Invalid`, with a sentence that names the option.
    pub fn alone(&self) -> Result<Vec<(Option<Region>, Self)>> {
        let regions = self
            .regions()
            .map_err(|why| Error::new(ErrorKind::Invalid, "read configuration", "region").with_detail(why))?;
        if regions.is_empty() {
            return Ok(vec![(None, self.clone())]);
        }
        Ok(regions.into_iter().map(|(region, alone)| (Some(region), alone)).collect())
    }

    /// The configuration of a gateway that had that region alone; without a name, the first.
    ///
    /// # Errors
    /// `Invalid` when there is no such region.
    pub fn of_region(&self, region: Option<&Region>) -> Result<Self> {
        let mut all = self.alone()?.into_iter();
        let found = all.find(|(name, _)| region.is_none() || name.as_ref() == region);
        found.map(|(_, alone)| alone).ok_or_else(|| {
            let detail = "the configuration lists no such region";
            let named = region.map(Region::as_str).unwrap_or_default();
            Error::new(ErrorKind::Invalid, "find region", named).with_detail(detail)
        })
    }

    /// Checks what is said of regions.
    pub(crate) fn check_regions(&self) -> std::result::Result<(), String> {
        let names: BTreeSet<_> = self.region.iter().map(|region| &region.name).collect();
        if names.len() < self.region.len() {
            return Err("two regions have one name".into());
        }
        for (number, region) in self.region.iter().enumerate() {
            let name = &region.name;
            if self.backend == Backend::Local && !region.azure.is_empty() {
                return Err(format!("region {name}: azure is for backend = \"azure\""));
            }
            if self.backend == Backend::Azure && (region.dir.is_some() || region.slots.is_some()) {
                return Err(format!("region {name}: dir and slots are for backend = \"local\""));
            }
            if number == 0 && region.dir.is_some() {
                return Err(format!("region {name}: the first region is kept in state_dir, and has no dir"));
            }
            if region.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
                return Err(format!("region {name}: dir must be an absolute path"));
            }
            if region.slots == Some(0) {
                return Err(format!("region {name}: slots must be at least 1"));
            }
        }
        let dirs: Vec<_> = self.region.iter().filter_map(|region| region.dir.as_ref()).collect();
        if dirs.iter().collect::<BTreeSet<_>>().len() < dirs.len() {
            return Err("two regions have one dir".into());
        }
        let all = self.regions()?;
        if self.backend == Backend::Azure {
            let mut pools = BTreeMap::new();
            for (name, alone) in &all {
                alone.azure.check().map_err(|why| format!("region {name}: {why}"))?;
                if let Some(other) = pools.insert(&alone.azure.pool, name) {
                    let pool = &alone.azure.pool;
                    return Err(format!(
                        "regions {other} and {name} have one pool, {pool}; give one another azure.pool"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Where the region's boxes and records are, on this machine: for the first one, and where there are none, `place` itself.
    ///
    /// # Errors
    /// As [`Place::ensure`].
    pub fn place_of(&self, region: &Region, place: &Place) -> Result<Place> {
        match self.region.iter().position(|each| each.name == *region) {
            None | Some(0) => Ok(place.clone()),
            Some(number) => {
                let dir = self.region.get(number).and_then(|each| each.dir.clone());
                Place::ensure(&dir.unwrap_or_else(|| place.join(&format!("region-{region}"))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AZURE: &str = "backend = \"azure\"\n[azure]\nsubscription = \"s\"\nresource_group = \"g\"\nlocation = \"westeurope\"\n\
                         storage_account = \"a\"\nsubnet = \"n\"\n";

    fn parse(text: &str) -> Config {
        Config::parse(text, "test.toml").unwrap()
    }

    #[test]
    fn the_first_region_is_what_a_gateway_without_regions_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::ensure(dir.path()).unwrap();
        let config = parse("[[region]]\nname = \"here\"\n[[region]]\nname = \"big\"\nslots = 9\n");
        let regions = config.regions().unwrap();
        let alone = Config { region: Vec::new(), ..config.clone() };
        assert_eq!(regions[0], (Region::new("here").unwrap(), alone.clone()));
        assert_eq!(regions[1].1, Config { slots: 9, ..alone });
        let places = regions.iter().map(|(name, _)| config.place_of(name, &place).unwrap());
        let places: Vec<_> = places.map(|place| place.path().to_owned()).collect();
        assert_eq!(places, [place.path(), &place.join("region-big")]);
        assert!(parse("").regions().unwrap().is_empty());
    }

    #[test]
    fn a_region_of_azure_has_what_it_says_and_else_what_the_table_says() {
        let regions = "[[region]]\nname = \"west\"\n[[region]]\nname = \"se-1\"\n\
                       azure = { location = \"swedencentral\", subnet = \"m\", machines_max = 3 }\n";
        let all = parse(&format!("{AZURE}{regions}")).regions().unwrap();
        let [(_, west), (_, sweden)] = &all[..] else { panic!("{all:?}") };
        assert_eq!((west.azure.location.as_str(), west.azure.pool.as_str()), ("westeurope", "boxpool"));
        let azure = &sweden.azure;
        assert_eq!(
            (azure.location.as_str(), azure.subnet.as_str(), azure.pool.as_str()),
            ("swedencentral", "m", "boxpoolse1")
        );
        assert_eq!((azure.machines_max, azure.resource_group.as_str()), (3, "g"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("[[region]]\nname = \"a\"\n[[region]]\nname = \"a\"\n", "one name"),
            ("[[region]]\nname = \"A b\"\n", "region"),
            ("[[region]]\nname = \"a\"\ndir = \"/x\"\n", "state_dir"),
            ("[[region]]\nname = \"a\"\n[[region]]\nname = \"b\"\ndir = \"x\"\n", "absolute"),
            ("[[region]]\nname = \"a\"\nslots = 0\n", "slots"),
            ("[[region]]\nname = \"a\"\nazure = { location = \"x\" }\n", "backend"),
            ("[[region]]\nname = \"a\"\nplace = \"x\"\n", "place"),
        ] {
            let message = Config::parse(text, "test.toml").unwrap_err().detail().to_owned();
            assert!(message.contains(part), "{text:?}: {message}");
        }
        for (region, part) in [
            ("dir = \"/x\"", "backend = \"local\""),
            ("azure = { locatoin = \"x\" }", "locatoin"),
            ("azure = { subnet = \"\" }", "region b: backend is \"azure\", so azure.subnet"),
            ("azure = { pool = \"boxpool\" }", "one pool, boxpool"),
        ] {
            let text = format!("{AZURE}[[region]]\nname = \"a\"\n[[region]]\nname = \"b\"\n{region}\n");
            let message = Config::parse(&text, "test.toml").unwrap_err().detail().to_owned();
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }
}
