//! How much memory the process may have: what the machine has, or less if a container says so.

use std::fs::read_to_string;
use std::path::Path;

/// Bytes that the process may have; `None` where nobody says.
pub fn available() -> Option<u64> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    // Version 2 of control groups, as seen from within a container and from outside of it; then version 1.
    let own = read_to_string("/proc/self/cgroup").ok();
    let group = own.as_deref().and_then(own_group).unwrap_or_default().trim_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let groups = Path::new(group).ancestors().map(|group| root.join(group).join("memory.max"));
    let limits = groups.chain([root.join("memory/memory.limit_in_bytes")]);
    let limits = limits.filter_map(|path| read_to_string(path).ok()?.trim().parse().ok());
    limits.chain(machine).min()
}

/// `MemTotal` of /proc/meminfo.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The group of version 2 in /proc/self/cgroup.
fn own_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(total_of("MemFree: 1 kB\nMemTotal:       24576 kB\n"), Some(24576 * 1024));
        assert_eq!(total_of("MemTotal: many\n"), None);
        assert_eq!(own_group("12:memory:/x\n0::/system.slice/a.service\n"), Some("/system.slice/a.service"));
        if cfg!(target_os = "linux") {
            assert!(available().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
