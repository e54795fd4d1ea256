//! Servers and clients that use their sockets in unusual ways (`tests/peers/python/odd.py`).

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::NetNs;
use crate::place::{self, Scratch};
use crate::process::{self, Process};
use crate::wait;

/// A running server of one mode.
#[derive(Debug)]
pub struct Odd {
    process: Process,
    port: u16,
    log: PathBuf,
    _scratch: Scratch,
}

fn command(netns: Option<&NetNs>) -> Result<Command> {
    let python = place::cached("venv/bin/python")?;
    let mut command = match netns {
        Some(netns) => {
            let mut command = netns.command("env")?;
            command.arg(python);
            command
        }
        None => Command::new(python),
    };
    command.arg(place::sources().join("peers/python/odd.py"));
    Ok(command)
}

impl Odd {
    /// Starts it on a free port of 127.0.0.1 (of the namespace's).
    pub fn start(mode: &str, netns: Option<&NetNs>) -> Result<Self> {
        let scratch = Scratch::new("odd")?;
        let (port, log) = (place::free_port()?, scratch.write("served.log", "")?);
        let mut command = command(netns)?;
        command.args(["server", mode, "127.0.0.1", &port.to_string()]).arg(&log);
        let process = Process::start(command, "odd", &scratch)?;
        let odd = Self { process, port, log, _scratch: scratch };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let limit = Duration::from_secs(5);
        let listening = match netns {
            Some(netns) => netns.inside(|| wait::listening(address, limit)),
            None => wait::listening(address, limit),
        };
        listening.with_context(|| odd.process.output().unwrap_or_default())?;
        Ok(odd)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Which process answered which path.
    pub fn served(&self) -> Result<BTreeMap<String, u32>> {
        let text = fs::read_to_string(&self.log)?;
        let lines = text.lines().map(|line| {
            let (path, pid) = line.split_once(' ').with_context(|| format!("the line {line:?}"))?;
            Ok((path.to_owned(), pid.parse()?))
        });
        lines.collect()
    }
}

/// Runs a client of one mode: `count` requests `GET /MODE/I`, a connection each.
pub fn ask(mode: &str, port: u16, count: u32, netns: Option<&NetNs>) -> Result<()> {
    let mut command = command(netns)?;
    command.args(["client", mode, "127.0.0.1", &port.to_string(), &count.to_string()]);
    let lines = process::run(&mut command, Duration::from_secs(30))?;
    let expected: Vec<String> =
        (0..count).map(|i| format!("/{mode}/{i}")).map(|path| format!("{path} {}", path.len() * 100)).collect();
    crate::truth::same("what the client got", &lines.lines().map(str::to_owned).collect::<Vec<_>>(), &expected)
}
