//! What the cloud side does when the service is full, slow, deaf, or somebody else's.

use crate::stand_in::{Fate, StandIn};
use crate::until::until;
use boxpool::{
    Attach, Attached, Detached, Effect, Epoch, ErrorKind, InstanceId, InstanceProvider, InstanceSpec, InstanceState,
    VolumeId, VolumeProvider, VolumeSource, VolumeSpec, VolumeState,
};
use boxpool_azure::{AzureCloud, AzureDevice, Candidate};
use serde_json::{Value, json};
use std::time::Duration;

fn instance() -> InstanceId {
    InstanceId::new("i1").unwrap()
}

fn volume() -> VolumeId {
    VolumeId::new("v1").unwrap()
}

fn spec() -> InstanceSpec {
    InstanceSpec::new(instance(), "7")
}

fn empty() -> VolumeSpec {
    VolumeSpec::new(volume(), VolumeSource::Empty { bytes: 5 << 30 })
}

fn attach() -> Attach {
    Attach::new(volume(), instance(), Epoch(1))
}

async fn running(cloud: &AzureCloud) {
    cloud_ensure(cloud).await;
    until("the machine runs", async || {
        let view = InstanceProvider::get(cloud, &instance()).await.unwrap()?;
        (view.state == InstanceState::Running).then_some(())
    })
    .await;
}

async fn cloud_ensure(cloud: &AzureCloud) {
    InstanceProvider::ensure(cloud, &spec()).await.unwrap();
}

async fn ready(cloud: &AzureCloud) {
    until("the volume is ready", async || {
        let view = VolumeProvider::ensure(cloud, &empty()).await.unwrap();
        (view.state == VolumeState::Ready).then_some(())
    })
    .await;
}

async fn attached(cloud: &AzureCloud) -> AzureDevice {
    let device = until("the volume is attached", async || match cloud.attach(&attach()).await.unwrap() {
        Attached::Yes(device) => Some(device),
        Attached::Pending => None,
    })
    .await;
    AzureDevice::read(&device).unwrap()
}

