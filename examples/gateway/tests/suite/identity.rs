//! Who a user is: keys, registration and certificates, with the real OpenSSH programs.

use crate::harness::{Bench, Ran, feed, finish, settings};
use boxpool::{Clock, Key, StateStore, SystemClock, Table};
use boxpool_gateway::account::account_id;
use boxpool_gateway::certificate::Authorities;
use boxpool_gateway::registration::Registration;
use boxpool_gateway::server::Settings;
use russh::client::KeyboardInteractiveAuthResponse;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use serde_json::{Value, json};
use std::sync::Arc;

async fn lobby(bench: &Bench, key: &str, words: &[&str]) -> Ran {
    finish(bench.ssh_as(key, "gateway", &[&["--"], words].concat())).await
}

async fn account(bench: &Bench, key: &str) -> Value {
    lobby(bench, key, &["whoami", "--json"]).await.json()["account"].clone()
}

fn public(bench: &Bench, key: &str) -> String {
    std::fs::read_to_string(bench.path(&format!("{key}.pub"))).unwrap().trim().to_owned()
}

fn fingerprint(bench: &Bench, key: &str) -> String {
    let key = PublicKey::from_openssh(&public(bench, key)).unwrap();
    key.fingerprint(russh::keys::HashAlg::Sha256).to_string()
}

/// How many records of accounts and keys there are.
async fn records(bench: &Bench) -> usize {
    bench.store.scan(Table::new("accounts"), None, None, 1000).await.unwrap().items.len()
}

