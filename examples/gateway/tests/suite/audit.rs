//! What the audit log tells, with the real OpenSSH client.

use crate::harness::{Bench, feed, finish, settings, until};
use boxpool_gateway::account::account_id;
use boxpool_gateway::audit::AuditLog;
use boxpool_gateway::certificate::Authorities;
use boxpool_gateway::operator::Operator;
use boxpool_gateway::registration::Registration;
use boxpool_gateway::server::Settings;
use serde_json::Value;
use std::path::PathBuf;
use tokio::io::AsyncReadExt;

struct Audited {
    bench: Bench,
    audit: AuditLog,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Audited {
    async fn new(settings: Settings, commands: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = AuditLog::open(&path, commands).unwrap();
        let bench = Bench::operated(settings, Operator::new(audit.clone())).await;
        Self { bench, audit, path, _dir: dir }
    }

    fn so_far(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Stops the gateway as SIGTERM does; then everything is there.
    async fn lines(mut self) -> Vec<Value> {
        self.bench.stop().await;
        self.audit.close().await;
        self.so_far()
    }
}

fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_a_channel_and_a_connection_are_told_with_who_where_how_much_and_how_it_ended() {
    let audited = Audited::new(settings(), false).await;
    audited.bench.spinup("dev1").await;
    let ran = feed(audited.bench.ssh("dev1", &["cat; echo secret >&2; exit 7"]), b"four").await;
    assert_eq!(ran.code, 7, "{ran:?}");
    until("both have left", || of(&audited.so_far(), "connection").len() == 2).await;
    let public = std::fs::read_to_string(audited.bench.path("id.pub")).unwrap();
    let key = russh::keys::PublicKey::from_openssh(&public).unwrap();
    let (account, fingerprint) = (account_id(&key).unwrap(), key.fingerprint(russh::keys::HashAlg::Sha256));
    let lines = audited.lines().await;

    for line in &lines {
        assert_eq!((&line["account"], &line["key"]), (&account.as_str().into(), &fingerprint.to_string().into()));
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["client"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH_"), "{line}");
        assert!(line["at"].as_str().unwrap().ends_with('Z') && line["took_ms"].is_u64(), "{line}");
    }
    let (logins, ends) = (of(&lines, "login"), of(&lines, "connection"));
    assert_eq!((logins.len(), ends.len()), (2, 2), "{lines:?}");
    assert_eq!((&logins[1]["outcome"], &logins[1]["login"]), (&"accepted".into(), &"dev1".into()));
    assert_eq!((&ends[1]["ended"], &ends[1]["channels"]), (&"left".into(), &1.into()));
    assert!(ends[1]["bytes_in"].as_u64().unwrap() > 1000 && ends[1]["bytes_out"].as_u64().unwrap() > 1000);

    let channels = of(&lines, "channel");
    assert_eq!(channels.len(), 2, "{lines:?}");
    let (made, ran) = (channels[0], channels[1]);
    assert_eq!((&made["kind"], &made["what"], &made["box"]), (&"gateway".into(), &"spinup".into(), &"dev1".into()));
    assert_eq!((&ran["kind"], &ran["box"], &ran["exit_status"]), (&"command".into(), &"dev1".into(), &7.into()));
    // A shell may say something of its own at its start.
    assert!(ran["bytes_in"] == 4 && ran["bytes_out"].as_u64().unwrap() >= 11, "{ran}");
    assert!(ran["reached_ms"].as_u64().unwrap() <= ran["took_ms"].as_u64().unwrap(), "{ran}");
    assert!(ran.get("what").is_none(), "what runs in a box is nobody's business: {ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_option_command_lines_and_targets_are_told_on_one_line_without_control_characters() {
    let audited = Audited::new(settings(), true).await;
    audited.bench.spinup("dev1").await;
    assert_eq!(audited.bench.run("dev1", &["printf 'a\u{1b}[2J\nb'"]).await.code, 0);
    let port = crate::harness::free_port();
    let target = format!("127.0.0.1:{port}");
    assert_ne!(audited.bench.run("dev1", &["-W", &target, "--"]).await.code, 0, "nothing listens there");
    let lines = audited.lines().await;
    let kinds =
        |kind: &str| lines.iter().find(|line| line["kind"] == kind).unwrap()["what"].as_str().unwrap().to_owned();
    assert_eq!(kinds("command"), "printf 'a\\u{1b}[2J\\nb'");
    assert_eq!(kinds("forward"), target);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_log_in_is_told_with_the_key_that_was_offered_and_a_scanner_as_silent() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let registration = Registration::read_allow_list(list.path()).unwrap();
    let audited = Audited::new(Settings { registration, ..settings() }, false).await;
    assert_eq!(audited.bench.run("anybody", &["whoami"]).await.code, 255);
    drop(tokio::net::TcpStream::connect(("127.0.0.1", audited.bench.port)).await.unwrap());
    until("both are told", || audited.so_far().len() == 2).await;
    let lines = audited.lines().await;
    assert!(lines.iter().all(|line| line["event"] == "login" && line["outcome"] == "refused"), "{lines:?}");
    let reason = |word: &str| lines.iter().find(|line| line["reason"] == word).unwrap_or_else(|| panic!("{lines:?}"));
    let offered = reason("not_allowed")["offered"].as_array().unwrap().clone();
    assert!(offered.len() == 1 && offered[0].as_str().unwrap().starts_with("SHA256:"), "{offered:?}");
    assert!(reason("not_allowed").get("account").is_none() && reason("silent").get("offered").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_make_no_account_here_are_told_as_not_allowed_each_of_them() {
    let audited = Audited::new(Settings { registration: Registration::ByName, ..settings() }, false).await;
    audited.bench.make_key("second");
    let second = audited.bench.path("second").display().to_string();
    assert_eq!(finish(audited.bench.ssh("gateway", &["-i", &second, "--", "whoami"])).await.code, 255);
    until("it is told", || audited.so_far().len() == 1).await;
    let lines = audited.lines().await;
    assert_eq!((&lines[0]["outcome"], &lines[0]["reason"]), (&"refused".into(), &"not_allowed".into()), "{lines:?}");
    assert_eq!(lines[0]["offered"].as_array().unwrap().len(), 2, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_of_an_account_is_told_as_itself_and_no_key_that_was_typed_is_told() {
    let audited = Audited::new(settings(), true).await;
    let bench = &audited.bench;
    bench.make_key("work");
    let public = |name: &str| std::fs::read_to_string(bench.path(&format!("{name}.pub"))).unwrap();
    let fingerprint = |name: &str| {
        let key = russh::keys::PublicKey::from_openssh(&public(name)).unwrap();
        (key.fingerprint(russh::keys::HashAlg::Sha256).to_string(), account_id(&key).unwrap().to_string())
    };
    let ((first, account), (work, _)) = (fingerprint("id"), fingerprint("work"));
    assert_eq!(bench.run("gateway", &["key", "add", "desk", public("work").trim()]).await.code, 0);
    let ran = feed(bench.ssh("gateway", &["key", "add"]), public("work").as_bytes()).await;
    assert!(ran.code == 1 && ran.stderr.contains("yours already"), "{ran:?}");
    for line in [&["key", "rename", "desk", "table"][..], &["key", "list"], &["key", "remove", "first"]] {
        assert_eq!(finish(bench.ssh_as("work", "gateway", line)).await.code, 0, "{line:?}");
    }
    let lines = audited.lines().await;
    let whats: Vec<_> = of(&lines, "channel").iter().map(|line| (line["what"].clone(), line["key"].clone())).collect();
    let told = |what: &str, key: &str| (Value::from(what), Value::from(key));
    let expected = [("key add", &first), ("key add", &first), ("key rename", &work), ("key list", &work)];
    let expected = expected.into_iter().chain([("key remove", &work)]).map(|(what, key)| told(what, key));
    assert_eq!(whats, expected.collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line["account"] == account.as_str()), "{lines:?}");
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains("ssh-ed25519") && !text.contains("AAAA") && !text.contains("desk"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_valid_here_is_told_as_not_allowed_and_one_that_is_with_its_key() {
    let ca = tempfile::tempdir().unwrap();
    crate::harness::make_key(ca.path(), "ca");
    let authorities = Authorities::read(&ca.path().join("ca.pub")).unwrap();
    let audited = Audited::new(Settings { authorities, registration: Registration::ByName, ..settings() }, false).await;
    let bench = &audited.bench;
    for (key, principals) in [("good", "alice"), ("bad", "alice,root")] {
        bench.make_key(key);
        crate::harness::sign_key(&ca.path().join("ca"), &bench.path(key), &["-n", principals, "-V", "+1h"]);
    }
    assert_eq!(finish(bench.ssh_as("bad", "gateway", &["whoami"])).await.code, 255);
    until("it is told", || audited.so_far().len() == 1).await;
    let who = finish(bench.ssh_as("good", "gateway", &["whoami", "--json"])).await.json();
    let lines = audited.lines().await;
    assert_eq!((&lines[0]["reason"], lines[0].get("account")), (&"not_allowed".into(), None), "{lines:?}");
    let login = of(&lines, "login")[1];
    assert_eq!((&login["account"], &login["key"]), (&who["account"], &who["key"]), "{login}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_loses_no_line_of_what_it_ends() {
    let audited = Audited::new(settings(), false).await;
    audited.bench.spinup("dev1").await;
    let mut session = audited.bench.ssh("dev1", &["echo there; sleep 60"]).spawn().unwrap();
    session.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    let lines = audited.lines().await;
    let ended = of(&lines, "connection").into_iter().find(|line| line["login"] == "dev1").unwrap();
    assert_eq!(ended["ended"], "stopping");
    let channel = of(&lines, "channel").into_iter().find(|line| line["kind"] == "command").unwrap();
    assert!(channel["bytes_out"].as_u64().unwrap() >= 6 && channel.get("exit_status").is_none(), "{channel}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_moved_away_goes_on_in_a_new_file() {
    let audited = Audited::new(settings(), false).await;
    assert_eq!(audited.bench.run("gateway", &["whoami"]).await.code, 0);
    until("it is told", || audited.so_far().iter().any(|line| line["event"] == "connection")).await;
    let old = audited.path.with_extension("1");
    std::fs::rename(&audited.path, &old).unwrap();
    assert_eq!(audited.bench.run("gateway", &["version"]).await.code, 0);
    assert!(std::fs::read_to_string(old).unwrap().contains("whoami"));
    let lines = audited.lines().await;
    assert_eq!(of(&lines, "channel")[0]["what"], "version");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_many_connections_is_told_and_others_are_not_affected() {
    let audited = Audited::new(Settings { connections_per_user: 1, ..settings() }, false).await;
    audited.bench.make_key("other");
    audited.bench.spinup("dev1").await;
    let mut first = audited.bench.ssh("dev1", &["echo there; sleep 60"]).spawn().unwrap();
    first.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).await.unwrap();
    let second = audited.bench.run("gateway", &["whoami"]).await;
    assert_eq!((second.code, second.stderr.contains("as many connections as")), (255, true), "{second:?}");
    assert_eq!(finish(audited.bench.ssh_as("other", "gateway", &["whoami"])).await.code, 0);
    first.kill().await.unwrap();
    until("its place comes back", || audited.bench.gateway.operator.sessions.count() == 0).await;
    assert_eq!(audited.bench.run("gateway", &["whoami"]).await.code, 0);
    let lines = audited.lines().await;
    assert!(of(&lines, "connection").iter().any(|line| line["ended"] == "too_many"), "{lines:?}");
}
