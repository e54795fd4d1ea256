//! Who goes first: the applications, as long as nothing is lost by it.
//!
//! The agent's work comes in bursts of some milliseconds. On cores that the observed programs need, each of them is a
//! pause of theirs. So the threads that work on calls run with the lowest priority, and as everybody else from when the
//! ring fills, when batches pile up, or when they have had no turn for long, until they have caught up. Where a fair share
//! is too little for that, they go ahead of everybody. A thread of its own looks after that: those that wait for their
//! turn can't. While the agent itself takes a processor, as long as programs are verified, they go ahead, too: it must not
//! be what makes the ring overflow.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::kernel::level::Level;

/// How often is looked. The ring's reader sleeps no longer, and fills a tenth of the ring in that time at most.
const LOOK: Duration = Duration::from_millis(10);
/// Looks without progress until a thread has waited long enough.
const PATIENCE: u32 = 4;
/// Looks until a thread that is in front may fall back.
const STAY: u32 = 2;
/// Part of the ring from which on its reader goes in front, and the part from which on it need not any more. What is read
/// late has left the processor's caches by then.
const FULL: usize = 8;
const EMPTY: usize = 16;
/// Part of the ring from which on its reader goes ahead of everybody, until no more than [`FULL`] is filled. A fair
/// share of saturated cores can be less than it needs: on two, at 81 000 requests/s, the ring filled by 5 % in 40 ms.
const BRIM: usize = 4;
/// Batches from which on their judge goes in front.
const MANY: u64 = 64;

/// How much less nice than usual a thread is that goes ahead: nine times the weight.
const AHEAD: i32 = 10;
/// How much nicer than usual a thread is that yields: a third of the weight. One with less would take too long.
const YIELDS: i32 = 5;

/// Scheduling of a thread: `struct sched_attr` of `include/uapi/linux/sched/types.h`, its first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Nanoseconds of a turn (6.12 and newer; 0: the kernel's choice).
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// `SCHED_OTHER` and `SCHED_IDLE`.
const OTHER: u32 = 0;
const IDLE: u32 = 5;

impl Attributes {
    const SIZE: u32 = size_of::<Self>() as u32;

    /// Of a thread; 0: the calling one.
    fn of(thread: libc::pid_t) -> io::Result<Self> {
        let mut told = Self::default();
        // SAFETY: `told` is as long as is said.
        match unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut told, Self::SIZE, 0) } {
            0 => Ok(told),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set(mut self, thread: libc::pid_t) -> io::Result<()> {
        self.size = Self::SIZE;
        // SAFETY: an initialised structure of the size that it says.
        match unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const self, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Ahead of everybody who has not asked for more.
    fn ahead(self) -> Self {
        Self { nice: (self.nice - AHEAD).max(-20), ..self }
    }

    /// Behind everybody: whoever wakes takes its place at once, which `SCHED_BATCH` leaves to fairness. Not with long
    /// turns: one that has begun is kept when the weight changes, and who comes forward would be late by as much.
    fn last(self) -> Self {
        Self { policy: IDLE, nice: 19, ..self }
    }
}

/// What the threads tell of their work.
#[derive(Debug, Default)]
pub(super) struct Precedence {
    places: Mutex<Places>,
    /// Rounds of the capturing thread.
    rounds: AtomicU64,
    handed: AtomicU64,
    judged: AtomicU64,
    over: AtomicBool,
}

/// Where the threads are.
#[derive(Debug, Default)]
struct Places {
    threads: Vec<libc::pid_t>,
    /// What they have by themselves; none: they are left as they are.
    usual: Option<Attributes>,
    /// How many of them are where.
    set: (usize, Rank),
    /// How many ask that they go ahead.
    ahead: usize,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rank {
    /// Everybody else.
    Behind,
    /// Nobody.
    #[default]
    Usual,
    /// These threads.
    Ahead,
}

impl Places {
    fn place(&mut self, rank: Rank) {
        let rank = if self.ahead > 0 { Rank::Ahead } else { rank };
        let Some(usual) = self.usual.filter(|_| self.set != (self.threads.len(), rank)) else { return };
        let wanted = match rank {
            Rank::Behind => usual.last(),
            Rank::Usual => usual,
            Rank::Ahead => usual.ahead(),
        };
        for thread in &self.threads {
            if let Err(error) = wanted.set(*thread) {
                tracing::debug!(%error, thread, "a thread keeps its priority");
            }
        }
        self.set = (self.threads.len(), rank);
    }
}

/// As long as this is there, the threads go ahead of everybody.
#[derive(Debug)]
pub(super) struct Ahead<'a>(&'a Precedence);

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        let mut places = self.0.places();
        places.ahead -= 1;
        places.place(Rank::Usual);
    }
}

