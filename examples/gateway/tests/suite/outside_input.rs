//! Whatever strangers type: login names, names of boxes, command lines; and what operators write into the configuration.

#[path = "../outside_input/promises.rs"]
mod promises;

use boxpool_gateway::config::Config;
use proptest::prelude::*;

/// Lines that are nearly right reach further than noise does.
fn lines() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "help", "whoami", "version", "spinup", "list", "connect", "delete", "status", "key", "add", "remove", "rename",
        "admin", "kick", "explain", "events", "drain", "aa/dev1", "dev1", "--", "--json", "--yes", "-", "'", "\"",
        "\\",
    ]);
    let word = prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>(), 1 => "[ -~]{0,12}"];
    prop_oneof![prop::collection::vec(word, 0..7).prop_map(|words| words.join(" ")), any::<String>()]
}

/// A table of the configuration whose options are nearly right.
fn tables() -> impl Strategy<Value = String> {
    let http = ["box", "listen", "port", "request_limit", "wake_limit", "port_limit", "idle_limit", "connections"];
    let schedule = ["box", "cron", "time_zone", "hold", "holds"];
    let values = [
        "\"aa/dev1\"",
        "\"dev1\"",
        "\"aa/../x\"",
        "\"127.0.0.1:80\"",
        "\"[::1]:80\"",
        "80",
        "0",
        "70000",
        "-1",
        "\"0s\"",
        "\"10s\"",
        "\"99999999999d\"",
        "true",
        "[]",
        "\"0 7 * * 1-5\"",
        "\"@daily\"",
        "\"99 * * * *\"",
        "\"UTC\"",
        "\"Mars\"",
    ];
    let value = prop_oneof![
        6 => prop::sample::select(values.to_vec()).prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| format!("{text:?}")),
        1 => "[-0-9*/,@LW# ]{0,16}".prop_map(|text| format!("{text:?}")),
    ];
    let table = prop_oneof![Just(("http", http.to_vec())), Just(("schedule", schedule.to_vec()))];
    table.prop_flat_map(move |(name, options)| {
        let line = (prop::sample::select(options), value.clone());
        prop::collection::btree_map(line.0, line.1, 0..9).prop_map(move |lines| {
            let lines: Vec<String> = lines.iter().map(|(option, value)| format!("{option} = {value}\n")).collect();
            format!("[[{name}]]\n{}", lines.concat())
        })
    })
}

proptest! {
    #[test]
    fn a_command_line_is_understood_or_refused_and_no_command_gets_a_name_that_no_box_may_have(line in lines()) {
        promises::a_command_line_is_understood_or_refused(&line);
    }

    #[test]
    fn only_one_who_says_so_deletes_or_drains(line in lines()) {
        promises::nothing_is_deleted_or_drained_by_mistake(&line);
    }

    #[test]
    fn a_name_is_a_host_s_name_and_no_path_option_or_word_of_ours(text in prop_oneof![any::<String>(), "[a-z0-9./-]{0,40}"]) {
        promises::a_name_is_a_host_s_name(&text);
    }

    #[test]
    fn what_is_shown_of_it_is_one_short_line_that_no_terminal_obeys(text in any::<String>()) {
        promises::what_is_shown_is_plain(&text);
    }

    #[test]
    fn a_configuration_is_taken_as_it_is_meant_or_refused_in_one_line(text in prop_oneof![3 => tables(), 1 => any::<String>()]) {
        match Config::parse(&text, "file.toml") {
            Ok(config) => {
                let again = toml::to_string(&config).unwrap();
                prop_assert_eq!(Config::parse(&again, "again").unwrap(), config);
            }
            Err(error) => {
                let told = error.detail();
                prop_assert!(told.contains("file.toml") && !told.chars().any(char::is_control), "{told:?}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_command(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        promises::bytes_that_are_no_text_are_no_command(&[&b"\xff"[..], &bytes].concat());
    }
}
