//! OpenSSH user certificates: whom a certificate of a trusted authority lets in.
//!
//! A certificate must name exactly one principal, and that principal of that authority is the account: another
//! certificate of the same authority for the same principal opens the same account, whatever its key. The login name
//! keeps its meaning and need not be a principal. `source-address` is honoured. A certificate that restricts what this
//! gateway cannot restrict (`force-command`, `verify-required`, no terminal, no forwarding) is refused, rather than
//! taken for more than it says. Expired ones are refused by the SSH library before they get here, too.

use crate::account::Certified;
use crate::plain::plain;
use crate::registration::read_keys;
use boxpool::{Result, Timestamp};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg};
use std::net::IpAddr;
use std::path::Path;

/// What `ssh-keygen -s` permits unless it is told not to. Its `permit-user-rc` means nothing here.
const NEEDED: [&str; 4] = ["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];

/// The authorities whose user certificates are trusted.
#[derive(Debug, Clone, Default)]
pub struct Authorities(Vec<russh::keys::ssh_key::Fingerprint>);

impl Authorities {
    /// Reads the public keys of authorities, one a line as in OpenSSH's `TrustedUserCAKeys`.
    ///
    /// # Errors
    /// When the file cannot be read or a line is not a public key; the message names the line.
    pub fn read(path: &Path) -> Result<Self> {
        let keys = read_keys("trusted_user_ca_keys", path)?;
        Ok(Self(keys.iter().map(|key| key.fingerprint(HashAlg::Sha256)).collect()))
    }

    /// Whether no certificate is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose account `certificate` opens for a client from `address`. That the client has its key is shown already.
    ///
    /// # Errors
    /// A sentence for the client: why it opens none.
    pub fn check(
        &self,
        certificate: &Certificate,
        address: IpAddr,
        now: Timestamp,
    ) -> std::result::Result<Certified, String> {
        let id = plain(certificate.key_id()).into_owned();
        let refuse = |why: String| Err(format!("the certificate \"{id}\" {why}"));
        let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
        if !self.0.contains(&authority) {
            return refuse("is of an authority that is not trusted here".into());
        }
        if certificate.signature().algorithm() == (Algorithm::Rsa { hash: None }) {
            return refuse("is signed with SHA-1, which proves nothing".into());
        }
        if certificate.cert_type() != CertType::User {
            return refuse("is for a host, not for a user".into());
        }
        if certificate.validate_at(now.0 / 1000, [&authority]).is_err() {
            return refuse("has expired, or is not valid yet".into());
        }
        for (option, value) in certificate.critical_options().iter() {
            match option.as_str() {
                "source-address" if is_listed(address, value) => {}
                "source-address" => return refuse("is not valid from your address".into()),
                other => return refuse(format!("has the option {}, which cannot be kept here", plain(other))),
            }
        }
        if let Some(missing) = NEEDED.iter().find(|name| !certificate.extensions().contains_key(**name)) {
            return refuse(format!("lacks {missing}, and nothing less can be given here"));
        }
        match certificate.valid_principals() {
            [principal] if !principal.is_empty() => {
                Ok(Certified { authority: authority.to_string(), principal: principal.clone() })
            }
            _ => refuse("must name exactly one principal, which is whose account it opens".into()),
        }
    }
}

/// Whether `address` is in a list such as `192.0.2.1,198.51.100.0/24,2001:db8::/32`. What cannot be read lists nothing.
fn is_listed(address: IpAddr, list: &str) -> bool {
    let address = address.to_canonical();
    list.split(',').any(|entry| {
        let (network, length) = match entry.trim().split_once('/') {
            Some((network, length)) => (network, length.parse::<u32>().ok()),
            None => (entry.trim(), Some(u32::MAX)),
        };
        match (network.parse(), address, length) {
            (Ok(IpAddr::V4(network)), IpAddr::V4(address), Some(length)) => {
                begin_alike(network.to_bits().into(), address.to_bits().into(), 32, length)
            }
            (Ok(IpAddr::V6(network)), IpAddr::V6(address), Some(length)) => {
                begin_alike(network.to_bits(), address.to_bits(), 128, length)
            }
            _ => false,
        }
    })
}

/// Whether two addresses of `width` bits have the first `length` bits in common.
fn begin_alike(a: u128, b: u128, width: u32, length: u32) -> bool {
    let rest = match length {
        u32::MAX => 0,
        length if length <= width => width - length,
        _ => return false,
    };
    (a ^ b).checked_shr(rest).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_are_networks_and_what_cannot_be_read_lists_nobody() {
        let here: IpAddr = [192, 0, 2, 17].into();
        for list in ["192.0.2.17", "10.0.0.0/8,192.0.2.0/24", "0.0.0.0/0", "192.0.2.16/31", "192.0.2.17/32"] {
            assert!(is_listed(here, list), "{list}");
        }
        for list in ["", "192.0.2.18", "192.0.2.18/31", "192.0.2.0/33", "192.0.2.0/x", "::/0", "example.org", "192.0.2"]
        {
            assert!(!is_listed(here, list), "{list}");
        }
        let there: IpAddr = "2001:db8::1".parse().unwrap();
        assert!(is_listed(there, "2001:db8::/32") && is_listed(there, "::/0") && !is_listed(there, "2001:db9::/32"));
        // An IPv4 client of a socket that listens on both.
        assert!(is_listed("::ffff:192.0.2.17".parse().unwrap(), "192.0.2.0/24"));
    }
}
