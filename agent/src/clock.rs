//! Kernel time (`CLOCK_MONOTONIC`) and wall time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

/// Nanoseconds of `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` tells them: those of the node, also where this process is in
/// a time namespace (`time_namespaces(7)`), which the kernel half is never in. Checked by failopen test `clock`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    static AHEAD: OnceLock<i64> = OnceLock::new();
    let ahead = AHEAD.get_or_init(|| ahead(&std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default()));
    read(libc::CLOCK_MONOTONIC).wrapping_sub(ahead.cast_unsigned())
}

/// How far `CLOCK_MONOTONIC` is ahead in this process's time namespace. The file is about its children's, which is the
/// same for a process that makes none.
fn ahead(offsets: &str) -> i64 {
    let line = offsets.lines().find_map(|line| line.strip_prefix("monotonic"));
    let mut numbers = line.unwrap_or_default().split_whitespace().map(str::parse::<i64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(seconds)), Some(Ok(ns))) => seconds.saturating_mul(1_000_000_000).saturating_add(ns),
        _ => 0,
    }
}

/// Nanoseconds since the Unix epoch.
#[must_use]
pub fn unix_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// Nanoseconds since boot, time asleep counted (`CLOCK_BOOTTIME`): the clock of process start times.
#[must_use]
pub fn boottime_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec; the clock ids used here exist on every Linux, so the call can't fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Turns kernel time into wall time. Measured again by [`Offset::refresh`], so that a step of the wall clock reaches
/// new calls within a second and never changes a duration.
#[derive(Debug)]
pub struct Offset(AtomicI64);

impl Offset {
    /// Measures the offset now.
    #[must_use]
    pub fn new() -> Self {
        let offset = Self(AtomicI64::new(0));
        offset.refresh();
        offset
    }

    /// Measures the offset again.
    pub fn refresh(&self) {
        let before = monotonic_ns();
        let unix = unix_ns();
        let monotonic = before.midpoint(monotonic_ns());
        self.0.store(unix.cast_signed() - monotonic.cast_signed(), Ordering::Relaxed);
    }

    /// Nanoseconds since the Unix epoch for a kernel time.
    #[must_use]
    pub fn unix_ns(&self, monotonic: u64) -> u64 {
        monotonic.saturating_add_signed(self.0.load(Ordering::Relaxed))
    }
}

impl Default for Offset {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_time_namespace_are_read() {
        assert_eq!(ahead("monotonic           0         0\nboottime            7         0\n"), 0);
        assert_eq!(ahead("monotonic      100000       500\nboottime            0         0\n"), 100_000_000_000_500);
        assert_eq!(ahead("monotonic         -10         0\n"), -10_000_000_000);
        assert_eq!([ahead(""), ahead("monotonic x 1")], [0, 0]);
    }

    #[test]
    fn wall_time_of_now_is_now() {
        let offset = Offset::new();
        let error = offset.unix_ns(monotonic_ns()).abs_diff(unix_ns());
        assert!(error < 50_000_000, "{error} ns");
    }
}
