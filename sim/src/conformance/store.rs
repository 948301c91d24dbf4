//! What every `StateStore` promises.

use boxpool::{Cursor, ErrorKind, Key, MAX_KEY_PART_BYTES, MAX_VALUE_BYTES, StateStore, Table, Version};
use std::collections::BTreeSet;

const ONE: Table = Table::new("conformanceone");
const TWO: Table = Table::new("conformancetwo");

fn key(row: &str) -> Key {
    Key::new(ONE, "p", row)
}

async fn rows(store: &impl StateStore, table: Table, partition: Option<&str>, page: usize) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let found = store.scan(table, partition, cursor.as_ref(), page).await.unwrap();
        assert!(found.items.len() <= page, "a page holds at most its limit");
        all.extend(found.items.into_iter().map(|entry| (entry.key.partition, entry.key.row)));
        match found.next {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

/// What was written is read, with the version that the write returned.
pub async fn a_record_is_read_as_it_was_written(store: impl StateStore) {
    assert!(store.get(&key("a")).await.unwrap().is_none());
    let version = store.insert(&key("a"), "{\"x\":\"ä\\u0000\"}").await.unwrap();
    let stored = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.value.as_str()), (version, "{\"x\":\"ä\\u0000\"}"));
}

/// An insert over a record is refused and leaves it.
pub async fn an_insert_never_overwrites(store: impl StateStore) {
    store.insert(&key("a"), "1").await.unwrap();
    assert_eq!(store.insert(&key("a"), "2").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().value, "1");
}

/// An update needs the present version.
pub async fn an_update_with_an_old_version_changes_nothing(store: impl StateStore) {
    let first = store.insert(&key("a"), "1").await.unwrap();
    let second = store.update(&key("a"), &first, "2").await.unwrap();
    assert_eq!(store.update(&key("a"), &first, "3").await.unwrap_err().kind(), ErrorKind::Conflict);
    let stored = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.value.as_str()), (second, "2"));
}

