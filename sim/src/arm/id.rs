//! What a path names.

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A virtual machine.
    Vm,
    /// A managed disk.
    Disk,
    /// A snapshot of a disk.
    Snapshot,
    /// A managed image.
    Image,
    /// A network interface.
    Nic,
    /// A resource group.
    Group,
}

impl Kind {
    /// Of `providers/{provider}/{collection}`.
    fn of(provider: &str, collection: &str) -> Option<Self> {
        let compute = provider.eq_ignore_ascii_case("Microsoft.Compute");
        let network = provider.eq_ignore_ascii_case("Microsoft.Network");
        match collection.to_ascii_lowercase().as_str() {
            "virtualmachines" if compute => Some(Self::Vm),
            "disks" if compute => Some(Self::Disk),
            "snapshots" if compute => Some(Self::Snapshot),
            "images" if compute => Some(Self::Image),
            "networkinterfaces" if network => Some(Self::Nic),
            _ => None,
        }
    }

    /// `Microsoft.Compute/virtualMachines` and its like.
    pub(super) fn resource_type(self) -> &'static str {
        match self {
            Self::Vm => "Microsoft.Compute/virtualMachines",
            Self::Disk => "Microsoft.Compute/disks",
            Self::Snapshot => "Microsoft.Compute/snapshots",
            Self::Image => "Microsoft.Compute/images",
            Self::Nic => "Microsoft.Network/networkInterfaces",
            Self::Group => "Microsoft.Resources/resourceGroups",
        }
    }

    /// The longest name there is, and whether a dot may be in it.
    fn name_rule(self) -> (usize, bool) {
        match self {
            Self::Vm => (64, true),
            Self::Group => (90, true),
            Self::Disk => (80, false),
            Self::Snapshot | Self::Image | Self::Nic => (80, true),
        }
    }

    pub(super) fn allows(self, name: &str) -> bool {
        let (most, dot) = self.name_rule();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || (dot && c == '.');
        name.len() <= most
            && name.chars().all(fits)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !name.ends_with(['.', '-'])
    }
}

/// The address of one resource. Two that differ in case are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) subscription: String,
    pub(super) group: String,
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Id {
    /// As the service writes it.
    pub(super) fn text(&self) -> String {
        let Self { subscription, group, kind, name } = self;
        match kind {
            Kind::Group => format!("/subscriptions/{subscription}/resourceGroups/{name}"),
            kind => {
                let of = kind.resource_type();
                format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{of}/{name}")
            }
        }
    }

    /// What it is found by.
    pub(super) fn key(&self) -> String {
        self.text().to_ascii_lowercase()
    }

    pub(super) fn sibling(&self, kind: Kind, name: &str) -> Id {
        Id { kind, name: name.to_owned(), ..self.clone() }
    }
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// One resource, or something that is done to it.
    Resource { id: Id, action: Option<String> },
    /// All of a kind in a group, or in the subscription.
    Collection { subscription: String, group: Option<String>, kind: Kind },
    /// A long-running operation.
    Operation(String),
    /// Quotas of a place.
    Usages { subscription: String, location: String },
    /// What the caller may do in a group.
    Permissions,
}

impl Target {
    pub(super) fn parse(path: &str) -> Option<Target> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is = |at: usize, word: &str| parts.get(at).is_some_and(|part| part.eq_ignore_ascii_case(word));
        if !is(0, "subscriptions") {
            return None;
        }
        let subscription = (*parts.get(1)?).to_owned();
        let owned = |at: usize| parts.get(at).map(|part| (*part).to_owned());
        if is(2, "providers") {
            // /subscriptions/S/providers/P/locations/L/operations/ID and its like
            if is(4, "locations") && (is(6, "operations") || is(6, "DiskOperations") || is(6, "operationResults")) {
                return owned(7).map(Target::Operation);
            }
            if is(4, "locations") && is(6, "usages") {
                return Some(Target::Usages { subscription, location: owned(5)? });
            }
            let by_place = is(4, "locations");
            let kind = Kind::of(parts.get(3)?, parts.get(if by_place { 6 } else { 4 })?)?;
            return Some(Target::Collection { subscription, group: None, kind });
        }
        if is(2, "operationresults") {
            return owned(3).map(Target::Operation);
        }
        if !is(2, "resourcegroups") {
            return None;
        }
        let Some(group) = owned(3) else {
            return Some(Target::Collection { subscription, group: None, kind: Kind::Group });
        };
        if parts.len() == 4 {
            let id = Id { subscription, group: group.clone(), kind: Kind::Group, name: group };
            return Some(Target::Resource { id, action: None });
        }
        if !is(4, "providers") {
            return None;
        }
        if is(5, "Microsoft.Authorization") && is(6, "permissions") && parts.len() == 7 {
            return Some(Target::Permissions);
        }
        let kind = Kind::of(parts.get(5)?, parts.get(6)?)?;
        match (owned(7), owned(8), parts.len()) {
            (None, _, _) => Some(Target::Collection { subscription, group: Some(group), kind }),
            (Some(name), action, 8 | 9) => {
                Some(Target::Resource { id: Id { subscription, group, kind, name }, action })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were_written() {
        let text = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm1";
        let id = |text: &str| match Target::parse(text) {
            Some(Target::Resource { id, action: None }) => id,
            other => panic!("{other:?}"),
        };
        assert_eq!(id(text).text(), text);
        assert_eq!(id(&text.to_uppercase()).key(), id(text).key());
    }

    #[test]
    fn what_is_no_path_of_ours_is_none() {
        for path in
            ["", "/", "/subscriptions", "/subscriptions/s/x", "/subscriptions/s/resourceGroups/g/providers/A/b/c"]
        {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }

    #[test]
    fn names_follow_the_rules_of_their_kind() {
        assert!(Kind::Disk.allows("bp-v_1") && !Kind::Disk.allows("a.b") && !Kind::Disk.allows(&"d".repeat(81)));
        assert!(Kind::Nic.allows("a.b") && !Kind::Vm.allows("-a") && !Kind::Vm.allows(&"v".repeat(65)));
    }
}
