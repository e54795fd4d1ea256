//! Connections: who holds one, where it ends, and what the kernel keeps for it.

/// Which end of a connection the observed socket is.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role(pub u8);

impl Role {
    /// Not known yet: the socket is older than the agent and no byte has told.
    pub const UNKNOWN: Self = Self(0);
    /// Connected actively: it sends requests.
    pub const CLIENT: Self = Self(1);
    /// Accepted from a listener: it answers requests.
    pub const SERVER: Self = Self(2);
    /// A listening socket: its storage is copied to every accepted child (`BPF_F_CLONE`).
    pub const LISTENER: Self = Self(3);
}

/// How the kernel half cuts a connection's bytes into what it forwards.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framing(pub u8);

impl Framing {
    /// No payload byte was seen yet.
    pub const UNDECIDED: Self = Self(0);
    /// A text protocol: windows at the start of each message.
    pub const HEADS: Self = Self(1);
    /// Not watched: every later run leaves after one look-up.
    pub const IGNORE: Self = Self(2);
    /// Older than the agent: waits for a segment that starts like a message.
    pub const MIDWAY: Self = Self(3);
    /// HTTP/2 in clear: its first bytes, by way, until the agent has read enough.
    pub const OPENING: Self = Self(4);
}

/// How certain an [`Owner`] is.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known(pub u8);

impl Known {
    /// Nobody is known.
    pub const NO: Self = Self(0);
    /// Inherited from the listening socket; the process that serves may be another.
    pub const LISTENER: Self = Self(1);
    /// The process that created the socket.
    pub const CREATOR: Self = Self(2);
    /// The process that held the socket's lock while it sent: the one that serves or calls.
    pub const SENDER: Self = Self(3);
}

/// Who holds a socket. `tgid` is in the initial pid namespace.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    /// Process id (thread group id); 0 where unknown.
    pub tgid: u32,
    /// Thread that did what `known` says; 0 where unknown.
    pub tid: u32,
    /// Effective user id; `u32::MAX` where unknown.
    pub uid: u32,
    /// A [`Known`].
    pub known: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// cgroup v2 id of the process (inode number of its folder); 0 where unknown.
    pub cgroup: u64,
    /// `task_comm`, zero-padded.
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<Owner>() == 40);

/// Local and remote end of a socket, as the socket itself knows them (before egress NAT, after ingress NAT).
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ends {
    /// Network byte order; IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2).
    pub local: [u8; 16],
    /// Network byte order; IPv4 as IPv4-mapped IPv6.
    pub remote: [u8; 16],
    /// Host byte order.
    pub local_port: u16,
    /// Host byte order.
    pub remote_port: u16,
    /// Socket's family as created: 2 (`AF_INET`) or 10 (`AF_INET6`, also for IPv4-mapped).
    pub family: u16,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<Ends>() == 40);
