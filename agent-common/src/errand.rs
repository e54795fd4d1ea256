//! What a thread is about while it sends: the request that it has taken and not answered yet.
//!
//! A thread's errand begins when it reads a request from a connection that nothing else waits on, and ends when the
//! answer is sent. Its id is the time at which it began. The kernel half stamps outgoing requests with the errand of the
//! thread that sends them, and answers with the errand that their request began, together with how sure that is.
#![expect(clippy::inline_always, reason = "for the kernel half a call costs more than this code")]

/// Id of an errand, or why there is none.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Errand(pub u64);

impl Errand {
    /// Nothing to tell: not the start of a message, or the process takes no requests.
    pub const NONE: Self = Self(0);
    /// Bits of the id; a [`Doubt`] is above them. 2^60 ns are 36 years.
    pub const BITS: u32 = 60;

    /// Bit of an id: a goroutine's. Two of a process may begin in the same nanosecond and go on in one thread.
    pub const GOROUTINE: u64 = 1 << (Self::BITS - 1);

    /// The id of an errand that a goroutine begins at `at` on a processor: two of a processor can't begin at once. `at`
    /// is cut to 26 days.
    #[must_use]
    #[inline(always)]
    pub const fn goroutine(at: u64, processor: u32) -> u64 {
        Self::GOROUTINE | ((at << 8 | (processor & 0xff) as u64) & (Self::GOROUTINE - 1))
    }

    /// A goroutine is on it.
    #[must_use]
    #[inline(always)]
    pub const fn is_goroutine(self) -> bool {
        self.0 & Self::GOROUTINE != 0
    }

    /// `CLOCK_MONOTONIC` nanoseconds of a thread's begin, see [`Self::goroutine`] for the others; 0: there was none.
    #[must_use]
    #[inline(always)]
    pub const fn id(self) -> u64 {
        self.0 & ((1 << Self::BITS) - 1)
    }

    /// What speaks against it.
    #[must_use]
    #[inline(always)]
    pub const fn doubt(self) -> Doubt {
        Doubt((self.0 >> Self::BITS) as u8)
    }

    /// An errand with this id, of which something is to be said.
    #[must_use]
    #[inline(always)]
    pub const fn of(id: u64, doubt: Doubt) -> Self {
        Self((id & ((1 << Self::BITS) - 1)) | ((doubt.0 as u64) << Self::BITS))
    }

    /// A thread was on it alone, as far as the kernel half can see.
    #[must_use]
    #[inline(always)]
    pub const fn is_sure(self) -> bool {
        self.doubt().0 == Doubt::NONE.0 && self.id() != 0
    }
}

/// Why an errand proves nothing.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doubt(pub u8);

impl Doubt {
    /// Nothing speaks against it.
    pub const NONE: Self = Self(0);
    /// The thread has taken no request, though its process takes some.
    pub const IDLE: Self = Self(1);
    /// The thread serves many connections at once.
    pub const LOOP: Self = Self(2);
    /// The thread took another request before it answered this one.
    pub const MIXED: Self = Self(3);
    /// Another thread answered.
    pub const OTHER: Self = Self(4);
    /// The answer was sent before every response to what the thread had sent was read by it.
    pub const UNREAD: Self = Self(5);
    /// Nobody held the socket's lock, or the ring was full.
    pub const UNKNOWN: Self = Self(6);
    /// The process had taken many requests before its first call, so that those under way then are not known.
    pub const NEW: Self = Self(7);
    /// Something else waited for the socket from which the thread has taken its request, or that was pipelined.
    pub const SHARED: Self = Self(8);
    /// The thread has taken its request from a non-blocking socket, so that it may have others to wait for.
    pub const FREE: Self = Self(9);
}
