//! Properties: pieces do not matter, nor the order of turns; whatever comes, nothing is invented and memory is bounded.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::model::{End, Stamp};
use crate::proto::{Close, Side};

use super::super::head::{self, Scanned, Scanner};
use super::super::line;
use super::Talk;

/// How a body is framed, and what is in it.
#[derive(Clone, Debug)]
enum Content {
    None,
    Length(String),
    Chunked(Vec<String>),
}

#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) method: &'static str,
    pub(super) target: String,
    fields: String,
    request: Content,
    interim: bool,
    status: u16,
    response: Content,
}

fn content() -> impl Strategy<Value = Content> {
    let text =
        || select(vec!["", "x", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "0\r\n\r\n", "\r\n0\r\n\r\n"]);
    prop_oneof![
        Just(Content::None),
        text().prop_map(|text| Content::Length(text.into())),
        vec(text(), 0..4).prop_map(|chunks| Content::Chunked(chunks.into_iter().map(str::to_owned).collect())),
    ]
}

fn field() -> impl Strategy<Value = &'static str> {
    select(vec![
        "Host: h\r\n",
        "A: b\n",
        "Fold: a\r\n\tb\r\n",
        "no field\r\n",
        "User-Agent: x\r\n",
        "Connection: close\r\n",
    ])
}

pub(super) fn pair() -> impl Strategy<Value = Pair> {
    (
        select(vec!["GET", "HEAD", "POST", "BREW", "OPTIONS"]),
        "/[a-z0-9?=&%]{0,20}",
        vec(field(), 0..4),
        content(),
        any::<bool>(),
        select(vec![200_u16, 204, 304, 404, 500]),
        content(),
    )
        .prop_map(|(method, target, fields, request, interim, status, response)| Pair {
            method,
            target,
            fields: fields.concat(),
            request,
            interim,
            status,
            response,
        })
}

/// The framing field, the empty line and the body; and how long the content is.
fn framed(content: &Content) -> (String, u64) {
    match content {
        Content::None => ("Content-Length: 0\r\n\r\n".into(), 0),
        Content::Length(text) => (format!("Content-Length: {}\r\n\r\n{text}", text.len()), text.len() as u64),
        Content::Chunked(chunks) => {
            let chunks: Vec<_> = chunks.iter().filter(|chunk| !chunk.is_empty()).collect();
            let coded: Vec<_> =
                chunks.iter().map(|chunk| format!("{:X};e=\"x\"\r\n{chunk}\r\n", chunk.len())).collect();
            let size = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            (format!("Transfer-Encoding: chunked\r\n\r\n{}0\r\nT: x\r\n\r\n", coded.concat()), size)
        }
    }
}

impl Pair {
    pub(super) fn request(&self) -> String {
        format!("{} {} HTTP/1.1\r\n{}{}", self.method, self.target, self.fields, framed(&self.request).0)
    }

    fn has_body(&self) -> bool {
        self.method != "HEAD" && !matches!(self.status, 204 | 304)
    }

    pub(super) fn response(&self) -> String {
        let interim = if self.interim { "HTTP/1.1 100 Continue\r\n\r\n" } else { "" };
        let (framed, _) = framed(&self.response);
        let end = if self.has_body() { framed.len() } else { framed.find("\r\n\r\n").unwrap() + 4 };
        format!("{interim}HTTP/1.1 {} X\r\n{}{}", self.status, self.fields, &framed[..end])
    }

    /// As [`super::line`] tells it.
    pub(super) fn told(&self) -> String {
        let response = self.response().len() - if self.interim { 25 } else { 0 };
        let size = if self.has_body() { framed(&self.response).1 } else { 0 };
        format!(
            "{} {} {} {}/{} {response}/{size} complete",
            self.method,
            self.target,
            self.status,
            self.request().len(),
            framed(&self.request).1,
        )
    }
}