async fn by_name() -> Bench {
    Bench::with(Settings { registration: Registration::ByName, ..settings() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banner_is_shown_before_the_login() {
    let bench = Bench::with(Settings { banner: "For members.\nBe kind.".into(), ..settings() }).await;
    let ran = bench.run("gateway", &["-o", "LogLevel=INFO", "--", "whoami"]).await;
    assert_eq!((ran.code, ran.stderr.replace('\r', "").contains("For members.\nBe kind.\n")), (0, true), "{ran:?}");
    assert!(!ran.text().contains("members"), "standard output is the command's");
    let quiet = Bench::new().await.run("gateway", &["-o", "LogLevel=INFO", "--", "whoami"]).await;
    assert!(!quiet.stderr.contains("members"), "{quiet:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_has_many_keys() {
    let bench = Bench::new().await;
    for name in ["work", "phone"] {
        bench.make_key(name);
    }
    let mine = account(&bench, "id").await;
    let add = |words: &'static [&'static str]| bench.ssh_as("id", "gateway", &[&["--", "key", "add"], words].concat());

    let input = format!("# from my phone\n{}\n", public(&bench, "phone"));
    let added = feed(add(&["phone", "--json"]), input.as_bytes()).await.json();
    assert_eq!(added["label"], "phone");
    assert_eq!((&added["fingerprint"], &added["keys"]), (&fingerprint(&bench, "phone").into(), &2.into()));
    let ran = lobby(&bench, "phone", &["key", "add", &public(&bench, "work")]).await;
    assert!(ran.code == 0 && ran.text().contains("key \"work\" is added"), "{ran:?}");
    assert_eq!((account(&bench, "phone").await, account(&bench, "work").await), (mine.clone(), mine.clone()));

    let listed = lobby(&bench, "work", &["key", "list", "--json"]).await.json();
    let labels: Vec<_> = listed["keys"].as_array().unwrap().iter().map(|key| (&key["label"], &key["in_use"])).collect();
    let (no, yes) = (json!(false), json!(true));
    assert_eq!(labels, [(&json!("first"), &no), (&json!("phone"), &no), (&json!("work"), &yes)]);
    assert_eq!(
        listed["keys"][1]["public_key"],
        public(&bench, "phone").split(' ').take(2).collect::<Vec<_>>().join(" ")
    );
    let text = lobby(&bench, "work", &["key", "list"]).await.text();
    let marked: Vec<_> = text.lines().filter(|line| line.starts_with("* ") && line.contains("SHA256:")).collect();
    assert!(marked.len() == 1 && marked[0].contains("work"), "{text}");

    let renamed = lobby(&bench, "id", &["key", "rename", "phone", "old-phone", "--json"]).await.json();
    assert_eq!(renamed["label"], "old-phone");
    let removed = lobby(&bench, "id", &["key", "remove", &fingerprint(&bench, "phone"), "--json"]).await.json();
    assert_eq!((&removed["label"], &removed["status"]), (&json!("old-phone"), &json!("removed")));
    // The key is nobody's now, and may make an account of its own.
    assert_ne!(account(&bench, "phone").await, mine);

    let ran = lobby(&bench, "id", &["key", "remove", "first"]).await;
    assert!(ran.code == 2 && ran.stderr.contains("--yes"), "{ran:?}");
    let removed = lobby(&bench, "id", &["key", "remove", "first", "--yes", "--json"]).await.json();
    assert_eq!(removed["in_use"], true);
    let ran = lobby(&bench, "work", &["key", "remove", "work", "--yes", "--json"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("\"kind\":\"last_key\""), "{ran:?}");
    // The first key made the account, whose id stays; it opens it no more, and makes no other one.
    assert_eq!(account(&bench, "work").await, mine);
    let ran = lobby(&bench, "id", &["whoami"]).await;
    assert!(ran.code == 255 && ran.stderr.contains(&fingerprint(&bench, "id")), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_list_tells_when_each_key_was_last_used_and_a_login_soon_after_writes_nothing() {
    let bench = Bench::new().await;
    bench.make_key("work");
    let id = account(&bench, "id").await.as_str().unwrap().to_owned();
    assert_eq!(lobby(&bench, "id", &["key", "add", &public(&bench, "work")]).await.code, 0);
    let used = async || lobby(&bench, "id", &["key", "list", "--json"]).await.json()["keys"][1]["last_used"].as_u64();
    assert_eq!(used().await, None);
    let text = lobby(&bench, "id", &["key", "list"]).await.text();
    assert!(text.contains("last used 20") && text.contains("never used"), "{text}");

    let noted = async || {
        for _ in 0..200 {
            if let Some(at) = used().await {
                return at;
            }
        }
        panic!("the use was never noted");
    };
    let before = SystemClock.now().0;
    assert_eq!(lobby(&bench, "work", &["version"]).await.code, 0);
    let first = noted().await;
    assert!((before..=SystemClock.now().0).contains(&first));

    let at = Key::new(Table::new("accounts"), id.as_str(), "account");
    let stored = bench.store.get(&at).await.unwrap().unwrap();
    for _ in 0..3 {
        assert_eq!(lobby(&bench, "work", &["version"]).await.code, 0);
    }
    assert_eq!(used().await, Some(first));
    assert_eq!(bench.store.get(&at).await.unwrap().unwrap().version, stored.version);

    // One whose use was noted long ago is noted again.
    let old = stored.value.replace(&first.to_string(), &(first - 3_700_000).to_string());
    bench.store.update(&at, &stored.version, &old).await.unwrap();
    assert_eq!(lobby(&bench, "work", &["version"]).await.code, 0);
    for _ in 0..200 {
        if noted().await >= first {
            return;
        }
    }
    panic!("the later use was never noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_added_is_refused_with_the_reason_and_nothing_of_others() {
    let bench = Bench::new().await;
    bench.make_key("other");
    let others = account(&bench, "other").await.as_str().unwrap().to_owned();
    let before = lobby(&bench, "id", &["key", "list", "--json"]).await.json();
    let private = std::fs::read_to_string(bench.path("id")).unwrap();
    let (own, theirs) = (public(&bench, "id"), public(&bench, "other"));
    let long = "x".repeat(70_000);
    for (input, code, part) in [
        (theirs.as_str(), 1, "cannot be added"),
        (own.as_str(), 1, "yours already"),
        (private.as_str(), 2, "private key"),
        ("", 2, "no public key"),
        ("nonsense", 2, "not a public key"),
        (long.as_str(), 2, "too long"),
        ("ssh-ed25519 AAAA", 2, "not a public key"),
    ] {
        let ran = feed(bench.ssh("gateway", &["key", "add"]), input.as_bytes()).await;
        assert_eq!(ran.code, code, "{part}: {ran:?}");
        assert!(ran.stderr.contains(part) && ran.stderr.trim_end().lines().count() == 1, "{part}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.contains(&others) && !ran.stderr.contains("BEGIN"), "{ran:?}");
    }
    assert_eq!(lobby(&bench, "id", &["key", "list", "--json"]).await.json(), before);
    for number in 0..3 {
        let name = format!("more{number}");
        bench.make_key(&name);
        assert_eq!(lobby(&bench, "id", &["key", "add", &public(&bench, &name)]).await.code, 0);
    }
    bench.make_key("excess");
    let ran = lobby(&bench, "id", &["key", "add", &public(&bench, "excess")]).await;
    assert!(ran.code == 1 && ran.stderr.contains("the most"), "{ran:?}");
    let ran = lobby(&bench, "id", &["key", "remove", "nosuch"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    let ran = lobby(&bench, "id", &["key"]).await;
    assert!(ran.code == 2 && ran.stderr.contains("key rename OLD NEW"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_name_an_unknown_key_makes_no_account_and_every_offered_key_is_listed() {
    let bench = by_name().await;
    bench.make_key("second");
    let second = bench.path("second").display().to_string();
    let ran = finish(bench.ssh("gateway", &["-i", &second, "--", "whoami"])).await;
    assert_eq!(ran.code, 255, "{ran:?}");
    for part in [&fingerprint(&bench, "id"), &fingerprint(&bench, "second"), "new@127.0.0.1"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(records(&bench).await, 0);

    let ran = bench.run("new", &[]).await;
    assert!(ran.code == 0 && ran.text().contains("you have an account"), "{ran:?}");
    // The key that was offered first made it; from now on it logs in under any name, also from behind an unknown one.
    let mine = account(&bench, "id").await;
    let identity = bench.path("id").display().to_string();
    let ran = finish(bench.ssh_as("second", "gateway", &["-i", &identity, "--", "whoami", "--json"])).await;
    assert_eq!(ran.json()["account"], mine);
    let ran = finish(bench.ssh_as("second", "register", &["-i", &identity, "--", "whoami", "--json"])).await;
    assert_eq!(ran.json()["account"], mine, "no second account for who has one");
    bench.spinup("dev1").await;
    assert_eq!(bench.run("dev1", &["exit 5"]).await.code, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_from_before_there_were_many_keys_logs_in_as_before() {
    let bench = by_name().await;
    let key = PublicKey::from_openssh(&public(&bench, "id")).unwrap();
    let id = account_id(&key).unwrap();
    let line = public(&bench, "id").split(' ').take(2).collect::<Vec<_>>().join(" ");
    let record = json!({"schema": 1, "id": id, "fingerprint": fingerprint(&bench, "id"), "key": line, "created": 7});
    let at = Key::new(Table::new("accounts"), id.as_str(), "account");
    bench.store.insert(&at, &record.to_string()).await.unwrap();
    let who = lobby(&bench, "id", &["whoami", "--json"]).await.json();
    assert_eq!((&who["account"], &who["created"]), (&json!(id), &json!(7)));
    bench.make_key("work");
    assert_eq!(lobby(&bench, "id", &["key", "add", &public(&bench, "work")]).await.code, 0);
    assert_eq!(lobby(&bench, "work", &["key", "remove", "first"]).await.code, 0);
    assert_eq!(account(&bench, "work").await, json!(id));
    assert_eq!(lobby(&bench, "id", &["whoami"]).await.code, 255);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_key_was_added_to_another_s_account_is_told_and_gets_out_of_it() {
    let bench = by_name().await;
    bench.make_key("stranger");
    assert!(!bench.run("new", &[]).await.text().contains("added yours"));
    assert_eq!(lobby(&bench, "id", &["key", "add", "taken", &public(&bench, "stranger")]).await.code, 0);
    let ran = finish(bench.ssh_as("stranger", "new", &[])).await;
    assert!(ran.code == 0 && ran.text().contains("added yours"), "{ran:?}");
    assert_eq!(lobby(&bench, "stranger", &["key", "remove", "taken", "--yes"]).await.code, 0);
    assert_eq!(lobby(&bench, "stranger", &["whoami"]).await.code, 255);
    assert!(!finish(bench.ssh_as("stranger", "new", &[])).await.text().contains("added yours"));
    assert_ne!(account(&bench, "stranger").await, account(&bench, "id").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_openssh_is_told_by_keyboard_interactive_and_registers_with_its_first_key() {
    struct Client;
    impl russh::client::Handler for Client {
        type Error = russh::Error;
        async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
            Ok(true)
        }
    }
    let bench = by_name().await;
    let key = || {
        let key = PrivateKey::from_openssh(std::fs::read_to_string(bench.path("id")).unwrap()).unwrap();
        PrivateKeyWithHashAlg::new(Arc::new(key), None)
    };
    let connect = || russh::client::connect(Arc::default(), ("127.0.0.1", bench.port), Client);
    let mut session = connect().await.unwrap();
    assert!(!session.authenticate_publickey("gateway", key()).await.unwrap().success());
    let asked = session.authenticate_keyboard_interactive_start("gateway", None).await.unwrap();
    let KeyboardInteractiveAuthResponse::InfoRequest { instructions, prompts, .. } = asked else { panic!("{asked:?}") };
    assert!(prompts.is_empty() && instructions.contains(&fingerprint(&bench, "id")), "{instructions}");
    assert!(instructions.contains("new@127.0.0.1"), "{instructions}");
    let answered = session.authenticate_keyboard_interactive_respond(Vec::new()).await.unwrap();
    assert!(matches!(answered, KeyboardInteractiveAuthResponse::Failure { .. }), "{answered:?}");
    assert_eq!(records(&bench).await, 0);
    let mut session = connect().await.unwrap();
    assert!(session.authenticate_publickey("new", key()).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_key_is_told_how_to_make_one() {
    let bench = by_name().await;
    let flags = ["-o", "BatchMode=no", "-o", "IdentityFile=/nonexistent", "-o", "LogLevel=INFO", "--", "whoami"];
    let mut command = bench.ssh_as("nonexistent", "gateway", &flags);
    command.env("SSH_ASKPASS_REQUIRE", "never");
    let ran = finish(command).await;
    assert!(ran.code == 255 && ran.stderr.contains("ssh-keygen -t ed25519"), "{ran:?}");
    assert!(ran.stderr.contains("new@127.0.0.1"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_key_s_account_may_add_keys_that_are_not_listed() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    crate::harness::make_key(dir.path(), "listed");
    std::fs::copy(dir.path().join("listed.pub"), list.path()).unwrap();
    let registration = Registration::read_allow_list(list.path()).unwrap();
    let bench = Bench::with(Settings { registration, ..settings() }).await;
    for name in ["listed", "listed.pub"] {
        std::fs::copy(dir.path().join(name), bench.path(name)).unwrap();
    }
    bench.make_key("unlisted");
    assert_eq!(lobby(&bench, "unlisted", &["whoami"]).await.code, 255);
    assert_eq!(lobby(&bench, "listed", &["key", "add", &public(&bench, "unlisted")]).await.code, 0);
    assert_eq!(account(&bench, "unlisted").await, account(&bench, "listed").await);
}

/// An authority, and certificates that it signs.
struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        crate::harness::make_key(dir.path(), "ca");
        Self { dir }
    }

    fn trusted(&self) -> Authorities {
        Authorities::read(&self.dir.path().join("ca.pub")).unwrap()
    }

    /// Signs a new key of the bench.
    fn sign(&self, bench: &Bench, key: &str, flags: &[&str]) {
        bench.make_key(key);
        crate::harness::sign_key(&self.dir.path().join("ca"), &bench.path(key), flags);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_a_trusted_authority_log_in_and_their_principal_is_the_account() {
    let authority = Authority::new();
    let registration = Registration::ByName;
    let bench = Bench::with(Settings { authorities: authority.trusted(), registration, ..settings() }).await;
    authority.sign(&bench, "alice1", &["-n", "alice", "-V", "+1h"]);
    authority.sign(&bench, "alice2", &["-n", "alice", "-V", "always:forever", "-O", "source-address=127.0.0.0/8"]);
    authority.sign(&bench, "bob", &["-n", "bob", "-V", "+1h"]);
    let who = lobby(&bench, "alice1", &["whoami", "--json"]).await.json();
    assert_eq!(who["certificate"]["principal"], "alice");
    assert_eq!(account(&bench, "alice2").await, who["account"]);
    assert_ne!(account(&bench, "bob").await, who["account"]);
    // The key of a certificate is no way in by itself, and a certificate's account has no keys.
    std::fs::remove_file(bench.path("bob-cert.pub")).unwrap();
    assert_eq!(lobby(&bench, "bob", &["whoami"]).await.code, 255);
    assert_eq!(lobby(&bench, "alice1", &["key", "list", "--json"]).await.json()["keys"], json!([]));
    let ran = lobby(&bench, "alice1", &["key", "add", &public(&bench, "id")]).await;
    assert!(ran.code == 1 && ran.stderr.contains("certificate"), "{ran:?}");
    // Keys log in beside them as ever.
    let ran = lobby(&bench, "id", &["whoami"]).await;
    assert!(ran.code == 255 && ran.stderr.contains(&fingerprint(&bench, "id")), "{ran:?}");
    assert_eq!(bench.run("new", &["whoami"]).await.code, 0);
    assert_eq!(lobby(&bench, "id", &["whoami"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_cannot_be_kept_to_are_refused_with_the_reason() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let registration = Registration::ByName;
    let bench = Bench::with(Settings { authorities: authority.trusted(), registration, ..settings() }).await;
    let valid = ["-n", "alice", "-V", "+1h"];
    for (key, flags, part) in [
        ("elsewhere", &["-O", "source-address=192.0.2.0/24"][..], "not valid from your address"),
        ("forced", &["-O", "force-command=true"], "force-command"),
        ("restricted", &["-O", "no-port-forwarding"], "lacks permit-port-forwarding"),
        ("several", &["-n", "alice,root"], "exactly one principal"),
    ] {
        authority.sign(&bench, key, &[&valid[..], flags].concat());
        let ran = lobby(&bench, key, &["whoami"]).await;
        assert!(ran.code == 255 && ran.stderr.contains(part), "{key}: {ran:?}");
    }
    stranger.sign(&bench, "foreign", &valid);
    let ran = lobby(&bench, "foreign", &["whoami"]).await;
    assert!(ran.code == 255 && ran.stderr.contains("not trusted here"), "{ran:?}");
    // An expired one is refused before its contents are looked at; its key is then listed like any other.
    authority.sign(&bench, "old", &["-n", "alice", "-V", "-2h:-1h"]);
    let ran = lobby(&bench, "old", &["whoami"]).await;
    assert!(ran.code == 255 && ran.stderr.contains("expired"), "{ran:?}");
    assert_eq!(records(&bench).await, 0);
}
