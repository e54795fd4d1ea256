//! The agent's memory: of the process, and of its maps in the kernel.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result};
use weir_tests::{
    agent::Agent,
    ledger::count,
    place::{self, Scratch},
};

use super::{
    load,
    sample::Samples,
    variant::{Collector, Variant},
};

/// Bytes in a mebibyte.
const MIB: f64 = 1_048_576.0;

/// Recent calls kept meanwhile, MiB: by default the store alone may take as much as the whole budget.
pub(crate) const STORE: u32 = 16;

/// What 10 000 connections with 10 000 requests a second take.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Highest resident size until the agent was ready, MiB.
    pub(crate) start: f64,
    /// Resident size under the load every half second, MiB. The budget is for the highest.
    pub(crate) load: Samples,
    /// Memory of its maps, MiB.
    pub(crate) maps: f64,
    /// Requests a second that were answered.
    pub(crate) per_second: f64,
    /// Messages lost.
    pub(crate) lost: u64,
}

/// Measures it once.
pub(crate) fn measure(time: Duration, collector: &Collector) -> Result<Memory> {
    let server = load::server(false)?;
    let mut settings = Variant::Sampled.settings(collector).unwrap_or_default();
    settings.push(format!("recent.memory={STORE}MiB"));
    let agent = Agent::start(&settings.iter().map(String::as_str).collect::<Vec<_>>())?;
    let start = status(agent.pid(), "VmHWM:")?;
    let scratch = Scratch::new("connections")?;
    let running = load::many_connections(server.address(), time, &scratch)?;
    let mut load = Samples::default();
    for _ in 0..time.as_secs() * 2 {
        thread::sleep(Duration::from_millis(500));
        load.push(place::resident(agent.pid())? as f64 / MIB);
    }
    let maps = place::map_memory(agent.pid())? as f64 / MIB;
    let requests = load::many_done(running, time)?;
    let lost = count(agent.page()?.sum("weir_messages_total", &[("stage", "lost")]));
    Ok(Memory { start, load, maps, per_second: requests as f64 / time.as_secs_f64(), lost })
}

/// A line of `/proc/PID/status` in MiB.
pub(crate) fn status(pid: u32, name: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kilobytes =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kilobytes.with_context(|| format!("no {name} in {path}"))? / 1024.0)
}
