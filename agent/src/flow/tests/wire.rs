//! Synthesised sockets: what the kernel half would say of a conversation.

use std::sync::Arc;

use weir_common::conn::{self, Ends, Known, Owner};
use weir_common::record::{Bytes, Closed, Ended, FLAG_MIDWAY, Head, Kind, Opened, Pair, SEG_FIN, Segment, Way};

use crate::clock::Offset;
use crate::flow::{Output, Settings, Worker};
use crate::meter::{Count, Meter};
use crate::model::{Call, End, Event, Exchange, Operation};

/// The agent's process id in these tests.
pub(super) const AGENT: u32 = 4242;

/// A record that owns its bytes.
#[derive(Clone)]
pub(super) enum Record {
    Opened(Opened),
    Bytes(Bytes, Vec<u8>),
    Pair(Pair, Vec<u8>, Vec<u8>),
    Closed(Closed),
}

impl Record {
    fn event(&self) -> Event<'_> {
        match self {
            Self::Opened(opened) => Event::Opened(opened),
            Self::Bytes(bytes, kept) => Event::Bytes(bytes, kept),
            Self::Pair(pair, request, response) => Event::Pair(pair, request, response),
            Self::Closed(closed) => Event::Closed(closed),
        }
    }

    /// Says that the ring refused `lost` records before this one.
    pub(super) fn after_losing(mut self, lost: u32) -> Self {
        match &mut self {
            Self::Opened(opened) => opened.head.lost = lost,
            Self::Bytes(bytes, _) => bytes.head.lost = lost,
            Self::Pair(pair, ..) => pair.head.lost = lost,
            Self::Closed(closed) => closed.head.lost = lost,
        }
        self
    }

    /// Adds segment flags.
    pub(super) fn flagged(mut self, flags: u8) -> Self {
        if let Self::Bytes(bytes, _) = &mut self {
            bytes.segment.flags |= flags;
        }
        self
    }
}

/// One socket. `next`: sequence number of the next byte received, sent.
#[derive(Clone)]
pub(super) struct Socket {
    pub cookie: u64,
    pub role: conn::Role,
    pub ends: Ends,
    pub owner: Owner,
    pub next: [u32; 2],
    pub at: u64,
    pub netns: u64,
}

fn mapped(end: &str) -> ([u8; 16], u16) {
    let end: std::net::SocketAddr = end.parse().unwrap();
    match end.ip() {
        std::net::IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), end.port()),
        std::net::IpAddr::V6(v6) => (v6.octets(), end.port()),
    }
}

impl Socket {
    pub(super) fn new(cookie: u64, role: conn::Role, local: &str, remote: &str, tgid: u32) -> Self {
        let ((local, local_port), (remote, remote_port)) = (mapped(local), mapped(remote));
        Self {
            cookie,
            role,
            ends: Ends { local, remote, local_port, remote_port, family: 2, reserved: 0 },
            owner: Owner { tgid, tid: tgid + 1, known: Known::CREATOR.0, ..Owner::default() },
            next: [5000, 1000],
            at: 1_000_000,
            netns: 1,
        }
    }

    /// Both ends of one connection from `10.0.0.1:port` to `10.0.0.2:80`: client, server.
    pub(super) fn two(cookie: u64, port: u16) -> (Self, Self) {
        let client = format!("10.0.0.1:{port}");
        let mut server = Self::new(cookie + 1, conn::Role::SERVER, "10.0.0.2:80", &client, 200);
        server.next = [1000, 5000];
        (Self::new(cookie, conn::Role::CLIENT, &client, "10.0.0.2:80", 100), server)
    }

    fn head(&mut self, kind: Kind) -> Head {
        self.at += 1000;
        Head { kind: kind.0, flags: 0, lost: 0, conn: self.cookie, at: self.at }
    }

    pub(super) fn opened(&mut self) -> Record {
        Record::Opened(Opened {
            head: self.head(Kind::OPENED),
            ends: self.ends,
            owner: self.owner,
            netns: self.netns,
            cgroup: 0,
            role: self.role.0,
            framing: 0,
            known: 3,
            reserved: [0; 5],
            next: self.next,
        })
    }

