//! Budgets: all callers of this process together stay below the limits that Azure publishes, for each machine and for
//! the subscription, and when the service says "slow down" to one of them, all of them wait.
//!
//! The limits of the service are shared with whoever else works in the subscription, so a budget that is kept can still
//! meet a refusal; the gate that closes then is what holds the pool back.

use crate::errors::Refusal;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A call that would have to wait for longer is refused instead, with the time to wait.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// When the service refuses without saying for how long.
const DEFAULT_CLOSED: Duration = Duration::from_secs(10);
/// Machines whose budgets are remembered. Full ones are as good as forgotten.
const MAX_MACHINES: usize = 10_000;

/// What a request costs from which budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A GET of one resource.
    Read,
    /// A page of a listing.
    List,
    /// A poll of an operation.
    Poll,
    /// A PUT of a machine.
    PutMachine,
    /// Start, PATCH.
    UpdateMachine,
    /// Deallocate, delete.
    DeleteMachine,
    /// Attach or detach.
    Attach,
    /// PUT or PATCH of a disk or snapshot.
    WriteDisk,
    /// DELETE of a disk or snapshot.
    DeleteDisk,
}

/// Requests that come back by and by, up to a number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Budget {
    per_minute: f64,
    most: f64,
}

const fn budget(per_minute: f64, most: f64) -> Budget {
    Budget { per_minute, most }
}

impl Class {
    /// Four fifths of what Azure publishes for one machine.
    fn of_machine(self) -> Option<Budget> {
        match self {
            Self::Read => Some(budget(9.6, 28.0)),
            Self::Poll => Some(budget(12.0, 36.0)),
            Self::PutMachine | Self::UpdateMachine | Self::DeleteMachine | Self::Attach => Some(budget(3.2, 9.0)),
            Self::List | Self::WriteDisk | Self::DeleteDisk => None,
        }
    }

    /// Four fifths of what Azure publishes for a subscription: Compute's own budgets, and Resource Manager's where those
    /// are smaller (10 writes and deletes and 25 reads a second).
    fn of_subscription(self) -> Budget {
        match self {
            Self::Read | Self::Poll => budget(1_200.0, 200.0),
            Self::List => budget(240.0, 200.0),
            Self::PutMachine | Self::UpdateMachine | Self::DeleteMachine | Self::Attach => budget(400.0, 160.0),
            Self::WriteDisk | Self::DeleteDisk => budget(480.0, 160.0),
        }
    }

    fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::List | Self::Poll)
    }
}

#[derive(Debug, Clone, Copy)]
struct Level {
    left: f64,
    at: Instant,
}

impl Level {
    fn full(budget: Budget, now: Instant) -> Self {
        Self { left: budget.most, at: now }
    }

    /// How long until one is there; nothing is taken.
    fn wait(&mut self, budget: Budget, now: Instant) -> Duration {
        let minutes = now.saturating_duration_since(self.at).as_secs_f64() / 60.0;
        self.left = (self.left + minutes * budget.per_minute).min(budget.most);
        self.at = now;
        let missing = (1.0 - self.left).max(0.0);
        Duration::from_secs_f64(missing / budget.per_minute * 60.0)
    }
}

#[derive(Debug, Default)]
struct State {
    subscription: BTreeMap<Class, Level>,
    machines: BTreeMap<(String, Class), Level>,
    /// Until when which gate is closed: for reads or writes, of the subscription or of one machine.
    closed: BTreeMap<(Option<String>, bool), Instant>,
}

/// The budgets of one subscription, shared by all that call it from this process.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    state: Mutex<State>,
    /// For the simulated cloud, which is asked more often than a real one would be.
    unlimited: bool,
}

