//! Where the pool's machines and disks are made, and what they are to be.

use crate::credential::CredentialChoice;
use crate::names::{PoolName, check_foreign};
use crate::options::Proxy;
use crate::transport::check_endpoint;
use boxpool::{Error, ErrorKind, Result};
use reqwest::Url;

/// Cloud-init's text, which Azure takes up to 64 KiB less one byte of.
const MAX_CLOUD_INIT: usize = 65_535;
/// Whom machines for boxes run QEMU as: somebody who may do nothing else.
const QEMU_USER: &str = "boxpool";

/// A place for a machine: a size, in a zone or in the region at large.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// As `Standard_D2s_v5`.
    pub size: String,
    /// As `1`; `None` where there are no zones.
    pub zone: Option<String>,
}

impl Candidate {
    /// A size, and a zone if there is one.
    #[must_use]
    pub fn new(size: impl Into<String>, zone: Option<&str>) -> Self {
        Self { size: size.into(), zone: zone.map(str::to_owned) }
    }
}

/// What machines are to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MachineOptions {
    /// Tried in this order; where there is no room the next one is taken, for a while. Over neighbours of one size, which differ in their
    /// zone, machines are spread: each goes where the fewest of the pool are.
    pub candidates: Vec<Candidate>,
    /// What machines boot: the full id of an image or of a version of a gallery's, or a published one's
    /// `publisher:offer:sku:version`. Of a published one the golden build makes an image in which all that hosts need is
    /// installed, and new machines boot that.
    pub image: String,
    /// The full id of the subnet.
    pub subnet: String,
    /// The full id of a network security group, if the subnet has none.
    pub security_group: Option<String>,
    /// Who may log in, with `ssh_public_key` alone, and may become root. Not who runs QEMU.
    pub admin_user: String,
    /// As in `authorized_keys`.
    pub ssh_public_key: String,
    /// What cloud-init is to do; empty for nothing.
    pub cloud_init: String,
    /// Whether machines are made into hosts for boxes, each with a host key that its tags pin, and `ssh_public_key` may
    /// enter them as root. Takes the place of `cloud_init`; needs the feature `hosts`.
    pub for_boxes: bool,
    /// Of the OS disk: as `StandardSSD_LRS`.
    pub os_disk_sku: String,
    /// Whether the sizes can do accelerated networking.
    pub accelerated_networking: bool,
    /// How many data disks the smallest of the sizes takes.
    pub max_data_disks: u32,
}

impl MachineOptions {
    pub(crate) fn is_published(&self) -> bool {
        self.image.split(':').filter(|part| check_foreign(part).is_ok()).count() == 4
    }
}

/// What volumes are to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiskOptions {
    /// As `Premium_LRS`. Disks that are kept in one zone (`…_LRS`) can only go to machines of that zone.
    pub sku: String,
    /// The zone of disks that are kept in one.
    pub zone: Option<String>,
    /// Of snapshots: `Standard_LRS` or `Standard_ZRS`.
    pub snapshot_sku: String,
    /// For disks that move more than five times a day.
    pub frequent_attach: bool,
}

/// Everything about the cloud side of a pool.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CloudOptions {
    /// The subscription's id.
    pub subscription: String,
    /// The resource group that holds the pool's machines and disks. Better nothing else.
    pub resource_group: String,
    /// The region, as `westeurope`.
    pub location: String,
    /// The pool's name: 1 to 16 lower-case letters and digits, a letter first. In every resource's name and tags.
    pub pool: String,
    /// Who acts.
    pub credential: CredentialChoice,
    /// Of Resource Manager, without a path.
    pub endpoint: String,
    /// For which tokens are asked; that of the cloud, also with another endpoint.
    pub scope: String,
    /// What machines are to be.
    pub machines: MachineOptions,
    /// What volumes are to be.
    pub disks: DiskOptions,
    /// Whether a proxy is used.
    pub proxy: Proxy,
    /// Whether requests are kept below Azure's published budgets. Only a simulated cloud does without.
    pub budgets: bool,
}

impl CloudOptions {
    /// A pool in the public cloud with one size and no zone; refine the fields from here.
    #[must_use]
    pub fn new(
        subscription: impl Into<String>,
        resource_group: impl Into<String>,
        location: impl Into<String>,
        pool: impl Into<String>,
    ) -> Self {
        Self {
            subscription: subscription.into(),
            resource_group: resource_group.into(),
            location: location.into(),
            pool: pool.into(),
            credential: CredentialChoice::Auto,
            endpoint: "https://management.azure.com".into(),
            scope: "https://management.azure.com/.default".into(),
            machines: MachineOptions {
                candidates: vec![Candidate::new("Standard_D2s_v5", None)],
                image: String::new(),
                subnet: String::new(),
                security_group: None,
                admin_user: "boxadmin".into(),
                ssh_public_key: String::new(),
                cloud_init: String::new(),
                for_boxes: false,
                os_disk_sku: "StandardSSD_LRS".into(),
                accelerated_networking: false,
                max_data_disks: 4,
            },
            disks: DiskOptions {
                sku: "Premium_LRS".into(),
                zone: None,
                snapshot_sku: "Standard_LRS".into(),
                frequent_attach: false,
            },
            proxy: Proxy::default(),
            budgets: true,
        }
    }

