#![cfg(test)]

use std::net::SocketAddr;

use weir_common::conn::{Ends, Known, Owner, Role};
use weir_common::record::{FLAG_MIDWAY, Head, Kind, Opened};

use super::{Peer, Peers};
use crate::identity::Socket;
use crate::model::Thread;

fn mapped(end: &str) -> ([u8; 16], u16) {
    let end: SocketAddr = end.parse().unwrap();
    let address = match end.ip() {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        std::net::IpAddr::V6(v6) => v6,
    };
    (address.octets(), end.port())
}

/// A connection: its ends, first byte received and sent, role.
fn opened(cookie: u64, local: &str, remote: &str, next: [u32; 2], role: Role) -> Opened {
    let ((local, local_port), (remote, remote_port)) = (mapped(local), mapped(remote));
    Opened {
        head: Head { kind: Kind::OPENED.0, flags: 0, lost: 0, conn: cookie, at: 1 },
        ends: Ends { local, remote, local_port, remote_port, family: 2, reserved: 0 },
        owner: Owner { tgid: cookie as u32 * 10, known: Known::SENDER.0, ..Owner::default() },
        netns: 1,
        cgroup: 0,
        role: role.0,
        framing: 0,
        known: 3,
        reserved: [0; 5],
        next,
    }
}

fn cookies(peers: &Peers, cookie: u64) -> Option<(u64, bool)> {
    peers.other(cookie).map(|peer| (peer.cookie, peer.translated))
}

#[test]
fn swapped_addresses_are_one_connection() {
    let mut peers = Peers::new(100);
    peers.opened(&opened(1, "10.0.0.1:5000", "10.0.0.2:80", [7, 9], Role::CLIENT));
    assert_eq!(peers.other(1), None);
    peers.opened(&opened(2, "10.0.0.2:80", "10.0.0.1:5000", [9, 7], Role::SERVER));
    peers.used(2, Thread { tgid: 21, tid: 22 });
    peers.used(2, Thread { tgid: 23, tid: 0 });
    let server = Peer {
        cookie: 2,
        owner: Owner { tgid: 20, known: Known::SENDER.0, ..Owner::default() },
        by: Thread { tgid: 21, tid: 22 },
        local: "10.0.0.2:80".parse().unwrap(),
        server: true,
        translated: false,
    };
    assert_eq!(peers.other(1), Some(server));
    assert_eq!(cookies(&peers, 2), Some((1, false)));
}

#[test]
fn translated_addresses_are_joined_by_sequence_numbers() {
    let mut peers = Peers::new(100);
    // To a cluster address, from behind masquerading.
    peers.opened(&opened(1, "10.1.0.5:5000", "10.96.0.1:80", [7, 9], Role::CLIENT));
    peers.opened(&opened(2, "10.1.0.9:8080", "10.1.0.1:6000", [9, 7], Role::SERVER));
    peers.opened(&opened(3, "10.1.0.9:8080", "10.1.0.5:5000", [9, 8], Role::SERVER));
    assert_eq!(cookies(&peers, 1), Some((2, true)));
    assert_eq!(peers.other(1).unwrap().local, "10.1.0.9:8080".parse().unwrap());
    assert_eq!(peers.other(3), None);
}

#[test]
fn swapped_addresses_with_other_numbers_are_another_connection() {
    let mut peers = Peers::new(100);
    peers.opened(&opened(1, "172.17.0.2:5000", "172.17.0.3:80", [7, 9], Role::CLIENT));
    peers.opened(&opened(2, "172.17.0.3:80", "172.17.0.2:5000", [1, 2], Role::SERVER));
    assert_eq!((peers.other(1), peers.other(2)), (None, None));
}

#[test]
fn loopback_is_told_apart_by_network_namespace() {
    let mut peers = Peers::new(100);
    let midway = |mut opened: Opened, netns| {
        opened.head.flags = FLAG_MIDWAY;
        opened.netns = netns;
        opened
    };
    peers.opened(&midway(opened(1, "127.0.0.1:5000", "127.0.0.1:80", [0, 0], Role::CLIENT), 1));
    peers.opened(&midway(opened(2, "127.0.0.1:80", "127.0.0.1:5000", [0, 0], Role::SERVER), 2));
    peers.opened(&midway(opened(3, "127.0.0.1:80", "127.0.0.1:5000", [0, 0], Role::SERVER), 1));
    assert_eq!(cookies(&peers, 1), Some((3, false)));
    assert_eq!(peers.other(2), None);
}

#[test]
fn equal_addresses_in_two_places_prove_nothing() {
    let mut peers = Peers::new(100);
    let blind = |mut opened: Opened| {
        opened.known = 1;
        opened
    };
    peers.opened(&blind(opened(1, "172.17.0.3:80", "172.17.0.2:5000", [0, 0], Role::SERVER)));
    peers.opened(&blind(opened(2, "172.17.0.3:80", "172.17.0.2:5000", [0, 0], Role::SERVER)));
    peers.opened(&blind(opened(3, "172.17.0.2:5000", "172.17.0.3:80", [0, 0], Role::CLIENT)));
    assert_eq!(peers.other(3), None);
}

#[test]
fn older_sockets_take_part_and_closed_ones_are_remembered_for_a_while() {
    let mut peers = Peers::new(100);
    let socket = |cookie, local: &str, remote: &str, role| Socket {
        cookie,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        state: 1,
        role,
        owner: Owner::default(),
        namespace: 4,
        netns: 1,
    };
    peers.found(&socket(1, "10.0.0.1:5000", "10.0.0.2:80", crate::model::Role::Client));
    peers.found(&socket(2, "10.0.0.2:80", "10.0.0.1:5000", crate::model::Role::Server));
    assert_eq!(cookies(&peers, 1), Some((2, false)));
    assert!(peers.other(1).unwrap().server);
    peers.closed(1, 100);
    peers.closed(1, 100);
    peers.closed(2, 200);
    // The same ports again, while the first connection is still remembered.
    peers.opened(&opened(3, "10.0.0.1:5000", "10.0.0.2:80", [7, 9], Role::CLIENT));
    peers.opened(&opened(4, "10.0.0.2:80", "10.0.0.1:5000", [9, 7], Role::SERVER));
    assert_eq!(cookies(&peers, 3), Some((4, false)));
    assert_eq!(cookies(&peers, 1), Some((2, false)));
    peers.forget_before(200);
    assert_eq!((peers.other(1), peers.counts()), (None, (3, 0)));
    peers.forget_before(201);
    assert_eq!(peers.counts(), (2, 0));
    assert_eq!((peers.by_ends.len(), peers.by_start.len()), (2, 2));
    assert_eq!(cookies(&peers, 4), Some((3, false)));
}

#[test]
fn the_index_is_bounded() {
    let mut peers = Peers::new(10);
    for cookie in 1..=20 {
        peers.opened(&opened(cookie, &format!("10.0.0.1:{}", 1000 + cookie), "10.0.0.2:80", [1, 2], Role::CLIENT));
    }
    assert_eq!(peers.counts(), (10, 10));
    for cookie in 1..=10 {
        peers.closed(cookie, 5);
    }
    for cookie in 21..=40 {
        peers.opened(&opened(cookie, &format!("10.0.0.1:{}", 1000 + cookie), "10.0.0.2:80", [1, 2], Role::CLIENT));
    }
    assert_eq!(peers.counts(), (10, 20));
    assert_eq!((peers.by_ends.len(), peers.by_start.len()), (10, 1));
}
