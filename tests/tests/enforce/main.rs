//! What rules in enforce mode refuse never reaches the application, and everything else does, byte for byte: real
//! servers, with their own logs as witnesses (acceptance group E).

mod admin;
mod breaker;
mod clients;
mod disguise;
mod early;
mod evasion;
mod evidence;
mod identities;
mod limits;
mod links;
mod pairs;
mod proxies;
mod safety;
mod shapes;
mod shared;
mod verdicts;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketType};
use weir_tests::call::{Call, Kind};
use weir_tests::rules::{enforcing, refused, rule};
use weir_tests::{place, process};

/// What `curl` got: a status, or its exit code when it got none.
fn curl(arguments: &[&str]) -> Result<Result<u16, i32>> {
    let mut command = Command::new(place::program("curl")?);
    command.args(["-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}"]).args(arguments);
    let said = process::say(&mut command, Duration::from_secs(20))?;
    Ok(if said.code == 0 { Ok(said.out.trim().parse().context("no status")?) } else { Err(said.code) })
}

/// `curl` says "failure in receiving network data" of a reset, or "nothing was returned".
const RESET: [i32; 2] = [56, 52];

/// A connection from an address of this node's own.
fn from(client: IpAddr, server: SocketAddr) -> Result<TcpStream> {
    let family = if client.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(client, 0))?;
    rustix::net::connect(&socket, &server)?;
    Ok(TcpStream::from(socket))
}

/// Calls of one side with this verdict.
fn of<'a>(calls: &'a [Call], kind: Kind, verdict: &str) -> Vec<&'a Call> {
    calls.iter().filter(|call| call.kind == kind && call.verdict == verdict).collect()
}
