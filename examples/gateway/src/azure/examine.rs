//! What `doctor` looks at in Azure.

use super::{all_tables, cloud, tables};
use crate::config::Config;
use crate::doctor::{Finding, Verdict};
use boxpool::{Error, ErrorKind, InstanceProvider, Report, Result, VolumeProvider};
use boxpool_azure::AzureCloud;
use std::time::Duration;

/// One look at Azure, at most.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Tokens are refused by clocks that are off by five minutes.
const CLOCK_LIMIT_S: u64 = 60;

/// Looks at what the gateway needs in Azure; changes nothing.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let bad = |what: &str, error: &Error| Finding::new(what, Verdict::Bad, Report(error).to_string());
    // Any key will do to check the settings with.
    let cloud = match cloud(config, "ssh-ed25519 AAAA") {
        Ok(cloud) => cloud,
        Err(error) => return vec![bad("azure settings", &error)],
    };
    let tables = match tables(config) {
        Ok(tables) => tables,
        Err(error) => return vec![bad("azure settings", &error)],
    };
    let mut findings = vec![Finding::new("azure settings", Verdict::Good, "names, ids and places fit Azure's rules")];
    findings.push(match look("ask the time", cloud.clock_ahead_s()).await {
        Ok(Some(ahead)) => {
            let side = if ahead < 0 { "behind" } else { "ahead of" };
            let said = format!("this machine's is {} s {side} Azure's", ahead.unsigned_abs());
            if ahead.unsigned_abs() > CLOCK_LIMIT_S {
                let advice = "tokens will be refused, set the clock (chrony)";
                Finding::new("clock", Verdict::Bad, format!("{said}; {advice}"))
            } else {
                Finding::new("clock", Verdict::Good, said)
            }
        }
        Ok(None) => Finding::new("clock", Verdict::Warning, "Azure's answer does not tell the time"),
        Err(error) => {
            let advice = "check azure.management_endpoint, name resolution, and that port 443 is open outwards";
            Finding::new("resource manager", Verdict::Bad, format!("{}; {advice}", Report(&error)))
        }
    });
    let group = &config.azure.resource_group;
    let rights = format!("give the identity the role of deploy/main.bicep in the group {group}");
    findings.push(permissions(&cloud, &rights).await);
    findings.extend(quotas(&cloud, config).await);
    for (what, seen) in [
        (
            "machines",
            look("list machines", async { Ok(InstanceProvider::list(&cloud, None).await?.items.len()) }).await,
        ),
        ("disks", look("list disks", async { Ok(VolumeProvider::list(&cloud, None).await?.items.len()) }).await),
        ("snapshots", look("list snapshots", async { Ok(cloud.list_snapshots(None).await?.items.len()) }).await),
    ] {
        findings.push(match seen {
            Ok(count) => {
                Finding::new(what, Verdict::Good, format!("may be listed; {count} of this pool on the first page"))
            }
            Err(error) if error.kind() == ErrorKind::Unauthorized => {
                Finding::new(what, Verdict::Bad, format!("{}; {rights}", Report(&error)))
            }
            Err(error) => bad(what, &error),
        });
    }
    findings.push(match look("read tables", tables.missing_tables(&all_tables())).await {
        Ok(missing) if missing.is_empty() => Finding::new("tables", Verdict::Good, "are there and may be read"),
        Ok(_) => Finding::new("tables", Verdict::Warning, "they are not there yet; run: boxpool-gateway init"),
        Err(error) if error.kind() == ErrorKind::Unauthorized => {
            let account = &config.azure.storage_account;
            let what = format!(
                "{}; give the identity Storage Table Data Contributor on the account {account}",
                Report(&error)
            );
            Finding::new("tables", Verdict::Bad, what)
        }
        Err(error) => bad("tables", &error),
    });
    findings
}

/// Whether every action that is taken is allowed.
async fn permissions(cloud: &AzureCloud, rights: &str) -> Finding {
    let what = "permissions";
    match look("read permissions", cloud.missing_rights()).await {
        Ok(missing) if missing.is_empty() => Finding::new(what, Verdict::Good, "all that is needed in the group"),
        Ok(missing) => Finding::new(what, Verdict::Bad, format!("these are missing: {}; {rights}", missing.join(", "))),
        Err(error) if error.kind() == ErrorKind::Unauthorized => {
            let detail = format!("they may not be asked for, so only a try can tell; {rights}");
            Finding::new(what, Verdict::Warning, detail)
        }
        Err(error) => Finding::new(what, Verdict::Warning, Report(&error).to_string()),
    }
}

/// Whether the quotas leave room for as many machines as there may be.
async fn quotas(cloud: &AzureCloud, config: &Config) -> Vec<Finding> {
    let what = "quota";
    let own = look("list machines", async { Ok(InstanceProvider::list(cloud, None).await?.items.len()) }).await;
    let most = u64::from(config.azure.machines_max);
    let wanted = most.saturating_sub(own.map_or(0, |own| own as u64));
    match look("read quotas", cloud.quotas()).await {
        Ok(quotas) if quotas.is_empty() => {
            vec![Finding::new(what, Verdict::Warning, "none of the region's quotas is known to count these sizes")]
        }
        Ok(quotas) => quotas
            .into_iter()
            .map(|quota| {
                let said = format!(
                    "{}: {} of {} used, room for {} more machines; machines_max is {most}",
                    quota.name, quota.used, quota.limit, quota.machines
                );
                match (quota.machines, wanted) {
                    (room, wanted) if room >= wanted => Finding::new(what, Verdict::Good, said),
                    // With room for none nobody new can be served, but those who have a machine can.
                    _ => {
                        let advice = "ask for more in the portal (Quotas), or lower machines_max";
                        Finding::new(what, Verdict::Warning, format!("{said}; {advice}"))
                    }
                }
            })
            .collect(),
        Err(error) if error.kind() == ErrorKind::Unauthorized => {
            let detail = "it may not be read with rights in the group alone; look at it in the portal (Quotas), or give the \
                          identity Reader on the subscription";
            vec![Finding::new(what, Verdict::Warning, detail)]
        }
        Err(error) => vec![Finding::new(what, Verdict::Warning, Report(&error).to_string())],
    }
}

async fn look<T>(what: &'static str, asked: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(LOOK_LIMIT, asked).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(Error::new(ErrorKind::TimedOut, what, "azure").with_detail(format!("no answer within {LOOK_LIMIT:?}")))
        }
    }
}
