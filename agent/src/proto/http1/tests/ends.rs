//! Ends before the end.

use crate::proto::{Close, Parser, STOPPED, Side};

use super::Talk;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// The calls after `talk`, for each way in which the connection may end.
#[track_caller]
fn ends(talk: impl Fn(&mut Talk), expected: [&str; 6]) {
    let closes: [&[Close]; 6] = [
        &[Close::Fin(Side::Server), Close::Fin(Side::Client), Close::Gone],
        &[Close::Fin(Side::Client), Close::Fin(Side::Server), Close::Gone],
        &[Close::Fin(Side::Client), Close::Gone],
        &[Close::Reset(Some(Side::Client))],
        &[Close::Gone],
        &[Close::Forgotten(STOPPED)],
    ];
    for (closes, expected) in closes.into_iter().zip(expected) {
        let mut told = Talk::new();
        talk(&mut told);
        for close in closes {
            told.end(*close);
        }
        let lines: Vec<&str> = if expected.is_empty() { vec![] } else { vec![expected] };
        assert_eq!(told.told(), lines, "{closes:?}");
        assert!(!told.http.busy());
    }
}

#[test]
fn no_answer() {
    ends(
        |talk| {
            talk.c(GET);
        },
        [
            "GET / - 27/0 - server_aborted",
            "GET / - 27/0 - client_aborted",
            "GET / - 27/0 - client_aborted",
            "GET / - 27/0 - reset connection_reset",
            "GET / - 27/0 - lost(unseen_close)",
            "GET / - 27/0 - in_flight",
        ],
    );
}

#[test]
fn half_an_answer() {
    ends(
        |talk| {
            talk.c(GET).s(HALF);
        },
        [
            "GET / 200 27/0 43/4 server_aborted",
            "GET / 200 27/0 43/4 client_aborted",
            "GET / 200 27/0 43/4 client_aborted",
            "GET / 200 27/0 43/4 reset connection_reset",
            "GET / 200 27/0 43/4 lost(unseen_close)",
            "GET / 200 27/0 43/4 in_flight",
        ],
    );
}

#[test]
fn half_an_answer_in_chunks() {
    ends(
        |talk| {
            talk.c(GET).s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
        },
        [
            "GET / 200 27/0 52/2 server_aborted",
            "GET / 200 27/0 52/2 client_aborted",
            "GET / 200 27/0 52/2 client_aborted",
            "GET / 200 27/0 52/2 reset connection_reset",
            "GET / 200 27/0 52/2 lost(unseen_close)",
            "GET / 200 27/0 52/2 in_flight",
        ],
    );
}

#[test]
fn until_close() {
    ends(
        |talk| {
            talk.c(GET).s("HTTP/1.0 200 OK\r\n\r\nabc");
        },
        [
            "GET / 200 27/0 22/3 complete",
            "GET / 200 27/0 22/3 complete",
            "GET / 200 27/0 22/3 client_aborted",
            "GET / 200 27/0 22/3 reset connection_reset",
            "GET / 200 27/0 22/3 lost(unseen_close)",
            "GET / 200 27/0 22/3 in_flight",
        ],
    );
}

#[test]
fn half_a_head_back() {
    ends(
        |talk| {
            talk.c(GET).s("HTTP/1.1 503 Sorry\r\nX:");
        },
        [
            "GET / 503 27/0 22/? server_aborted truncated",
            "GET / 503 27/0 22/? client_aborted truncated",
            "GET / 503 27/0 22/? client_aborted truncated",
            "GET / 503 27/0 22/? reset truncated connection_reset",
            "GET / 503 27/0 22/? lost(unseen_close) truncated",
            "GET / 503 27/0 22/? in_flight truncated",
        ],
    );
}

#[test]
fn half_a_head_there() {
    ends(
        |talk| {
            talk.c("GET / HTTP/1.1\r\nHost");
        },
        [
            "GET / - 20/? - server_aborted truncated",
            "GET / - 20/? - client_aborted truncated",
            "GET / - 20/? - client_aborted truncated",
            "GET / - 20/? - reset truncated connection_reset",
            "GET / - 20/? - lost(unseen_close) truncated",
            "GET / - 20/? - in_flight truncated",
        ],
    );
    ends(
        |talk| {
            talk.c("GET / HTTP/1.1");
        },
        [""; 6],
    );
}

