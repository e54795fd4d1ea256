//! A10: conversations by chance on connections that are older than the agent, which comes between any two of their
//! segments. It may miss what it has not seen the start of, and must not tell it wrong. Where the direction turns a
//! message starts: no answer comes here while its client is still sending, behind which a body's bytes would follow.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

use anyhow::{Context as _, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::call::Call;
use weir_tests::script::{Case, Turn, play};
use weir_tests::truth::{Row, Sides};

use super::chance::Chance;

/// Conversations; each has its own seed, which failures name.
const CONVERSATIONS: u64 = 60;

/// What each call that one side told is, compared with what it was; gives how many were told whole.
fn compared(case: &Case, side: &str, found: &[Call]) -> Result<usize> {
    let mut whole = 0;
    let mut last = None;
    for call in found {
        let path = call.attributes.path.clone().unwrap_or_default();
        let place = case.calls.iter().position(|call| call.row.path == path);
        let place = place.with_context(|| format!("{}, {side}: no such call: {:?}", case.name, Row::of(call)))?;
        ensure!(last < Some(place), "{}, {side}: {path} again, or late", case.name);
        last = Some(place);
        let truth = Case { calls: vec![case.calls[place].clone()], ..case.clone() };
        let mut told = [call.clone()];
        truth.complete(&mut told);
        let (told, truth) = (Row::of(&told[0]), &case.calls[place].row);
        if told.end == "lost" {
            // Of an answer that was not seen, or not whole.
            let right = told.method == truth.method
                && told.status.is_none_or(|status| Some(status) == truth.status)
                && told.request.is_none_or(|size| Some(size) == truth.request)
                && told.response.is_none_or(|size| Some(size) == truth.response);
            ensure!(right, "{}, {side}: {told:?} was {truth:?}", case.name);
        } else {
            ensure!(told == *truth, "{}, {side}: {told:?} was {truth:?}", case.name);
            whole += 1;
        }
    }
    Ok(whole)
}

/// Length and first bytes of a segment.
fn start(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(70).copied().flat_map(std::ascii::escape_default).map(char::from);
    format!("{}: {}", bytes.len(), shown.collect::<String>())
}

#[test]
fn a10_conversations_older_than_the_agent() -> Result<()> {
    let from = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let conversations = usize::try_from(CONVERSATIONS)?;
    let barrier = Arc::new(Barrier::new(2 * conversations + 1));
    let mut cases = Vec::new();
    for seed in from..from + CONVERSATIONS {
        let mut chance = Chance(seed);
        let mut case = chance.conversation(seed, false);
        let split = chance.below(case.turns.len() as u64 + 1) as usize;
        case.turns.insert(split, Turn::Waits(Arc::clone(&barrier)));
        cases.push((case, split));
    }
    let (agent, ports) = std::thread::scope(|scope| -> Result<_> {
        let playing: Vec<_> = cases.iter().map(|(case, _)| scope.spawn(|| play(&case.turns, usize::MAX))).collect();
        barrier.wait();
        let agent = Agent::start(&["privacy.level=standard"]);
        barrier.wait();
        let ports = playing.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))?);
        let ports = ports.collect::<Result<Vec<u16>>>()?;
        Ok((agent?, ports))
    })?;
    // What comes last is told last.
    let row = Row::new("GET", "/after", 204, 0, 0);
    let after = play(
        &Case::one("after", "GET /after HTTP/1.1\r\n\r\n", "HTTP/1.1 204 No\r\n\r\n", row.clone()).turns,
        usize::MAX,
    )?;
    Sides::of(agent.calls(&[after], 2)?).are(&[row])?;
    let mut calls: BTreeMap<u16, Vec<Call>> = BTreeMap::new();
    for call in agent.calls_now(&ports)? {
        calls.entry(call.server().port()).or_default().push(call);
    }
    let mut wrong = Vec::new();
    let (mut whole, mut of) = (0, 0);
    for (port, (case, split)) in ports.iter().zip(&cases) {
        let sides = Sides::of(calls.remove(port).unwrap_or_default());
        of += 2 * case.calls.len();
        for (side, found) in [("client", &sides.client), ("server", &sides.server)] {
            match compared(case, side, found) {
                Ok(some) => whole += some,
                Err(error) => {
                    let turns = case
                        .turns
                        .iter()
                        .skip(split.saturating_sub(3))
                        .take(if std::env::var("WEIR_LONG").is_ok() { 4000 } else { 9 })
                        .map(|turn| match turn {
                            Turn::Client(bytes) => format!("\n  client {}", start(bytes)),
                            Turn::Server(bytes) => format!("\n  server {}", start(bytes)),
                            _ => "\n  the agent starts".to_owned(),
                        });
                    wrong.push(format!("{error:#}{}", turns.collect::<String>()));
                }
            }
        }
    }
    eprintln!("{whole} of {of} told whole");
    // Half of a conversation lies before the agent on average, and what is cut small may wait for the next turn.
    ensure!(whole * 5 >= of, "only {whole} of {of} told whole");
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    agent.stop_lossy()
}
