//! One connection while it lives.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use weir_common::conn::{self, Ends, Owner};
use weir_common::record::{FLAG_MIDWAY, Opened, Segment, Way};

use super::chains::Note;
use super::dialect::{self, Dialect, Tally};
use super::exchange;
use super::mirror::Start;
use super::reading::Reading;
use super::stream::{Piece, REORDER, Room, Sink, Stream};
use crate::model::{Call, Connection, Kind, OpenConnection, Role, Thread};
use crate::proto::{Chunk, Close, Gap, Protocol, Side};

/// Bytes after which a connection whose first ones were lost is given up: a flood that filled the ring must not go on
/// filling it.
const LATE: u64 = 1 << 20;

/// State of a connection. Nothing of it waits in a buffer while it is idle.
pub(super) struct Live {
    /// What does not change.
    pub connection: Arc<Connection>,
    streams: [Stream; 2],
    dialect: Dialect,
    bytes: [u64; 2],
    /// Calls so far.
    pub calls: u64,
    tally: Tally,
    last_at: u64,
    /// It is the agent's own, or its other end is.
    pub own: bool,
    /// Its other end, where it is observed on this node too.
    pub mirror: Option<Arc<Connection>>,
    /// Sequence numbers of its first bytes, where they are known.
    pub start: Option<Start>,
    /// It is in the worker's list of those that need time to pass.
    pub listed: bool,
    /// The kernel half was told that nobody reads it.
    given_up: bool,
    /// Who reads its requests.
    reading: Reading,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Live {
    /// A connection as it was announced.
    pub(super) fn new(opened: &Opened) -> Self {
        let connection = connection(&opened.head, &opened.ends, opened.owner, opened.role, opened.netns);
        let start = (!connection.midway && opened.known == 3).then_some(opened.next);
        let late = connection.midway || connection.role == Role::Unknown;
        let stream = |way: Way| match opened.next.get(usize::from(way.0)) {
            Some(next) if !connection.midway && opened.known & (1 << way.0) != 0 => Stream::starting_at(*next),
            _ => Stream::default(),
        };
        Self {
            streams: [stream(Way::IN), stream(Way::OUT)],
            last_at: connection.opened_at,
            connection: Arc::new(connection),
            dialect: if late { Dialect::Late(None) } else { Dialect::Silent },
            bytes: [0; 2],
            calls: 0,
            tally: Tally::default(),
            own: false,
            mirror: None,
            start,
            listed: false,
            given_up: false,
            reading: Reading::default(),
        }
    }

    /// It was announced again, by somebody who may know more.
    pub(super) fn learn(&mut self, opened: &Opened) {
        self.correct(opened.owner, role(opened.role));
    }

    /// More became known of who holds it, and of which end it is.
    pub(super) fn correct(&mut self, owner: Owner, role: Role) {
        if self.connection.role == Role::Unknown && role != Role::Unknown {
            Arc::make_mut(&mut self.connection).role = role;
        }
        if owner.known > self.connection.owner.known {
            Arc::make_mut(&mut self.connection).owner = owner;
        }
    }

    /// The ring refused records of this connection.
    pub(super) fn doubt(&mut self) {
        self.reading.doubt();
        for stream in &mut self.streams {
            stream.doubt();
        }
    }

    /// Tells what the ring refused before a record with segments of both ways.
    pub(super) fn catch_up(&mut self, segments: [&Segment; 2], work: &mut Work<'_>) {
        self.each_stream(work, |way, stream, room, ear| {
            for segment in segments.iter().filter(|segment| usize::from(segment.way & 1) == way) {
                stream.catch_up(segment.seq, segment.at, segment.flags, room, ear);
            }
        });
    }

    /// Takes a segment with what was kept of it. `by`: who sent it, if this end did.
    pub(super) fn segment(&mut self, segment: &Segment, kept: &[u8], by: Thread, lost: bool, work: &mut Work<'_>) {
        let way = usize::from(segment.way & 1);
        let Some(stream) = self.streams.get_mut(way) else { return };
        if let Some(bytes) = self.bytes.get_mut(way) {
            *bytes += u64::from(segment.len);
        }
        self.last_at = segment.at;
        if self.dialect.is_opaque() {
            stream.forget(work.room);
            return;
        }
        let piece = Piece {
            at: segment.at,
            seq: segment.seq,
            len: segment.len,
            kept: kept.get(..segment.len as usize).unwrap_or(kept),
            tail: segment.flags & weir_common::record::SEG_TAIL != 0,
            by: if way == usize::from(Way::OUT.0) { by } else { Thread::default() },
            given_up: false,
        };
        let mut ear = Ear {
            dialect: &mut self.dialect,
            connection: &mut self.connection,
            way,
            protocols: work.room.settings.protocols,
            calls: work.calls,
            given_up: 0,
        };
        stream.take(piece, segment.flags, lost, work.room, &mut ear);
        work.room.given_up += ear.given_up;
    }

    /// Time passes. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn tick(&mut self, now: u64, work: &mut Work<'_>) {
        self.each_stream(work, |_, stream, room, ear| stream.expire(now, room, ear));
        self.dialect.tick(now, work.calls);
    }

