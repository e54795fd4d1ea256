//! Losses, resets and ends.

use weir_common::record::{Ended, SEG_AHEAD, SEG_BEHIND, Way};

use crate::meter::Count;

use super::wire::{Bench, Socket, get, ok};

#[test]
fn a_lost_response_loses_its_own_call_alone() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), client.pair(&get("/a"), &ok("a")), client.bytes(Way::OUT, &get("/b"))]);
    client.bytes(Way::IN, &ok("b"));
    bench.feed([client.pair(&get("/c"), &ok("c")).after_losing(1), client.pair(&get("/d"), &ok("d"))]);
    assert_eq!(bench.told(), ["/a 200 complete", "/b 0 lost:ring_full", "/c 200 complete", "/d 200 complete"]);
}

#[test]
fn a_lost_exchange_leaves_no_trace() {
    let (mut server, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([server.opened(), server.pair(&get("/a"), &ok("a"))]);
    server.pair(&get("/b"), &ok("b"));
    bench.feed([server.pair(&get("/c"), &ok("c")).after_losing(2)]);
    assert_eq!(bench.told(), ["/a 200 complete", "/c 200 complete"]);
}

#[test]
fn a_flood_whose_first_bytes_were_lost_is_given_up() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened()]);
    client.bytes(Way::OUT, b"lost");
    bench.feed([client.bytes(Way::OUT, &[7; 1000]).after_losing(1)]);
    assert!(bench.out.foreign.is_empty());
    for _ in 0..70 {
        bench.feed([client.bytes(Way::OUT, &[7; 16_000])]);
    }
    assert_eq!(bench.out.foreign, [1]);
    // What the kernel half still tells is heard, from the next turn on.
    bench.feed([client.bytes(Way::IN, &[7]), client.bytes(Way::OUT, &get("/a")), client.bytes(Way::IN, &ok("a"))]);
    assert_eq!(bench.told(), ["/a 200 complete"]);
}

#[test]
fn resets_and_aborts() {
    let cases = [
        (Ended::RESET, 1, "/a 0 reset"),
        (Ended::RESET, 2, "/a 0 reset"),
        (Ended::CLOSED, 0, "/a 0 lost:unseen_close"),
    ];
    for (ended, by, told) in cases {
        let (mut client, _) = Socket::two(1, 40_000);
        let mut bench = Bench::new();
        bench.feed([client.opened(), client.bytes(Way::OUT, &get("/a")), client.closed(ended, by)]);
        assert_eq!((bench.told(), bench.worker.snapshot().len()), (vec![told.to_owned()], 0));
        assert_eq!(bench.out.ended.len(), 0);
    }
}

#[test]
fn fins_tell_who_gave_up() {
    for (way, told) in [(Way::OUT, "/a 0 client_aborted"), (Way::IN, "/a 0 server_aborted")] {
        let (mut client, _) = Socket::two(1, 40_000);
        let mut bench = Bench::new();
        bench.feed([client.opened(), client.bytes(Way::OUT, &get("/a")), client.fin(way)]);
        let other = if way == Way::OUT { Way::IN } else { Way::OUT };
        bench.feed([client.fin(other), client.closed(Ended::CLOSED, 0)]);
        assert_eq!(bench.told(), [told]);
    }
}

#[test]
fn the_filler_was_refused_and_time_tells() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), client.bytes(Way::OUT, &get("/a"))]);
    let answer = ok("hello");
    let (head, body) = answer.split_at(30);
    client.bytes(Way::IN, head);
    bench.feed([client.bytes(Way::IN, body).flagged(SEG_AHEAD).after_losing(1)]);
    assert_eq!(bench.told().len(), 0);
    bench.worker.tick(client.at + 2_000_000_000, &mut bench.out);
    let (mut again, _) = Socket::two(1, 40_000);
    again.next = client.next;
    again.at = client.at + 3_000_000_000;
    bench.feed([again.pair(&get("/b"), &ok("b"))]);
    assert_eq!(bench.told(), ["/a 0 lost:ring_full", "/b 200 complete"]);
}

#[test]
fn running_calls_are_in_flight_when_the_agent_stops() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), server.opened(), client.pair(&get("/a"), &ok("a"))]);
    bench.feed([server.bytes(Way::IN, &get("/a"))]);
    let mut rows = bench.worker.snapshot();
    rows.sort_by_key(|row| row.connection.cookie);
    let rows: Vec<_> = rows.iter().map(|row| (row.calls, row.in_flight, row.bytes[0] > 0, row.protocol)).collect();
    assert_eq!(rows, [(1, false, true, Some("http")), (0, true, true, Some("http"))]);
    bench.worker.finish(9_000_000, &mut bench.out);
    assert_eq!(bench.told(), ["/a 200 complete", "/a 0 in_flight"]);
    assert_eq!(bench.worker.snapshot().len(), 0);
}

/// What waits beyond its bound gives up its bytes: no loss where they are only counted, one each where they were to be read.
#[test]
fn bytes_that_are_only_counted_are_no_loss() {
    const PIECE: usize = 16 << 10;
    const PIECES: usize = 100;
    const ROOM: usize = (1 << 20) / PIECE;
    let chunk = |len: usize| format!("{len:x}\r\n{}\r\n", "x".repeat(len)).into_bytes();
    let length = vec![b'x'; PIECE * PIECES];
    let one = [chunk(PIECE * PIECES), b"0\r\n\r\n".to_vec()].concat();
    let many = [chunk(PIECE - 8).repeat(PIECES), b"0\r\n\r\n".to_vec()].concat();
    for (framing, body, lost) in [
        (format!("Content-Length: {}", length.len()), length, 0),
        ("Transfer-Encoding: chunked".to_owned(), one, 0),
        ("Transfer-Encoding: chunked".to_owned(), many, PIECES - 1 - ROOM),
    ] {
        let (_, mut server) = Socket::two(1, 40_000);
        let mut bench = Bench::new();
        let head = format!("POST /a HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        bench.feed([server.opened(), server.bytes(Way::IN, head.as_bytes())]);
        let mut pieces = body.chunks(PIECE).map(|piece| server.bytes(Way::IN, piece)).collect::<Vec<_>>().into_iter();
        let late = pieces.next().unwrap().flagged(SEG_BEHIND);
        let last = (body.len() % PIECE > 0).then(|| pieces.next_back().unwrap());
        bench.feed(pieces.map(|piece| piece.flagged(SEG_AHEAD)));
        bench.feed([late].into_iter().chain(last).chain([server.bytes(Way::OUT, &ok("a"))]));
        assert_eq!(bench.told(), ["/a 200 complete"], "{framing}");
        assert_eq!(bench.meter.get(Count::LostReorder), lost as u64, "{framing}");
    }
}
