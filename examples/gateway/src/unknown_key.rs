//! What a client is told that has no key which logs in: the fingerprints of what it offered, and what to do.
//!
//! Said before anybody has logged in, so it holds nothing but what the client itself sent and how the gateway is
//! configured. A key that was removed from an account reads like one that nobody ever knew.

use crate::plain::plain;
use crate::registration::Registration;
use crate::server::Settings;

/// OpenSSH shows so much of the reason for a disconnect, in bytes.
pub const DISCONNECT_MAX: usize = 400;

/// The text, of at most `limit` bytes where fingerprints can be left out for that. `refused`: why certificates were.
#[must_use]
pub fn text(settings: &Settings, fingerprints: &[String], refused: &[String], limit: usize) -> String {
    let head = if fingerprints.is_empty() { "no key was offered" } else { "none of your keys logs in here:" };
    let mut tail = String::new();
    for reason in refused.iter().take(2) {
        tail.push('\n');
        tail.push_str(&plain(reason));
    }
    if refused.is_empty() && !settings.authorities.is_empty() {
        tail.push_str("\nA certificate that has expired, or is not valid yet, does not log in.");
    }
    if fingerprints.is_empty() {
        tail.push_str("\nMake a key: ssh-keygen -t ed25519");
    }
    tail.push('\n');
    tail.push_str(&match &settings.registration {
        Registration::Open => "Offer a key of yours that was not removed from an account (ssh -i FILE)".to_owned(),
        Registration::ByName => {
            format!("New here? {}\nElse offer the key of your account (ssh -i FILE)", settings.ssh_line("new"))
        }
        Registration::AllowList(_) => {
            "Ask the operator to list your key, or offer one that is listed (ssh -i FILE)".to_owned()
        }
    });
    let mut text = head.to_owned();
    let room = limit.saturating_sub(head.len() + tail.len());
    let (mut used, mut shown) = (0, 0);
    for (index, fingerprint) in fingerprints.iter().enumerate() {
        let line = format!("\n  {fingerprint}");
        // Room for the line that says how many are left out.
        let spare = if index + 1 == fingerprints.len() { 0 } else { "\n  and 99 more".len() };
        if used + line.len() + spare > room {
            break;
        }
        (used, shown) = (used + line.len(), shown + 1);
        text.push_str(&line);
    }
    if shown < fingerprints.len() {
        text.push_str(&format!("\n  and {} more", fingerprints.len() - shown));
    }
    text + &tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings(registration: Registration) -> Settings {
        let config = Config { public_host: Some("boxes.example.org".into()), ..Config::default() };
        Settings { registration, ..config.settings().unwrap() }
    }

    #[test]
    fn every_offered_key_is_listed_as_far_as_there_is_room_and_what_to_do_comes_last() {
        let settings = settings(Registration::ByName);
        let keys: Vec<String> = (0..9).map(|number| format!("SHA256:{}{number}", "x".repeat(42))).collect();
        let all = text(&settings, &keys, &[], usize::MAX);
        assert!(keys.iter().all(|key| all.contains(key)) && !all.contains("more"), "{all}");
        let short = text(&settings, &keys, &[], DISCONNECT_MAX);
        assert!(short.len() <= DISCONNECT_MAX, "{} {short}", short.len());
        assert!(short.contains(&keys[2]) && short.contains("more"), "{short}");
        assert!(short.contains("ssh -p 2222 new@boxes.example.org"), "{short}");
        let two = text(&settings, &keys[..2], &[], DISCONNECT_MAX);
        assert!(two.contains(&keys[1]) && !two.contains("more"), "{two}");
    }

    #[test]
    fn who_has_no_key_is_told_how_to_make_one_and_why_a_certificate_did_not_do() {
        let said = text(&settings(Registration::Open), &[], &["the certificate \"\u{1b}x\" is old".into()], usize::MAX);
        assert!(said.contains("ssh-keygen") && said.contains("is old") && !said.contains('\u{1b}'), "{said}");
    }
}
