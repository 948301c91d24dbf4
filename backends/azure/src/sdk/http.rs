//! [`Transport`] as the HTTP client of both generations of the SDK.

use crate::errors::Failure;
use crate::transport::{Answer, Outgoing, Transport};
use async_trait::async_trait;
use azure_core::http as current;
use azure_core_legacy as legacy;
use legacy::error::ErrorKind;
use std::collections::HashMap;

/// Retries are never the SDK's business.
pub(crate) fn options(transport: &Transport) -> legacy::ClientOptions {
    legacy::ClientOptions::default()
        .retry(legacy::RetryOptions::none())
        .transport(legacy::TransportOptions::new(std::sync::Arc::new(transport.clone())))
}

/// What went wrong in the SDK itself, when the network has nothing to tell.
pub(crate) fn failure(error: legacy::Error) -> Failure {
    // The outermost words only: what is below may print whole answers.
    let why = error.to_string();
    match error.kind() {
        ErrorKind::Credential => Failure::Credential(crate::sdk::tokens::reason(&error)),
        ErrorKind::DataConversion => Failure::Unreadable(why),
        ErrorKind::Io => Failure::Lost(why),
        _ => Failure::Withheld(why),
    }
}

#[async_trait]
impl legacy::HttpClient for Transport {
    async fn execute_request(&self, request: &legacy::Request) -> legacy::Result<legacy::Response> {
        let body = match request.body() {
            legacy::Body::Bytes(bytes) => bytes.to_vec(),
            legacy::Body::SeekableStream(_) => {
                return Err(legacy::Error::message(ErrorKind::Other, "bodies are sent whole"));
            }
        };
        let outgoing = Outgoing {
            method: reqwest::Method::from_bytes(request.method().as_ref().as_bytes())
                .map_err(|error| legacy::Error::new(ErrorKind::Other, error))?,
            url: request.url().clone(),
            headers: request
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
                .collect(),
            body,
        };
        let answer = self.send(outgoing).await.map_err(|failure| {
            let kind = match failure {
                Failure::Unreadable(_) => ErrorKind::DataConversion,
                _ => ErrorKind::Io,
            };
            legacy::Error::message(kind, failure.to_string())
        })?;
        let Answer { status, headers, body } = answer;
        let status = legacy::StatusCode::try_from(status)
            .map_err(|_| legacy::Error::message(ErrorKind::DataConversion, format!("the service answered {status}")))?;
        let headers: HashMap<_, _> = headers
            .into_iter()
            .map(|(name, value)| (legacy::headers::HeaderName::from(name), legacy::headers::HeaderValue::from(value)))
            .collect();
        let body = futures::stream::once(futures::future::ready(Ok(body.into())));
        Ok(legacy::Response::new(status, legacy::headers::Headers::from(headers), Box::pin(body)))
    }
}

/// For credentials: what they meet is theirs to tell, not the call's that needs the token.
#[derive(Debug, Clone)]
pub(crate) struct TokenTransport(pub(crate) Transport);

#[async_trait]
impl current::HttpClient for TokenTransport {
    async fn execute_request(&self, request: &current::Request) -> azure_core::Result<current::AsyncRawResponse> {
        use azure_core::error::ErrorKind;
        let body = match request.body() {
            current::Body::Bytes(bytes) => bytes.to_vec(),
            #[allow(unreachable_patterns)]
            _ => return Err(azure_core::Error::with_message(ErrorKind::Other, "bodies are sent whole")),
        };
        let outgoing = Outgoing {
            method: reqwest::Method::from_bytes(request.method().as_str().as_bytes())
                .map_err(|error| azure_core::Error::new(ErrorKind::Other, error))?,
            url: request.url().clone(),
            headers: request
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
                .collect(),
            body,
        };
        let answer = self
            .0
            .send_unnoted(outgoing)
            .await
            .map_err(|failure| azure_core::Error::with_message(ErrorKind::Io, failure.to_string()))?;
        let mut headers = current::headers::Headers::new();
        for (name, value) in answer.headers {
            headers.insert(name, value);
        }
        Ok(current::AsyncRawResponse::from_bytes(current::StatusCode::from(answer.status), headers, answer.body))
    }
}
