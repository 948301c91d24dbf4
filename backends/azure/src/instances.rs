//! Machines.
//!
//! A machine is made with its interface in one request and takes OS disk and interface along when it is deleted. If the
//! process dies after the request, the machine is there under the name that its id gives it, and the next `ensure` finds
//! it. If there is no room, the service says so at once, and the next place of the list is tried; or minutes later, in
//! which case a failed machine stays behind: `get` shows it as failed, the place is shunned for a while, and whoever
//! deletes the machine and makes another one gets the next place.

use crate::arm::Machine;
use crate::bodies::{self, GENERATION_TAG, Making};
use crate::cloud::{AzureCloud, Inner, Work, busy_for, is_superseded, refused};
use crate::cloud_options::Candidate;
use crate::errors::{Act, CAPACITY_CODES, Failure, Refusal, kind_of};
use crate::poll::Progress;
use async_trait::async_trait;
use boxpool::{
    Cursor, Error, ErrorKind, InstanceId, InstanceProvider, InstanceSpec, InstanceState, InstanceView, Page, Result,
};
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

/// When to look again at a machine that is being changed.
const CHANGE: Duration = Duration::from_secs(2);

impl AzureCloud {
    /// The private address of a machine; `None` while it has none.
    ///
    /// # Errors
    /// `NotFound` when there is no such machine.
    pub async fn address(&self, id: &InstanceId) -> Result<Option<IpAddr>> {
        let act = Act::read("find address", id.as_str());
        let machine = self.inner.machine(act.operation, id).await?.ok_or_else(|| absent(act.operation, id))?;
        let Some(interface) = machine.interfaces.first() else { return Ok(None) };
        let address = self.inner.arm.address(interface).await.map_err(|failure| act.failed(failure))?;
        Ok(address.and_then(|text| text.parse().ok()))
    }
}

impl Inner {
    /// The machine, if it is there and ours.
    pub(crate) async fn machine(&self, operation: &'static str, id: &InstanceId) -> Result<Option<Machine>> {
        let name = self.pool.machine(id)?;
        let found =
            self.arm.machine(&name).await.map_err(|failure| Act::read(operation, id.as_str()).failed(failure))?;
        match &found {
            Some(machine) => self.check_ours(operation, &machine.common, id.as_str())?,
            // Nothing goes on at what is not there.
            None => {
                self.forget(&name);
                self.spread.gone(id);
            }
        }
        Ok(found)
    }

    fn view(&self, id: &InstanceId, machine: &Machine) -> InstanceView {
        let state = state_of(machine);
        if let (InstanceState::Failed(_), true) = (&state, is_capacity(&machine.failure)) {
            self.shun(machine);
        }
        match &state {
            InstanceState::Deleting => self.spread.gone(id),
            _ => self.spread.saw(id, machine.zone.as_deref()),
        }
        let mut view = InstanceView::new(id.clone(), state);
        view.generation = machine.common.tag(GENERATION_TAG).unwrap_or_default().to_owned();
        view.created_at = machine.common.created_at;
        view
    }

    fn shun(&self, machine: &Machine) {
        let at = Candidate::new(machine.size.clone(), machine.zone.as_deref());
        let why = Refusal::of_operation(&json!({ "code": machine.failure }));
        self.capacity.no_room(&at, &self.options.machines.candidates, &why);
    }

