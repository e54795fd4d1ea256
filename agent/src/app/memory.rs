//! Memory that was needed for a moment goes back to the system.

use std::time::Duration;

/// How often: a pass over a heap of 100 MiB takes some milliseconds.
const EVERY: Duration = Duration::from_secs(10);

/// Gives free pages of the heap back, now and then. Without it what reading the kernel's BTF took at the start, or what a
/// burst of connections did, stays with the process for good: libc gives back only the top of a heap.
pub(super) async fn give_back() {
    let mut next = tokio::time::interval(EVERY);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        next.tick().await;
        // A thread that is gone took nothing with it.
        let _ = tokio::task::spawn_blocking(trim).await;
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time, by any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
