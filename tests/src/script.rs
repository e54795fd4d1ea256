//! Conversations that a test writes byte by byte, played over one connection between two threads.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::call::Call;
use crate::place;
use crate::truth::{Row, same};
use crate::wire::{Server, Wire};

/// What one side does next; the other side waits until it has seen it.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The client sends.
    Client(Vec<u8>),
    /// The server sends.
    Server(Vec<u8>),
    /// The client says that nothing more will come, and stays.
    ClientFinishes,
    /// The server says that nothing more will come, and stays.
    ServerFinishes,
    /// The client closes with a reset; nothing follows.
    ClientResets,
    /// The server closes with a reset; nothing follows.
    ServerResets,
    /// Both sides wait twice at this: until all who wait are here, and until they may go on.
    Waits(Arc<Barrier>),
}

/// The client sends.
pub fn client(bytes: impl Into<Vec<u8>>) -> Turn {
    Turn::Client(bytes.into())
}

/// The server sends.
pub fn server(bytes: impl Into<Vec<u8>>) -> Turn {
    Turn::Server(bytes.into())
}

/// A conversation and the calls that it holds.
#[derive(Clone, Debug)]
pub struct Case {
    /// Named in failures.
    pub name: String,
    /// What happens on the connection.
    pub turns: Vec<Turn>,
    /// The calls, in the order of their requests.
    pub calls: Vec<Expected>,
}

/// A call that a conversation holds.
#[derive(Clone, Debug)]
pub struct Expected {
    /// What it is, sizes being those of the content.
    pub row: Row,
    /// Bytes of the request on the wire.
    pub request_wire: u64,
    /// Bytes of the response on the wire, interim responses left out.
    pub response_wire: u64,
}

impl Case {
    /// A conversation of one call: the whole request, then the whole response.
    pub fn one(name: &str, request: impl Into<Vec<u8>>, response: impl Into<Vec<u8>>, row: Row) -> Self {
        Self::turns(name, vec![client(request), server(response)], row)
    }

    /// A conversation of one call, whose wire sizes are all that each side sends.
    #[must_use]
    pub fn turns(name: &str, turns: Vec<Turn>, row: Row) -> Self {
        let (mut request_wire, mut response_wire) = (0, 0);
        for turn in &turns {
            match turn {
                Turn::Client(bytes) => request_wire += bytes.len() as u64,
                Turn::Server(bytes) => response_wire += bytes.len() as u64,
                _ => {}
            }
        }
        Self { name: name.to_owned(), turns, calls: vec![Expected { row, request_wire, response_wire }] }
    }

    /// The same with `less` bytes of interim responses, which are no part of the call's response.
    #[must_use]
    pub fn interim(mut self, less: usize) -> Self {
        for call in &mut self.calls {
            call.response_wire -= less as u64;
        }
        self
    }

    /// A conversation without any call.
    #[must_use]
    pub fn none(name: &str, turns: Vec<Turn>) -> Self {
        Self { name: name.to_owned(), turns, calls: Vec::new() }
    }

    /// Several conversations one after another on the same connection.
    #[must_use]
    pub fn joined(name: &str, cases: Vec<Self>) -> Self {
        let mut joined = Self::none(name, Vec::new());
        for case in cases {
            joined.turns.extend(case.turns);
            joined.calls.extend(case.calls);
        }
        joined
    }

    /// Where Weir could not take the transfer framing off, the exact wire size stands for the content's size: `found`,
    /// one side's calls of this conversation in order, get it then.
    pub fn complete(&self, found: &mut [Call]) {
        for (call, expected) in found.iter_mut().zip(&self.calls) {
            let sizes = &mut call.attributes;
            if sizes.request_body.is_none() && sizes.request_wire == Some(expected.request_wire) {
                sizes.request_body = expected.row.request;
            }
            if sizes.response_body.is_none() && sizes.response_wire == Some(expected.response_wire) {
                sizes.response_body = expected.row.response;
            }
        }
    }

    /// `found`, one side's calls of this conversation in order, are exactly its calls, after [`Case::complete`].
    pub fn check(&self, side: &str, found: &[Call]) -> Result<()> {
        let mut found = found.to_vec();
        self.complete(&mut found);
        let rows: Vec<Row> = found.iter().map(Row::of).collect();
        let expected: Vec<Row> = self.calls.iter().map(|call| call.row.clone()).collect();
        same(&format!("{}, {side}", self.name), &rows, &expected)
    }
}

