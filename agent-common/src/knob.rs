//! What the loader tells the kernel half, and what the kernel half counts.

/// Offsets of kernel structures, read from the running kernel's BTF at load time. [`NO_OFFSET`] where unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// `sock.sk_lock.owned` (5.10+: `int` or bit in it).
    pub sock_owned: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.pid`.
    pub task_pid: u32,
    /// `task_struct.real_parent`.
    pub task_parent: u32,
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `mm_struct.arg_start`.
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`.
    pub mm_arg_end: u32,
    /// `sock.__sk_common.skc_net`.
    pub sock_net: u32,
    /// `net.net_cookie`.
    pub net_cookie: u32,
    /// The byte of `sk_buff` from which on `skb_summed` and `skb_valid` count bits of 32.
    pub skb_bits: u32,
    /// `sk_buff.ip_summed`, two bits.
    pub skb_summed: u32,
    /// `sk_buff.csum_valid`, a bit.
    pub skb_valid: u32,
    /// `sock.sk_wq`.
    pub sock_wq: u32,
    /// `socket_wq.wait.head`.
    pub wq_head: u32,
    /// `sock.sk_socket`.
    pub sock_socket: u32,
    /// `socket.file`.
    pub socket_file: u32,
    /// `file.f_flags`.
    pub file_flags: u32,
    /// `task_struct.io_uring`.
    pub task_io_uring: u32,
}

/// An offset that is not known on this kernel.
pub const NO_OFFSET: u32 = u32::MAX;

impl Offsets {
    /// Nothing is known: what needs an offset is left out.
    pub const NONE: Self = Self {
        sock_owned: NO_OFFSET,
        task_tgid: NO_OFFSET,
        task_pid: NO_OFFSET,
        task_parent: NO_OFFSET,
        task_mm: NO_OFFSET,
        mm_arg_start: NO_OFFSET,
        mm_arg_end: NO_OFFSET,
        sock_net: NO_OFFSET,
        net_cookie: NO_OFFSET,
        skb_bits: NO_OFFSET,
        skb_summed: NO_OFFSET,
        skb_valid: NO_OFFSET,
        sock_wq: NO_OFFSET,
        wq_head: NO_OFFSET,
        sock_socket: NO_OFFSET,
        socket_file: NO_OFFSET,
        file_flags: NO_OFFSET,
        task_io_uring: NO_OFFSET,
    };
}

/// Offsets for goroutines and their sockets, as [`Offsets`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoOffsets {
    /// `task_struct.thread.fsbase`.
    pub task_base: u32,
    /// `task_struct.files`.
    pub task_files: u32,
    /// `files_struct.fdt`.
    pub files_table: u32,
    /// `fdtable.fd`.
    pub table_files: u32,
    /// `file.private_data`.
    pub file_private: u32,
    /// `socket.sk`.
    pub socket_sock: u32,
    /// `sock.__sk_common.skc_cookie`.
    pub sock_cookie: u32,
    /// `tcp_sock.copied_seq`.
    pub sock_copied: u32,
}

impl GoOffsets {
    /// Nothing is known.
    pub const NONE: Self = Self {
        task_base: NO_OFFSET,
        task_files: NO_OFFSET,
        files_table: NO_OFFSET,
        table_files: NO_OFFSET,
        file_private: NO_OFFSET,
        socket_sock: NO_OFFSET,
        sock_cookie: NO_OFFSET,
        sock_copied: NO_OFFSET,
    };

    /// All of them are known.
    #[must_use]
    pub const fn are_known(&self) -> bool {
        let Self {
            task_base,
            task_files,
            files_table,
            table_files,
            file_private,
            socket_sock,
            sock_cookie,
            sock_copied,
        } = *self;
        let task = task_base != NO_OFFSET && task_files != NO_OFFSET;
        let files = files_table != NO_OFFSET && table_files != NO_OFFSET && file_private != NO_OFFSET;
        task && files && socket_sock != NO_OFFSET && sock_cookie != NO_OFFSET && sock_copied != NO_OFFSET
    }
}

/// Slots of the per-CPU counters. Each has one place where it is incremented.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(pub u32);

impl Slot {
    /// Segments with payload on a watched connection.
    pub const SEEN: Self = Self(0);
    /// Segments handed over, alone or in a pair.
    pub const DELIVERED: Self = Self(1);
    /// Segments of connections that are ignored: counted by the connection's own totals, not here.
    pub const FILTERED: Self = Self(2);
    /// Segments lost because the ring was full.
    pub const LOST_RING: Self = Self(3);
    /// Segments lost because a held request was overtaken while it was copied.
    pub const LOST_TORN: Self = Self(4);
    /// Segments lost because a header or payload could not be read.
    pub const LOST_UNREADABLE: Self = Self(5);
    /// Duplicate segments that were left out (retransmits): nothing new in them.
    pub const DUPLICATE: Self = Self(6);
    /// Sockets for which no storage could be had.
    pub const NO_STORAGE: Self = Self(7);
    /// `Opened`, `Closed`, `Exec` and `Exit` records lost because the ring was full.
    pub const LOST_EVENT: Self = Self(8);
    /// Connections opened.
    pub const OPENED: Self = Self(9);
    /// Connections closed.
    pub const CLOSED: Self = Self(10);
    /// Received segments that TCP drops for their checksum: nothing in them was sent so.
    pub const CHECKSUM: Self = Self(11);
    /// DNS messages that were left out: no socket of this node had asked so, or had been answered often enough.
    pub const DNS_UNASKED: Self = Self(13);
    /// DNS messages left out because there were too many in a second.
    pub const DNS_FLOOD: Self = Self(14);
    /// DNS messages lost because the ring was full or the message could not be read.
    pub const LOST_DNS: Self = Self(15);
    /// How many slots there are.
    pub const COUNT: u32 = 16;
}
