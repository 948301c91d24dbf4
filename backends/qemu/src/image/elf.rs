//! Reads which shared libraries a program needs, so that exactly those are taken along.

/// Names of the libraries that this 64-bit little-endian ELF is linked with; `None` if it is not one.
pub(super) fn needed(elf: &[u8]) -> Option<Vec<String>> {
    const PT_LOAD: u64 = 1;
    const PT_DYNAMIC: u64 = 2;
    const DT_NEEDED: u64 = 1;
    const DT_STRTAB: u64 = 5;

    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(elf, 32, 8)?, number(elf, 54, 2)?, number(elf, 56, 2)?);
    let (mut loads, mut dynamic) = (Vec::new(), None);
    for index in 0..count {
        let at = table.checked_add(index * size)?;
        let (offset, address, length) = (number(elf, at + 8, 8)?, number(elf, at + 16, 8)?, number(elf, at + 32, 8)?);
        match number(elf, at, 4)? {
            PT_LOAD => loads.push((address, offset, length)),
            PT_DYNAMIC => dynamic = Some((offset, length)),
            _ => {}
        }
    }
    // A program without a dynamic section is static.
    let Some((start, length)) = dynamic else { return Some(Vec::new()) };
    let (mut names, mut strings) = (Vec::new(), None);
    for at in (start..start.checked_add(length)?).step_by(16) {
        match (number(elf, at, 8)?, number(elf, at + 8, 8)?) {
            (0, _) => break,
            (DT_NEEDED, name) => names.push(name),
            (DT_STRTAB, address) => strings = Some(address),
            _ => {}
        }
    }
    let strings = strings?;
    let (address, offset, _) =
        loads.into_iter().find(|(address, _, length)| strings.checked_sub(*address).is_some_and(|at| at < *length))?;
    let strings = strings - address + offset;
    names.into_iter().map(|name| text(elf, strings.checked_add(name)?)).collect()
}

fn number(elf: &[u8], at: u64, bytes: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let bytes = elf.get(at..at.checked_add(bytes)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn text(elf: &[u8], at: u64) -> Option<String> {
    let rest = elf.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_linked_program_are_found() {
        let libraries = needed(&std::fs::read("/bin/sh").unwrap()).unwrap();
        assert!(libraries.iter().any(|name| name.starts_with("libc.so")), "{libraries:?}");
    }

    #[test]
    fn nonsense_is_not_an_elf() {
        assert_eq!(needed(b""), None);
        assert_eq!(needed(&[0xff; 200]), None);
        let mut broken = std::fs::read("/bin/sh").unwrap();
        broken.truncate(100);
        assert_eq!(needed(&broken), None);
    }
}