    /// This process reads its requests.
    pub(super) fn read_by(&mut self, tgid: u32) {
        self.reading.by(tgid);
    }

    /// What is to be noted of requests that began; `ended`: calls of this record, of which nothing is.
    pub(super) fn notes(&mut self, ended: &[Call], notes: &mut Vec<Note>) {
        let new = self.dialect.begun();
        if self.connection.role == Role::Server && !self.own {
            let ends = (self.connection.as_ref(), self.mirror.as_deref());
            self.reading.notes(new, ended, ends, self.last_at, notes);
        }
    }

    /// A thread on an errand sent the request that starts at `seq`.
    pub(super) fn asked(&self, seq: u32, at: u64) -> Option<Note> {
        let (kind, ids) = exchange::ids(&self.connection, self.mirror.as_deref(), false, seq, None)?;
        (kind == Kind::Client && !self.own).then_some(Note::Asked { span: ids.span, at })
    }

    /// It was proven that its client exports spans by gRPC; true once.
    pub(super) fn newly_exports(&mut self) -> bool {
        self.dialect.newly_exports() && !self.own
    }

    /// Nobody reads it, or it is long and nothing of it was understood because its first bytes were lost; true once. Where
    /// the kernel half has seen an answer, it goes on watching all the same.
    pub(super) fn is_newly_foreign(&mut self) -> bool {
        let lost = self.dialect.is_late() && self.bytes.iter().sum::<u64>() >= LATE;
        let new = !self.given_up && (self.dialect.is_opaque() || lost);
        self.given_up |= new;
        new
    }

    /// It ends.
    pub(super) fn close(&mut self, close: Close, at: u64, work: &mut Work<'_>) {
        self.each_stream(work, |_, stream, room, ear| stream.settle(at, room, ear));
        self.dialect.close(close, at, work.calls);
    }

    /// What was counted since this was last asked.
    pub(super) fn newly_counted(&mut self) -> Tally {
        let now = self.dialect.tally();
        let then = std::mem::replace(&mut self.tally, now);
        Tally {
            skipped: now.skipped.saturating_sub(then.skipped),
            malformed: now.malformed.saturating_sub(then.malformed),
        }
    }

    /// It needs time to pass.
    pub(super) fn waits(&self) -> bool {
        self.dialect.busy() || self.streams.iter().any(Stream::waits)
    }

    /// As it stands.
    pub(super) fn row(&self) -> OpenConnection {
        OpenConnection {
            connection: Arc::clone(&self.connection),
            protocol: self.dialect.protocol(),
            visibility: self.dialect.visibility(),
            server_name: self.dialect.server_name(),
            bytes: self.bytes,
            calls: self.calls,
            mirror: self.mirror.clone(),
            in_flight: self.dialect.busy(),
            own: self.own,
            last_at: self.last_at,
        }
    }

