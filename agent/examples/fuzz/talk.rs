//! HTTP/1 conversations: valid by construction, then spoiled.

use weir::proto::Side;

use crate::random::Random;

const METHODS: &[&str] = &["GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PROPFIND", "BREW", "get"];
const TARGETS: &[&str] = &[
    "/",
    "/orders/17?x=y",
    "*",
    "http://u:p@host.test/a",
    "/a%20b",
    "/%ff",
    "/v1/users/550e8400-e29b-41d4-a716-446655440000",
];
const FIELDS: &[&str] = &[
    "Host: a.test\r\n",
    "User-Agent: curl/8\r\n",
    "Accept: */*\r\n",
    "X-Fold: a\r\n b\r\n",
    "Bad line\r\n",
    "Connection: close\r\n",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    "Cookie: a=b\n",
    "Upgrade: websocket\r\n",
    "Expect: 200-ok\r\n",
];
const INSIDE: &[&str] = &[
    "hello",
    "GET / HTTP/1.1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
    "0\r\n\r\n",
    "\r\n0\r\n\r\n",
    "\0\0",
];

/// Put into bytes to spoil them.
pub(crate) const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b" ",
    b"\t",
    b":",
    b"0\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"HTTP/1.1",
    b" HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 X\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"ffffffffffffffff\r\n",
    b"Expect: 100-continue\r\n",
    b"PROXY TCP4 1 2 3 4\r\n",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"-1",
    b"\0",
    b"\xff",
];

/// A conversation: who sends what, in order.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// Alternating turns; the bytes of all of them, one after the other.
    pub(crate) turns: Vec<(Side, Vec<u8>)>,
    /// Calls that it is, where it was not spoiled.
    pub(crate) calls: usize,
}

/// A conversation of 1 to 4 requests with their responses, some of them pipelined.
pub(crate) fn valid(random: &mut Random) -> Talk {
    let mut talk = Talk::default();
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for _ in 0..=random.below(4) {
        let method = random.pick(METHODS);
        request(random, method, &mut requests);
        response(random, method, &mut responses);
        talk.calls += 1;
        if random.one_in(2) {
            talk.turns.push((Side::Client, std::mem::take(&mut requests)));
            talk.turns.push((Side::Server, std::mem::take(&mut responses)));
        }
    }
    talk.turns.push((Side::Client, requests));
    talk.turns.push((Side::Server, responses));
    talk
}

fn request(random: &mut Random, method: &str, to: &mut Vec<u8>) {
    let version = if random.one_in(8) { "0" } else { "1" };
    for part in [method, " ", random.pick(TARGETS), " HTTP/1.", version, "\r\n"] {
        to.extend_from_slice(part.as_bytes());
    }
    fields(random, to);
    if random.one_in(3) {
        body(random, to);
    } else {
        to.extend_from_slice(b"\r\n");
    }
}

fn response(random: &mut Random, method: &str, to: &mut Vec<u8>) {
    if random.one_in(6) {
        to.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
    }
    let empty = random.one_in(5);
    to.extend_from_slice(if empty { b"HTTP/1.1 304 Not Modified\r\n" } else { b"HTTP/1.1 200 OK\r\n" });
    fields(random, to);
    if empty || method == "HEAD" {
        to.extend_from_slice(b"Content-Length: 1000\r\n\r\n");
    } else {
        body(random, to);
    }
}

fn fields(random: &mut Random, to: &mut Vec<u8>) {
    for _ in 0..random.below(5) {
        to.extend_from_slice(random.pick(FIELDS).as_bytes());
    }
}

/// The framing field, the empty line and the body.
fn body(random: &mut Random, to: &mut Vec<u8>) {
    let mut content = Vec::new();
    for _ in 0..random.below(4) {
        content.extend_from_slice(random.pick(INSIDE).as_bytes());
    }
    if random.one_in(2) {
        to.extend_from_slice(format!("Content-Length: {}\r\n\r\n", content.len()).as_bytes());
        to.extend_from_slice(&content);
        return;
    }
    to.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let size = 1 + random.below(40);
    for chunk in content.chunks(size) {
        to.extend_from_slice(format!("{:x}{}\r\n", chunk.len(), random.pick(&["", ";a=b", " "])).as_bytes());
        to.extend_from_slice(chunk);
        to.extend_from_slice(b"\r\n");
    }
    to.extend_from_slice(random.pick(&["0\r\n\r\n", "0\r\nTrailer: x\r\n\r\n", "000\n\n"]).as_bytes());
}
