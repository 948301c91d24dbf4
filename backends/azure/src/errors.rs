//! What failed, in the words of this crate, and the one table that says what it means to the pool.
//!
//! Statuses decide, codes refine: Tables sends no code that can be relied on, and Resource Manager nests the telling one.
//! Anything that may have reached the service and was a write leaves the outcome open.

use crate::transport::Answer;
use boxpool::{Effect, Error, ErrorKind};
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// No service's wish to wait is followed for longer.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(1_800);

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The outermost code; empty when there is none.
    pub(crate) code: String,
    /// Codes further in.
    pub(crate) inner: Vec<String>,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<String>,
    /// Of a throttled request: the subscription's budget is empty, not one machine's.
    pub(crate) targets_subscription: bool,
}

impl Refusal {
    /// Reads whatever shape of error the body has: Resource Manager's, OData's, or XML.
    pub(crate) fn of(answer: &Answer) -> Self {
        let mut refusal = Self {
            status: answer.status,
            code: answer.header("x-ms-error-code").unwrap_or_default().to_owned(),
            inner: Vec::new(),
            message: String::new(),
            retry_after: answer.retry_after().map(|wait| wait.min(MAX_RETRY_AFTER)),
            request_id: answer.header("x-ms-request-id").map(str::to_owned),
            targets_subscription: false,
        };
        let text = String::from_utf8_lossy(&answer.body);
        if let Ok(body) = serde_json::from_str::<Value>(&text) {
            let error = body.get("error").or_else(|| body.get("odata.error")).unwrap_or(&body);
            refusal.read(error);
        } else if text.trim_start().starts_with('<') {
            let of = |names: [&str; 2]| names.iter().find_map(|name| element(&text, name)).unwrap_or_default();
            if refusal.code.is_empty() {
                refusal.code = of(["code", "Code"]);
            }
            refusal.message = of(["message", "Message"]);
        }
        refusal
    }

    /// An operation that ended in failure tells it in a 200.
    pub(crate) fn of_operation(error: &Value) -> Self {
        let mut refusal = Self {
            status: 200,
            code: String::new(),
            inner: Vec::new(),
            message: String::new(),
            retry_after: None,
            request_id: None,
            targets_subscription: false,
        };
        refusal.read(error);
        refusal
    }

    /// Not even sent: this process has used up what it allows itself.
    pub(crate) fn of_own_budget(wait: Duration) -> Self {
        let mut refusal = Self::of_operation(&Value::Null);
        refusal.status = 429;
        refusal.message = "the budget of requests is used up for now".into();
        refusal.retry_after = Some(wait.min(MAX_RETRY_AFTER));
        refusal
    }

    fn read(&mut self, error: &Value) {
        if self.code.is_empty() {
            self.code = error["code"].as_str().unwrap_or_default().to_owned();
        }
        let message = &error["message"];
        let message = message.as_str().or_else(|| message["value"].as_str()).unwrap_or_default();
        // Outside text goes into logs: one line, not too long.
        self.message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
        let mut next = vec![error];
        while let Some(error) = next.pop() {
            let details = error["details"].as_array().into_iter().flatten().chain(error.get("innererror"));
            for detail in details {
                self.inner.extend(detail["code"].as_str().map(str::to_owned));
                self.targets_subscription |= detail["target"].as_str().is_some_and(|on| on.contains("Subscription"));
                if self.inner.len() < 16 {
                    next.push(detail);
                }
            }
        }
    }

    /// Whether this code is the outermost one or one further in.
    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.code.eq_ignore_ascii_case(code) || self.inner.iter().any(|inner| inner.eq_ignore_ascii_case(code))
    }
}

fn element(xml: &str, name: &str) -> Option<String> {
    let start = xml.find(&format!("<{name}"))?;
    let open = start + xml[start..].find('>')? + 1;
    let end = open + xml[open..].find(&format!("</{name}>"))?;
    Some(xml[open..end].chars().filter(|c| !c.is_control()).take(400).collect())
}

