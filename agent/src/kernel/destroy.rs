//! Ends connections: `SOCK_DESTROY` of `sock_diag(7)` (Linux 4.9, `CONFIG_INET_DIAG_DESTROY`). The peer gets a reset at
//! once, the owner `ECONNABORTED`.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use weir_common::conn::Ends;
use weir_common::verdict::Verdict;

/// `SOCK_DESTROY` of `include/uapi/linux/sock_diag.h`, which the crate has no message for.
const SOCK_DESTROY: u16 = 21;
/// Connections that may wait to be ended. What does not fit is not ended: its segments are dropped all the same.
const WAITING: usize = 4096;
/// Network namespaces that are looked at, and remembered.
const SPACES: usize = 512;
/// After a connection was found in none of them, so long others are looked for where they are likely only.
const AGAIN: Duration = Duration::from_millis(200);

/// A connection to end.
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    /// Its socket's cookie: another connection between the same ends is not meant.
    pub cookie: u64,
    /// Its ends, from its socket's view.
    pub ends: Ends,
    /// A process in its network namespace; 0: not known.
    pub process: u32,
    /// Interface that its socket is bound to; 0: none. A lookup without it finds no socket that is bound.
    pub bound: u32,
}

impl Victim {
    /// The connection that a verdict was said of.
    #[must_use]
    pub fn of(told: &Verdict) -> Self {
        Self { cookie: told.head.conn, ends: told.ends, process: told.owner.tgid, bound: told.bound }
    }
}

/// Ends connections, on a thread of its own.
#[derive(Clone, Debug)]
pub struct Destroyer(SyncSender<Victim>);

impl Destroyer {
    /// Starts the thread, which ends with the last `Destroyer`.
    pub fn start() -> io::Result<Self> {
        let (to, from) = sync_channel(WAITING);
        thread::Builder::new().name("weir-destroy".to_owned()).spawn(move || run(&from))?;
        Ok(Self(to))
    }

    /// Asks for a connection's end; false: too many wait.
    #[must_use]
    pub fn end(&self, victim: Victim) -> bool {
        !matches!(self.0.try_send(victim), Err(TrySendError::Full(_)))
    }
}

fn run(victims: &Receiver<Victim>) {
    let own = match File::open("/proc/thread-self/ns/net") {
        Ok(own) => own,
        Err(error) => {
            tracing::warn!(%error, "refused connections of other network namespaces are not ended");
            // Without a way back none is entered.
            for victim in victims {
                here(&victim);
            }
            return;
        }
    };
    let mut spaces = Spaces::default();
    for victim in victims {
        // Not in this network namespace, or gone.
        if !here(&victim) && spaces.end(&victim) && enter(&own).is_err() {
            tracing::error!("the way back to the agent's network namespace is closed");
            return;
        }
    }
}

/// Ends a connection of this thread's network namespace; false: it is not there.
fn here(victim: &Victim) -> bool {
    match destroy(victim) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
        Err(error) => {
            // A kernel that can't says so of every connection of a flood.
            static SAID: AtomicBool = AtomicBool::new(false);
            if !SAID.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "a refused connection could not be ended; what it sends is dropped; said once");
            }
            true
        }
    }
}

/// A network namespace. Not held open, which would keep it alive.
#[derive(Clone)]
struct Space {
    path: PathBuf,
    inode: u64,
}

impl Space {
    fn of(path: PathBuf) -> Option<Self> {
        let inode = fs::metadata(&path).ok()?.ino();
        Some(Self { path, inode })
    }

    /// Moves this thread there; false: it is gone.
    fn enter(&self) -> bool {
        let file = File::open(&self.path).ok();
        let same = file.filter(|file| file.metadata().is_ok_and(|data| data.ino() == self.inode));
        same.is_some_and(|file| enter(&file).is_ok())
    }
}

/// Network namespaces of this node, as far as they were needed.
#[derive(Default)]
struct Spaces {
    /// In which one connections with these ends were found.
    known: HashMap<([u8; 16], u16), Space>,
    /// When all of them were last tried in vain.
    tried: Option<Instant>,
}

