//! The table's bound.

use weir_common::record::{Ended, SEG_FIN, Way};

use super::wire::{Bench, Socket, get, ok};
use crate::flow::Settings;

#[test]
fn the_longest_idle_leaves() {
    let mut bench = Bench::with(Settings { connections: 3, ..Settings::default() });
    let mut sockets: Vec<Socket> = (0..4).map(|i| Socket::two(i * 2 + 1, 40_000 + i as u16).0).collect();
    for socket in &mut sockets[..3] {
        bench.feed([socket.opened(), socket.bytes(Way::OUT, &get("/a"))]);
    }
    // The first is used again, so that the second is the longest idle.
    sockets[0].at += 5_000_000_000;
    let again = sockets[0].bytes(Way::IN, &ok("x"));
    bench.feed([again]);
    sockets[3].at += 6_000_000_000;
    let last = sockets[3].opened();
    bench.feed([last]);
    assert_eq!(bench.told(), ["/a 200 complete", "/a 0 lost:connection_table_full"]);
    let mut left: Vec<_> = bench.worker.snapshot().iter().map(|row| row.connection.cookie).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 5, 7]);
    // What still comes of it is counted.
    let late = sockets[1].bytes(Way::IN, &ok("x"));
    bench.feed([late]);
    assert_eq!(bench.ledger(), [("unannounced", 1), ("connection", 1)]);
}

#[test]
fn it_stays_whole_under_churn() {
    let mut bench = Bench::with(Settings { connections: 50, ..Settings::default() });
    let mut open = std::collections::VecDeque::new();
    for i in 0..2_000u64 {
        let (mut socket, _) = Socket::two(i * 2 + 1, 10_000 + i as u16);
        socket.at = i * 700_000_000;
        bench.feed([socket.opened(), socket.pair(&get("/a"), &ok("x"))]);
        open.push_back(socket);
        if i % 3 == 0 {
            let at = (i as usize * 7) % open.len();
            let mut socket: Socket = open.remove(at).unwrap();
            bench.feed([socket.closed(Ended::CLOSED, 0)]);
        }
        assert!(bench.worker.snapshot().len() <= 50);
    }
    assert_eq!(bench.told(), vec!["/a 200 complete"; 2_000]);
}

#[test]
fn a_fin_behind_the_end_loses_nothing() {
    let (mut socket, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([socket.opened(), socket.pair(&get("/a"), &ok("x")), socket.closed(Ended::CLOSED, 0)]);
    let fin = socket.bytes(Way::IN, b"").flagged(SEG_FIN);
    bench.feed([fin]);
    assert_eq!(bench.told(), ["/a 200 complete"]);
    assert_eq!(bench.ledger(), []);
    // Payload there is a loss, with a FIN or without.
    let late = socket.bytes(Way::IN, b"x").flagged(SEG_FIN);
    bench.feed([late]);
    assert_eq!(bench.ledger(), [("unannounced", 1)]);
}

#[test]
fn an_announcement_may_come_twice() {
    let (mut socket, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    let first = socket.opened();
    bench.feed([first.clone(), socket.pair(&get("/a"), &ok("x")), first, socket.pair(&get("/b"), &ok("x"))]);
    assert_eq!(bench.told(), ["/a 200 complete", "/b 200 complete"]);
}

#[test]
fn an_idle_connection_is_small() {
    let size = size_of::<super::super::live::Live>() + size_of::<crate::model::Connection>() + 16;
    assert!(size <= 450, "{size}");
}
