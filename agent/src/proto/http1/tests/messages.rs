//! Whole messages: framing, pipelining, interim responses, upgrades.

use crate::model::{Operation, Stamp, Thread, Version};
use crate::proto::{Parser, Side, Step};

use super::super::{HTTP2, NOT_HTTP, UPGRADED};
use super::Talk;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn one_exchange_and_all_that_it_says() {
    let mut talk = Talk::new();
    let request = "GET /a?b=c HTTP/1.0\r\nHost: shop.test:81\r\nUser-Agent: curl/8\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
    talk.c(request).s(OK);
    talk.is(&["GET /a?b=c 200 133/0 40/2 complete"]);
    let call = &talk.calls[0];
    let Operation::Http(http) = &call.operation;
    assert_eq!(http.host.as_deref(), Some("shop.test:81"));
    assert_eq!(http.user_agent.as_deref(), Some("curl/8"));
    assert_eq!(http.version, Version::Http10);
    assert_eq!(http.route, None);
    let context = http.context.unwrap();
    assert_eq!((context.trace[0], context.span[7], context.flags), (0x0a, 0x31, 1));
    let [begun] = talk.begun[..] else { panic!("{:?}", talk.begun) };
    assert_eq!((begun.first, begun.context, begun.request_id), (call.request.first, http.context, None));
    assert_eq!(
        call.request.first,
        Stamp { at: 1000, seq: u32::MAX - 20, by: Thread { tgid: 1, tid: 7, ..Thread::default() } }
    );
    assert_eq!(
        call.response.unwrap().first,
        Stamp { at: 2000, seq: 1, by: Thread { tgid: 2, tid: 7, ..Thread::default() } }
    );
    assert_eq!((call.request.last_at, call.response.unwrap().last_at), (1000, 2000));
    assert!(!talk.http.busy());
    assert_eq!((talk.http.held(), talk.http.skipped), (0, 0));
}

#[test]
fn keep_alive_and_empty_lines_between() {
    let mut talk = Talk::new();
    talk.c(GET).s(OK).c(format!("\r\n\n{GET}")).s(OK);
    talk.is(&["GET / 200 27/0 40/2 complete"; 2]);
    // The second request begins behind the three bytes of empty lines.
    assert_eq!(talk.calls[1].request.first.seq, (u32::MAX - 20).wrapping_add(30));
}

#[test]
fn pipelined_requests_keep_their_order() {
    for depth in [2, 16, 100] {
        let mut talk = Talk::new();
        let requests: Vec<_> = (0..depth).map(|i| format!("GET /{i} HTTP/1.1\r\n\r\n")).collect();
        let responses: Vec<_> =
            (0..depth).map(|i| format!("HTTP/1.1 {} X\r\nContent-Length: 1\r\n\r\n.", 400 + i)).collect();
        talk.c(requests.concat()).s(responses.concat());
        let told: Vec<String> =
            (0..depth).map(|i| format!("GET /{i} {} {}/0 38/1 complete", 400 + i, 18 + i.to_string().len())).collect();
        assert_eq!(talk.told(), told);
        assert!(talk.calls.windows(2).all(|pair| pair[0].request.first.at <= pair[1].request.first.at));
    }
}

#[test]
fn methods_and_target_forms() {
    let mut talk = Talk::new();
    for line in [
        "PROPFIND /dav HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "BREW coffee://pot HTTP/1.1",
        "get / HTTP/1.7",
        "PATCH http://u:p@h.test/x HTTP/1.1",
    ] {
        talk.c(format!("{line}\r\nHost: other\r\n\r\n")).s(OK);
    }
    talk.is(&[
        "PROPFIND /dav 200 39/0 40/2 complete",
        "OPTIONS * 200 35/0 40/2 complete",
        "BREW coffee://pot 200 43/0 40/2 complete",
        "get / 200 31/0 40/2 complete",
        "PATCH http://u:p@h.test/x 200 51/0 40/2 complete",
    ]);
    let hosts: Vec<_> = talk
        .calls
        .iter()
        .map(|call| {
            let Operation::Http(http) = &call.operation;
            http.host.as_deref().unwrap()
        })
        .collect();
    assert_eq!(hosts, ["other", "other", "pot", "other", "h.test"]);
}

