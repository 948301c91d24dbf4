//! The cloud of a Resource Manager that is none, as most tests set it up.

use boxpool_azure::{CloudOptions, CredentialChoice, Proxy, Secret};

pub(crate) fn options(url: &str) -> CloudOptions {
    let mut options = CloudOptions::new("0000-1111", "rg", "westeurope", "pool");
    options.endpoint = url.to_owned();
    options.credential = CredentialChoice::Fixed(Secret::new("token"));
    let provider = "/subscriptions/0000-1111/resourceGroups/rg/providers";
    options.machines.image = format!("{provider}/Microsoft.Compute/images/host");
    options.machines.subnet = format!("{provider}/Microsoft.Network/virtualNetworks/net/subnets/hosts");
    options.machines.ssh_public_key = "ssh-ed25519 AAAA boxpool".into();
    options.proxy = Proxy::None;
    options.budgets = false;
    options
}
