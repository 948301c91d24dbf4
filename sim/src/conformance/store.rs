//! What every [`StateStore`] promises.

use boxpool::{Cursor, Entry, ErrorKind, Key, MAX_KEY_PART_BYTES, MAX_VALUE_BYTES, StateStore, Stored, Table, Version};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a store under test brings along.
pub trait StoreBench: Send + Sync {
    /// The store under test.
    fn store(&self) -> Arc<dyn StateStore>;
    /// Another handle on the same records, through another connection where there is such a thing.
    fn other_handle(&self) -> Arc<dyn StateStore>;
    /// A short text of letters and digits that was never used in this store. Partitions are named after it.
    fn fresh(&self) -> String;
}

/// Makes one test of each promise of [`StateStore`]. See [the suites](crate::conformance) for its arguments.
#[macro_export]
macro_rules! store_conformance {
    ($(#[$attribute:meta])* $bench:expr $(,)?) => {
        $crate::conformance_tests! { [$(#[$attribute])*] store $bench;
            what_is_inserted_is_read_back_as_it_was_written,
            an_absent_record_is_none,
            inserting_over_a_record_is_refused_and_changes_nothing,
            an_update_needs_the_present_version,
            an_update_of_an_absent_record_is_not_found,
            the_version_changes_also_when_the_value_does_not,
            deleting_twice_is_success,
            a_delete_needs_the_present_version,
            a_version_is_not_used_again_after_delete_and_insert,
            a_version_of_one_record_does_not_fit_another,
            every_completed_write_is_read_at_once_through_every_handle,
            partitions_rows_and_tables_are_apart,
            odd_characters_in_keys_are_kept_apart,
            odd_characters_in_values_are_kept,
            keys_differ_by_case,
            what_is_too_large_or_malformed_is_refused_and_nothing_changes,
            the_largest_record_fits,
            a_scan_is_in_order_of_bytes,
            a_scan_of_one_partition_sees_only_it,
            a_scan_of_all_partitions_is_in_order_and_sees_each_record_once,
            a_scan_of_nothing_is_complete_and_empty,
            a_scan_over_more_than_a_thousand_records_sees_each_once,
            records_that_stay_are_seen_once_while_others_come_and_go,
            a_page_has_at_most_as_many_records_as_asked_for,
            of_concurrent_inserts_one_wins,
            of_concurrent_updates_of_one_version_one_wins,
            of_concurrent_deletes_and_updates_of_one_version_one_wins,
            concurrent_increments_are_all_counted,
            concurrent_writes_of_different_records_all_succeed,
            a_dropped_call_is_done_or_not_done,
        }
    };
}

const TABLE: Table = Table::new("conformance");
const OTHER_TABLE: Table = Table::new("conformanceother");

fn key(partition: &str, row: &str) -> Key {
    Key::new(TABLE, partition, row)
}

async fn read(store: &dyn StateStore, key: &Key) -> Stored {
    store.get(key).await.unwrap().unwrap_or_else(|| panic!("{key} is there"))
}

/// Every entry of a scan, page by page.
async fn scan(store: &dyn StateStore, partition: Option<&str>, limit: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = store.scan(TABLE, partition, cursor.as_ref(), limit).await.unwrap();
        assert!(page.items.len() <= limit, "a page of {} records, although {limit} were asked for", page.items.len());
        entries.extend(page.items);
        match page.next {
            Some(next) => {
                assert_ne!(cursor.as_ref(), Some(&next), "the scan does not get on");
                cursor = Some(next);
            }
            None => return entries,
        }
    }
}

fn rows(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.row.as_str()).collect()
}

/// What is inserted is read back, byte for byte, with the version that the insert told.
pub async fn what_is_inserted_is_read_back_as_it_was_written(bench: &impl StoreBench) {
    let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
    let value = r#"{ "b":1,  "a": [2, 3.50] }"#;

    let version = store.insert(&key, value).await.unwrap();

    assert_eq!(store.get(&key).await.unwrap(), Some(Stored { version, value: value.into() }));
}

/// Absence is an answer, not an error.
pub async fn an_absent_record_is_none(bench: &impl StoreBench) {
    assert_eq!(bench.store().get(&key(&bench.fresh(), "r")).await.unwrap(), None);
}

/// `insert` is for what is not there.
pub async fn inserting_over_a_record_is_refused_and_changes_nothing(bench: &impl StoreBench) {
    let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
    let version = store.insert(&key, "1").await.unwrap();

    let error = store.insert(&key, "2").await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(read(&*store, &key).await, Stored { version, value: "1".into() });
}

/// The compare in compare-and-swap.
pub async fn an_update_needs_the_present_version(bench: &impl StoreBench) {
    let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
    let first = store.insert(&key, "1").await.unwrap();
    let second = store.update(&key, &first, "2").await.unwrap();

    let error = store.update(&key, &first, "3").await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(read(&*store, &key).await, Stored { version: second, value: "2".into() });
}

/// An update never makes a record.
pub async fn an_update_of_an_absent_record_is_not_found(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    let (gone, never) = (key(&partition, "gone"), key(&partition, "never"));
    let version = store.insert(&gone, "1").await.unwrap();
    store.delete(&gone, &version).await.unwrap();

    for key in [&gone, &never] {
        let error = store.update(key, &version, "2").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{key}");
        assert_eq!(store.get(key).await.unwrap(), None);
    }
}

/// A heartbeat that writes the same text is seen by its version.
pub async fn the_version_changes_also_when_the_value_does_not(bench: &impl StoreBench) {
    let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
    let mut seen = BTreeSet::new();
    let mut version = store.insert(&key, "same").await.unwrap();
    for _ in 0..20 {
        assert!(seen.insert(version.clone()), "{version:?} came twice");
        assert_eq!(read(&*store, &key).await.version, version);
        version = store.update(&key, &version, "same").await.unwrap();
    }
}

/// A delete whose answer was lost is repeated.
pub async fn deleting_twice_is_success(bench: &impl StoreBench) {
    let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
    let version = store.insert(&key, "1").await.unwrap();

    store.delete(&key, &version).await.unwrap();
    store.delete(&key, &version).await.unwrap();

    assert_eq!(store.get(&key).await.unwrap(), None);
}

/// Nobody deletes what they have not seen.
pub async fn a_delete_needs_the_present_version(bench: &impl StoreBench) {
    let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
    let first = store.insert(&key, "1").await.unwrap();
    let second = store.update(&key, &first, "2").await.unwrap();

    let error = store.delete(&key, &first).await.unwrap_err();

    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(read(&*store, &key).await, Stored { version: second, value: "2".into() });
}

/// A record that was deleted and made anew is another one (A, B, A).
pub async fn a_version_is_not_used_again_after_delete_and_insert(bench: &impl StoreBench) {
    let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
    let mut seen = BTreeSet::new();
    let mut first = None;
    for _ in 0..10 {
        let version = store.insert(&key, "same").await.unwrap();
        assert!(seen.insert(version.clone()), "{version:?} came twice");
        if let Some(first) = &first {
            assert_eq!(store.update(&key, first, "late").await.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(store.delete(&key, first).await.unwrap_err().kind(), ErrorKind::Conflict);
        }
        store.delete(&key, &version).await.unwrap();
        first.get_or_insert(version);
    }
}

/// A version mixed up with another record's does no harm. Versions that no store gave are refused as well.
pub async fn a_version_of_one_record_does_not_fit_another(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    let (one, two) = (key(&partition, "1"), key(&partition, "2"));
    let of_one = store.insert(&one, "1").await.unwrap();
    store.insert(&two, "2").await.unwrap();
    for wrong in [of_one.0.as_str(), "", "x", "-1", "1e3", "99999999999999999999999999", "'; --", "*"] {
        let wrong = Version(wrong.into());
        assert_eq!(store.update(&two, &wrong, "3").await.unwrap_err().kind(), ErrorKind::Conflict, "{wrong:?}");
        assert_eq!(store.delete(&two, &wrong).await.unwrap_err().kind(), ErrorKind::Conflict, "{wrong:?}");
    }
    assert_eq!(read(&*store, &two).await.value, "2");
}

/// No read is stale, whichever way it comes.
pub async fn every_completed_write_is_read_at_once_through_every_handle(bench: &impl StoreBench) {
    let (here, there, partition) = (bench.store(), bench.other_handle(), bench.fresh());
    let key = key(&partition, "r");
    let mut version = here.insert(&key, "0").await.unwrap();
    for n in 1..50 {
        let (writer, reader) = if n % 2 == 0 { (&here, &there) } else { (&there, &here) };
        version = writer.update(&key, &version, &n.to_string()).await.unwrap();
        let expected = Stored { version: version.clone(), value: n.to_string() };
        assert_eq!(reader.get(&key).await.unwrap(), Some(expected.clone()));
        assert_eq!(writer.get(&key).await.unwrap(), Some(expected.clone()));
        let page = reader.scan(TABLE, Some(&partition), None, 10).await.unwrap();
        assert_eq!(page.items.into_iter().map(|entry| entry.stored).collect::<Vec<_>>(), [expected]);
    }
    there.delete(&key, &version).await.unwrap();
    assert_eq!(here.get(&key).await.unwrap(), None);
}

/// The same row in another partition or table is another record.
pub async fn partitions_rows_and_tables_are_apart(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    let keys = [
        key(&partition, "ab"),
        key(&partition, "a"),
        key(&format!("{partition}a"), "b"),
        key(&format!("{partition}ab"), "ab"),
        Key::new(OTHER_TABLE, partition.clone(), "ab"),
    ];
    for (n, key) in keys.iter().enumerate() {
        store.insert(key, &n.to_string()).await.unwrap();
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(read(&*store, key).await.value, n.to_string(), "{key}");
    }
    let version = read(&*store, &keys[0]).await.version;
    store.delete(&keys[0], &version).await.unwrap();
    for key in &keys[1..] {
        assert!(store.get(key).await.unwrap().is_some(), "{key}");
    }
}

const ODD: [&str; 22] = [
    "/", "\\", "#", "?", "%", "'", "\"", "%2F", "%25", "a/b", "a\\b", ".", "..", " ", " a", "a ", "ä", "a\u{308}",
    "日本", "🦀", "*", "_",
];

/// Keys hold any text without control characters, and no two texts meet.
pub async fn odd_characters_in_keys_are_kept_apart(bench: &impl StoreBench) {
    let (store, fresh) = (bench.store(), bench.fresh());
    for odd in ODD {
        for key in [key(&fresh, odd), key(&format!("{fresh}{odd}"), "r")] {
            store.insert(&key, &format!("{key:?}")).await.unwrap_or_else(|error| panic!("{key:?}: {error}"));
        }
    }
    for odd in ODD {
        let partition = format!("{fresh}{odd}");
        for key in [key(&fresh, odd), key(&partition, "r")] {
            assert_eq!(read(&*store, &key).await.value, format!("{key:?}"));
        }
        let found = scan(&*store, Some(&partition), 10).await;
        assert_eq!(found.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), [key(&partition, "r")]);
    }
    let mut expected = ODD.to_vec();
    expected.sort_unstable();
    assert_eq!(rows(&scan(&*store, Some(&fresh), 7).await), expected);
}

/// Values hold any text.
pub async fn odd_characters_in_values_are_kept(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    let texts = ["", " ", "\n\r\t", "\"", "\\", "ä日🦀", "\u{feff}bom", "'; DROP TABLE x; --", "{\"a\":\"\\u0000\"}"];
    for (n, text) in texts.iter().enumerate() {
        let key = key(&partition, &n.to_string());
        let version = store.insert(&key, "x").await.unwrap();
        store.update(&key, &version, text).await.unwrap();
        assert_eq!(read(&*store, &key).await.value, *text);
    }
}

/// `A` and `a` are two rows.
pub async fn keys_differ_by_case(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    for row in ["dev", "DEV", "Dev"] {
        store.insert(&key(&partition, row), row).await.unwrap();
    }
    for row in ["dev", "DEV", "Dev"] {
        assert_eq!(read(&*store, &key(&partition, row)).await.value, row);
    }
}

/// Limits are told as `Invalid`, and what was there stays.
pub async fn what_is_too_large_or_malformed_is_refused_and_nothing_changes(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    let long = "k".repeat(MAX_KEY_PART_BYTES + 1);
    let fat = "v".repeat(MAX_VALUE_BYTES + 1);
    for bad in ["", "a\0b", "a\nb", "\u{7f}", long.as_str()] {
        for key in [key(&partition, bad), key(bad, "r")] {
            let error = store.insert(&key, "1").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{key:?}");
            let error = store.update(&key, &Version("1".into()), "1").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{key:?}");
        }
    }
    let key = key(&partition, "r");
    assert_eq!(store.insert(&key, &fat).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.get(&key).await.unwrap(), None);
    let version = store.insert(&key, "1").await.unwrap();
    assert_eq!(store.update(&key, &version, &fat).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(read(&*store, &key).await, Stored { version, value: "1".into() });
    assert_eq!(rows(&scan(&*store, Some(&partition), 10).await), ["r"]);
}

/// What is within the limits is taken.
pub async fn the_largest_record_fits(bench: &impl StoreBench) {
    let (store, fresh) = (bench.store(), bench.fresh());
    let pad = |text: &str| format!("{text}{}", "k".repeat(MAX_KEY_PART_BYTES - text.len()));
    let key = key(&pad(&fresh), &pad("r"));
    let value = "v".repeat(MAX_VALUE_BYTES);

    let version = store.insert(&key, "1").await.unwrap();
    store.update(&key, &version, &value).await.unwrap();

    assert_eq!(read(&*store, &key).await.value, value);
    assert_eq!(scan(&*store, Some(&key.partition), 10).await.len(), 1);
}

/// Not by numbers, case or alphabet: by the bytes of the text.
pub async fn a_scan_is_in_order_of_bytes(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    let mut expected =
        ["b", "B", "a", "10", "9", "a/b", "a-b", "a", "ä", "z", "日", "🦀", "\u{ffee}", "_", "ab", "a b"]
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>();
    for row in expected.iter().rev() {
        store.insert(&key(&partition, row), "1").await.unwrap();
    }
    expected.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for limit in [1, 3, 100] {
        assert_eq!(rows(&scan(&*store, Some(&partition), limit).await), expected, "pages of {limit}");
    }
}

/// Neighbours are not seen, also when their names begin alike.
pub async fn a_scan_of_one_partition_sees_only_it(bench: &impl StoreBench) {
    let (store, fresh) = (bench.store(), bench.fresh());
    for partition in [fresh.clone(), format!("{fresh} "), format!("{fresh}a"), format!("{fresh}%"), format!("{fresh}_")]
    {
        for row in ["1", "2", "3"] {
            store.insert(&key(&partition, row), &partition).await.unwrap();
        }
    }
    store.insert(&Key::new(OTHER_TABLE, fresh.clone(), "4"), "other table").await.unwrap();
    for limit in [1, 2, 3, 4] {
        let found = scan(&*store, Some(&fresh), limit).await;
        assert_eq!(rows(&found), ["1", "2", "3"]);
        assert!(found.iter().all(|entry| entry.key.partition == fresh && entry.stored.value == fresh));
    }
}

/// A scan without a partition runs over all, ordered by partition first.
pub async fn a_scan_of_all_partitions_is_in_order_and_sees_each_record_once(bench: &impl StoreBench) {
    let (store, fresh) = (bench.store(), bench.fresh());
    let mut expected = BTreeSet::new();
    for partition in ["b", "a", "B", "a/", "ab", "ä"] {
        for row in ["2", "1", "é"] {
            let key = key(&format!("{fresh}{partition}"), row);
            store.insert(&key, "1").await.unwrap();
            expected.insert((key.partition, key.row));
        }
    }
    for limit in [1, 4, 1000] {
        let found: Vec<(String, String)> = scan(&*store, None, limit)
            .await
            .into_iter()
            .filter(|entry| entry.key.partition.starts_with(&fresh))
            .map(|entry| (entry.key.partition, entry.key.row))
            .collect();
        assert_eq!(found, expected.iter().cloned().collect::<Vec<_>>(), "pages of {limit}");
    }
}

/// Nothing there: no records and no next page, sooner or later.
pub async fn a_scan_of_nothing_is_complete_and_empty(bench: &impl StoreBench) {
    assert!(scan(&*bench.store(), Some(&bench.fresh()), 10).await.is_empty());
}

/// Azure Tables ends pages at a thousand; others elsewhere.
pub async fn a_scan_over_more_than_a_thousand_records_sees_each_once(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    let expected: Vec<String> = (0..1_203).map(|n| format!("{n:05}")).collect();
    for chunk in expected.chunks(100) {
        let writes: Vec<_> = chunk
            .iter()
            .map(|row| {
                let (store, key) = (store.clone(), key(&partition, row));
                tokio::spawn(async move { store.insert(&key, "1").await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
    }
    for limit in [7, 1000, 5000] {
        assert_eq!(rows(&scan(&*store, Some(&partition), limit).await), expected, "pages of {limit}");
    }
}

/// What is inserted and deleted between two pages shifts nothing.
pub async fn records_that_stay_are_seen_once_while_others_come_and_go(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    let mut going = Vec::new();
    for n in 0..60 {
        let key = key(&partition, &format!("{n:03}"));
        let version = store.insert(&key, "1").await.unwrap();
        if n % 3 == 0 {
            going.push((key, version));
        }
    }
    let mut seen = Vec::new();
    let mut cursor: Option<Cursor> = None;
    let mut round = 0;
    loop {
        let page = store.scan(TABLE, Some(&partition), cursor.as_ref(), 7).await.unwrap();
        seen.extend(page.items.into_iter().map(|entry| entry.key.row));
        round += 1;
        // One goes from the front and one from the back, and two come: before and after the place of the cursor.
        if !going.is_empty() {
            let (key, version) = going.remove(0);
            store.delete(&key, &version).await.unwrap();
        }
        if let Some((key, version)) = going.pop() {
            store.delete(&key, &version).await.unwrap();
        }
        store.insert(&key(&partition, &format!("000-{round}")), "new").await.unwrap();
        store.insert(&key(&partition, &format!("059-{round}")), "new").await.unwrap();
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
        assert!(round < 100, "the scan does not end");
    }
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "a record was seen twice: {seen:?}");
    for n in (0..60).filter(|n| n % 3 != 0) {
        assert!(seen.contains(&format!("{n:03}")), "{n:03} was not seen");
    }
}

/// `limit` bounds a page; what is left comes with the next.
pub async fn a_page_has_at_most_as_many_records_as_asked_for(bench: &impl StoreBench) {
    let (store, partition) = (bench.store(), bench.fresh());
    for row in ["1", "2", "3", "4"] {
        store.insert(&key(&partition, row), "1").await.unwrap();
    }
    for limit in 1..=5 {
        assert_eq!(rows(&scan(&*store, Some(&partition), limit).await), ["1", "2", "3", "4"]);
    }
}

/// Inserting is a race that one wins.
pub async fn of_concurrent_inserts_one_wins(bench: &impl StoreBench) {
    for _ in 0..10 {
        let key = key(&bench.fresh(), "r");
        let racers: Vec<_> = (0..16)
            .map(|n| {
                let store = if n % 2 == 0 { bench.store() } else { bench.other_handle() };
                let key = key.clone();
                tokio::spawn(async move { store.insert(&key, &n.to_string()).await.map(|version| (version, n)) })
            })
            .collect();
        let mut winner = None;
        for racer in racers {
            match racer.await.unwrap() {
                Ok((version, n)) => {
                    let first = winner.replace(Stored { version, value: n.to_string() });
                    assert_eq!(first, None, "two inserts of one key succeeded");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
            }
        }
        assert_eq!(bench.store().get(&key).await.unwrap(), winner);
    }
}

/// A version is used up by one update.
pub async fn of_concurrent_updates_of_one_version_one_wins(bench: &impl StoreBench) {
    let key = key(&bench.fresh(), "r");
    let mut version = bench.store().insert(&key, "start").await.unwrap();
    for round in 0..10 {
        let racers: Vec<_> = (0..16)
            .map(|n| {
                let store = if n % 2 == 0 { bench.store() } else { bench.other_handle() };
                let (key, version, value) = (key.clone(), version.clone(), format!("{round}-{n}"));
                tokio::spawn(async move {
                    store.update(&key, &version, &value).await.map(|version| Stored { version, value })
                })
            })
            .collect();
        let mut winner = None;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(stored) => assert_eq!(winner.replace(stored), None, "one version was swapped twice"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
        let winner = winner.expect("one update succeeds");
        assert_eq!(read(&*bench.store(), &key).await, winner);
        version = winner.version;
    }
}

/// Deleting and updating race for the same version.
pub async fn of_concurrent_deletes_and_updates_of_one_version_one_wins(bench: &impl StoreBench) {
    for _ in 0..10 {
        let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
        let version = store.insert(&key, "1").await.unwrap();
        let updates = {
            let (store, key, version) = (bench.other_handle(), key.clone(), version.clone());
            tokio::spawn(async move { store.update(&key, &version, "2").await })
        };
        let delete = {
            let (store, key, version) = (store.clone(), key.clone(), version.clone());
            tokio::spawn(async move { store.delete(&key, &version).await })
        };
        match (updates.await.unwrap(), delete.await.unwrap()) {
            (Ok(version), Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Conflict);
                assert_eq!(read(&*store, &key).await, Stored { version, value: "2".into() });
            }
            (Err(error), Ok(())) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert_eq!(store.get(&key).await.unwrap(), None);
            }
            other => panic!("both won or both lost: {other:?}"),
        }
    }
}

/// Read, add one, swap: no increment is lost, however many do it.
pub async fn concurrent_increments_are_all_counted(bench: &impl StoreBench) {
    let key = key(&bench.fresh(), "counter");
    bench.store().insert(&key, "0").await.unwrap();
    let workers: Vec<_> = (0..8)
        .map(|n| {
            let store = if n % 2 == 0 { bench.store() } else { bench.other_handle() };
            let key = key.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    loop {
                        let stored = read(&*store, &key).await;
                        let next = stored.value.parse::<u64>().unwrap() + 1;
                        match store.update(&key, &stored.version, &next.to_string()).await {
                            Ok(_) => break,
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                        }
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(read(&*bench.store(), &key).await.value, "80");
}

/// A store that refuses one write refuses no other with it.
pub async fn concurrent_writes_of_different_records_all_succeed(bench: &impl StoreBench) {
    let partition = bench.fresh();
    let taken = key(&partition, "taken");
    bench.store().insert(&taken, "first").await.unwrap();
    let writers: Vec<_> = (0..64)
        .map(|n| {
            let store = if n % 2 == 0 { bench.store() } else { bench.other_handle() };
            let (own, taken) = (key(&partition, &format!("{n:02}")), taken.clone());
            tokio::spawn(async move {
                // A loser in the same moment must not drag its neighbours down.
                let lost = store.insert(&taken, "again");
                let won = store.insert(&own, "1");
                let (lost, won) = tokio::join!(lost, won);
                assert_eq!(lost.unwrap_err().kind(), ErrorKind::AlreadyExists);
                let version = won.unwrap();
                store.update(&own, &version, "2").await.unwrap()
            })
        })
        .collect();
    let mut versions = BTreeSet::new();
    for writer in writers {
        assert!(versions.insert(writer.await.unwrap()), "two records have one version");
    }
    let found = scan(&*bench.store(), Some(&partition), 1000).await;
    assert_eq!(found.len(), 65);
    assert!(found.iter().all(|entry| entry.key.row == "taken" || entry.stored.value == "2"));
}

/// Whoever stops waiting finds the record as it was or as it should be, never in between, and the store goes on.
pub async fn a_dropped_call_is_done_or_not_done(bench: &impl StoreBench) {
    let (store, key) = (bench.store(), key(&bench.fresh(), "r"));
    store.insert(&key, "0").await.unwrap();
    for n in 1..20 {
        let before = read(&*store, &key).await;
        let value = n.to_string();
        {
            let mut call = std::pin::pin!(store.update(&key, &before.version, &value));
            // Polled once, then dropped.
            let _ = poll_once(call.as_mut()).await;
        }
        // A later write comes after it in every case.
        loop {
            let now = read(&*store, &key).await;
            assert!(now == before || now.value == value, "{now:?}");
            match store.update(&key, &now.version, &value).await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
    }
}

/// Polls `future` one single time.
async fn poll_once<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
