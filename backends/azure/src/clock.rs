//! Whether this machine's clock is right, as far as Azure's answers tell. Tokens and signatures are refused when it is off by
//! more than some minutes.

use crate::cloud::AzureCloud;
use crate::errors::Act;
use crate::transport::{Outgoing, Transport};
use boxpool::{Error, ErrorKind, Result};
use reqwest::{Method, Url};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

impl AzureCloud {
    /// By how many seconds this machine's clock is ahead of Resource Manager's; negative when it is behind, `None` when the
    /// answer does not tell. One request, without a token. Known to about a second.
    ///
    /// # Errors
    /// `Unavailable` when Resource Manager cannot be reached.
    pub async fn clock_ahead_s(&self) -> Result<Option<i64>> {
        let options = &self.inner.options;
        let act = Act::read("ask the time", &options.endpoint);
        let url = Url::parse(&options.endpoint).map_err(|error| {
            Error::new(ErrorKind::Invalid, act.operation, &options.endpoint).with_detail(error.to_string())
        })?;
        let outgoing = Outgoing { method: Method::GET, url, headers: Vec::new(), body: Vec::new() };
        // Without a token it is refused, and the refusal is dated.
        let answer =
            Transport::new(options.proxy)?.send_unnoted(outgoing).await.map_err(|failure| act.failed(failure))?;
        let there = answer.header("date").and_then(|text| OffsetDateTime::parse(text, &Rfc2822).ok());
        Ok(there.map(|there| (OffsetDateTime::now_utc() - there).whole_seconds()))
    }
}
