//! Credentials that depend on the environment, each in a process of its own with the environment it needs.
//!
//! A worker is this test program again, told by an environment variable to do a worker's job in the body of the same test.

use crate::stand_in::StandIn;
use boxpool::{ErrorKind, InstanceId, InstanceProvider};
use boxpool_azure::{AzureCloud, CredentialChoice};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PORT: &str = "BOXPOOL_TEST_PORT";
const CHOICE: &str = "BOXPOOL_TEST_CHOICE";
const SETTINGS: [&str; 8] = [
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "MSI_SECRET",
];

/// Asks twenty times for what is not there, at once and in turn: with a token each time.
async fn work(port: u16, choice: &str) {
    let mut options = StandIn::at(port).options();
    options.credential = choice.parse().unwrap();
    let cloud = AzureCloud::open(options).unwrap();
    let id = InstanceId::new("absent").unwrap();
    for answer in futures::future::join_all((0..10).map(|_| cloud.get(&id))).await {
        assert!(answer.unwrap().is_none());
    }
    for _ in 0..10 {
        assert!(cloud.get(&id).await.unwrap().is_none());
    }
}

fn job() -> Option<(u16, String)> {
    Some((std::env::var(PORT).ok()?.parse().unwrap(), std::env::var(CHOICE).ok()?))
}

fn worker(test: &str, service: &StandIn, choice: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("credentials::{test}"), "--nocapture"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for setting in SETTINGS {
        command.env_remove(setting);
    }
    command.env(PORT, service.port.to_string()).env(CHOICE, choice);
    command
}

/// Answers every request with a token; counts them, and keeps the last.
fn identity_endpoint() -> (u16, Arc<AtomicUsize>, Arc<std::sync::Mutex<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(String::new())));
    let (counting, keeping) = (asked.clone(), last.clone());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = vec![0; 8192];
            let read = client.read(&mut request).unwrap_or(0);
            *keeping.lock().unwrap() = String::from_utf8_lossy(&request[..read]).into_owned();
            counting.fetch_add(1, Ordering::SeqCst);
            let body = r#"{"access_token":"token","expires_on":"4102444800","resource":"r","token_type":"Bearer"}"#;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = client.write_all(format!("{head}{body}").as_bytes());
        }
    });
    (port, asked, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_is_asked_once_for_many_requests() {
    if let Some((port, choice)) = job() {
        return work(port, &choice).await;
    }
    for (choice, client) in [("auto", None), ("managed_identity:12-ab", Some("12-ab"))] {
        let service = StandIn::start();
        let (port, asked, last) = identity_endpoint();
        let mut worker = worker("a_managed_identity_is_asked_once_for_many_requests", &service, choice);
        worker.env("IDENTITY_ENDPOINT", format!("http://127.0.0.1:{port}/token")).env("IDENTITY_HEADER", "header");
        assert!(worker.status().unwrap().success(), "{choice}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{choice}");
        assert_eq!(service.count("GET", "virtualMachines/pool-absent"), 20);
        let last = last.lock().unwrap().clone();
        assert!(last.contains("management.azure.com"), "the scope is the cloud's, not the endpoint's: {last}");
        assert!(client.is_none_or(|client| last.contains(&format!("client_id={client}"))), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_tool_is_run_once_for_many_requests() {
    if let Some((port, choice)) = job() {
        return work(port, &choice).await;
    }
    let service = StandIn::start();
    let dir = tempfile::tempdir().unwrap();
    let (tool, runs) = (dir.path().join("az"), dir.path().join("runs"));
    let token = r#"{"accessToken":"token","expiresOn":"2099-01-01 00:00:00.000000","expires_on":4070908800,"subscription":"s","tenant":"t","tokenType":"Bearer"}"#;
    std::fs::write(&tool, format!("#!/bin/sh\necho run >> {}\necho '{token}'\n", runs.display())).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut worker = worker("the_command_line_tool_is_run_once_for_many_requests", &service, "cli");
    worker.env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()));
    assert!(worker.status().unwrap().success());
    assert_eq!(std::fs::read_to_string(&runs).unwrap().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_lacks_its_settings_is_refused_when_it_is_made() {
    if let Some((port, choice)) = job() {
        let mut options = StandIn::at(port).options();
        options.credential = choice.parse::<CredentialChoice>().unwrap();
        let refused = AzureCloud::open(options).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthorized);
        assert!(refused.detail().contains("AZURE_") || refused.detail().contains("specified"), "{refused}");
        return;
    }
    let service = StandIn::start();
    for choice in ["workload", "secret"] {
        let mut worker = worker("a_credential_that_lacks_its_settings_is_refused_when_it_is_made", &service, choice);
        assert!(worker.status().unwrap().success(), "{choice}");
    }
    assert!(service.state().requests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_fails_is_told_as_such_and_nothing_is_sent() {
    if let Some((port, choice)) = job() {
        let mut options = StandIn::at(port).options();
        options.credential = choice.parse::<CredentialChoice>().unwrap();
        let cloud = AzureCloud::open(options).unwrap();
        let failed = cloud.get(&InstanceId::new("absent").unwrap()).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unauthorized, "{failed}");
        assert!(failed.detail().contains("role assignments"), "{failed}");
        return;
    }
    let service = StandIn::start();
    let dir = tempfile::tempdir().unwrap();
    let mut worker = worker("a_credential_that_fails_is_told_as_such_and_nothing_is_sent", &service, "cli");
    // There is no `az` here.
    worker.env("PATH", dir.path());
    assert!(worker.status().unwrap().success());
    assert!(service.state().requests.is_empty());
}
