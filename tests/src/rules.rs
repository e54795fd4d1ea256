//! Drop rules that are carried out.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::agent::Agent;
use crate::wire::Wire;

/// An agent on a node that enforces.
pub fn enforcing(settings: &[&str]) -> Result<Agent> {
    let agent = Agent::start(settings)?;
    let said = agent.say(&["mode", "enforce"])?;
    ensure!(said.code == 0, "{}", said.err);
    Ok(agent)
}

/// Adds a rule that is enforced, although loopback is on the allow-list.
pub fn rule(agent: &Agent, id: &str, arguments: &[&str]) -> Result<()> {
    let fixed = ["block", "add", "--reason", "a test", "--force", "--mode", "enforce", "--id", id];
    let said = agent.say(&[&fixed, arguments].concat())?;
    ensure!(said.code == 0, "{arguments:?}: {}", said.err);
    Ok(())
}

/// Until a client must know that its request was refused.
const SOON: Duration = Duration::from_secs(5);

/// What was sent last is refused: the connection ends without an answer, and its client is not left waiting for that.
pub fn refused(wire: &mut Wire) -> Result<()> {
    let start = Instant::now();
    if let Ok(answer) = wire.answer("GET") {
        bail!("it was answered: {}", answer.start());
    }
    ensure!(start.elapsed() < SOON, "its client waited for {:?}", start.elapsed());
    Ok(())
}
