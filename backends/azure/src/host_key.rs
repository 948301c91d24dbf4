//! The host key of a machine: made before the machine is, and pinned in its tags.
//!
//! The private part goes to the machine alone, in what its cloud-init reads; the public part goes into a tag in the same
//! request, so that whoever sees the machine knows by which key it must be met.

use crate::options::Secret;
use boxpool::{Error, ErrorKind, Result};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};

/// The tag with the public line.
pub(crate) const HOST_KEY_TAG: &str = "boxpool-host-key";

/// A key pair.
pub(crate) struct HostKey {
    /// OpenSSH's format.
    pub(crate) private: Secret,
    /// `ssh-ed25519 AAAA…`.
    pub(crate) public: String,
}

impl HostKey {
    pub(crate) fn generate() -> Result<Self> {
        let failed = |why: String| Error::new(ErrorKind::Permanent, "make host key", "ed25519").with_detail(why);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| failed(error.to_string()))?;
        let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
        let key = PrivateKey::new(pair, "").map_err(|error| failed(error.to_string()))?;
        let private = key.to_openssh(LineEnding::LF).map_err(|error| failed(error.to_string()))?;
        let public = key.public_key().to_openssh().map_err(|error| failed(error.to_string()))?;
        Ok(Self { private: Secret::new(private.as_str()), public: public.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_its_own_and_the_parts_belong_together() {
        let (one, two) = (HostKey::generate().unwrap(), HostKey::generate().unwrap());
        assert_ne!(one.public, two.public);
        assert!(one.public.starts_with("ssh-ed25519 ") && one.public.len() < 256, "a tag holds 256 characters");
        let read = russh::keys::decode_secret_key(one.private.reveal(), None).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap().trim(), one.public);
        assert!(!format!("{:?}", one.private).contains("PRIVATE"));
    }
}
