//! Other hosts that have an agent of their own, as the configuration names them.
//!
//! A call to such a host is told by both agents: by this one with its client's name, by the other one with its server's.
//! Ids of spans are made of what both see on the wire, so that each side knows the other's span; an edge of the graph is
//! told by the client's side.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Service;

/// An address as 128 bits, IPv4 as IPv4-mapped IPv6.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The first `len` of 128 bits.
fn cut(bits: u128, len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0) & bits
}

/// The hosts. Empty: this node is alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hosts {
    /// Prefixes, each with its length of 128 bits.
    prefixes: HashSet<(u8, u128)>,
    /// Lengths that occur.
    lengths: BTreeSet<u8>,
    /// Who answers, by prefix and port.
    services: HashMap<(u8, u128, u16), Arc<Service>>,
}

impl Hosts {
    /// Adds the addresses of a host: a prefix of `len` of 128 bits (an IPv4 address is its IPv4-mapped IPv6 address, all
    /// 128), and who answers there, by port.
    pub fn add(&mut self, address: IpAddr, len: u8, services: &[(u16, Arc<Service>)]) {
        let prefix = cut(bits(address), len);
        self.lengths.insert(len);
        self.prefixes.insert((len, prefix));
        self.services.extend(services.iter().map(|(port, service)| ((len, prefix, *port), Arc::clone(service))));
    }

    /// Whether an address is one of another host with an agent.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.lengths.iter().any(|len| self.prefixes.contains(&(*len, cut(bits, *len))))
    }

    /// Who answers at an address and port of another host; the longest prefix decides.
    #[must_use]
    pub fn at(&self, end: SocketAddr) -> Option<&Arc<Service>> {
        let bits = bits(end.ip());
        self.lengths.iter().rev().find_map(|len| self.services.get(&(*len, cut(bits, *len), end.port())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        let named = |name: &str| Arc::new(Service { name: name.into(), ..Service::unknown() });
        let mut hosts = Hosts::default();
        hosts.add("10.1.0.2".parse().unwrap(), 128, &[(80, named("shop")), (5432, named("postgres"))]);
        hosts.add("10.2.0.0".parse().unwrap(), 96 + 16, &[(80, named("mesh"))]);
        hosts.add("10.2.3.4".parse().unwrap(), 128, &[(80, named("edge"))]);
        hosts.add("fd00::".parse().unwrap(), 64, &[]);
        hosts
    }

    fn at(end: &str) -> Option<String> {
        hosts().at(end.parse().unwrap()).map(|service| service.name.to_string())
    }

    #[test]
    fn hosts_are_known_by_address_and_prefix() {
        let has = |address: &str| hosts().has(address.parse().unwrap());
        for inside in ["10.1.0.2", "10.2.0.0", "10.2.255.255", "fd00::7", "::ffff:10.1.0.2"] {
            assert!(has(inside), "{inside}");
        }
        for outside in ["10.1.0.3", "10.3.0.0", "127.0.0.1", "fd00:0:0:1::", "::"] {
            assert!(!has(outside), "{outside}");
        }
        assert!(!Hosts::default().has("10.1.0.2".parse().unwrap()));
    }

    #[test]
    fn who_answers_is_known_by_port_and_the_longest_prefix_decides() {
        assert_eq!(at("10.1.0.2:80").as_deref(), Some("shop"));
        assert_eq!(at("10.1.0.2:5432").as_deref(), Some("postgres"));
        assert_eq!(at("10.1.0.2:81"), None);
        assert_eq!(at("10.2.9.9:80").as_deref(), Some("mesh"));
        assert_eq!(at("10.2.3.4:80").as_deref(), Some("edge"));
        assert_eq!(at("[::ffff:10.1.0.2]:80").as_deref(), Some("shop"));
    }
}
