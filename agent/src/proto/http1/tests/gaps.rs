//! Bytes that were not kept, or not seen.

use crate::model::Thread;
use crate::proto::{Chunk, Close, Gap, Parser, Side, Step};

use super::super::{Http1, NOT_HTTP};
use super::{Talk, line};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const C: Side = Side::Client;
const S: Side = Side::Server;

#[test]
fn inside_a_body_of_known_length_nothing_is_lost() {
    for lost in [None, Some("ring_full")] {
        let mut talk = Talk::new();
        talk.c("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n").miss(C, 99_968, lost).c("t".repeat(32));
        talk.s("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nabcd").miss(S, 99_999_996, lost);
        talk.c(GET).s(OK);
        talk.is(&["POST / 200 100043/100000 100000046/100000000 complete", "GET / 200 27/0 40/2 complete"]);
        assert_eq!(talk.http.skipped, 0);
    }
}

#[test]
fn until_close_nothing_is_lost() {
    let mut talk = Talk::new();
    talk.c(GET).s("HTTP/1.0 200 OK\r\n\r\nabc").miss(S, 1000, None).s("end").fin(S);
    talk.is(&["GET / 200 27/0 1025/1006 complete"]);
}

#[test]
fn inside_a_chunk_nothing_is_lost() {
    let mut talk = Talk::new();
    talk.c(GET).s(CHUNKED).s("10000\r\nabc").miss(S, 65_516, None).s("0123456789abcdefg\r\n0\r\n\r\n").c(GET).s(OK);
    talk.is(&["GET / 200 27/0 65597/65536 complete", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn windows_end_with_the_next_request() {
    let mut talk = Talk::new();
    talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("67890\r\n0\r\n\r\n");
    talk.is(&[]);
    talk.c(GET);
    talk.is(&["GET / 200 27/0 5064/? complete"]);
    assert_eq!(talk.calls[0].response.unwrap().last_at, 4000);
    talk.s(OK);
    assert_eq!(talk.told()[1], "GET / 200 27/0 40/2 complete");
}

#[test]
fn windows_end_with_silence_or_a_close() {
    let begin = || {
        let mut talk = Talk::new();
        talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("67890\r\n0\r\n\r\n");
        talk
    };
    let mut talk = begin();
    talk.quiet();
    talk.is(&["GET / 200 27/0 5064/? complete"]);
    assert!(!talk.http.busy());
    talk.c(GET).s(OK);
    assert_eq!(talk.told()[1], "GET / 200 27/0 40/2 complete");
    let mut talk = begin();
    talk.fin(S);
    talk.is(&["GET / 200 27/0 5064/? complete"]);
    let mut talk = begin();
    talk.end(Close::Reset(None));
    talk.is(&["GET / 200 27/0 5064/? complete"]);
}

#[test]
fn an_end_that_was_none_is_revoked() {
    let mut talk = Talk::new();
    talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("x\r\n0\r\n\r\n").s("HTTP/1.1 200 OK\r\n more");
    talk.quiet();
    talk.is(&[]);
    talk.miss(S, 100, None).s("\r\n0\r\n").s("\r\n").quiet();
    talk.is(&["GET / 200 27/0 5189/? complete"]);
}

#[test]
fn windows_without_an_end_are_aborted() {
    let mut talk = Talk::new();
    talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("67890").quiet().fin(S);
    talk.is(&["GET / 200 27/0 5057/? server_aborted"]);
}

#[test]
fn windows_of_a_pipeline_end_with_the_next_status_line() {
    let mut talk = Talk::new();
    talk.c(format!("{GET}{GET}")).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("6\r\n0\r\nA: b\r\n\r\n").s(OK);
    talk.is(&["GET / 200 27/0 5066/? complete", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn an_upload_in_windows() {
    let mut talk = Talk::new();
    talk.c("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\nabc")
        .miss(C, 40_000, None)
        .c("..\r\n0\r\n\r\n");
    talk.s(OK);
    talk.is(&["PUT / 200 40064/? 40/2 complete"]);
    talk.c(GET).s(OK);
    assert_eq!(talk.told()[1], "GET / 200 27/0 40/2 complete");
}

#[test]
fn a_request_head_longer_than_the_window() {
    let mut talk = Talk::new();
    talk.c(format!("GET /long HTTP/1.1\r\nHost: h\r\nCookie: {}", "c".repeat(1000)))
        .miss(C, 60_000, None)
        .c("cccc\r\n\r\n");
    talk.s(OK);
    talk.is(&["GET /long 200 61045/? 40/2 complete truncated"]);
    talk.c(GET).s(OK);
    assert_eq!(talk.told()[1], "GET / 200 27/0 40/2 complete");
    // What follows the head is not told apart from it, and no call is made of it.
    let mut talk = Talk::new();
    talk.c("POST /long HTTP/1.1\r\nCookie: ").miss(C, 60_000, None).c("c\r\n\r\nbody");
    talk.s(OK).quiet();
    talk.is(&["POST /long 200 60038/? 40/2 complete truncated"]);
}

#[test]
fn a_response_head_longer_than_the_window() {
    let mut talk = Talk::new();
    talk.c(GET).s("HTTP/1.1 200 OK\r\nSet-Cookie: ").miss(S, 9000, None).s("tail").quiet();
    talk.is(&[]);
    talk.c(GET).s(OK);
    talk.is(&["GET / 200 27/0 9033/? complete truncated", "GET / 200 27/0 40/2 complete"]);
    let mut talk = Talk::new();
    talk.c(GET).s("HTTP/1.1 200 OK\r\nSet-Cookie: ").miss(S, 9000, None).s("tail").fin(S);
    talk.is(&["GET / 200 27/0 9033/? complete truncated"]);
    // HEAD has no body: the cut head is all.
    let mut talk = Talk::new();
    talk.c("HEAD / HTTP/1.1\r\n\r\n").s("HTTP/1.1 200 OK\r\nSet-Cookie: ").miss(S, 9000, None).s("tail");
    talk.c(GET).s(OK);
    talk.is(&["HEAD / 200 19/0 9029/0 complete truncated", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn a_request_that_was_not_seen() {
    let mut talk = Talk::new();
    talk.c(GET).s(OK).miss(C, 27, Some("ring_full")).s(OK).c(GET).s(OK);
    talk.is(&["GET / 200 27/0 40/2 complete"; 2]);
    assert_eq!(talk.http.skipped, 1);
}

#[test]
fn a_response_that_was_not_seen() {
    let mut talk = Talk::new();
    talk.c(GET).miss(S, 40, Some("ring_full"));
    talk.is(&["GET / - 27/0 - lost(ring_full)"]);
    talk.s("rest of it").c(GET).s(OK);
    talk.is(&["GET / - 27/0 - lost(ring_full)", "GET / 200 27/0 40/2 complete"]);
    assert_eq!(talk.http.skipped, 0);
}

#[test]
fn a_gap_beyond_a_body() {
    let mut talk = Talk::new();
    talk.c(GET).s("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab").miss(S, 100, Some("ring_full")).c(GET).s(OK);
    talk.is(&["GET / 200 27/0 49/10 complete", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn pipelined_requests_behind_unseen_ones_are_left_out() {
    let mut talk = Talk::new();
    talk.c(format!("{GET}{GET}")).miss(C, 27, Some("ring_full")).c(GET);
    talk.s(OK).s(OK).s(OK).s(OK);
    talk.is(&["GET / 200 27/0 40/2 complete"; 2]);
    assert_eq!(talk.http.skipped, 2);
    // At once nothing is certain, after a silence it is.
    talk.c(GET).s(OK);
    assert_eq!((talk.calls.len(), talk.http.skipped), (2, 3));
    talk.quiet().c(GET).s(OK);
    assert_eq!((talk.calls.len(), talk.http.skipped), (3, 3));
}

#[test]
fn pipelined_responses_that_were_not_seen() {
    let mut talk = Talk::new();
    talk.c(format!("{GET}{GET}{GET}")).s(OK).miss(S, 40, Some("ring_full")).s(OK);
    talk.is(&["GET / 200 27/0 40/2 complete", "GET / - 27/0 - lost(ring_full)", "GET / - 27/0 - lost(ring_full)"]);
    assert_eq!(talk.http.skipped, 0);
}

#[test]
fn joined_midway() {
    let mut talk = Talk::midway();
    talk.s("the rest of a body").s("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").c("half a head\r\n\r\n");
    // Which may have been its body.
    talk.c(GET).s(OK).c(GET).s(OK).c(GET).s(OK).quiet();
    talk.is(&["GET / 200 27/0 40/2 complete"; 2]);
    assert_eq!(talk.http.skipped, 2);
}

#[test]
fn joined_while_a_body_comes() {
    let mut talk = Talk::midway();
    talk.s("body").c(GET).s("body that goes on").s(OK);
    talk.is(&["GET / 200 27/0 40/2 complete"]);
    // Announced by gaps of no length, as assembly does.
    let mut talk = Talk::new();
    talk.miss(C, 0, Some("midway")).miss(S, 0, Some("midway")).c(GET).s("body that goes on").s(OK);
    talk.is(&["GET / 200 27/0 40/2 complete"]);
    assert_eq!(talk.http.skipped, 0);
}

#[test]
fn joined_midway_where_no_http_is() {
    let mut talk = Talk::midway();
    for _ in 0..18 {
        talk.c("*1\r\n$4\r\nPING\r\n").s("+PONG\r\n");
    }
    assert_eq!(talk.step, Step::Done(NOT_HTTP));
    talk.is(&[]);
}

#[test]
fn more_requests_than_are_kept() {
    let mut talk = Talk::new();
    talk.c(GET.repeat(1500)).s(OK.repeat(1500));
    assert_eq!((talk.calls.len(), talk.http.skipped), (1024, 476));
    talk.quiet().c(GET).s(OK);
    assert_eq!((talk.calls.len(), talk.http.skipped), (1025, 476));
    let mut talk = Talk::new();
    talk.c(format!("GET /{} HTTP/1.1\r\n\r\n", "t".repeat(8000)).repeat(100));
    assert!(talk.http.held() < 600 << 10, "{}", talk.http.held());
}

#[test]
fn a_gap_behind_a_pipelined_head_loses_what_it_may_have_answered() {
    for begun in ["HTTP/1.1 200 OK\r\nServer: x", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"] {
        let mut talk = Talk::new();
        talk.c(GET.repeat(3)).s(begun).miss(Side::Server, 500, None);
        let told = talk.told();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("GET / 200 27/0") && told[0].contains("complete"), "{told:?}");
        assert!(told[1..].iter().all(|call| call == "GET / - 27/0 - lost(beyond_window)"), "{told:?}");
        // Whether these answer the lost ones can't be known; a later request is certain again.
        talk.s(OK).s(OK).quiet().c(GET).s(OK);
        assert_eq!(talk.told()[3..], ["GET / 200 27/0 40/2 complete"]);
    }
}

/// Sends a text byte by byte.
fn drip(talk: &mut Talk, side: Side, text: &str) {
    for byte in text.chars() {
        if side == C {
            talk.c(byte.to_string())
        } else {
            talk.s(byte.to_string())
        };
    }
}

#[test]
fn behind_what_looked_like_an_end_a_message_may_come_byte_by_byte() {
    let mut talk = Talk::new();
    talk.c(GET).c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("67890\r\n0;last\r\n\r\n");
    talk.quiet();
    drip(&mut talk, S, &OK.replace("200", "404"));
    talk.c(GET).s(OK);
    talk.is(&["GET / 200 27/0 5069/? complete", "GET / 404 27/0 40/2 complete", "GET / 200 27/0 40/2 complete"]);
    let mut talk = Talk::new();
    talk.c("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
        .miss(C, 5000, None)
        .c("67890\r\n0\r\n\r\n")
        .s(OK);
    drip(&mut talk, C, GET);
    talk.s(OK);
    talk.is(&["POST / 200 5064/? 40/2 complete", "GET / 200 27/0 40/2 complete"]);
}

#[test]
fn what_goes_on_behind_a_likely_end_is_no_message() {
    let mut talk = Talk::new();
    talk.c(GET).c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("67890\r\n0\r\n\r\n");
    talk.quiet();
    talk.s("HTT").s("x is no status line").s("more\r\n").s(OK);
    talk.is(&["GET / 200 27/0 5064/? complete", "GET / 200 27/0 40/2 complete"]);
    assert_eq!(talk.calls[1].error, None);
}

#[test]
fn requests_behind_a_response_whose_end_was_not_kept_wait_for_theirs() {
    // Nothing of the server passed since they were sent, so none of their answers can have been missed.
    let mut talk = Talk::new();
    talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("\r\n\r\n").c(GET).c("GET /2 HTTP/1.1\r\n\r\n");
    talk.c("GET /3 HTTP/1.1\r\n\r\n").s(OK).s(OK).s(OK);
    talk.is(&[
        "GET / 200 27/0 5056/? complete",
        "GET / 200 27/0 40/2 complete",
        "GET /2 200 19/0 40/2 complete",
        "GET /3 200 19/0 40/2 complete",
    ]);
}

#[test]
fn an_answer_that_was_perhaps_missed_is_not_taken_for_the_next_one() {
    // More of the first response passes, and perhaps the second one. Which request the next one answers can't be told.
    for lost in [None, Some("ring_full")] {
        let mut talk = Talk::new();
        talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("more").c(GET).miss(S, 100, lost).s("more");
        talk.c("GET /2 HTTP/1.1\r\n\r\n").s(OK).s(OK).quiet().c(GET).s(OK);
        talk.is(&[
            "GET / 200 27/0 5160/? complete",
            "GET / - 27/0 - lost(beyond_window)",
            "GET / 200 27/0 40/2 complete",
        ]);
    }
}

#[test]
fn without_pipelining_one_missed_answer_costs_one_call() {
    let mut talk = Talk::new();
    talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("more").c(GET).miss(S, 40, Some("ring_full"));
    talk.c("GET /2 HTTP/1.1\r\n\r\n").s(OK).c("GET /3 HTTP/1.1\r\n\r\n").s(OK);
    talk.is(&[
        "GET / 200 27/0 5096/? complete",
        "GET / - 27/0 - lost(beyond_window)",
        "GET /2 200 19/0 40/2 complete",
        "GET /3 200 19/0 40/2 complete",
    ]);
}

#[test]
fn a_last_chunk_that_begins_what_is_kept() {
    let mut talk = Talk::new();
    talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("\nx\r\n000\r\nX-Sum: 1\r\n\r\n").quiet();
    talk.is(&["GET / 200 27/0 5073/? complete"]);
}

#[test]
fn the_end_of_a_segment_starts_no_message() {
    // Of a long segment the start and the end were kept; the end reads like a request, or like an answer.
    let look = "GET /phantom HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut http = Http1::new(false);
    let mut calls = Vec::new();
    let by = Thread::default();
    let head = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab";
    http.feed(Chunk { side: C, at: 1, seq: 0, bytes: head.as_bytes(), by }, &mut calls);
    http.gap(Gap { side: C, at: 1, seq: 50, len: 9000, lost: None }, &mut calls);
    http.feed(Chunk { side: C, at: 1, seq: 9050, bytes: look.as_bytes(), by }, &mut calls);
    http.feed(Chunk { side: C, at: 2, seq: 9080, bytes: b"more\r\n0\r\n\r\n", by }, &mut calls);
    http.feed(Chunk { side: S, at: 3, seq: 0, bytes: OK.as_bytes(), by }, &mut calls);
    assert_eq!(calls.iter().map(line).collect::<Vec<_>>(), ["PUT / 200 9096/? 40/2 complete"]);
}

#[test]
fn an_answer_in_pieces_behind_a_cut_head() {
    // HEAD has no body, so the next answer may begin with any segment, however short.
    let mut talk = Talk::new();
    talk.c("HEAD / HTTP/1.1\r\n\r\n").s("HTTP/1.1 200 OK\r\nSet-Cookie: ").miss(S, 9000, None).c(GET);
    OK.as_bytes().chunks(3).for_each(|piece| _ = talk.s(piece));
    assert_eq!(talk.told()[1], "GET / 200 27/0 40/2 complete");
}

#[test]
fn an_answer_that_was_not_made_out_is_not_made_up_for_by_the_next() {
    let mut talk = Talk::new();
    talk.c(GET).s(OK).c(GET).miss(S, 3, Some("ring_full")).c("GET /2 HTTP/1.1\r\n\r\n");
    talk.s("P/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").c("GET /3 HTTP/1.1\r\n\r\n").s(OK);
    talk.is(&[
        "GET / 200 27/0 40/2 complete",
        "GET / - 27/0 - lost(ring_full)",
        "GET /2 - 19/0 - lost(beyond_window)",
        "GET /3 200 19/0 40/2 complete",
    ]);
}

#[test]
fn behind_an_upload_with_long_trailers_the_next_request_comes_in_pieces() {
    let mut talk = Talk::new();
    talk.c("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4000\r\nabc").miss(C, 40_000, None);
    talk.c("0123456789012345678901234567\r\n\r\n").s(OK);
    for piece in ["\r\nO", "PT", "IONS ", "/next HTTP/1.1", "\r\n\r\n"] {
        talk.c(piece);
    }
    talk.s(OK);
    talk.is(&["PUT / 200 40087/? 40/2 complete", "OPTIONS /next 200 26/0 40/2 complete"]);
}

#[test]
fn midway_an_answer_in_pieces_is_the_answer() {
    let mut talk = Talk::midway();
    talk.s("an older answer").c(GET);
    OK.as_bytes().chunks(3).for_each(|piece| _ = talk.s(piece));
    talk.c("GET /2 HTTP/1.1\r\n\r\n").s(OK);
    talk.is(&["GET / 200 27/0 40/2 complete", "GET /2 200 19/0 40/2 complete"]);
}

#[test]
fn an_answer_in_pieces_behind_one_whose_end_was_not_kept() {
    // The trailer section is longer than what is kept of the end.
    let mut talk = Talk::new();
    talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("trailers\r\n\r\n").c(GET);
    OK.as_bytes().chunks(3).for_each(|piece| _ = talk.s(piece));
    talk.c("GET /2 HTTP/1.1\r\n\r\n").s(OK);
    talk.is(&["GET / 200 27/0 5064/? complete", "GET / 200 27/0 40/2 complete", "GET /2 200 19/0 40/2 complete"]);
}

#[test]
fn an_end_behind_which_an_answer_was_missed_is_not_the_first_one() {
    // The second response was taken for more of the first one, and ends like one.
    let mut talk = Talk::new();
    talk.c(GET).s(format!("{CHUNKED}5\r\nab")).miss(S, 5000, None).s("more").c(GET);
    talk.s(format!("x{CHUNKED}1\r\nx\r\n0\r\n\r\n")).c("GET /2 HTTP/1.1\r\n\r\n").s(OK);
    talk.is(&["GET / 200 27/0 5115/? complete", "GET / - 27/0 - lost(beyond_window)"]);
}