fn machine(service: &StandIn) -> Value {
    service.state().resources.get("virtualmachines/pool-i1").cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_machine_is_made_so_that_nothing_is_left_of_it() {
    let service = StandIn::start();
    let cloud = service.cloud();
    running(&cloud).await;
    let made = machine(&service);
    let properties = &made["properties"];
    assert_eq!(properties["storageProfile"]["osDisk"]["deleteOption"], "Delete");
    let interface = &properties["networkProfile"]["networkInterfaceConfigurations"][0];
    assert_eq!(
        (&interface["name"], &interface["properties"]["deleteOption"]),
        (&json!("pool-i1-nic"), &json!("Delete"))
    );
    assert_eq!(made["tags"], json!({ "boxpool-pool": "pool", "boxpool-id": "i1", "boxpool-generation": "7" }));
    let view = InstanceProvider::get(&cloud, &instance()).await.unwrap().unwrap();
    assert_eq!(view.generation, "7");
    assert!(view.created_at.is_some());
    assert_eq!(service.count("PUT", ""), 1, "one request makes machine, interface and disk");
    cloud.delete_and_wait().await;
    assert!(service.state().resources.is_empty(), "nothing is left");
}

trait DeleteAndWait {
    async fn delete_and_wait(&self);
}

impl DeleteAndWait for AzureCloud {
    async fn delete_and_wait(&self) {
        InstanceProvider::delete(self, &instance()).await.unwrap();
        until("the machine is gone", async || {
            InstanceProvider::get(self, &instance()).await.unwrap().is_none().then_some(())
        })
        .await;
    }
}

fn two_sizes(service: &StandIn) -> AzureCloud {
    let mut options = service.options();
    options.machines.candidates = vec![Candidate::new("Standard_Full", None), Candidate::new("Standard_Free", None)];
    AzureCloud::open(options).unwrap()
}

#[tokio::test]
async fn a_size_that_is_refused_at_once_gives_way_to_the_next() {
    let service = StandIn::start();
    service.state().full.insert("Standard_Full".into(), ("SkuNotAvailable", true));
    let cloud = two_sizes(&service);
    running(&cloud).await;
    assert_eq!(machine(&service)["properties"]["hardwareProfile"]["vmSize"], "Standard_Free");
    assert_eq!(service.count("PUT", "virtualMachines"), 2);
    // The place is remembered: the next machine does not try it.
    InstanceProvider::ensure(&cloud, &InstanceSpec::new(InstanceId::new("i2").unwrap(), "7")).await.unwrap();
    assert_eq!(service.count("PUT", "virtualMachines"), 3);
}

#[tokio::test]
async fn a_size_that_fails_later_leaves_a_failed_machine_that_goes_before_the_next_is_made() {
    let service = StandIn::start();
    service.state().full.insert("Standard_Full".into(), ("AllocationFailed", false));
    let cloud = two_sizes(&service);
    cloud_ensure(&cloud).await;
    let why =
        until("the failure shows", async || match InstanceProvider::get(&cloud, &instance()).await.unwrap()?.state {
            InstanceState::Failed(why) => Some(why),
            _ => None,
        })
        .await;
    assert_eq!(why, "AllocationFailed");
    until("it runs elsewhere", async || match InstanceProvider::ensure(&cloud, &spec()).await.unwrap().state {
        InstanceState::Running => Some(()),
        InstanceState::Creating | InstanceState::Deleting => None,
        other => panic!("{other:?}"),
    })
    .await;
    assert_eq!(machine(&service)["properties"]["hardwareProfile"]["vmSize"], "Standard_Free");
    assert_eq!(service.count("DELETE", "virtualMachines"), 1);
}

#[tokio::test]
async fn when_all_sizes_are_full_it_says_so_and_for_how_long() {
    let service = StandIn::start();
    for size in ["Standard_Full", "Standard_Free"] {
        service.state().full.insert(size.into(), ("OverconstrainedAllocationRequest", true));
    }
    let cloud = two_sizes(&service);
    let refused = InstanceProvider::ensure(&cloud, &spec()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::NoCapacity, Effect::None));
    assert!(refused.retry_after().is_some());
    assert!(service.state().resources.is_empty());
}

#[tokio::test]
async fn a_lost_answer_to_a_create_is_told_and_the_next_call_finds_the_machine() {
    let service = StandIn::start();
    let cloud = service.cloud();
    service.once("PUT", "virtualMachines", Fate::LoseAnswer);
    let lost = InstanceProvider::ensure(&cloud, &spec()).await.unwrap_err();
    assert_eq!((lost.kind(), lost.effect()), (ErrorKind::UnknownOutcome, Effect::Unknown));
    running(&cloud).await;
    assert_eq!(service.count("PUT", "virtualMachines"), 1, "it was not sent again");
}

#[tokio::test]
async fn a_lost_answer_to_an_attach_is_told_and_the_next_call_finds_it() {
    let service = StandIn::start();
    let cloud = service.cloud();
    running(&cloud).await;
    ready(&cloud).await;
    service.once("POST", "attachDetachDataDisks", Fate::LoseAnswer);
    let lost = cloud.attach(&attach()).await.unwrap_err();
    assert_eq!((lost.kind(), lost.effect()), (ErrorKind::UnknownOutcome, Effect::Unknown));
    assert_eq!(attached(&cloud).await.lun, 0);
    assert_eq!(service.count("POST", "attachDetachDataDisks"), 1, "it was not sent again");
}

#[tokio::test]
async fn another_process_takes_up_an_attach_that_this_one_began() {
    let service = StandIn::start();
    let cloud = service.cloud();
    running(&cloud).await;
    ready(&cloud).await;
    assert_eq!(cloud.attach(&attach()).await.unwrap(), Attached::Pending);
    let device = attached(&service.cloud()).await;
    assert_eq!(device, attached(&cloud).await);
    assert!(device.disk.starts_with("unique-"));
    assert_eq!(service.count("POST", "attachDetachDataDisks"), 1);
}

