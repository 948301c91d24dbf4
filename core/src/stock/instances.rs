//! The instance pool: index, census, making, recycling, deleting.

use crate::actor::Message;
use crate::busy::BusyGuard;
use crate::census::Census;
use crate::config::Recycle;
use crate::error::{Error, ErrorKind, Result};
use crate::free::{CanBeFree, Free};
use crate::id::{BoxRef, InstanceId, UserId};
use crate::parking::{AwayBox, in_order_of_going};
use crate::plan::{Step, WarmTarget, plan};
use crate::planted::{self, Bug};
use crate::poll::{Poll, passes};
use crate::provider::{InstanceSpec, InstanceState};
use crate::reads::Reads;
use crate::record::{BoxRecord, EventKind, EventRecord, InstanceEvent, InstanceRecord, InstanceStatus, Placement};
use crate::records::{Held, Records, box_key, instance_key, seat_of};
use crate::runtime::Cleared;
use crate::saga::named;
use crate::shared::{Shared, State, limited};
use crate::stock::keep_some;
use crate::stock::upkeep::{AtRest, Upkeep};
use crate::store::Cursor;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The store is not asked for free instances more often than this, however many wait.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(500);
/// So many boxes are read at once when claimed instances are looked through.
const READS_AT_ONCE: usize = 16;

pub(crate) const INSTANCES: Upkeep = Upkeep {
    name: "instance",
    refill: |shared| &shared.refill_instances,
    pace: |state| &mut state.instance_pace,
    waiting: Shared::waiting,
};

impl Shared {
    /// A free instance, out of the index, rather one that this user's box was on last: what may be cached there, or be left there
    /// unseen, is theirs. A hint: the claim's compare-and-swap decides.
    pub(crate) fn take_instance(&self, user: &UserId) -> Option<Held<InstanceRecord>> {
        let mut state = self.state();
        let known = state.familiar.remove(user).and_then(|id| state.free_instances.remove(&id));
        let (id, free) = known.or_else(|| state.free_instances.take())?;
        Some(InstanceRecord::whole(id, free, &self.config.instance_generation))
    }

    /// One was claimed for somebody who came.
    pub(crate) fn took_instance(&self) {
        self.took_one(&INSTANCES);
    }

    /// How many wait for an instance, here and elsewhere.
    pub(crate) fn waiting(&self, state: &State) -> u32 {
        as_count(self.waiters.len()).saturating_add(state.waiting_elsewhere)
    }

    pub(crate) fn put_back(&self, candidate: Held<InstanceRecord>) {
        let Some((id, free)) = InstanceRecord::kept(candidate, &self.config.instance_generation) else { return };
        let mut state = self.state();
        if let Some(user) = &free.last_user {
            state.familiar.insert(user.clone(), id.clone());
        }
        state.free_instances.insert(id, free, &self.random);
        drop(state);
        self.waiters.ring();
    }

