//! How a wake ends, and what a client is answered that could not be let through.
//!
//! The answers are fixed texts: whoever asks need not be the box's owner, so none says what else runs here or why.

use crate::exit::Refusal;

/// How a wake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The box's side has said all it had to.
    Served,
    /// The client has left.
    Left,
    /// Nothing moved for too long.
    Idle,
    /// The connection to the box broke.
    Lost,
    /// The gateway stops.
    Stopping,
    /// The box was kept up for as long as the schedule says.
    Held,
    /// There are too many connections.
    Crowded,
    /// The box could not be brought up.
    NotUp,
    /// The box did not come up in time.
    TooLong,
    /// Nothing in the box took the connection.
    NoServer,
}

impl Outcome {
    /// What a box that could not be brought up comes to.
    #[must_use]
    pub fn of(refusal: &Refusal) -> Self {
        if refusal.kind == "timed_out" { Self::TooLong } else { Self::NotUp }
    }

    /// As one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Left => "left",
            Self::Idle => "idle",
            Self::Lost => "lost",
            Self::Stopping => "stopping",
            Self::Held => "held",
            Self::Crowded => "crowded",
            Self::NotUp => "not_up",
            Self::TooLong => "too_long",
            Self::NoServer => "no_server",
        }
    }

    /// The whole answer to a client that has been told nothing yet.
    #[must_use]
    pub fn answer(self) -> Option<String> {
        let (status, retry_seconds, reason) = match self {
            Self::Served | Self::Left | Self::Idle | Self::Lost | Self::Held => return None,
            Self::Stopping => ("503 Service Unavailable", 10, "the gateway is stopping; try again later"),
            Self::Crowded => ("503 Service Unavailable", 5, "too many connections are open; try again in a moment"),
            Self::NotUp => ("503 Service Unavailable", 30, "the box cannot be woken now; try again later"),
            Self::TooLong => ("504 Gateway Timeout", 10, "the box has not come up in time; try again in a moment"),
            Self::NoServer => ("502 Bad Gateway", 5, "nothing in the box answers on this port; is its server running?"),
        };
        let length = reason.len() + 1;
        Some(format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
             Retry-After: {retry_seconds}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{reason}\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says_and_tells_when_to_come_again() {
        for outcome in [Outcome::Stopping, Outcome::Crowded, Outcome::NotUp, Outcome::TooLong, Outcome::NoServer] {
            let answer = outcome.answer().unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 50") && head.contains("\r\nRetry-After: "), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{answer}");
            assert_eq!(body.lines().count(), 1, "{body}");
        }
        assert_eq!(Outcome::Served.answer(), None);
    }
}
