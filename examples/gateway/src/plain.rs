//! Text from outside, made safe to show: no control character of a stranger reaches a log or a terminal.

use std::borrow::Cow;

/// Longest outside text that is shown; more is cut.
const SHOWN_MAX: usize = 400;

/// `text` on one line, with control characters escaped and a bounded length.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() && !is_direction_mark(c);
    if text.len() <= SHOWN_MAX && text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().min(SHOWN_MAX) + 8);
    for c in text.chars() {
        if shown.len() >= SHOWN_MAX {
            shown.push('…');
            break;
        }
        if harmless(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
    }
    Cow::Owned(shown)
}

/// Marks that turn the direction of what follows: they can make a name read as another.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_escaped_and_on_one_line() {
        assert_eq!(plain("dev1"), "dev1");
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
        assert!(plain(&"x".repeat(5000)).len() < 500);
    }
}
