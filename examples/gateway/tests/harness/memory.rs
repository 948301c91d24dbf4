//! What a process takes of the machine's memory.

/// Resident memory of this process, the gateway in it included, in KiB.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    kib(&status, "VmRSS:")
}

/// What a process has for itself and its part of what it shares with others, in KiB; nothing when it is gone.
pub fn proportional(process: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"));
    rollup.map_or(0, |rollup| kib(&rollup, "Pss:"))
}

fn kib(lines: &str, field: &str) -> u64 {
    let line = lines.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}
