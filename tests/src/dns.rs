//! A DNS server: dnsmasq, which answers from what it is told and asks nobody else unless it is told to.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::NetNs;
use crate::place::Scratch;
use crate::process::{self, Process};
use crate::wait;

/// A running dnsmasq.
#[derive(Debug)]
pub struct Dns {
    process: Process,
    _scratch: Scratch,
}

impl Dns {
    /// Starts it inside `at`, listening on port 53 of `address`; `options` are its own (`--host-record=a.test,10.0.0.1`).
    /// `place` may move the command elsewhere, into a cgroup.
    pub fn start(
        at: &NetNs,
        address: &str,
        options: &[&str],
        place: impl FnOnce(std::process::Command) -> std::process::Command,
    ) -> Result<Self> {
        let scratch = Scratch::new("dns")?;
        let mut command = at.command("dnsmasq")?;
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--user=root"]);
        command.args(["--pid-file=", "--bind-interfaces", "--log-facility=-", &format!("--listen-address={address}")]);
        command.args(options);
        let process = Process::start(place(command), "dnsmasq", &scratch)?;
        let dns = Self { process, _scratch: scratch };
        wait::until(Duration::from_secs(10), "a DNS server", || {
            let sockets = process::run(at.command("ss")?.args(["-Hlnu"]), Duration::from_secs(5))?;
            Ok(sockets.contains(&format!("{address}:53")).then_some(()))
        })
        .with_context(|| dns.process.output().unwrap_or_default())?;
        Ok(dns)
    }
}
