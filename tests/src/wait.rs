//! Waiting for something to become true, with a limit.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Calls `look` until it gives something or `limit` has passed; `what` is named in the error.
///
/// # Errors
/// The time is over, or `look` failed.
pub fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().with_context(|| format!("waiting for {what}"))? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(EVERY);
    }
}

/// Waits until something accepts connections at `address`.
pub fn listening(address: SocketAddr, limit: Duration) -> Result<()> {
    until(limit, &format!("a listener at {address}"), || {
        Ok(TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok().map(drop))
    })
}
