//! Waiting for a long-running operation, one step at a time.
//!
//! The service answers a write with the address of the operation, of its result, or with a resource in a passing state.
//! An [`Operation`] holds what it answered. It is plain data: it can be written down before the wait and taken up by
//! another process. The providers do not need to: their callers repeat the call, and whoever has no operation at hand
//! looks at the resource itself, which says as much, only later. The operation tells *why* something failed, and costs
//! the resource's budget nothing.
//!
//! Addresses of other hosts are refused: a token would go there.

use crate::errors::{Failure, Refusal};
use crate::transport::Answer;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Between polls when the service does not say.
const FIRST: Duration = Duration::from_secs(2);

/// What the service answered to a write that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operation {
    asynchronous: Option<String>,
    location: Option<String>,
    polls: u32,
    wait_seconds: Option<u64>,
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Look again after this.
    Running(Duration),
    Done,
    Failed(Refusal),
    /// The service does not know it any more, or never had an address for it: only the resource tells.
    Forgotten,
}

impl Operation {
    /// Of the answer to a write; `None` when it says that nothing goes on.
    pub(crate) fn of(answer: &Answer, endpoint: &Url) -> Result<Option<Self>, Failure> {
        let link = |name: &str| -> Result<Option<String>, Failure> {
            let Some(link) = answer.header(name) else { return Ok(None) };
            check_link(endpoint, link)?;
            Ok(Some(link.to_owned()))
        };
        let asynchronous = link("azure-asyncoperation")?;
        // A Location may also name what was made; only a 202 makes it a thing to poll.
        let location = if answer.status == 202 { link("location")? } else { None };
        if asynchronous.is_none() && location.is_none() {
            return Ok(None);
        }
        let wait_seconds = answer.retry_after().map(|wait| wait.as_secs());
        Ok(Some(Self { asynchronous, location, polls: 0, wait_seconds }))
    }

    /// What to ask next.
    pub(crate) fn address(&self) -> Option<&str> {
        self.asynchronous.as_deref().or(self.location.as_deref())
    }

    /// How long to wait before asking: what the service said, within reason, else longer each time.
    pub(crate) fn wait(&self) -> Duration {
        match self.wait_seconds {
            Some(seconds) => Duration::from_secs(seconds).clamp(SHORTEST, LONGEST),
            // The budget of polls is 15 a minute for one machine: quick at first, then within it.
            None => (FIRST * (self.polls + 1)).min(Duration::from_secs(5)),
        }
    }

    /// Takes in what the address answered.
    pub(crate) fn heard(&mut self, answer: Result<Answer, Failure>, endpoint: &Url) -> Progress {
        self.polls = self.polls.saturating_add(1);
        let answer = match answer {
            Ok(answer) => answer,
            // A poll that fails says nothing about the operation.
            Err(Failure::Refused(refusal)) if matches!(refusal.status, 404 | 410) => return Progress::Forgotten,
            Err(failure) => {
                self.wait_seconds = failure.retry_after().map(|wait| wait.as_secs());
                return Progress::Running(self.wait());
            }
        };
        self.wait_seconds = answer.retry_after().map(|wait| wait.as_secs());
        if self.asynchronous.is_some() {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            return match body["status"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
                "succeeded" => Progress::Done,
                // Superseded ones end without a code.
                "failed" | "canceled" | "cancelled" => Progress::Failed(Refusal::of_operation(&body["error"])),
                _ => Progress::Running(self.wait()),
            };
        }
        match answer.status {
            202 => {
                if let Some(link) = answer.header("location")
                    && check_link(endpoint, link).is_ok()
                {
                    self.location = Some(link.to_owned());
                }
                Progress::Running(self.wait())
            }
            _ => Progress::Done,
        }
    }
}

