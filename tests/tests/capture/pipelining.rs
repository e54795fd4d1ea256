//! A3: pipelining: order kept, each response with its own request.

use anyhow::{Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::call::Call;
use weir_tests::peers::nginx::{Nginx, STATUSES};
use weir_tests::script::{self, Case, Turn, client, server};
use weir_tests::truth::{Row, Sides};
use weir_tests::wire::Wire;

const DEPTHS: [usize; 4] = [1, 2, 16, 100];

/// Starts and first response bytes never go back along a connection.
fn monotone(calls: &[Call]) -> Result<()> {
    for pair in calls.windows(2) {
        let (Some(before), Some(after)) = (pair.first(), pair.get(1)) else { continue };
        let answered =
            |call: &Call| Ok::<_, anyhow::Error>(call.start_ns()? + call.time_to_first_byte_ns.unwrap_or_default());
        ensure!(before.start_ns()? <= after.start_ns()?, "starts go back:\n{before:?}\n{after:?}");
        ensure!(answered(before)? <= answered(after)?, "answers go back:\n{before:?}\n{after:?}");
    }
    for call in calls {
        ensure!(call.time_to_first_byte_ns.is_some_and(|first| first <= call.duration_ns), "{call:?}");
    }
    Ok(())
}

#[test]
fn a3_nginx_answers_in_order() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut truth = Vec::new();
    for depth in DEPTHS {
        for size in [usize::MAX, 7, 1] {
            let mut wire = Wire::connect(nginx.address())?;
            let statuses: Vec<u16> = STATUSES.into_iter().cycle().take(depth).collect();
            let requests: String = statuses
                .iter()
                .map(|status| format!("GET /s/{status} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .collect::<Vec<_>>()
                .concat();
            wire.send_by(size, requests)?;
            let mut rows = Vec::new();
            for status in statuses {
                let answer = wire.answer("GET")?;
                ensure!(answer.status()? == status);
                rows.push(Row::new("GET", &format!("/s/{status}"), status, 0, answer.body.len() as u64));
            }
            truth.push((wire.port()?, rows));
        }
    }
    let total: usize = truth.iter().map(|(_, rows)| rows.len()).sum();
    let calls = agent.calls(&[nginx.port()], 2 * total)?;
    for (port, rows) in &truth {
        let sides = Sides::of(calls.iter().filter(|call| call.client().port() == *port).cloned().collect());
        sides.are(rows)?;
        monotone(&sides.client)?;
        monotone(&sides.server)?;
    }
    assert_eq!(calls.len(), 2 * total);
    agent.finish()
}

/// `depth` requests at once, then `depth` answers at once.
fn conversation(depth: usize) -> Case {
    filled(depth, 0, 0)
}

/// The same with heads that have a field of `field` bytes more, and bodies of requests that have `body` bytes more.
fn filled(depth: usize, field: usize, body: usize) -> Case {
    let more = if field > 0 { format!("Cookie: {}\r\n", "c".repeat(field)) } else { String::new() };
    let step = |at: usize| {
        let body = "b".repeat(body + at % 5);
        let (request, row) = if at.is_multiple_of(3) {
            (format!("POST /p/{at} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len()), "POST")
        } else {
            (format!("GET /p/{at} HTTP/1.1\r\nHost: x\r\n{more}\r\n"), "GET")
        };
        let sent = if row == "POST" { body.len() as u64 } else { 0 };
        let status = 200 + (at % 7) as u16;
        // 204 and 205 stand for themselves: only 204 has no body by rule.
        let answer = if status == 204 {
            "HTTP/1.1 204 No\r\n\r\n".to_owned()
        } else if at.is_multiple_of(4) {
            format!("HTTP/1.1 {status} Ok\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{at:02}\r\n0\r\n\r\n")
        } else {
            format!("HTTP/1.1 {status} Ok\r\nContent-Length: 3\r\n\r\nabc")
        };
        let size = if status == 204 {
            0
        } else if at.is_multiple_of(4) {
            2
        } else {
            3
        };
        Case::one("", request, answer, Row::new(row, &format!("/p/{at}"), status, sent, size))
    };
    let steps: Vec<Case> = (0..depth).map(|at| step(at % 100)).collect();
    let mut joined = Case::joined(&format!("{depth} deep"), steps);
    let (mut requests, mut answers) = (Vec::new(), Vec::new());
    for turn in joined.turns {
        match turn {
            Turn::Client(bytes) => requests.extend(bytes),
            Turn::Server(bytes) => answers.extend(bytes),
            _ => {}
        }
    }
    joined.turns = vec![client(requests), server(answers)];
    joined
}

#[test]
fn a3_answers_in_one_segment_and_byte_by_byte() -> Result<()> {
    let agent = Agent::start(&["privacy.level=standard"])?;
    let mut played = Vec::new();
    for depth in DEPTHS {
        for size in [usize::MAX, 1000, 7, 1] {
            let case = conversation(depth);
            played.push((script::play(&case.turns, size)?, size, case));
        }
    }
    // As much in one segment as a segment of loopback holds.
    for (depth, field, body) in [(16, 600, 0), (100, 400, 0), (100, 550, 0), (16, 100, 5000), (3, 0, 20_000)] {
        let mut case = filled(depth, field, body);
        case.name = format!("{}, fields of {field}, bodies of {body}", case.name);
        for size in [usize::MAX, 30_000] {
            played.push((script::play(&case.turns, size)?, size, case.clone()));
        }
    }
    let total: usize = played.iter().map(|(.., case)| case.calls.len()).sum();
    let ports: Vec<u16> = played.iter().map(|(port, ..)| *port).collect();
    let calls = agent.calls(&ports, 2 * total)?;
    for (port, size, case) in &played {
        let sides = Sides::of(calls.iter().filter(|call| call.server().port() == *port).cloned().collect());
        case.check(&format!("client, pieces of {size}"), &sides.client)?;
        case.check(&format!("server, pieces of {size}"), &sides.server)?;
        sides.linked()?;
        monotone(&sides.client)?;
        monotone(&sides.server)?;
    }
    agent.finish()
}
