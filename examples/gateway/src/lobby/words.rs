//! Splits a command line into words, the way people expect from a shell, without any shell.
//!
//! Quotes and backslashes group and escape; nothing is ever expanded or run.

/// Longest command line.
const LINE_MAX: usize = 8 * 1024;

/// A word, and where it began in the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// The word without its quotes.
    pub(super) text: String,
    /// Byte position just after the word in the line.
    pub(super) end: usize,
}

/// The words of `line`.
///
/// # Errors
/// A quote that is not closed, a backslash at the end, or a line that is too long.
pub(super) fn split(line: &str) -> Result<Vec<Word>, &'static str> {
    if line.len() > LINE_MAX {
        return Err("the command line is too long");
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => {
                if let Some(text) = word.take() {
                    words.push(Word { text, end: at });
                }
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some((_, '\'')) => break,
                        Some((_, c)) => word.push(c),
                        None => return Err("a quote is not closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some((_, '"')) => break,
                        Some((_, '\\')) => match chars.next() {
                            Some((_, c @ ('"' | '\\' | '$' | '`'))) => word.push(c),
                            Some((_, c)) => word.extend(['\\', c]),
                            None => return Err("a quote is not closed"),
                        },
                        Some((_, c)) => word.push(c),
                        None => return Err("a quote is not closed"),
                    }
                }
            }
            '\\' => match chars.next() {
                Some((_, c)) => word.get_or_insert_default().push(c),
                None => return Err("a backslash ends the line"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    if let Some(text) = word {
        words.push(Word { text, end: line.len() });
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn quotes_group_and_nothing_is_expanded() {
        assert_eq!(texts("  spinup   dev1 --json "), ["spinup", "dev1", "--json"]);
        assert_eq!(texts(r#"a 'b c' "d \" e" f\ g '' $(id);`x`"#), ["a", "b c", "d \" e", "f g", "", "$(id);`x`"]);
        assert!(texts(" \t ").is_empty());
    }

    #[test]
    fn broken_lines_are_refused() {
        for line in ["'a", "\"a", "a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
        assert!(split(&"x".repeat(LINE_MAX + 1)).is_err());
    }
}
