//! SYNs from one address, as fast as a thread makes them, inside the test's own namespaces.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::net::{AddressFamily, RawProtocol, SendFlags, SocketType};

use crate::netns::NetNs;

/// Longest flood that is made.
const LONGEST: Duration = Duration::from_secs(10);
/// `IPPROTO_RAW`: the packet brings its own IP header.
const RAW: u32 = 255;
/// IPv4 and TCP header.
const SIZE: usize = 40;

/// What was sent.
#[derive(Debug, Default)]
pub struct Flood {
    /// SYNs so far.
    pub sent: AtomicU64,
    /// It is to end.
    pub done: AtomicBool,
}

impl Flood {
    /// Sends SYNs from `from` to `to`, from the namespace `inside`, until told to end or for 10 s. Source ports and
    /// sequence numbers differ from one to the next.
    pub fn run(&self, inside: &NetNs, from: Ipv4Addr, to: SocketAddrV4) -> Result<()> {
        inside.inside(|| {
            let protocol = RawProtocol::new(RAW).map(rustix::net::Protocol::from_raw);
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, protocol)?;
            let start = Instant::now();
            let mut serial = 0_u32;
            while !self.done.load(Ordering::Relaxed) && start.elapsed() < LONGEST {
                for _ in 0..64 {
                    serial = serial.wrapping_add(0x9e37_79b1);
                    let packet = syn(from, to, serial);
                    // A full queue is the flood's limit, and no error.
                    match rustix::net::sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::V4(to)) {
                        Ok(sent) => ensure!(sent == SIZE, "{sent} bytes of a SYN were sent"),
                        Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::AGAIN) => continue,
                        Err(error) => return Err(error.into()),
                    }
                    self.sent.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        })
    }
}

/// A SYN without options (RFC 9293 §3.1), its checksum right: one that is wrong would be dropped by everybody.
fn syn(from: Ipv4Addr, to: SocketAddrV4, serial: u32) -> [u8; SIZE] {
    let mut packet = [0_u8; SIZE];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in packet.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, &[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]);
    put(12, &from.octets());
    put(16, &to.ip().octets());
    put(20, &(1024 | (serial >> 16) as u16).to_be_bytes());
    put(22, &to.port().to_be_bytes());
    put(24, &serial.to_be_bytes());
    put(32, &[0x50, 2, 0xff, 0xff]);
    let sum = checksum(packet.get(12..).unwrap_or_default(), 6 + 20);
    for (to, from) in packet.iter_mut().skip(36).zip(sum.to_be_bytes()) {
        *to = from;
    }
    packet
}

/// RFC 1071, over the addresses, the TCP header, and `more` of the pseudo-header.
fn checksum(bytes: &[u8], more: u32) -> u16 {
    let mut sum = more;
    for pair in bytes.chunks(2) {
        let [high, low] = [pair.first(), pair.get(1)].map(|byte| u32::from(byte.copied().unwrap_or_default()));
        sum += high << 8 | low;
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_adds_up() {
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, 1), 80);
        let packet = syn(Ipv4Addr::new(10, 78, 1, 2), to, 0x1234_5678);
        assert_eq!(checksum(&packet[12..], 26), 0, "a right checksum makes the sum zero");
    }
}
