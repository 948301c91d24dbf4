//! Credentials of `azure_identity` 1.x for clients of 0.21, with the cache that those need: they ask for a token on
//! every request, and some credentials start a process for each.

use crate::credential::CredentialChoice;
use crate::options::Secret;
use crate::sdk::http::TokenTransport;
use crate::transport::Transport;
use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::ClientOptions;
use azure_core_legacy as legacy;
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use boxpool::{Error, ErrorKind, Result};
use legacy::auth::AccessToken;
use std::collections::BTreeMap;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::sync::Mutex;

/// A token is renewed so long before it ends.
const RENEW_BEFORE: time::Duration = time::Duration::minutes(5);
/// How long a credential may take. Where there is no machine identity the library would try for minutes.
const TOKEN_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A credential with a cache. One request renews a token; the others wait for it. While a token is still good a failed
/// renewal is not an error.
pub(crate) struct Tokens {
    source: Source,
    cache: Mutex<BTreeMap<String, AccessToken>>,
}

enum Source {
    Credential(Arc<dyn TokenCredential>),
    Fixed(Secret),
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Decides the choice and makes the credential. Asks the network for nothing yet.
    pub(crate) fn open(choice: CredentialChoice, transport: &Transport) -> Result<Arc<Self>> {
        let choice = choice.decided_here();
        let source = match &choice {
            CredentialChoice::Fixed(token) => Source::Fixed(token.clone()),
            choice => Source::Credential(credential(choice, transport).map_err(|error| {
                Error::new(ErrorKind::Unauthorized, "open credential", format!("{choice:?}"))
                    .with_detail(error.to_string())
            })?),
        };
        Ok(Arc::new(Self::of(source)))
    }

    fn of(source: Source) -> Self {
        Self { source, cache: Mutex::default() }
    }
}

fn credential(choice: &CredentialChoice, transport: &Transport) -> azure_core::Result<Arc<dyn TokenCredential>> {
    // Without a transport of their own these credentials panic when they are made.
    let client_options = || ClientOptions {
        transport: Some(azure_core::http::Transport::new(Arc::new(TokenTransport(transport.clone())))),
        ..ClientOptions::default()
    };
    Ok(match choice {
        CredentialChoice::ManagedIdentity { client_id } => {
            ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                client_options: client_options(),
            }))?
        }
        CredentialChoice::Workload => WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
            credential_options: ClientAssertionCredentialOptions { client_options: client_options() },
            ..WorkloadIdentityCredentialOptions::default()
        }))?,
        CredentialChoice::Secret => {
            let variable = |name: &str| {
                std::env::var(name).map_err(|_| {
                    let kind = azure_core::error::ErrorKind::Credential;
                    azure_core::Error::with_message(kind, format!("the environment variable {name} is not set"))
                })
            };
            let secret = variable("AZURE_CLIENT_SECRET")?;
            ClientSecretCredential::new(
                &variable("AZURE_TENANT_ID")?,
                variable("AZURE_CLIENT_ID")?,
                secret.into(),
                Some(ClientSecretCredentialOptions { client_options: client_options() }),
            )?
        }
        CredentialChoice::Cli | CredentialChoice::Auto | CredentialChoice::Fixed(_) => AzureCliCredential::new(None)?,
    })
}

/// What a credential has to say, without the wrapping of the clients.
pub(crate) fn reason(error: &legacy::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect()
}

#[async_trait]
impl legacy::auth::TokenCredential for Tokens {
    async fn get_token(&self, scopes: &[&str]) -> legacy::Result<AccessToken> {
        let refuse = |why: String| legacy::Error::message(legacy::error::ErrorKind::Credential, why);
        let credential = match &self.source {
            Source::Credential(credential) => credential,
            Source::Fixed(token) => {
                let expires = OffsetDateTime::now_utc() + time::Duration::hours(1);
                return Ok(AccessToken::new(token.reveal().to_owned(), expires));
            }
        };
        let key = scopes.join(" ");
        let mut cache = self.cache.lock().await;
        let now = OffsetDateTime::now_utc();
        let held = cache.get(&key).cloned();
        if let Some(token) = held.as_ref().filter(|token| token.expires_on - now > RENEW_BEFORE) {
            return Ok(token.clone());
        }
        let why = match tokio::time::timeout(TOKEN_LIMIT, credential.get_token(scopes, None)).await {
            Ok(Ok(token)) => {
                let token = AccessToken::new(token.token.secret().to_owned(), token.expires_on);
                cache.insert(key, token.clone());
                return Ok(token);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no token within {TOKEN_LIMIT:?}"),
        };
        match held {
            Some(token) if token.expires_on > now => {
                tracing::warn!(error = %why, "a token could not be renewed; the old one is still good");
                Ok(token)
            }
            _ => Err(refuse(why)),
        }
    }

    async fn clear_cache(&self) -> legacy::Result<()> {
        self.cache.lock().await.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use legacy::auth::TokenCredential as _;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Hands out tokens that live for some seconds; none once `broken`.
    #[derive(Debug)]
    struct Counted {
        asked: AtomicU32,
        seconds: i64,
        good: u32,
    }

    #[async_trait]
    impl TokenCredential for Counted {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<azure_core::credentials::TokenRequestOptions<'_>>,
        ) -> azure_core::Result<azure_core::credentials::AccessToken> {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            if asked >= self.good {
                return Err(azure_core::Error::with_message(azure_core::error::ErrorKind::Credential, "broken"));
            }
            let expires = OffsetDateTime::now_utc() + time::Duration::seconds(self.seconds);
            Ok(azure_core::credentials::AccessToken::new(format!("token {asked}"), expires))
        }
    }

    fn counted(seconds: i64, good: u32) -> (Arc<Counted>, Tokens) {
        let credential = Arc::new(Counted { asked: AtomicU32::new(0), seconds, good });
        (credential.clone(), Tokens::of(Source::Credential(credential)))
    }

    #[tokio::test]
    async fn one_token_serves_many_requests_at_once() {
        let (credential, tokens) = counted(3_600, 1);
        let asked = (0..50).map(|_| tokens.get_token(&["a"]));
        for token in futures::future::join_all(asked).await {
            assert_eq!(token.unwrap().token.secret(), "token 0");
        }
        assert_eq!(credential.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_token_that_is_still_good_survives_a_failed_renewal() {
        let (credential, tokens) = counted(60, 1);
        for _ in 0..3 {
            assert_eq!(tokens.get_token(&["a"]).await.unwrap().token.secret(), "token 0");
        }
        assert_eq!(credential.asked.load(Ordering::SeqCst), 3, "it was tried each time");
    }

    #[tokio::test]
    async fn without_any_token_the_credential_says_why() {
        let (_, tokens) = counted(60, 0);
        let error = tokens.get_token(&["a"]).await.unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