    /// Reads the instance table anew, unless that was just done. Only for when the index is empty. Of large pools the boxes are not read
    /// each time: who is parked is then known as of the last time.
    pub(crate) async fn look_for_instances(self: &Arc<Self>) {
        let (instances_read, boxes_read) = {
            let state = self.state();
            (state.instances_read, state.boxes_read)
        };
        let rest = instances_read.reads.last_for(self.config.reads_per_second);
        if !instances_read.is_over(rest.max(LOOK_AT_MOST_EVERY)) {
            return;
        }
        let mut reading = self.begin_reading(boxes_read.is_over(self.rest_after(boxes_read.reads)));
        loop {
            match self.read_instances(&mut reading).await {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = %crate::Report(&error), "could not look for free instances");
                    return;
                }
            }
        }
    }

    /// Begins to read the instance table and, if they are wanted, the boxes on the instances.
    pub(crate) fn begin_reading(&self, boxes: bool) -> Reading {
        let mut state = self.state();
        state.instances_read.begin();
        if boxes {
            state.boxes_read.begin();
        }
        drop(state);
        let (instances, claimed) = (0, 0);
        Reading { cursor: None, complete: false, boxes, instances, claimed, free: Vec::new(), parked: BTreeMap::new() }
    }

    /// One page more of the instance table and, for claimed ones, their boxes if they are wanted; `None` after the last. With that the
    /// free index and, with the boxes, the parked ones follow.
    pub(crate) async fn read_instances(self: &Arc<Self>, reading: &mut Reading) -> Result<Option<Vec<Seen>>> {
        if reading.complete {
            return Ok(None);
        }
        let generation = &self.config.instance_generation;
        let page = self.records.scan::<InstanceRecord>(None, reading.cursor.as_ref()).await?;
        let open = page.items.iter().filter(|(_, held)| held.record.generation == *generation);
        reading.free.extend(open.filter_map(|(_, held)| InstanceRecord::kept(held.clone(), generation)));
        reading.instances += page.items.len();
        reading.cursor = Records::following(page.next);
        reading.complete = reading.cursor.is_none();
        if reading.complete {
            self.show_free(std::mem::take(&mut reading.free));
            self.state().instances_read.reads = Reads::on_page(reading.instances);
        }
        if !reading.boxes {
            return Ok(Some(Vec::new()));
        }
        let reads = page.items.into_iter().map(|(_, held)| async move {
            let InstanceStatus::Claimed { owner, .. } = &held.record.status else { return Ok((held, None)) };
            let key = box_key(&owner.owner, &owner.name);
            let found = self.records.get::<BoxRecord>(&key).await?;
            Ok((held, found))
        });
        let seen: Vec<Seen> = futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        reading.claimed +=
            seen.iter().filter(|(held, _)| matches!(held.record.status, InstanceStatus::Claimed { .. })).count();
        for found in seen.iter().filter_map(|(_, found)| found.as_ref()) {
            if let Placement::Parked { since, .. } = &found.record.placement {
                reading.parked.insert(found.record.owner.clone(), self.away(&found.record, *since));
            }
        }
        if reading.complete {
            let state = &mut *self.state();
            state.parked = std::mem::take(&mut reading.parked);
            state.stamps_ahead.retain(|(owner, _), _| state.parked.contains_key(owner));
            state.boxes_read.reads = reading.reads();
        }
        Ok(Some(seen))
    }

    fn show_free(&self, free: Vec<(InstanceId, Free)>) {
        let any_free = !free.is_empty();
        let known = free.iter().filter_map(|(id, free)| Some((free.last_user.clone()?, id.clone())));
        let familiar = known.collect();
        {
            let mut state = self.state();
            state.familiar = familiar;
            state.free_instances.replace(free, &self.random);
        }
        if any_free && !planted::is(Bug::WaitsForOwnBellOnly) {
            self.waiters.ring();
        }
    }

    /// Asks as many parked boxes as there are waiters to give their instances back; lingering ones when none is parked.
    pub(crate) fn ask_for_room(self: &Arc<Self>) {
        self.ask_for_room_of(self.waiters.len());
    }

    /// Makes room for those who wait elsewhere, a part of it: of a large pool they do not look at all boxes each time, so they may not know
    /// yet who is parked here.
    pub(crate) fn offer_room(self: &Arc<Self>) {
        let (waiting, boxes) = {
            let state = self.state();
            (state.waiting_elsewhere as usize, state.boxes_read.reads)
        };
        if waiting > 0 && !self.is_draining() && self.rest_after(boxes) > LOOK_AT_MOST_EVERY {
            let live = self.state().liveness.live().len();
            self.ask_for_room_of(waiting.div_ceil(live.max(1)));
        }
    }

    fn ask_for_room_of(self: &Arc<Self>, waiting: usize) {
        loop {
            let chosen = {
                let mut state = self.state();
                if state.yielding.len() >= waiting {
                    return;
                }
                let from = if state.parked.keys().any(|owner| !state.yielding.contains(owner)) {
                    &state.parked
                } else {
                    &state.lingering
                };
                let candidates = from.values().filter(|away| !state.yielding.contains(&away.owner));
                let order = in_order_of_going(&*self.policy, candidates, self.now());
                let Some(first) = order.first() else { return };
                let owner = first.owner.clone();
                state.yielding.insert(owner.clone());
                owner
            };
            let BoxRef { owner, name, .. } = chosen;
            self.tell(&(owner, name), Message::Yield);
        }
    }

    /// An instance in `Recycling`, by us: looked at, then free again or deleted. Runs beside the caller.
    pub(crate) fn recycle(self: &Arc<Self>, held: Held<InstanceRecord>, guard: BusyGuard) {
        let shared = Arc::clone(self);
        self.spawn(async move {
            let _guard = guard;
            if let Err(error) = shared.try_recycle(held).await {
                tracing::warn!(error = %crate::Report(&error), "an instance could not be recycled; the next pass tries again");
            }
        });
    }

    pub(crate) async fn try_recycle(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        self.check_in_touch("recycle instance")?;
        let id = held.record.id.clone();
        if let InstanceStatus::Deleting { .. } = held.record.status {
            return self.finish_retire(held).await;
        }
        if held.record.is_draining() {
            return self.retire(held).await;
        }
        let cleared = match self.config.recycle {
            Recycle::Destroy => return self.retire(held).await,
            Recycle::ReuseWhenClean => self.look_whether_clean(&id).await?,
        };
        match cleared {
            Cleared::Clean => self.set_free(held, InstanceEvent::Cleared).await,
            Cleared::Doubtful(why) => {
                self.doubt(&id, None, &why);
                self.retire(held).await
            }
        }
    }

    /// Says that an instance is deleted because it may not be clean.
    pub(crate) fn doubt(self: &Arc<Self>, id: &InstanceId, left_by: Option<&BoxRecord>, why: &str) {
        tracing::warn!(instance = %id, %why, "an instance is deleted because it may not be clean");
        metrics::counter!("boxpool_instances_doubted_total").increment(1);
        self.log(EventRecord {
            owner: left_by.map(|record| record.owner.clone()),
            instance: Some(id.clone()),
            epoch: left_by.map(|record| record.epoch),
            detail: why.to_owned(),
            ..self.event(EventKind::InstanceDoubted)
        });
    }

    /// Looks, and again while it cannot be seen. A machine that cannot be looked at for long is not known to be clean.
    async fn look_whether_clean(&self, id: &InstanceId) -> Result<Cleared> {
        if planted::is(Bug::RecycleWithoutClear) {
            return Ok(Cleared::Clean);
        }
        let limit = self.config.limits.guest_call;
        let mut poll = Poll::new(limit);
        loop {
            self.check_in_touch("recycle instance")?;
            let error = match limited(limit, "clear instance", id, self.runtime.clear(id)).await {
                Ok(cleared) => return Ok(cleared),
                Err(error) => error,
            };
            if self.instance_is_gone(id).await {
                return Ok(Cleared::Doubtful("its machine does not run any more".into()));
            }
            if !poll.again(error.retry_after()).await {
                return Ok(Cleared::Doubtful(format!("it could not be looked at: {}", crate::Report(&error))));
            }
        }
    }

    /// Whether the provider says that the machine surely does not exist or runs nothing.
    pub(crate) async fn instance_is_gone(&self, instance: &InstanceId) -> bool {
        let limit = self.config.limits.guest_call;
        match limited(limit, "find instance", instance, self.instances.get(instance)).await {
            Ok(None) => true,
            Ok(Some(view)) => matches!(view.state, InstanceState::Stopped | InstanceState::Failed(_)),
            Err(_) => planted::is(Bug::ErrorMeansGone),
        }
    }

    /// Makes the record `Free` and shows it to the waiters.
    pub(crate) async fn set_free(self: &Arc<Self>, held: Held<InstanceRecord>, event: InstanceEvent) -> Result<()> {
        let held = self.instance_step(&held, &event).await?;
        if held.record.is_open() {
            self.put_back(held);
        }
        Ok(())
    }

    /// Deletes a machine that nobody uses, and then its record.
    pub(crate) async fn retire(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        let event = match held.record.status {
            InstanceStatus::Deleting { .. } => InstanceEvent::TakeOver { node: self.node.clone() },
            _ => InstanceEvent::Retire { node: self.node.clone() },
        };
        let held = self.instance_step(&held, &event).await?;
        self.finish_retire(held).await
    }

    /// `Deleting`, by us: the machine goes, and then its record.
    pub(crate) async fn finish_retire(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        let key = instance_key(&held.record.id);
        self.state().free_instances.remove(&held.record.id);
        self.delete_machine(&held.record.id).await?;
        self.records.delete(&key, &held.version).await?;
        self.refill_instances.notify_one();
        Ok(())
    }

    /// Deletes a machine and waits until it is gone.
    pub(crate) async fn delete_machine(&self, id: &InstanceId) -> Result<()> {
        #[cfg(feature = "planted")]
        let id = &planted::name_for_delete(id);
        let limit = self.config.limits.instance_ready;
        let mut poll = Poll::new(limit);
        loop {
            self.check_in_touch("delete instance")?;
            let deleted = limited(poll.left(), "delete instance", id, self.instances.delete(id)).await;
            let gone = match deleted {
                Err(_) if planted::is(Bug::ErrorMeansGone) => Ok(true),
                Ok(()) => {
                    let found = limited(poll.left(), "find instance", id, self.instances.get(id)).await;
                    found.map(|view| view.is_none())
                }
                Err(error) => Err(error),
            };
            let asked = match gone {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                Err(error) if error.is_retryable() => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                let detail = format!("it is still there after {limit:?}");
                return Err(Error::new(ErrorKind::TimedOut, "delete instance", id).with_detail(detail));
            }
        }
    }

    /// Keeps the instance pool at its target while this node is the maintainer.
    pub(crate) async fn maintain_instances(self: Arc<Self>) {
        self.keep_up(&INSTANCES, |shared| async move { shared.maintain_instances_once().await }).await;
    }

    /// Takes all steps that follow from one count.
    async fn maintain_instances_once(self: &Arc<Self>) -> Result<Option<AtRest>> {
        let (mut all, begun) = (InstanceCount::default(), Instant::now());
        let count = |_, held: Held<InstanceRecord>| all.add(&held, &self.config.instance_generation);
        self.records.scan_each(None, count).await?;
        self.state().instance_pace.counted(all.census.total, begun.elapsed());
        let mut target = self.instance_target().await;
        if planted::is(Bug::MaxTotalIgnored) {
            target.max_total = 1_000;
        }
        if planted::is(Bug::AllowanceIgnored) {
            target.creates_per_minute = None;
        }
        let mut census = self.count_instances(all.census, &target);
        self.gauge("boxpool_instances_free", census.free);
        self.gauge("boxpool_instances_reserve", census.reserve);
        self.gauge("boxpool_instances_total", census.total);
        let (may_make, may_wake) = {
            let state = self.state();
            (state.instance_pace.making.allowed(), state.instance_pace.waking.allowed())
        };
        if may_wake == 0 {
            // What cannot be woken now is not counted on, and not made anew for the reserve either.
            (census.reserve, census.stopping) = (0, census.stopping + census.reserve);
        }
        if census.waiting == 0 {
            let spare = census.free.saturating_sub(target.min_free).min(census.expected);
            self.attach_expected(spare);
            (census.free, census.expected) = (census.free - spare, census.expected - spare);
        }
        loop {
            let step = plan(census, target);
            match step {
                Step::Rest => return Ok(Some(AtRest { census, target })),
                Step::Wake(n) => self.wake_some(all.reserve.iter(), n.get().min(may_wake)),
                Step::Provision(_) if may_make == 0 => return Ok(None),
                Step::Provision(n) => self.provision(n.get().min(may_make), &all.seats, (census, target)).await?,
                Step::RetireStale(n) => {
                    self.retire_some(all.stale_free.iter().chain(&all.stale_reserve), n.get());
                }
                Step::Stop(n) => self.stop_some(all.free.iter(), n.get()),
                Step::Retire(n) => drop(self.retire_some(all.free.iter(), n.get())),
                Step::RetireReserve(n) => drop(self.retire_some(all.reserve.iter(), n.get())),
            }
            census = census.after(step);
        }
    }

    fn count_instances(&self, counted: Census, target: &WarmTarget) -> Census {
        let waiting = self.waiting(&self.state());
        let mut census = Census { waiting, expected: self.expected(), ..counted };
        self.state().instance_pace.tell(&mut census, target);
        if planted::is(Bug::RefillForgetsComing) {
            census.coming = 0;
        }
        census
    }

    /// Retires the first so many on which this node is not at work, beside the caller; tells how many those are.
    pub(crate) fn retire_some<'a>(
        self: &Arc<Self>,
        from: impl Iterator<Item = &'a Held<InstanceRecord>>,
        n: u32,
    ) -> usize {
        let entered = self.enter_some(from, n);
        let count = entered.len();
        for (held, guard) in entered {
            let shared = Arc::clone(self);
            self.spawn(async move {
                let _guard = guard;
                // Claimed in the meantime: the compare-and-swap says so and it stays.
                if let Err(error) = shared.retire(held).await {
                    tracing::info!(error = %crate::Report(&error), "an instance was not retired");
                }
            });
        }
        count
    }

    /// Whether one more is wanted after so many were begun. A slow store takes seconds for each, and who waited then may not
    /// wait any more.
    fn is_still_wanted(&self, census: Census, target: WarmTarget, begun: u32) -> bool {
        let waiting = self.waiting(&self.state());
        let now = Census {
            coming: census.coming.saturating_add(begun),
            creating: census.creating.saturating_add(begun),
            total: census.total.saturating_add(begun),
            allowance: census.allowance.map(|allowance| allowance.saturating_sub(begun)),
            waiting: waiting.min(census.waiting),
            ..census
        };
        matches!(plan(now, target), Step::Provision(_))
    }

    /// Takes free seats and begins to make an instance on each.
    async fn provision(self: &Arc<Self>, n: u32, taken: &Seats, (census, target): (Census, WarmTarget)) -> Result<()> {
        let most = if planted::is(Bug::MaxTotalIgnored) { 1_000 } else { self.config.instances.max_total };
        let open: Vec<String> = (0..most).filter(|seat| !taken.has(*seat)).map(name_of_seat).take(n as usize).collect();
        for (begun, seat) in (0..).zip(open) {
            self.check_in_touch("create instance")?;
            if begun > 0 && !self.is_still_wanted(census, target, begun) && !planted::is(Bug::ProvisionsAsDecided) {
                break;
            }
            let id = named("create instance", InstanceId::new(format!("{seat}-{}", self.random.suffix())))?;
            let Some(guard) = self.busy.enter(id.as_str()) else { continue };
            let status = InstanceStatus::Provisioning { node: self.node.clone() };
            let generation = self.config.instance_generation.clone();
            let record = InstanceRecord::new(id.clone(), status, generation, self.now());
            let held = match self.records.insert_once(&instance_key(&id), record).await {
                Ok(held) => held,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue, // another maintainer took the seat
                Err(error) => return Err(error),
            };
            {
                let mut state = self.state();
                state.instance_pace.begun(1, &target);
                state.instance_pace.making.begun();
            }
            let shared = Arc::clone(self);
            let make = async move {
                let _guard = guard;
                let begun = Instant::now();
                let outcome = shared.finish_provision(held).await;
                let mut state = shared.state();
                match outcome {
                    Ok(()) => {
                        state.instance_pace.making.succeeded();
                        state.forecast.made_in(begun.elapsed());
                    }
                    Err(error) => {
                        tracing::warn!(error = %crate::Report(&error), "an instance could not be made");
                        metrics::counter!("boxpool_instances_failed_total").increment(1);
                        state.instance_pace.making.failed(begun, &error);
                    }
                }
            };
            if planted::is(Bug::CreatesOneByOne) { make.await } else { self.spawn(make) }
        }
        Ok(())
    }

    /// `Provisioning`, by us: make it, wait until it is ready and clean, show it. What fails is deleted.
    pub(crate) async fn finish_provision(self: &Arc<Self>, held: Held<InstanceRecord>) -> Result<()> {
        let outcome = self.await_instance(&held.record.id).await;
        match outcome {
            Ok(()) => self.set_free(held, InstanceEvent::Ready).await,
            Err(error) => {
                if let Err(left) = self.retire(held).await {
                    tracing::warn!(error = %crate::Report(&left), "a failed instance could not be deleted yet");
                }
                Err(error)
            }
        }
    }

    async fn await_instance(&self, id: &InstanceId) -> Result<()> {
        let mut poll = Poll::new(self.config.limits.instance_ready);
        let spec = InstanceSpec::new(id.clone(), self.config.instance_generation.clone());
        let mut seen = false;
        loop {
            self.check_in_touch("create instance")?;
            // Asked for until it was seen, and only looked at from then on: what another node deletes is not made again.
            let look = async {
                if seen && !planted::is(Bug::MadeAgain) {
                    self.instances.get(id).await
                } else {
                    self.instances.ensure(&spec).await.map(Some)
                }
            };
            let asked = match limited(poll.left(), "create instance", id, look).await {
                Ok(view) => match view.map_or(InstanceState::Deleting, |view| view.state) {
                    InstanceState::Running => break,
                    InstanceState::Creating if planted::is(Bug::FreeBeforeReady) => return Ok(()),
                    InstanceState::Failed(why) => {
                        return Err(Error::new(ErrorKind::Permanent, "create instance", id).with_detail(why));
                    }
                    InstanceState::Deleting => {
                        return Err(Error::new(ErrorKind::Conflict, "create instance", id)
                            .with_detail("it was deleted while it was being made"));
                    }
                    InstanceState::Creating
                    | InstanceState::Stopping
                    | InstanceState::Stopped
                    | InstanceState::Other(_) => {
                        seen = true;
                        None
                    }
                },
                Err(error) if passes(&error) => error.retry_after(),
                Err(error) => return Err(error),
            };
            if !poll.again(asked).await {
                return Err(self.not_in_time("create instance", id));
            }
        }
        self.clear_before_use(id).await
    }
}

