//! Command lines, as they come over SSH: bytes.

#![no_main]

#[path = "../../tests/outside_input/promises.rs"]
#[allow(dead_code)] // the other target uses the rest
mod promises;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    promises::bytes_that_are_no_text_are_no_command(bytes);
    if let Ok(line) = std::str::from_utf8(bytes) {
        promises::a_command_line_is_understood_or_refused(line);
        promises::nothing_is_deleted_or_drained_by_mistake(line);
    }
});