#[tokio::test]
async fn an_attach_costs_one_write_and_lists_nothing() {
    let service = StandIn::start();
    let cloud = service.cloud();
    running(&cloud).await;
    ready(&cloud).await;
    let before = service.state().requests.len();
    attached(&cloud).await;
    let requests: Vec<_> = service.state().requests[before..].to_vec();
    let writes = requests.iter().filter(|line| !line.starts_with("GET")).count();
    assert_eq!(writes, 1, "{requests:#?}");
    assert!(requests.len() <= 8, "{requests:#?}");
    assert!(
        !requests.iter().any(|line| line.contains("/disks?") || line.contains("/virtualMachines?")),
        "{requests:#?}"
    );
}

#[tokio::test]
async fn a_volume_is_not_pulled_by_force_from_a_machine_that_runs() {
    let service = StandIn::start();
    let cloud = service.cloud();
    running(&cloud).await;
    ready(&cloud).await;
    attached(&cloud).await;
    assert_eq!(cloud.force_detach(&attach()).await.unwrap_err().kind(), ErrorKind::Busy);
    InstanceProvider::stop(&cloud, &instance()).await.unwrap();
    until("the machine is stopped", async || {
        let view = InstanceProvider::get(&cloud, &instance()).await.unwrap()?;
        (view.state == InstanceState::Stopped).then_some(())
    })
    .await;
    until("it is detached", async || (cloud.force_detach(&attach()).await.unwrap() == Detached::Yes).then_some(()))
        .await;
}

#[tokio::test]
async fn a_detach_that_is_stuck_stays_pending_and_is_asked_for_once() {
    let service = StandIn::start();
    let cloud = service.cloud();
    running(&cloud).await;
    ready(&cloud).await;
    attached(&cloud).await;
    service.state().stuck = true;
    for _ in 0..5 {
        assert_eq!(cloud.detach(&attach()).await.unwrap(), Detached::Pending);
    }
    assert_eq!(service.count("POST", "attachDetachDataDisks"), 2, "one attach, one detach");
    let refused = cloud.attach(&attach()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
}

#[tokio::test]
async fn starting_and_stopping_follow_the_power_state() {
    let service = StandIn::start();
    let cloud = service.cloud();
    running(&cloud).await;
    assert_eq!(InstanceProvider::start(&cloud, &instance()).await.unwrap().state, InstanceState::Running);
    let reaches = |wanted: InstanceState| {
        let cloud = cloud.clone();
        async move {
            until("it gets there", async || {
                let view = match &wanted {
                    InstanceState::Running => InstanceProvider::start(&cloud, &instance()).await,
                    _ => InstanceProvider::stop(&cloud, &instance()).await,
                };
                match view {
                    Ok(view) => (view.state == wanted).then_some(()),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                        None
                    }
                }
            })
            .await;
        }
    };
    reaches(InstanceState::Stopped).await;
    reaches(InstanceState::Running).await;
    assert_eq!((service.count("POST", "/deallocate"), service.count("POST", "/start")), (1, 1));
}

