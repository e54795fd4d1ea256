//! Bulk bytes over a cable between two network namespaces, both ends observed.

use std::time::Duration;

use anyhow::Result;
use weir_tests::{agent::Agent, peers::bulk::Bulk};

use super::{
    sample::Samples,
    table::{Budget, Report, Row},
    variant::{Collector, Variant},
};

/// Each round measures without the agent, with it, and without it again, so that a drift of the machine falls on both.
pub(crate) fn rows(rounds: u32, time: Duration, collector: &Collector, report: &mut Report) -> Result<()> {
    let bulk = Bulk::start()?;
    let (mut bare, mut ratio, mut noise) = (Samples::default(), Samples::default(), Samples::default());
    let settings = Variant::Sampled.settings(collector).unwrap_or_default();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut before = bulk.send(time)?;
    for round in 0..rounds {
        let with = {
            let _agent = Agent::start(&settings)?;
            bulk.send(time)?
        };
        let after = bulk.send(time)?;
        eprintln!(
            "bench: round {} of {rounds}: bulk: {:.1} and {:.1} Gbit/s without, {:.1} with",
            round + 1,
            before / 1e9,
            after / 1e9,
            with / 1e9
        );
        let mean = f64::midpoint(before, after);
        bare.push(mean / 1e9);
        ratio.push(with / mean);
        noise.push(after / before);
        before = after;
    }
    report.rows.push(Row::new("bulk by iperf3 over a cable, nothing attached", "Gbit/s", bare, None));
    let (least, greatest) = noise.spread().unwrap_or_default();
    let differ = format!(
        "two runs with nothing attached differ by {least:.2} to {greatest:.2}, and every segment of a connection that nobody reads is still looked up"
    );
    report.rows.push(Row::new("bulk, the next run / the one before, nothing attached in both", "", noise, None));
    let name = format!("bulk, {} / nothing attached", Variant::Sampled.name());
    let row = Row::new(&name, "", ratio, Some(Budget::AtLeast(0.97)));
    report.rows.push(row.because(differ));
    Ok(())
}
