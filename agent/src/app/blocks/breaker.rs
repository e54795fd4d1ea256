//! The circuit breaker: a rule that refuses most of a service's clients is taken for a mistake and goes back to monitor
//! mode. Clients are counted, not requests: one attacker that is refused often is what rules are for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Nanoseconds that a client counts at least; at most twice as long.
const WINDOW_NS: u64 = 10_000_000_000;
/// Server ports that are watched at once. What is beyond is not watched.
const PORTS: usize = 1024;
/// Clients of a port, and of a rule there, that are told apart: enough to tell a share.
const CLIENTS: usize = 4096;

/// When a rule is taken for a mistake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Threshold {
    /// It refuses so many clients of a port at least; 0: never.
    pub(super) clients: usize,
    /// And more than this share of those that came.
    pub(super) share: f64,
}

/// Clients of one port in one window.
#[derive(Debug, Default)]
struct Window {
    all: HashSet<IpAddr>,
    refused: BTreeMap<Arc<str>, HashSet<IpAddr>>,
}

/// Who came where, and who was refused by what.
#[derive(Debug)]
pub(super) struct Breaker {
    threshold: Threshold,
    ports: HashMap<u16, [Window; 2]>,
    turned: u64,
}

/// A rule that is taken for a mistake, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tripped {
    pub(super) rule: Arc<str>,
    pub(super) why: String,
    /// One word for a metric.
    pub(super) reason: &'static str,
}

impl Breaker {
    pub(super) fn new(threshold: Threshold) -> Self {
        Self { threshold, ports: HashMap::new(), turned: 0 }
    }

    /// Takes another threshold; what was counted stays.
    pub(super) fn set(&mut self, threshold: Threshold) {
        self.threshold = threshold;
    }

    fn window(&mut self, port: u16) -> Option<&mut Window> {
        if self.threshold.clients == 0 || (self.ports.len() >= PORTS && !self.ports.contains_key(&port)) {
            return None;
        }
        self.ports.entry(port).or_default().first_mut()
    }

    /// A client was answered, or not, at a port.
    pub(super) fn came(&mut self, port: u16, client: IpAddr) {
        if let Some(window) = self.window(port)
            && window.all.len() < CLIENTS
        {
            window.all.insert(client);
        }
    }

    /// A client was refused at a port.
    pub(super) fn refused(&mut self, port: u16, client: IpAddr, rule: &Arc<str>) {
        self.came(port, client);
        if let Some(window) = self.window(port) {
            let clients = window.refused.entry(Arc::clone(rule)).or_default();
            if clients.len() < CLIENTS {
                clients.insert(client);
            }
        }
    }

    /// Rules that refuse too many; to be asked about once a second. Each is told once, its counts are forgotten.
    pub(super) fn look(&mut self, monotonic_ns: u64) -> Vec<Tripped> {
        let Threshold { clients: least, share } = self.threshold;
        let mut tripped = Vec::new();
        for (port, windows) in &mut self.ports {
            let [now, before] = windows;
            let all = now.all.union(&before.all).count();
            let rules: HashSet<Arc<str>> = now.refused.keys().chain(before.refused.keys()).cloned().collect();
            for rule in rules {
                let of = |window: &Window| window.refused.get(&rule).cloned().unwrap_or_default();
                let refused = of(now).union(&of(before)).count();
                if least == 0 || refused < least || refused as f64 <= share * all as f64 {
                    continue;
                }
                now.refused.remove(&rule);
                before.refused.remove(&rule);
                let seconds = WINDOW_NS / 1_000_000_000;
                let why = format!(
                    "it refused {refused} of {all} clients at port {port} within {seconds} to {} s",
                    2 * seconds
                );
                tripped.push(Tripped { rule, why, reason: "clients" });
            }
        }
        if monotonic_ns.saturating_sub(self.turned) >= WINDOW_NS {
            self.turned = monotonic_ns;
            for [now, before] in self.ports.values_mut() {
                *before = std::mem::take(now);
            }
            self.ports.retain(|_, [_, before]| !before.all.is_empty());
        }
        tripped
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    fn breaker() -> Breaker {
        let mut breaker = Breaker::new(Threshold { clients: 20, share: 0.5 });
        assert_eq!(breaker.look(WINDOW_NS), []);
        breaker
    }

    #[test]
    fn most_clients_refused_is_a_mistake() {
        let (mut breaker, rule) = (breaker(), Arc::<str>::from("r"));
        (0..30).for_each(|n| breaker.refused(80, client(n), &rule));
        (100..120).for_each(|n| breaker.came(80, client(n)));
        (0..500).for_each(|n| breaker.came(81, client(n)));
        let tripped = breaker.look(WINDOW_NS + 1);
        assert_eq!(tripped.len(), 1);
        assert!(tripped[0].why.contains("30 of 50 clients at port 80"), "{}", tripped[0].why);
        assert_eq!(breaker.look(WINDOW_NS + 2), [], "told once");
    }

    #[test]
    fn few_clients_or_a_small_share_are_not() {
        let (mut breaker, rule) = (breaker(), Arc::<str>::from("r"));
        for _ in 0..10_000 {
            breaker.refused(80, client(1), &rule);
        }
        (0..19).for_each(|n| breaker.refused(81, client(n), &rule));
        (0..30).for_each(|n| breaker.refused(82, client(n), &rule));
        (100..130).for_each(|n| breaker.came(82, client(n)));
        assert_eq!(breaker.look(WINDOW_NS + 1), []);
    }

    #[test]
    fn what_is_long_ago_does_not_count_and_memory_is_bounded() {
        let (mut breaker, rule) = (breaker(), Arc::<str>::from("r"));
        (0..15).for_each(|n| breaker.refused(80, client(n), &rule));
        assert_eq!(breaker.look(2 * WINDOW_NS), []);
        (15..25).for_each(|n| breaker.refused(80, client(n), &rule));
        assert_eq!(breaker.look(2 * WINDOW_NS + 1).len(), 1, "two windows count together");
        (0..15).for_each(|n| breaker.refused(80, client(n), &rule));
        assert_eq!(breaker.look(3 * WINDOW_NS), []);
        assert_eq!(breaker.look(4 * WINDOW_NS), []);
        (15..25).for_each(|n| breaker.refused(80, client(n), &rule));
        assert_eq!(breaker.look(5 * WINDOW_NS), [], "the first are forgotten");
        for port in 0..5_000 {
            breaker.came(port, client(port.into()));
        }
        assert!(breaker.ports.len() <= PORTS);
    }
}
