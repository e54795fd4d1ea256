//! The kernel's list of TCP sockets (`sock_diag(7)`).

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as Kernel};

/// `TCP_LISTEN`.
pub(super) const LISTEN: u8 = 10;
/// The kernel fills at most 32 KiB of a dump at once.
const BUFFER: usize = 64 * 1024;
/// `SO_NETNS_COOKIE`, since 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A socket as the kernel lists it.
pub(super) struct Row {
    pub(super) cookie: u64,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: u8,
    /// Inode number in sockfs; 0: no process holds it.
    pub(super) inode: u32,
}

/// All of a network namespace.
pub(super) struct Dump {
    pub(super) rows: Vec<Row>,
    /// `SO_NETNS_COOKIE`; 0 where the kernel has none.
    pub(super) netns: u64,
}

/// Lists the TCP sockets of this thread's network namespace, those in `TIME_WAIT` and before `SYN_SENT` left out: they
/// are nobody's.
pub(super) fn dump() -> io::Result<Dump> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&Kernel::new(0, 0))?;
    let mut rows = Vec::new();
    for (family, id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        ask(&socket, family, id)?;
        answer(&socket, &mut rows)?;
    }
    Ok(Dump { rows, netns: netns(&socket) })
}

fn ask(socket: &Socket, family: u8, socket_id: SocketId) -> io::Result<()> {
    let states = StateFlags::all() & !(StateFlags::TIME_WAIT | StateFlags::CLOSE | StateFlags::SYN_RECV);
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(|_| ())
}

fn answer(socket: &Socket, rows: &mut Vec<Row>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        let size = match socket.recv(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        let mut rest = buffer.get(..size).unwrap_or_default();
        while !rest.is_empty() {
            let message = <NetlinkMessage<SockDiagMessage>>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("sock_diag: {error}")))?;
            // Messages are aligned to four bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => rows.push(row(&response)),
                _ => {}
            }
        }
    }
}

fn row(response: &InetResponse) -> Row {
    let header = &response.header;
    let id = &header.socket_id;
    Row {
        cookie: u64::from_ne_bytes(id.cookie),
        local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
        remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        state: header.state,
        inode: header.inode,
    }
}

fn netns(socket: &Socket) -> u64 {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: both pointers are to live variables, and the length says how large the first one is.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { cookie } else { 0 }
}
