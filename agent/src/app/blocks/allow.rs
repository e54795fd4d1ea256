//! Who is never met: the allow-list. Its soft part (this node itself) gives way to rules that are forced. It is gathered
//! anew every 15 s: addresses, gateways, resolvers and names change.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Settings;
use crate::identity::kube::State;
use crate::policy::check::World;
use crate::policy::prefix::Prefix;

use super::names::Names;
use super::session::Session;

/// Ssh clients that are remembered at once; of more, the first one is forgotten.
const SESSIONS: usize = 64;
/// What an entry of such a client is.
const SESSION: &str = "the ssh client of who asked for a rule";

struct Entry {
    prefix: Prefix,
    soft: bool,
    what: &'static str,
    /// Calls; counted by whoever judges, beside others that read the list.
    saved: AtomicU64,
}

impl Entry {
    fn saved(&self) -> u64 {
        self.saved.load(Ordering::Relaxed)
    }
}

impl Clone for Entry {
    fn clone(&self) -> Self {
        Self { saved: self.saved().into(), ..*self }
    }
}

/// The allow-list, with what it saved.
pub(super) struct Allowed {
    entries: Vec<Entry>,
    prometheus: Option<u16>,
    sessions: Vec<Session>,
    /// What has a name that could not be resolved.
    unresolved: Vec<&'static str>,
    /// Who has which address in the cluster.
    cluster: Option<Arc<State>>,
}

impl Allowed {
    /// Reads what this node says of itself: addresses, gateways, resolvers, the API server and the OTLP endpoint. Names
    /// that have no address after `patience` are left out, and told as not resolved.
    pub(super) fn gather(settings: &Settings, names: &Names, patience: Duration) -> Self {
        let mut out = Self {
            entries: Vec::new(),
            prometheus: settings.prometheus.map(|address| address.port()),
            sessions: Vec::new(),
            unresolved: Vec::new(),
            cluster: None,
        };
        out.take(Prefix::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8), true, "loopback");
        out.take(Prefix::host(Ipv6Addr::LOCALHOST.into()), true, "loopback");
        for address in own() {
            out.take(Prefix::host(address), true, "an address of this node");
        }
        for address in gateways() {
            out.take(Prefix::host(address), false, "a default gateway of this node");
        }
        for address in resolvers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()) {
            // A resolver on loopback is a program of this node, as any other.
            out.take(Prefix::host(address), address.is_loopback(), "a DNS resolver of this node");
        }
        if let Ok(host) = std::env::var("KUBERNETES_SERVICE_HOST") {
            out.resolve(&host, "the Kubernetes API server", names.of(&host, patience));
        }
        let otlp = settings.otlp.iter();
        let endpoints = otlp
            .flat_map(|otlp| [&otlp.endpoint, &otlp.traces.endpoint, &otlp.metrics.endpoint, &otlp.logs.endpoint])
            .flatten();
        for endpoint in endpoints {
            let authority = endpoint.split("://").nth(1).unwrap_or(endpoint).split('/').next().unwrap_or_default();
            let host = match authority.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                _ => authority,
            };
            let host = host.trim_matches(['[', ']']);
            out.resolve(host, "the OTLP endpoint", names.of(host, patience));
        }
        out
    }

    /// Addresses of the cluster's Services and nodes stand for many, too.
    pub(super) fn know(&mut self, cluster: Arc<State>) {
        self.cluster = Some(cluster);
    }

    /// What the cluster tells of them.
    pub(super) fn cluster(&self) -> Option<Arc<State>> {
        self.cluster.clone()
    }

    fn take(&mut self, prefix: Prefix, soft: bool, what: &'static str) {
        self.entries.push(Entry { prefix, soft, what, saved: 0.into() });
    }

    fn resolve(&mut self, host: &str, what: &'static str, found: Option<Vec<IpAddr>>) {
        let Some(found) = found else {
            self.unresolved.push(what);
            tracing::debug!(host, what, "its address is not known");
            return;
        };
        for address in found {
            self.take(Prefix::host(address), address.is_loopback(), what);
        }
    }

    /// Says whose address is not known at all.
    pub(super) fn warn(&self) {
        for what in &self.unresolved {
            if !self.entries.iter().any(|entry| entry.what == *what) {
                tracing::warn!("{what} is not on the allow-list: its name has no address (yet)");
            }
        }
    }

    /// The ssh client is on the list already.
    pub(super) fn knows(&self, session: &Session) -> bool {
        self.sessions.contains(session)
    }

    /// Adds an ssh client; true: the list has changed.
    pub(super) fn admin(&mut self, session: Session) -> bool {
        if self.knows(&session) {
            return false;
        }
        tracing::info!(client = %session.client(), "{SESSION} is on the allow-list while it is connected");
        self.sessions.truncate(SESSIONS - 1);
        self.sessions.insert(0, session);
        self.log_in();
        true
    }

    /// Ssh clients that are still connected.
    pub(super) fn living(&self) -> Vec<Session> {
        self.sessions.iter().filter(|session| session.lives()).cloned().collect()
    }

    /// Entries of the ssh clients that are connected.
    fn log_in(&mut self) {
        let old: Vec<Entry> = self.entries.extract_if(.., |entry| entry.what == SESSION).collect();
        for session in &self.sessions {
            let prefix = Prefix::host(session.client());
            if !self.entries.iter().any(|entry| entry.prefix == prefix) {
                let saved = old.iter().find(|entry| entry.prefix == prefix).map_or(0, Entry::saved);
                let soft = session.client().is_loopback();
                self.entries.push(Entry { prefix, soft, what: SESSION, saved: saved.into() });
            }
        }
    }

    /// Takes over what was gathered anew; counts go on, and so do addresses of a name that has none right now. True: the
    /// list has changed. `living`: ssh clients that are still connected.
    pub(super) fn renew(&mut self, mut fresh: Self, living: Vec<Session>) -> bool {
        for entry in self.entries.iter().filter(|entry| fresh.unresolved.contains(&entry.what)) {
            fresh.entries.push(entry.clone());
        }
        fresh.entries.extend(self.entries.iter().filter(|entry| entry.what == SESSION).cloned());
        fresh.sessions = living;
        fresh.log_in();
        fresh.cluster = self.cluster.take();
        for entry in &mut fresh.entries {
            let same = |old: &&Entry| old.prefix == entry.prefix && old.what == entry.what;
            entry.saved = self.entries.iter().find(same).map_or(0, Entry::saved).into();
        }
        let told = |list: &Self| -> Vec<_> { list.told().collect() };
        let (before, after) = (told(self), told(&fresh));
        for (prefix, _, what) in before.iter().filter(|entry| !after.contains(entry)) {
            tracing::info!(address = %prefix, what, "no longer on the allow-list");
        }
        for (prefix, _, what) in after.iter().filter(|entry| !before.contains(entry)) {
            tracing::info!(address = %prefix, what, "on the allow-list now");
        }
        let changed = before != after;
        *self = fresh;
        changed
    }

    /// The address must not be met; counted.
    pub(super) fn saves(&self, address: IpAddr, forced: bool) -> bool {
        let entry = self.entries.iter().find(|entry| entry.prefix.holds(address) && !(forced && entry.soft));
        entry.map(|entry| entry.saved.fetch_add(1, Ordering::Relaxed)).is_some()
    }

    /// Prefixes, and whether they are soft.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (Prefix, bool)> {
        // Of entries with the same prefix the hard one counts.
        self.entries.iter().map(|entry| {
            let hard = self.entries.iter().any(|other| other.prefix == entry.prefix && !other.soft);
            (entry.prefix, !hard)
        })
    }

    /// Prefixes, whether they give way to force, and what they are.
    pub(super) fn told(&self) -> impl Iterator<Item = (Prefix, bool, &'static str)> {
        self.entries.iter().map(|entry| (entry.prefix, entry.soft, entry.what))
    }

    /// The address is on the list.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.entries.iter().any(|entry| entry.prefix.holds(address))
    }

    /// Entries, the calls that they saved, and the connections that the kernel half let pass for their addresses.
    pub(super) fn rows(&self, connections: impl Fn(&Prefix) -> u64) -> Vec<Value> {
        let row = |entry: &Entry| {
            json!({
                "address": entry.prefix.to_string(), "what": entry.what, "saved": entry.saved(),
                "connections_saved": connections(&entry.prefix), "gives_way_to_force": entry.soft,
            })
        };
        self.entries.iter().map(row).collect()
    }
}

