//! The machine's memory.

/// Bytes that can be allocated without swapping; nothing where the system does not say.
pub fn available() -> Option<u64> {
    entry("MemAvailable:")
}

/// Bytes that the machine has.
pub fn total() -> Option<u64> {
    entry("MemTotal:")
}

fn entry(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}
