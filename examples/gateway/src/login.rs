//! What a login name means.
//!
//! `ssh NAME@gateway` reaches the box NAME when the account has one, and `ssh USER+NAME@gateway` its login USER. Every other name is the *lobby*, where the
//! gateway's own commands run, so that `ssh gateway list` works although ssh sends the local user's name. Words that
//! mean something here cannot be names of boxes.

use crate::exit::Refusal;
use boxpool::BoxName;

/// Login names that always are the lobby, and names no box may have: commands (also planned ones), words for the
/// gateway itself, and login names that machines have by default (else a box of that name would swallow the lobby of
/// everyone who is `root` at home).
const RESERVED: &[&str] = &[
    "account",
    "admin",
    "administrator",
    "all",
    "boxpool",
    "connect",
    "create",
    "debian",
    "delete",
    "duplicate",
    "events",
    "explain",
    "gateway",
    "help",
    "keepalive",
    "key",
    "kick",
    "list",
    "lobby",
    "localhost",
    "new",
    "nobody",
    "plan",
    "pools",
    "quarantine",
    "register",
    "rename",
    "resize",
    "restore",
    "root",
    "sessions",
    "share",
    "show",
    "snapshot",
    "spinup",
    "start",
    "status",
    "stop",
    "suspend",
    "system",
    "ubuntu",
    "undelete",
    "usage",
    "user",
    "version",
    "whoami",
];

/// The login inside a box that a login name asks for, if it does, and what else it names: a box or the lobby.
#[must_use]
pub fn split(login: &str) -> (Option<&str>, &str) {
    match login.split_once('+') {
        Some((inside, name)) if is_user_name(inside) => (Some(inside), name),
        _ => (None, login),
    }
}

/// As useradd(8) lets users be called, capital letters included.
fn is_user_name(text: &str) -> bool {
    let mut letters = text.bytes();
    let begins = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    begins && text.len() <= 32 && letters.all(|letter| letter.is_ascii_alphanumeric() || b"_-.".contains(&letter))
}

/// Whether `name` is reserved.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Whether `login` asks for an account, where only who asks for one gets one.
#[must_use]
pub fn is_registration(login: &str) -> bool {
    matches!(login, "new" | "register")
}

/// A name for a box: well-formed, and not reserved.
///
/// # Errors
/// A usage refusal that says what is wrong.
pub fn box_name(text: &str) -> Result<BoxName, Refusal> {
    let name = BoxName::new(text).map_err(|error| Refusal::usage(error.to_string()))?;
    if is_reserved(text) {
        return Err(Refusal::usage(format!("\"{text}\" is a reserved word; choose another name for the box")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_and_bad_names_are_refused_with_the_reason() {
        assert!(box_name("dev1").is_ok());
        for word in ["list", "root", "gateway", "key", "new", "register"] {
            assert!(box_name(word).unwrap_err().message.contains("reserved"));
        }
        let long = "x".repeat(300);
        for bad in ["../etc", "a b", "a\u{1b}[1m", "", long.as_str()] {
            let refusal = box_name(bad).unwrap_err();
            assert_eq!(refusal.code, crate::exit::ExitCode::Usage);
            assert!(!refusal.message.contains('\u{1b}'));
        }
    }

    #[test]
    fn what_stands_before_a_plus_is_the_login_inside_the_box() {
        assert_eq!(split("dev1"), (None, "dev1"));
        assert_eq!(split("ubuntu+dev1"), (Some("ubuntu"), "dev1"));
        assert_eq!(split("Ada.L_2-x+dev1"), (Some("Ada.L_2-x"), "dev1"));
        assert_eq!(split("root+gateway"), (Some("root"), "gateway"));
        for none in ["+dev1", "2+dev1", "a b+dev1", "-x+dev1", "\u{1b}+dev1", &format!("{}+dev1", "x".repeat(33))] {
            assert_eq!(split(none), (None, none), "{none:?}");
            assert!(box_name(split(none).1).is_err(), "{none:?}");
        }
        assert!(box_name(split("a+b+dev1").1).is_err());
    }

    #[test]
    fn the_list_is_sorted_and_every_word_would_be_a_legal_name() {
        assert!(RESERVED.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(RESERVED.iter().all(|word| BoxName::new(*word).is_ok()));
    }
}
