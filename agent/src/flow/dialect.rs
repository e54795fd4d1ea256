//! What a connection speaks: told by its first bytes, then spoken by a parser.

use std::sync::Arc;

use crate::model::{Call, Thread, Visibility};
use crate::proto::opening::{Opening, Outcome};
use crate::proto::{Begun, Chunk, Close, Gap, Guess, MIDWAY, Parser, Protocol, Side, Step, hello, opening};

/// First bytes, both sides together, by which every protocol must know its own.
const ENOUGH: usize = 64;
/// Each both a protocol's name and why it can't be read.
const TLS: &str = "tls";
const H2C: &str = "h2c";
/// What an HTTP/2 client with prior knowledge says first (RFC 9113 §3.4), as far as it is unmistakable.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// How far a connection is understood.
pub(super) enum Dialect {
    /// No byte was seen yet, and the first one will be.
    Silent,
    /// First bytes were not seen: waits for a segment that is certainly the start of a message, behind one of the other
    /// side. Whose the last one was.
    Late(Option<Side>),
    /// Too few bytes to say.
    Hearing(Box<Heard>),
    /// A parser reads it. `proven`: it has told a call.
    Speaking { name: &'static str, proven: bool, parser: Box<dyn Parser> },
    /// Nobody reads it (any more).
    Opaque {
        name: Option<&'static str>,
        reason: &'static str,
        tally: Tally,
        server_name: Option<Arc<str>>,
        exports: bool,
    },
    /// HTTP/2 in clear, of which only the first bytes are looked at.
    Opening(Box<Opening>),
}

/// What a parser counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Heads that could not be told.
    pub skipped: u64,
    /// `traceparent` headers that were ignored.
    pub malformed: u64,
}

impl Tally {
    fn of(parser: &dyn Parser) -> Self {
        Self { skipped: parser.skipped(), malformed: parser.malformed_contexts() }
    }
}

/// The first bytes of each side until they are enough.
#[derive(Default)]
pub(super) struct Heard {
    client: Vec<u8>,
    server: Vec<u8>,
    order: Vec<Mark>,
}

struct Mark {
    side: Side,
    at: u64,
    seq: u32,
    len: usize,
    by: Thread,
}

enum Said {
    Opens(&'static Protocol),
    Foreign(Option<&'static str>, &'static str),
    /// HTTP/2 in clear.
    Begins,
    TooFew,
}

impl Dialect {
    /// Waits for a segment that is certainly the start of a message.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::Late(_))
    }

    /// Who was taken for the client is the server.
    pub(super) fn swap(&mut self) {
        if let Self::Late(Some(last)) = self {
            *last = if *last == Side::Client { Side::Server } else { Side::Client };
        }
    }

    /// Nobody reads it (any more).
    pub(super) fn is_opaque(&self) -> bool {
        matches!(self, Self::Opaque { .. })
    }

    /// Takes bytes in order.
    pub(super) fn hear(&mut self, chunk: Chunk<'_>, protocols: &'static [Protocol], out: &mut Vec<Call>) {
        match self {
            Self::Speaking { name, proven, parser } => {
                let before = out.len();
                let step = parser.feed(chunk, out);
                *proven |= out.len() > before;
                if let Step::Done(reason) = step {
                    let tally = Tally::of(parser.as_ref());
                    *self = Self::Opaque {
                        name: proven.then_some(*name),
                        reason,
                        tally,
                        server_name: None,
                        exports: false,
                    };
                }
            }
            Self::Opaque { .. } => {}
            Self::Opening(opening) => {
                let outcome = opening.hear(chunk.side, chunk.bytes);
                self.opened(outcome);
            }
            Self::Late(last) => {
                let before = last.replace(chunk.side);
                self.hear_late(chunk, before, protocols, out);
            }
            Self::Silent | Self::Hearing(_) => self.hear_first(chunk, protocols, out),
        }
    }

    /// How many of a side's next bytes are only counted, whatever they are.
    pub(super) fn counts(&self, side: Side) -> u64 {
        match self {
            Self::Speaking { parser, .. } => parser.counts(side),
            Self::Opaque { .. } => u64::MAX,
            Self::Silent | Self::Late(_) | Self::Hearing(_) | Self::Opening(_) => 0,
        }
    }

