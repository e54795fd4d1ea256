//! Address prefixes: IPv4, IPv6 and IPv4-mapped IPv6 as one space of 128 bits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A prefix of addresses. IPv4 is kept as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), so that a mapped client meets the
/// same rule as a plain one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix {
    /// Network byte order; bits behind `len` are zero.
    pub bytes: [u8; 16],
    /// 0..=128.
    pub len: u8,
}

/// A prefix that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not an address, or not a length.
    #[error("address {0:?}: write an IPv4 or IPv6 address, alone or with a prefix length (203.0.113.0/24)")]
    Syntax(String),
    /// An address of one link.
    #[error("address {written}: a rule can't be of one zone; write {address}, which is met on every link")]
    Zone {
        /// As written.
        written: String,
        /// Without the zone.
        address: Ipv6Addr,
    },
    /// Bits behind the prefix are set.
    #[error("address {written}: bits behind the prefix are set; write {canonical}")]
    HostBits {
        /// As written.
        written: String,
        /// What it would have to be.
        canonical: Prefix,
    },
}

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// An address as 16 bytes, IPv4 mapped.
#[must_use]
pub fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    }
}

impl Prefix {
    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { bytes: bytes(address), len: 128 }
    }

    /// A prefix with the bits behind it cleared. `len` is in bits of the address's own family and is cut at its end.
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Self {
        let len = if address.is_ipv4() { 96 + len.min(32) } else { len.min(128) };
        Self { bytes: masked(bytes(address), len), len }
    }

    /// The prefix of this length (of 128) around it.
    #[must_use]
    pub fn cut(&self, len: u8) -> Self {
        let len = len.min(self.len);
        Self { bytes: masked(self.bytes, len), len }
    }

    /// The address, where it is a single one.
    #[must_use]
    pub fn single(&self) -> Option<IpAddr> {
        (self.len == 128).then(|| IpAddr::from(self.bytes).to_canonical())
    }

    /// The prefix holds this address.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        masked(bytes(address), self.len) == self.bytes
    }

    /// The prefix holds this prefix.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && masked(other.bytes, self.len) == self.bytes
    }

    fn is_v4(&self) -> bool {
        self.len >= 96 && self.bytes.starts_with(&MAPPED)
    }

    /// Addresses in it, at most `u64::MAX`.
    #[must_use]
    pub fn size(&self) -> u64 {
        1_u64.checked_shl(u32::from(128 - self.len)).unwrap_or(u64::MAX)
    }

    /// All addresses of a family, or so many that no list of clients can be meant: shorter than /8 (IPv4) or /16
    /// (IPv6).
    #[must_use]
    pub fn is_too_wide(&self) -> bool {
        if self.is_v4() {
            self.len < 96 + 8
        } else {
            self.len < 16 || self.covers(&Self { bytes: masked_v4(), len: 96 })
        }
    }
}

/// The same addresses without prefixes that others cover, sorted.
#[must_use]
pub fn disjoint(mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
    // One that covers others comes right before them.
    prefixes.sort_unstable();
    let mut out: Vec<Prefix> = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        if !out.last().is_some_and(|last| last.covers(&prefix)) {
            out.push(prefix);
        }
    }
    out
}

/// The same addresses in as few prefixes as can be, sorted.
#[must_use]
pub fn joined(prefixes: Vec<Prefix>) -> Vec<Prefix> {
    let mut out: Vec<Prefix> = Vec::new();
    for mut prefix in disjoint(prefixes) {
        // Two halves make a whole, which may be half of another.
        while let Some(last) = out.last()
            && last.len == prefix.len
            && prefix.len > 0
            && last.cut(prefix.len - 1) == prefix.cut(prefix.len - 1)
        {
            prefix = prefix.cut(prefix.len - 1);
            out.pop();
        }
        out.push(prefix);
    }
    out
}

/// Where in disjoint, sorted prefixes the one that holds an address is.
#[must_use]
pub fn position(prefixes: &[Prefix], address: IpAddr) -> Option<usize> {
    let host = Prefix::host(address);
    let at = prefixes.partition_point(|prefix| *prefix <= host).checked_sub(1)?;
    prefixes.get(at).filter(|prefix| prefix.covers(&host)).map(|_| at)
}

const fn masked_v4() -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]
}

