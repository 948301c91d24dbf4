//! Sizes of disks as people write them: `20G`, `1T`, in powers of 1024.

use std::fmt;

/// Bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const UNITS: [(char, u32); 2] = [('T', 40), ('G', 30)];

impl Size {
    /// Whole gibibytes or tebibytes; a disk has no other sizes here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, shift) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
        let number = text.strip_suffix(unit)?;
        let digits = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        let number: u64 = digits.then(|| number.parse().ok()).flatten()?;
        number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, shift)| self.0 > 0 && self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_it_is_shown_and_nothing_else_is() {
        for (text, bytes) in [("1G", 1 << 30), ("20G", 20 << 30), ("1T", 1 << 40)] {
            assert_eq!(Size::parse(text), Some(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        for text in ["", "G", "20", "0G", "+1G", "-1G", "1.5G", "20g", "20GB", "99999999999G", "16777216T", "1\u{e9}"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        assert_eq!(Size(1).to_string(), "1 bytes");
    }
}
