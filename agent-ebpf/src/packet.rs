//! IP and TCP headers of a segment. `cgroup_skb` starts at the network header (5.10 and newer).

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use weir_common::conn::Ends;

/// FIN, RST (RFC 9293 §3.1).
pub(crate) const FIN: u8 = 1;
/// SYN: it takes a sequence number before the payload.
pub(crate) const SYN: u8 = 2;
/// RST.
pub(crate) const RST: u8 = 4;
/// URG: the urgent pointer counts.
pub(crate) const URG: u8 = 0x20;

/// First payload bytes that are looked at.
pub(crate) const PEEK: usize = 16;

/// A TCP segment.
pub(crate) struct Packet {
    /// Sequence number of the first payload byte.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Where the payload starts.
    pub offset: u32,
    /// Payload bytes.
    pub len: u32,
    /// TCP flags.
    pub flags: u8,
}

/// Reads a number of the packet, in its order of bytes.
macro_rules! word {
    ($data:expr, $at:literal, $size:literal) => {{
        let value: u64;
        // SAFETY: the verifier has proved that the packet reaches that far. As an instruction, because the compiler
        // would read byte by byte where it does not know the alignment.
        unsafe {
            core::arch::asm!(
                concat!("{0} = *(", $size, " *)({1} + ", $at, ")"),
                out(reg) value,
                in(reg) $data,
                options(nostack, pure, readonly)
            );
        }
        value
    }};
}
pub(crate) use word;

/// Why a packet is no segment to look at.
pub(crate) enum Other {
    /// Its headers can't be read, or it has more of them than are followed ([`HEADERS`]).
    Unreadable,
    /// UDP from or to port 53.
    Dns,
}

/// `IPPROTO_UDP`; port 53 as it lies in memory.
const UDP: u8 = 17;
const DOMAIN: u64 = 53u16.to_be() as u64;

/// Reads the headers. `Ok(None)`: not TCP, or nothing that Weir looks at (a pure acknowledgement).
#[inline(always)]
pub(crate) fn parse(skb: *mut __sk_buff) -> Result<Option<Packet>, Other> {
    // SAFETY: the context of a cgroup_skb program.
    let (total, data, end) = unsafe { ((*skb).len, (*skb).data as usize, (*skb).data_end as usize) };
    if total < 40 {
        return Ok(None);
    }
    // An IPv4 and a TCP header, neither with a part elsewhere: read where they lie.
    if data + 40 <= end && word!(data, 0, "u8") == 0x45 {
        let protocol = word!(data, 9, "u8");
        if protocol != 6 {
            let dns = word!(data, 20, "u16") == DOMAIN || word!(data, 22, "u16") == DOMAIN;
            return if protocol == u64::from(UDP) && dns { Err(Other::Dns) } else { Ok(None) };
        }
        let (seq, ack) = (word!(data, 24, "u32") as u32, word!(data, 28, "u32") as u32);
        let (header, flags) = (word!(data, 32, "u8") as u32, word!(data, 33, "u8") as u8);
        return Ok(segment(total, 20, header, flags, u32::from_be(seq), u32::from_be(ack)));
    }
    elsewhere(skb, total)
}

/// Where a packet's TCP header starts; `None`: not TCP, or not readable.
#[inline(always)]
pub(crate) fn tcp(skb: *mut __sk_buff) -> Option<u32> {
    let mut b = [0u8; 12];
    // SAFETY: `b` is 12 bytes long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, b.as_mut_ptr().cast(), 12) } != 0 {
        return None;
    }
    match b[0] >> 4 {
        4 if b[9] == 6 => Some(u32::from(b[0] & 15) * 4),
        6 => ipv6(skb, b[6]).ok()?,
        _ => None,
    }
}

/// TCP flags of a packet without payload or with it; 0: not TCP, or not readable.
#[inline(always)]
pub(crate) fn flags(skb: *mut __sk_buff) -> u8 {
    let Some(tcp) = tcp(skb) else { return 0 };
    let mut flags = [0u8; 1];
    // SAFETY: `flags` is a byte long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), tcp + 13, flags.as_mut_ptr().cast(), 1) } != 0 {
        return 0;
    }
    flags[0]
}

/// What the headers say; `None`: nothing that Weir looks at.
#[inline(always)]
fn segment(total: u32, ip: u32, header: u32, flags: u8, seq: u32, ack: u32) -> Option<Packet> {
    let offset = ip + (header >> 4) * 4;
    let len = total.saturating_sub(offset);
    if len == 0 && flags & (FIN | RST) == 0 {
        return None;
    }
    Some(Packet { seq: if flags & SYN == 0 { seq } else { seq.wrapping_add(1) }, ack, offset, len, flags })
}

