//! What this process uses.

use super::OwnUse;

/// Reads proc(5) and getrusage(2); `map_bytes` is the caller's to fill in. What can't be read is 0.
#[must_use]
pub fn own_use() -> OwnUse {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    // SAFETY: all zeros is a rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid rusage to write to.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    OwnUse {
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        rss_bytes: number("VmRSS:") << 10,
        peak_rss_bytes: number("VmHWM:") << 10,
        map_bytes: 0,
        threads: number("Threads:"),
        files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let own = own_use();
        assert!(own.rss_bytes > 1 << 20 && own.peak_rss_bytes >= own.rss_bytes, "{own:?}");
        assert!(own.cpu_seconds > 0.0 && own.threads > 0 && own.files > 2, "{own:?}");
    }
}
