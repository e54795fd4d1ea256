//! Calls, their ids, parents and threads.

use weir_common::conn::{self, Known};
use weir_common::record::{Ended, Way};

use super::wire::{AGENT, Bench, Socket, get, ok};
use crate::model::{Exchange, Hosts, Kind, Role, Thread, Visibility};

#[test]
fn both_ends_of_one_call() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), server.opened()]);
    bench.feed([client.bytes(Way::OUT, &get("/a")), server.pair(&get("/a"), &ok("hello"))]);
    bench.feed([client.bytes(Way::IN, &ok("hello"))]);
    let [answered, called] = bench.calls() else { panic!("{:?}", bench.told()) };
    assert_eq!((answered.kind, called.kind), (Kind::Server, Kind::Client));
    let owner = |call: &Exchange| call.mirror.as_ref().map(|mirror| mirror.owner.tgid);
    assert_eq!((owner(answered), owner(called)), (Some(100), Some(200)));
    assert_eq!(answered.ids.trace, called.ids.trace);
    assert_eq!((called.ids.parent, answered.ids.parent), (None, Some(called.ids.span)));
    assert_eq!(called.by, Thread { tgid: 100, tid: 77, ..Thread::default() });
    assert_eq!(answered.by, Thread { tgid: 200, tid: 77, ..Thread::default() });
    assert_eq!(answered.connection.local.to_string(), "10.0.0.2:80");
    assert_eq!(answered.connection.remote.to_string(), "10.0.0.1:40000");
    assert_eq!(answered.call.response.and_then(|response| response.content), Some(5));
    assert_eq!(bench.ledger(), []);
}

#[test]
fn both_ends_agree_through_a_translation_of_addresses() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut server = Socket::new(2, conn::Role::SERVER, "10.9.9.9:8080", "10.7.7.7:1234", 200);
    server.next = [client.next[1], client.next[0]];
    let mut bench = Bench::new();
    bench.feed([client.opened(), server.opened(), server.pair(&get("/a"), &ok("")), client.pair(&get("/a"), &ok(""))]);
    let [answered, called] = bench.calls() else { panic!("{:?}", bench.told()) };
    assert_eq!((answered.ids.trace, answered.ids.parent), (called.ids.trace, Some(called.ids.span)));
}

#[test]
fn a_peer_that_is_not_seen_is_no_parent() {
    let (_, mut server) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([server.opened(), server.pair(&get("/a"), &ok(""))]);
    assert_eq!(bench.calls()[0].ids.parent, None);
}

/// Two hosts with an agent each: the server's knows the client's span without a word between them.
#[test]
fn a_call_from_a_host_with_an_agent_has_the_span_there_as_parent() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    let (mut there, mut here) = (Bench::new(), Bench::new());
    let mut hosts = Hosts::default();
    hosts.add("10.0.0.1".parse().unwrap(), 128, &[]);
    here.worker = here.worker.beside(hosts.into());
    there.feed([client.opened(), client.pair(&get("/a"), &ok(""))]);
    here.feed([server.opened(), server.pair(&get("/a"), &ok(""))]);
    let ([called], [answered]) = (there.calls(), here.calls()) else { panic!("{:?} {:?}", there.told(), here.told()) };
    assert_eq!((called.kind, answered.kind), (Kind::Client, Kind::Server));
    assert_eq!((answered.ids.trace, answered.ids.parent), (called.ids.trace, Some(called.ids.span)));
    assert_eq!(called.ids.parent, None);
}

#[test]
fn a_mirror_that_was_closed_first_is_a_parent_still() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), client.bytes(Way::OUT, &get("/a")), client.closed(Ended::CLOSED, 0)]);
    bench.feed([server.opened(), server.pair(&get("/a"), &ok(""))]);
    let [called, answered] = bench.calls() else { panic!("{:?}", bench.told()) };
    assert_eq!(answered.ids.parent, Some(called.ids.span));
    // After the grace another connection with the same ends is not the mirror.
    let (_, mut again) = Socket::two(10, 40_000);
    bench.worker.tick(10_000_000_000, &mut bench.out);
    bench.feed([again.opened(), again.pair(&get("/b"), &ok(""))]);
    assert_eq!(bench.calls()[2].ids.parent, None);
}

