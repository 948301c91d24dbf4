//! Keys of the store as keys of Azure Tables.
//!
//! A `PartitionKey` or `RowKey` must not hold `/ \ # ?` nor control characters, `%` and `+` make trouble later, and the
//! client crate does not double quotes. So only `A-Z a-z 0-9 _ -` are ever sent. The encoding keeps the order of bytes,
//! because a scan promises it and the service sorts by the encoded text; and it leaves letters and digits as they are
//! (but for `9`, `y` and `z`), so that a row can still be found by eye in a portal.
//!
//! Each byte becomes one or two characters, so the longest key of the store has 800 of the 1,024 that fit.

use std::sync::LazyLock;

/// The characters in use, in ascending order.
const ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

/// The code of each byte. Codes are prefix-free and ascend with the byte.
static CODES: LazyLock<Vec<Option<String>>> = LazyLock::new(codes);

fn codes() -> Vec<Option<String>> {
    let mut codes: Vec<Option<String>> = vec![None; 256];
    // Each run of bytes gets two-character codes that begin with `lead`, which sorts where the run belongs.
    let mut run = |lead: u8, bytes: &mut dyn Iterator<Item = u8>, after: usize| {
        for (&second, byte) in ALPHABET[after..].iter().zip(bytes) {
            codes[usize::from(byte)] = Some(format!("{}{}", char::from(lead), char::from(second)));
        }
    };
    run(b'-', &mut (b' '..b'0'), 0);
    run(b'9', &mut (b'9'..b'A'), 0);
    run(b'_', &mut (b'['..b'a'), 0);
    // Of the high bytes only those that UTF-8 uses; `y` and `z` lead their codes.
    let high: Vec<u8> = (b'y'..=0xf4).filter(|byte| *byte != 0x7f && *byte != 0xc0 && *byte != 0xc1).collect();
    let (first, second) = high.split_at(ALPHABET.len());
    run(b'y', &mut first.iter().copied(), 0);
    run(b'z', &mut second.iter().copied(), 0);
    for byte in (b'0'..=b'8').chain(b'A'..=b'Z').chain(b'a'..=b'x') {
        codes[usize::from(byte)] = Some(char::from(byte).to_string());
    }
    codes
}

/// The text as a key; `None` when it holds a control character, which no stored key does.
pub(crate) fn encode(text: &str) -> Option<String> {
    text.bytes().map(|byte| CODES[usize::from(byte)].as_deref()).collect()
}

/// The text of a key; `None` when no text has it.
pub(crate) fn decode(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some(&lead) = rest.first() {
        let length = if matches!(lead, b'-' | b'9' | b'_' | b'y' | b'z') { 2 } else { 1 };
        let code = rest.get(..length)?;
        let byte = CODES.iter().position(|known| known.as_ref().is_some_and(|known| known.as_bytes() == code))?;
        bytes.push(u8::try_from(byte).ok()?);
        rest = &rest[length..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxpool::MAX_KEY_PART_BYTES;
    use proptest::prelude::*;

    #[test]
    fn usual_ids_stay_readable() {
        assert_eq!(encode("i00017-ab3").as_deref(), Some("i00017-Cab3"));
        assert_eq!(encode("devbox").as_deref(), Some("devbox"));
    }

    #[test]
    fn control_characters_have_no_code() {
        for bad in ["\0", "a\nb", "\u{7f}"] {
            assert_eq!(encode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_was_never_encoded_is_not_decoded() {
        for bad in ["-", "a-", "zz", "ä", "a b", "9z", "y"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_fits(text in "\\PC{0,100}") {
            let key = encode(&text).unwrap();
            prop_assert!(key.bytes().all(|byte| ALPHABET.contains(&byte)), "{}", key);
            prop_assert!(key.len() <= 2 * text.len());
            prop_assert!(2 * MAX_KEY_PART_BYTES <= 1_024);
            prop_assert_eq!(decode(&key), Some(text));
        }

        #[test]
        fn order_is_kept(one in "\\PC{0,8}", other in "\\PC{0,8}") {
            prop_assert_eq!(encode(&one).unwrap().cmp(&encode(&other).unwrap()), one.cmp(&other));
        }

        #[test]
        fn order_of_ascii_is_kept(one in "[ -~]{0,3}", other in "[ -~]{0,3}") {
            prop_assert_eq!(encode(&one).unwrap().cmp(&encode(&other).unwrap()), one.cmp(&other));
        }
    }
}
