//! Resource Manager through `azure_mgmt_compute`: builders are sent, never awaited; listings and polls, which its public
//! interface cannot ask for, go through the same pipeline by hand.

use crate::arm::{Arm, Begun, Disk, Grant, Listing, Machine, Snapshot, Usage};
use crate::cloud_options::CloudOptions;
use crate::errors::{Failure, Refusal};
use crate::ids::ArmId;
use crate::poll::{Operation, Progress, check_link};
use crate::retry::reading;
use crate::sdk::http::{failure, options};
use crate::sdk::tokens::Tokens;
use crate::throttle::{Class, Throttle};
use crate::transport::{Answer, Transport, noting};
use async_trait::async_trait;
use azure_core_legacy as legacy;
use azure_mgmt_compute::package_2024_07_01 as compute;
use boxpool::{Error, ErrorKind, Result};
use compute::models;
use legacy::auth::TokenCredential;
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

const COMPUTE: &str = "Microsoft.Compute";
const MACHINES_VERSION: &str = "2024-07-01";
const DISKS_VERSION: &str = "2024-03-02";
const NETWORK_VERSION: &str = "2024-03-01";
const AUTHORIZATION_VERSION: &str = "2022-04-01";
/// Of collections that are read as a whole: they are short.
const MOST_PAGES: usize = 20;

/// One subscription's Resource Manager.
pub(crate) struct Compute {
    client: compute::Client,
    pipeline: legacy::Pipeline,
    tokens: Arc<Tokens>,
    scope: String,
    endpoint: Url,
    subscription: String,
    group: String,
    location: String,
    throttle: Throttle,
}

impl fmt::Debug for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compute").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Compute {
    pub(crate) fn open(settings: &CloudOptions, endpoint: Url, transport: &Transport) -> Result<Self> {
        let tokens = Tokens::open(settings.credential.clone(), transport)?;
        let credential: Arc<dyn TokenCredential> = tokens.clone();
        let client = compute::Client::builder(credential)
            .endpoint(endpoint.clone())
            // Left alone, the scope would follow the endpoint.
            .scopes(&[&settings.scope])
            .retry(legacy::RetryOptions::none())
            .transport(legacy::TransportOptions::new(Arc::new(transport.clone())))
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Invalid, "open cloud", &settings.pool).with_detail(error.to_string())
            })?;
        let version = option_env!("CARGO_PKG_VERSION");
        let pipeline = legacy::Pipeline::new(Some("boxpool"), version, options(transport), Vec::new(), Vec::new());
        Ok(Self {
            client,
            pipeline,
            tokens,
            scope: settings.scope.clone(),
            endpoint,
            subscription: settings.subscription.clone(),
            group: settings.resource_group.clone(),
            location: settings.location.clone(),
            throttle: Throttle::new(settings.budgets),
        })
    }

    /// One request: admitted by the budgets, which hear of a refusal.
    async fn once<R: Into<legacy::Response>>(
        &self,
        class: Class,
        machine: Option<&str>,
        send: impl Future<Output = legacy::Result<R>>,
    ) -> Result<Answer, Failure> {
        self.throttle.admit(class, machine).await.map_err(|wait| Failure::Refused(Refusal::of_own_budget(wait)))?;
        let call = async { collected(send.await?.into()).await };
        let answer = noting(call, failure).await;
        if let Err(Failure::Refused(refusal)) = &answer {
            self.throttle.refused(class, machine, refusal);
        }
        answer
    }

    async fn begin<R: Into<legacy::Response>>(
        &self,
        class: Class,
        machine: Option<&str>,
        send: impl Future<Output = legacy::Result<R>>,
    ) -> Result<Begun, Failure> {
        let answer = self.once(class, machine, send).await?;
        Ok(Begun { operation: Operation::of(&answer, &self.endpoint)? })
    }

    async fn get(&self, url: Url) -> legacy::Result<legacy::Response> {
        let mut request = legacy::Request::new(url, legacy::Method::Get);
        let token = self.tokens.get_token(&[&self.scope]).await?;
        request.insert_header(legacy::headers::AUTHORIZATION, format!("Bearer {}", token.token.secret()));
        self.pipeline.send(&legacy::Context::default(), &mut request).await
    }

    /// A page of a collection in our group, or the page that a link names.
    async fn page<T>(
        &self,
        next: Option<&str>,
        kind: &str,
        version: &str,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Result<Listing<T>, Failure> {
        let first = self.path(COMPUTE, kind);
        self.page_of(next, &first, version, item).await
    }

    /// The same of a collection anywhere.
    async fn page_of<T>(
        &self,
        next: Option<&str>,
        first: &str,
        version: &str,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Result<Listing<T>, Failure> {
        let url = match next {
            Some(link) => check_link(&self.endpoint, link)?,
            None => self.address(first, version)?,
        };
        let answer = reading(|| self.once(Class::List, None, self.get(url.clone()))).await?;
        let page = Listing::read(&body(&answer)?, item);
        if let Some(link) = &page.next {
            check_link(&self.endpoint, link)?;
        }
        Ok(page)
    }

    /// Every page of a short collection.
    async fn all_of<T>(
        &self,
        first: &str,
        version: &str,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        let (mut all, mut next) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let page = self.page_of(next.as_deref(), first, version, &item).await?;
            all.extend(page.items);
            next = page.next;
            if next.is_none() {
                return Ok(all);
            }
        }
        Err(Failure::Unreadable(format!("{first} has more than {MOST_PAGES} pages")))
    }

    fn path(&self, provider: &str, rest: &str) -> String {
        format!("/subscriptions/{}/resourceGroups/{}/providers/{provider}/{rest}", self.subscription, self.group)
    }

    fn address(&self, path: &str, version: &str) -> Result<Url, Failure> {
        let mut url = self.endpoint.clone();
        url.set_path(path);
        url.query_pairs_mut().append_pair("api-version", version);
        // A path that is not what it was has stepped somewhere else.
        if url.path() == path { Ok(url) } else { Err(Failure::Withheld(format!("{path:?} is no path of a resource"))) }
    }
}

