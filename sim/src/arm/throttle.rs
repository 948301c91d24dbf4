//! Token buckets, as the service meters its callers: see the compute throttling page of Azure's documentation for the sizes.

use super::id::{Kind, Target};
use super::wire::Reply;
use serde_json::json;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// How many requests a bucket holds and how many come back in a minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    name: &'static str,
    holds: f64,
    a_minute: f64,
}

const fn size(name: &'static str, a_minute: f64, holds: f64) -> Size {
    Size { name, holds, a_minute }
}

/// The buckets of one server.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    levels: BTreeMap<String, (f64, Instant)>,
    /// The buckets are so many times smaller; 0 switches them off.
    pub(super) tightness: f64,
}

impl Buckets {
    /// Takes a token from every bucket that the request draws on, or says which is empty. The headers tell what is left.
    pub(super) fn take(&mut self, method: &str, target: &Target) -> Result<Vec<(&'static str, String)>, Box<Reply>> {
        if self.tightness <= 0.0 {
            return Ok(Vec::new());
        }
        let kind = match method {
            "GET" | "HEAD" => "reads",
            "DELETE" => "deletes",
            _ => "writes",
        };
        // Per subscription, principal and region: 250 reads with 25 a second, 200 of the others with 10 a second.
        let arm = if kind == "reads" { size("reads", 1_500.0, 250.0) } else { size(kind, 600.0, 200.0) };
        let left = self.draw(&format!("arm/{kind}"), arm).map_err(|wait| {
            let message = format!(
                "Number of '{kind}' requests for the subscription exceeded the limit. Please try again after '{wait}' seconds."
            );
            Box::new(
                Reply::error(429, "SubscriptionRequestsThrottled", &message)
                    .with("Retry-After", wait.to_string())
                    .with("x-ms-failure-cause", "gateway"),
            )
        })?;
        let header = match kind {
            "reads" => "x-ms-ratelimit-remaining-subscription-reads",
            "deletes" => "x-ms-ratelimit-remaining-subscription-deletes",
            _ => "x-ms-ratelimit-remaining-subscription-writes",
        };
        let mut headers = vec![(header, left.to_string())];
        let mut remaining = Vec::new();
        for (bucket, key) in compute(method, target) {
            let left = self.draw(&key, bucket).map_err(|wait| Box::new(too_many(bucket, wait)))?;
            remaining.push(format!("Microsoft.Compute/{};{left}", bucket.name));
        }
        if !remaining.is_empty() {
            headers.push(("x-ms-ratelimit-remaining-resource", remaining.join(",")));
        }
        Ok(headers)
    }

    /// One token: how many are left, or how many seconds until there is one.
    fn draw(&mut self, key: &str, size: Size) -> Result<u64, u64> {
        let (holds, a_second) = (size.holds / self.tightness, size.a_minute / 60.0 / self.tightness);
        let now = Instant::now();
        let (level, since) = self.levels.entry(key.to_owned()).or_insert((holds, now));
        *level = (*level + now.duration_since(*since).as_secs_f64() * a_second).min(holds);
        *since = now;
        if *level < 1.0 {
            return Err(((1.0 - *level) / a_second).ceil().max(1.0) as u64);
        }
        *level -= 1.0;
        Ok(*level as u64)
    }
}

/// What the compute provider's own buckets say when one is empty: the code that counts is nested.
fn too_many(bucket: Size, wait: u64) -> Reply {
    let measured = json!({
        "operationGroup": bucket.name, "allowedRequestCount": bucket.holds as u64, "measuredRequestCount": bucket.holds as u64 + 1,
    });
    let body = json!({ "error": {
        "code": "OperationNotAllowed",
        "message": "The server rejected the request because too many requests have been received for this subscription.",
        "details": [{ "code": "TooManyRequests", "target": bucket.name, "message": measured.to_string() }],
    }});
    Reply::new(429, body).with("Retry-After", wait.to_string()).with("x-ms-request-charge", "1")
}

/// The compute buckets that a request draws on: one of the machine and one of the subscription.
fn compute(method: &str, target: &Target) -> Vec<(Size, String)> {
    let pair = |machine: Option<(Size, &str)>, subscription: Size| {
        let of_machine = machine.map(|(size, name)| (size, format!("vm/{}/{name}", size.name)));
        let of_all = (subscription, format!("all/{}", subscription.name));
        of_machine.into_iter().chain([of_all]).collect()
    };
    match target {
        Target::Resource { id, action } if id.kind == Kind::Vm => {
            let name = id.name.as_str();
            match (method, action.as_deref().map(str::to_ascii_lowercase).as_deref()) {
                ("PUT", _) => pair(
                    Some((size("PutVMResource", 4.0, 12.0), name)),
                    size("PutVMSubscriptionMaximum", 500.0, 1_500.0),
                ),
                ("POST", Some("attachdetachdatadisks")) => pair(
                    Some((size("AttachDetachVMDisksResource", 4.0, 12.0), name)),
                    size("AttachDetachVMDisksSubscriptionMaximum", 500.0, 1_500.0),
                ),
                ("DELETE", _) | ("POST", Some("deallocate")) => pair(
                    Some((size("DeleteVMResource", 4.0, 12.0), name)),
                    size("DeleteVMSubscriptionMaximum", 500.0, 1_500.0),
                ),
                ("GET", _) => pair(
                    Some((size("LowCostGetResource", 12.0, 36.0), name)),
                    size("LowCostGetSubscriptionMaximum", 8_000.0, 24_000.0),
                ),
                _ => pair(
                    Some((size("UpdateVMResource", 4.0, 12.0), name)),
                    size("UpdateVMSubscriptionMaximum", 500.0, 1_500.0),
                ),
            }
        }
        Target::Resource { id, .. } if matches!(id.kind, Kind::Disk | Kind::Snapshot) => match method {
            "GET" => pair(None, size("LowCostGet3Min", 5_000.0, 15_000.0)),
            "DELETE" => pair(None, size("DeleteDisks3Min", 1_000.0, 3_000.0)),
            _ => pair(None, size("CreateUpdateDisks3Min", 1_000.0, 3_000.0)),
        },
        Target::Collection { kind: Kind::Vm, .. } => pair(None, size("HighCostGetSubscriptionMaximum", 300.0, 900.0)),
        Target::Operation(id) => pair(
            Some((size("GetOperationResource", 15.0, 45.0), id)),
            size("GetOperationSubscriptionMaximum", 5_000.0, 15_000.0),
        ),
        _ => Vec::new(),
    }
}