#[test]
fn half_a_body_there() {
    ends(
        |talk| {
            talk.c("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc");
        },
        [
            "POST / - 41/3 - server_aborted",
            "POST / - 41/3 - client_aborted",
            "POST / - 41/3 - client_aborted",
            "POST / - 41/3 - reset connection_reset",
            "POST / - 41/3 - lost(unseen_close)",
            "POST / - 41/3 - in_flight",
        ],
    );
}

#[test]
fn nothing_open() {
    ends(
        |talk| {
            talk.c(GET).s(OK);
            talk.calls.clear();
        },
        [""; 6],
    );
    ends(|_| {}, [""; 6]);
}

#[test]
fn after_a_half_close_the_server_still_answers() {
    let mut talk = Talk::new();
    talk.c(GET).fin(Side::Client).s(HALF).s("answer").fin(Side::Server);
    talk.is(&["GET / 200 27/0 49/10 complete"]);
}

#[test]
fn an_answer_to_half_a_request_that_will_not_go_on() {
    let mut talk = Talk::new();
    talk.c("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc").fin(Side::Client).s(OK);
    talk.is(&["POST / 200 41/3 40/2 complete"]);
}

#[test]
fn an_interim_response_is_no_response() {
    let mut talk = Talk::new();
    talk.c(GET).s("HTTP/1.1 100 Continue\r\n\r\n").fin(Side::Server);
    talk.is(&["GET / - 27/0 - server_aborted"]);
    let mut talk = Talk::new();
    talk.c(GET).s("HTTP/1.1 100 Continue\r\n").fin(Side::Server);
    talk.is(&["GET / - 27/0 - server_aborted"]);
}

#[test]
fn pipelined_requests_end_one_by_one() {
    let mut talk = Talk::new();
    talk.c(format!("{GET}{GET}{GET}")).s(format!("{OK}{HALF}")).fin(Side::Server);
    talk.is(&["GET / 200 27/0 40/2 complete", "GET / 200 27/0 43/4 server_aborted", "GET / - 27/0 - server_aborted"]);
}

#[test]
fn forgotten_for_another_reason_is_lost() {
    let mut talk = Talk::new();
    talk.c(GET).end(Close::Forgotten("connection_table_full"));
    talk.is(&["GET / - 27/0 - lost(connection_table_full)"]);
}

#[test]
fn an_answer_that_is_no_http_does_not_take_the_next_one() {
    for bad in
        ["HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n", "oh\r\n\r\n"]
    {
        for size in [1, 7, 1000] {
            let mut talk = Talk::new();
            let say = |talk: &mut Talk, bytes: &str| bytes.as_bytes().chunks(size).for_each(|piece| _ = talk.s(piece));
            talk.c("GET /0 HTTP/1.1\r\n\r\n");
            say(&mut talk, "HTTP/1.1 204 No\r\n\r\n");
            talk.c("GET /1 HTTP/1.1\r\n\r\n");
            say(&mut talk, bad);
            talk.c("GET /2 HTTP/1.1\r\n\r\n");
            say(&mut talk, "HTTP/1.1 201 Y\r\nContent-Length: 1\r\n\r\nx");
            talk.is(&[
                "GET /0 204 19/0 19/0 complete",
                "GET /1 - 19/0 - complete malformed_response",
                "GET /2 201 19/0 38/1 complete",
            ]);
        }
    }
}

#[test]
fn behind_an_answer_that_is_no_http_a_pipeline_is_not_guessed() {
    let mut talk = Talk::new();
    talk.c("GET /0 HTTP/1.1\r\n\r\nGET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").s("oh\r\n\r\n");
    talk.s("HTTP/1.1 204 No\r\n\r\n").s("HTTP/1.1 204 No\r\n\r\n");
    talk.is(&[
        "GET /0 - 19/0 - complete malformed_response",
        "GET /1 - 19/0 - lost(malformed_response)",
        "GET /2 - 19/0 - lost(malformed_response)",
    ]);
}

#[test]
fn who_asks_again_has_taken_what_came_for_the_answer() {
    // `identity` is no coding any more (RFC 9112 section 7), and many clients go by the length all the same.
    let mut talk = Talk::new();
    talk.c("GET /0 HTTP/1.1\r\n\r\n");
    talk.s("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc");
    talk.c("GET /1 HTTP/1.1\r\n\r\n").s("HTTP/").s("1.1 204 No\r\n\r\n");
    talk.is(&["GET /0 200 19/0 70/3 complete", "GET /1 204 19/0 19/0 complete"]);
}