#[test]
fn bodies_by_length_that_look_like_heads() {
    let mut talk = Talk::new();
    let inner = format!("{GET}{GET}");
    talk.c(format!("POST /up HTTP/1.1\r\nContent-Length: {}\r\n\r\n", inner.len())).c(&inner);
    let body = format!("{OK}{OK}");
    talk.s(format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", body.len())).s(&body);
    talk.is(&["POST /up 201 95/54 124/80 complete"]);
    assert_eq!(talk.http.skipped, 0);
}

#[test]
fn chunked_both_ways() {
    let mut talk = Talk::new();
    talk.c("PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n");
    talk.c("1B\r\n").c(GET).c("\r\n0\r\nTrailer: x\r\n\r\n");
    talk.s("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n28\n").s(OK).s("\n0\n\n");
    talk.c(GET).s(OK);
    talk.is(&["PUT /x 200 109/30 100/40 complete", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn transfer_encoding_wins() {
    let mut talk = Talk::new();
    talk.c("POST / HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").c(GET);
    talk.s(OK).s(OK);
    talk.is(&["POST / 200 71/0 40/2 complete", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn contradicting_lengths_are_malformed() {
    let mut talk = Talk::new();
    talk.c("POST / HTTP/1.1\r\nContent-Length: 6\r\nContent-Length: 7\r\n\r\nGET /x HTTP/1.1\r\n\r\n");
    talk.s("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n").fin(Side::Server);
    talk.is(&["POST / 400 76/? 39/0 complete malformed_request"]);
}

#[test]
fn responses_without_a_body() {
    let mut talk = Talk::new();
    talk.c("HEAD / HTTP/1.1\r\n\r\n").s("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    talk.c(GET).s("HTTP/1.1 204 No Content\r\n\r\n");
    talk.c(GET).s("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
    talk.c(GET).s("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n");
    talk.is(&[
        "HEAD / 200 19/0 41/0 complete",
        "GET / 204 27/0 27/0 complete",
        "GET / 304 27/0 76/0 complete",
        "GET / 200 27/0 35/0 complete",
    ]);
}

#[test]
fn a_response_until_the_connection_closes() {
    let mut talk = Talk::new();
    talk.c(GET).s("HTTP/1.0 200 OK\r\n\r\n").s("abc").s(OK);
    talk.is(&[]);
    talk.fin(Side::Server);
    talk.is(&["GET / 200 27/0 62/43 complete"]);
    assert_eq!(talk.calls[0].response.unwrap().last_at, 4000);
}

#[test]
fn interim_responses_are_no_part_of_the_final_one() {
    let mut talk = Talk::new();
    talk.c(GET).s("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").s("HTTP/1.1 100 Continue\r\n\r\n").s(OK);
    talk.is(&["GET / 200 27/0 40/2 complete"]);
    assert_eq!(talk.calls[0].response.unwrap().first.at, 4000);
    let mut talk = Talk::new();
    talk.c(GET).s(format!("HTTP/1.1 102 Processing\r\n\r\n{OK}"));
    talk.is(&["GET / 200 27/0 40/2 complete"]);
}

const EXPECT: &str = "POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 27\r\n\r\n";

#[test]
fn expectations() {
    // Accepted.
    let mut talk = Talk::new();
    talk.c(EXPECT).s("HTTP/1.1 100 Continue\r\n\r\n").c(GET).s(OK).c(GET).s(OK);
    talk.is(&["POST / 200 88/27 40/2 complete", "GET / 200 27/0 40/2 complete"]);
    // Accepted without saying so.
    let mut talk = Talk::new();
    talk.c(EXPECT).c(GET).s(OK).c(GET).s(OK);
    talk.is(&["POST / 200 88/27 40/2 complete", "GET / 200 27/0 40/2 complete"]);
    // Refused: the next bytes are the next request.
    let mut talk = Talk::new();
    talk.c(EXPECT).s("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").c(GET).s(OK);
    talk.is(&["POST / 417 61/0 38/0 complete", "GET / 200 27/0 40/2 complete"]);
    // Refused, and the body comes nevertheless.
    let mut talk = Talk::new();
    talk.c(EXPECT).s("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").c("x".repeat(27)).c(GET).s(OK);
    talk.is(&["POST / 417 88/27 38/0 complete", "GET / 200 27/0 40/2 complete"]);
    // Refused, then silence, then a close.
    for close in [Side::Client, Side::Server] {
        let mut talk = Talk::new();
        talk.c(EXPECT).s("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
        talk.is(&[]);
        talk.fin(close);
        talk.is(&["POST / 417 61/0 38/0 complete"]);
    }
    let mut talk = Talk::new();
    talk.c(EXPECT).s("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").quiet();
    talk.is(&["POST / 417 61/0 38/0 complete"]);
    talk.c(GET).s(OK);
    talk.is(&["POST / 417 61/0 38/0 complete", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn a_refused_body_or_the_next_request_byte_by_byte() {
    let refused = "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n";
    for quiet in [false, true] {
        // The next request; the body, then the next request; a body that reads like a method.
        for (sent, body) in [("", 0), ("name=value&other=thing&a=bc", 27), ("ABCDEFGHIJKLMNOPQRSTUVWXYZA", 27)] {
            let mut talk = Talk::new();
            talk.c(EXPECT).s(refused);
            if quiet {
                talk.quiet();
            }
            for byte in format!("{sent}{GET}").bytes() {
                talk.c([byte]);
            }
            talk.s(OK);
            // What comes after the call was told belongs to nobody.
            let size = if quiet { 0 } else { body };
            let first = format!("POST / 417 {}/{size} 38/0 complete", 61 + size);
            talk.is(&[&first, "GET / 200 27/0 40/2 complete"]);
        }
    }
    let mut talk = Talk::new();
    talk.c(EXPECT).s(refused).c("ABCDEFGHIJKLM").c("NOPQRSTUVWXYZA").quiet();
    talk.is(&["POST / 417 88/27 38/0 complete"]);
    let mut talk = Talk::new();
    talk.c(EXPECT).s(refused).c("ABCDEFGHIJKLM").fin(Side::Client);
    talk.is(&["POST / 417 74/13 38/0 complete"]);
}

#[test]
fn an_early_answer_waits_for_the_request() {
    let mut talk = Talk::new();
    talk.c("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc").s("HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n");
    talk.is(&[]);
    talk.c("defghij");
    talk.is(&["POST / 413 49/10 39/0 complete"]);
    assert_eq!((talk.calls[0].request.last_at, talk.calls[0].response.unwrap().last_at), (3000, 2000));
    talk.c(GET).s(OK);
    assert_eq!(talk.calls.len(), 2);
}

#[test]
fn an_early_answer_and_the_end() {
    for (close, end) in [(Side::Server, "complete"), (Side::Client, "complete")] {
        let mut talk = Talk::new();
        talk.c("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
            .s("HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n")
            .fin(close);
        talk.is(&[&format!("POST / 413 42/3 39/0 {end}")]);
    }
}

#[test]
fn upgrades() {
    let mut talk = Talk::new();
    talk.c("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    talk.s("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02");
    talk.is(&["GET /ws 101 61/0 56/0 upgraded"]);
    assert_eq!(talk.step, Step::Done(UPGRADED));
    talk.fin(Side::Server);
    assert_eq!(talk.calls.len(), 1);
}

#[test]
fn connect() {
    let mut talk = Talk::new();
    talk.c("CONNECT db.test:443 HTTP/1.1\r\n\r\n")
        .c("\x16\x03\x01")
        .s("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\x16\x03");
    talk.is(&["CONNECT db.test:443 200 32/0 38/0 upgraded"]);
    assert_eq!(talk.step, Step::Done(UPGRADED));
    let Operation::Http(http) = &talk.calls[0].operation;
    assert_eq!(http.host.as_deref(), Some("db.test:443"));
    let mut talk = Talk::new();
    talk.c("CONNECT db.test:443 HTTP/1.1\r\n\r\n").s("HTTP/1.1 407 Auth\r\nContent-Length: 2\r\n\r\nno").c(GET).s(OK);
    talk.is(&["CONNECT db.test:443 407 32/0 42/2 complete", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn what_is_not_http() {
    for (side, bytes, why) in [
        (Side::Client, &b"\x16\x03\x01\x02\x00\x01"[..], NOT_HTTP),
        (Side::Client, b"*1\r\n$4\r\nPING\r\n", NOT_HTTP),
        (Side::Client, b"GET /\r\n", NOT_HTTP),
        (Side::Client, b"GET / HTTP/2.0\r\n", NOT_HTTP),
        (Side::Client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP2),
        (Side::Client, b"\0\0\0\x08\x04\xd2\x16\x2f", NOT_HTTP),
        (Side::Server, b"SSH-2.0-OpenSSH\r\n", NOT_HTTP),
        (Side::Server, b"220 mail ESMTP\r\n", NOT_HTTP),
    ] {
        let mut talk = Talk::new();
        talk.send(side, bytes);
        assert_eq!((talk.step, talk.told()), (Step::Done(why), vec![]), "{bytes:?}");
        let mut talk = Talk::new();
        for byte in bytes {
            talk.send(side, [*byte]);
        }
        assert_eq!((talk.step, talk.told()), (Step::Done(why), vec![]), "{bytes:?}");
    }
}

#[test]
fn a_proxy_prefix_is_stepped_over() {
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c............".to_vec();
    for prefix in [v1, v2] {
        for size in 1..prefix.len() + 10 {
            let mut talk = Talk::new();
            for piece in [&prefix[..], GET.as_bytes()].concat().chunks(size) {
                talk.c(piece);
            }
            talk.s(OK);
            talk.is(&["GET / 200 27/0 40/2 complete"]);
            assert_eq!(talk.calls[0].request.first.seq, (u32::MAX - 20).wrapping_add(prefix.len() as u32));
        }
    }
}

#[test]
fn an_answer_to_nothing_is_no_loss() {
    let mut talk = Talk::new();
    talk.s("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").fin(Side::Server);
    assert_eq!((talk.told(), talk.http.skipped), (vec![], 0));
}

#[test]
fn malformed_contexts_are_counted() {
    let mut talk = Talk::new();
    talk.c("GET / HTTP/1.1\r\ntraceparent: 00-0-0-00\r\n\r\n").s(OK);
    let Operation::Http(http) = &talk.calls[0].operation;
    assert_eq!((http.context, talk.http.malformed_contexts), (None, 1));
}
