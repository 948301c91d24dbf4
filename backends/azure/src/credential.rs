//! Which identity acts. The choice is explicit, or automatic in an order that is written down here and decided without
//! asking the network.

use crate::options::Secret;
use boxpool::{Error, ErrorKind, Result};
use std::str::FromStr;

/// What the firmware of every virtual machine of Azure answers to "asset tag".
const AZURE_ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// How to get a token. As text: `auto`, `managed_identity`, `managed_identity:<client id>`, `workload`, `secret`, `cli`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialChoice {
    /// The first that fits:
    /// 1. `AZURE_FEDERATED_TOKEN_FILE` is set: [`Workload`](Self::Workload);
    /// 2. `AZURE_CLIENT_SECRET` is set: [`Secret`](Self::Secret);
    /// 3. `IDENTITY_ENDPOINT` is set, or this is a virtual machine of Azure: [`ManagedIdentity`](Self::ManagedIdentity),
    ///    with `AZURE_CLIENT_ID` if that is set;
    /// 4. else [`Cli`](Self::Cli).
    Auto,
    /// The identity of this machine: the one with that client id, or the only one.
    ManagedIdentity {
        /// Which of several user-assigned identities.
        client_id: Option<String>,
    },
    /// A federated token in a file: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_FEDERATED_TOKEN_FILE`.
    Workload,
    /// An application's secret: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`.
    Secret,
    /// Whoever is logged in with `az login`. For people, not for gateways.
    Cli,
    /// This token, as it is. For the simulated cloud.
    Fixed(Secret),
}

impl FromStr for CredentialChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "auto" => Self::Auto,
            "managed_identity" => Self::ManagedIdentity { client_id: None },
            "workload" => Self::Workload,
            "secret" => Self::Secret,
            "cli" => Self::Cli,
            _ => match text.strip_prefix("managed_identity:") {
                Some(id) if !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') => {
                    Self::ManagedIdentity { client_id: Some(id.to_owned()) }
                }
                _ => {
                    let detail = "say auto, managed_identity, managed_identity:<client id>, workload, secret or cli";
                    return Err(
                        Error::new(ErrorKind::Invalid, "choose credential", text.escape_debug()).with_detail(detail)
                    );
                }
            },
        })
    }
}

/// What there is to decide by.
pub(crate) struct Surroundings<'a> {
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) asset_tag: Option<String>,
}

impl CredentialChoice {
    /// Decides `Auto`; every other choice stays.
    pub(crate) fn decided(self, around: &Surroundings<'_>) -> Self {
        if self != Self::Auto {
            return self;
        }
        let set = |name: &str| (around.variable)(name).filter(|value| !value.is_empty());
        let on_azure = around.asset_tag.as_deref().is_some_and(|tag| tag.trim() == AZURE_ASSET_TAG);
        if set("AZURE_FEDERATED_TOKEN_FILE").is_some() {
            Self::Workload
        } else if set("AZURE_CLIENT_SECRET").is_some() {
            Self::Secret
        } else if set("IDENTITY_ENDPOINT").is_some() || on_azure {
            Self::ManagedIdentity { client_id: set("AZURE_CLIENT_ID") }
        } else {
            Self::Cli
        }
    }

    /// Decides by this process's environment and this machine's firmware.
    pub(crate) fn decided_here(self) -> Self {
        self.decided(&Surroundings {
            variable: &|name| std::env::var(name).ok(),
            asset_tag: std::fs::read_to_string("/sys/class/dmi/id/chassis_asset_tag").ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn decided(variables: &[(&str, &str)], tag: Option<&str>) -> CredentialChoice {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        CredentialChoice::Auto.decided(&Surroundings {
            variable: &|name| variables.get(name).map(|value| (*value).to_owned()),
            asset_tag: tag.map(str::to_owned),
        })
    }

    #[test]
    fn the_automatic_order_is_as_documented() {
        let all = [
            ("AZURE_FEDERATED_TOKEN_FILE", "/t"),
            ("AZURE_CLIENT_SECRET", "s"),
            ("IDENTITY_ENDPOINT", "http://x"),
            ("AZURE_CLIENT_ID", "abc"),
        ];
        assert_eq!(decided(&all, Some(AZURE_ASSET_TAG)), CredentialChoice::Workload);
        assert_eq!(decided(&all[1..], Some(AZURE_ASSET_TAG)), CredentialChoice::Secret);
        let named = CredentialChoice::ManagedIdentity { client_id: Some("abc".into()) };
        assert_eq!(decided(&all[2..], None), named);
        assert_eq!(decided(&all[3..], Some("7783-7084-3265-9085-8269-3286-77\n")), named);
        assert_eq!(decided(&[], Some(AZURE_ASSET_TAG)), CredentialChoice::ManagedIdentity { client_id: None });
        assert_eq!(decided(&[("AZURE_CLIENT_SECRET", "")], Some("Dell")), CredentialChoice::Cli);
    }

    #[test]
    fn every_choice_has_its_text() {
        for (text, choice) in [
            ("auto", CredentialChoice::Auto),
            ("managed_identity", CredentialChoice::ManagedIdentity { client_id: None }),
            ("managed_identity:12-ab", CredentialChoice::ManagedIdentity { client_id: Some("12-ab".into()) }),
            ("workload", CredentialChoice::Workload),
            ("secret", CredentialChoice::Secret),
            ("cli", CredentialChoice::Cli),
        ] {
            assert_eq!(text.parse::<CredentialChoice>().unwrap(), choice);
        }
        for bad in ["", "Auto", "managed_identity:", "managed_identity:a b", "fixed:x"] {
            assert_eq!(bad.parse::<CredentialChoice>().unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }
}
