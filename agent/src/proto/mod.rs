//! Protocol parsers: machines without a world. Bytes and gaps go in, calls come out; no I/O, no clock, no allocation
//! beyond their stated bounds.

pub mod dns;
pub mod forwarded;
pub mod hello;
mod hex;
pub mod http1;
pub mod opening;
pub(crate) mod propagation;
pub mod proxy;
pub mod traceparent;

use crate::model::{Call, Stamp, Thread, TraceContext};

/// [`Close::Forgotten`]: the agent stops. Any other reason is one of loss.
pub const STOPPED: &str = "agent_stopped";

/// Who sent a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that sends requests.
    Client,
    /// The end that answers them.
    Server,
}

/// Bytes in order: each byte of a direction is fed once, as a chunk or as part of a [`Gap`].
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Who sent it.
    pub side: Side,
    /// When it passed, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// TCP sequence number of its first byte.
    pub seq: u32,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Thread that sent it, where known.
    pub by: Thread,
}

/// Bytes that passed and were not kept.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// Who sent them.
    pub side: Side,
    /// When the last of them passed, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// TCP sequence number of the first of them.
    pub seq: u32,
    /// How many.
    pub len: u64,
    /// Why: `None` when the kernel half counted them on purpose (body bytes beyond the window), else the ledger's reason.
    pub lost: Option<&'static str>,
}

/// [`Gap::lost`] of the gaps of unknown length with which a connection begins that is joined in the middle.
pub const MIDWAY: &str = "midway";

/// A request with ids that its receiver may pass on, as soon as its head is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its first byte.
    pub first: Stamp,
    /// Its trace context.
    pub context: Option<TraceContext>,
    /// Keyed hash of what names the request itself.
    pub request_id: Option<u64>,
}

/// How a connection ended, from the call's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// This side said FIN: it sends no more. The other side may still send.
    Fin(Side),
    /// Reset, by this side where it is known.
    Reset(Option<Side>),
    /// The socket is gone.
    Gone,
    /// The agent stops, or the connection was evicted from its table.
    Forgotten(&'static str),
}

/// What the parser wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes.
    Continue,
    /// These bytes are not of this protocol, or it ended by agreement (upgrade): feed no more.
    Done(&'static str),
}

/// One connection's protocol machine.
pub trait Parser: Send {
    /// Takes bytes in order; appends each call that is whole.
    fn feed(&mut self, chunk: Chunk<'_>, out: &mut Vec<Call>) -> Step;
    /// Takes bytes that were not kept.
    fn gap(&mut self, gap: Gap, out: &mut Vec<Call>) -> Step;
    /// Takes an end; appends what it ends.
    fn close(&mut self, close: Close, at: u64, out: &mut Vec<Call>);
    /// Time passes: ends what only silence can end. `now` is `CLOCK_MONOTONIC` nanoseconds.
    fn tick(&mut self, now: u64, out: &mut Vec<Call>);
    /// How many of this side's next bytes it only counts, whatever they are: their loss is none.
    fn counts(&self, _side: Side) -> u64 {
        0
    }
    /// Something waits for [`Parser::tick`] or is half done.
    fn busy(&self) -> bool;
    /// Messages (heads) that could not be told because bytes before them were not seen.
    fn skipped(&self) -> u64;
    /// Requests with trace headers that were malformed, repeated or incomplete, and so ignored.
    fn malformed_contexts(&self) -> u64 {
        0
    }
    /// Requests with ids whose heads became whole since this was last asked; to be asked after every chunk and gap.
    fn begun(&mut self) -> Vec<Begun> {
        Vec::new()
    }
}

/// What a protocol says of a connection's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// They are certainly its own: its parser is opened and fed from the first byte.
    Yes,
    /// They look like its own, and there are enough of them: its parser is opened, to judge when it has seen more. Not
    /// enough to tell the sides apart, nor to join a connection in the middle.
    Likely,
    /// They can't be its own.
    No,
    /// Too few to say.
    More,
}

/// A protocol that Weir reads.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// semconv `network.protocol.name`.
    pub name: &'static str,
    /// Looks at the first bytes of each side, client's first; a side that has not spoken is empty. Must not say
    /// [`Guess::More`] to 64 bytes. What it says to one side alone also tells the sides apart where the role is not
    /// known.
    pub guess: fn(client: &[u8], server: &[u8]) -> Guess,
    /// What a client sends starts a message, even to who has seen nothing before it: it may be the rest of another one.
    pub starts: fn(client: &[u8]) -> bool,
    /// Makes a machine for one connection.
    pub open: fn() -> Box<dyn Parser>,
}

/// Every protocol that Weir reads, in the order in which they are asked.
pub const PROTOCOLS: &[Protocol] = &[http1::PROTOCOL];