impl World for Allowed {
    fn shared(&self, address: IpAddr) -> Option<Box<str>> {
        let own = self.entries.iter().find(|entry| entry.prefix.holds(address)).map(|entry| entry.what.into());
        own.or_else(|| self.cluster.as_ref()?.shared(address))
    }

    fn own(&self, _: Option<IpAddr>, port: u16) -> Option<Box<str>> {
        (self.prometheus == Some(port)).then(|| "Weir's own Prometheus endpoint".into())
    }
}

/// Addresses of this node's interfaces. IPv4 as the kernel's table of local routes has them, IPv6 as its list.
fn own() -> Vec<IpAddr> {
    let mut out = Vec::new();
    let trie = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut last = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            out.extend(last.filter(|address| !address.is_loopback()).map(IpAddr::from));
        }
    }
    let six = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let six = six.lines().filter_map(|line| u128::from_str_radix(line.split_whitespace().next()?, 16).ok());
    out.extend(six.map(Ipv6Addr::from).filter(|address| !address.is_loopback()).map(IpAddr::from));
    out.sort_unstable();
    out.dedup();
    out
}

/// Default gateways of the routing tables in `/proc/net`.
fn gateways() -> Vec<IpAddr> {
    let four = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let six = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    four.lines().skip(1).filter_map(gateway4).chain(six.lines().filter_map(gateway6)).collect()
}

fn gateway4(line: &str) -> Option<IpAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (to, gateway) = (fields.next()?, fields.next()?);
    let gateway = u32::from_str_radix(gateway, 16).ok()?;
    // Written as the machine keeps it.
    (to == "00000000" && gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()).into())
}

fn gateway6(line: &str) -> Option<IpAddr> {
    let mut fields = line.split_whitespace();
    let (to, len, gateway) = (fields.next()?, fields.next()?, fields.nth(2)?);
    let gateway = u128::from_str_radix(gateway, 16).ok()?;
    (to.bytes().all(|byte| byte == b'0') && len == "00" && gateway != 0).then(|| Ipv6Addr::from(gateway).into())
}

fn resolvers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().split('%').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_and_resolvers_are_read() {
        let line = "eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        if cfg!(target_endian = "little") {
            assert_eq!(gateway4(line), Some(Ipv4Addr::new(10, 0, 2, 1).into()));
        }
        assert_eq!(gateway4("eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"), None);
        let zeros = "0".repeat(32);
        let six = format!("{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 1 0 450003 eth0");
        assert_eq!(gateway6(&six), Some("fe80::1".parse().unwrap()));
        assert_eq!(resolvers("# x\nnameserver 10.0.0.2\nsearch a\nnameserver fe80::1%eth0\n").len(), 2);
    }
}