pub(super) fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Bytes of conversations, or any.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        vec(
            select(vec![
                "GET / HTTP/1.1\r\n",
                "HTTP/1.1 200 OK\r\n",
                "Content-Length: 5\r\n",
                "Transfer-Encoding: chunked\r\n",
                "\r\n",
                "5\r\nhello\r\n",
                "0\r\n\r\n",
                "hello",
                "HTTP/1.1 101 X\r\n\r\n",
                "CONNECT a:1 HTTP/1.1\r\n\r\n",
                "Expect: 100-continue\r\n",
                "\n",
                "A: b\r\n",
            ]),
            0..12
        )
        .prop_map(|words| words.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn pieces_do_not_matter(pairs in vec(pair(), 1..6), c in vec(any::<Index>(), 0..12), s in vec(any::<Index>(), 0..12)) {
        let requests: Vec<_> = pairs.iter().map(Pair::request).collect();
        let responses: Vec<_> = pairs.iter().map(Pair::response).collect();
        let told: Vec<_> = pairs.iter().map(Pair::told).collect();
        let mut talk = Talk::new();
        for piece in cut(requests.concat().as_bytes(), &c) {
            talk.c(piece);
        }
        for piece in cut(responses.concat().as_bytes(), &s) {
            talk.s(piece);
        }
        prop_assert_eq!(talk.told(), told);
        prop_assert_eq!(talk.http.skipped, 0);
        prop_assert_eq!(talk.http.held(), 0);
    }

    #[test]
    fn the_order_of_turns_does_not_matter(pairs in vec(pair(), 1..6), turns in vec(any::<bool>(), 0..12), size in 1_usize..40) {
        // A response may begin as soon as its request is there; requests may run ahead.
        let mut talk = Talk::new();
        let (mut asked, mut answered) = (0, 0);
        let mut turns = turns.into_iter();
        while answered < pairs.len() {
            let ask = asked < pairs.len() && (asked == answered || turns.next().unwrap_or(false));
            let (side, bytes) = if ask {
                asked += 1;
                (Side::Client, pairs[asked - 1].request())
            } else {
                answered += 1;
                (Side::Server, pairs[answered - 1].response())
            };
            for piece in bytes.as_bytes().chunks(size) {
                talk.send(side, piece);
            }
        }
        let told: Vec<_> = pairs.iter().map(Pair::told).collect();
        prop_assert_eq!(talk.told(), told);
    }

    #[test]
    fn a_response_may_begin_before_its_request_has_ended(pairs in vec(pair(), 1..4), early in any::<Index>()) {
        let mut talk = Talk::new();
        for pair in &pairs {
            let request = pair.request();
            let head = request.len() - framed(&pair.request).0.len() + framed(&pair.request).0.find("\r\n\r\n").unwrap() + 4;
            let at = head + early.index(request.len() - head + 1);
            talk.c(&request[..at]).s(pair.response()).c(&request[at..]);
        }
        let told: Vec<_> = pairs.iter().map(Pair::told).collect();
        prop_assert_eq!(talk.told(), told);
    }

    #[test]
    fn holes_in_content_of_known_length_cost_nothing(sizes in vec((0_u64..1 << 40, 0_u64..1 << 40), 1..5), at in any::<Index>()) {
        let mut talk = Talk::new();
        let mut told = Vec::new();
        for (up, down) in sizes {
            let request = format!("PUT / HTTP/1.1\r\nContent-Length: {up}\r\n\r\n");
            let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {down}\r\n\r\n");
            told.push(format!("PUT / 200 {}/{up} {}/{down} complete", request.len() as u64 + up, response.len() as u64 + down));
            for (side, head, len) in [(Side::Client, request, up), (Side::Server, response, down)] {
                let first = at.index(len as usize + 1) as u64;
                talk.send(side, head).miss(side, first, None).miss(side, len - first, Some("ring_full"));
            }
        }
        prop_assert_eq!(talk.told(), told);
        prop_assert_eq!(talk.http.skipped, 0);
    }

    #[test]
    fn nothing_is_invented(events in vec((any::<bool>(), junk(), 0_u8..8, 0_u64..3000), 0..20), midway in any::<bool>(), end in 0_usize..4) {
        let mut talk = if midway { Talk::midway() } else { Talk::new() };
        let mut sent = Vec::new();
        for (client, bytes, kind, len) in events {
            let side = if client { Side::Client } else { Side::Server };
            match kind {
                0 => { talk.miss(side, len, None); }
                1 => { talk.miss(side, len, Some("ring_full")); }
                2 => { talk.quiet(); }
                _ => {
                    if client {
                        sent.extend_from_slice(&bytes);
                    }
                    talk.send(side, bytes);
                }
            }
            prop_assert!(talk.http.held() < 64 << 10, "{} bytes held", talk.http.held());
        }
        let close = [Close::Gone, Close::Reset(None), Close::Fin(Side::Server), Close::Fin(Side::Client)][end];
        talk.end(close).end(Close::Gone);
        let lines = sent.windows(8).filter(|window| *window == b" HTTP/1.").count();
        prop_assert!(talk.calls.len() <= lines, "{} calls from {lines} request lines", talk.calls.len());
        prop_assert!(talk.calls.iter().all(|call| call.end != End::InFlight));
    }

    #[test]
    fn both_ways_to_read_a_head_read_the_same(bytes in prop_oneof![junk(), pair().prop_map(|pair| pair.request().into()), pair().prop_map(|pair| pair.response().into())], cuts in vec(any::<Index>(), 0..4)) {
        for side in [Side::Client, Side::Server] {
            let Some(at_once) = head::at_once(side, &bytes, Stamp::default()) else { continue };
            let mut scanner = Scanner::new(side);
            let mut taken = 0;
            for piece in cut(&bytes, &cuts).into_iter().filter(|piece| !piece.is_empty()) {
                match scanner.push(piece, Stamp::default()) {
                    Scanned::More => taken += piece.len(),
                    Scanned::Whole(took) => {
                        taken += took;
                        break;
                    }
                    Scanned::Invalid => prop_assert!(false, "refused"),
                }
            }
            let whole = scanner.into_head(false).unwrap();
            prop_assert_eq!((&whole.start, &whole.fields), (&at_once.start, &at_once.fields));
            // Empty lines before a head are the caller's to skip.
            if !bytes.starts_with(b"\r") && !bytes.starts_with(b"\n") {
                prop_assert_eq!((whole.wire, taken as u64), (at_once.wire, at_once.wire));
            }
        }
    }

    #[test]
    fn a_start_that_is_certain_is_a_start(bytes in junk()) {
        if line::starts_request(&bytes) {
            let mut talk = Talk::new();
            talk.c(&bytes).end(Close::Gone);
            prop_assert!(!talk.calls.is_empty());
        }
    }
}