/// The calling thread, which is to end with what it does now, yields to others from here on.
pub(super) fn yields() {
    let yielded = Attributes::of(0).and_then(|usual| match usual.policy {
        OTHER => Attributes { nice: (usual.nice + YIELDS).min(19), ..usual }.set(0),
        // Whoever started the agent has chosen.
        _ => Ok(()),
    });
    if let Err(error) = yielded {
        tracing::debug!(%error, "a thread does not yield");
    }
}

impl Precedence {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent is about to take a processor for itself: the threads go ahead of everybody, at once and until this is
    /// dropped. Without `CAP_SYS_NICE` they stay where they are.
    pub(super) fn ahead(&self) -> Ahead<'_> {
        let mut places = self.places();
        places.ahead += 1;
        places.place(Rank::Ahead);
        Ahead(self)
    }

    /// The calling thread is one of those that step back.
    pub(super) fn join(&self) {
        // SAFETY: gettid(2) has no preconditions.
        let thread = unsafe { libc::gettid() };
        self.places().threads.push(thread);
    }

    /// The capturing thread has had a turn.
    pub(super) fn round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch was handed over.
    pub(super) fn handed(&self) {
        self.handed.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch was judged.
    pub(super) fn judged(&self) {
        self.judged.fetch_add(1, Ordering::Relaxed);
    }

    /// The agent ends: nobody steps back any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Starts to look after it; ends by itself after [`Self::end`].
    pub(super) fn start(self: &Arc<Self>, level: Level) -> io::Result<JoinHandle<()>> {
        let this = Arc::clone(self);
        std::thread::Builder::new().name("weir-precedence".to_owned()).spawn(move || this.watch(&level))
    }

    fn watch(&self, level: &Level) {
        let usual = match Attributes::of(0) {
            Ok(usual) if usual.policy == OTHER => usual,
            // Whoever started the agent has chosen; or is not to be asked.
            _ => return,
        };
        // Who steps back must be able to come again.
        if let Err(error) = usual.last().set(0).and_then(|()| usual.set(0)) {
            tracing::info!(%error, "the agent may delay applications on busy cores: with CAP_SYS_NICE it would step back");
            return;
        }
        // A short turn comes soon.
        let _ = Attributes { runtime: 200_000, ..usual }.set(0);
        self.places().usual = Some(usual);
        let mut judgement = Judgement::default();
        while !self.over.load(Ordering::Relaxed) {
            let (filled, room) = level.filled();
            let rank = judgement.rank(&Seen {
                filled,
                room,
                rounds: self.rounds.load(Ordering::Relaxed),
                handed: self.handed.load(Ordering::Relaxed),
                judged: self.judged.load(Ordering::Relaxed),
            });
            self.places().place(rank);
            std::thread::sleep(LOOK);
        }
        self.places().place(Rank::Usual);
    }
}

/// What is seen at one look.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    filled: usize,
    room: usize,
    rounds: u64,
    handed: u64,
    judged: u64,
}

/// Where the threads belong, and since when nothing has moved.
#[derive(Debug)]
struct Judgement {
    before: Seen,
    /// Looks since the capturing and the judging thread had a turn that they needed.
    still: [u32; 2],
    rank: Rank,
    /// Looks since they came forward.
    stayed: u32,
}

impl Default for Judgement {
    fn default() -> Self {
        Self { before: Seen::default(), still: [0; 2], rank: Rank::Behind, stayed: 0 }
    }
}

impl Judgement {
    /// Where the threads belong.
    fn rank(&mut self, seen: &Seen) -> Rank {
        let waiting = seen.handed.saturating_sub(seen.judged);
        let moved = [seen.rounds != self.before.rounds, waiting == 0 || seen.judged != self.before.judged];
        for (still, moved) in self.still.iter_mut().zip(moved) {
            *still = if moved { 0 } else { *still + 1 };
        }
        self.before = *seen;
        let fuller = |part: usize| seen.filled > seen.room / part;
        if fuller(BRIM) || self.rank == Rank::Ahead && fuller(FULL) {
            self.rank = Rank::Ahead;
            self.stayed = 0;
        } else if fuller(FULL) || waiting > MANY || self.still.iter().any(|still| *still >= PATIENCE) {
            self.rank = Rank::Usual;
            self.stayed = 0;
        } else if self.rank != Rank::Behind {
            self.stayed += 1;
            let stays = self.stayed < STAY || fuller(EMPTY) || waiting > 1;
            self.rank = if stays { Rank::Usual } else { Rank::Behind };
        }
        self.rank
    }
}

#[cfg(test)]
mod tests {
    use super::{Attributes, Judgement, MANY, PATIENCE, Precedence, Rank, STAY, Seen};

