//! The address of a box's network card.

use boxpool::VolumeId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Six bytes, written as `52:54:00:12:34:56`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text is no [`Mac`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not six bytes in hexadecimal digits with colons between them")]
pub struct NoMac;

impl Mac {
    /// That of the golden snapshot, which every guest has that resumes its memory.
    pub const GOLDEN: Self = Self([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);

    /// A volume's own: the same whenever it is asked for, of one card, and from the part that no maker of cards is given.
    #[must_use]
    pub fn of(volume: &VolumeId) -> Self {
        let digest: [u8; 32] = Sha256::new().chain_update("mac ").chain_update(volume.as_str()).finalize().into();
        let [first, second, third, fourth, fifth, sixth, ..] = digest;
        Self([first & !0b11 | 0b10, second, third, fourth, fifth, sixth])
    }

    pub(crate) fn is_golden(&self) -> bool {
        *self == Self::GOLDEN
    }
}

impl Default for Mac {
    fn default() -> Self {
        Self::GOLDEN
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, fifth, sixth] = self.0;
        write!(f, "{first:02x}:{second:02x}:{third:02x}:{fourth:02x}:{fifth:02x}:{sixth:02x}")
    }
}

impl FromStr for Mac {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let byte = |part: &str| {
            let is_written_so = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(part, 16).ok().filter(|_| is_written_so)
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NoMac)
    }
}

impl TryFrom<String> for Mac {
    type Error = NoMac;

    fn try_from(text: String) -> Result<Self, NoMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_volume_has_one_of_its_own_for_good() {
        let of = |number: u32| Mac::of(&VolumeId::new(format!("v-{number:016x}")).unwrap());
        let all: std::collections::BTreeSet<String> = (0..1_000).map(|number| of(number).to_string()).collect();
        assert_eq!(all.len(), 1_000);
        for mac in (0..1_000).map(of) {
            assert_eq!(mac.0[0] & 0b11, 0b10, "locally administered, and of one card");
            assert_eq!(mac.to_string().parse(), Ok(mac));
        }
        assert_eq!(of(7).to_string(), "82:dc:e7:c8:5a:36", "it must never change: guests know their cards by it");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5:254:00:12:34:56",
            "52:54:00:12:34:+6",
            "52-54-00-12-34-56",
            "52:54:00:12:34:56,x=y",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(NoMac), "{text}");
        }
    }
}
