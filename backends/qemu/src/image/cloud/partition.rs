//! Reads which parts of a disk could hold a file system, from its first megabyte.

const SECTOR: u64 = 512;
/// A table larger than this is no table of a real disk.
const ENTRIES_MAX: u64 = 1024;

/// A stretch of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) size: u64,
}

/// The partitions of a disk that begins with `head` (GPT, or the older table of the MBR), in the table's order. Empty if
/// there is no table.
pub(super) fn read(head: &[u8]) -> Vec<Part> {
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return Vec::new();
    }
    if head.get(512..520) == Some(b"EFI PART") { gpt(head) } else { mbr(head) }
}

fn gpt(head: &[u8]) -> Vec<Part> {
    let header = SECTOR;
    let (Some(table), Some(count), Some(length)) =
        (number(head, header + 72, 8), number(head, header + 80, 4), number(head, header + 84, 4))
    else {
        return Vec::new();
    };
    let entry = |index: u64| {
        let at = table.checked_mul(SECTOR)?.checked_add(index * length)?;
        let kind = head.get(usize::try_from(at).ok()?..)?.get(..16)?;
        let (first, last) = (number(head, at + 32, 8)?, number(head, at + 40, 8)?);
        (kind != [0; 16]).then_some(())?;
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        part(first, sectors)
    };
    (0..count.min(ENTRIES_MAX)).filter_map(entry).collect()
}

fn mbr(head: &[u8]) -> Vec<Part> {
    let entry = |index: u64| {
        let at = 446 + index * 16;
        let kind = number(head, at + 4, 1)?;
        let (first, sectors) = (number(head, at + 8, 4)?, number(head, at + 12, 4)?);
        (kind != 0 && sectors != 0).then_some(())?;
        part(first, sectors)
    };
    (0..4).filter_map(entry).collect()
}

fn part(first: u64, sectors: u64) -> Option<Part> {
    Some(Part { start: first.checked_mul(SECTOR)?, size: sectors.checked_mul(SECTOR)? })
}

/// Where in a file system the ext family says that it is one.
const EXT_MAGIC: usize = 1024 + 56;

/// Whether a file system that begins with `head` is ext2, ext3 or ext4.
pub(super) fn is_ext(head: &[u8]) -> bool {
    head.get(EXT_MAGIC..EXT_MAGIC + 2) == Some(&[0x53, 0xef])
}

/// What else it may be, for a message.
pub(super) fn other_file_system(head: &[u8]) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    [
        ("xfs", has(0, b"XFSB")),
        ("btrfs", has(0x1_0040, b"_BHRfS_M")),
        ("squashfs", has(0, b"hsqs")),
        ("LVM", has(512 + 24, b"LVM2")),
        ("LUKS", has(0, b"LUKS")),
    ]
    .into_iter()
    .find_map(|(name, found)| found.then_some(name))
}

fn number(bytes: &[u8], at: u64, length: usize) -> Option<u64> {
    let bytes = bytes.get(usize::try_from(at).ok()?..)?.get(..length)?;
    Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Vec<u8> {
        let mut disk = vec![0; 1 << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    #[test]
    fn partitions_of_a_gpt_are_read_in_their_order() {
        let mut disk = disk();
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 72] = 2;
        disk[512 + 80] = 128;
        disk[512 + 84] = 128;
        // As on Ubuntu's: the first entry is the last on the disk, and others are far from it.
        for (index, first, last) in [(0, 4096_u32, 8191_u32), (14, 2048, 4095)] {
            let at = 1024 + index * 128;
            disk[at] = 1;
            disk[at + 32..at + 36].copy_from_slice(&first.to_le_bytes());
            disk[at + 40..at + 44].copy_from_slice(&last.to_le_bytes());
        }
        let found = read(&disk);
        assert_eq!(found, [Part { start: 2 << 20, size: 2 << 20 }, Part { start: 1 << 20, size: 1 << 20 }]);
    }

    #[test]
    fn partitions_of_an_mbr_are_read() {
        let mut disk = disk();
        disk[446 + 4] = 0x83;
        disk[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
        disk[446 + 12..446 + 16].copy_from_slice(&2048_u32.to_le_bytes());
        assert_eq!(read(&disk), [Part { start: 1 << 20, size: 1 << 20 }]);
    }

    #[test]
    fn damaged_tables_have_no_partitions_and_do_no_harm() {
        assert_eq!(read(&[]), []);
        assert_eq!(read(&vec![0; 1 << 20]), []);
        let mut disk = disk();
        disk[512..1024].fill(0xff);
        disk[512..520].copy_from_slice(b"EFI PART");
        assert_eq!(read(&disk), []);
        // An entry that ends before it begins.
        disk[512 + 72..512 + 88].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 128, 0, 0, 0]);
        disk[1024] = 1;
        disk[1024 + 32] = 9;
        assert_eq!(read(&disk), []);
        disk[1024 + 40..1024 + 48].fill(0xff);
        assert_eq!(read(&disk), []);
    }

    #[test]
    fn file_systems_are_told_apart() {
        let mut head = vec![0; 0x1_1000];
        assert!(!is_ext(&head) && other_file_system(&head).is_none());
        head[..4].copy_from_slice(b"XFSB");
        assert_eq!(other_file_system(&head), Some("xfs"));
        head[EXT_MAGIC..EXT_MAGIC + 2].copy_from_slice(&[0x53, 0xef]);
        assert!(is_ext(&head));
        assert!(!is_ext(&[]) && other_file_system(&[]).is_none());
    }
}
