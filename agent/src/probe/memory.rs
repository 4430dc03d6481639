//! Main memory.

use muster_proto::{Bytes, Memory};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::serving::Serving;

/// Reads it. What this agent's own engine workers hold counts as available: a new plan could have it.
pub fn read(serving: &Serving) -> Memory {
    let (total, available) = System::new_with_specifics(
        RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()),
    )
    .map_or((0, 0), |system| {
        // In a container its limit is what counts.
        match system.cgroup_limits().filter(|limits| limits.total_memory < system.total_memory()) {
            Some(limits) => (limits.total_memory, limits.free_memory.min(system.available_memory())),
            None => (system.total_memory(), system.available_memory()),
        }
    });
    let own: Bytes = serving.workers().keys().map(|pid| held_by(*pid)).sum();
    Memory { total: Bytes::new(total), available: Bytes::new(available).saturating_add(own).min(Bytes::new(total)) }
}

/// Memory of a process that its end would free: not the pages of mapped files, which count as available anyway.
#[cfg(target_os = "linux")]
fn held_by(pid: u32) -> Bytes {
    std::fs::read_to_string(format!("/proc/{pid}/status")).map_or(Bytes::ZERO, |status| parse_status(&status))
}

#[cfg(not(target_os = "linux"))]
fn held_by(_: u32) -> Bytes {
    Bytes::ZERO
}

#[cfg(any(target_os = "linux", test))]
fn parse_status(status: &str) -> Bytes {
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let lines = status.lines().filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"));
    Bytes::new(lines.filter_map(kib).sum::<u64>().saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_files_do_not_count() {
        let status = "Name:\tmuster-agent\nVmRSS:\t   30000 kB\nRssAnon:\t   10240 kB\nRssFile:\t   18000 kB\nRssShmem:\t    1024 kB\n";
        assert_eq!(parse_status(status), Bytes::from_mib(11));
        assert_eq!(parse_status(""), Bytes::ZERO);
    }
}