    /// Asks for a machine at the first place that has room.
    async fn create(&self, spec: &InstanceSpec, name: &str) -> Result<InstanceView> {
        let act = Act::write("create instance", spec.id.as_str());
        let candidates = &self.options.machines.candidates;
        let mut last: Option<Failure> = None;
        // Each refusal shuns at least one place, or the golden image, so this ends.
        for _ in 0..=candidates.len() + 1 {
            let place = match self.capacity.choose(candidates, |zone| self.spread.machines_in(zone)) {
                Ok(place) => place,
                Err(wait) => {
                    let why = last.map_or_else(|| "it was full a while ago".to_owned(), |failure| failure.to_string());
                    let detail = format!("no size and zone of the list has room: {why}");
                    return Err(Error::new(ErrorKind::NoCapacity, act.operation, &spec.id)
                        .with_detail(detail)
                        .with_retry_after(wait));
                }
            };
            let (id, generation) = (spec.id.as_str(), spec.generation.as_str());
            let golden = self.golden_image_for(&spec.id);
            let image = golden.as_deref().unwrap_or(&self.options.machines.image);
            let body = bodies::machine(&self.options, &self.pool, &Making { name, id, generation, image, place })?;
            match self.arm.create_machine(name, body).await {
                Ok(begun) => {
                    self.began(name, Work::Create, begun);
                    self.spread.saw(&spec.id, place.zone.as_deref());
                    let mut view = InstanceView::new(spec.id.clone(), InstanceState::Creating);
                    view.generation.clone_from(&spec.generation);
                    return Ok(view);
                }
                Err(Failure::Refused(why)) if kind_of(&why) == ErrorKind::NoCapacity => {
                    tracing::warn!(instance = %spec.id, size = %place.size, zone = ?place.zone, code = %why.code, "no room here; trying the next place");
                    self.capacity.no_room(place, candidates, &why);
                    last = Some(Failure::Refused(why));
                }
                Err(Failure::Refused(why)) if golden.is_some() && matches!(why.status, 400 | 404) => {
                    tracing::warn!(instance = %spec.id, code = %why.code, "the golden image cannot be used; machines are made of the published one");
                    self.use_golden_image(None);
                    last = Some(Failure::Refused(why));
                }
                // Another process was quicker.
                Err(Failure::Refused(why)) if why.status == 412 => {
                    return match self.machine(act.operation, &spec.id).await? {
                        Some(machine) => Ok(self.view(&spec.id, &machine)),
                        None => Ok(InstanceView::new(spec.id.clone(), InstanceState::Creating)),
                    };
                }
                Err(failure) => return Err(act.failed(failure)),
            }
        }
        Err(Error::new(ErrorKind::NoCapacity, act.operation, &spec.id))
    }
}

/// What a machine is doing. `Failed` means that no guest can run on it: a machine that runs is running, whatever became
/// of its last change.
fn state_of(machine: &Machine) -> InstanceState {
    let common = &machine.common;
    if common.is_in("Deleting") {
        return InstanceState::Deleting;
    }
    if common.is_in("Failed") {
        let why = if machine.failure.is_empty() { "provisioning failed" } else { &machine.failure };
        // It never came up, so it has served nobody.
        if machine.failure.starts_with("OSProvisioning") || machine.power == "creating" {
            return InstanceState::Failed(why.to_owned());
        }
        // There is no room for it, so it does not run, and it will not soon: another one at another place is better.
        let rests = matches!(machine.power.as_str(), "" | "stopped" | "deallocated");
        if is_capacity(&machine.failure) && rests {
            return InstanceState::Failed(why.to_owned());
        }
        if machine.power.is_empty() {
            return InstanceState::Other(format!("{why}, and its power state is not known"));
        }
    }
    if common.is_in("Creating") {
        return InstanceState::Creating;
    }
    match machine.power.as_str() {
        "running" => InstanceState::Running,
        "starting" | "creating" => InstanceState::Creating,
        "stopping" | "deallocating" => InstanceState::Stopping,
        "stopped" | "deallocated" => InstanceState::Stopped,
        "" => InstanceState::Other("its power state is not known".into()),
        other => InstanceState::Other(other.to_owned()),
    }
}

/// Another change is under way, by whomever: one more would be refused or would supersede it.
fn is_changing(machine: &Machine) -> bool {
    machine.common.is_in("Updating") || machine.common.is_in("Creating")
}

fn is_capacity(code: &str) -> bool {
    CAPACITY_CODES.iter().any(|known| known.eq_ignore_ascii_case(code))
}

fn absent(operation: &'static str, id: &InstanceId) -> Error {
    Error::new(ErrorKind::NotFound, operation, id).with_detail("there is no such machine")
}