async fn collected(response: legacy::Response) -> legacy::Result<Answer> {
    let (status, headers, body) = response.deconstruct();
    let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned())).collect();
    Ok(Answer { status: status.into(), headers, body: body.collect().await?.to_vec() })
}

fn body(answer: &Answer) -> Result<Value, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| Failure::Unreadable(error.to_string()))
}

/// The SDK's model of a body. A field that the model does not have would be dropped silently; a test sees that none is.
fn model<T: DeserializeOwned>(body: Value) -> Result<T, Failure> {
    serde_json::from_value(body).map_err(|error| Failure::Withheld(format!("the request cannot be written: {error}")))
}

/// 404 is an answer.
fn found<T>(answer: Result<Answer, Failure>, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => match read(&body(&answer)?) {
            Some(found) => Ok(Some(found)),
            None => Err(Failure::Unreadable("the resource has no id".into())),
        },
        // A group that is not there would make everything look deleted.
        Err(Failure::Refused(refusal)) if refusal.status == 404 && !refusal.has_code("ResourceGroupNotFound") => {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

#[async_trait]
impl Arm for Compute {
    async fn machine(&self, name: &str) -> Result<Option<Machine>, Failure> {
        let get = || {
            let get = self.client.virtual_machines_client().get(&self.group, name, &self.subscription);
            self.once(Class::Read, Some(name), get.expand("instanceView").send())
        };
        found(reading(get).await, Machine::read)
    }

    async fn machines(&self, next: Option<&str>) -> Result<Listing<Machine>, Failure> {
        self.page(next, "virtualMachines", MACHINES_VERSION, Machine::read).await
    }

    async fn create_machine(&self, name: &str, body: Value) -> Result<Begun, Failure> {
        let body: models::VirtualMachine = model(body)?;
        let put = self.client.virtual_machines_client().create_or_update(&self.group, name, body, &self.subscription);
        self.begin(Class::PutMachine, Some(name), put.if_none_match("*").send()).await
    }

    async fn update_machine(&self, name: &str, body: Value, etag: Option<&str>) -> Result<Begun, Failure> {
        let body: models::VirtualMachineUpdate = model(body)?;
        let mut patch = self.client.virtual_machines_client().update(&self.group, name, body, &self.subscription);
        if let Some(etag) = etag {
            patch = patch.if_match(etag);
        }
        self.begin(Class::UpdateMachine, Some(name), patch.send()).await
    }

    async fn start(&self, name: &str) -> Result<Begun, Failure> {
        let start = self.client.virtual_machines_client().start(&self.group, name, &self.subscription);
        self.begin(Class::UpdateMachine, Some(name), start.send()).await
    }

    async fn deallocate(&self, name: &str) -> Result<Begun, Failure> {
        let deallocate = self.client.virtual_machines_client().deallocate(&self.group, name, &self.subscription);
        self.begin(Class::DeleteMachine, Some(name), deallocate.send()).await
    }

    #[cfg(feature = "hosts")]
    async fn generalize(&self, name: &str) -> Result<Begun, Failure> {
        let generalize = self.client.virtual_machines_client().generalize(&self.group, name, &self.subscription);
        self.begin(Class::UpdateMachine, Some(name), generalize.send()).await
    }

    async fn delete_machine(&self, name: &str) -> Result<Begun, Failure> {
        // Not by force: that does not wait for what data disks still have to write.
        let delete = self.client.virtual_machines_client().delete(&self.group, name, &self.subscription);
        self.begin(Class::DeleteMachine, Some(name), delete.send()).await
    }

    async fn attach(&self, machine: &str, disk: &ArmId, lun: u32) -> Result<Begun, Failure> {
        let body: models::AttachDetachDataDisksRequest = model(json!({ "dataDisksToAttach": [{
            "diskId": disk.as_str(),
            "lun": lun,
            "caching": "None",
            // The volume outlives its machine, whatever the default is.
            "deleteOption": "Detach",
        }] }))?;
        let machines = self.client.virtual_machines_client();
        let attach = machines.attach_detach_data_disks(&self.group, machine, body, &self.subscription);
        self.begin(Class::Attach, Some(machine), attach.send()).await
    }

    async fn detach(&self, machine: &str, disk: &ArmId, force: bool) -> Result<Begun, Failure> {
        let mut leaving = json!({ "diskId": disk.as_str() });
        if force {
            leaving["detachOption"] = "ForceDetach".into();
        }
        let body: models::AttachDetachDataDisksRequest = model(json!({ "dataDisksToDetach": [leaving] }))?;
        let machines = self.client.virtual_machines_client();
        let detach = machines.attach_detach_data_disks(&self.group, machine, body, &self.subscription);
        self.begin(Class::Attach, Some(machine), detach.send()).await
    }

    async fn disk(&self, name: &str) -> Result<Option<Disk>, Failure> {
        let get = || {
            let get = self.client.disks_client().get(&self.subscription, &self.group, name);
            self.once(Class::Read, None, get.send())
        };
        found(reading(get).await, Disk::read)
    }

    async fn disks(&self, next: Option<&str>) -> Result<Listing<Disk>, Failure> {
        self.page(next, "disks", DISKS_VERSION, Disk::read).await
    }

    async fn put_disk(&self, name: &str, body: Value) -> Result<Begun, Failure> {
        let body: models::Disk = model(body)?;
        let put = self.client.disks_client().create_or_update(&self.subscription, &self.group, name, body);
        self.begin(Class::WriteDisk, None, put.send()).await
    }

    async fn update_disk(&self, name: &str, body: Value) -> Result<Begun, Failure> {
        let body: models::DiskUpdate = model(body)?;
        let patch = self.client.disks_client().update(&self.subscription, &self.group, name, body);
        self.begin(Class::WriteDisk, None, patch.send()).await
    }

    async fn delete_disk(&self, name: &str) -> Result<Begun, Failure> {
        let delete = self.client.disks_client().delete(&self.subscription, &self.group, name);
        self.begin(Class::DeleteDisk, None, delete.send()).await
    }

    async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, Failure> {
        let get = || {
            let get = self.client.snapshots_client().get(&self.subscription, &self.group, name);
            self.once(Class::Read, None, get.send())
        };
        found(reading(get).await, Snapshot::read)
    }

    async fn snapshots(&self, next: Option<&str>) -> Result<Listing<Snapshot>, Failure> {
        self.page(next, "snapshots", DISKS_VERSION, Snapshot::read).await
    }

    async fn put_snapshot(&self, name: &str, body: Value) -> Result<Begun, Failure> {
        let body: models::Snapshot = model(body)?;
        let put = self.client.snapshots_client().create_or_update(&self.subscription, &self.group, name, body);
        self.begin(Class::WriteDisk, None, put.send()).await
    }

    async fn delete_snapshot(&self, name: &str) -> Result<Begun, Failure> {
        let delete = self.client.snapshots_client().delete(&self.subscription, &self.group, name);
        self.begin(Class::DeleteDisk, None, delete.send()).await
    }

    #[cfg(feature = "hosts")]
    async fn image(&self, name: &str) -> Result<Option<crate::arm::Common>, Failure> {
        let get = || {
            let get = self.client.images_client().get(&self.group, name, &self.subscription);
            self.once(Class::Read, None, get.send())
        };
        found(reading(get).await, crate::arm::Common::read)
    }

    #[cfg(feature = "hosts")]
    async fn put_image(&self, name: &str, body: Value) -> Result<Begun, Failure> {
        let body: models::Image = model(body)?;
        let put = self.client.images_client().create_or_update(&self.group, name, body, &self.subscription);
        self.begin(Class::WriteDisk, None, put.send()).await
    }

    #[cfg(feature = "hosts")]
    async fn delete_image(&self, name: &str) -> Result<Begun, Failure> {
        let delete = self.client.images_client().delete(&self.group, name, &self.subscription);
        self.begin(Class::DeleteDisk, None, delete.send()).await
    }

    async fn usages(&self) -> Result<Vec<Usage>, Failure> {
        let (subscription, place) = (&self.subscription, &self.location);
        let path = format!("/subscriptions/{subscription}/providers/{COMPUTE}/locations/{place}/usages");
        self.all_of(&path, MACHINES_VERSION, Usage::read).await
    }

    async fn permissions(&self) -> Result<Vec<Grant>, Failure> {
        let path = self.path("Microsoft.Authorization", "permissions");
        self.all_of(&path, AUTHORIZATION_VERSION, Grant::read).await
    }

    async fn address(&self, interface: &ArmId) -> Result<Option<String>, Failure> {
        let url = Compute::address(self, interface.as_str(), NETWORK_VERSION)?;
        let answer = reading(|| self.once(Class::Read, None, self.get(url.clone()))).await;
        let configurations = found(answer, |body| Some(body["properties"]["ipConfigurations"].clone()))?;
        let first = configurations.as_ref().and_then(Value::as_array).and_then(|all| {
            let primary = all.iter().find(|each| each["properties"]["primary"].as_bool() == Some(true));
            primary.or_else(|| all.first())
        });
        Ok(first.and_then(|each| each["properties"]["privateIPAddress"].as_str()).map(str::to_owned))
    }

    async fn poll(&self, machine: Option<&str>, operation: &mut Operation) -> Progress {
        let Some(address) = operation.address() else { return Progress::Forgotten };
        let answer = match check_link(&self.endpoint, address) {
            Ok(url) => self.once(Class::Poll, machine, self.get(url)).await,
            Err(_) => return Progress::Forgotten,
        };
        operation.heard(answer, &self.endpoint)
    }

    fn id(&self, kind: &str, name: &str) -> ArmId {
        ArmId::new(self.path(COMPUTE, &format!("{kind}/{name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::{self, DiskSource};
    use crate::cloud_options::{Candidate, tests::good};
    use crate::names::PoolName;
    use serde::Serialize;

    /// What the model drops, as paths.
    fn dropped(sent: &Value, kept: &Value, path: &str, lost: &mut Vec<String>) {
        match (sent, kept) {
            (Value::Object(sent), _) => {
                for (name, value) in sent {
                    dropped(value, &kept[name], &format!("{path}/{name}"), lost);
                }
            }
            (Value::Array(sent), _) => {
                for (n, value) in sent.iter().enumerate() {
                    dropped(value, &kept[n], &format!("{path}/{n}"), lost);
                }
            }
            (sent, kept) if sent == kept => {}
            _ => lost.push(path.to_owned()),
        }
    }

    fn loses_nothing<T: DeserializeOwned + Serialize>(body: Value) {
        let kept = serde_json::to_value(model::<T>(body.clone()).unwrap()).unwrap();
        let mut lost = Vec::new();
        dropped(&body, &kept, "", &mut lost);
        assert!(lost.is_empty(), "the model drops {lost:?}");
    }

    #[test]
    fn the_models_send_every_field_of_our_bodies() {
        let mut options = good();
        options.machines.security_group = Some("/subscriptions/s/networkSecurityGroups/g".into());
        options.machines.cloud_init = "#cloud-config\n".into();
        options.disks.frequent_attach = true;
        options.disks.zone = Some("1".into());
        let pool = PoolName::new("pool").unwrap();
        let place = Candidate::new("Standard_D2s_v5", Some("1"));
        for image in [options.machines.image.clone(), "publisher:offer:sku:latest".into()] {
            let made = bodies::Making { name: "pool-i1", id: "i1", generation: "7", image: &image, place: &place };
            loses_nothing::<models::VirtualMachine>(bodies::machine(&options, &pool, &made).unwrap());
        }
        let id = ArmId::new("/subscriptions/s/disks/d");
        loses_nothing::<models::Disk>(bodies::disk(&options, &pool, "v1", &DiskSource::Empty { bytes: 5 }));
        loses_nothing::<models::Disk>(bodies::disk(&options, &pool, "v1", &DiskSource::Snapshot(id.clone())));
        loses_nothing::<models::Snapshot>(bodies::snapshot(&options, &pool, "s1", &id));
        loses_nothing::<models::Snapshot>(bodies::snapshot_copy(&options, &pool, "s1", &id));
        loses_nothing::<models::Image>(bodies::image(&options, &pool, "s1", &id, "V2"));
        loses_nothing::<models::DiskUpdate>(json!({ "properties": { "diskSizeGB": 7 }, "tags": { "a": "b" } }));
        loses_nothing::<models::VirtualMachineUpdate>(json!({ "tags": { "a": "b" } }));
    }
}
