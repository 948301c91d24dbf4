//! What goes wrong between a caller and the service.

use crate::engine::Hash;

/// How often something goes wrong, each from 0 to 1. Which requests are struck follows from the seed, the request and how often it
/// was made: not from when.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ArmFaults {
    /// The connection breaks before the request is looked at.
    pub lost_request: f64,
    /// The request takes effect and the connection breaks.
    pub lost_answer: f64,
    /// The request takes effect and the answer is a 500.
    pub error_after_effect: f64,
    /// The answer is a 503 and nothing happened.
    pub unavailable: f64,
    /// An operation is forgotten: polling it gives a 404.
    pub forgotten_operation: f64,
    /// An operation never ends.
    pub stuck: f64,
    /// Ids come back in other capitals.
    pub other_case: f64,
}

/// A fault for the n-th request of a kind, for tests that tell a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmStrike {
    /// `GET`, `PUT`, …
    pub method: String,
    /// How the path ends, capitals aside; with the action for a POST.
    pub path_ends: String,
    /// The first is 1.
    pub nth: u32,
    /// What becomes of it.
    pub fate: ArmFate,
}

/// What becomes of a request, or of the operation that it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArmFate {
    /// The connection breaks before the request is looked at.
    LoseRequest,
    /// The request takes effect and the connection breaks.
    LoseAnswer,
    /// The request takes effect and the answer is a 500.
    ErrorAfterEffect,
    /// The answer has that status and code, and nothing happened. With 429, the number is Retry-After in seconds.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// The code in the body.
        code: String,
        /// Retry-After, in seconds, if any.
        retry_after: Option<u32>,
    },
    /// The operation that begins ends with that code.
    Fail {
        /// The code in the operation's body.
        code: String,
    },
    /// The operation that begins never ends by itself.
    Stick,
    /// The operation that begins cannot be found by its id.
    Forget,
}

impl ArmFaults {
    /// The fate of the `nth` request of that kind.
    pub(super) fn fate(&self, seed: u64, what: &str, nth: u32) -> Option<ArmFate> {
        let struck = |salt: u64, rate: f64| {
            rate > 0.0 && Hash::new(seed).text(what).number(u64::from(nth)).number(salt).draw().chance(rate)
        };
        let refuse = ArmFate::Refuse { status: 503, code: "ServerTimeout".into(), retry_after: None };
        [
            (1, self.lost_request, ArmFate::LoseRequest),
            (2, self.lost_answer, ArmFate::LoseAnswer),
            (3, self.error_after_effect, ArmFate::ErrorAfterEffect),
            (4, self.unavailable, refuse),
            (5, self.forgotten_operation, ArmFate::Forget),
            (6, self.stuck, ArmFate::Stick),
        ]
        .into_iter()
        .find_map(|(salt, rate, fate)| struck(salt, rate).then_some(fate))
    }

    pub(super) fn shouts(&self, seed: u64, what: &str, nth: u32) -> bool {
        let draw = Hash::new(seed).text(what).number(u64::from(nth)).number(7);
        self.other_case > 0.0 && draw.draw().chance(self.other_case)
    }
}