/// Why a request brought no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The service said no.
    Refused(Refusal),
    /// It never left: nothing can have happened.
    NotSent(String),
    /// It left and no answer came.
    Lost(String),
    /// No token could be had.
    Credential(String),
    /// It was answered, and the answer cannot be understood.
    Unreadable(String),
    /// This crate would not send it.
    Withheld(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => {
                write!(f, "the service answered {}", refusal.status)?;
                for code in std::iter::once(&refusal.code).chain(&refusal.inner).filter(|code| !code.is_empty()) {
                    write!(f, " {code}")?;
                }
                if !refusal.message.is_empty() {
                    write!(f, ": {}", refusal.message)?;
                }
                match &refusal.request_id {
                    Some(id) => write!(f, " (request {})", id.escape_debug()),
                    None => Ok(()),
                }
            }
            Self::NotSent(why) => write!(f, "the service cannot be reached: {why}"),
            Self::Lost(why) => write!(f, "the answer was lost: {why}"),
            Self::Credential(why) => write!(f, "no credential: {why}"),
            Self::Unreadable(why) => write!(f, "the answer cannot be understood: {why}"),
            Self::Withheld(why) => f.write_str(why),
        }
    }
}

impl Failure {
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// Whether a write that failed like this may have happened.
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.status, 408 | 500..=599),
            Self::Lost(_) | Self::Unreadable(_) => true,
            Self::NotSent(_) | Self::Credential(_) | Self::Withheld(_) => false,
        }
    }

    /// Whether the same read may succeed soon.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::NotSent(_) | Self::Lost(_) => true,
            Self::Credential(_) | Self::Unreadable(_) | Self::Withheld(_) => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

/// What was tried: for the message, and for whether it can have changed anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Act<'a> {
    pub(crate) operation: &'static str,
    pub(crate) resource: &'a str,
    pub(crate) writes: bool,
}

impl<'a> Act<'a> {
    pub(crate) fn read(operation: &'static str, resource: &'a str) -> Self {
        Self { operation, resource, writes: false }
    }

    pub(crate) fn write(operation: &'static str, resource: &'a str) -> Self {
        Self { operation, resource, writes: true }
    }

    /// The pool's error for a failure.
    pub(crate) fn failed(self, failure: Failure) -> Error {
        let kind = match &failure {
            Failure::Refused(refusal) => kind_of(refusal),
            Failure::NotSent(_) => ErrorKind::Unavailable,
            Failure::Lost(_) if self.writes => ErrorKind::UnknownOutcome,
            Failure::Lost(_) => ErrorKind::Unavailable,
            Failure::Credential(_) => ErrorKind::Unauthorized,
            Failure::Unreadable(_) if self.writes => ErrorKind::UnknownOutcome,
            Failure::Unreadable(_) => ErrorKind::Permanent,
            Failure::Withheld(_) => ErrorKind::Invalid,
        };
        let effect = if self.writes && failure.is_in_doubt() { Effect::Unknown } else { Effect::None };
        let mut error = Error::new(kind, self.operation, self.resource)
            .with_detail(format!("{failure}{}", advice(kind)))
            .with_effect(effect);
        if let Some(wait) = failure.retry_after() {
            error = error.with_retry_after(wait);
        }
        error
    }
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthorized => "; check the identity and its role assignments (new ones take up to half an hour)",
        _ => "",
    }
}

/// No room: where, for how long and for whom is told apart by [`crate::capacity`].
pub(crate) const CAPACITY_CODES: &[&str] = &[
    "AllocationFailed",
    "ZonalAllocationFailed",
    "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest",
    "SkuNotAvailable",
    "QuotaExceeded",
    "SpotPriceGreaterThanProvidedMaxPrice",
];

/// The disk, machine or one of its parts is held or in motion.
const BUSY_CODES: &[&str] = &[
    "AttachDiskWhileBeingDetached",
    "DetachUnattachedDisk",
    "ConflictingUserInput",
    "Conflict",
    "OperationNotAllowed",
    "OperationPreempted",
    "DataDisksForceDetached",
    "ResourceUpdateBlockedOnPlatformUpdate",
    "RetryableError",
    "RetryableErrorDueToAnotherOperation",
    "ReferencedResourceNotProvisioned",
    "NicReservedForAnotherVm",
    "NicInUse",
    "PrivateIPAddressIsAllocated",
    "DiskBeingDetached",
    "InUseSubnetCannotBeDeleted",
];