#[test]
fn an_incoming_trace_context_is_joined() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    let request = b"GET /a HTTP/1.1\r\nHost: a\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    let mut bench = Bench::new();
    bench.feed([client.opened(), client.pair(request, &ok("")), server.opened(), server.pair(request, &ok(""))]);
    let [called, answered] = bench.calls() else { panic!("{:?}", bench.told()) };
    for call in [called, answered] {
        assert_eq!(u128::from_be_bytes(call.ids.trace), 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    }
    assert_eq!(called.ids.parent.map(u64::from_be_bytes), Some(0xb7ad_6b71_6920_3331));
    assert_eq!(answered.ids.parent, Some(called.ids.span));
}

#[test]
fn span_ids_are_never_repeated() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), server.opened()]);
    for _ in 0..500 {
        bench.feed([client.pair(&get("/a"), &ok("x")), server.pair(&get("/a"), &ok("x"))]);
    }
    let spans: std::collections::HashSet<_> = bench.calls().iter().map(|call| call.ids.span).collect();
    assert_eq!((bench.calls().len(), spans.len()), (1000, 1000));
}

#[test]
fn who_answers_is_the_thread_that_sent_or_the_owner() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened()]);
    let mut record = client.pair(&get("/a"), &ok(""));
    if let super::wire::Record::Pair(pair, ..) = &mut record {
        (pair.tgid, pair.tid) = (0, 0);
    }
    bench.feed([record]);
    assert_eq!(bench.calls()[0].by, Thread { tgid: 100, tid: 0, ..Thread::default() });

    let (mut client, _) = Socket::two(5, 40_001);
    client.owner.known = Known::SENDER.0;
    bench.feed([client.opened()]);
    let mut record = client.pair(&get("/a"), &ok(""));
    if let super::wire::Record::Pair(pair, ..) = &mut record {
        (pair.tgid, pair.tid) = (0, 0);
    }
    bench.feed([record]);
    assert_eq!(bench.calls()[1].by, Thread { tgid: 100, tid: 101, ..Thread::default() });
}

#[test]
fn the_agents_own_calls_are_left_out_on_both_ends() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    client.owner.tgid = AGENT;
    let mut bench = Bench::new();
    // The mirror is known first.
    bench.feed([server.opened(), client.opened(), client.pair(&get("/a"), &ok("")), server.pair(&get("/a"), &ok(""))]);
    assert_eq!((bench.told(), bench.ledger()), (vec![], vec![("self", 2)]));
    bench.feed([client.closed(Ended::CLOSED, 0), server.closed(Ended::CLOSED, 0)]);
    assert_eq!(bench.out.ended.len(), 0);
}

#[test]
fn a_socket_older_than_the_agent_is_told_by_its_bytes() {
    for (first, rest, role) in [(Way::IN, Way::OUT, Role::Server), (Way::OUT, Way::IN, Role::Client)] {
        let (mut socket, _) = Socket::two(1, 40_000);
        socket.role = conn::Role::UNKNOWN;
        let mut bench = Bench::new();
        bench.feed([socket.midway(), socket.bytes(first, b"the rest of a body"), socket.bytes(first, &get("/a"))]);
        bench.feed([socket.bytes(rest, &ok("x"))]);
        assert_eq!(bench.told(), ["/a 200 complete"]);
        assert_eq!(bench.calls()[0].connection.role, role);
        assert_eq!(bench.ledger(), []);
    }
}

#[test]
fn a_response_to_an_unseen_request_is_skipped_and_tells_the_role() {
    let (mut socket, _) = Socket::two(1, 40_000);
    socket.role = conn::Role::UNKNOWN;
    let mut bench = Bench::new();
    bench.feed([socket.midway(), socket.bytes(Way::OUT, &ok("x")), socket.pair(b"", b"")]);
    bench.feed([socket.bytes(Way::IN, &get("/b")), socket.bytes(Way::OUT, &ok("y"))]);
    assert_eq!((bench.told(), bench.ledger()), (vec!["/b 200 complete".to_owned()], vec![("unseen_head", 1)]));
    assert_eq!(bench.calls()[0].kind, Kind::Server);
}