/// Only the service's own host is asked: whatever is asked gets the token.
pub(crate) fn check_link(endpoint: &Url, link: &str) -> Result<Url, Failure> {
    let refuse = |why: &str| Err(Failure::Withheld(format!("{why}; no token is sent there")));
    match Url::parse(link) {
        Ok(url) if url.origin() == endpoint.origin() && url.username().is_empty() && url.password().is_none() => {
            Ok(url)
        }
        Ok(url) => refuse(&format!("the service refers to another host, {:?}", url.host_str().unwrap_or_default())),
        Err(_) => refuse("the service refers to what is no address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Url {
        Url::parse("https://management.azure.com/").unwrap()
    }

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    const ASYNC: (&str, &str) = ("Azure-AsyncOperation", "https://management.azure.com/operations/1");
    const LOCATION: (&str, &str) = ("Location", "https://management.azure.com/operations/1?monitor=true");

    fn begun(status: u16, headers: &[(&str, &str)]) -> Operation {
        Operation::of(&answer(status, headers, ""), &endpoint()).unwrap().unwrap()
    }

    #[test]
    fn the_operation_is_asked_before_its_location() {
        assert_eq!(begun(202, &[ASYNC, LOCATION]).address(), Some(ASYNC.1));
        assert_eq!(begun(202, &[LOCATION]).address(), Some(LOCATION.1));
        assert_eq!(Operation::of(&answer(200, &[LOCATION], ""), &endpoint()), Ok(None), "that is what was made");
        assert_eq!(Operation::of(&answer(200, &[], ""), &endpoint()), Ok(None));
    }

    #[test]
    fn every_end_of_an_operation_is_understood() {
        let mut operation = begun(201, &[ASYNC]);
        let mut hears = |body: &str| operation.heard(Ok(answer(200, &[], body)), &endpoint());
        assert!(matches!(hears(r#"{"status":"InProgress"}"#), Progress::Running(_)));
        assert!(matches!(hears(r#"{"status":"SomethingNew"}"#), Progress::Running(_)));
        assert!(matches!(hears("<html>"), Progress::Running(_)));
        assert_eq!(hears(r#"{"status":"succeeded"}"#), Progress::Done);
        let failed = hears(r#"{"status":"Failed","error":{"code":"AllocationFailed","message":"none left"}}"#);
        assert!(matches!(&failed, Progress::Failed(why) if why.has_code("AllocationFailed")), "{failed:?}");
        assert!(matches!(hears(r#"{"status":"Canceled"}"#), Progress::Failed(why) if why.code.is_empty()));
    }

    #[test]
    fn a_location_is_asked_until_it_is_not_202() {
        let mut operation = begun(202, &[LOCATION]);
        let moved = ("Location", "https://management.azure.com/operations/2");
        assert!(matches!(operation.heard(Ok(answer(202, &[moved], "")), &endpoint()), Progress::Running(_)));
        assert_eq!(operation.address(), Some(moved.1));
        assert_eq!(operation.heard(Ok(answer(204, &[], "")), &endpoint()), Progress::Done);
    }

    #[test]
    fn a_poll_that_fails_says_nothing_and_a_forgotten_one_says_so() {
        let mut operation = begun(202, &[ASYNC]);
        let refused = |status| Err(Failure::Refused(Refusal::of(&answer(status, &[("Retry-After", "7")], ""))));
        assert_eq!(operation.heard(refused(429), &endpoint()), Progress::Running(Duration::from_secs(7)));
        assert!(matches!(operation.heard(refused(500), &endpoint()), Progress::Running(_)));
        assert!(matches!(operation.heard(Err(Failure::Lost("reset".into())), &endpoint()), Progress::Running(_)));
        assert_eq!(operation.heard(refused(404), &endpoint()), Progress::Forgotten);
    }

    #[test]
    fn no_token_goes_to_another_host() {
        for link in [
            "https://example.org/operations/1",
            "http://management.azure.com/operations/1",
            "https://management.azure.com:444/1",
            "https://management.azure.com@example.org/1",
            "https://user@management.azure.com/1",
            "//example.org/1",
            "nonsense",
        ] {
            let answer = answer(202, &[("Azure-AsyncOperation", link)], "");
            assert!(matches!(Operation::of(&answer, &endpoint()), Err(Failure::Withheld(_))), "{link}");
        }
        let mut operation = begun(202, &[LOCATION]);
        let moved = [("Location", "https://example.org/1")];
        assert!(matches!(operation.heard(Ok(answer(202, &moved, "")), &endpoint()), Progress::Running(_)));
        assert_eq!(operation.address(), Some(LOCATION.1));
    }

    #[test]
    fn a_wish_to_wait_is_followed_within_reason() {
        let waits = |wait: &str| begun(202, &[ASYNC, ("Retry-After", wait)]).wait();
        assert_eq!(waits("10"), Duration::from_secs(10));
        assert_eq!(waits("0"), SHORTEST);
        assert_eq!(waits("86400"), LONGEST);
    }

    #[test]
    fn an_operation_can_be_written_down_and_taken_up() {
        let operation = begun(202, &[ASYNC, LOCATION, ("Retry-After", "3")]);
        let text = serde_json::to_string(&operation).unwrap();
        assert_eq!(serde_json::from_str::<Operation>(&text).unwrap(), operation);
    }
}