#[async_trait]
impl InstanceProvider for AzureCloud {
    async fn ensure(&self, spec: &InstanceSpec) -> Result<InstanceView> {
        let operation = "create instance";
        if spec.generation.len() > 256 || spec.generation.chars().any(char::is_control) {
            return Err(Error::new(ErrorKind::Invalid, operation, &spec.id)
                .with_detail("a generation has at most 256 bytes and no control characters: it is kept in a tag"));
        }
        let name = self.inner.pool.machine(&spec.id)?;
        let _alone = self.inner.alone_with_machine(&name).await;
        let Some(machine) = self.inner.machine(operation, &spec.id).await? else {
            return self.inner.create(spec, &name).await;
        };
        let mut view = self.inner.view(&spec.id, &machine);
        if let (InstanceState::Failed(_), true) = (&view.state, is_capacity(&machine.failure)) {
            // It holds its name, interface and disk: it goes, and the next call makes it at another place.
            let begun = self.inner.arm.delete_machine(&name).await;
            let begun = begun.map_err(|failure| Act::write(operation, spec.id.as_str()).failed(failure))?;
            self.inner.began(&name, Work::Delete, begun);
            view.state = InstanceState::Creating;
        }
        Ok(view)
    }

    async fn get(&self, id: &InstanceId) -> Result<Option<InstanceView>> {
        let machine = self.inner.machine("find instance", id).await?;
        Ok(machine.map(|machine| self.inner.view(id, &machine)))
    }

    /// The service's listing does not tell whether a machine runs, so the state is `Other` of those that are neither being
    /// made nor deleted: ask [`InstanceProvider::get`] about the ones that matter.
    async fn list(&self, cursor: Option<&Cursor>) -> Result<Page<InstanceView>> {
        let act = Act::read("list instances", self.inner.pool.as_str());
        if cursor.is_none() {
            self.inner.spread.list_begins();
        }
        let page = self.inner.arm.machines(cursor.map(|cursor| cursor.0.as_str())).await;
        let page = page.map_err(|failure| act.failed(failure))?;
        let ours = page.items.iter().filter(|machine| self.inner.is_ours(&machine.common));
        let items = ours
            .filter_map(|machine| Some(self.inner.view(&self.inner.pool.instance_of(&machine.common.name)?, machine)))
            .collect();
        if page.next.is_none() {
            self.inner.spread.list_ended();
        }
        Ok(Page { items, next: page.next.map(Cursor) })
    }

    async fn start(&self, id: &InstanceId) -> Result<InstanceView> {
        let act = Act::write("start instance", id.as_str());
        let name = self.inner.pool.machine(id)?;
        let _alone = self.inner.alone_with_machine(&name).await;
        let mut starting = false;
        match self.inner.progress(&name).await {
            Some((Work::Start, Progress::Running(_))) => starting = true,
            Some((Work::Start, Progress::Failed(why))) if !is_superseded(&why) => {
                return Err(act.failed(refused(why)));
            }
            _ => {}
        }
        let machine = self.inner.machine(act.operation, id).await?.ok_or_else(|| absent(act.operation, id))?;
        let mut view = self.inner.view(id, &machine);
        match view.state {
            InstanceState::Running | InstanceState::Creating | InstanceState::Deleting => return Ok(view),
            _ if starting => {}
            _ if is_changing(&machine) => return Err(busy_for(act.operation, id, CHANGE)),
            _ => {
                let begun = self.inner.arm.start(&name).await.map_err(|failure| act.failed(failure))?;
                self.inner.began(&name, Work::Start, begun);
            }
        }
        view.state = InstanceState::Creating;
        Ok(view)
    }

    async fn stop(&self, id: &InstanceId) -> Result<InstanceView> {
        let act = Act::write("stop instance", id.as_str());
        let name = self.inner.pool.machine(id)?;
        let _alone = self.inner.alone_with_machine(&name).await;
        let mut stopping = false;
        match self.inner.progress(&name).await {
            Some((Work::Stop, Progress::Running(_))) => stopping = true,
            Some((Work::Stop, Progress::Failed(why))) if !is_superseded(&why) => {
                return Err(act.failed(refused(why)));
            }
            _ => {}
        }
        let machine = self.inner.machine(act.operation, id).await?.ok_or_else(|| absent(act.operation, id))?;
        let mut view = self.inner.view(id, &machine);
        // One that is merely shut down still costs: only a deallocated one is where it should be.
        let rests = machine.power == "deallocated" || machine.common.is_in("Deleting");
        if rests {
            return Ok(view);
        }
        if !stopping && machine.power != "deallocating" {
            if is_changing(&machine) {
                return Err(busy_for(act.operation, id, CHANGE));
            }
            let begun = self.inner.arm.deallocate(&name).await.map_err(|failure| act.failed(failure))?;
            self.inner.began(&name, Work::Stop, begun);
        }
        view.state = InstanceState::Stopping;
        Ok(view)
    }

