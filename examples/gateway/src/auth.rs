//! Which of the offered keys becomes the account.
//!
//! A client offers its keys one after the other, in an order its user rarely thinks about. Taking the first key would
//! give a person with two keys a second, empty account. So with open registration an unknown key is first answered
//! with "go on" (a partial success), on which OpenSSH offers its next key and starts over after its last: a known key
//! anywhere in the row wins. A key that comes round again shows that the row holds no known key, and is accepted: this
//! is the first login, and makes the account. Other clients do not start over, so they get the plain rule: known keys
//! and the first unknown key are accepted.

use boxpool::UserId;
use std::collections::BTreeSet;

/// Most keys one connection may offer.
pub const OFFERS_MAX: usize = 40;

/// The keys one connection has offered.
#[derive(Debug, Default)]
pub struct Offers {
    seen: BTreeSet<UserId>,
    count: usize,
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
}

impl Offers {
    /// Decides about one offered key. `known`: it has an account. `allowed`: it may have one.
    /// `starts_over`: the client offers all its keys again after a partial success.
    pub fn answer(&mut self, key: &UserId, known: bool, allowed: bool, starts_over: bool) -> Answer {
        self.count += 1;
        if !allowed || self.count > OFFERS_MAX {
            return Answer::Refuse;
        }
        let again = !self.seen.insert(key.clone());
        if known || again || !starts_over { Answer::Accept } else { Answer::GoOn }
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

    fn key(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn a_known_key_wins_over_unknown_keys_before_it() {
        let mut offers = Offers::default();
        assert_eq!(offers.answer(&key("a"), false, true, true), Answer::GoOn);
        assert_eq!(offers.answer(&key("b"), false, true, true), Answer::GoOn);
        assert_eq!(offers.answer(&key("c"), true, true, true), Answer::Accept);
    }

    #[test]
    fn the_first_key_that_comes_round_again_is_accepted() {
        let mut offers = Offers::default();
        assert_eq!(offers.answer(&key("a"), false, true, true), Answer::GoOn);
        assert_eq!(offers.answer(&key("b"), false, true, true), Answer::GoOn);
        assert_eq!(offers.answer(&key("a"), false, true, true), Answer::Accept);
    }

    #[test]
    fn other_clients_register_with_their_first_key() {
        assert_eq!(Offers::default().answer(&key("a"), false, true, false), Answer::Accept);
        assert!(!starts_over(Some("SSH-2.0-paramiko_3.0")) && starts_over(Some("SSH-2.0-OpenSSH_9.2p1")));
    }

    #[test]
    fn a_key_that_is_not_listed_and_endless_offers_are_refused() {
        let mut offers = Offers::default();
        assert_eq!(offers.answer(&key("a"), true, false, true), Answer::Refuse);
        for _ in 0..OFFERS_MAX {
            offers.answer(&key("a"), true, true, true);
        }
        assert_eq!(offers.answer(&key("a"), true, true, true), Answer::Refuse);
    }
}
