//! Memory of this machine beside what a run may take.

use radialsim::scenario::Footprint;

/// Bytes that a new program may take: what the kernel says is available, within the limit of this control group. None where nothing says so.
pub fn free() -> Option<u64> {
    let available = available(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let number = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    // cgroup v2, Linux Documentation/admin-guide/cgroup-v2.rst, "Memory": `max` where there is no limit.
    let limit = number("/sys/fs/cgroup/memory.max");
    let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
    Some(limit.map_or(available, |limit| available.min(limit.saturating_sub(used))))
}

/// `MemAvailable` of /proc/meminfo, in bytes (man 5 proc).
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What is said before a run that may not fit.
pub fn too_much(footprint: &Footprint, free: u64) -> String {
    let mb = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
    let largest = footprint.parts.iter().max_by_key(|(_, bytes)| *bytes);
    let largest = largest.map_or(String::new(), |&(what, bytes)| format!(" ({} for {what})", mb(bytes)));
    format!(
        "radialsim: this run may take {} of memory{largest}, and {} are free; fewer requests, variants, seeds or --threads take less",
        mb(footprint.at_most()),
        mb(free)
    )
}

#[cfg(test)]
mod tests {
    use super::{available, too_much};
    use radialsim::scenario::Footprint;

    #[test]
    fn what_is_available_is_read_in_bytes() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   24 kB\n"), Some(24 << 10));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
        assert_eq!(available("MemAvailable: much\n"), None);
    }

    #[test]
    fn the_largest_part_is_named() {
        let footprint = Footprint { parts: vec![("requests", 1_000_000), ("prices", 5_000_000)] };
        let said = too_much(&footprint, 3_000_000);
        assert!(said.contains("6 MB of memory (5 MB for prices), and 3 MB are free"), "{said}");
    }
}
