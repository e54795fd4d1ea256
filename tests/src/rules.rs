//! Drop rules that are carried out.

use anyhow::{Result, ensure};

use crate::agent::Agent;

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
