//! Which connections of this node are two ends of one: by their addresses and ports, swapped, or where those were
//! translated on the way, by the sequence numbers with which both streams begin (64 bits that both ends agree on).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::model::Connection;

/// Ends that are remembered after their close, at most.
const REMEMBERED: usize = 8_192;

/// Ends of a connection, seen from one of them. Loopback addresses are the same in every network namespace, so there
/// the namespace counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    netns: u64,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Ends {
    fn of(connection: &Connection) -> Self {
        let (local, remote) = (connection.local, connection.remote);
        let netns = if local.ip().is_loopback() || remote.ip().is_loopback() { connection.netns } else { 0 };
        Self { netns, local: plain(local), remote: plain(remote) }
    }

    fn swapped(self) -> Self {
        Self { netns: self.netns, local: self.remote, remote: self.local }
    }
}

/// Without flow label and scope, in which two ends may differ.
fn plain(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip(), end.port())
}

/// Sequence numbers of the first bytes received and sent.
pub(super) type Start = [u32; 2];

/// A connection that was closed.
#[derive(Debug)]
struct Left {
    at: u64,
    ends: Ends,
    start: Option<Start>,
    cookie: u64,
}

/// Who has these ends.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// Its connection, as it was announced.
    pub connection: Arc<Connection>,
    /// It is the agent's own, or its mirror is.
    pub own: bool,
}

/// Every connection's ends, and for a while those of connections that were closed.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    seats: HashMap<Ends, Seat, RandomState>,
    starts: HashMap<Start, Seat, RandomState>,
    left: VecDeque<Left>,
}

impl Mirror {
    /// Adds a connection. Gives its mirror, if this node has it.
    pub(super) fn enter(&mut self, connection: &Arc<Connection>, start: Option<Start>, own: bool) -> Option<Seat> {
        let ends = Ends::of(connection);
        let other = |seat: &&mut Seat| seat.connection.cookie != connection.cookie;
        let mirror = match self.seats.get_mut(&ends.swapped()).filter(other) {
            Some(seat) => Some(seat),
            None => start.and_then(|[received, sent]| self.starts.get_mut(&[sent, received])).filter(other),
        };
        let own = own || mirror.as_ref().is_some_and(|seat| seat.own);
        let found = mirror.map(|seat| {
            seat.own |= own;
            seat.clone()
        });
        let seat = Seat { connection: Arc::clone(connection), own };
        if let Some(start) = start {
            self.starts.insert(start, seat.clone());
        }
        self.seats.insert(ends, seat);
        found
    }

    /// A connection was closed; its mirror may still be announced.
    pub(super) fn leave(&mut self, connection: &Connection, start: Option<Start>, at: u64) {
        if self.left.len() >= REMEMBERED {
            self.forget_first();
        }
        self.left.push_back(Left { at, ends: Ends::of(connection), start, cookie: connection.cookie });
    }

    /// Forgets what was closed before `at`.
    pub(super) fn forget_before(&mut self, at: u64) {
        while self.left.front().is_some_and(|left| left.at < at) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(left) = self.left.pop_front() else { return };
        let same = |seat: &Seat| seat.connection.cookie == left.cookie;
        if self.seats.get(&left.ends).is_some_and(same) {
            self.seats.remove(&left.ends);
        }
        if let Some(start) = left.start
            && self.starts.get(&start).is_some_and(same)
        {
            self.starts.remove(&start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn connection(cookie: u64, local: &str, remote: &str, netns: u64) -> Arc<Connection> {
        Arc::new(Connection {
            cookie,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            role: Role::Client,
            owner: weir_common::conn::Owner::default(),
            netns,
            opened_at: 0,
            midway: false,
        })
    }

    fn found(seat: Option<Seat>) -> Option<(u64, bool)> {
        seat.map(|seat| (seat.connection.cookie, seat.own))
    }

    #[test]
    fn two_ends_find_each_other_across_namespaces() {
        let mut mirror = Mirror::default();
        assert_eq!(found(mirror.enter(&connection(1, "10.0.0.1:5000", "10.0.0.2:80", 7), None, false)), None);
        assert_eq!(
            found(mirror.enter(&connection(2, "10.0.0.2:80", "10.0.0.1:5000", 8), None, false)),
            Some((1, false))
        );
    }

    #[test]
    fn loopback_is_one_per_namespace() {
        let mut mirror = Mirror::default();
        mirror.enter(&connection(1, "127.0.0.1:5000", "127.0.0.1:80", 7), None, false);
        assert_eq!(found(mirror.enter(&connection(2, "127.0.0.1:80", "127.0.0.1:5000", 8), None, false)), None);
        assert_eq!(
            found(mirror.enter(&connection(3, "127.0.0.1:80", "127.0.0.1:5000", 7), None, false)),
            Some((1, false))
        );
    }

    #[test]
    fn translated_ends_find_each_other_by_their_sequence_numbers() {
        let mut mirror = Mirror::default();
        let (client, server) = (("10.0.0.1:5000", "10.96.0.1:80"), ("10.0.0.2:8080", "10.0.0.1:5000"));
        mirror.enter(&connection(1, client.0, client.1, 7), Some([5, 9]), false);
        assert_eq!(found(mirror.enter(&connection(2, server.0, server.1, 8), Some([6, 9]), false)), None);
        assert_eq!(found(mirror.enter(&connection(3, server.0, server.1, 8), Some([9, 5]), false)), Some((1, false)));
        let left = connection(1, client.0, client.1, 7);
        mirror.leave(&left, Some([5, 9]), 10);
        mirror.forget_before(11);
        assert_eq!(found(mirror.enter(&connection(4, server.0, server.1, 8), Some([9, 5]), false)), None);
    }

    #[test]
    fn a_socket_connected_to_itself_is_no_mirror() {
        let mut mirror = Mirror::default();
        assert_eq!(found(mirror.enter(&connection(1, "127.0.0.1:80", "127.0.0.1:80", 7), None, false)), None);
    }

    #[test]
    fn the_agents_own_marks_both() {
        let mut mirror = Mirror::default();
        mirror.enter(&connection(1, "10.0.0.1:5000", "10.0.0.2:80", 7), None, false);
        assert_eq!(found(mirror.enter(&connection(2, "10.0.0.2:80", "10.0.0.1:5000", 8), None, true)), Some((1, true)));
    }

    #[test]
    fn ends_are_forgotten_after_a_while_unless_used_again() {
        let mut mirror = Mirror::default();
        let (old, new) = ("10.0.0.1:5000", "10.0.0.2:80");
        mirror.enter(&connection(1, old, new, 7), None, false);
        mirror.leave(&connection(1, old, new, 7), None, 100);
        mirror.forget_before(100);
        assert_eq!(found(mirror.enter(&connection(2, new, old, 7), None, false)), Some((1, false)));
        mirror.enter(&connection(3, old, new, 7), None, false);
        mirror.forget_before(101);
        assert_eq!(found(mirror.enter(&connection(4, new, old, 7), None, false)), Some((3, false)));
        mirror.leave(&connection(3, old, new, 7), None, 200);
        mirror.forget_before(201);
        assert_eq!(found(mirror.enter(&connection(5, new, old, 7), None, false)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut mirror = Mirror::default();
        for cookie in 1..=20_000u64 {
            let end = format!("10.0.{}.{}:5000", cookie / 250, cookie % 250);
            let one = connection(cookie, &end, "10.0.0.2:80", 7);
            mirror.enter(&one, None, false);
            mirror.leave(&one, None, 1);
        }
        assert_eq!((mirror.left.len(), mirror.seats.len()), (REMEMBERED, REMEMBERED));
    }
}
