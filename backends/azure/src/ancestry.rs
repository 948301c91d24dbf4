//! Whose copy a disk is. A snapshot of a volume is tagged with it, and hands the tag on to the disks that are made of it.
//!
//! A copy bears the name plate of the volume that was copied, or, where that was itself a copy and was never started, of the
//! one before. So the tag holds all of them, the last one first, as many as there is room for.

use crate::arm::Common;
use boxpool::VolumeId;
use serde_json::Value;

/// Of a snapshot of a box's disk, and of disks that are copies: which volumes they are copies of.
pub(crate) const COPIED_FROM_TAG: &str = "boxpool-copied-from";
/// Azure's limit for what a tag says.
const LONGEST_TAG: usize = 256;

/// The volumes that a disk, or whatever is made of a snapshot, is a copy of.
pub(crate) fn copied_from(common: &Common) -> Vec<VolumeId> {
    read(common.tag(COPIED_FROM_TAG).unwrap_or_default())
}

/// The same of a copy of that volume, which is a copy itself of those.
pub(crate) fn of_copy(volume: &VolumeId, copied_from: Vec<VolumeId>) -> Vec<VolumeId> {
    std::iter::once(volume.clone()).chain(copied_from).collect()
}

/// Tags what is to be made as a copy of those volumes.
pub(crate) fn tag(body: &mut Value, copied_from: &[VolumeId]) {
    if !copied_from.is_empty() {
        body["tags"][COPIED_FROM_TAG] = write(copied_from).into();
    }
}

fn read(tag: &str) -> Vec<VolumeId> {
    tag.split_ascii_whitespace().filter_map(|id| VolumeId::new(id).ok()).collect()
}

fn write(copied_from: &[VolumeId]) -> String {
    let mut tag = String::new();
    for id in copied_from {
        let longer = if tag.is_empty() { id.to_string() } else { format!("{tag} {id}") };
        if longer.len() > LONGEST_TAG {
            break;
        }
        tag = longer;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(number: u32) -> VolumeId {
        VolumeId::new(format!("v-{number:016x}")).unwrap()
    }

    #[test]
    fn the_last_ones_are_told_as_far_as_there_is_room() {
        let mut copied_from = Vec::new();
        for number in 0..40 {
            copied_from = read(&write(&of_copy(&volume(number), copied_from)));
        }
        let last: Vec<_> = (0..40).rev().map(volume).take(copied_from.len()).collect();
        assert_eq!((copied_from.len(), copied_from), (13, last));
        assert!(write(&[VolumeId::new("x".repeat(128)).unwrap(), volume(1)]).len() <= LONGEST_TAG);
    }

    #[test]
    fn what_is_not_tagged_is_no_copy() {
        let mut body = serde_json::json!({ "tags": { "boxpool-pool": "p" } });
        tag(&mut body, &[]);
        assert_eq!(body, serde_json::json!({ "tags": { "boxpool-pool": "p" } }));
        assert_eq!(read("../x  v-1 "), [VolumeId::new("v-1").unwrap()]);
    }
}