    /// Takes bytes that are not there.
    pub(super) fn gap(&mut self, gap: Gap, out: &mut Vec<Call>) {
        match self {
            Self::Speaking { name, proven, parser } => {
                let before = out.len();
                let step = parser.gap(gap, out);
                *proven |= out.len() > before;
                if let Step::Done(reason) = step {
                    let tally = Tally::of(parser.as_ref());
                    *self = Self::Opaque {
                        name: proven.then_some(*name),
                        reason,
                        tally,
                        server_name: None,
                        exports: false,
                    };
                }
            }
            Self::Silent | Self::Hearing(_) => *self = Self::Late(None),
            Self::Opening(opening) => {
                let outcome = opening.gap(gap.side);
                self.opened(outcome);
            }
            Self::Late(_) | Self::Opaque { .. } => {}
        }
    }

    /// Takes an end.
    pub(super) fn close(&mut self, close: Close, at: u64, out: &mut Vec<Call>) {
        if let Self::Speaking { parser, .. } = self {
            parser.close(close, at, out);
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: u64, out: &mut Vec<Call>) {
        if let Self::Speaking { parser, .. } = self {
            parser.tick(now, out);
        }
    }

    /// Requests with ids whose heads became whole since this was last asked.
    pub(super) fn begun(&mut self) -> Vec<Begun> {
        match self {
            Self::Speaking { parser, .. } => parser.begun(),
            _ => Vec::new(),
        }
    }

    /// A call is running.
    pub(super) fn busy(&self) -> bool {
        matches!(self, Self::Speaking { parser, .. } if parser.busy())
    }

    /// What was counted so far.
    pub(super) fn tally(&self) -> Tally {
        match self {
            Self::Speaking { parser, .. } => Tally::of(parser.as_ref()),
            Self::Opaque { tally, .. } => *tally,
            Self::Silent | Self::Late(_) | Self::Hearing(_) | Self::Opening(_) => Tally::default(),
        }
    }

    /// What is spoken.
    pub(super) fn protocol(&self) -> Option<&'static str> {
        match self {
            Self::Speaking { name, .. } => Some(name),
            Self::Opaque { name, .. } => *name,
            Self::Opening(_) => Some(H2C),
            Self::Silent | Self::Late(_) | Self::Hearing(_) => None,
        }
    }

    /// The host that a TLS client asked for.
    pub(super) fn server_name(&self) -> Option<Arc<str>> {
        match self {
            Self::Opaque { server_name, .. } => server_name.clone(),
            _ => None,
        }
    }

    /// How calls are seen.
    pub(super) fn visibility(&self) -> Visibility {
        match self {
            Self::Speaking { .. } => Visibility::Plaintext,
            Self::Opaque { reason, .. } => Visibility::Opaque(reason),
            Self::Opening(_) => Visibility::Opaque(H2C),
            Self::Silent | Self::Hearing(_) => Visibility::Opaque("no_bytes_yet"),
            Self::Late(_) => Visibility::Opaque("first_bytes_not_seen"),
        }
    }

    /// Whether it was proven that its client exports spans by gRPC; true once.
    pub(super) fn newly_exports(&mut self) -> bool {
        match self {
            Self::Opaque { exports, .. } => std::mem::take(exports),
            _ => false,
        }
    }

    fn opened(&mut self, outcome: Outcome) {
        if outcome == Outcome::Open {
            return;
        }
        let (tally, exports) = (Tally::default(), outcome == Outcome::Exports);
        *self = Self::Opaque { name: Some(H2C), reason: H2C, tally, server_name: None, exports };
    }

    fn hear_first(&mut self, chunk: Chunk<'_>, protocols: &'static [Protocol], out: &mut Vec<Call>) {
        let heard = match std::mem::replace(self, Self::Late(None)) {
            Self::Hearing(heard) => Some(heard),
            _ => None,
        };
        let said = match &heard {
            None if chunk.side == Side::Client => judge(protocols, chunk.bytes, &[]),
            None => judge(protocols, &[], chunk.bytes),
            Some(heard) => {
                let mine: Vec<u8> = heard.of(chunk.side).iter().chain(chunk.bytes).take(ENOUGH).copied().collect();
                match chunk.side {
                    Side::Client => judge(protocols, &mine, &heard.server),
                    Side::Server => judge(protocols, &heard.client, &mine),
                }
            }
        };
        match said {
            Said::Opens(protocol) => {
                *self = Self::Speaking { name: protocol.name, proven: false, parser: (protocol.open)() };
                if let Some(heard) = heard {
                    heard.replay(|chunk| self.hear(chunk, protocols, out));
                }
                self.hear(chunk, protocols, out);
            }
            Said::Foreign(name, reason) => {
                let server_name = if reason == TLS { hello::server_name(chunk.bytes).map(Arc::from) } else { None };
                *self = Self::Opaque { name, reason, tally: Tally::default(), server_name, exports: false };
            }
            Said::Begins => {
                *self = Self::Opening(Box::default());
                if let Some(heard) = heard {
                    heard.replay(|chunk| self.hear(chunk, protocols, out));
                }
                self.hear(chunk, protocols, out);
            }
            Said::TooFew => {
                let mut heard = heard.unwrap_or_default();
                heard.keep(&chunk);
                *self = Self::Hearing(heard);
            }
        }
    }