    /// As a socket that is older than the agent.
    pub(super) fn midway(&mut self) -> Record {
        let Record::Opened(mut opened) = self.opened() else { unreachable!() };
        opened.head.flags = FLAG_MIDWAY;
        opened.known = 0;
        Record::Opened(opened)
    }

    /// A segment in order.
    pub(super) fn bytes(&mut self, way: Way, payload: &[u8]) -> Record {
        let seq = self.next[usize::from(way.0)];
        self.next[usize::from(way.0)] = seq.wrapping_add(payload.len() as u32);
        self.segment(way, seq, payload, 0)
    }

    /// A segment wherever it is.
    pub(super) fn segment(&mut self, way: Way, seq: u32, payload: &[u8], flags: u8) -> Record {
        let head = self.head(Kind::BYTES);
        let len = payload.len() as u32;
        let segment = Segment { at: head.at, seq, len, kept: len, way: way.0, flags, reserved: 0 };
        let (tgid, tid) = if way == Way::OUT { (self.owner.tgid, 77) } else { (0, 0) };
        Record::Bytes(Bytes { head, segment, tgid, tid, errand: 0 }, payload.to_vec())
    }

    /// A bare FIN.
    pub(super) fn fin(&mut self, way: Way) -> Record {
        self.segment(way, self.next[usize::from(way.0)], b"", SEG_FIN)
    }

    /// A request and its response in one record.
    pub(super) fn pair(&mut self, request: &[u8], response: &[u8]) -> Record {
        let ways = if self.role == conn::Role::SERVER { [Way::IN, Way::OUT] } else { [Way::OUT, Way::IN] };
        let (Record::Bytes(first, _), Record::Bytes(second, _)) =
            (self.bytes(ways[0], request), self.bytes(ways[1], response))
        else {
            unreachable!()
        };
        let head = Head { kind: Kind::PAIR.0, ..second.head };
        let (tgid, tid) = (self.owner.tgid, 77);
        Record::Pair(
            Pair { head, request: first.segment, response: second.segment, tgid, tid, errand: 0 },
            request.to_vec(),
            response.to_vec(),
        )
    }

    pub(super) fn closed(&mut self, ended: Ended, reset_by: u8) -> Record {
        Record::Closed(Closed {
            head: self.head(Kind::CLOSED),
            ends: self.ends,
            owner: self.owner,
            bytes: [11, 22],
            srtt_us: 0,
            from_state: 0,
            ended: ended.0,
            role: self.role.0,
            reset_by,
            netns: 0,
        })
    }
}

/// A worker with what it gave.
pub(super) struct Bench {
    pub worker: Worker,
    pub meter: Arc<Meter>,
    pub out: Output,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let meter = Arc::new(Meter::default());
        let worker = Worker::new(settings, AGENT, Arc::clone(&meter), Arc::new(Offset::new()));
        Self { worker, meter, out: Output::default() }
    }

    pub(super) fn feed(&mut self, records: impl IntoIterator<Item = Record>) -> &mut Self {
        for record in records {
            self.worker.event(record.event(), &mut self.out);
        }
        self
    }

    pub(super) fn calls(&self) -> &[Arc<Exchange>] {
        &self.out.calls
    }

    /// `target status end` of every call.
    pub(super) fn told(&self) -> Vec<String> {
        self.calls().iter().map(|exchange| brief(&exchange.call)).collect()
    }

    /// Counters of the ledger that are not zero.
    pub(super) fn ledger(&self) -> Vec<(&'static str, u64)> {
        Count::ALL
            .into_iter()
            .filter_map(|count| Some((count.label().2, self.meter.get(count))).filter(|(_, n)| *n > 0))
            .collect()
    }
}

fn brief(call: &Call) -> String {
    let Operation::Http(http) = &call.operation;
    let end = match call.end {
        End::Lost(reason) => format!("lost:{reason}"),
        other => other.as_str().to_owned(),
    };
    format!("{} {} {end}", http.target, http.status.unwrap_or_default())
}

/// A request without a body.
pub(super) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n").into_bytes()
}

/// A response with a body.
pub(super) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