/// An update of nothing says so.
pub async fn an_update_of_an_absent_record_is_not_found(store: impl StateStore) {
    let version = store.insert(&key("a"), "1").await.unwrap();
    assert_eq!(store.update(&key("b"), &version, "2").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(store.get(&key("b")).await.unwrap().is_none());
}

/// The version tells also of a write of the same value, and of a record that went away and came back.
pub async fn no_version_is_used_twice(store: impl StateStore) {
    let mut seen = BTreeSet::new();
    let mut version = store.insert(&key("a"), "same").await.unwrap();
    for _ in 0..20 {
        assert!(seen.insert(version.clone()));
        version = store.update(&key("a"), &version, "same").await.unwrap();
    }
    for _ in 0..20 {
        assert!(seen.insert(version.clone()));
        store.delete(&key("a"), &version).await.unwrap();
        version = store.insert(&key("a"), "same").await.unwrap();
    }
    let oldest = seen.first().unwrap();
    assert_eq!(store.update(&key("a"), oldest, "x").await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// A delete may be repeated; with an old version it is refused.
pub async fn a_delete_is_conditional_and_may_be_repeated(store: impl StateStore) {
    let first = store.insert(&key("a"), "1").await.unwrap();
    let second = store.update(&key("a"), &first, "2").await.unwrap();
    assert_eq!(store.delete(&key("a"), &first).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(store.get(&key("a")).await.unwrap().is_some());
    store.delete(&key("a"), &second).await.unwrap();
    store.delete(&key("a"), &second).await.unwrap();
    assert!(store.get(&key("a")).await.unwrap().is_none());
}

/// A scan goes by bytes, page by page, and sees each record once.
pub async fn a_scan_is_ordered_by_bytes_and_complete_over_pages(store: impl StateStore) {
    let mut expected = BTreeSet::new();
    for partition in ["B", "a", "b", "ä", "b b"] {
        for row in ["10", "9", "Z", "z", "é", "a/b"] {
            store.insert(&Key::new(ONE, partition, row), "1").await.unwrap();
            expected.insert((partition.to_owned(), row.to_owned()));
        }
    }
    let expected: Vec<_> = expected.into_iter().collect();
    for page in [1, 2, 7, 30, 1_000] {
        assert_eq!(rows(&store, ONE, None, page).await, expected, "pages of {page}");
    }
}

/// More than a thousand rows, which some services return at most.
pub async fn a_scan_pages_beyond_a_thousand_rows(store: impl StateStore) {
    let inserts = (0..1_234).map(|n| {
        let key = key(&format!("{n:05}"));
        let store = &store;
        async move { store.insert(&key, "1").await.map(drop) }
    });
    for insert in inserts {
        insert.await.unwrap();
    }
    assert_eq!(rows(&store, ONE, Some("p"), 5_000).await.len(), 1_234);
    assert_eq!(rows(&store, ONE, None, 100).await.len(), 1_234);
}

/// A scan of one partition or table sees no other's records.
pub async fn partitions_and_tables_are_apart(store: impl StateStore) {
    for (table, partition) in [(ONE, "p"), (ONE, "pp"), (ONE, "q"), (TWO, "p")] {
        store.insert(&Key::new(table, partition, "same"), partition).await.unwrap();
    }
    assert_eq!(rows(&store, ONE, Some("p"), 10).await, [("p".to_owned(), "same".to_owned())]);
    assert_eq!(rows(&store, ONE, None, 10).await.len(), 3);
    assert_eq!(rows(&store, TWO, None, 10).await.len(), 1);
    assert!(rows(&store, ONE, Some("none"), 10).await.is_empty());
}

/// A record that nobody touches is seen exactly once while others come and go.
pub async fn a_scan_sees_what_stays_exactly_once(store: impl StateStore) {
    for n in 0..50 {
        store.insert(&key(&format!("stays-{n:03}")), "1").await.unwrap();
    }
    let mut goes: Vec<(Key, Version)> = Vec::new();
    for n in 0..50 {
        let key = key(&format!("stays-{n:03}-goes"));
        goes.push((key.clone(), store.insert(&key, "1").await.unwrap()));
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    let mut round = 0;
    loop {
        let page = store.scan(ONE, Some("p"), cursor.as_ref(), 7).await.unwrap();
        seen.extend(page.items.into_iter().map(|entry| entry.key.row));
        round += 1;
        for _ in 0..3 {
            if let Some((key, version)) = goes.pop() {
                store.delete(&key, &version).await.unwrap();
            }
        }
        store.insert(&key(&format!("came-{round}")), "1").await.unwrap();
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "nothing is seen twice");
    let stayed = seen.iter().filter(|row| row.starts_with("stays") && !row.ends_with("goes")).count();
    assert_eq!(stayed, 50);
}

/// Characters that are special somewhere are not special here.
pub async fn odd_characters_in_keys_and_values_are_kept(store: impl StateStore) {
    let odd = [
        "/",
        "\\",
        "#",
        "?",
        "%",
        "%25",
        "'",
        "\"",
        " ",
        "a b",
        "é",
        "漢字",
        "🦀",
        "..",
        "$(x)",
        "a'; DROP TABLE record; --",
    ];
    for (n, partition) in odd.iter().enumerate() {
        for row in odd {
            store.insert(&Key::new(ONE, *partition, row), &format!("{n} {row}")).await.unwrap();
        }
    }
    for (n, partition) in odd.iter().enumerate() {
        assert_eq!(rows(&store, ONE, Some(partition), 5).await.len(), odd.len(), "{partition}");
        for row in odd {
            let stored = store.get(&Key::new(ONE, *partition, row)).await.unwrap().unwrap();
            assert_eq!(stored.value, format!("{n} {row}"));
        }
    }
}

/// What is too large is refused, and nothing changes.
pub async fn limits_are_kept_and_a_refusal_changes_nothing(store: impl StateStore) {
    let longest = "k".repeat(MAX_KEY_PART_BYTES);
    let largest = "v".repeat(MAX_VALUE_BYTES);
    let version = store.insert(&key(&longest), &largest).await.unwrap();
    assert_eq!(store.get(&key(&longest)).await.unwrap().unwrap().value, largest);
    for (bad, value) in [
        (key(&format!("{longest}k")), "1".to_owned()),
        (key(""), "1".to_owned()),
        (Key::new(ONE, "", "r"), "1".to_owned()),
        (key("a\0b"), "1".to_owned()),
        (key("a\nb"), "1".to_owned()),
        (key("b"), format!("{largest}v")),
    ] {
        assert_eq!(store.insert(&bad, &value).await.unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        assert_eq!(store.update(&bad, &version, &value).await.unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
    }
    let refused = store.update(&key(&longest), &version, &format!("{largest}v")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(rows(&store, ONE, None, 10).await.len(), 1);
    assert_eq!(store.get(&key(&longest)).await.unwrap().unwrap().version, version);
}

/// Of many updates of one version exactly one wins, round after round.
pub async fn of_concurrent_updates_exactly_one_wins(store: impl StateStore) {
    let store = std::sync::Arc::new(store);
    store.insert(&key("a"), "0").await.unwrap();
    for round in 0..20 {
        let held = store.get(&key("a")).await.unwrap().unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let (store, version) = (store.clone(), held.version.clone());
                tokio::spawn(async move { store.update(&key("a"), &version, &format!("{round}.{n}")).await.map(|_| n) })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(n) => winners.push(n),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(store.get(&key("a")).await.unwrap().unwrap().value, format!("{round}.{}", winners[0]));
    }
}

/// Of many inserts of one key exactly one wins.
pub async fn of_concurrent_inserts_exactly_one_wins(store: impl StateStore) {
    let store = std::sync::Arc::new(store);
    for round in 0..20 {
        let row = format!("r{round}");
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let (store, row) = (store.clone(), row.clone());
                tokio::spawn(async move { store.insert(&key(&row), &n.to_string()).await.is_ok() })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            winners += u32::from(task.await.unwrap());
        }
        assert_eq!(winners, 1, "round {round}");
    }
}

/// A counter that many rise by compare-and-swap loses nothing.
pub async fn a_counter_loses_no_count(store: impl StateStore) {
    const TASKS: u32 = 8;
    const COUNTS: u32 = 25;
    let store = std::sync::Arc::new(store);
    store.insert(&key("n"), "0").await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..COUNTS {
                    loop {
                        let held = store.get(&key("n")).await.unwrap().unwrap();
                        let next = held.value.parse::<u32>().unwrap() + 1;
                        if store.update(&key("n"), &held.version, &next.to_string()).await.is_ok() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.get(&key("n")).await.unwrap().unwrap().value, (TASKS * COUNTS).to_string());
}

/// No read is stale: neither of one record nor of a scan.
pub async fn every_completed_write_is_read_at_once(store: impl StateStore) {
    let mut version = store.insert(&key("a"), "0").await.unwrap();
    for n in 1..50 {
        let value = n.to_string();
        version = store.update(&key("a"), &version, &value).await.unwrap();
        let stored = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!((&stored.version, &stored.value), (&version, &value));
        let page = store.scan(ONE, Some("p"), None, 10).await.unwrap();
        assert_eq!(page.items.into_iter().map(|entry| entry.stored).collect::<Vec<_>>(), [stored]);
    }
    store.delete(&key("a"), &version).await.unwrap();
    assert!(store.get(&key("a")).await.unwrap().is_none());
    assert!(rows(&store, ONE, Some("p"), 10).await.is_empty());
}

/// Another record's version, and one that no store gave, fit nothing.
pub async fn a_version_of_something_else_does_not_fit(store: impl StateStore) {
    let of_another = store.insert(&key("a"), "1").await.unwrap();
    let own = store.insert(&key("b"), "1").await.unwrap();
    for wrong in [of_another.0.as_str(), "", "x", "-1", "1e3", "99999999999999999999999999", "*", "'; --"] {
        let wrong = Version(wrong.into());
        assert_eq!(store.update(&key("b"), &wrong, "2").await.unwrap_err().kind(), ErrorKind::Conflict, "{wrong:?}");
        assert_eq!(store.delete(&key("b"), &wrong).await.unwrap_err().kind(), ErrorKind::Conflict, "{wrong:?}");
    }
    let stored = store.get(&key("b")).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.value.as_str()), (own, "1"));
}

/// `DEV` and `dev` are two records, and so are two texts that only look alike.
pub async fn keys_that_look_alike_are_apart(store: impl StateStore) {
    let alike = ["dev", "DEV", "Dev", "dev ", " dev", "d\u{e9}v", "de\u{301}v", "dev%", "dev_", "dev*"];
    for name in alike {
        store.insert(&Key::new(ONE, name, "r"), name).await.unwrap();
        store.insert(&key(name), name).await.unwrap();
    }
    for name in alike {
        assert_eq!(store.get(&key(name)).await.unwrap().unwrap().value, name);
        assert_eq!(rows(&store, ONE, Some(name), 10).await, [(name.to_owned(), "r".to_owned())]);
    }
}

/// Whoever deletes and whoever updates race for the same version.
pub async fn of_a_delete_and_an_update_at_once_one_wins(store: impl StateStore) {
    let store = std::sync::Arc::new(store);
    for round in 0..20 {
        let key = key(&format!("r{round}"));
        let version = store.insert(&key, "1").await.unwrap();
        let update = {
            let (store, key, version) = (store.clone(), key.clone(), version.clone());
            tokio::spawn(async move { store.update(&key, &version, "2").await })
        };
        let delete = {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.delete(&key, &version).await })
        };
        match (update.await.unwrap(), delete.await.unwrap()) {
            (Ok(_), Err(lost)) => {
                assert_eq!(lost.kind(), ErrorKind::Conflict);
                assert_eq!(store.get(&key).await.unwrap().unwrap().value, "2");
            }
            (Err(lost), Ok(())) => {
                assert_eq!(lost.kind(), ErrorKind::NotFound);
                assert!(store.get(&key).await.unwrap().is_none());
            }
            other => panic!("both won or both lost: {other:?}"),
        }
    }
}

/// A store that commits many writes together refuses one without dragging its neighbours down.
pub async fn a_refused_write_drags_no_other_down(store: impl StateStore) {
    let store = std::sync::Arc::new(store);
    store.insert(&key("taken"), "first").await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let (own, taken) = (key(&format!("own-{n:02}")), key("taken"));
                let (lost, won) = tokio::join!(store.insert(&taken, "again"), store.insert(&own, "1"));
                assert_eq!(lost.unwrap_err().kind(), ErrorKind::AlreadyExists);
                store.update(&own, &won.unwrap(), "2").await.unwrap()
            })
        })
        .collect();
    let mut versions = BTreeSet::new();
    for task in tasks {
        assert!(versions.insert(task.await.unwrap()), "two records have one version");
    }
    assert_eq!(rows(&*store, ONE, Some("p"), 1_000).await.len(), 65);
    assert_eq!(store.get(&key("taken")).await.unwrap().unwrap().value, "first");
}

