//! Login names and names of boxes, and what is shown of them.

#![no_main]

#[path = "../../tests/outside_input/promises.rs"]
#[allow(dead_code)] // the other target uses the rest
mod promises;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    promises::a_name_is_a_host_s_name(text);
    promises::what_is_shown_is_plain(text);
});
