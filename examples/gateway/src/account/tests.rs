//! Accounts and keys: alone, at the same time in every order, with lost answers, and with a death at every step.

use super::record::ACCOUNTS;
use super::*;
use async_trait::async_trait;
use boxpool::{Cursor, Entry, Key, MemoryStore, Page, Stored, Table};
use futures::FutureExt;
use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// Longest stretch that one of two changes runs before the other goes on, in calls to the store.
const STRETCH_MAX: usize = 10;

/// Orders in which two changes are run against each other: three stretches in turn, then the rest of one, then the other.
#[derive(Debug, Clone, Copy)]
struct Order {
    first: bool,
    stretches: [usize; 3],
}

fn orders() -> impl Iterator<Item = Order> {
    (0..2 * STRETCH_MAX.pow(3)).map(|number| {
        let digit = |place: u32| number / 2 / STRETCH_MAX.pow(place) % STRETCH_MAX;
        Order { first: number % 2 == 0, stretches: [digit(0), digit(1), digit(2)] }
    })
}

fn key(number: u8) -> PublicKey {
    PublicKey::from(KeyData::Ed25519(Ed25519PublicKey([number; 32])))
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It happens, and the answer is lost.
    AnswerLost,
    /// It does not happen, and nobody knows.
    RequestLost,
    /// It does not happen, and nothing does from then on.
    Death,
}

/// A store that lets others go first before each call, and fails at one of them.
struct Store {
    inner: MemoryStore,
    fault: Fault,
    at: usize,
    calls: AtomicUsize,
}

impl Store {
    fn accounts(inner: &MemoryStore, fault: Fault, at: usize) -> Accounts {
        Accounts::new(Arc::new(Self { inner: inner.clone(), fault, at, calls: AtomicUsize::new(0) }))
    }

    async fn call<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        LetOthers(false).await;
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let lost = || Error::new(ErrorKind::UnknownOutcome, "call", "store").with_effect(Effect::Unknown);
        match self.fault {
            Fault::Death if number >= self.at => Err(Error::new(ErrorKind::Unavailable, "call", "store")),
            Fault::AnswerLost if number == self.at => call.await.and_then(|_| Err(lost())),
            Fault::RequestLost if number == self.at => Err(lost()),
            _ => call.await,
        }
    }
}

/// Pending once.
struct LetOthers(bool);

impl Future for LetOthers {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[async_trait]
impl StateStore for Store {
    async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        // A question that is lost is no unknown outcome; only writes are lost here.
        LetOthers(false).await;
        match self.fault {
            Fault::Death if self.calls.load(Ordering::SeqCst) > self.at => {
                Err(Error::new(ErrorKind::Unavailable, "call", "store"))
            }
            _ => self.inner.get(key).await,
        }
    }
    async fn insert(&self, key: &Key, value: &str) -> Result<Version> {
        self.call(self.inner.insert(key, value)).await
    }
    async fn update(&self, key: &Key, version: &Version, value: &str) -> Result<Version> {
        self.call(self.inner.update(key, version, value)).await
    }
    async fn delete(&self, key: &Key, version: &Version) -> Result<()> {
        self.call(self.inner.delete(key, version)).await
    }
    async fn scan(&self, _: Table, _: Option<&str>, _: Option<&Cursor>, _: usize) -> Result<Page<Entry>> {
        Ok(Page { items: Vec::new(), next: None })
    }
}

/// Runs a future that waits for nothing but its turn.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Some(done) = future.as_mut().now_or_never() {
            return done;
        }
    }
}

/// Runs two futures in the order that is given.
fn interleave<A, B>(order: Order, a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut done_a, mut done_b) = (None, None);
    let mut turn = order.first;
    for stretch in order.stretches.into_iter().chain([1000, 1000]) {
        for _ in 0..stretch {
            match turn {
                true if done_a.is_none() => done_a = a.as_mut().now_or_never(),
                false if done_b.is_none() => done_b = b.as_mut().now_or_never(),
                _ => {}
            }
        }
        turn = !turn;
    }
    (done_a.unwrap(), done_b.unwrap())
}

/// A store, and accounts in it that nothing goes wrong with.
fn fresh() -> (MemoryStore, Accounts) {
    let store = MemoryStore::new();
    (store.clone(), Accounts::new(Arc::new(store)))
}

