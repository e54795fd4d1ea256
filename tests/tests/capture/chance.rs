//! A3, A4, A6: conversations put together by chance: any framing behind any other, pipelined or not, cut anywhere, with
//! answers while the next request is under way. What they are is written down as they are made.

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::script::{Case, Expected, Turn, client, play, server};
use weir_tests::truth::{Row, Sides};

/// Conversations; each has its own seed, which failures name.
const CONVERSATIONS: u64 = 150;
/// Seeds of conversations that were told wrong once: answers given to the request behind theirs.
const ONCE_WRONG: [u64; 4] = [230, 600, 724, 1766];
/// Calls of one conversation at most.
const CALLS: u64 = 12;

/// Numbers by chance (splitmix64): the same for the same seed on every machine.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy, const N: usize>(&mut self, list: [T; N]) -> T {
        list[self.below(N as u64) as usize]
    }

    /// A body that looks like messages, digits or line ends.
    fn body(&mut self) -> Vec<u8> {
        let size = match self.below(8) {
            0 => 0,
            1 => 1,
            2..=5 => self.below(600),
            6 => self.below(5000),
            _ => self.below(20_000),
        };
        let text = self.of([
            "GET /phantom HTTP/1.1\r\nHost: phantom\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "\r\n0\r\n\r\n",
            "0123456789",
            "\r\n\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nPOST /phantom HTTP/1.0\n\n",
        ]);
        text.bytes().cycle().skip(self.below(40) as usize).take(size as usize).collect()
    }

    fn chunked(&mut self, body: &[u8]) -> Vec<u8> {
        let extension = self.of(["", "", ";a", ";a=b;c=\"0\""]);
        let trailers = self.of(["", "", "X-Sum: 1\r\n", "GET: / HTTP/1.1\r\nX: y\r\n"]);
        let piece = 1 + self.below(3000) as usize;
        let mut out = Vec::new();
        for chunk in body.chunks(piece) {
            out.extend(format!("{:X}{extension}\r\n", chunk.len()).into_bytes());
            out.extend(chunk);
            out.extend(b"\r\n");
        }
        out.extend(format!("{}{extension}\r\n{trailers}\r\n", self.of(["0", "000"])).into_bytes());
        out
    }

    fn fields(&mut self) -> String {
        let filler = |count: u64| "f".repeat(count as usize);
        let count = self.of([0, 0, 1, 2, 9]);
        (0..count).map(|at| format!("X-{at}: {}\r\n", filler(self.below(300)))).collect::<Vec<_>>().concat()
    }

    /// Cuts bytes into segments.
    fn cut(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let most = self.of([usize::MAX, usize::MAX, 5000, 200, 40, 3]);
        let mut rest = bytes;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let size = if most == usize::MAX { rest.len() } else { 1 + self.below(most as u64) as usize };
            // Few small ones: a conversation of thousands of segments shows nothing that one of hundreds does not.
            let size = if pieces.len() > 100 { rest.len() } else { size.min(rest.len()) };
            let (piece, after) = rest.split_at(size);
            pieces.push(piece.to_vec());
            rest = after;
        }
        pieces
    }

    /// A request and its content's size.
    fn request(&mut self, method: &str, path: &str) -> (Vec<u8>, u64) {
        let (before, line) = (self.of(["", "", "", "\r\n"]), self.of(["\r\n", "\r\n", "\n"]));
        let fields = self.fields();
        let head = format!("{before}{method} {path} HTTP/1.1{line}Host: x\r\n{fields}");
        if matches!(method, "GET" | "HEAD" | "OPTIONS") {
            return (format!("{head}\r\n").into_bytes(), 0);
        }
        let body = self.body();
        let bytes = if self.one_in(2) {
            let chunked = self.chunked(&body);
            [format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes(), &chunked].concat()
        } else {
            [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
        };
        (bytes, body.len() as u64)
    }

    /// Interim responses, and a final one with status and content's size.
    fn response(&mut self, method: &str) -> (Vec<u8>, Vec<u8>, u16, u64) {
        let interim =
            self.of(["", "", "", "HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n"]);
        let status = self.of([200, 200, 201, 204, 206, 301, 304, 404, 418, 500, 503]);
        let head = format!("HTTP/1.1 {status} Some reason\r\n{}", self.fields());
        let body = self.body();
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        let (bytes, size) = if status == 204 {
            (format!("{head}\r\n").into_bytes(), 0)
        } else if method == "HEAD" || status == 304 {
            (format!("{head}{length}").into_bytes(), 0)
        } else if self.one_in(2) {
            let chunked = self.chunked(&body);
            ([format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes(), &chunked].concat(), body.len() as u64)
        } else {
            ([format!("{head}{length}").as_bytes(), &body].concat(), body.len() as u64)
        };
        (interim.as_bytes().to_vec(), bytes, status, size)
    }

    /// A conversation: batches of requests with their answers; where `early`, an answer sometimes while the next batch is
    /// being sent.
    pub(super) fn conversation(&mut self, seed: u64, early: bool) -> Case {
        let mut case = Case::none(&format!("seed {seed}"), Vec::new());
        let deep = self.one_in(2);
        let total = 1 + self.below(CALLS);
        let mut at = 0;
        let mut unanswered: Vec<Vec<u8>> = Vec::new();
        while at < total {
            let depth = (if deep { 1 + self.below(5) } else { 1 }).min(total - at);
            let mut requests = Vec::new();
            let mut answers = Vec::new();
            for _ in 0..depth {
                let (method, path) =
                    (self.of(["GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "BREW"]), format!("/c/{at}"));
                let (request, sent) = self.request(method, &path);
                let (interim, response, status, size) = self.response(method);
                let empty = request.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                case.calls.push(Expected {
                    row: Row::new(method, &path, status, sent, size),
                    request_wire: (request.len() - empty) as u64,
                    response_wire: response.len() as u64,
                });
                requests.extend(request);
                answers.extend(interim);
                answers.extend(response);
                at += 1;
            }
            let pieces = self.cut(&requests);
            // What the last batch is still owed comes somewhere among this one's segments.
            let when = self.below(pieces.len() as u64) as usize;
            for (nth, piece) in pieces.into_iter().enumerate() {
                if nth == when {
                    case.turns.extend(unanswered.drain(..).map(server));
                }
                case.turns.push(client(piece));
            }
            let answers = self.cut(&answers);
            let late = early && deep && at < total && self.one_in(3);
            if late {
                unanswered = answers;
            } else {
                case.turns.extend(answers.into_iter().map(server));
            }
        }
        case
    }
}

#[test]
fn a4_conversations_by_chance() -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let from = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut played = Vec::new();
    for seed in (from..from + CONVERSATIONS).chain(ONCE_WRONG) {
        let case = Chance(seed).conversation(seed, true);
        played.push((play(&case.turns, usize::MAX)?, case));
    }
    let total: usize = played.iter().map(|(_, case)| case.calls.len()).sum();
    let ports: Vec<u16> = played.iter().map(|(port, _)| *port).collect();
    let calls = agent.calls(&ports, 2 * total)?;
    let mut wrong = Vec::new();
    for (port, case) in &played {
        let mut sides = Sides::of(calls.iter().filter(|call| call.server().port() == *port).cloned().collect());
        case.complete(&mut sides.client);
        case.complete(&mut sides.server);
        let checked = case
            .check("client", &sides.client)
            .and_then(|()| case.check("server", &sides.server))
            .and_then(|()| sides.linked());
        let turns = || {
            case.turns.iter().map(|turn| match turn {
                Turn::Client(bytes) => format!("c{}", bytes.len()),
                Turn::Server(bytes) => format!("s{}", bytes.len()),
                other => format!("{other:?}"),
            })
        };
        wrong.extend(checked.err().map(|error| format!("{error:#}\n  {}", turns().collect::<Vec<_>>().join(" "))));
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), played.len(), wrong.join("\n"));
    agent.finish()
}