    async fn delete(&self, id: &InstanceId) -> Result<()> {
        let act = Act::write("delete instance", id.as_str());
        let name = self.inner.pool.machine(id)?;
        let _alone = self.inner.alone_with_machine(&name).await;
        match self.inner.progress(&name).await {
            Some((Work::Delete, Progress::Running(_))) => return Ok(()),
            Some((Work::Delete, Progress::Failed(why))) if !is_superseded(&why) => {
                return Err(act.failed(refused(why)));
            }
            // Whatever else goes on is superseded, or refuses this.
            _ => {}
        }
        let Some(machine) = self.inner.machine(act.operation, id).await? else { return Ok(()) };
        if machine.common.is_in("Deleting") {
            return Ok(());
        }
        match self.inner.arm.delete_machine(&name).await {
            Ok(begun) => self.inner.began(&name, Work::Delete, begun),
            Err(Failure::Refused(why)) if why.status == 404 => {}
            Err(failure) => return Err(act.failed(failure)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(provisioning: &str, power: &str, failure: &str) -> InstanceState {
        let mut statuses = vec![json!({ "code": format!("PowerState/{power}") })];
        if power.is_empty() {
            statuses.clear();
        }
        if !failure.is_empty() {
            statuses.push(json!({ "code": format!("ProvisioningState/failed/{failure}") }));
        }
        let body = json!({ "id": "/x", "properties": {
            "provisioningState": provisioning, "instanceView": { "statuses": statuses } } });
        state_of(&Machine::read(&body).unwrap())
    }

    #[test]
    fn power_counts_and_not_provisioning() {
        use InstanceState as S;
        assert_eq!(state("Succeeded", "running", ""), S::Running);
        assert_eq!(state("Updating", "running", ""), S::Running);
        assert_eq!(state("Succeeded", "deallocated", ""), S::Stopped);
        assert_eq!(state("Succeeded", "stopped", ""), S::Stopped);
        assert_eq!(state("Updating", "deallocating", ""), S::Stopping);
        assert_eq!(state("Updating", "starting", ""), S::Creating);
        assert_eq!(state("Creating", "", ""), S::Creating);
        assert_eq!(state("Creating", "running", ""), S::Creating);
        assert_eq!(state("Deleting", "running", ""), S::Deleting);
        assert!(matches!(state("Succeeded", "", ""), S::Other(_)));
        assert!(matches!(state("Succeeded", "unknown", ""), S::Other(_)));
    }

    #[test]
    fn a_machine_whose_guest_may_run_is_never_failed() {
        use InstanceState as S;
        assert_eq!(state("Failed", "running", ""), S::Running);
        assert_eq!(state("Failed", "running", "AttachDiskWhileBeingDetached"), S::Running);
        assert_eq!(state("Failed", "creating", "AllocationFailed"), S::Failed("AllocationFailed".into()));
        assert!(matches!(state("Failed", "", ""), S::Other(_)));
        assert!(matches!(state("Failed", "", "InternalExecutionError"), S::Other(_)));
        assert_eq!(state("Failed", "running", "AllocationFailed"), S::Running);
        assert_eq!(state("Failed", "deallocated", "InternalExecutionError"), S::Stopped);
        assert_eq!(state("Failed", "deallocated", "AllocationFailed"), S::Failed("AllocationFailed".into()));
        assert_eq!(state("Failed", "", "ZonalAllocationFailed"), S::Failed("ZonalAllocationFailed".into()));
        assert_eq!(state("Failed", "running", "OSProvisioningTimedOut"), S::Failed("OSProvisioningTimedOut".into()));
    }
}
