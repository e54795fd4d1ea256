//! Which addresses stand for many clients: what requests of the last hour say of who is behind their sender. Each is a
//! claim of the sender, so it only makes a person think again who asks for a rule: files and feeds are not held up by it.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use super::allow::Allowed;
use crate::model::{Exchange, Kind, Operation};
use crate::policy::check::World;

/// Nanoseconds that a request counts at least; at most twice as long.
const WINDOW_NS: u64 = 1_800_000_000_000;
/// Addresses that are watched at once. What is beyond is not watched, and never called shared.
const ADDRESSES: usize = 4096;
/// Of one address that many different ones are told apart.
const APART: usize = 64;
/// A proxy that forwards for so many different clients stands for all of them.
const FORWARDED: usize = 3;
/// So many different user agents are not one client's.
const AGENTS: usize = 8;

/// What one address sent in one window.
#[derive(Debug, Default)]
struct Behind {
    requests: u64,
    /// Of these, those that said for whom they are forwarded.
    forwarding: u64,
    forwarded: Vec<u64>,
    agents: Vec<u64>,
    last: (Option<u64>, Option<u64>),
}

/// Who is behind which address.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    windows: [HashMap<IpAddr, Behind, RandomState>; 2],
    turned: u64,
    hash: RandomState,
}

fn add(set: &mut Vec<u64>, one: u64) {
    if set.len() < APART && !set.contains(&one) {
        set.push(one);
    }
}

impl Crowd {
    /// A request came; `monotonic_ns`: now.
    pub(super) fn came(&mut self, exchange: &Exchange, monotonic_ns: u64) {
        let client = exchange.connection.remote.ip();
        if exchange.kind != Kind::Server || client.is_loopback() {
            return;
        }
        if monotonic_ns.saturating_sub(self.turned) >= WINDOW_NS {
            self.turned = monotonic_ns;
            let [now, before] = &mut self.windows;
            *before = std::mem::take(now);
        }
        let Operation::Http(http) = &exchange.call.operation;
        let agent = http.user_agent.as_deref().map(|agent| self.hash.hash_one(agent));
        let [now, _] = &mut self.windows;
        if now.len() >= ADDRESSES && !now.contains_key(&client) {
            return;
        }
        let behind = now.entry(client).or_default();
        behind.requests += 1;
        behind.forwarding += u64::from(http.forwarded.is_some());
        if behind.last != (http.forwarded, agent) {
            behind.last = (http.forwarded, agent);
            if let Some(one) = http.forwarded {
                add(&mut behind.forwarded, one);
            }
            if let Some(one) = agent {
                add(&mut behind.agents, one);
            }
        }
    }

    /// Why an address stands for many clients, with figures; `None`: nothing says so.
    pub(super) fn behind(&self, address: IpAddr) -> Option<Box<str>> {
        let mut all = Behind::default();
        for behind in self.windows.iter().filter_map(|window| window.get(&address)) {
            all.requests += behind.requests;
            all.forwarding += behind.forwarding;
            for one in &behind.forwarded {
                add(&mut all.forwarded, *one);
            }
            for one in &behind.agents {
                add(&mut all.agents, *one);
            }
        }
        let Behind { requests, forwarding, forwarded, agents, .. } = all;
        let many = |count: usize| if count >= APART { format!("{count} and more") } else { count.to_string() };
        if forwarded.len() >= FORWARDED {
            let clients = many(forwarded.len());
            return Some(
                format!("a proxy: {forwarding} of its {requests} requests of the last 30 to 60 minutes say that they are forwarded for {clients} different clients")
                    .into(),
            );
        }
        (agents.len() >= AGENTS).then(|| {
            let agents = many(agents.len());
            format!("most likely a proxy or NAT: its {requests} requests of the last 30 to 60 minutes name {agents} different user agents").into()
        })
    }
}

/// What a person's rule is checked against.
pub(super) struct Near<'a> {
    pub(super) allowed: &'a Allowed,
    pub(super) crowd: &'a Crowd,
}

impl World for Near<'_> {
    fn shared(&self, address: IpAddr) -> Option<Box<str>> {
        self.allowed.shared(address).or_else(|| self.crowd.behind(address))
    }

    fn own(&self, address: Option<IpAddr>, port: u16) -> Option<Box<str>> {
        self.allowed.own(address, port)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use super::*;
    use crate::model::sample;

    fn call(client: u32, forwarded: Option<u64>, agent: &str) -> Exchange {
        let mut exchange = sample::exchange(Kind::Server);
        let address = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + client));
        Arc::make_mut(&mut exchange.connection).remote = SocketAddr::new(address, 4000);
        let http = sample::http(&mut exchange);
        (http.forwarded, http.user_agent) = (forwarded, Some(agent.into()));
        exchange
    }

    fn behind(crowd: &Crowd, client: u32) -> String {
        crowd.behind(Ipv4Addr::from(0x0a00_0000 + client).into()).unwrap_or_default().into()
    }

    #[test]
    fn proxies_and_nats_are_told_with_figures() {
        let mut crowd = Crowd::default();
        for n in 0..10 {
            crowd.came(&call(1, Some(n % 5), "proxy"), 1);
            crowd.came(&call(2, None, &format!("agent {n}")), 1);
            crowd.came(&call(3, Some(n % 2), "friend of two"), 1);
            crowd.came(&call(4, None, &format!("agent {}", n % 7)), 1);
        }
        crowd.came(&call(1, None, "itself"), 1);
        assert!(behind(&crowd, 1).starts_with("a proxy: 10 of its 11 requests"), "{}", behind(&crowd, 1));
        assert!(behind(&crowd, 1).contains("for 5 different clients"));
        assert!(behind(&crowd, 2).contains("10 requests") && behind(&crowd, 2).contains("10 different user agents"));
        assert_eq!([behind(&crowd, 3), behind(&crowd, 4), behind(&crowd, 5)], ["", "", ""]);
    }

    #[test]
    fn what_is_long_ago_does_not_count_and_memory_is_bounded() {
        let mut crowd = Crowd::default();
        crowd.came(&call(1, Some(1), "a"), WINDOW_NS);
        crowd.came(&call(1, Some(2), "a"), WINDOW_NS);
        crowd.came(&call(1, Some(3), "a"), 2 * WINDOW_NS);
        assert!(behind(&crowd, 1).contains("for 3 different clients"), "two windows count together");
        crowd.came(&call(1, Some(3), "a"), 3 * WINDOW_NS);
        assert_eq!(behind(&crowd, 1), "");
        for n in 0..200 {
            crowd.came(&call(1, Some(n), "a"), 3 * WINDOW_NS);
        }
        assert!(behind(&crowd, 1).contains("for 64 and more different clients"), "{}", behind(&crowd, 1));
        for n in 0..10_000 {
            crowd.came(&call(n, None, "a"), 3 * WINDOW_NS);
        }
        assert_eq!(crowd.windows[0].len(), ADDRESSES);
    }
}