/// An instance, and the box that its claim names.
pub(crate) type Seen = (Held<InstanceRecord>, Option<Held<BoxRecord>>);

/// How far the instance table was read.
pub(crate) struct Reading {
    cursor: Option<Cursor>,
    complete: bool,
    /// Whether the boxes on the instances are wanted.
    boxes: bool,
    instances: usize,
    claimed: usize,
    free: Vec<(InstanceId, Free)>,
    parked: BTreeMap<BoxRef, AwayBox>,
}

impl Reading {
    pub(crate) fn reads(&self) -> Reads {
        let mut reads = Reads::on_page(self.instances);
        reads.add_alone(self.claimed);
        reads
    }
}

/// The instances, counted, and those that something may be done with.
#[derive(Default)]
struct InstanceCount {
    census: Census,
    seats: Seats,
    free: Vec<Held<InstanceRecord>>,
    reserve: Vec<Held<InstanceRecord>>,
    stale_free: Vec<Held<InstanceRecord>>,
    stale_reserve: Vec<Held<InstanceRecord>>,
}

impl InstanceCount {
    fn add(&mut self, held: &Held<InstanceRecord>, generation: &str) {
        self.census.add_instance(&held.record, generation);
        self.seats.take(&held.record.id);
        if held.record.cordon.is_some() {
            return;
        }
        match (&held.record.status, held.record.generation == generation) {
            (InstanceStatus::Free, true) => keep_some(&mut self.free, held),
            (InstanceStatus::Free, false) => keep_some(&mut self.stale_free, held),
            (InstanceStatus::Stopped, true) => keep_some(&mut self.reserve, held),
            (InstanceStatus::Stopped, false) => keep_some(&mut self.stale_reserve, held),
            _ => {}
        }
    }
}

/// Which seats are taken, a bit each.
#[derive(Default)]
struct Seats(Vec<u64>);

/// More seats than this are not remembered: a name that looks like a far one must not cost memory.
const MOST_SEATS: u32 = 10_000_000;

impl Seats {
    fn take(&mut self, id: &InstanceId) {
        let seat = seat_of(id);
        let number = seat.strip_prefix('i').and_then(|digits| digits.parse::<u32>().ok());
        // An adopted machine has a name, and so a seat, of another kind.
        let Some(number) = number.filter(|number| *number < MOST_SEATS && name_of_seat(*number) == seat) else {
            return;
        };
        let (word, bit) = (number as usize / 64, number % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

fn name_of_seat(number: u32) -> String {
    format!("i{number:05}")
}

pub(crate) fn as_count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_taken_by_its_own_name_alone() {
        let mut seats = Seats::default();
        for id in ["i00003-8f", "i00064", "i5-adopted", "vm7", "i4294967295-x", "i100000-1"] {
            seats.take(&InstanceId::new(id).unwrap());
        }
        let taken: Vec<u32> = (0..100_010).filter(|seat| seats.has(*seat)).collect();
        assert_eq!(taken, [3, 64, 100_000]);
    }
}