impl Spaces {
    /// Ends a connection wherever it is; true: this thread has left its namespace. The socket's owner may have ended (a
    /// server that daemonised): then every namespace is tried, the cookie tells which one is meant.
    fn end(&mut self, victim: &Victim) -> bool {
        let place = (victim.ends.local, victim.ends.local_port);
        let owner = || Space::of(format!("/proc/{}/ns/net", victim.process).into());
        let likely = [self.known.get(&place).cloned(), (victim.process != 0).then(owner).flatten()];
        let mut left = false;
        for space in likely.into_iter().flatten() {
            if space.enter() {
                left = true;
                if here(victim) {
                    return true;
                }
            }
        }
        if self.tried.is_some_and(|tried| tried.elapsed() < AGAIN) {
            return left;
        }
        for space in all() {
            if space.enter() {
                left = true;
                if here(victim) {
                    if self.known.len() >= SPACES {
                        self.known.clear();
                    }
                    self.known.insert(place, space);
                    return true;
                }
            }
        }
        // Most likely it is gone: the next one is not searched for at once.
        self.tried = Some(Instant::now());
        left
    }
}

/// Every network namespace that some process is in, each once.
fn all() -> Vec<Space> {
    let mut seen = HashSet::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let spaces = numbers.filter_map(|entry| Space::of(entry.path().join("ns/net")));
    spaces.filter(|space| seen.insert(space.inode)).take(SPACES).collect()
}

fn enter(space: &File) -> io::Result<()> {
    // SAFETY: an open descriptor; only this thread changes its namespace.
    if unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends a connection of this thread's network namespace.
fn destroy(victim: &Victim) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&message(victim), 0)?;
    let mut buffer = Vec::with_capacity(8192);
    let size = socket.recv(&mut buffer, 0)?;
    let bytes = buffer.get(..size).unwrap_or_default();
    let answer = <NetlinkMessage<SockDiagMessage>>::deserialize(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("sock_diag: {error}")))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

fn message(victim: &Victim) -> Vec<u8> {
    let ends = &victim.ends;
    let (local, remote) = (Ipv6Addr::from(ends.local), Ipv6Addr::from(ends.remote));
    let family = if ends.family == 2 { AF_INET } else { AF_INET6 };
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let address = |address: Ipv6Addr| if family == AF_INET { address.to_canonical() } else { address.into() };
    socket_id.source_address = address(local);
    socket_id.destination_address = address(remote);
    socket_id.source_port = ends.local_port;
    socket_id.destination_port = ends.remote_port;
    socket_id.interface_id = victim.bound;
    socket_id.cookie = victim.cookie.to_ne_bytes();
    let (protocol, states) = (IPPROTO_TCP, StateFlags::all());
    let request = InetRequest { family, protocol, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    if let Some(kind) = bytes.get_mut(4..6) {
        kind.copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    fn cookie(stream: &TcpStream) -> u64 {
        let (mut cookie, mut length) = (0u64, 8);
        // SAFETY: both pointers are to live variables; `SO_COOKIE` is eight bytes long.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0);
        cookie
    }

    /// A pair of connected sockets, the server's end bound to the loopback interface where `bound`.
    fn pair(bound: bool) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if bound {
            // SAFETY: an open descriptor, and a name of this length.
            let result = unsafe {
                libc::setsockopt(
                    listener.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_BINDTODEVICE,
                    c"lo".as_ptr().cast(),
                    3,
                )
            };
            assert_eq!(result, 0);
        }
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// This connection, from its server's end.
    fn victim(server: &TcpStream) -> Victim {
        let v6 = |address: std::net::SocketAddr| match address.ip() {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(v6) => v6.octets(),
        };
        let (local, remote) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        let (local_port, remote_port) = (local.port(), remote.port());
        let ends = Ends { local: v6(local), remote: v6(remote), local_port, remote_port, family: 2, reserved: 0 };
        Victim { cookie: cookie(server), ends, process: 0, bound: 0 }
    }

    /// Needs root, to end connections.
    #[test]
    fn a_connection_ends_with_a_reset_and_no_other_does() {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let ((mut hit, server), (spared, _kept)) = (pair(false), pair(false));
        let right = victim(&server);
        let wrong = Victim { cookie: right.cookie + 1, ..right };
        assert_eq!(destroy(&wrong).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        destroy(&right).unwrap();
        let error = hit.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        spared.set_nonblocking(true).unwrap();
        assert_eq!((&spared).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    /// Needs root, to end connections.
    #[test]
    fn a_socket_that_is_bound_to_an_interface_is_found_by_it_alone() {
        if !rustix::process::getuid().is_root() {
            return;
        }
        let (mut hit, server) = pair(true);
        let unbound = victim(&server);
        assert_eq!(destroy(&unbound).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        // SAFETY: a string that ends with zero.
        let bound = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
        destroy(&Victim { bound, ..unbound }).unwrap();
        assert_eq!(hit.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
