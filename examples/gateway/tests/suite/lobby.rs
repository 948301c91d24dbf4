//! The lobby's promises, with the real OpenSSH client.

use crate::harness::{Bench, finish, settings};
use boxpool_gateway::account::account_id;
use boxpool_gateway::registration::Registration;

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_key_registers_and_every_command_answers_in_json_too() {
    let bench = Bench::new().await;
    let who = bench.run("anybody", &["whoami", "--json"]).await.json();
    let key = russh::keys::PublicKey::from_openssh(&std::fs::read_to_string(bench.path("id.pub")).unwrap()).unwrap();
    assert_eq!(who["account"], account_id(&key).unwrap().as_str());
    assert!(who["key"].as_str().unwrap().starts_with("SHA256:"), "{who}");

    assert_eq!(
        bench.run("gateway", &["list", "--json"]).await.json(),
        serde_json::json!({"boxes": [], "deleted": [], "shared": []})
    );
    let made = bench.run("gateway", &["spinup", "dev1", "--json"]).await.json();
    assert_eq!(made["name"], "dev1");
    assert!(made["connect"].as_str().unwrap().ends_with("dev1@127.0.0.1"), "{made}");
    let listed = bench.run("gateway", &["list", "--json"]).await.json();
    assert_eq!((&listed["boxes"][0]["name"], &listed["boxes"][0]["state"]), (&"dev1".into(), &"detached".into()));
    assert_eq!(bench.run("gateway", &["version", "--json"]).await.json()["name"], "boxpool-gateway");
    assert_eq!(bench.run("gateway", &["status", "--json"]).await.json()["instances_free"], 3);
    assert!(bench.run("gateway", &["help", "--json"]).await.json()["commands"].as_array().unwrap().len() >= 8);
    let deleted = bench.run("gateway", &["delete", "dev1", "--yes", "--json"]).await.json();
    assert_eq!(deleted["status"], "deleted");
    assert!(bench.boxes.names().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_one_sentence_on_stderr_with_their_exit_code_and_change_nothing() {
    let bench = Bench::new().await;
    bench.spinup("dev1").await;
    let long = "x".repeat(300);
    for (args, code, part) in [
        (vec!["spinup", "dev1"], 1, "already"),
        (vec!["spinup", "../etc"], 2, "not valid"),
        (vec!["spinup", "'a b'"], 2, "not valid"),
        (vec!["spinup", long.as_str()], 2, "not valid"),
        (vec!["spinup", "a\u{1b}[2Jb"], 2, "not valid"),
        (vec!["spinup", "root"], 2, "reserved"),
        (vec!["frobnicate"], 2, "not a command"),
        (vec!["list", "--force"], 2, "--force"),
        (vec!["delete", "dev1"], 2, "--yes"),
        (vec!["delete", "other", "--yes"], 3, "no box named"),
        (vec!["connect", "other"], 3, "no box named"),
        (vec!["$(touch", "/tmp/boxpool-pwned)"], 2, "not a command"),
    ] {
        let ran = bench.run("gateway", &[&["--"], args.as_slice()].concat()).await;
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(part) && ran.stderr.trim_end().lines().count() == 1, "{args:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.contains('\u{1b}'), "{args:?}: {ran:?}");
    }
    let ran = bench.run("gateway", &["--", "delete", "other", "--yes", "--json"]).await;
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((ran.code, error["error"]["kind"].as_str().unwrap()), (3, "not_found"));
    assert_eq!(bench.boxes.names(), ["dev1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_a_box_is_told_so_and_a_reserved_one_gets_help() {
    let bench = Bench::new().await;
    let ran = bench.run("nosuch", &[]).await;
    assert_eq!((ran.code, ran.stderr.contains("no box named \"nosuch\"")), (3, true), "{ran:?}");
    let ran = bench.run("nosuch", &["uname"]).await;
    assert_eq!((ran.code, ran.stderr.contains("no box named \"nosuch\"")), (3, true), "{ran:?}");
    for login in ["gateway", "help", "root"] {
        let ran = bench.run(login, &[]).await;
        assert_eq!((ran.code, ran.text().contains("spinup NAME")), (0, true), "{ran:?}");
    }
    let ran = bench.run("../../etc", &[]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    let ran = bench.run("nosuch", &["-s", "--", "sftp"]).await;
    assert_ne!(ran.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_do_not_see_each_other() {
    let bench = Bench::new().await;
    bench.make_key("other");
    bench.spinup("dev1").await;
    let ran = finish(bench.ssh_as("other", "gateway", &["list", "--json"])).await;
    assert_eq!(ran.json(), serde_json::json!({"boxes": [], "deleted": [], "shared": []}));
    let ran = finish(bench.ssh_as("other", "dev1", &["true"])).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    let ran = finish(bench.ssh_as("other", "gateway", &["--", "delete", "dev1", "--yes"])).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!(bench.boxes.names(), ["dev1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_key_wins_over_unknown_ones_offered_before_it() {
    let bench = Bench::new().await;
    let known = bench.run("gateway", &["whoami", "--json"]).await.json()["account"].clone();
    for name in ["a", "b"] {
        bench.make_key(name);
    }
    let (b, id) = (bench.path("b").display().to_string(), bench.path("id").display().to_string());
    let ran = finish(bench.ssh_as("a", "gateway", &["-i", &b, "-i", &id, "--", "whoami", "--json"])).await;
    assert_eq!(ran.json()["account"], known);
    // Without the known key the first one offered makes the account, and stays.
    let first = finish(bench.ssh_as("a", "gateway", &["-i", &b, "--", "whoami", "--json"])).await.json();
    let again =
        finish(bench.ssh_as("b", "gateway", &["-i", &bench.path("a").display().to_string(), "--", "whoami", "--json"]))
            .await;
    assert_eq!(again.json()["account"], first["account"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_allow_list_only_listed_keys_log_in() {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "# nobody yet\n").unwrap();
    let registration = Registration::read_allow_list(list.path()).unwrap();
    let bench = Bench::with(boxpool_gateway::server::Settings { registration, ..settings() }).await;
    let ran = bench.run("gateway", &["whoami"]).await;
    assert_eq!((ran.code, ran.stderr.contains("Ask the operator")), (255, true), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_boxes_of_one_user_is_limited() {
    let bench = Bench::with(boxpool_gateway::server::Settings { boxes_per_user: 1, ..settings() }).await;
    bench.spinup("dev1").await;
    let ran = bench.run("gateway", &["spinup", "dev2"]).await;
    assert_eq!((ran.code, ran.stderr.contains("the most")), (1, true), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_usual_kind_of_key_logs_in() {
    let bench = Bench::new().await;
    let mut accounts = std::collections::BTreeSet::new();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let path = bench.path(kind);
        let made =
            std::process::Command::new("ssh-keygen").args(["-q", "-N", "", "-t", kind, "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        let ran = finish(bench.ssh_as(kind, "gateway", &["whoami", "--json"])).await;
        accounts.insert(ran.json()["account"].as_str().unwrap().to_owned());
    }
    assert_eq!(accounts.len(), 3);
    // A signature with SHA-1 is refused.
    let flags = ["-o", "PubkeyAcceptedAlgorithms=ssh-rsa", "--", "whoami"];
    assert_eq!(finish(bench.ssh_as("rsa", "gateway", &flags)).await.code, 255);
}
