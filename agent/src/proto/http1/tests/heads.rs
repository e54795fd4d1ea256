//! Heads: in pieces, long, lenient, cut.

use crate::model::Operation;
use crate::proto::{Side, Step};

use super::Talk;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const POST: &str = "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

#[test]
fn cut_at_every_byte() {
    let mut whole = Talk::new();
    whole.c(POST).s(OK);
    for cut in 0..=POST.len() {
        for back in 0..=OK.len() {
            let mut talk = Talk::new();
            talk.c(&POST[..cut]).c(&POST[cut..]).s(&OK[..back]).s(&OK[back..]);
            assert_eq!(talk.told(), whole.told(), "{cut} {back}");
            assert_eq!(talk.http.skipped, 0);
        }
    }
}

#[test]
fn a_byte_at_a_time() {
    let mut talk = Talk::new();
    for _ in 0..3 {
        POST.bytes().for_each(|byte| {
            talk.c([byte]);
        });
        OK.bytes().for_each(|byte| {
            talk.s([byte]);
        });
    }
    talk.is(&["POST /orders 200 57/4 40/2 complete"; 3]);
    assert_eq!(talk.calls[1].request.last_at - talk.calls[1].request.first.at, 56_000);
    assert_eq!(talk.http.held(), 0);
}

#[test]
fn long_heads_are_whole_when_they_are_seen_whole() {
    for size in [8, 16, 64, 1024] {
        let head = format!(
            "GET /big HTTP/1.1\r\nCookie: {}\r\nHost: h\r\nContent-Length: 2\r\n\r\nxy",
            "c".repeat(size << 10)
        );
        let wire = head.len();
        let mut talk = Talk::new();
        head.as_bytes().chunks(4000).for_each(|piece| {
            talk.c(piece);
        });
        talk.s(OK);
        talk.is(&[&format!("GET /big 200 {wire}/2 40/2 complete")]);
        let Operation::Http(http) = &talk.calls[0].operation;
        assert_eq!(http.host.as_deref(), Some("h"));
    }
}

#[test]
fn many_fields() {
    for count in [63, 64, 65, 300, 5000] {
        let fields: Vec<_> = (0..count).map(|i| format!("X-{i}: {i}\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\n{}Host: last\r\n\r\n", fields.concat());
        let mut talk = Talk::new();
        talk.c(&head).s(OK);
        talk.is(&[&format!("GET / 200 {}/0 40/2 complete", head.len())]);
        let Operation::Http(http) = &talk.calls[0].operation;
        assert_eq!(http.host.as_deref(), Some("last"));
    }
}

#[test]
fn long_targets_are_cut() {
    for (length, truncated) in [(8191, ""), (8192, " truncated"), (9000, " truncated"), (70_000, " truncated")] {
        let head = format!("GET /{} HTTP/1.1\r\n\r\n", "t".repeat(length));
        for size in [1000, head.len()] {
            let mut talk = Talk::new();
            head.as_bytes().chunks(size).for_each(|piece| {
                talk.c(piece);
            });
            talk.s(OK);
            talk.is(&[&format!("GET /ttttttt...8192 200 {}/0 40/2 complete{truncated}", head.len())]);
        }
    }
    // The version lies across what is kept of a line, at every place.
    for length in 9180..9230 {
        let mut talk = Talk::new();
        let head = format!("GET /{} HTTP/1.0\r\n\r\n", "t".repeat(length));
        head.as_bytes().chunks(77).for_each(|piece| {
            talk.c(piece);
        });
        talk.s(OK);
        talk.is(&[&format!("GET /ttttttt...8192 200 {}/0 40/2 complete truncated", head.len())]);
    }
}

#[test]
fn lenient_where_servers_are() {
    for head in [
        "GET /x HTTP/1.1\nHost: h\n\n",
        "GET /x HTTP/1.1\r\nHost:h\n\r\n",
        "GET  /x  HTTP/1.1 \r\nHost : h\r\n\r\n",
        "GET /x HTTP/1.1\r\nno field\r\n: empty\r\nHost: h\r\n\r\n",
        "GET /x HTTP/1.1\r\nA: b\r\n c\r\nHost:\r\n\t h \r\n\r\n",
        "GET /x HTTP/1.4\r\nHost: other\r\nHost: h\r\n\r\n",
        "GET /x HTTP/1.1\r\n folded at once\r\nHost: h\r\n\r\n",
        "GET /x HTTP/1.1\r\nBad\u{e4}: \0\r\nHost: h\r\n\r\n",
    ] {
        let mut talk = Talk::new();
        talk.c(head).s(OK);
        talk.is(&[&format!("GET /x 200 {}/0 40/2 complete", head.len())]);
        let Operation::Http(http) = &talk.calls[0].operation;
        assert_eq!(http.host.as_deref(), Some("h"), "{head:?}");
    }
}

#[test]
fn folded_framing_counts() {
    let mut talk = Talk::new();
    talk.c("POST / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
    talk.s("HTTP/1.1 200 OK\r\nContent-Length:\r\n\t2\r\n\r\nhi");
    talk.is(&["POST / 200 61/2 42/2 complete"]);
}

#[test]
fn a_target_that_is_not_text() {
    let mut talk = Talk::new();
    talk.c(b"GET /\xff\xfe HTTP/1.1\r\n\r\n").s(OK);
    talk.is(&["GET /\u{fffd}\u{fffd} 200 20/0 40/2 complete"]);
}

#[test]
fn an_answer_before_the_head_has_ended() {
    let mut talk = Talk::new();
    talk.c("GET /x HTTP/1.1\r\nCookie: aaaaa")
        .s("HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n")
        .c("aaaa")
        .fin(Side::Server);
    talk.is(&["GET /x 431 34/? 45/0 complete truncated"]);
    // Without a request line there is no call.
    let mut talk = Talk::new();
    talk.c("GET /x HTT").s("HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n").fin(Side::Server);
    talk.is(&[]);
    assert_eq!(talk.http.skipped, 0);
}

#[test]
fn garbage_after_a_call() {
    let mut talk = Talk::new();
    talk.c(POST).s(OK).c("\0\0\0\0").c("GET / HTTP/1.1\r\n\r\n").s(OK);
    talk.is(&["POST /orders 200 57/4 40/2 complete", "GET / 200 18/0 40/2 complete"]);
    let mut talk = Talk::new();
    talk.c(POST).s("-ERR unknown command\r\n").fin(Side::Server);
    talk.is(&["POST /orders - 57/4 - server_aborted malformed_response"]);
    assert_eq!(talk.step, Step::Continue);
}

#[test]
fn broken_chunks() {
    let mut talk = Talk::new();
    talk.c("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        .s("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
        .fin(Side::Server);
    talk.is(&["POST / 400 51/? 39/0 complete malformed_request"]);
    let mut talk = Talk::new();
    talk.c(POST).s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc").fin(Side::Server);
    talk.is(&["POST /orders 200 57/4 53/? complete malformed_response"]);
}
