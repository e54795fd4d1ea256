//! Values as bytes: numbers in LEB128, texts with their length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::Thread;

/// Appends values.
pub(super) struct Out<'a>(pub(super) &'a mut Vec<u8>);

impl Out<'_> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    pub(super) fn option<T>(&mut self, option: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(option.is_some());
        if let Some(value) = option {
            write(self, value);
        }
    }

    pub(super) fn thread(&mut self, thread: Thread) {
        self.number(u64::from(thread.tgid));
        self.number(u64::from(thread.tid));
    }

    pub(super) fn address(&mut self, address: SocketAddr) {
        match address.ip() {
            IpAddr::V4(ip) => {
                self.flag(false);
                self.bytes(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.flag(true);
                self.bytes(&ip.octets());
            }
        }
        self.number(u64::from(address.port()));
    }
}

/// Takes values from the front; `None`: they are not there.
pub(super) struct In<'a, 'b>(pub(super) &'a mut &'b [u8]);

impl<'b> In<'_, 'b> {
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        *self.0 = rest;
        Some(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        let [byte] = self.array()?;
        (byte < 2).then_some(byte == 1)
    }

    pub(super) fn text(&mut self) -> Option<&'b str> {
        let len = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.bytes(len)?).ok()
    }

    #[expect(clippy::option_option, reason = "not there, and there but unreadable, differ")]
    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    pub(super) fn thread(&mut self) -> Option<Thread> {
        let (tgid, tid) = (self.number()?.try_into().ok()?, self.number()?.try_into().ok()?);
        Some(Thread { tgid, tid, ..Thread::default() })
    }

    pub(super) fn address(&mut self) -> Option<SocketAddr> {
        let ip = if self.flag()? {
            IpAddr::from(Ipv6Addr::from(self.array::<16>()?))
        } else {
            IpAddr::from(Ipv4Addr::from(self.array::<4>()?))
        };
        Some(SocketAddr::new(ip, self.number()?.try_into().ok()?))
    }
}