    fn each_stream(&mut self, work: &mut Work<'_>, run: impl Fn(usize, &mut Stream, &mut Room, &mut Ear<'_>)) {
        for (way, stream) in self.streams.iter_mut().enumerate() {
            let mut ear = Ear {
                dialect: &mut self.dialect,
                connection: &mut self.connection,
                way,
                protocols: work.room.settings.protocols,
                calls: work.calls,
                given_up: 0,
            };
            run(way, stream, work.room, &mut ear);
            work.room.given_up += ear.given_up;
        }
    }
}

/// What the worker lends a connection.
pub(super) struct Work<'a> {
    /// Bounds and what is used of them.
    pub room: &'a mut Room,
    /// Where calls go.
    pub calls: &'a mut Vec<Call>,
}

/// Hears a stream and speaks to the parser.
struct Ear<'a> {
    dialect: &'a mut Dialect,
    connection: &'a mut Arc<Connection>,
    way: usize,
    protocols: &'static [Protocol],
    calls: &'a mut Vec<Call>,
    /// Segments whose bytes were given up, and would have been read.
    given_up: u64,
}

impl Ear<'_> {
    fn side(&self) -> Option<Side> {
        let received = self.way == usize::from(Way::IN.0);
        match self.connection.role {
            Role::Unknown => None,
            Role::Server if received => Some(Side::Client),
            Role::Client if !received => Some(Side::Client),
            Role::Server | Role::Client => Some(Side::Server),
        }
    }

    /// Certain bytes tell which end this is. Of a connection that was joined in the middle, the kernel half has no more
    /// to go by than what a segment looks like.
    fn tell(&mut self, bytes: &[u8]) -> Option<Side> {
        let Some(sender) = dialect::sender(self.protocols, bytes) else { return self.side() };
        let received = self.way == usize::from(Way::IN.0);
        let role = if (sender == Side::Client) == received { Role::Server } else { Role::Client };
        if self.connection.role != role {
            Arc::make_mut(self.connection).role = role;
            self.dialect.swap();
        }
        Some(sender)
    }
}

impl Sink for Ear<'_> {
    fn bytes(&mut self, at: u64, seq: u32, bytes: &[u8], by: Thread) {
        let side = if self.dialect.is_late() { self.tell(bytes) } else { self.side() };
        if let Some(side) = side {
            self.dialect.hear(Chunk { side, at, seq, bytes, by }, self.protocols, self.calls);
        }
    }

    fn gap(&mut self, at: u64, seq: u32, len: u64, lost: Option<&'static str>) {
        if let Some(side) = self.side() {
            self.dialect.gap(Gap { side, at, seq, len, lost }, self.calls);
        }
    }

    fn given_up(&mut self, at: u64, seq: u32, len: u64) {
        self.given_up += u64::from(self.side().is_none_or(|side| self.dialect.counts(side) < len));
        self.gap(at, seq, len, Some(REORDER));
    }

    fn fin(&mut self, at: u64) {
        if let Some(side) = self.side() {
            self.dialect.close(Close::Fin(side), at, self.calls);
        }
    }
}

/// A connection from what a record says of it.
pub(super) fn connection(
    head: &weir_common::record::Head,
    ends: &Ends,
    owner: Owner,
    told: u8,
    netns: u64,
) -> Connection {
    Connection {
        cookie: head.conn,
        local: end(ends.local, ends.local_port),
        remote: end(ends.remote, ends.remote_port),
        role: role(told),
        owner,
        netns,
        opened_at: head.at,
        midway: head.flags & FLAG_MIDWAY != 0,
    }
}

fn role(told: u8) -> Role {
    match conn::Role(told) {
        conn::Role::CLIENT => Role::Client,
        conn::Role::SERVER => Role::Server,
        _ => Role::Unknown,
    }
}

fn end(address: [u8; 16], port: u16) -> SocketAddr {
    let v6 = Ipv6Addr::from(address);
    SocketAddr::new(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4), port)
}
