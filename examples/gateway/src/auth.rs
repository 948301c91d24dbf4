//! What is answered to each key that a client offers.
//!
//! A client offers its keys one after the other, in an order its user rarely thinks about. Taking the first key would
//! give a person with two keys a second, empty account; refusing the first unknown one would not say why. So an unknown
//! key is first answered with "go on" (a partial success), on which OpenSSH offers its next key and starts over after its
//! last: a known key anywhere in the row wins. A key that comes round again shows that the row holds no known key. If it
//! may make an account, it does; if none of the row may, the client is told which keys it offered and what to do. Other
//! clients do not start over, so they get the plain rule: known keys and the first one that may make an account are
//! accepted, and what to do is said by keyboard-interactive.

use crate::account::KeyId;
use std::collections::BTreeSet;

/// Most keys one connection may offer.
pub const OFFERS_MAX: usize = 40;

/// The keys one connection has offered.
#[derive(Debug, Default)]
pub struct Offers {
    seen: BTreeSet<KeyId>,
    fingerprints: Vec<String>,
    count: usize,
    hopeful: bool,
}

/// One offered key.
#[derive(Debug)]
pub struct Offered {
    /// Which.
    pub key: KeyId,
    /// Its fingerprint, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// What follows from it.
    pub worth: Worth,
}

/// What an offered key is worth here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// It logs in.
    LogsIn,
    /// It makes an account, when no other key logs in.
    Registers,
    /// Nothing.
    Nothing,
}

/// What to answer to an offered key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Let the client prove that it has the key.
    Accept,
    /// Not this one; the client offers its next key.
    Refuse,
    /// Not this one yet; the client offers its next key and comes back to this one after the last.
    GoOn,
    /// All keys were looked at, and none is worth anything: say so.
    Tell,
}

impl Offers {
    /// Decides about one offered key. `starts_over`: the client offers all its keys again after a partial success.
    pub fn answer(&mut self, offered: Offered, starts_over: bool) -> Answer {
        self.count += 1;
        if self.count > OFFERS_MAX {
            return Answer::Refuse;
        }
        let again = !self.seen.insert(offered.key);
        if !again {
            self.fingerprints.push(offered.fingerprint);
        }
        self.hopeful |= offered.worth != Worth::Nothing;
        match (offered.worth, starts_over) {
            (Worth::LogsIn, _) | (Worth::Registers, false) => Answer::Accept,
            (Worth::Registers, true) => {
                if again {
                    Answer::Accept
                } else {
                    Answer::GoOn
                }
            }
            (Worth::Nothing, false) => Answer::Refuse,
            (Worth::Nothing, true) => match (again, self.hopeful) {
                (false, _) => Answer::GoOn,
                // The one that may make an account comes round, too.
                (true, true) => Answer::Refuse,
                (true, false) => Answer::Tell,
            },
        }
    }

    /// The fingerprints of what was offered, in that order.
    #[must_use]
    pub fn fingerprints(&self) -> &[String] {
        &self.fingerprints
    }
}

/// Whether the client with this software line offers its keys again after a partial success.
#[must_use]
pub fn starts_over(software: Option<&str>) -> bool {
    software.is_some_and(|line| line.starts_with("SSH-2.0-OpenSSH_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::PublicKey;
    use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};

    fn offer(offers: &mut Offers, number: u8, worth: Worth, starts_over: bool) -> Answer {
        let key = PublicKey::from(KeyData::Ed25519(Ed25519PublicKey([number; 32])));
        offers.answer(Offered { key: KeyId::of(&key), fingerprint: number.to_string(), worth }, starts_over)
    }

    #[test]
    fn a_known_key_wins_over_unknown_keys_before_it() {
        for unknown in [Worth::Registers, Worth::Nothing] {
            let mut offers = Offers::default();
            assert_eq!(offer(&mut offers, 1, unknown, true), Answer::GoOn);
            assert_eq!(offer(&mut offers, 2, unknown, true), Answer::GoOn);
            assert_eq!(offer(&mut offers, 3, Worth::LogsIn, true), Answer::Accept);
        }
    }

    #[test]
    fn the_first_key_that_comes_round_again_makes_the_account() {
        let mut offers = Offers::default();
        assert_eq!(offer(&mut offers, 1, Worth::Nothing, true), Answer::GoOn);
        assert_eq!(offer(&mut offers, 2, Worth::Registers, true), Answer::GoOn);
        assert_eq!(offer(&mut offers, 1, Worth::Nothing, true), Answer::Refuse);
        assert_eq!(offer(&mut offers, 2, Worth::Registers, true), Answer::Accept);
    }

    #[test]
    fn who_has_no_key_that_is_worth_anything_is_told_once_all_were_looked_at() {
        let mut offers = Offers::default();
        assert_eq!(offer(&mut offers, 1, Worth::Nothing, true), Answer::GoOn);
        assert_eq!(offer(&mut offers, 2, Worth::Nothing, true), Answer::GoOn);
        assert_eq!(offer(&mut offers, 1, Worth::Nothing, true), Answer::Tell);
        assert_eq!(offers.fingerprints(), ["1", "2"]);
    }

    #[test]
    fn other_clients_register_with_their_first_key_and_are_refused_plainly() {
        assert_eq!(offer(&mut Offers::default(), 1, Worth::Registers, false), Answer::Accept);
        let mut offers = Offers::default();
        assert_eq!(offer(&mut offers, 1, Worth::Nothing, false), Answer::Refuse);
        assert_eq!(offer(&mut offers, 1, Worth::Nothing, false), Answer::Refuse);
        assert!(!starts_over(Some("SSH-2.0-paramiko_3.0")) && starts_over(Some("SSH-2.0-OpenSSH_9.2p1")));
    }

    #[test]
    fn endless_offers_are_refused() {
        let mut offers = Offers::default();
        for _ in 0..OFFERS_MAX {
            offer(&mut offers, 1, Worth::LogsIn, true);
        }
        assert_eq!(offer(&mut offers, 1, Worth::LogsIn, true), Answer::Refuse);
    }
}
