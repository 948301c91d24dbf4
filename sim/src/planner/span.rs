//! Lengths of time, as people write them.

use std::time::Duration;

/// A number with s, m, h or d behind it: `90s`, `1.5h`.
///
/// # Errors
/// What was expected.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a length of time such as 90s, 10m, 1.5h or 2d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3_600.0,
        'd' => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = number * seconds;
    // A year, which also keeps out what is no number.
    if (0.0..=31_622_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}
