//! How fast processes are named: `lookups PID` names every child of PID, then all of them again and again. Prints JSON:
//! look-ups a second at first and again, and how often `/proc` was read up to the first and up to the last one.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use weir::clock::monotonic_ns;
use weir::identity::{Resolver, Settings};
use weir::model::{Connection, Role};
use weir_common::conn::{Known, Owner};

/// Rounds over all processes, beyond the first.
const ROUNDS: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).ok_or("usage: lookups PID")?;
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let pids: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    let connection = |tgid: u32| {
        let owner = Owner { tgid, tid: tgid, known: Known::SENDER.0, ..Owner::default() };
        Arc::new(Connection {
            cookie: u64::from(tgid),
            local: ([10, 1, 0, 2], 8080).into(),
            remote: ([10, 1, 0, 7], 51234).into(),
            role: Role::Server,
            owner,
            netns: 0,
            opened_at: 0,
            midway: false,
        })
    };
    let connections: Vec<_> = pids.into_iter().map(connection).collect();
    let mut resolver = Resolver::new(Settings::default())?;
    let mut round = || {
        let begin = Instant::now();
        for connection in &connections {
            black_box(resolver.at_end_of(connection, monotonic_ns()));
        }
        (begin.elapsed().as_secs_f64(), resolver.counts())
    };
    let (first, counts) = round();
    let rest: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    let again: f64 = rest.iter().map(|(seconds, _)| seconds).sum();
    let last = rest.last().map_or(counts, |(_, counts)| *counts);
    let number = connections.len() as f64;
    println!(
        "{{\"processes\":{number},\"named\":{},\"first\":{},\"again\":{},\"read_first\":{},\"read_last\":{}}}",
        last.processes,
        number / first,
        number * ROUNDS as f64 / again,
        counts.read,
        last.read
    );
    Ok(())
}
