//! A link between two namespaces whose packets pass through the test, which can lose, repeat, reorder, delay, corrupt
//! and forge them, by a seed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::ioctl::{Setter, ioctl};

use crate::netns::NetNs;

/// What happens to packets; shares are in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Same seed, same decisions for the same packets.
    pub seed: u64,
    /// Share that never arrives.
    pub loss: u64,
    /// Share that arrives twice.
    pub duplicate: u64,
    /// Share that is overtaken by those behind it.
    pub reorder: u64,
    /// Share of packets with payload in which a byte is changed and the checksum is not.
    pub corrupt: u64,
    /// How long each packet takes.
    pub delay: Duration,
    /// Beside each IPv4 TCP segment with payload, two forged ones: far ahead of the stream and far behind it.
    pub forge: bool,
    /// Before each IPv4 TCP segment with payload two that TCP drops for their checksums, saying something else: one in
    /// its place and one behind it.
    pub mask: bool,
}

/// What was done, all zero at the start.
#[derive(Debug, Default)]
pub struct Done {
    /// Packets that never arrived.
    pub lost: AtomicU64,
    /// Packets that arrived twice.
    pub duplicated: AtomicU64,
    /// Packets that were overtaken.
    pub reordered: AtomicU64,
    /// Packets with a changed byte.
    pub corrupted: AtomicU64,
    /// Segments that nobody sent.
    pub forged: AtomicU64,
    /// Segments that nobody sent, with wrong checksums.
    pub masks: AtomicU64,
}

/// Addresses of the link's two ends.
pub const ONE: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);
/// As [`ONE`].
pub const TWO: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 2);
/// As [`ONE`].
pub const ONE_V6: Ipv6Addr = Ipv6Addr::new(0xfd90, 0, 0, 0, 0, 0, 0, 1);
/// As [`ONE`].
pub const TWO_V6: Ipv6Addr = Ipv6Addr::new(0xfd90, 0, 0, 0, 0, 0, 0, 2);

/// The running link.
#[derive(Debug)]
pub struct Relay {
    over: Arc<AtomicBool>,
    done: Arc<Done>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Relay {
    /// Joins `one` ([`ONE`], [`ONE_V6`]) and `two` ([`TWO`], [`TWO_V6`]).
    pub fn start(one: &NetNs, two: &NetNs, weather: Weather) -> Result<Self> {
        let (left, right) = (device(one, (ONE, TWO), ONE_V6)?, device(two, (TWO, ONE), TWO_V6)?);
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Done::default()));
        let mut threads = Vec::new();
        for (from, to, way) in [(left.try_clone()?, right.try_clone()?, 1), (right, left, 2)] {
            let (over, done) = (Arc::clone(&over), Arc::clone(&done));
            let mut lane = Lane {
                from,
                to,
                weather,
                random: Random::new(weather.seed * 2 + way),
                waiting: BTreeMap::new(),
                serial: 0,
                done,
            };
            threads.push(thread::spawn(move || {
                while !over.load(Ordering::Acquire) {
                    lane.step()?;
                }
                Ok(())
            }));
        }
        Ok(Self { over, done, threads })
    }

    /// What was done so far.
    #[must_use]
    pub fn done(&self) -> &Done {
        &self.done
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                eprintln!("a thread of the relay failed");
            }
        }
    }
}

/// `struct ifreq` as `TUNSETIFF` takes it (linux/if.h, `linux/if_tun.h`).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const TUNSETIFF: u32 = 0x4004_54ca;
const IFF_TUN: u16 = 1;
const IFF_NO_PI: u16 = 0x1000;