fn opens(accounts: &Accounts, number: u8) -> Option<UserId> {
    match run(accounts.find(&key(number))).unwrap() {
        Finding::Opens(account) => Some(account.id),
        Finding::Unknown | Finding::Removed => None,
    }
}

fn who(account: u8, with: u8) -> KeyInUse {
    KeyInUse { account: account_id(&key(account)).unwrap(), key: KeyId::of(&key(with)) }
}

async fn add(accounts: &Accounts, who: &KeyInUse, number: u8) -> std::result::Result<Added, KeyError> {
    let label = format!("k{number}");
    accounts.add_key(who, &key(number), Some(&label), 10, Timestamp(5)).await
}

async fn remove(accounts: &Accounts, who: &KeyInUse, number: u8) -> std::result::Result<KeyRemoved, KeyError> {
    let fingerprint = texts(&key(number)).unwrap().0;
    accounts.remove_key(who, &fingerprint, true, Timestamp(6)).await
}

fn listed(accounts: &Accounts, who: &KeyInUse) -> Vec<KeyId> {
    run(accounts.keys(who)).unwrap().into_iter().map(|entry| entry.id).collect()
}

#[test]
fn the_account_id_is_the_whole_fingerprint_in_hex_and_stays() {
    let (_, accounts) = fresh();
    let account = run(accounts.ensure(&key(1))).unwrap();
    assert_eq!(account.id.as_str().len(), 64);
    assert!(account.id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
    assert!(account.fingerprint.starts_with("SHA256:") && account.key.split(' ').count() == 2);
    assert_eq!(run(accounts.ensure(&key(1))).unwrap(), account);
    run(add(&accounts, &who(1, 1), 2)).unwrap();
    run(remove(&accounts, &who(1, 2), 1)).unwrap();
    assert_eq!(opens(&accounts, 2), Some(account.id));
}

#[test]
fn an_account_of_the_first_layout_logs_in_as_before_and_can_have_more_keys() {
    let (store, accounts) = fresh();
    let id = account_id(&key(1)).unwrap();
    let (fingerprint, line) = texts(&key(1)).unwrap();
    let old = serde_json::json!({
        "schema": 1, "id": id, "fingerprint": fingerprint, "key": line, "created": 7, "of_a_later_version": true
    });
    run(store.insert(&Key::new(ACCOUNTS, id.as_str(), "account"), &old.to_string())).unwrap();
    let found = run(accounts.ensure(&key(1))).unwrap();
    assert_eq!((&found.id, found.created, &found.fingerprint), (&id, Timestamp(7), &fingerprint));
    assert!(matches!(run(add(&accounts, &who(1, 1), 1)), Err(KeyError::Yours(label)) if label == "first"));

    run(add(&accounts, &who(1, 1), 2)).unwrap();
    assert_eq!((opens(&accounts, 1), opens(&accounts, 2)), (Some(id.clone()), Some(id.clone())));
    // What an older gateway reads names no key any more, so that it cannot let in one that was removed.
    let text = run(store.get(&AccountRecord::at(&id))).unwrap().unwrap().value;
    let written: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&written["schema"], &written["fingerprint"]), (&2.into(), &serde_json::Value::Null));
    assert_eq!(written["of_a_later_version"], true);
    run(remove(&accounts, &who(1, 2), 1)).unwrap();
    assert_eq!(run(accounts.find(&key(1))).unwrap(), Finding::Removed);
    assert!(run(accounts.ensure(&key(1))).is_err());
    assert_eq!(opens(&accounts, 2), Some(id));
}

