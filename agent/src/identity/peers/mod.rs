//! Who is at the other end of a connection, where that end is a socket of this node too.
//!
//! Two proofs: the same addresses swapped, or the same first sequence numbers swapped. The second one also holds when
//! addresses were translated on the way (a Kubernetes Service, DNAT, masquerading): the numbers are random, 64 bits
//! together, and translation leaves them alone. Where both are known, both must hold.

mod tests;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use weir_common::conn::{Known, Owner, Role};
use weir_common::record::{FLAG_MIDWAY, Opened, Way};

use super::sockets::Socket;
use crate::model::{self, Thread};

/// One end of a connection, as the other one sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its socket cookie.
    pub cookie: u64,
    /// Who holds it, for [`Resolver::resolve`](super::Resolver::resolve).
    pub owner: Owner,
    /// Thread that was last seen to send on it; zeros where none was.
    pub by: Thread,
    /// Its own address: behind a translation not the one that its peer called.
    pub local: SocketAddr,
    /// It accepted the connection.
    pub server: bool,
    /// Addresses were translated between the two ends.
    pub translated: bool,
}

/// Addresses of a connection. Loopback addresses are the same in every network namespace, so there the namespace
/// counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    netns: u64,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Ends {
    fn new(local: SocketAddr, remote: SocketAddr, netns: u64) -> Self {
        // Without flow label and scope, in which two ends may differ.
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (local, remote) = (plain(local), plain(remote));
        let inside = local.ip().is_loopback() || remote.ip().is_loopback();
        Self { netns: if inside { netns } else { 0 }, local, remote }
    }

    fn swapped(self) -> Self {
        Self { netns: self.netns, local: self.remote, remote: self.local }
    }
}

/// Sequence numbers of the first byte received and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Start {
    received: u32,
    sent: u32,
}

impl Start {
    fn swapped(self) -> Self {
        Self { received: self.sent, sent: self.received }
    }
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    ends: Ends,
    start: Option<Start>,
    owner: Owner,
    by: Thread,
    /// Absent where the role is not known.
    server: Option<bool>,
    other: Option<u64>,
    closed: bool,
}

/// Who has an address pair or a pair of numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Key {
    /// 0: more than one live connection has it.
    cookie: u64,
    /// How many remembered connections have it.
    count: u32,
}

impl Seat {
    fn new(ends: Ends, start: Option<Start>, owner: Owner, server: Option<bool>) -> Self {
        Self { ends, start, owner, by: Thread::default(), server, other: None, closed: false }
    }
}

/// The connections of a node by their two ends.
#[derive(Debug)]
pub struct Peers {
    limit: usize,
    seats: HashMap<u64, Seat>,
    by_ends: HashMap<Ends, Key>,
    by_start: HashMap<Start, Key>,
    left: VecDeque<(u64, u64)>,
    refused: u64,
}