/// A TUN device `tun0` inside a namespace.
fn device(netns: &NetNs, v4: (Ipv4Addr, Ipv4Addr), v6: Ipv6Addr) -> Result<File> {
    let file = netns.inside(|| {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open("/dev/net/tun")?;
        let mut name = [0; 16];
        name[..4].copy_from_slice(b"tun0");
        let request = Request { name, flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
        // SAFETY: TUNSETIFF reads a `struct ifreq` of 40 bytes, which `Request` is.
        unsafe { ioctl(&file, Setter::<{ TUNSETIFF as _ }, Request>::new(request)) }.context("making a TUN device")?;
        Ok(file)
    })?;
    netns.ip(&format!("addr add {} peer {} dev tun0", v4.0, v4.1))?;
    netns.ip(&format!("-6 addr add {v6}/64 dev tun0 nodad"))?;
    netns.ip("link set dev tun0 up")?;
    Ok(file)
}

struct Lane {
    from: File,
    to: File,
    weather: Weather,
    random: Random,
    /// Packets on their way, by the time of their arrival.
    waiting: BTreeMap<(Instant, u64), Vec<u8>>,
    serial: u64,
    done: Arc<Done>,
}

impl Lane {
    fn step(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            // A packet that the device does not take (it is down, its queue is full) is lost like any other.
            drop(self.to.write(&entry.remove()));
        }
        let next =
            self.waiting.first_key_value().map_or(Duration::from_millis(20), |((at, _), _)| at.duration_since(now));
        let patience = Timespec::try_from(next)?;
        let mut files = [PollFd::new(&self.from, PollFlags::IN)];
        poll(&mut files, Some(&patience))?;
        let mut packet = vec![0; 65_536];
        loop {
            match self.from.read(&mut packet) {
                Ok(size) => self.take(packet.get(..size).context("more than asked for")?.to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, mut packet: Vec<u8>) {
        let weather = self.weather;
        let payload = payload(&packet);
        if let Some(at) = payload.filter(|_| weather.forge && packet[0] >> 4 == 4) {
            for (offset, text) in [(0x2000_0000_u32, FORGED[0]), (0_u32.wrapping_sub(0x10_0000), FORGED[1])] {
                self.done.forged.fetch_add(1, Ordering::Relaxed);
                self.send(forged(&packet, at, offset, text), Duration::ZERO);
            }
        }
        if let Some(at) = payload.filter(|_| weather.mask && packet[0] >> 4 == 4) {
            let length = packet.len() - at;
            for (offset, text) in [(0, mask(length)), (length as u32, mask(100))] {
                self.done.masks.fetch_add(1, Ordering::Relaxed);
                let mut masking = forged(&packet, at, offset, &text);
                let last = masking.len() - 1;
                masking[last] ^= 0x15;
                self.send(masking, Duration::ZERO);
            }
        }
        if self.random.is(weather.loss) {
            self.done.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Some(at) = payload.filter(|_| self.random.is(weather.corrupt)) {
            self.done.corrupted.fetch_add(1, Ordering::Relaxed);
            let place = at + self.random.next() as usize % (packet.len() - at);
            packet[place] ^= 0x15;
        }
        let mut more = Duration::ZERO;
        if self.random.is(weather.reorder) {
            self.done.reordered.fetch_add(1, Ordering::Relaxed);
            more = Duration::from_millis(3);
        }
        if self.random.is(weather.duplicate) {
            self.done.duplicated.fetch_add(1, Ordering::Relaxed);
            self.send(packet.clone(), more + Duration::from_millis(1));
        }
        self.send(packet, more);
    }

    fn send(&mut self, packet: Vec<u8>, more: Duration) {
        self.serial += 1;
        self.waiting.insert((Instant::now() + self.weather.delay + more, self.serial), packet);
    }
}

/// What forged segments say: both would be calls if they were believed.
const FORGED: [&[u8]; 2] =
    [b"GET /forged HTTP/1.1\r\nHost: forged\r\n\r\n", b"HTTP/1.1 599 Forged\r\nContent-Length: 0\r\n\r\n"];

/// A request of this many bytes.
fn mask(length: usize) -> Vec<u8> {
    let (head, end) = ("GET /mask HTTP/1.1\r\nX: ", "\r\n\r\n");
    let mut text = format!("{head}{}{end}", "m".repeat(length.saturating_sub(head.len() + end.len()))).into_bytes();
    text.truncate(length);
    text
}

/// Where the payload of a packet's TCP segment begins, if it has any.
fn payload(packet: &[u8]) -> Option<usize> {
    let first = packet.first()?;
    let (header, protocol) =
        if first >> 4 == 4 { (usize::from(first & 15) * 4, packet.get(9)?) } else { (40, packet.get(6)?) };
    if *protocol != 6 {
        return None;
    }
    let at = header + usize::from(packet.get(header + 12)? >> 4) * 4;
    (at < packet.len()).then_some(at)
}

/// The same segment's headers with another sequence number and payload, checksums right.
fn forged(packet: &[u8], payload: usize, offset: u32, text: &[u8]) -> Vec<u8> {
    let mut out = packet.get(..payload).unwrap_or_default().to_vec();
    out.extend(text);
    let header = usize::from(out[0] & 15) * 4;
    let seq = u32::from_be_bytes([out[header + 4], out[header + 5], out[header + 6], out[header + 7]]);
    out[header + 4..header + 8].copy_from_slice(&seq.wrapping_add(offset).to_be_bytes());
    let total = out.len() as u16;
    out[2..4].copy_from_slice(&total.to_be_bytes());
    out[10..12].fill(0);
    let sum = checksum(0, &out[..header]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    out[header + 16..header + 18].fill(0);
    let length = (out.len() - header) as u32;
    let pseudo = [&out[12..20], &[0, 6], &(length as u16).to_be_bytes()[..]].concat();
    let sum = checksum(folded(&pseudo), &out[header..]);
    out[header + 16..header + 18].copy_from_slice(&sum.to_be_bytes());
    out
}

fn folded(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default())).sum()
}

/// Internet checksum (RFC 1071) over bytes, on top of a sum.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start + folded(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn is(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.next() % 1000 < thousandths
    }
}

/// The link did what it was told to do, at least once each.
pub fn happened(weather: Weather, done: &Done) -> Result<()> {
    for (name, share, count) in [
        ("loss", weather.loss, &done.lost),
        ("duplicates", weather.duplicate, &done.duplicated),
        ("reordering", weather.reorder, &done.reordered),
        ("corruption", weather.corrupt, &done.corrupted),
        ("forgery", u64::from(weather.forge), &done.forged),
        ("masks", u64::from(weather.mask), &done.masks),
    ] {
        ensure!(share == 0 || count.load(Ordering::Relaxed) > 0, "no {name} in {done:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_1071() {
        assert_eq!(checksum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn a_forged_segment_sums_to_nothing_wrong() {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[32] = 0x50;
        packet.push(b'x');
        assert_eq!(payload(&packet), Some(40));
        let forged = forged(&packet, 40, 7, b"abc");
        assert_eq!(checksum(0, &forged[..20]), 0);
        let pseudo = [&forged[12..20], &[0, 6, 0, 23]].concat();
        assert_eq!(checksum(folded(&pseudo), &forged[20..]), 0);
        assert_eq!(forged[24..28], [0, 0, 0, 7]);
    }
}