#[test]
fn the_use_of_a_key_is_noted_once_in_its_interval_and_a_clock_that_was_wrong_is_got_over() {
    let (store, accounts) = fresh();
    let account = run(accounts.ensure(&key(1))).unwrap();
    let made = account.key_used.unwrap();
    let (early, late) = (Timestamp(made.0 + 3_599_999), Timestamp(made.0 + 3_600_000));
    let version = || run(store.get(&AccountRecord::at(&account.id))).unwrap().unwrap().version;
    let before = version();
    assert!(!account.use_is_to_be_noted(early) && account.use_is_to_be_noted(late));
    assert_eq!((run(accounts.note_use(&who(1, 1), early)).unwrap(), version()), (false, before));
    assert!(run(accounts.note_use(&who(1, 1), late)).unwrap());
    let noted = version();
    assert_eq!((run(accounts.note_use(&who(1, 1), late)).unwrap(), version()), (false, noted));
    assert_eq!(run(accounts.ensure(&key(1))).unwrap().key_used, Some(late));
    assert!(run(accounts.note_use(&who(1, 1), made)).unwrap(), "the clock ran ahead");

    // A key that was added has not been used yet; one that was removed comes not back by that.
    run(add(&accounts, &who(1, 1), 2)).unwrap();
    assert_eq!(run(accounts.keys(&who(1, 1))).unwrap()[1].used, None);
    assert!(run(accounts.note_use(&who(1, 2), late)).unwrap());
    run(remove(&accounts, &who(1, 1), 2)).unwrap();
    assert!(!run(accounts.note_use(&who(1, 2), Timestamp(2 * late.0))).unwrap());
    assert_eq!(opens(&accounts, 2), None);
}

#[test]
fn noting_a_use_undoes_no_change_that_is_made_at_the_same_time() {
    for order in orders() {
        let (store, accounts) = fresh();
        run(accounts.ensure(&key(1))).unwrap();
        run(add(&accounts, &who(1, 1), 2)).unwrap();
        let (here, there) = (Store::accounts(&store, Fault::None, 0), Store::accounts(&store, Fault::None, 0));
        let (user, other) = (who(1, 1), who(1, 2));
        let (removed, noted) = interleave(order, remove(&here, &user, 2), there.note_use(&other, Timestamp(9)));
        assert!(removed.is_ok() && noted.is_ok(), "{order:?}: {removed:?} {noted:?}");
        assert_eq!((listed(&accounts, &user).len(), opens(&accounts, 2)), (1, None), "{order:?}");
    }
}