/// Whoever stops waiting leaves the record as it was or as it should be, and the store goes on.
pub async fn a_dropped_call_is_done_or_not_done(store: impl StateStore) {
    store.insert(&key("a"), "0").await.unwrap();
    for n in 1..20 {
        let before = store.get(&key("a")).await.unwrap().unwrap();
        let value = n.to_string();
        {
            let key = key("a");
            let mut call = store.update(&key, &before.version, &value);
            // Polled once, then dropped.
            std::future::poll_fn(|context| {
                let _ = call.as_mut().poll(context);
                std::task::Poll::Ready(())
            })
            .await;
        }
        loop {
            let now = store.get(&key("a")).await.unwrap().unwrap();
            assert!(now == before || now.value == value, "{now:?}");
            match store.update(&key("a"), &now.version, &value).await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
    }
}

/// Makes one test of each promise. The expression makes a fresh store; it may `.await`.
///
/// With `virtual` before it the tests run on one thread in virtual time, as a [`SimCloud`](crate::SimCloud) needs it.
#[macro_export]
macro_rules! store_conformance {
    (@all $fresh:tt) => {
        $crate::store_conformance!(@each $fresh
            a_record_is_read_as_it_was_written
            an_insert_never_overwrites
            an_update_with_an_old_version_changes_nothing
            an_update_of_an_absent_record_is_not_found
            no_version_is_used_twice
            a_delete_is_conditional_and_may_be_repeated
            a_scan_is_ordered_by_bytes_and_complete_over_pages
            a_scan_pages_beyond_a_thousand_rows
            partitions_and_tables_are_apart
            a_scan_sees_what_stays_exactly_once
            odd_characters_in_keys_and_values_are_kept
            limits_are_kept_and_a_refusal_changes_nothing
            of_concurrent_updates_exactly_one_wins
            of_concurrent_inserts_exactly_one_wins
            a_counter_loses_no_count
            every_completed_write_is_read_at_once
            a_version_of_something_else_does_not_fit
            keys_that_look_alike_are_apart
            of_a_delete_and_an_update_at_once_one_wins
            a_refused_write_drags_no_other_down
            a_dropped_call_is_done_or_not_done
        );
    };
    (@each [virtual $fresh:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $promise() {
                $crate::conformance::store::$promise($fresh).await;
            }
        )*
    };
    (@each [$fresh:expr] $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                $crate::conformance::store::$promise($fresh).await;
            }
        )*
    };
    (virtual $fresh:expr) => {
        $crate::store_conformance!(@all [virtual $fresh]);
    };
    ($fresh:expr) => {
        $crate::store_conformance!(@all [$fresh]);
    };
}