/// Plays a conversation over a connection of its own on loopback, each send cut into pieces of `size` bytes that are
/// sent one by one; gives the server's port.
pub fn play(turns: &[Turn], size: usize) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, place::free_port()?))?;
    let address = listener.local_addr()?;
    at_both_ends(listener, || Wire::connect(address), turns, size)?;
    Ok(address.port())
}

/// The same between a listener and a client that the test chose; gives the client's address.
pub fn at_both_ends(
    listener: TcpListener,
    connect: impl FnOnce() -> Result<Wire>,
    turns: &[Turn],
    size: usize,
) -> Result<SocketAddr> {
    let script = turns.to_vec();
    let (reached, reaches) = mpsc::channel();
    let (also_reached, also_reaches) = mpsc::channel();
    let other_end = Arc::new(Mutex::new(Some(Meeting { reached, reaches: also_reaches })));
    let server = Server::on(listener, move |wire| {
        let meeting =
            other_end.lock().map_err(|_| anyhow!("a thread failed"))?.take().context("a second connection")?;
        walk(wire, &script, false, size, &meeting)
    })?;
    let wire = connect()?;
    let from = wire.stream().local_addr()?;
    let meeting = Meeting { reached: also_reached, reaches };
    walk(wire, turns, true, size, &meeting).context("the client's side")?;
    meeting.part()?;
    server.stop()?;
    Ok(unmapped(from))
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Where both sides wait for each other beside their connection: a reset throws away what is still on its way.
struct Meeting {
    reached: mpsc::Sender<()>,
    reaches: mpsc::Receiver<()>,
}

impl Meeting {
    fn meet(&self) -> Result<()> {
        self.reached.send(()).context("the other side has gone")?;
        self.reaches.recv_timeout(Duration::from_secs(20)).context("waiting for the other side")
    }

    /// Waits until the other side is done. A client that closes without waiting for anything may be done before its
    /// connection was accepted, and a listener that ends then resets it.
    fn part(&self) -> Result<()> {
        match self.reaches.recv_timeout(Duration::from_secs(20)) {
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("the other side does not end"),
            Ok(()) => bail!("the other side waits"),
        }
    }
}

fn walk(mut wire: Wire, turns: &[Turn], is_client: bool, size: usize, meeting: &Meeting) -> Result<()> {
    for turn in turns {
        match (turn, is_client) {
            (Turn::Client(bytes), true) | (Turn::Server(bytes), false) => wire.send_by(size, bytes)?,
            (Turn::Client(bytes), false) | (Turn::Server(bytes), true) => {
                ensure!(wire.read_exact(bytes.len())? == *bytes, "other bytes came than were sent");
            }
            (Turn::ClientFinishes, true) | (Turn::ServerFinishes, false) => wire.finish()?,
            (Turn::ClientFinishes, false) | (Turn::ServerFinishes, true) => {
                ensure!(wire.read_to_end()?.is_empty(), "more came than was sent");
            }
            (Turn::ClientResets, true) | (Turn::ServerResets, false) => {
                meeting.meet()?;
                return wire.reset();
            }
            (Turn::ClientResets, false) | (Turn::ServerResets, true) => {
                meeting.meet()?;
                let met = wire.read_to_end();
                ensure!(met.is_err(), "no reset came");
                return Ok(());
            }
            (Turn::Waits(barrier), _) => {
                barrier.wait();
                barrier.wait();
            }
        }
    }
    if is_client {
        // The client closes first, so that the end of every conversation is the same one.
        return Ok(());
    }
    drop(wire.read_to_end());
    Ok(())
}

/// Runs `act` for each of `items` on a thread of its own; fails with the first failure.
pub fn at_once<T: Send>(items: Vec<T>, act: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || act(item))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread failed"))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_played_to_their_end() -> Result<()> {
        let talk = || vec![client("abc"), server("de"), client("f")];
        for end in
            [vec![], vec![Turn::ServerFinishes], vec![Turn::ClientFinishes, server("g")], vec![Turn::ClientResets]]
        {
            for size in [1, usize::MAX] {
                assert!(play(&[talk(), end.clone()].concat(), size)? > 0);
            }
        }
        assert!(play(&[talk(), vec![Turn::ServerResets]].concat(), 1)? > 0);
        Ok(())
    }
}
