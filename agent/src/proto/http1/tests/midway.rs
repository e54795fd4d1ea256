//! Conversations that are joined in the middle, as the kernel half hands them over: from a message on that starts where
//! the direction turns (`agent-ebpf/src/hooks/cgroup_skb.rs`). What is told is right, whatever is missing.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::proto::{Close, Side};

use super::super::line;
use super::Talk;
use super::properties::{Pair, cut, pair};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// What the kernel half knows of a connection that is older than the agent.
#[derive(Default)]
struct Kernel {
    last: Option<Side>,
    heads: bool,
    confirmed: bool,
}

impl Kernel {
    /// Whether a segment is handed over.
    fn hands(&mut self, side: Side, bytes: &[u8]) -> bool {
        let behind = self.last == Some(side);
        let (status, told) = (b"HTTP/".starts_with(&bytes[..bytes.len().min(5)]), bytes.len() > 4);
        let first = self.last.is_none();
        self.last = Some(side);
        if !self.heads {
            let text = std::str::from_utf8(&bytes[..bytes.len().min(16)]).unwrap_or_default();
            let request = text.split_once(' ').is_some_and(|(method, rest)| {
                let usual = matches!(method, "GET" | "HEAD" | "POST" | "OPTIONS");
                !method.is_empty()
                    && method.bytes().all(|byte| byte.is_ascii_graphic() && !b"(),/:;<=>?@[\\]{}\"".contains(&byte))
                    && rest.bytes().next().is_some_and(|byte| byte.is_ascii_graphic())
                    && (usual || !first)
            });
            match side {
                _ if behind => {}
                Side::Server if status && told => (self.heads, self.confirmed) = (true, true),
                Side::Client if request => self.heads = true,
                _ => {}
            }
            return self.heads;
        }
        if self.confirmed || side == Side::Client {
            return true;
        }
        if status {
            self.confirmed = told;
        } else if !behind {
            self.heads = false;
        }
        self.heads
    }
}

/// Groups of pipelined requests, each answered before the next; every segment has a side.
fn segments(pairs: &[Pair], groups: &[usize], c: &[Index], s: &[Index]) -> Vec<(Side, Vec<u8>)> {
    let (mut rest, mut groups, mut out) = (pairs, groups.iter().cycle(), Vec::new());
    while !rest.is_empty() {
        let (group, after) = rest.split_at((*groups.next().unwrap()).min(rest.len()));
        let requests: String = group.iter().map(Pair::request).collect();
        let responses: String = group.iter().map(Pair::response).collect();
        for (side, bytes, cuts) in [(Side::Client, requests, c), (Side::Server, responses, s)] {
            let pieces = cut(bytes.as_bytes(), cuts).into_iter().filter(|piece| !piece.is_empty());
            out.extend(pieces.map(|piece| (side, piece.to_vec())));
        }
        rest = after;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_of_a_conversation_joined_midway_is_right(
        pairs in vec(pair(), 1..8), groups in vec(1_usize..4, 1..4),
        c in vec(any::<Index>(), 0..12), s in vec(any::<Index>(), 0..12), from in any::<Index>(),
    ) {
        let mut pairs = pairs;
        for (nth, pair) in pairs.iter_mut().enumerate() {
            pair.target = format!("/{nth}");
        }
        let told: Vec<_> = pairs.iter().map(Pair::told).collect();
        let segments = segments(&pairs, &groups, &c, &s);
        let (mut talk, mut kernel) = (Talk::midway(), Kernel::default());
        let from = from.index(segments.len());
        // A body that reads like a request is one to who has seen nothing before it.
        let (side, first) = &segments[from];
        let at_start = pairs.iter().any(|pair| first.starts_with(format!("{} {} ", pair.method, pair.target).as_bytes()));
        prop_assume!(*side == Side::Server || at_start || !Kernel::default().hands(*side, first));
        for (side, bytes) in &segments[from..] {
            if kernel.hands(*side, bytes) {
                talk.send(*side, bytes);
            }
        }
        talk.end(Close::Fin(Side::Client)).end(Close::Gone);
        for line in talk.told() {
            let lost = |told: &String| {
                let start = |text: &str| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
                line.contains("lost(") && start(told) == start(&line)
            };
            let shown = || segments.iter().map(|(side, bytes)| format!("{side:?} {:?}", String::from_utf8_lossy(bytes))).collect::<Vec<_>>();
            prop_assert!(told.iter().any(|told| *told == line || lost(told)), "{line}\nof {told:#?}\nfrom {from} of {:#?}", shown());
        }
    }
}

#[test]
fn what_follows_the_start_of_a_method_is_no_method() {
    assert!(line::starts_request(b"ST /b HTTP/1.1\r\n"));
    let mut talk = Talk::midway();
    talk.s("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").c("PO").c("ST /b HTTP/1.1\r\n\r\n").s(OK);
    talk.c("GET /c HTTP/1.1\r\n\r\n").s(OK);
    assert!(talk.told().iter().all(|line| !line.starts_with("ST ")), "{:?}", talk.told());
    assert!(talk.told().iter().any(|line| line.starts_with("GET /c 200 ")), "{:?}", talk.told());
}