#[test]
fn what_is_not_http_is_named() {
    let cases: [(&[u8], Option<&str>, &str); 4] = [
        (b"\x16\x03\x01\x02\x00\x01", Some("tls"), "tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some("h2c"), "h2c"),
        (b"*1\r\n$4\r\nPING\r\n", None, "unknown_protocol"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", None, "unknown_protocol"),
    ];
    for (bytes, protocol, reason) in cases {
        for step in [1, 3, bytes.len()] {
            let (mut client, _) = Socket::two(1, 40_000);
            let mut bench = Bench::new();
            bench.feed([client.opened()]);
            for part in bytes.chunks(step) {
                bench.feed([client.bytes(Way::OUT, part)]);
            }
            let rows = bench.worker.snapshot();
            assert_eq!((rows.len(), rows[0].protocol, rows[0].visibility), (1, protocol, Visibility::Opaque(reason)));
            bench.feed([client.closed(Ended::CLOSED, 0)]);
            let [ended] = &bench.out.ended[..] else { panic!("one end") };
            assert_eq!((ended.established, ended.protocol, ended.bytes, ended.error), (true, protocol, [11, 22], None));
            assert_eq!((bench.worker.snapshot().len(), bench.told().len()), (0, 0));
        }
    }
}

#[test]
fn a_byte_at_a_time() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened()]);
    for byte in get("/a") {
        bench.feed([client.bytes(Way::OUT, &[byte])]);
    }
    for byte in ok("hello") {
        bench.feed([client.bytes(Way::IN, &[byte])]);
    }
    assert_eq!(bench.told(), ["/a 200 complete"]);
    let request = bench.calls()[0].call.request;
    assert_eq!((request.first.seq, request.first.at, request.wire), (1000, 1_002_000, get("/a").len() as u64));
}

#[test]
fn connections_that_never_were() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.closed(Ended::FAILED, 1), client.closed(Ended::FAILED, 0), server.closed(Ended::FAILED, 1)]);
    // An end without an announcement that did not fail says nothing.
    bench.feed([client.closed(Ended::CLOSED, 0)]);
    let errors: Vec<_> = bench.out.ended.iter().map(|ended| (ended.established, ended.error)).collect();
    assert_eq!(
        errors,
        [(false, Some("connection_refused")), (false, Some("no_answer")), (false, Some("not_established"))]
    );
    client.owner.tgid = AGENT;
    bench.feed([client.closed(Ended::FAILED, 1)]);
    assert_eq!(bench.out.ended.len(), 3);
}

#[test]
fn a_wrong_first_impression_of_an_old_socket_is_corrected() {
    // The kernel half took the middle of a response for a request, and so this end for a server.
    let (mut socket, _) = Socket::two(1, 40_000);
    socket.role = conn::Role::SERVER;
    let mut bench = Bench::new();
    bench.feed([
        socket.midway(),
        socket.bytes(Way::IN, b"hello /world, this is a text of more than sixty-four bytes, no head"),
    ]);
    bench.feed([socket.bytes(Way::OUT, &get("/a")), socket.bytes(Way::IN, &ok("x"))]);
    assert_eq!(bench.told(), ["/a 200 complete"]);
    assert_eq!((bench.calls()[0].kind, bench.ledger()), (Kind::Client, vec![]));
}

#[test]
fn a_malformed_trace_context_is_counted() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    let request = b"GET /a HTTP/1.1\r\nHost: a\r\ntraceparent: 00-xyz-1-01\r\n\r\n";
    bench.feed([client.opened(), client.pair(request, &ok("")), client.pair(&get("/b"), &ok(""))]);
    assert_eq!((bench.told().len(), bench.ledger()), (2, vec![("malformed_trace_context", 1)]));
}