    /// `before`: who has spoken before. Behind the same side these bytes may be more of that.
    fn hear_late(
        &mut self,
        chunk: Chunk<'_>,
        before: Option<Side>,
        protocols: &'static [Protocol],
        out: &mut Vec<Call>,
    ) {
        if let [0x14..=0x17, 3, 0..=4, ..] = chunk.bytes {
            *self = foreign(Some(TLS), TLS);
            return;
        }
        let (client, server) = match chunk.side {
            Side::Client => (chunk.bytes, &[][..]),
            Side::Server => (&[][..], chunk.bytes),
        };
        if client.starts_with(PREFACE) {
            *self = foreign(Some(H2C), H2C);
            return;
        }
        let certain = |protocol: &&Protocol| {
            let cut =
                before == Some(chunk.side) || (before.is_none() && !client.is_empty() && !(protocol.starts)(client));
            !cut && (protocol.guess)(client, server) == Guess::Yes
        };
        let Some(protocol) = protocols.iter().find(certain) else { return };
        *self = Self::Speaking { name: protocol.name, proven: false, parser: (protocol.open)() };
        // The parser must know that it joins in the middle.
        for side in [Side::Client, Side::Server] {
            self.gap(Gap { side, at: chunk.at, seq: chunk.seq, len: 0, lost: Some(MIDWAY) }, out);
        }
        self.hear(chunk, protocols, out);
    }
}

impl Heard {
    fn of(&self, side: Side) -> &[u8] {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    fn keep(&mut self, chunk: &Chunk<'_>) {
        let mine = match chunk.side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        mine.extend_from_slice(chunk.bytes);
        let (side, at, seq, by) = (chunk.side, chunk.at, chunk.seq, chunk.by);
        self.order.push(Mark { side, at, seq, len: chunk.bytes.len(), by });
    }

    fn replay(&self, mut feed: impl FnMut(Chunk<'_>)) {
        let (mut client, mut server) = (&self.client[..], &self.server[..]);
        for mark in &self.order {
            let rest = match mark.side {
                Side::Client => &mut client,
                Side::Server => &mut server,
            };
            let (bytes, after) = rest.split_at_checked(mark.len).unwrap_or_default();
            *rest = after;
            feed(Chunk { side: mark.side, at: mark.at, seq: mark.seq, bytes, by: mark.by });
        }
    }
}

fn foreign(name: Option<&'static str>, reason: &'static str) -> Dialect {
    Dialect::Opaque { name, reason, tally: Tally::default(), server_name: None, exports: false }
}

/// What the first bytes of both sides say.
fn judge(protocols: &'static [Protocol], client: &[u8], server: &[u8]) -> Said {
    let few = client.len() + server.len() < ENOUGH;
    if let [0x16] | [0x16, 3, ..] = client {
        return Said::Foreign(Some(TLS), TLS);
    }
    if client.starts_with(PREFACE) || (client.is_empty() && opening::is_settings(server)) {
        return Said::Begins;
    }
    if client.len() >= 4 && PREFACE.starts_with(client) {
        return Said::TooFew;
    }
    let mut open = false;
    for protocol in protocols {
        match (protocol.guess)(client, server) {
            Guess::Yes | Guess::Likely => return Said::Opens(protocol),
            Guess::More => open = true,
            Guess::No => {}
        }
    }
    if open && few { Said::TooFew } else { Said::Foreign(None, "unknown_protocol") }
}

/// Who sent these bytes, where they are certain to start a message of one side.
pub(super) fn sender(protocols: &'static [Protocol], bytes: &[u8]) -> Option<Side> {
    protocols.iter().find_map(|protocol| {
        if (protocol.guess)(bytes, &[]) == Guess::Yes {
            Some(Side::Client)
        } else if (protocol.guess)(&[], bytes) == Guess::Yes {
            Some(Side::Server)
        } else {
            None
        }
    })
}
