//! How much memory this process may use.

use std::path::Path;

/// Taken when the system does not say, in bytes.
const UNKNOWN: u64 = 1024 * 1024 * 1024;

/// Memory of the machine or of the container, whichever is less, in bytes.
pub(crate) fn available() -> u64 {
    let machine = read("/proc/meminfo").as_deref().and_then(total_of_meminfo);
    let container = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(container).min().unwrap_or(UNKNOWN)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(path)).ok()
}

fn total_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(total_of_meminfo("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24576 * 1024));
        assert_eq!(total_of_meminfo("MemFree: 1 kB\n"), None);
        assert!(available() > 0);
    }
}
