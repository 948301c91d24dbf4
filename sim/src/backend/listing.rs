use boxpool::{Cursor, Page};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Bound;

/// A page of `all`, in order of ids. The cursor is the last id of the page before, so that what comes and goes
/// meanwhile shifts nothing.
pub(super) fn page<K, V, T>(
    all: &BTreeMap<K, V>,
    cursor: Option<&Cursor>,
    limit: usize,
    view: impl Fn(&K, &V) -> T,
) -> Page<T>
where
    K: Ord + Display + TryFrom<String>,
{
    // A cursor that is no id comes from no listing of ours: begin anew rather than end early.
    let start = match cursor.and_then(|cursor| K::try_from(cursor.0.clone()).ok()) {
        Some(last) => Bound::Excluded(last),
        None => Bound::Unbounded,
    };
    let mut rest = all.range((start, Bound::Unbounded)).peekable();
    let mut items = Vec::new();
    let mut last = None;
    for (id, value) in rest.by_ref().take(limit.max(1)) {
        items.push(view(id, value));
        last = Some(id);
    }
    let next = last.filter(|_| rest.peek().is_some()).map(|id| Cursor(id.to_string()));
    Page { items, next }
}

/// Leaves about a third of the items out; `luck` says which.
pub(super) fn forget_some<T>(items: &mut Vec<T>, luck: u64) {
    let mut draw = crate::engine::Hash::new(luck).draw();
    items.retain(|_| !draw.chance(0.33));
}