impl Peers {
    /// Remembers at most `limit` connections.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(2),
            seats: HashMap::new(),
            by_ends: HashMap::new(),
            by_start: HashMap::new(),
            left: VecDeque::new(),
            refused: 0,
        }
    }

    /// A connection was announced.
    pub fn opened(&mut self, opened: &Opened) {
        let ends = &opened.ends;
        let end = |address: [u8; 16], port| SocketAddr::new(IpAddr::from(address), port);
        let ends = Ends::new(end(ends.local, ends.local_port), end(ends.remote, ends.remote_port), opened.netns);
        let whole = opened.known & 3 == 3 && opened.head.flags & FLAG_MIDWAY == 0;
        let number = |way: Way| opened.next.get(usize::from(way.0)).copied().unwrap_or_default();
        let start = whole.then(|| Start { received: number(Way::IN), sent: number(Way::OUT) });
        let server = match Role(opened.role) {
            Role::SERVER => Some(true),
            Role::CLIENT => Some(false),
            _ => None,
        };
        self.enter(opened.head.conn, Seat::new(ends, start, opened.owner, server));
    }

    /// A connection that is older than the agent. What was announced of it counts for more.
    pub fn found(&mut self, socket: &Socket) {
        if socket.listens() || self.seats.contains_key(&socket.cookie) {
            return;
        }
        let ends = Ends::new(socket.local, socket.remote, socket.netns);
        let server = match socket.role {
            model::Role::Server => Some(true),
            model::Role::Client => Some(false),
            model::Role::Unknown => None,
        };
        self.enter(socket.cookie, Seat::new(ends, None, socket.owner, server));
    }

    /// `by` sent on a connection.
    pub fn used(&mut self, cookie: u64, by: Thread) {
        if by.tid != 0
            && let Some(seat) = self.seats.get_mut(&cookie)
        {
            seat.by = by;
        }
    }

    /// A connection ended at `at`. It is remembered until [`Self::forget_before`]: its other end may be asked about.
    pub fn closed(&mut self, cookie: u64, at: u64) {
        if let Some(seat) = self.seats.get_mut(&cookie)
            && !seat.closed
        {
            seat.closed = true;
            self.left.push_back((at, cookie));
        }
    }

    /// Forgets connections that ended before `at`.
    pub fn forget_before(&mut self, at: u64) {
        while self.left.front().is_some_and(|(left, _)| *left < at) {
            self.forget_first();
        }
    }

    /// The other end of a connection, where it is proven to be this node's.
    #[must_use]
    pub fn other(&self, cookie: u64) -> Option<Peer> {
        let seat = self.seats.get(&cookie)?;
        let cookie = seat.other?;
        let other = self.seats.get(&cookie)?;
        Some(Peer {
            cookie,
            owner: other.owner,
            by: other.by,
            local: other.ends.local,
            // Where only its client is known to be one, it is the server.
            server: other.server.unwrap_or(seat.server == Some(false)),
            translated: other.ends != seat.ends.swapped(),
        })
    }

    /// Who holds a connection, and whether it accepted it, as far as that is known.
    pub(super) fn known(&self, cookie: u64) -> Option<(Owner, Option<bool>)> {
        self.seats.get(&cookie).map(|seat| (seat.owner, seat.server))
    }

    /// How many connections are remembered, and how many were refused because that is bounded.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.seats.len(), self.refused)
    }

    fn enter(&mut self, cookie: u64, seat: Seat) {
        if let Some(known) = self.seats.get_mut(&cookie) {
            // Announced again, or after it was found: who holds it, and where it starts, may be known better by now.
            if seat.owner.known != Known::NO.0 {
                known.owner = seat.owner;
            }
            known.server = seat.server.or(known.server);
            return;
        }
        while self.seats.len() >= self.limit && !self.left.is_empty() {
            self.forget_first();
        }
        if self.seats.len() >= self.limit {
            self.refused += 1;
            return;
        }
        let live = |cookie| self.seats.get(&cookie).is_some_and(|seat| !seat.closed);
        self.by_ends.entry(seat.ends).or_default().add(cookie, live);
        if let Some(start) = seat.start {
            self.by_start.entry(start).or_default().add(cookie, live);
        }
        let other = self.mate(&seat);
        if let Some(mate) = other.and_then(|other| self.seats.get_mut(&other)) {
            mate.other = Some(cookie);
        }
        self.seats.insert(cookie, Seat { other, ..seat });
    }

    fn mate(&self, seat: &Seat) -> Option<u64> {
        let numbers = seat.start.and_then(|start| self.by_start.get(&start.swapped())).map(|key| key.cookie);
        let addresses = self.by_ends.get(&seat.ends.swapped()).map(|key| key.cookie).filter(|other| {
            let start = self.seats.get(other).and_then(|other| other.start);
            seat.start.zip(start).is_none_or(|(mine, other)| mine == other.swapped())
        });
        let found = numbers.or(addresses)?;
        self.seats.get(&found).is_some_and(|other| other.other.is_none()).then_some(found)
    }

    fn forget_first(&mut self) {
        let Some((_, cookie)) = self.left.pop_front() else { return };
        let Some(seat) = self.seats.remove(&cookie) else { return };
        remove(&mut self.by_ends, &seat.ends, cookie);
        if let Some(start) = seat.start {
            remove(&mut self.by_start, &start, cookie);
        }
    }
}

impl Key {
    fn add(&mut self, cookie: u64, live: impl Fn(u64) -> bool) {
        let taken = self.count > 0 && (self.cookie == 0 || live(self.cookie));
        self.cookie = if taken { 0 } else { cookie };
        self.count += 1;
    }
}

fn remove<K: Eq + Hash>(map: &mut HashMap<K, Key>, key: &K, cookie: u64) {
    if let Some(entry) = map.get_mut(key) {
        entry.count -= 1;
        if entry.cookie == cookie {
            entry.cookie = 0;
        }
        if entry.count == 0 {
            map.remove(key);
        }
    }
}