    pub(crate) fn check(&self) -> Result<(PoolName, Url)> {
        let refuse =
            |why: &str| Err(Error::new(ErrorKind::Invalid, "open cloud", self.pool.escape_debug()).with_detail(why));
        let pool = PoolName::new(&self.pool)?;
        let endpoint = match Url::parse(&self.endpoint) {
            Ok(url) if url.has_host() && url.path() == "/" && url.query().is_none() => url,
            _ => return refuse("the endpoint is an address without a path, as https://management.azure.com"),
        };
        check_endpoint("open cloud", &endpoint)?;
        for (text, what) in [
            (&self.subscription, "the subscription's id has letters, digits and hyphens only"),
            (&self.location, "a location is written as westeurope"),
        ] {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return refuse(what);
            }
        }
        let group = &self.resource_group;
        if check_foreign(group).is_err() || group.ends_with('.') {
            return refuse("a resource group's name has letters, digits, `_`, `.` and `-`, and no dot at its end");
        }
        let machines = &self.machines;
        if machines.candidates.is_empty() {
            return refuse("at least one size is needed");
        }
        let published = machines.is_published();
        for (id, kind, what) in [
            (
                Some(&machines.image).filter(|_| !published),
                "/images/",
                "the image is named by its full id, /subscriptions/…/images/…, or as publisher:offer:sku:version",
            ),
            (Some(&machines.subnet), "/subnets/", "the subnet is named by its full id, /subscriptions/…/subnets/…"),
            (
                machines.security_group.as_ref(),
                "/networkSecurityGroups/",
                "the security group is named by its full id, /subscriptions/…/networkSecurityGroups/…",
            ),
        ] {
            let full = |id: &str| {
                let id = id.to_ascii_lowercase();
                id.starts_with("/subscriptions/") && id.contains(&kind.to_ascii_lowercase())
            };
            if id.is_some_and(|id| !full(id)) {
                return refuse(what);
            }
        }
        if machines.ssh_public_key.trim().is_empty() {
            return refuse("machines need an SSH public key to be entered with");
        }
        if machines.cloud_init.len() > MAX_CLOUD_INIT {
            return refuse("cloud-init's text has at most 65,535 bytes");
        }
        if machines.for_boxes && !machines.cloud_init.is_empty() {
            return refuse("machines for boxes have a cloud-init text of their own; leave yours empty");
        }
        if machines.for_boxes && machines.admin_user == QEMU_USER {
            return refuse("QEMU runs as the user boxpool, and who administers may become root: name another one");
        }
        if machines.for_boxes && !cfg!(feature = "hosts") {
            return refuse("machines for boxes need this crate's feature `hosts`");
        }
        if !(1..=64).contains(&machines.max_data_disks) {
            return refuse("machines take 1 to 64 data disks");
        }
        // A disk of one zone goes nowhere else: found out now rather than at the first attach.
        let zonal_disks = self.disks.sku.to_ascii_uppercase().ends_with("_LRS");
        if zonal_disks && machines.candidates.iter().any(|candidate| candidate.zone != self.disks.zone) {
            return refuse(
                "disks of one zone (…_LRS) need all machines in that same zone; use …_ZRS for several zones",
            );
        }
        if !zonal_disks && self.disks.zone.is_some() {
            return refuse("disks of all zones (…_ZRS) have no zone");
        }
        Ok((pool, endpoint))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn good() -> CloudOptions {
        let mut options = CloudOptions::new("0000-1111", "rg", "westeurope", "pool");
        let provider = "/subscriptions/0000-1111/resourceGroups/rg/providers";
        options.machines.image = format!("{provider}/Microsoft.Compute/images/host");
        options.machines.subnet = format!("{provider}/Microsoft.Network/virtualNetworks/net/subnets/hosts");
        options.machines.ssh_public_key = "ssh-ed25519 AAAA boxpool".into();
        options
    }

    #[test]
    fn each_rule_of_the_options_is_checked() {
        good().check().unwrap();
        let mut published = good();
        published.machines.image = "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest".into();
        published.check().unwrap();
        type Spoil = fn(&mut CloudOptions);
        let bad: [Spoil; 19] = [
            |o| o.pool = "My-Pool".into(),
            |o| o.endpoint = "https://management.azure.com/path".into(),
            |o| o.endpoint = "http://management.azure.com".into(),
            |o| o.subscription = "a/b".into(),
            |o| o.location = String::new(),
            |o| o.resource_group = "a/..".into(),
            |o| o.resource_group = "ends.".into(),
            |o| o.machines.candidates.clear(),
            |o| o.machines.image = "image".into(),
            |o| o.machines.subnet = "/subscriptions/x".into(),
            |o| o.machines.security_group = Some("nsg".into()),
            |o| o.machines.ssh_public_key = " ".into(),
            |o| o.machines.cloud_init = "x".repeat(MAX_CLOUD_INIT + 1),
            |o| o.machines.max_data_disks = 0,
            |o| o.machines.image = "a:b:c".into(),
            |o| {
                o.machines.for_boxes = true;
                o.machines.cloud_init = "#cloud-config".into();
            },
            |o| {
                o.machines.for_boxes = true;
                o.machines.admin_user = "boxpool".into();
            },
            |o| o.machines.candidates.push(Candidate::new("Standard_D2s_v5", Some("2"))),
            |o| {
                o.disks.sku = "Premium_ZRS".into();
                o.disks.zone = Some("1".into());
            },
        ];
        for (n, spoil) in bad.into_iter().enumerate() {
            let mut options = good();
            spoil(&mut options);
            assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Invalid, "{n}");
        }
    }
}
