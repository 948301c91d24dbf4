//! The simulated Azure Resource Manager, rule by rule, and Microsoft's own SDK against it.
#![cfg(feature = "arm")]

use boxpool_sim::arm::{ArmBuilder, ArmFate, ArmFaults, ArmServer, ArmStrike, Kind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const COMPUTE: &str = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Compute";
const VM: &str = "api-version=2024-07-01";
const DISK: &str = "api-version=2024-03-02";

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

/// One request on a connection of its own; `None` when that broke without an answer.
async fn ask(server: &ArmServer, method: &str, path: &str, headers: &str, body: &str) -> Option<Answer> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    ask_on(stream, server, method, path, headers, body).await
}

async fn ask_on(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    server: &ArmServer,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Option<Answer> {
    let host = server.address();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.ok()?;
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Answer { status, headers, body: serde_json::from_str(body).unwrap_or_default() })
}

async fn call(server: &ArmServer, method: &str, path: &str, body: Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    ask(server, method, path, "Authorization: Bearer x\r\n", &body).await.unwrap()
}

/// Polls an operation to its end.
async fn finish(server: &ArmServer, begun: &Answer) -> Value {
    let url = &begun.headers["azure-asyncoperation"];
    let path = url.strip_prefix(&server.url()).unwrap();
    for _ in 0..2_000 {
        let poll = call(server, "GET", path, Value::Null).await;
        assert_eq!(poll.status, 200, "the address of an operation answers 200 as long as it is known");
        if poll.body["status"] != "InProgress" {
            return poll.body;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the operation did not end");
}

async fn done(server: &ArmServer, method: &str, path: &str, body: Value) -> Answer {
    let begun = call(server, method, path, body).await;
    assert!((200..300).contains(&begun.status), "{method} {path}: {} {}", begun.status, begun.body);
    assert_eq!(finish(server, &begun).await["status"], "Succeeded");
    begun
}

fn vm(name: &str) -> String {
    format!("{COMPUTE}/virtualMachines/{name}?{VM}")
}

fn disk(name: &str) -> String {
    format!("{COMPUTE}/disks/{name}?{DISK}")
}

fn disk_id(name: &str) -> String {
    format!("{COMPUTE}/disks/{name}")
}

fn action(name: &str, action: &str) -> String {
    format!("{COMPUTE}/virtualMachines/{name}/{action}?{VM}")
}

fn machine() -> Value {
    json!({ "location": "westeurope", "timeCreated": null, "properties": {
        "hardwareProfile": { "vmSize": "Standard_D2s_v5" },
        "storageProfile": { "osDisk": { "createOption": "FromImage", "deleteOption": "Delete" } },
        "networkProfile": { "networkInterfaceConfigurations": [{ "name": "nic", "properties": { "deleteOption": "Delete",
            "ipConfigurations": [{ "name": "ip", "properties": {} }] } }] } } })
}

fn empty_disk() -> Value {
    json!({ "location": "westeurope", "properties": { "creationData": { "createOption": "Empty" }, "diskSizeGB": 4 } })
}

fn attach(disk: &str, lun: u32) -> Value {
    json!({ "dataDisksToAttach": [{ "diskId": disk_id(disk), "lun": lun }] })
}

fn detach(disk: &str, forced: bool) -> Value {
    let option = if forced { json!("ForceDetach") } else { Value::Null };
    json!({ "dataDisksToDetach": [{ "diskId": disk_id(disk), "detachOption": option }] })
}

async fn with_disk(builder: ArmBuilder) -> ArmServer {
    let server = builder.start().await.unwrap();
    done(&server, "PUT", &vm("v"), machine()).await;
    done(&server, "PUT", &disk("d"), empty_disk()).await;
    server
}

fn strike(method: &str, path_ends: &str, fate: ArmFate) -> Vec<ArmStrike> {
    vec![ArmStrike { method: method.into(), path_ends: path_ends.into(), nth: 1, fate }]
}

#[tokio::test(start_paused = true)]
async fn where_the_clock_is_paused_operations_take_their_minutes_at_once() {
    let server = ArmServer::builder().time_scale(1.0).start().await.unwrap();
    let call = async |method: &str, path: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        ask_on(server.connect(), &server, method, path, "Authorization: Bearer x\r\n", &body).await.unwrap()
    };
    let (really, begun) = (std::time::Instant::now(), tokio::time::Instant::now());
    // A poll each second of the service's time; how long it took in that.
    let took = async |method: &str, path: &str, body: Value| {
        let since = tokio::time::Instant::now();
        let answer = call(method, path, &body).await;
        let operation = answer.headers["azure-asyncoperation"].strip_prefix(&server.url()).unwrap().to_owned();
        while call("GET", &operation, &Value::Null).await.body["status"] == "InProgress" {
            assert!(since.elapsed() < Duration::from_secs(600), "{method} {path} does not end");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        since.elapsed().as_secs()
    };

    assert_eq!(took("PUT", &vm("v"), machine()).await, 43);
    assert_eq!(took("PUT", &disk("d"), empty_disk()).await, 2);
    assert_eq!(took("POST", &action("v", "attachDetachDataDisks"), attach("d", 0)).await, 9);
    assert_eq!(took("POST", &action("v", "deallocate"), Value::Null).await, 30);
    assert_eq!(took("POST", &action("v", "start"), Value::Null).await, 76);
    let machine = server.resource(Kind::Vm, "v").unwrap();
    assert_eq!(machine["properties"]["provisioningState"], "Succeeded");
    assert_eq!(begun.elapsed().as_secs(), 160);
    assert!(really.elapsed() < Duration::from_secs(30), "{:?}", really.elapsed());
}

#[tokio::test]
async fn a_new_machine_is_answered_201_with_an_operation_and_no_location() {
    let server = ArmServer::builder().start().await.unwrap();
    let begun = call(&server, "PUT", &vm("v"), machine()).await;
    assert_eq!((begun.status, begun.headers["etag"].as_str()), (201, "\"1\""));
    assert_eq!(begun.body["properties"]["provisioningState"], "Creating");
    assert!(begun.headers.contains_key("retry-after") && !begun.headers.contains_key("location"));
    assert_eq!(finish(&server, &begun).await["status"], "Succeeded");
    let made = call(&server, "GET", &vm("v"), Value::Null).await.body;
    assert_eq!(made["etag"], "\"2\"");
    let os = made["properties"]["storageProfile"]["osDisk"]["managedDisk"]["id"].as_str().unwrap();
    let os = call(&server, "GET", &format!("{os}?{DISK}"), Value::Null).await.body;
    assert_eq!(os["managedBy"], made["id"]);
    let nic = made["properties"]["networkProfile"]["networkInterfaces"][0]["id"].as_str().unwrap();
    let nic = call(&server, "GET", &format!("{nic}?api-version=2024-03-01"), Value::Null).await.body;
    assert!(nic["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"].is_string());
}

#[tokio::test]
async fn power_is_told_apart_from_provisioning() {
    let server = with_disk(ArmServer::builder()).await;
    let codes = async || {
        let view = call(&server, "GET", &format!("{}&$expand=instanceView", vm("v")), Value::Null).await.body;
        let statuses = view["properties"]["instanceView"]["statuses"].as_array().unwrap().clone();
        statuses.iter().map(|status| status["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(codes().await, ["ProvisioningState/succeeded", "PowerState/running"]);
    done(&server, "POST", &action("v", "deallocate"), Value::Null).await;
    assert_eq!(codes().await, ["ProvisioningState/succeeded", "PowerState/deallocated"]);
    done(&server, "POST", &action("v", "start"), Value::Null).await;
    assert_eq!(codes().await, ["ProvisioningState/succeeded", "PowerState/running"]);
}

#[tokio::test]
async fn an_attach_is_answered_200_with_an_operation_and_neither_location_nor_retry_after() {
    let server = with_disk(ArmServer::builder()).await;
    let begun = call(&server, "POST", &action("v", "attachDetachDataDisks"), attach("d", 2)).await;
    assert_eq!(begun.status, 200);
    assert_eq!(begun.body["dataDisks"][0]["lun"], 2);
    assert!(!begun.headers.contains_key("location") && !begun.headers.contains_key("retry-after"));
    // Who manages it is said at once, its state when it is done.
    let at_once = call(&server, "GET", &disk("d"), Value::Null).await.body;
    assert!(at_once["managedBy"].as_str().unwrap().ends_with("/v"));
    finish(&server, &begun).await;
    assert_eq!(server.resource(Kind::Disk, "d").unwrap()["properties"]["diskState"], "Attached");
}

#[tokio::test]
async fn a_detaching_disk_stays_in_the_list_until_it_is_off() {
    let server = with_disk(ArmServer::builder()).await;
    done(&server, "POST", &action("v", "attachDetachDataDisks"), attach("d", 0)).await;
    let begun = call(&server, "POST", &action("v", "attachDetachDataDisks"), detach("d", false)).await;
    assert_eq!(begun.body["dataDisks"][0]["toBeDetached"], true);
    finish(&server, &begun).await;
    let machine = server.resource(Kind::Vm, "v").unwrap();
    assert_eq!(machine["properties"]["storageProfile"]["dataDisks"], json!([]));
    assert!(server.resource(Kind::Disk, "d").unwrap()["managedBy"].is_null());
}

#[tokio::test]
async fn a_detach_that_hangs_blocks_the_disk_until_it_is_forced() {
    let mut script = strike("POST", "/attachDetachDataDisks", ArmFate::Stick);
    script[0].nth = 2;
    let server = with_disk(ArmServer::builder().preempts(true).script(script)).await;
    done(&server, "POST", &action("v", "attachDetachDataDisks"), attach("d", 0)).await;
    let stuck = call(&server, "POST", &action("v", "attachDetachDataDisks"), detach("d", false)).await;
    let again = call(&server, "POST", &action("v", "attachDetachDataDisks"), attach("d", 0)).await;
    assert_eq!((again.status, again.code()), (409, "AttachDiskWhileBeingDetached"));
    done(&server, "POST", &action("v", "attachDetachDataDisks"), detach("d", true)).await;
    assert!(server.resource(Kind::Disk, "d").unwrap()["managedBy"].is_null());
    let preempted = finish(&server, &stuck).await;
    assert_eq!(preempted["error"]["code"], "OperationPreempted");
}

#[tokio::test]
async fn a_second_change_of_a_machine_is_a_conflict() {
    let script = strike("POST", "/attachDetachDataDisks", ArmFate::Stick);
    let server = with_disk(ArmServer::builder().script(script)).await;
    call(&server, "POST", &action("v", "attachDetachDataDisks"), attach("d", 0)).await;
    let second = call(&server, "POST", &action("v", "restart"), Value::Null).await;
    assert_eq!((second.status, second.code()), (409, "Conflict"));
}

#[tokio::test]
async fn what_cannot_be_attached_is_refused_with_the_reason() {
    let server = with_disk(ArmServer::builder()).await;
    done(&server, "PUT", &vm("w"), machine()).await;
    let mut zonal = empty_disk();
    zonal["zones"] = json!(["1"]);
    done(&server, "PUT", &disk("z"), zonal).await;
    for name in ["a", "b", "c", "e"] {
        done(&server, "PUT", &disk(name), empty_disk()).await;
    }
    let path = action("v", "attachDetachDataDisks");
    let zone = call(&server, "POST", &path, attach("z", 0)).await;
    assert_eq!((zone.status, zone.code()), (400, "BadRequest"));
    let missing = call(&server, "POST", &path, attach("nobody", 0)).await;
    assert_eq!((missing.status, missing.code()), (404, "NotFound"));
    done(&server, "POST", &path, attach("d", 0)).await;
    let taken = call(&server, "POST", &path, attach("a", 0)).await;
    assert_eq!((taken.status, taken.code()), (400, "InvalidParameter"));
    let elsewhere = call(&server, "POST", &action("w", "attachDetachDataDisks"), attach("d", 0)).await;
    assert_eq!((elsewhere.status, elsewhere.code()), (409, "ConflictingUserInput"));
    assert_eq!(elsewhere.body["error"]["target"].as_str().unwrap(), disk_id("d"));
    for (name, lun) in [("a", 1), ("b", 2), ("c", 3)] {
        done(&server, "POST", &path, attach(name, lun)).await;
    }
    let full = call(&server, "POST", &path, attach("e", 4)).await;
    assert_eq!(
        (full.status, full.code(), full.body["error"]["target"].as_str()),
        (409, "OperationNotAllowed", Some("dataDisks"))
    );
}

#[tokio::test]
async fn a_machine_without_room_is_accepted_fails_and_stays() {
    let server = ArmServer::builder().full_sizes(["standard_d2s_v5"]).start().await.unwrap();
    let begun = call(&server, "PUT", &vm("v"), machine()).await;
    assert_eq!(begun.status, 201);
    let end = finish(&server, &begun).await;
    assert_eq!((end["status"].as_str(), end["error"]["code"].as_str()), (Some("Failed"), Some("AllocationFailed")));
    assert_eq!(server.resource(Kind::Vm, "v").unwrap()["properties"]["provisioningState"], "Failed");
    assert_eq!(server.names(Kind::Nic), ["nic"]);
    done(&server, "DELETE", &vm("v"), Value::Null).await;
    assert_eq!(server.names(Kind::Nic), [""; 0]);
}

#[tokio::test]
async fn quota_and_stock_are_refused_when_asked() {
    let server = ArmServer::builder().most_machines(0).start().await.unwrap();
    let refused = call(&server, "PUT", &vm("v"), machine()).await;
    assert_eq!((refused.status, refused.code()), (409, "OperationNotAllowed"));
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("quota"));
    let server = ArmServer::builder().unavailable_sizes(["Standard_D2s_v5"]).start().await.unwrap();
    let refused = call(&server, "PUT", &vm("v"), machine()).await;
    assert_eq!((refused.status, refused.code()), (409, "SkuNotAvailable"));
}

#[tokio::test]
async fn with_a_machine_goes_what_was_to_go_with_it_and_nothing_else() {
    let server = with_disk(ArmServer::builder()).await;
    done(&server, "POST", &action("v", "attachDetachDataDisks"), attach("d", 0)).await;
    let refused = call(&server, "DELETE", &disk("d"), Value::Null).await;
    assert_eq!((refused.status, refused.code()), (409, "OperationNotAllowed"));
    let begun = call(&server, "DELETE", &vm("v"), Value::Null).await;
    assert_eq!(begun.status, 202);
    assert!(begun.headers.contains_key("location"));
    finish(&server, &begun).await;
    assert_eq!(server.names(Kind::Disk), ["d"]);
    assert_eq!(server.names(Kind::Nic), [""; 0]);
    let gone = call(&server, "DELETE", &vm("v"), Value::Null).await;
    assert_eq!(gone.status, 204);
    assert_eq!(call(&server, "GET", &vm("v"), Value::Null).await.code(), "ResourceNotFound");
}

#[tokio::test]
async fn disks_are_answered_202_and_their_location_202_until_they_are_there() {
    let server = ArmServer::builder().time_scale(0.05).start().await.unwrap();
    let begun = call(&server, "PUT", &disk("d"), empty_disk()).await;
    assert_eq!((begun.status, begun.body["properties"]["provisioningState"].as_str()), (202, Some("Updating")));
    let location = begun.headers["location"].strip_prefix(&server.url()).unwrap().to_owned();
    assert_eq!(call(&server, "GET", &location, Value::Null).await.status, 202);
    finish(&server, &begun).await;
    let end = call(&server, "GET", &location, Value::Null).await;
    assert_eq!((end.status, end.body["name"].as_str()), (200, Some("d")));
    let smaller = json!({ "location": "westeurope", "properties": { "diskSizeGB": 1 } });
    assert_eq!(call(&server, "PATCH", &disk("d"), smaller).await.code(), "OperationNotAllowed");
}

#[tokio::test]
async fn an_etag_that_is_old_is_refused() {
    let server = with_disk(ArmServer::builder()).await;
    let headers = "Authorization: Bearer x\r\nIf-Match: \"1\"\r\n";
    let body = json!({ "tags": { "a": "b" } }).to_string();
    let stale = ask(&server, "PATCH", &vm("v"), headers, &body).await.unwrap();
    assert_eq!((stale.status, stale.code()), (412, "PreconditionFailed"));
    let fresh = ask(&server, "PATCH", &vm("v"), &headers.replace('1', "2"), &body).await.unwrap();
    assert_eq!((fresh.status, fresh.headers.contains_key("azure-asyncoperation")), (200, false));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = ArmServer::builder().page_size(2).start().await.unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        done(&server, "PUT", &disk(name), empty_disk()).await;
    }
    let mut path = format!("{COMPUTE}/disks?{DISK}");
    let mut names = Vec::new();
    loop {
        let page = call(&server, "GET", &path, Value::Null).await.body;
        names.extend(page["value"].as_array().unwrap().iter().map(|disk| disk["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["nextLink"].as_str() else { break };
        path = next.strip_prefix(&server.url()).unwrap().to_owned();
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_how_long_to_wait() {
    let server = ArmServer::builder().throttle(50.0).start().await.unwrap();
    let mut last = call(&server, "GET", &disk("d"), Value::Null).await;
    assert_eq!(last.status, 404);
    for _ in 0..50 {
        last = call(&server, "GET", &disk("d"), Value::Null).await;
    }
    assert_eq!((last.status, last.code()), (429, "SubscriptionRequestsThrottled"));
    assert!(last.headers["retry-after"].parse::<u32>().unwrap() >= 1);
    // The buckets of one machine are smaller, and speak otherwise.
    let server = ArmServer::builder().throttle(10.0).start().await.unwrap();
    call(&server, "POST", &action("v", "start"), Value::Null).await;
    let refused = call(&server, "POST", &action("v", "start"), Value::Null).await;
    assert_eq!((refused.status, refused.code()), (429, "OperationNotAllowed"));
    assert_eq!(refused.body["error"]["details"][0]["code"], "TooManyRequests");
}

#[tokio::test]
async fn a_lost_request_has_no_effect_and_a_lost_answer_has_one() {
    let server = ArmServer::builder().script(strike("PUT", "/disks/d", ArmFate::LoseRequest)).start().await.unwrap();
    let put = async |server: &ArmServer| {
        ask(server, "PUT", &disk("d"), "Authorization: Bearer x\r\n", &empty_disk().to_string()).await.is_some()
    };
    assert!(!put(&server).await);
    assert_eq!(server.names(Kind::Disk), [""; 0]);
    assert!(put(&server).await);
    let server = ArmServer::builder().script(strike("PUT", "/disks/d", ArmFate::LoseAnswer)).start().await.unwrap();
    assert!(!put(&server).await);
    assert_eq!(server.names(Kind::Disk), ["d"]);
}

#[tokio::test]
async fn an_operation_may_fail_and_may_be_forgotten() {
    let fail = ArmFate::Fail { code: "InternalExecutionError".into() };
    let server = ArmServer::builder().script(strike("PUT", "/disks/d", fail)).start().await.unwrap();
    let begun = call(&server, "PUT", &disk("d"), empty_disk()).await;
    assert_eq!(finish(&server, &begun).await["error"]["code"], "InternalExecutionError");
    let server = ArmServer::builder().script(strike("PUT", "/disks/d", ArmFate::Forget)).start().await.unwrap();
    let begun = call(&server, "PUT", &disk("d"), empty_disk()).await;
    let path = begun.headers["azure-asyncoperation"].strip_prefix(&server.url()).unwrap().to_owned();
    assert_eq!(call(&server, "GET", &path, Value::Null).await.status, 404);
}

#[tokio::test]
async fn the_same_seed_strikes_the_same_requests() {
    let struck = async |seed| {
        let faults = ArmFaults { lost_answer: 0.3, ..ArmFaults::default() };
        let server = ArmServer::builder().seed(seed).faults(faults).start().await.unwrap();
        let mut lost = Vec::new();
        for number in 0..30 {
            let path = disk(&format!("d{number}"));
            lost.push(ask(&server, "GET", &path, "Authorization: Bearer x\r\n", "").await.is_none());
        }
        lost
    };
    let (one, again, other) = (struck(1).await, struck(1).await, struck(2).await);
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_breaks_nothing() {
    let server = ArmServer::builder().start().await.unwrap();
    let nobody = ask(&server, "GET", &disk("d"), "", "").await.unwrap();
    assert_eq!(nobody.status, 401);
    for (method, path, body, status) in [
        ("GET", "/", "", 404),
        ("GET", "/subscriptions/s/resourceGroups/g/providers/Microsoft.Odd/things/x?api-version=1", "", 404),
        ("GET", &disk_id("d"), "", 400),
        ("PUT", &disk("d"), "{", 400),
        ("PUT", &disk("d"), "[1]", 400),
        ("PUT", &disk("d"), "{\"location\":\"x\"}", 400),
        ("PUT", &disk("a.b"), "{\"location\":\"x\"}", 400),
        ("PUT", &vm("v"), "{\"location\":1}", 400),
        ("PUT", &vm("v"), "{\"location\":\"x\",\"properties\":7}", 400),
        (
            "PUT",
            &vm("v"),
            "{\"location\":\"x\",\"properties\":{\"hardwareProfile\":{\"vmSize\":\"s\"},\"osProfile\":{\"customData\":\"%\"}}}",
            400,
        ),
        (
            "PUT",
            &vm("v"),
            "{\"location\":\"x\",\"properties\":{\"hardwareProfile\":{\"vmSize\":\"s\"},\"storageProfile\":7}}",
            400,
        ),
        ("PUT", &disk("d"), "{\"location\":\"x\",\"properties\":{\"creationData\":[]}}", 400),
        ("POST", &action("v", "attachDetachDataDisks"), "{\"dataDisksToAttach\":[7]}", 400),
        ("POST", &action("v", "explode"), "", 404),
        ("POST", &action("v", "attachDetachDataDisks"), "{}", 404),
        ("BREW", &vm("v"), "", 405),
        ("GET", "/subscriptions/sub/providers/Microsoft.Compute/locations/x/operations/none?api-version=1", "", 404),
    ] {
        let answer = ask(&server, method, path, "Authorization: Bearer x\r\n", body).await.unwrap();
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.body);
        assert!(!answer.code().is_empty(), "{method} {path}");
    }
    assert_eq!(call(&server, "PUT", &disk("d"), empty_disk()).await.status, 202);
}

/// Where scripts/install-azure-sdk puts it.
fn sdk_folder() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache"))).unwrap();
    named("BOXPOOL_AZURE_SDK").unwrap_or_else(|| cache().join("boxpool/azure-sdk"))
}

#[tokio::test]
async fn the_official_sdk_is_content() {
    let python = sdk_folder().join("venv/bin/python");
    assert!(python.exists(), "{} is not there: run scripts/install-azure-sdk", python.display());
    let throttled = ArmFate::Refuse { status: 429, code: "TooManyRequests".into(), retry_after: Some(1) };
    let mut script = strike("GET", "/disks/busy", throttled);
    script[0].nth = 3;
    let server = ArmServer::builder().full_sizes(["Standard_Full"]).page_size(1).script(script).start().await.unwrap();
    let told = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/arm/sdk.py");
    let run = tokio::process::Command::new(python).arg(told).arg(server.url()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(120), run).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.lines().count(), 28, "{told}");
}