impl Throttle {
    pub(crate) fn new(limited: bool) -> Self {
        Self { state: Mutex::default(), unlimited: !limited }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. `Err` is how long it would be when that is too long.
    pub(crate) async fn admit(&self, class: Class, machine: Option<&str>) -> Result<(), Duration> {
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            let wait = self.try_take(class, machine, Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            if Instant::now() + wait > deadline {
                return Err(wait);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Zero when a place was taken, else how long until there may be one.
    fn try_take(&self, class: Class, machine: Option<&str>, now: Instant) -> Duration {
        let mut state = self.state();
        let own = machine.map(str::to_ascii_lowercase);
        let mut wait = Duration::ZERO;
        for gate in [None, own.clone()] {
            if let Some(until) = state.closed.get(&(gate, class.is_read())) {
                wait = wait.max(until.saturating_duration_since(now));
            }
        }
        if self.unlimited || !wait.is_zero() {
            return wait;
        }
        let budget = class.of_subscription();
        let level = state.subscription.entry(class).or_insert_with(|| Level::full(budget, now));
        wait = wait.max(level.wait(budget, now));
        let of_machine = own.zip(class.of_machine());
        if let Some((machine, budget)) = &of_machine {
            if state.machines.len() >= MAX_MACHINES {
                state.machines.retain(|(_, class), level| {
                    class.of_machine().is_some_and(|budget| {
                        level.wait(budget, now);
                        level.left < budget.most
                    })
                });
            }
            let level = state.machines.entry((machine.clone(), class)).or_insert_with(|| Level::full(*budget, now));
            wait = wait.max(level.wait(*budget, now));
        }
        if wait.is_zero() {
            if let Some(level) = state.subscription.get_mut(&class) {
                level.left -= 1.0;
            }
            if let Some((machine, _)) = of_machine
                && let Some(level) = state.machines.get_mut(&(machine, class))
            {
                level.left -= 1.0;
            }
        }
        wait
    }

    /// The service said "slow down": the gate stays closed for everybody for as long as it asked.
    pub(crate) fn refused(&self, class: Class, machine: Option<&str>, refusal: &Refusal) {
        // Network answers 429 for a resource in motion; that is no throttling.
        if refusal.status != 429 || refusal.code == "RetryableError" {
            return;
        }
        let wait = refusal.retry_after.unwrap_or(DEFAULT_CLOSED);
        // Compute says whose budget is empty in its words; a machine's own closes that machine's gate alone.
        let of_one = refusal.has_code("TooManyRequests") && !refusal.targets_subscription;
        let gate = machine.filter(|_| of_one).map(str::to_ascii_lowercase);
        let until = Instant::now() + wait;
        let mut state = self.state();
        let now = Instant::now();
        state.closed.retain(|_, until| *until > now);
        let closed = state.closed.entry((gate, class.is_read())).or_insert(until);
        *closed = (*closed).max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Answer;

    fn refusal(body: &str, wait: &str) -> Refusal {
        Refusal::of(&Answer {
            status: 429,
            headers: vec![("Retry-After".into(), wait.into())],
            body: body.as_bytes().to_vec(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_is_not_updated_more_often_than_its_budget_allows() {
        let throttle = Throttle::new(true);
        let began = Instant::now();
        let mut done = 0;
        while began.elapsed() < Duration::from_secs(600) {
            if throttle.admit(Class::Attach, Some("vm")).await.is_ok() {
                done += 1;
            }
        }
        // Azure: a dozen at once, and 4 a minute.
        assert!((35..=12 + 40).contains(&done), "{done}");
        assert!(throttle.admit(Class::Attach, Some("other")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_caller_was_told_holds_for_all() {
        let throttle = Throttle::new(true);
        let whole = refusal(r#"{"error":{"code":"SubscriptionRequestsThrottled"}}"#, "5");
        throttle.refused(Class::WriteDisk, None, &whole);
        let began = Instant::now();
        throttle.admit(Class::Read, None).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO, "reads have a gate of their own");
        throttle.admit(Class::PutMachine, Some("vm")).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn one_machine_that_is_asked_too_often_holds_up_no_other() {
        let throttle = Throttle::new(true);
        let body = r#"{"error":{"code":"OperationNotAllowed","details":[{"code":"TooManyRequests","target":"UpdateVMResource"}]}}"#;
        throttle.refused(Class::Attach, Some("VM"), &refusal(body, "15"));
        let began = Instant::now();
        throttle.admit(Class::Attach, Some("other")).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        throttle.admit(Class::Attach, Some("vm")).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(15));
        let body = r#"{"error":{"code":"OperationNotAllowed","details":[{"code":"TooManyRequests","target":"UpdateVMSubscriptionMaximum"}]}}"#;
        throttle.refused(Class::Attach, Some("vm"), &refusal(body, "5"));
        throttle.admit(Class::Attach, Some("other")).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_is_told_and_not_waited() {
        let throttle = Throttle::new(true);
        throttle.refused(Class::WriteDisk, None, &refusal("", "1200"));
        let began = Instant::now();
        assert_eq!(throttle.admit(Class::WriteDisk, None).await, Err(Duration::from_secs(1_200)));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_in_motion_is_no_throttling() {
        let throttle = Throttle::new(true);
        throttle.refused(Class::PutMachine, None, &refusal(r#"{"error":{"code":"RetryableError"}}"#, "600"));
        assert!(throttle.admit(Class::PutMachine, None).await.is_ok());
    }
}
