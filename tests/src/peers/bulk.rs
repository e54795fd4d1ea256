//! Bulk bytes by iperf3 from one network namespace to another, over a cable between them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::NetNs;
use crate::place::{self, Scratch};
use crate::process::{self, Process};

/// Where the receiver listens.
const RECEIVER: &str = "10.77.0.2";

/// Two namespaces on one cable with a receiver in one of them.
#[derive(Debug)]
pub struct Bulk {
    sender: NetNs,
    port: u16,
    // In this order: the receiver ends before its namespace goes.
    process: Process,
    _receiver: NetNs,
    _scratch: Scratch,
}

impl Bulk {
    /// Lays the cable and starts the receiver.
    pub fn start() -> Result<Self> {
        let (sender, receiver) = (NetNs::new("sender")?, NetNs::new("receiver")?);
        NetNs::cable((&sender, "eth0", &["10.77.0.1/24"]), (&receiver, "eth0", &[&format!("{RECEIVER}/24")]))?;
        let (scratch, port) = (Scratch::new("bulk")?, place::free_port()?);
        let mut command = receiver.command("iperf3")?;
        command.args(["-s", "-B", RECEIVER, "-p", &port.to_string()]);
        let process = Process::start(command, "iperf3", &scratch)?;
        let started = Self { sender, port, process, _receiver: receiver, _scratch: scratch };
        // Until it listens, a client's attempts fail.
        started.send(Duration::from_secs(1)).with_context(|| started.process.output().unwrap_or_default())?;
        Ok(started)
    }

    /// Port of the receiver.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sends for `time`; gives bits per second as the receiver counted.
    pub fn send(&self, time: Duration) -> Result<f64> {
        self.run(&["-t", &time.as_secs().to_string()], time)
    }

    /// Sends this many bytes; gives bits per second as the receiver counted.
    pub fn send_bytes(&self, bytes: u64) -> Result<f64> {
        self.run(&["-n", &bytes.to_string()], Duration::from_mins(1))
    }

    fn run(&self, how_much: &[&str], time: Duration) -> Result<f64> {
        let mut command = self.sender.command("iperf3")?;
        command.args(["-c", RECEIVER, "-J", "-p", &self.port.to_string()]).args(how_much);
        // The receiver takes one sender at a time, and is a moment behind with each one's end.
        for _ in 0..20 {
            let said = process::say(&mut command, time + Duration::from_secs(20))?;
            let report: serde_json::Value = serde_json::from_str(&said.out).with_context(|| said.err.clone())?;
            if let Some(figure) =
                report.pointer("/end/sum_received/bits_per_second").and_then(serde_json::Value::as_f64)
            {
                return Ok(figure);
            }
            let error = report.get("error").and_then(serde_json::Value::as_str).unwrap_or_default();
            ensure!(error.contains("busy") || error.contains("refused"), "iperf3 said {}", said.out);
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("iperf3 stays busy")
    }
}
