//! A13: bulk bytes beside the calls: no call comes of them, and they flow as fast as without the agent.

use anyhow::{Context, Result, ensure};
use weir_tests::agent::Agent;
use weir_tests::peers::bulk::Bulk;

/// Bytes of a measurement.
const SIZE: u64 = 4 << 30;
/// Segments that are handed over of it until the agent has said that it is no HTTP, and what else the machine says
/// meanwhile. Both ends together have 130 000 of 64 KiB.
const FEW: u64 = 20_000;
/// What must be left of the throughput.
const LEAST: f64 = 0.97;
/// Rounds that are always measured, and how many there may be where the machine is restless.
const ROUNDS: std::ops::RangeInclusive<usize> = 4..=12;

/// Between two measurements without an agent, one with it: what it leaves of their mean, and how far they are apart.
struct Round {
    ratio: f64,
    noise: f64,
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(*values.get(low)?, *values.get(high)?))
}

/// One measurement without an agent. Nobody else's test has one meanwhile.
fn bare(bulk: &Bulk) -> Result<f64> {
    let _place = Agent::none()?;
    bulk.send_bytes(SIZE)
}

fn observed(bulk: &Bulk) -> Result<f64> {
    let agent = Agent::start(&[])?;
    let figure = bulk.send_bytes(SIZE)?;
    let calls = agent.calls(&[bulk.port()], 0)?;
    ensure!(calls.is_empty(), "{} calls: {calls:#?}", calls.len());
    let ledger = agent.ledger()?;
    ensure!(ledger.seen < FEW, "the kernel half went on watching: {ledger:?}");
    agent.finish()?;
    Ok(figure)
}

/// A B A B A …: each B is compared with the A before and the A after it. The median of the rounds must not fall below
/// [`LEAST`] by more than the two A of a round are apart themselves, which is the machine's own noise, as a median
/// too; more rounds are measured while it does. The exact figure is `cargo xtask bench bulk`'s.
#[test]
fn a13_bulk_over_a_cable_is_not_slowed() -> Result<()> {
    let bulk = Bulk::start()?;
    let mut rounds: Vec<Round> = Vec::new();
    let mut before = bare(&bulk)?;
    for count in 1..=*ROUNDS.end() {
        let with = observed(&bulk)?;
        let after = bare(&bulk)?;
        let mean = f64::midpoint(before, after);
        rounds.push(Round { ratio: with / mean, noise: (before - after).abs() / mean });
        println!("{:.1} and {:.1} Gbit/s without, {:.1} with", before / 1e9, after / 1e9, with / 1e9);
        before = after;
        let ratio = median(rounds.iter().map(|round| round.ratio)).context("no round")?;
        let noise = median(rounds.iter().map(|round| round.noise)).context("no round")?;
        println!("round {count}: bulk with / without {ratio:.3} (median), noise {noise:.3}");
        if ROUNDS.contains(&count) && ratio >= LEAST - noise {
            return Ok(());
        }
        ensure!(count < *ROUNDS.end(), "{ratio:.3} of the throughput is left, {noise:.3} is the machine's own noise");
    }
    Ok(())
}