    const ROOM: usize = 1 << 20;

    fn looks(judgement: &mut Judgement, seen: Seen, times: u32) -> Rank {
        (0..times).map(|_| judgement.rank(&seen)).last().unwrap()
    }

    #[test]
    fn a_ring_that_fills_brings_its_reader_in_front_until_it_is_nearly_empty() {
        let mut judgement = Judgement::default();
        let at = |filled, rounds| Seen { filled, room: ROOM, rounds, ..Seen::default() };
        assert_eq!(judgement.rank(&at(ROOM / 8, 1)), Rank::Behind);
        assert_eq!(judgement.rank(&at(ROOM / 8 + 1, 2)), Rank::Usual);
        for rounds in 3..20 {
            assert_eq!(judgement.rank(&at(ROOM / 12, rounds)), Rank::Usual);
        }
        assert_eq!(judgement.rank(&at(ROOM / 16, 21)), Rank::Behind);
    }

    #[test]
    fn where_a_fair_share_is_too_little_it_goes_ahead_until_the_ring_is_as_it_was() {
        let mut judgement = Judgement::default();
        let at = |filled, rounds| Seen { filled, room: ROOM, rounds, ..Seen::default() };
        assert_eq!(judgement.rank(&at(ROOM / 4, 1)), Rank::Usual);
        assert_eq!(judgement.rank(&at(ROOM / 4 + 1, 2)), Rank::Ahead);
        for rounds in 3..20 {
            assert_eq!(judgement.rank(&at(ROOM / 8 + 1, rounds)), Rank::Ahead);
        }
        for rounds in 20..40 {
            assert_eq!(judgement.rank(&at(ROOM / 8, rounds)), Rank::Usual);
        }
        assert_eq!(judgement.rank(&at(0, 40)), Rank::Behind);
    }

    #[test]
    fn batches_that_pile_up_do_so_too() {
        let mut judgement = Judgement::default();
        let piled = |rounds, handed| Seen { room: ROOM, rounds, handed, ..Seen::default() };
        assert_eq!(judgement.rank(&piled(1, MANY)), Rank::Behind);
        assert_eq!(judgement.rank(&piled(2, MANY + 1)), Rank::Usual);
    }

    #[test]
    fn who_has_waited_for_long_has_a_turn() {
        let mut judgement = Judgement::default();
        let still = Seen { filled: 1, room: ROOM, rounds: 1, ..Seen::default() };
        assert_eq!(judgement.rank(&still), Rank::Behind);
        assert_eq!(looks(&mut judgement, still, PATIENCE - 1), Rank::Behind);
        assert_eq!(judgement.rank(&still), Rank::Usual);
        let mut judgement = Judgement::default();
        let unjudged = |rounds| Seen { room: ROOM, rounds, handed: 1, ..Seen::default() };
        let ranks: Vec<_> = (1..=u64::from(PATIENCE)).map(|round| judgement.rank(&unjudged(round))).collect();
        assert_eq!(ranks.iter().filter(|rank| **rank != Rank::Behind).count(), 1);
        assert_eq!(ranks.last(), Some(&Rank::Usual));
        let done = |rounds| Seen { room: ROOM, rounds, handed: 1, judged: 1, ..Seen::default() };
        let ranks: Vec<_> = (10..10 + u64::from(STAY)).map(|round| judgement.rank(&done(round))).collect();
        assert_eq!(ranks.last(), Some(&Rank::Behind));
    }

    #[test]
    fn who_is_asked_to_go_ahead_does_so_until_the_last_one_has_done() {
        let precedence = Precedence::default();
        let at = |rank| {
            let mut places = precedence.places();
            places.place(rank);
            places.set.1
        };
        // Nobody may step back: nothing is set.
        drop(precedence.ahead());
        assert_eq!(at(Rank::Behind), Rank::Usual);
        precedence.places().usual = Some(Attributes::default());
        assert_eq!(at(Rank::Behind), Rank::Behind);
        let now = || precedence.places().set.1;
        let (one, other) = (precedence.ahead(), precedence.ahead());
        assert_eq!(now(), Rank::Ahead);
        assert_eq!(at(Rank::Behind), Rank::Ahead);
        drop(one);
        assert_eq!(at(Rank::Behind), Rank::Ahead);
        drop(other);
        assert_eq!(now(), Rank::Usual);
        assert_eq!(at(Rank::Behind), Rank::Behind);
    }

    #[test]
    fn an_idle_agent_stays_behind() {
        let mut judgement = Judgement::default();
        for rounds in 1..100 {
            assert_eq!(judgement.rank(&Seen { room: ROOM, rounds, ..Seen::default() }), Rank::Behind);
        }
    }
}
