//! Sockets that are older than the agent: netlink `sock_diag` of every network namespace, joined with who holds them.
//!
//! A socket that is opened while this runs may be missing: the kernel half announces that one.

mod diag;
mod holders;
mod namespaces;
mod tests;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use weir_common::conn::Owner;

use crate::model::Role;
use holders::Holders;
use namespaces::Namespace;

/// Most sockets of one look; further ones are counted.
const SOCKETS: usize = 256 * 1024;

/// A TCP socket as it stood when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Socket cookie, the same that the kernel half tells.
    pub cookie: u64,
    /// Local end, IPv4-mapped addresses as IPv4.
    pub local: SocketAddr,
    /// Remote end; unspecified for a listening socket.
    pub remote: SocketAddr,
    /// TCP state (`TCP_ESTABLISHED` is 1, `TCP_LISTEN` is 10).
    pub state: u8,
    /// Server where its port is listened on, client where its remote port is the only one that a server could have;
    /// else unknown: its listener may be gone.
    pub role: Role,
    /// The process that holds it. With several holders: one of them if all run the same executable, else nobody. Only
    /// holds for the time of the look.
    pub owner: Owner,
    /// Inode number of its network namespace.
    pub namespace: u64,
    /// `SO_NETNS_COOKIE` of its network namespace; 0 where the kernel has none (before 5.14).
    pub netns: u64,
}

impl Socket {
    /// Whether it waits for connections.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.state == diag::LISTEN
    }
}

/// What a look found, and what it could not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// The sockets, in no order.
    pub sockets: Vec<Socket>,
    /// Sockets left out because there are too many.
    pub left_out: u64,
    /// Network namespaces looked into.
    pub namespaces: u64,
    /// Network namespaces that may not be entered (that needs `CAP_SYS_ADMIN`).
    pub namespaces_denied: u64,
    /// Processes whose descriptors were looked at.
    pub processes: u64,
    /// Processes whose descriptors may not be read.
    pub processes_denied: u64,
    /// Sockets without a process that holds them (closed by it, or held by one that may not be read).
    pub orphans: u64,
    /// Sockets held by processes of different executables.
    pub disputed: u64,
}

/// Begins to look at all TCP sockets of the node; what it found comes by the channel, once. It takes the time of one pass
/// over `/proc` (10 000 processes: under a second with a core of its own). Namespaces are entered by a thread of its own,
/// which ends with that.
///
/// # Errors
/// The thread can't be started. By the channel: netlink may not be used in this network namespace, or `proc` can't be read.
pub fn begin(proc: &Path) -> io::Result<Receiver<io::Result<Sockets>>> {
    let (proc, (to, from)) = (proc.to_path_buf(), sync_channel(1));
    thread::Builder::new().name("weir-sockets".to_owned()).spawn(move || {
        // Who asked may be gone by now.
        let _ = to.try_send(all(&proc));
    })?;
    Ok(from)
}

/// The same, and waits for it.
///
/// # Errors
/// As [`begin`].
pub fn look(proc: &Path) -> io::Result<Sockets> {
    begin(proc)?.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that looks at sockets ended early")))
}

/// Moves this thread through the network namespaces.
fn all(proc: &Path) -> io::Result<Sockets> {
    let mut found = Sockets::default();
    let spaces = namespaces::all(proc)?;
    let own = namespaces::own()?;
    let mut rows = Vec::new();
    // One's own first: to enter another is a step without return.
    let (mine, others): (Vec<_>, Vec<_>) = spaces.into_iter().partition(|space| space.inode == own);
    for space in mine.into_iter().chain(others) {
        if space.inode != own && space.enter().is_err() {
            found.namespaces_denied += 1;
            continue;
        }
        read(&space, &mut rows, &mut found)?;
        found.namespaces += 1;
    }
    let holders = Holders::find(proc, &rows, &mut found)?;
    found.sockets = rows.into_iter().map(|(socket, inode)| Socket { owner: holders.owner(inode), ..socket }).collect();
    found.orphans = holders.orphans;
    found.disputed = holders.disputed;
    Ok(found)
}

/// Adds the sockets of the network namespace that this thread is in.
fn read(space: &Namespace, rows: &mut Vec<(Socket, u32)>, found: &mut Sockets) -> io::Result<()> {
    let dump = diag::dump()?;
    let ephemeral = namespaces::ephemeral_ports();
    let listening: HashSet<(u16, Option<IpAddr>)> = dump
        .rows
        .iter()
        .filter(|row| row.state == diag::LISTEN)
        .map(|row| (row.local.port(), bound(row.local.ip())))
        .collect();
    let listens =
        |end: SocketAddr| listening.contains(&(end.port(), None)) || listening.contains(&(end.port(), bound(end.ip())));
    for row in dump.rows {
        if rows.len() >= SOCKETS {
            found.left_out += 1;
            continue;
        }
        let role = if row.state == diag::LISTEN || listens(row.local) {
            Role::Server
        } else if ephemeral.contains(&row.local.port())
            && (!ephemeral.contains(&row.remote.port()) || listens(row.remote))
        {
            Role::Client
        } else {
            Role::Unknown
        };
        let socket = Socket {
            cookie: row.cookie,
            local: row.local,
            remote: row.remote,
            state: row.state,
            role,
            owner: Owner::default(),
            namespace: space.inode,
            netns: dump.netns,
        };
        rows.push((socket, row.inode));
    }
    Ok(())
}

/// The address that a listener is bound to; none for all.
fn bound(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}
