//! Where the subscription is, and how to get in.

use crate::credential::CredentialChoice;
use boxpool::{Error, ErrorKind, Result};
use reqwest::Url;
use std::fmt;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Whether requests go through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proxy {
    /// As `HTTPS_PROXY` and its like say.
    #[default]
    Environment,
    /// Straight, whatever the environment says.
    None,
}

/// How the storage account is entered.
#[derive(Debug, Clone)]
pub enum TablesAccess {
    /// With an identity that holds *Storage Table Data Contributor*.
    Identity(CredentialChoice),
    /// With an account key, in base64. For the emulator, and for accounts without roles.
    Key(Secret),
}

/// Which tables are the pool's.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TablesOptions {
    /// The storage account's name.
    pub account: String,
    /// Its table endpoint, as `https://account.table.core.windows.net`.
    pub endpoint: String,
    /// How it is entered.
    pub access: TablesAccess,
    /// What the names of all tables begin with, so that several pools may share an account: letters and digits, a letter
    /// first, at most 16.
    pub prefix: String,
    /// Whether a proxy is used.
    pub proxy: Proxy,
}

impl TablesOptions {
    /// The account in the public cloud, its tables prefixed with `boxpool`.
    #[must_use]
    pub fn new(account: impl Into<String>, access: TablesAccess) -> Self {
        let account = account.into();
        let endpoint = format!("https://{account}.table.core.windows.net");
        Self { account, endpoint, access, prefix: "boxpool".into(), proxy: Proxy::default() }
    }

    /// The emulator `azurite-table` that listens on `port` of this machine, with its well-known account.
    #[must_use]
    pub fn emulator(port: u16) -> Self {
        const ACCOUNT: &str = "devstoreaccount1";
        // Not a secret: it is printed in the emulator's manual and the same everywhere.
        const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        let mut options = Self::new(ACCOUNT, TablesAccess::Key(Secret::new(KEY)));
        options.endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
        options.proxy = Proxy::None;
        options
    }

    pub(crate) fn check(&self) -> Result<Url> {
        let refuse = |why: &str| Err(Error::new(ErrorKind::Invalid, "open store", &self.endpoint).with_detail(why));
        let url = match Url::parse(self.endpoint.trim_end_matches('/')) {
            Ok(url) if url.has_host() => url,
            _ => return refuse("the endpoint is no address; give it as https://account.table.core.windows.net"),
        };
        crate::transport::check_endpoint("open store", &url)?;
        let account = (3..=24).contains(&self.account.len())
            && self.account.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !account {
            return refuse("an account's name has 3 to 24 lower-case letters and digits");
        }
        let prefix = (1..=16).contains(&self.prefix.len())
            && self.prefix.bytes().all(|b| b.is_ascii_alphanumeric())
            && self.prefix.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if !prefix {
            return refuse("the tables' prefix has 1 to 16 letters and digits, a letter first");
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let options = TablesOptions::new("account", TablesAccess::Key(Secret::new("hunter2")));
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn each_rule_of_the_options_is_checked() {
        let good = || TablesOptions::new("account", TablesAccess::Key(Secret::new("a2V5")));
        assert!(good().check().is_ok());
        assert!(TablesOptions::emulator(1).check().is_ok());
        let bad: [fn(&mut TablesOptions); 7] = [
            |o| o.endpoint = "no address".into(),
            |o| o.endpoint = "http://account.table.core.windows.net".into(),
            |o| o.account = "A".into(),
            |o| o.account = "with-hyphen".into(),
            |o| o.prefix = String::new(),
            |o| o.prefix = "9a".into(),
            |o| o.prefix = "has_underscore".into(),
        ];
        for (n, spoil) in bad.into_iter().enumerate() {
            let mut options = good();
            spoil(&mut options);
            assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Invalid, "{n}");
        }
    }
}
