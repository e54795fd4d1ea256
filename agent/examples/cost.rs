//! What an exchange costs in the parser and in the redactor, without the kernel: `cargo run --release --example cost`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use weir::model::{Call, Connection, Exchange, Ids, Kind, Operation, Role, Service, Thread, Verdict};
use weir::proto::http1::Http1;
use weir::proto::{Chunk, Parser, Side};
use weir::redact::{BadTemplate, Redactor, Settings};

const REQUEST: &[u8] =
    b"GET /orders/17?page=2 HTTP/1.1\r\nHost: shop.test:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Type: text/html\r\n\
    Content-Length: 5\r\nLast-Modified: Mon, 23 Nov 2026 09:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"6740f5d0-5\"\r\n\r\nhello";
/// Exchanges a round; rounds.
const EXCHANGES: u32 = 100_000;
const ROUNDS: usize = 15;

fn exchange(http: &mut Http1, calls: &mut Vec<Call>) {
    for (side, bytes) in [(Side::Client, REQUEST), (Side::Server, RESPONSE)] {
        http.feed(Chunk { side, at: 1, seq: 1, bytes: black_box(bytes), by: Thread::default() }, calls);
    }
}

/// Median of the rounds, nanoseconds an exchange.
fn measure(name: &str, mut round: impl FnMut()) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            round();
            began.elapsed().as_nanos() as f64 / f64::from(EXCHANGES)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let at = |share: usize| rounds.get(ROUNDS * share / 100).copied().unwrap_or_default();
    println!("{name:<28}{:>8.0} ns   ({:.0} to {:.0})", at(50), at(10), at(90));
}

fn main() -> Result<(), BadTemplate> {
    let mut http = Http1::new(false);
    let mut calls = Vec::with_capacity(4);
    measure("http1: request and response", || {
        for _ in 0..EXCHANGES {
            exchange(&mut http, &mut calls);
            black_box(&calls);
            calls.clear();
        }
    });
    let redactor = Redactor::new(&Settings::default())?;
    let connection = Arc::new(Connection {
        cookie: 1,
        local: ([10, 1, 0, 2], 8080).into(),
        remote: ([10, 1, 0, 7], 51234).into(),
        role: Role::Server,
        owner: weir_common::conn::Owner::default(),
        netns: 0,
        opened_at: 0,
        midway: false,
    });
    exchange(&mut http, &mut calls);
    let mut all: Vec<Exchange> = calls
        .drain(..)
        .map(|call| Exchange {
            ids: Ids::default(),
            kind: Kind::Server,
            call,
            connection: Arc::clone(&connection),
            by: Thread::default(),
            service: Arc::new(Service::unknown()),
            mirror: None,
            elsewhere: false,
            peer: None,
            via: None,
            client: None,
            start_unix_ns: 0,
            verdict: Verdict::Allowed,
        })
        .collect();
    measure("redact: a target seen before", || {
        for exchange in &mut all {
            for _ in 0..EXCHANGES {
                let Operation::Http(http) = &mut exchange.call.operation;
                http.target = black_box("/orders/17?page=2").into();
                redactor.apply(exchange);
                black_box(&exchange);
            }
        }
    });
    Ok(())
}
