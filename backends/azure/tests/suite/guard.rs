//! Rules of this crate that the compiler does not know.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn all() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 15, "the sources are found");
    found
}

/// Text without comments.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The builders' names, by what makes one, up to their end: `None` when one is not sent.
fn unsent(text: &str) -> Vec<String> {
    const BEGINS: [&str; 3] = ["virtual_machines_client()", "disks_client()", "snapshots_client()"];
    let code = code(text);
    let mut wrong = Vec::new();
    // A function of the client module makes one builder: it is sent in that function, and never awaited by itself.
    for function in code.split("fn ").filter(|function| BEGINS.iter().any(|begin| function.contains(begin))) {
        if function.matches(".send()").count() != 1 {
            wrong.push(function.lines().next().unwrap_or_default().to_owned());
        }
        for variable in ["put", "patch", "start", "deallocate", "delete", "attach", "detach", "update"] {
            for awaited in
                [format!(" {variable}.await"), format!("({variable}).await"), format!(" {variable}.into_future()")]
            {
                if function.contains(&awaited) {
                    wrong.push(awaited);
                }
            }
        }
    }
    wrong
}

#[test]
fn no_long_running_builder_is_awaited() {
    let mut builders = 0;
    for (path, text) in all() {
        if path.ends_with("sdk/compute.rs") {
            builders = text.matches("_client()").count();
        } else {
            assert!(!code(&text).contains("_client()"), "{} makes a builder", path.display());
        }
        assert_eq!(unsent(&text), Vec::<String>::new(), "{}", path.display());
    }
    assert!(builders >= 10, "the builders are found");
}

#[test]
fn the_guard_sees_an_awaited_builder() {
    let awaited = "async fn put_disk() { let put = self.client.disks_client().create_or_update(a, b); put.await }";
    assert!(!unsent(awaited).is_empty());
    let chained = "async fn put_disk() { self.client.disks_client().create_or_update(a, b).await }";
    assert!(!unsent(chained).is_empty());
    let sent = "async fn put_disk() { let put = self.client.disks_client().create_or_update(a, b); self.begin(put.send()).await }";
    assert!(unsent(sent).is_empty());
}

#[test]
fn the_sdk_is_named_in_one_module_only() {
    for (path, text) in all() {
        let inside = path.components().any(|part| part.as_os_str() == "sdk");
        let named = ["azure_core", "azure_mgmt", "azure_data", "azure_storage", "azure_identity"];
        let found: Vec<_> = named.iter().filter(|name| code(&text).contains(*name)).collect();
        assert!(inside || found.is_empty(), "{} names {found:?}", path.display());
    }
}

#[test]
fn the_sdk_never_retries() {
    let (_, text) = all().into_iter().find(|(path, _)| path.ends_with("sdk/http.rs")).unwrap();
    assert!(text.contains("RetryOptions::none()"));
    for (path, text) in all() {
        assert!(
            !text.contains("RetryOptions::exponential") && !text.contains("RetryOptions::fixed"),
            "{}",
            path.display()
        );
    }
}