fn masked(bytes: [u8; 16], len: u8) -> [u8; 16] {
    let mask = u128::MAX.checked_shl(u32::from(128 - len.min(128))).unwrap_or(0);
    (u128::from_be_bytes(bytes) & mask).to_be_bytes()
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let syntax = || PrefixError::Syntax(text.chars().take(80).collect());
        let (address, len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
        if let Some(address) = address.split_once('%').and_then(|(address, _)| address.parse().ok()) {
            return Err(PrefixError::Zone { written: text.chars().take(80).collect(), address });
        }
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => bits,
            Some(len) if len.bytes().all(|byte| byte.is_ascii_digit()) => len.parse().map_err(|_| syntax())?,
            Some(_) => return Err(syntax()),
        };
        if len > bits {
            return Err(syntax());
        }
        let prefix = Self::new(address, len);
        if prefix.bytes != bytes(address) {
            return Err(PrefixError::HostBits { written: text.to_owned(), canonical: prefix });
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let six = Ipv6Addr::from(self.bytes);
        let (address, len, bits) = match six.to_ipv4_mapped() {
            Some(four) if self.is_v4() => (IpAddr::V4(Ipv4Addr::from(four.octets())), self.len - 96, 32),
            _ => (IpAddr::V6(six), self.len, 128),
        };
        if len == bits { write!(out, "{address}") } else { write!(out, "{address}/{len}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_share_one_space() {
        for (text, shown, len) in [
            ("203.0.113.0/24", "203.0.113.0/24", 120),
            ("203.0.113.7", "203.0.113.7", 128),
            ("::ffff:203.0.113.7", "203.0.113.7", 128),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24", 120),
            ("2001:db8::/32", "2001:db8::/32", 32),
            ("0.0.0.0/0", "0.0.0.0/0", 96),
            ("::/0", "::/0", 0),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!((prefix.to_string().as_str(), prefix.len), (shown, len), "{text}");
        }
        assert!("203.0.113.0/24".parse::<Prefix>().unwrap().holds("::ffff:203.0.113.9".parse().unwrap()));
        assert!(!"203.0.113.0/24".parse::<Prefix>().unwrap().holds("203.0.114.9".parse().unwrap()));
    }

    #[test]
    fn bad_ones_name_their_remedy() {
        for text in ["", "x", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/+8", "1.2.3.4/-1"] {
            assert!(matches!(text.parse::<Prefix>(), Err(PrefixError::Syntax(_))), "{text}");
        }
        for text in ["fe80::1%eth0", "fe80::1%2/64"] {
            let said = text.parse::<Prefix>().unwrap_err().to_string();
            assert!(said.starts_with(&format!("address {text}: ")) && said.contains("write fe80::1,"), "{said}");
        }
        assert!(matches!("1.2.3.4%eth0".parse::<Prefix>(), Err(PrefixError::Syntax(_))));
        let error = "203.0.113.7/24".parse::<Prefix>().unwrap_err();
        assert_eq!(error.to_string(), "address 203.0.113.7/24: bits behind the prefix are set; write 203.0.113.0/24");
    }

    #[test]
    fn covered_ones_go_and_neighbours_are_joined() {
        let of = |list: &[&str]| -> Vec<Prefix> { list.iter().map(|text| text.parse().unwrap()).collect() };
        let shown = |list: Vec<Prefix>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let list = of(&["10.0.0.3", "10.0.0.2", "10.0.0.0/31", "10.0.0.1", "192.0.2.7", "10.0.0.2", "2001:db8::/32"]);
        assert_eq!(
            shown(disjoint(list.clone())),
            ["10.0.0.0/31", "10.0.0.2", "10.0.0.3", "192.0.2.7", "2001:db8::/32"]
        );
        assert_eq!(shown(joined(list)), ["10.0.0.0/30", "192.0.2.7", "2001:db8::/32"]);
        let list = disjoint(of(&["10.0.0.0/31", "10.0.0.4", "10.0.0.8/29", "2001:db8::/32"]));
        for (address, at) in [
            ("10.0.0.1", Some(0)),
            ("10.0.0.2", None),
            ("10.0.0.4", Some(1)),
            ("10.0.0.15", Some(2)),
            ("10.0.0.16", None),
            ("9.255.255.255", None),
            ("2001:db8::1", Some(3)),
            ("2001:db9::", None),
        ] {
            assert_eq!(position(&list, address.parse().unwrap()), at, "{address}");
        }
    }

    #[test]
    fn wide_ones_are_told() {
        for (text, wide) in [
            ("0.0.0.0/0", true),
            ("8.0.0.0/7", true),
            ("10.0.0.0/8", false),
            ("::/0", true),
            ("::/80", true),
            ("2000::/3", true),
            ("2001::/16", false),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().is_too_wide(), wide, "{text}");
        }
    }
}
