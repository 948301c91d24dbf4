//! What holds for whatever strangers type. Two things ask for it: proptest (`outside_input.rs`) and libFuzzer (`fuzz/`).

use boxpool_gateway::lobby::{Command, Parsed, admin, is_command, parse};
use boxpool_gateway::login::{box_name, is_registration, is_reserved};
use boxpool_gateway::plain::plain;

/// A line without what only groups its words.
fn bare(line: &str) -> String {
    line.replace(['\'', '"', '\\'], "")
}

/// A command line is understood or refused, and no command gets a name that no box may have.
pub(crate) fn a_command_line_is_understood_or_refused(line: &str) {
    match parse(line) {
        Ok(Parsed { command, .. }) => {
            assert!(command.target().is_none_or(|name| box_name(name.as_str()).is_ok()), "{command:?}");
            let inside = matches!(&command, Command::Connect { command: Some(_), .. });
            assert!(!inside || bare(line).contains("--"), "a command in the box was made up: {command:?}");
        }
        Err((refusal, _)) => {
            assert!(!refusal.message.is_empty() && !refusal.message.chars().any(char::is_control), "{refusal:?}");
        }
    }
    let _ = (admin::parse(line), is_command(line.as_bytes()));
}

/// Only one who says so deletes or drains.
pub(crate) fn nothing_is_deleted_or_drained_by_mistake(line: &str) {
    let (drain, _) = admin::parse(line);
    let deletes = matches!(
        parse(line),
        Ok(Parsed { command: Command::Delete { yes: true, .. } | Command::Move { yes: true, .. }, .. })
    );
    let drains = matches!(drain, Ok(admin::Parsed { command: admin::Command::Drain { yes: true }, .. }));
    assert!(!(deletes || drains) || bare(line).contains("--yes"), "{line:?}");
}

/// A name is a host's name, and no path, option or word of ours.
pub(crate) fn a_name_is_a_host_s_name(text: &str) {
    let Ok(name) = box_name(text) else { return };
    assert_eq!(name.as_str(), text);
    assert!((1..=32).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_lowercase()));
    assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
    assert!(!is_reserved(text) && !is_registration(text));
}

/// What is shown of it is one short line that no terminal obeys.
pub(crate) fn what_is_shown_is_plain(text: &str) {
    let shown = plain(text);
    assert!(shown.len() < 500 && !shown.chars().any(char::is_control), "{shown:?}");
}

/// Bytes that are no text are no command.
pub(crate) fn bytes_that_are_no_text_are_no_command(bytes: &[u8]) {
    assert!(std::str::from_utf8(bytes).is_ok() || !is_command(bytes));
}
