//! What it costs a Go client that its goroutines are followed: a probe and a trap for each call that it makes.

use std::time::Duration;

use anyhow::Result;
use weir_tests::{agent::Agent, peers::runtime};

use super::{
    load,
    sample::Samples,
    table::{Report, Row},
};

/// Rows of a saturating Go client, each round with goroutines followed, with calls observed but goroutines not followed,
/// and without an agent. What a call costs more supposes that the client and its server saturate all cores.
pub(crate) fn rows(rounds: u32, time: Duration, report: &mut Report) -> Result<()> {
    let [mut bare, mut ratio, mut more] = [(); 3].map(|()| Samples::default());
    let cores = std::thread::available_parallelism()?.get() as f64;
    let asked = |settings: Option<&str>| -> Result<f64> {
        let server = load::server(false)?;
        let _agent = settings.map(|setting| Agent::start(&["log.level=warn", setting])).transpose()?;
        runtime::go_load(&format!("http://{}/bench", server.address()), time)
    };
    // The client is built before the first figure.
    asked(None)?;
    for round in 0..rounds {
        let alone = asked(None)?;
        let (followed, not) = (asked(Some("traces.go=true"))?, asked(Some("traces.go=false"))?);
        eprintln!(
            "bench: round {} of {rounds}: a Go client: {alone:.0} calls/s without Weir, {followed:.0} with goroutines followed, {not:.0} without",
            round + 1
        );
        bare.push(alone);
        ratio.push(followed / not);
        more.push(cores * (1.0 / followed - 1.0 / not) * 1e6);
    }
    report.rows.push(Row::new("calls of a Go client, nothing attached", "/s", bare, None));
    report.rows.push(Row::new("calls of a Go client, goroutines followed / not followed", "", ratio, None));
    report.rows.push(Row::new(
        "processor time more for each call of a Go client whose goroutines are followed",
        "µs",
        more,
        None,
    ));
    Ok(())
}
