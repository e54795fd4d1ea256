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

/// Takes all memory from one heap; before the first thread starts. A call is made by one thread and forgotten by
/// another: in heaps of their own, what they leave between each other's is a quarter of the agent's memory with 10 000
/// connections (capture suite, `a12`), and no call is cheaper for it.
#[cfg(target_env = "gnu")]
pub fn one_heap() {
    // SAFETY: mallopt(3) only sets a number.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// As it is.
#[cfg(not(target_env = "gnu"))]
pub fn one_heap() {}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time, by any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