#[test]
fn a_record_of_a_newer_layout_is_left_alone() {
    let (store, accounts) = fresh();
    let id = account_id(&key(1)).unwrap();
    let newer = serde_json::json!({"schema": 3, "id": id, "created": 7});
    run(store.insert(&AccountRecord::at(&id), &newer.to_string())).unwrap();
    assert_eq!(run(accounts.find(&key(1))).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_removed_key_opens_nothing_can_come_back_and_the_last_one_stays() {
    let (_, accounts) = fresh();
    run(accounts.ensure(&key(1))).unwrap();
    run(add(&accounts, &who(1, 1), 2)).unwrap();
    assert!(matches!(run(add(&accounts, &who(1, 1), 2)), Err(KeyError::Yours(_))));
    run(remove(&accounts, &who(1, 1), 2)).unwrap();
    assert_eq!(run(accounts.find(&key(2))).unwrap(), Finding::Unknown);
    assert!(matches!(run(remove(&accounts, &who(1, 1), 1)), Err(KeyError::Last(_))));
    assert!(matches!(run(remove(&accounts, &who(1, 1), 2)), Err(KeyError::NotFound(_))));
    run(add(&accounts, &who(1, 1), 2)).unwrap();
    run(remove(&accounts, &who(1, 2), 1)).unwrap();
    // The first key comes back to its own account, or goes to another.
    run(add(&accounts, &who(1, 2), 1)).unwrap();
    assert_eq!(opens(&accounts, 1), Some(account_id(&key(1)).unwrap()));
    run(remove(&accounts, &who(1, 2), 1)).unwrap();
    run(accounts.ensure(&key(3))).unwrap();
    run(add(&accounts, &who(3, 3), 1)).unwrap();
    assert_eq!(opens(&accounts, 1), Some(account_id(&key(3)).unwrap()));
    assert!(matches!(run(add(&accounts, &who(1, 2), 1)), Err(KeyError::Taken)));
}

#[test]
fn who_logged_in_with_a_key_that_was_removed_since_changes_nothing() {
    let (_, accounts) = fresh();
    run(accounts.ensure(&key(1))).unwrap();
    run(add(&accounts, &who(1, 1), 2)).unwrap();
    assert!(matches!(run(accounts.remove_key(&who(1, 2), "k2", false, Timestamp(6))), Err(KeyError::InUse(_))));
    run(remove(&accounts, &who(1, 1), 2)).unwrap();
    assert!(matches!(run(add(&accounts, &who(1, 2), 3)), Err(KeyError::Gone)));
    assert!(matches!(run(remove(&accounts, &who(1, 2), 1)), Err(KeyError::Gone)));
    assert!(matches!(run(accounts.keys(&who(1, 2))), Err(KeyError::Gone)));
}

#[test]
fn labels_are_plain_and_name_one_key_each() {
    let (_, accounts) = fresh();
    run(accounts.ensure(&key(1))).unwrap();
    let add = |number: u8, comment: &str, label: Option<&str>| {
        let mut key = key(number);
        key.set_comment(comment);
        run(accounts.add_key(&who(1, 1), &key, label, 4, Timestamp(5))).map(|added| added.key.label)
    };
    assert_eq!(add(2, "me@laptop", None).unwrap(), "me@laptop");
    assert_eq!(add(3, "a b", None).unwrap(), "key-2");
    assert!(matches!(add(4, "", Some("first")), Err(KeyError::LabelTaken(_))));
    for bad in ["", "-x", "a b", "SHA256:x", "\u{1b}[2J", &"x".repeat(65)] {
        assert!(matches!(add(4, "", Some(bad)), Err(KeyError::BadLabel(_))), "{bad:?}");
    }
    assert_eq!(add(4, "me@laptop", None).unwrap(), "key-3");
    assert!(matches!(add(5, "", None), Err(KeyError::TooMany(4))));
    assert!(matches!(run(accounts.rename_key(&who(1, 1), "key-2", "first")), Err(KeyError::LabelTaken(_))));
    assert_eq!(run(accounts.rename_key(&who(1, 1), "key-2", "old")).unwrap().id, KeyId::of(&key(3)));
    assert!(matches!(run(accounts.rename_key(&who(1, 1), "key-2", "x")), Err(KeyError::NotFound(_))));
}

#[test]
fn certificates_of_one_principal_open_one_account_that_has_no_keys() {
    let (_, accounts) = fresh();
    let named = |principal: &str| Certified { authority: "SHA256:a".into(), principal: principal.into() };
    let first = run(accounts.ensure_certified(named("alice"), &key(1))).unwrap();
    let second = run(accounts.ensure_certified(named("alice"), &key(2))).unwrap();
    let other = run(accounts.ensure_certified(named("bob"), &key(1))).unwrap();
    assert!(first.id == second.id && first.id != other.id);
    assert_eq!(run(accounts.find(&key(1))).unwrap(), Finding::Unknown);
    let who = KeyInUse { account: first.id, key: KeyId::of(&key(1)) };
    assert!(matches!(run(add(&accounts, &who, 2)), Err(KeyError::Certified(_))));
}

#[test]
fn two_gateways_that_remove_the_last_two_keys_leave_one() {
    for order in orders() {
        let (store, accounts) = fresh();
        run(accounts.ensure(&key(1))).unwrap();
        run(add(&accounts, &who(1, 1), 2)).unwrap();
        let (here, there) = (Store::accounts(&store, Fault::None, 0), Store::accounts(&store, Fault::None, 0));
        let (user_a, user_b) = (who(1, 1), who(1, 2));
        let (a, b) = interleave(order, remove(&here, &user_a, 2), remove(&there, &user_b, 1));
        let left = [opens(&accounts, 1), opens(&accounts, 2)];
        assert_eq!(left.iter().flatten().count(), 1, "{order:?}: {a:?} {b:?}");
        assert!(a.is_ok() != b.is_ok(), "{order:?}: {a:?} {b:?}");
        assert_eq!((left[1].is_none(), left[0].is_none()), (a.is_ok(), b.is_ok()), "{order:?}");
    }
}

#[test]
fn a_key_that_two_accounts_add_at_once_goes_to_one_of_them_and_nobody_is_locked_out() {
    for order in orders() {
        let (store, accounts) = fresh();
        run(accounts.ensure(&key(1))).unwrap();
        run(accounts.ensure(&key(2))).unwrap();
        let (here, there) = (Store::accounts(&store, Fault::None, 0), Store::accounts(&store, Fault::None, 0));
        let (user_a, user_b) = (who(1, 1), who(2, 2));
        // One of them goes on at once to the new key alone.
        let moving = async {
            let added = add(&here, &user_a, 9).await;
            let _ = remove(&here, &user_a, 1).await;
            added
        };
        let (a, b) = interleave(order, moving, add(&there, &user_b, 9));
        let owner = opens(&accounts, 9);
        assert!(a.is_ok() != b.is_ok(), "{order:?}: {a:?} {b:?}");
        assert_eq!(owner.as_ref(), Some(if a.is_ok() { &user_a.account } else { &user_b.account }), "{order:?}");
        assert!(opens(&accounts, 1).is_some() != a.is_ok(), "{order:?}: {a:?}");
        assert_eq!(listed(&accounts, &user_b).len(), if a.is_ok() { 1 } else { 2 }, "{order:?}");
    }
}

#[test]
fn a_key_whose_adding_died_half_way_is_made_sure_of_before_it_is_the_last() {
    for order in orders() {
        let (store, accounts) = fresh();
        run(accounts.ensure(&key(1))).unwrap();
        run(accounts.ensure(&key(2))).unwrap();
        // Dies when the account lists the key and the key names the account, before that is written once more.
        let dying = Store::accounts(&store, Fault::Death, 2);
        let (here, there) = (Store::accounts(&store, Fault::None, 0), Store::accounts(&store, Fault::None, 0));
        let (user_a, user_b) = (who(1, 1), who(2, 2));
        let moving = async {
            add(&dying, &user_a, 9).await.unwrap_err();
            remove(&here, &user_a, 1).await
        };
        let (moved, added) = interleave(order, moving, add(&there, &user_b, 9));
        let owner = opens(&accounts, 9);
        assert!(moved.is_err() || owner.as_ref() == Some(&user_a.account), "{order:?}: {moved:?} {added:?}");
        assert_eq!(added.is_ok(), owner.as_ref() == Some(&user_b.account), "{order:?}: {added:?}");
        assert_eq!(opens(&accounts, 1).is_some(), moved.is_err(), "{order:?}: {moved:?}");
    }
}

#[test]
fn a_key_that_registers_while_another_account_adds_it_belongs_to_one() {
    for order in orders() {
        let (store, accounts) = fresh();
        run(accounts.ensure(&key(1))).unwrap();
        let (here, there) = (Store::accounts(&store, Fault::None, 0), Store::accounts(&store, Fault::None, 0));
        let (user, new) = (who(1, 1), key(9));
        let (added, registered) = interleave(order, add(&here, &user, 9), there.ensure(&new));
        let owner = opens(&accounts, 9).unwrap();
        assert_eq!(added.is_ok(), owner == user.account, "{order:?}: {added:?}");
        assert_eq!(registered.unwrap().id, owner, "{order:?}");
        assert_eq!(listed(&accounts, &user).len(), if added.is_ok() { 2 } else { 1 }, "{order:?}");
    }
}

#[test]
fn a_key_removed_and_added_again_at_once_is_either_in_or_out() {
    for order in orders() {
        let (store, accounts) = fresh();
        run(accounts.ensure(&key(1))).unwrap();
        run(add(&accounts, &who(1, 1), 2)).unwrap();
        let (here, there) = (Store::accounts(&store, Fault::None, 0), Store::accounts(&store, Fault::None, 0));
        let user = who(1, 1);
        let (removed, added) = interleave(order, remove(&here, &user, 2), add(&there, &user, 2));
        removed.unwrap();
        assert_eq!(opens(&accounts, 2).is_some(), added.is_ok(), "{order:?}: {added:?}");
        assert_eq!(listed(&accounts, &user).len(), if added.is_ok() { 2 } else { 1 }, "{order:?}");
    }
}

/// What an account does to its keys: 1 is its first, 2 its second, 3 a new one.
#[derive(Debug, Clone, Copy)]
enum Change {
    Register,
    Add,
    RemoveFirst,
    RemoveInUse,
    Rename,
}

const CHANGES: [Change; 5] = [Change::Register, Change::Add, Change::RemoveFirst, Change::RemoveInUse, Change::Rename];

async fn change(accounts: &Accounts, change: Change) -> std::result::Result<(), KeyError> {
    match change {
        Change::Register => accounts.ensure(&key(3)).await.map(drop).map_err(KeyError::from),
        Change::Add => add(accounts, &who(1, 2), 3).await.map(drop),
        Change::RemoveFirst => remove(accounts, &who(1, 2), 1).await.map(drop),
        Change::RemoveInUse => remove(accounts, &who(1, 2), 2).await.map(drop),
        Change::Rename => accounts.rename_key(&who(1, 2), "first", "old").await.map(drop),
    }
}

fn is_done(accounts: &Accounts, change: Change) -> bool {
    let labels = |user: KeyInUse| run(accounts.keys(&user)).unwrap();
    match change {
        Change::Register => opens(accounts, 3) == account_id(&key(3)).ok(),
        Change::Add => opens(accounts, 3) == account_id(&key(1)).ok(),
        Change::RemoveFirst => opens(accounts, 1).is_none() && opens(accounts, 2).is_some(),
        Change::RemoveInUse => opens(accounts, 2).is_none() && opens(accounts, 1).is_some(),
        Change::Rename => labels(who(1, 2)).iter().any(|entry| entry.label == "old"),
    }
}

fn with_two_keys() -> (MemoryStore, Accounts) {
    let (store, accounts) = fresh();
    run(accounts.ensure(&key(1))).unwrap();
    run(add(&accounts, &who(1, 1), 2)).unwrap();
    (store, accounts)
}

#[test]
fn a_lost_answer_is_looked_up_and_the_change_done_once() {
    for step in CHANGES {
        for (fault, at) in (0..6).flat_map(|at| [(Fault::AnswerLost, at), (Fault::RequestLost, at)]) {
            let (store, accounts) = with_two_keys();
            let result = run(change(&Store::accounts(&store, fault, at), step));
            assert!(result.is_ok() && is_done(&accounts, step), "{step:?} {fault:?} {at}: {result:?}");
        }
    }
}

#[test]
fn every_removal_that_happened_was_announced_and_the_old_ones_are_cleared_away() {
    for (fault, at) in (0..6).flat_map(|at| [(Fault::Death, at), (Fault::AnswerLost, at), (Fault::RequestLost, at)]) {
        let (store, accounts) = with_two_keys();
        let id = account_id(&key(1)).unwrap();
        let _ = run(change(&Store::accounts(&store, fault, at), Change::RemoveFirst));
        let (announced, keys) =
            (run(accounts.removals(Timestamp(6))).unwrap(), run(accounts.listed_keys(&id)).unwrap());
        let gone = !keys.unwrap().contains(&KeyId::of(&key(1)));
        assert!(!gone || announced == [id.clone()], "{fault:?} {at}");
        let _ = run(change(&accounts, Change::RemoveFirst));
        assert_eq!(run(accounts.removals(Timestamp(6 + 3_600_000))).unwrap(), [id], "{fault:?} {at}");
        for _ in 0..2 {
            assert!(run(accounts.removals(Timestamp(7 + 3_600_000))).unwrap().is_empty(), "{fault:?} {at}");
        }
        assert!(run(store.scan(ACCOUNTS, Some("removals"), None, 9)).unwrap().items.is_empty());
    }
}

#[test]
fn a_death_at_any_step_locks_nobody_out_and_the_change_can_be_made_again() {
    for step in CHANGES {
        for at in 0..6 {
            let (store, accounts) = with_two_keys();
            let _ = run(change(&Store::accounts(&store, Fault::Death, at), step));
            let id = account_id(&key(1)).unwrap();
            let opening: Vec<u8> = [1, 2].into_iter().filter(|each| opens(&accounts, *each).is_some()).collect();
            assert!(!opening.is_empty(), "{step:?} {at}");
            assert!(opening.iter().all(|each| opens(&accounts, *each).as_ref() == Some(&id)), "{step:?} {at}");
            let done = is_done(&accounts, step);
            let again = run(change(&accounts, step));
            assert!(again.is_ok() || done, "{step:?} {at}: {again:?}");
            assert!(is_done(&accounts, step), "{step:?} {at}");
        }
    }
}

#[test]
fn a_key_that_was_claimed_by_a_gateway_that_died_can_still_make_its_own_account() {
    for at in 0..3 {
        let (store, accounts) = with_two_keys();
        let _ = run(change(&Store::accounts(&store, Fault::Death, at), Change::Add));
        let account = run(accounts.ensure(&key(3))).unwrap();
        assert_eq!(opens(&accounts, 3), Some(account.id));
    }
}