/// The table: what a refusal means.
pub(crate) fn kind_of(refusal: &Refusal) -> ErrorKind {
    let any = |codes: &[&str]| codes.iter().any(|code| refusal.has_code(code));
    // Quota comes as a code that means many things; only its text tells.
    let quota = refusal.has_code("OperationNotAllowed") && refusal.message.to_ascii_lowercase().contains("quota");
    match refusal.status {
        401 | 403 => ErrorKind::Unauthorized,
        // Network answers 429 for a resource in motion; that is no throttling of the caller.
        429 if refusal.code == "RetryableError" => ErrorKind::Busy,
        429 => ErrorKind::Throttled,
        404 => ErrorKind::NotFound,
        412 => ErrorKind::Conflict,
        _ if any(CAPACITY_CODES) || quota => ErrorKind::NoCapacity,
        408 | 500..=599 => ErrorKind::Unavailable,
        // The last one's status is not documented: the disk went meanwhile, and a look tells.
        400 if any(&["NicReservedForAnotherVm", "NicInUse", "PrivateIPAddressIsAllocated", "DetachUnattachedDisk"]) => {
            ErrorKind::Busy
        }
        400 | 413 => ErrorKind::Invalid,
        409 if refusal.code.starts_with("EntityAlreadyExists") || refusal.code == "TableAlreadyExists" => {
            ErrorKind::AlreadyExists
        }
        409 if refusal.has_code("PropertyChangeNotAllowed") => ErrorKind::Invalid,
        409 => ErrorKind::Busy,
        _ if any(BUSY_CODES) => ErrorKind::Busy,
        // An operation that failed, told in a 200; a code of its own or none, as when it was superseded.
        200 if refusal.code.is_empty() => ErrorKind::Busy,
        _ => ErrorKind::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::of(&Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec() })
    }

    fn arm(status: u16, code: &str) -> Refusal {
        refusal(status, &format!(r#"{{"error":{{"code":"{code}","message":"words"}}}}"#))
    }

    #[test]
    fn every_row_of_the_table() {
        use ErrorKind as K;
        for (status, code, kind) in [
            (404, "ResourceNotFound", K::NotFound),
            (404, "ResourceGroupNotFound", K::NotFound),
            (404, "NotFound", K::NotFound),
            (412, "PreconditionFailed", K::Conflict),
            (409, "AttachDiskWhileBeingDetached", K::Busy),
            (400, "DetachUnattachedDisk", K::Busy),
            (409, "DetachUnattachedDisk", K::Busy),
            (409, "ConflictingUserInput", K::Busy),
            (409, "OperationNotAllowed", K::Busy),
            (409, "Conflict", K::Busy),
            (409, "OperationPreempted", K::Busy),
            (200, "OperationPreempted", K::Busy),
            (200, "DataDisksForceDetached", K::Busy),
            (200, "", K::Busy),
            (409, "PropertyChangeNotAllowed", K::Invalid),
            (400, "InvalidParameter", K::Invalid),
            (400, "BadRequest", K::Invalid),
            (409, "SkuNotAvailable", K::NoCapacity),
            (400, "QuotaExceeded", K::NoCapacity),
            (200, "AllocationFailed", K::NoCapacity),
            (200, "ZonalAllocationFailed", K::NoCapacity),
            (200, "OverconstrainedAllocationRequest", K::NoCapacity),
            (200, "OverconstrainedZonalAllocationRequest", K::NoCapacity),
            (200, "OSProvisioningTimedOut", K::Permanent),
            (200, "OSProvisioningClientError", K::Permanent),
            (200, "VMStartTimedOut", K::Permanent),
            (409, "SpotPriceGreaterThanProvidedMaxPrice", K::NoCapacity),
            (409, "ResourceUpdateBlockedOnPlatformUpdate", K::Busy),
            (429, "RetryableError", K::Busy),
            (200, "RetryableError", K::Busy),
            (400, "NicReservedForAnotherVm", K::Busy),
            (400, "NicInUse", K::Busy),
            (400, "PrivateIPAddressIsAllocated", K::Busy),
            (400, "InUseSubnetCannotBeDeleted", K::Invalid),
            (400, "EvictionPolicyCanBeSetOnlyOnAzureSpotVirtualMachines", K::Invalid),
            (429, "SubscriptionRequestsThrottled", K::Throttled),
            (429, "OperationNotAllowed", K::Throttled),
            (403, "AuthorizationFailed", K::Unauthorized),
            (403, "LinkedAuthorizationFailed", K::Unauthorized),
            (401, "InvalidAuthenticationToken", K::Unauthorized),
            (401, "ExpiredAuthenticationToken", K::Unauthorized),
            (500, "InternalServerError", K::Unavailable),
            (503, "ServerBusy", K::Unavailable),
            (409, "EntityAlreadyExists", K::AlreadyExists),
        ] {
            assert_eq!(kind_of(&arm(status, code)), kind, "{status} {code}");
        }
    }

    #[test]
    fn quota_is_told_by_its_words() {
        let body = r#"{"error":{"code":"OperationNotAllowed","message":"Operation could not be completed as it results in exceeding approved Total Regional Cores quota."}}"#;
        assert_eq!(kind_of(&refusal(409, body)), ErrorKind::NoCapacity);
    }

    #[test]
    fn what_a_refusal_says_is_one_short_line() {
        let body = serde_json::json!({ "error": { "code": "Conflict", "message": format!("a\nb\u{1b}[31m{}", "x".repeat(9_000)) },
            "token": "hidden" });
        let headers = vec![("set-cookie".into(), "hidden".into()), ("x-ms-request-id".into(), "r1".into())];
        let refusal = Refusal::of(&Answer { status: 409, headers, body: body.to_string().into_bytes() });
        let told = format!("{:?}", Act::write("attach volume", "v").failed(Failure::Refused(refusal)));
        assert!(told.contains("409 Conflict: a b") && told.contains("r1"), "{told}");
        assert!(told.len() < 800 && !told.contains("hidden") && !told.contains(['\n', '\u{1b}']), "{told}");
    }

    #[test]
    fn codes_further_in_are_found() {
        let body = r#"{"error":{"code":"OperationNotAllowed","message":"m","details":[{"code":"TooManyRequests","target":"PutVM","details":[{"code":"deeper"}]}]}}"#;
        let refusal = refusal(429, body);
        assert!(refusal.has_code("TooManyRequests") && refusal.has_code("deeper"));
        assert_eq!(kind_of(&refusal), ErrorKind::Throttled);
    }

    #[test]
    fn the_errors_of_tables_are_read_in_all_their_shapes() {
        let odata = r#"{"odata.error":{"code":"EntityAlreadyExists","message":{"lang":"en-US","value":"The specified entity already exists."}}}"#;
        assert_eq!(refusal(409, odata).code, "EntityAlreadyExists");
        let xml = "<?xml version=\"1.0\"?><error xmlns=\"http://x\"><code>ResourceNotFound</code><message xml:lang=\"en-US\">none</message></error>";
        assert_eq!((refusal(404, xml).code.as_str(), refusal(404, xml).message.as_str()), ("ResourceNotFound", "none"));
        let other = "<Error><Code>UpdateConditionNotSatisfied</Code><Message>m</Message></Error>";
        assert_eq!(refusal(412, other).code, "UpdateConditionNotSatisfied");
        assert_eq!(refusal(400, "<html>").code, "");
        assert_eq!(refusal(500, "\u{0}\u{1}").message, "");
    }

    #[test]
    fn a_lost_answer_to_a_write_may_have_happened_and_one_to_a_read_has_not() {
        for failure in [Failure::Lost("reset".into()), Failure::Unreadable("half".into())] {
            let write = Act::write("attach volume", "v").failed(failure.clone());
            assert_eq!((write.kind(), write.effect()), (ErrorKind::UnknownOutcome, Effect::Unknown));
            assert_eq!(Act::read("get volume", "v").failed(failure).effect(), Effect::None);
        }
        let unsent = Act::write("attach volume", "v").failed(Failure::NotSent("refused".into()));
        assert_eq!((unsent.kind(), unsent.effect()), (ErrorKind::Unavailable, Effect::None));
        let broken = Act::write("attach volume", "v").failed(Failure::Refused(arm(500, "x")));
        assert_eq!((broken.kind(), broken.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    }

    #[test]
    fn a_wish_to_wait_is_capped() {
        let answer = Answer { status: 429, headers: vec![("Retry-After".into(), "99999999".into())], body: Vec::new() };
        assert_eq!(Refusal::of(&answer).retry_after, Some(MAX_RETRY_AFTER));
    }
}
