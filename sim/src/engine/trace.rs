//! What happened, in order, and a rolling hash of it: two runs with the same fingerprint went the same way.

use super::key::Hash;
use serde::Serialize;

/// What kind of thing an entry tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A gateway asked something of a store, a provider or a runtime.
    Call,
    /// What was asked happened.
    Effect,
    /// The gateway was told.
    Answer,
    /// Something went wrong, on purpose.
    Fault,
    /// A gateway came or went, or something happened to the world.
    Event,
    /// A user did something, or was told something.
    User,
    /// Something was true that must never be.
    Violation,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When, in milliseconds since the world began.
    pub at: u64,
    /// Which gateway did it or was struck by it; `None` for the world itself.
    pub gateway: Option<usize>,
    /// What kind of thing.
    pub kind: Kind,
    /// What it is about: a record, an instance, a volume, a box.
    pub resource: String,
    /// What happened, in a few words.
    pub what: String,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, ms) = (self.at / 1_000, self.at % 1_000);
        write!(f, "{seconds:>6}.{ms:03}  ")?;
        match self.gateway {
            Some(gateway) => write!(f, "g{gateway:<3}")?,
            None => f.write_str("    ")?,
        }
        let mark = match self.kind {
            Kind::Call => "→",
            Kind::Effect => "*",
            Kind::Answer => "←",
            Kind::Fault => "!",
            Kind::Event => "#",
            Kind::User => "@",
            Kind::Violation => "✗",
        };
        write!(f, "{mark} {} {}", self.what, self.resource)
    }
}

/// The trace of one world.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: Hash,
    length: u64,
    entries: Option<Vec<Entry>>,
}

impl Trace {
    /// Keeps only the fingerprint, unless `keep`.
    pub(crate) fn new(keep: bool) -> Self {
        Self { hash: Hash::new(0), length: 0, entries: keep.then(Vec::new) }
    }

    pub(crate) fn note(&mut self, at: u64, gateway: Option<usize>, kind: Kind, what: &str, resource: &str) {
        self.length += 1;
        let gateway_number = gateway.map_or(0, |gateway| gateway as u64 + 1);
        self.hash = self.hash.number(at << 12 | gateway_number << 4 | kind as u64).text(what).text(resource);
        if let Some(entries) = &mut self.entries {
            entries.push(Entry { at, gateway, kind, resource: resource.to_owned(), what: what.to_owned() });
        }
    }

    /// For readers only: not part of the fingerprint, and not put together unless somebody reads.
    pub(crate) fn remark(&mut self, at: u64, gateway: Option<usize>, what: impl FnOnce() -> String) {
        if let Some(entries) = &mut self.entries {
            entries.push(Entry { at, gateway, kind: Kind::Event, resource: String::new(), what: what() });
        }
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.hash.value()
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }
}