/// As [`parse`], where the headers do not lie in one piece, are longer, or those of IPv6.
#[inline(always)]
fn elsewhere(skb: *mut __sk_buff, total: u32) -> Result<Option<Packet>, Other> {
    // One read of an IPv4 and a TCP header without options: cheaper than a read a field.
    let mut b = [0u8; 40];
    // SAFETY: `b` is 40 bytes long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, b.as_mut_ptr().cast(), 40) } != 0 {
        return Err(Other::Unreadable);
    }
    let ip = match b[0] >> 4 {
        4 => {
            let ip = u32::from(b[0] & 15) * 4;
            if b[9] != 6 {
                return if b[9] == UDP { datagram(skb, ip) } else { Ok(None) };
            }
            ip
        }
        6 if b[6] == UDP => return datagram(skb, 40),
        6 => match ipv6(skb, b[6]).map_err(|()| Other::Unreadable)? {
            Some(at) => at,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    // To where it would lie: the stack is short.
    // SAFETY: `b` has 16 bytes from there on.
    if ip != 20 && unsafe { bpf_skb_load_bytes(skb.cast(), ip, b.as_mut_ptr().add(20).cast(), 16) } != 0 {
        return Err(Other::Unreadable);
    }
    let seq = u32::from_be_bytes([b[24], b[25], b[26], b[27]]);
    let ack = u32::from_be_bytes([b[28], b[29], b[30], b[31]]);
    Ok(segment(total, ip, u32::from(b[32]), b[33], seq, ack))
}

/// Whether a UDP header at `at` is from or to port 53.
#[inline(always)]
fn datagram(skb: *mut __sk_buff, at: u32) -> Result<Option<Packet>, Other> {
    let mut ports = [0u8; 4];
    // SAFETY: `ports` is 4 bytes long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), at, ports.as_mut_ptr().cast(), 4) } != 0 {
        return Ok(None);
    }
    let is = |high: u8, low: u8| u16::from_be_bytes([high, low]) == 53;
    if is(ports[0], ports[1]) || is(ports[2], ports[3]) { Err(Other::Dns) } else { Ok(None) }
}

/// Extension headers that are followed: all that a socket can be asked to send (RFC 3542 §6), and a fragment's. Any client
/// may send them, and TCP takes what stands behind them.
const HEADERS: u32 = 5;

/// Walks extension headers (RFC 8200 §4): hop-by-hop, routing, destination options, and the header of a fragment that is
/// the whole packet (RFC 6946), which reassembly leaves in place. Error: they can't be read, or there are too many.
#[inline(always)]
pub(crate) fn ipv6(skb: *mut __sk_buff, first: u8) -> Result<Option<u32>, ()> {
    let mut next = first;
    let mut at = 40u32;
    if next == 6 {
        return Ok(Some(at));
    }
    let mut n = 0;
    while n < HEADERS {
        if !matches!(next, 0 | 43 | 44 | 60) {
            return Ok(None);
        }
        let mut head = [0u8; 4];
        // SAFETY: `head` is 4 bytes long.
        if unsafe { bpf_skb_load_bytes(skb.cast(), at, head.as_mut_ptr().cast(), 4) } != 0 {
            return Err(());
        }
        let fragment = next == 44;
        if fragment && (head[2] != 0 || head[3] & 0xf9 != 0) {
            return Ok(None);
        }
        next = head[0];
        at += if fragment { 8 } else { (u32::from(head[1]) + 1) * 8 };
        if next == 6 {
            return Ok(Some(unknown(at, skb)));
        }
        n += 1;
    }
    Err(())
}

/// The same number, of which the verifier knows nothing: what follows is the same for each number of headers, and it
/// would walk it for each of them.
#[inline(always)]
fn unknown(mut at: u32, skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context of a cgroup_skb program.
    let by = unsafe { (*skb).len };
    // SAFETY: arithmetic on registers: what is done is undone.
    unsafe { core::arch::asm!("{0} ^= {1}", "{0} ^= {1}", inout(reg) at, in(reg) by, options(nostack, pure, nomem)) };
    at
}

/// The ends of a received packet. `None`: not TCP.
#[inline(always)]
pub(crate) fn ends(skb: *mut __sk_buff) -> Option<Ends> {
    let mut b = [0u8; 40];
    // SAFETY: `b` is 40 bytes long.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, b.as_mut_ptr().cast(), 40) } != 0 {
        return None;
    }
    let mut ends = Ends::default();
    let ports;
    if b[0] >> 4 == 4 {
        ends.local[10] = 0xff;
        ends.local[11] = 0xff;
        ends.remote[10] = 0xff;
        ends.remote[11] = 0xff;
        let mut i = 0;
        while i < 4 {
            ends.remote[12 + i] = b[12 + i];
            ends.local[12 + i] = b[16 + i];
            i += 1;
        }
        ports = u32::from(b[0] & 15) * 4;
    } else {
        let mut i = 0;
        while i < 16 {
            ends.remote[i] = b[8 + i];
            ends.local[i] = b[24 + i];
            i += 1;
        }
        ports = ipv6(skb, b[6]).ok()??;
    }
    // SAFETY: `b` is longer than 4 bytes.
    if unsafe { bpf_skb_load_bytes(skb.cast(), ports, b.as_mut_ptr().cast(), 4) } != 0 {
        return None;
    }
    ends.remote_port = u16::from_be_bytes([b[0], b[1]]);
    ends.local_port = u16::from_be_bytes([b[2], b[3]]);
    Some(ends)
}