#[tokio::test]
async fn a_resource_of_that_name_without_our_tags_is_left_alone() {
    let service = StandIn::start();
    service.put("virtualMachines", "pool-i1", json!({ "properties": { "provisioningState": "Succeeded" } }));
    service.put(
        "disks",
        "pool-v1",
        json!({ "tags": { "boxpool-pool": "other", "boxpool-id": "v1" }, "properties": {} }),
    );
    let cloud = service.cloud();
    assert_eq!(InstanceProvider::delete(&cloud, &instance()).await.unwrap_err().kind(), ErrorKind::Permanent);
    assert_eq!(InstanceProvider::ensure(&cloud, &spec()).await.unwrap_err().kind(), ErrorKind::Permanent);
    assert_eq!(VolumeProvider::delete(&cloud, &volume()).await.unwrap_err().kind(), ErrorKind::Permanent);
    assert_eq!(VolumeProvider::ensure(&cloud, &empty()).await.unwrap_err().kind(), ErrorKind::Permanent);
    assert_eq!((service.count("PUT", ""), service.count("DELETE", "")), (0, 0));
    assert!(InstanceProvider::list(&cloud, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn an_error_never_means_absence() {
    let service = StandIn::start();
    let cloud = service.cloud();
    for (status, code, kind) in [
        (403, "AuthorizationFailed", ErrorKind::Unauthorized),
        (404, "ResourceGroupNotFound", ErrorKind::NotFound),
        (500, "InternalServerError", ErrorKind::Unavailable),
    ] {
        let body = json!({ "error": { "code": code, "message": "m" } });
        service.judge(move |_, _| Fate::Refuse(status, Vec::new(), body.clone()));
        assert_eq!(InstanceProvider::get(&cloud, &instance()).await.unwrap_err().kind(), kind, "{code}");
        assert_eq!(VolumeProvider::get(&cloud, &volume()).await.unwrap_err().kind(), kind, "{code}");
    }
}

#[tokio::test]
async fn a_read_is_repeated_and_a_write_is_not() {
    let service = StandIn::start();
    let cloud = service.cloud();
    running(&cloud).await;
    service.once("GET", "virtualMachines", Fate::Refuse(503, Vec::new(), Value::Null));
    assert!(InstanceProvider::get(&cloud, &instance()).await.unwrap().is_some());
    service.judge(|method, _| if method == "GET" { Fate::Pass } else { Fate::Refuse(503, Vec::new(), Value::Null) });
    let failed = InstanceProvider::stop(&cloud, &instance()).await.unwrap_err();
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    assert_eq!(service.count("POST", "/deallocate"), 1);
}

#[tokio::test]
async fn when_one_caller_is_throttled_the_others_do_not_ask() {
    let service = StandIn::start();
    let cloud = service.cloud();
    let wait = vec![("Retry-After", "900".to_owned())];
    let body = json!({ "error": { "code": "SubscriptionRequestsThrottled", "message": "m" } });
    service.once("PUT", "disks", Fate::Refuse(429, wait, body));
    let first = VolumeProvider::ensure(&cloud, &empty()).await.unwrap_err();
    assert_eq!((first.kind(), first.retry_after()), (ErrorKind::Throttled, Some(Duration::from_secs(900))));
    let second = InstanceProvider::ensure(&cloud.clone(), &spec()).await.unwrap_err();
    assert_eq!((second.kind(), second.effect()), (ErrorKind::Throttled, Effect::None));
    assert!(second.retry_after().is_some());
    assert_eq!(service.count("PUT", ""), 1, "the second was not sent");
}

#[tokio::test]
async fn links_to_other_hosts_are_not_followed() {
    let service = StandIn::start();
    let cloud = service.cloud();
    let other = StandIn::start();
    let foreign = format!("http://127.0.0.1:{}/operations/1", other.port);
    let page = json!({ "value": [], "nextLink": foreign });
    service.once("GET", "virtualMachines", Fate::Refuse(200, Vec::new(), page));
    assert_eq!(InstanceProvider::list(&cloud, None).await.unwrap_err().kind(), ErrorKind::Invalid);
    let cursor = boxpool::Cursor(foreign.clone());
    assert!(VolumeProvider::list(&cloud, Some(&cursor)).await.is_err());
    let begun = vec![("Azure-AsyncOperation", foreign)];
    service.once("PUT", "disks", Fate::Refuse(202, begun, json!({})));
    assert!(VolumeProvider::ensure(&cloud, &empty()).await.is_err());
    assert!(other.state().requests.is_empty(), "no token went there");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let service = StandIn::start();
    let cloud = service.cloud();
    let other = StandIn::start();
    let there = vec![("Location", format!("http://127.0.0.1:{}/subscriptions", other.port))];
    service.judge(move |_, _| Fate::Refuse(307, there.clone(), Value::Null));
    assert!(InstanceProvider::get(&cloud, &instance()).await.is_err());
    assert!(VolumeProvider::ensure(&cloud, &empty()).await.is_err());
    assert!(other.state().requests.is_empty(), "no token went there");
}

#[tokio::test]
async fn a_machine_that_changes_while_it_is_adopted_is_not_overwritten() {
    let service = StandIn::start();
    let cloud = service.cloud();
    service.put(
        "virtualMachines",
        "theirs",
        json!({ "etag": "\"1\"", "properties": { "provisioningState": "Succeeded", "storageProfile": { "dataDisks": [] } } }),
    );
    let changed = json!({ "error": { "code": "PreconditionFailed", "message": "m" } });
    service.once("PATCH", "virtualMachines/theirs", Fate::Refuse(412, Vec::new(), changed));
    let refused = cloud.adopt_instance("theirs", "1").await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Conflict, Effect::None));
    assert_eq!(service.count("PATCH", ""), 1, "it was not tried again without a look");
    cloud.adopt_instance("theirs", "1").await.unwrap();
}

#[tokio::test]
async fn disks_and_machines_that_were_there_can_be_adopted_twice() {
    let service = StandIn::start();
    let cloud = service.cloud();
    service.put(
        "disks",
        "Customers_Disk",
        json!({ "tags": { "Owner": "them" }, "properties": { "provisioningState": "Succeeded", "diskState": "Unattached" } }),
    );
    service.put(
        "virtualMachines",
        "Customers-VM",
        json!({ "etag": "\"1\"", "properties": { "provisioningState": "Succeeded",
            "storageProfile": { "dataDisks": [] },
            "instanceView": { "statuses": [{ "code": "PowerState/running" }] } } }),
    );
    for _ in 0..2 {
        let view = cloud.adopt_volume("customers_disk").await.unwrap();
        assert_eq!(view.id.as_str(), "disk:customers_disk");
        let view = cloud.adopt_instance("Customers-VM", "7").await.unwrap();
        assert_eq!(
            (view.id.as_str(), view.state, view.generation.as_str()),
            ("vm:customers:vm", InstanceState::Running, "7")
        );
    }
    assert_eq!(service.count("PATCH", ""), 2, "the second time nothing is to be done");
    assert_eq!(service.state().resources["disks/customers_disk"]["tags"]["Owner"], "them", "other tags stay");
    for _ in 0..2 {
        cloud.release_volume("customers_disk").await.unwrap();
        cloud.release_instance("Customers-VM").await.unwrap();
    }
    assert_eq!(service.state().resources["disks/customers_disk"]["tags"], json!({ "Owner": "them" }));
    assert_eq!(service.count("PATCH", ""), 4, "the second time nothing is to be done");
    cloud.adopt_volume("customers_disk").await.unwrap();
    cloud.adopt_instance("Customers-VM", "7").await.unwrap();
    let adopted = Attach::new(
        cloud.id_of_disk("Customers_Disk").unwrap(),
        cloud.id_of_machine("customers-vm").unwrap(),
        Epoch(1),
    );
    until("it is attached", async || matches!(cloud.attach(&adopted).await.unwrap(), Attached::Yes(_)).then_some(()))
        .await;
    let view = VolumeProvider::get(&cloud, &adopted.volume).await.unwrap().unwrap();
    assert_eq!(view.attached_to, Some(adopted.instance));
    assert_eq!(cloud.adopt_volume("absent").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(cloud.adopt_volume("../x").await.unwrap_err().kind(), ErrorKind::Invalid);
    service.put("disks", "theirs", json!({ "tags": { "boxpool-pool": "other" }, "properties": {} }));
    assert_eq!(cloud.adopt_volume("theirs").await.unwrap_err().kind(), ErrorKind::Busy);
}

#[tokio::test]
async fn a_volume_grows_to_whole_gibibytes_and_never_shrinks() {
    let service = StandIn::start();
    let cloud = service.cloud();
    ready(&cloud).await;
    cloud.resize(&volume(), (7 << 30) + 1).await.unwrap();
    cloud.resize(&volume(), 1 << 30).await.unwrap();
    assert_eq!(service.state().resources["disks/pool-v1"]["properties"]["diskSizeGB"], 8);
    assert_eq!(service.count("PATCH", "disks"), 1);
}
