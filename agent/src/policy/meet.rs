//! Which rule meets a call, judged from the call itself. The kernel half judges heads before they arrive; this judges
//! what was seen, by the same order and the same automaton for what is ambiguous.
//!
//! | head | rule with a path | rule marked strict |
//! |---|---|---|
//! | plain | by the table of [`super::pattern`] | the same |
//! | ambiguous in its path (`weir_common::judge::unclear`) | by the table of [`super::pattern`] | met, whatever its path |
//! | ambiguous elsewhere (two `Host`, both framings) | by what was read last | met, whatever it asks for |
//! | its target or host was not kept (privacy `strict`) | unknown | unknown |

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use weir_common::judge::{Judge, Signal, step};

use super::gcra;
use super::machine::Machine;
use super::rule::{Action, Limit, Mode, Rule, Who};
use super::set::RuleSet;
use super::shape::{cost, slack};
use crate::model::{Evidence, Exchange, Http, Kind, Operation, Service};

/// Buckets of rate limits that are kept, all rules together.
pub const BUCKETS: usize = 65_536;

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Which end saw it.
    pub kind: Kind,
    /// The client's address.
    pub client: IpAddr,
    /// The server's end.
    pub server: SocketAddr,
    /// The observed process's service.
    pub service: &'a Service,
    /// The other end's, where it is proven.
    pub peer: Option<&'a Service>,
    /// The request.
    pub http: &'a Http,
}

impl<'a> Seen<'a> {
    /// Of a call.
    #[must_use]
    pub fn of(exchange: &'a Exchange) -> Self {
        let (near, far) = (exchange.connection.local, exchange.connection.remote);
        let (client, server) = match exchange.kind {
            Kind::Client => (near.ip(), far),
            Kind::Server => (far.ip(), near),
        };
        let Operation::Http(http) = &exchange.call.operation;
        let service = &*exchange.service;
        // A name from outside is no identity: the kernel could not tell it.
        let peer = exchange.peer.as_deref().filter(|peer| peer.evidence != Evidence::External);
        Self { kind: exchange.kind, client, server, service, peer, http }
    }

    /// The other end's address.
    #[must_use]
    pub fn remote(&self) -> IpAddr {
        match self.kind {
            Kind::Client => self.server.ip(),
            Kind::Server => self.client,
        }
    }

    /// Why the head is ambiguous, bits of `weir_common::judge::unclear`; 0: it is not.
    #[must_use]
    pub fn unclear(&self) -> u16 {
        let Http { method, target, unclear, .. } = self.http;
        // One that was not kept whole is plain but for its target.
        let plain = target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_~-".contains(&byte));
        if plain {
            return *unclear;
        }
        *unclear | ambiguous(format!("{} {target} HTTP/1.1\r\n\r\n", method.as_str()).as_bytes())
    }
}

/// Why a request's head, as it was sent, is ambiguous: bits of `weir_common::judge::unclear`. The grammar alone says it,
/// whatever the rules are.
#[must_use]
pub fn ambiguous(head: &[u8]) -> u16 {
    static GRAMMAR: LazyLock<Option<Machine>> = LazyLock::new(|| Machine::build(&[]).ok());
    let Some(machine) = &*GRAMMAR else { return 0 };
    let mut regs = Judge::START;
    for &byte in head {
        match step(machine, &machine.classes, &mut regs, byte) {
            Some(Signal::Next | Signal::First | Signal::Target) => {}
            Some(Signal::Head | Signal::Body | Signal::Stop) | None => break,
        }
    }
    regs.unclear
}

/// Whether a rule is about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meets {
    /// It isn't.
    No,
    /// It is.
    Yes,
    /// What it asks for was not kept.
    Unknown,
}

impl Rule {
    /// Whether the rule is about a call; `unclear` as of [`Seen::unclear`].
    #[must_use]
    pub fn meets(&self, seen: &Seen<'_>, unclear: u16) -> Meets {
        let any = |prefixes: &[super::prefix::Prefix], address| {
            prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.holds(address))
        };
        let (client, server) = match seen.kind {
            Kind::Client => (Some(seen.service), seen.peer),
            Kind::Server => (seen.peer, Some(seen.service)),
        };
        let of = |who: &[Who], service: Option<&Service>| {
            who.is_empty() || service.is_some_and(|service| who.iter().any(|who| who.is(service)))
        };
        // Each rule holds at one end, so that a call that both ends show is met once.
        let here = self.at_client() == (seen.kind == Kind::Client);
        if !here
            || !self.is_about(seen.client)
            || !any(&self.servers, seen.server.ip())
            || !(self.ports.is_empty() || self.ports.contains(&seen.server.port()))
            || !of(&self.client_who, client)
            || !of(&self.server_who, server)
        {
            return Meets::No;
        }
        if self.strict && unclear & !weir_common::judge::unclear::TARGET != 0 {
            return Meets::Yes;
        }
        let wanted = &self.request;
        let method = seen.http.method.as_str();
        if !(wanted.methods.is_empty() || wanted.methods.iter().any(|name| **name == *method)) {
            return Meets::No;
        }
        // What privacy `strict` takes away.
        let kept = !seen.http.target.is_empty();
        let host = seen.http.host.as_deref().unwrap_or_default();
        if !wanted.hosts.is_empty() && host.is_empty() && !kept {
            return Meets::Unknown;
        }
        if !(wanted.hosts.is_empty() || wanted.hosts.iter().any(|pattern| pattern.matches(host))) {
            return Meets::No;
        }
        if wanted.paths.is_empty() {
            return Meets::Yes;
        }
        if self.strict && unclear != 0 {
            return Meets::Yes;
        }
        if !kept {
            return Meets::Unknown;
        }
        let met = wanted.paths.iter().any(|path| path.matches(&seen.http.target));
        if met { Meets::Yes } else { Meets::No }
    }

    /// The rule's time is over.
    #[must_use]
    pub fn is_over(&self, monotonic_ns: u64) -> bool {
        self.until.is_some_and(|until| until.monotonic_ns <= monotonic_ns)
    }
}

impl Who {
    /// A service on this node is this.
    #[must_use]
    pub fn is(&self, service: &Service) -> bool {
        let same = |text: Option<&Arc<str>>, wanted: &str| text.is_some_and(|text| **text == *wanted);
        let attribute = |key: &str| service.attributes.iter().find(|(name, _)| **name == *key).map(|(_, value)| value);
        match self {
            Self::Process(name) => {
                service.process.as_ref().and_then(|process| process.executable_name.as_ref()).is_some_and(
                    // Names are compared as `task_comm` shows them.
                    |full| full.as_bytes().get(..full.len().min(15)) == Some(name.as_bytes()),
                )
            }
            Self::Service(name) => *service.name == **name,
            Self::Unit(unit) => same(service.unit.as_ref(), unit),
            Self::Container(id) => service.container_id.as_ref().is_some_and(|full| full.starts_with(&**id)),
            Self::Pod(pod) => pod.split_once('/').is_some_and(|(namespace, name)| {
                same(attribute("k8s.namespace.name"), namespace) && same(attribute("k8s.pod.name"), name)
            }),
            Self::Attribute(key, value) => same(attribute(key), value),
            Self::Within(namespace, who) => {
                same(attribute("k8s.namespace.name"), namespace) && who.as_ref().is_none_or(|who| who.is(service))
            }
            Self::All(all) => all.iter().all(|who| who.is(service)),
        }
    }
}

/// Buckets of rate limits. Bounded: what is full again is forgotten first, which changes nothing; then what will be
/// full soonest, which lets a little more pass.
#[derive(Debug, Default)]
pub struct Buckets(HashMap<(Arc<str>, Option<IpAddr>), u64>);

impl Buckets {
    /// Whether a client's request passes a rule's limit at `now`, `CLOCK_MONOTONIC` nanoseconds.
    pub fn passes(&mut self, rule: &Arc<str>, limit: Limit, client: IpAddr, now: u64) -> bool {
        let key = (Arc::clone(rule), limit.per.of(client));
        if self.0.len() >= BUCKETS && !self.0.contains_key(&key) {
            self.0.retain(|_, arrival| *arrival > now);
            if self.0.len() >= BUCKETS {
                let mut arrivals: Vec<u64> = self.0.values().copied().collect();
                let (_, bound, _) = arrivals.select_nth_unstable(BUCKETS / 16);
                let bound = *bound;
                self.0.retain(|_, arrival| *arrival > bound);
            }
        }
        gcra::passes(self.0.entry(key).or_default(), now, cost(limit), slack(limit))
    }

    /// Buckets kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What all rules together say of a call.
#[derive(Debug, Default)]
pub struct Judged {
    /// The rule that refuses it.
    pub refused: Option<Arc<Rule>>,
    /// Rules that only watch, and met it.
    pub watched: Vec<Arc<Rule>>,
}

/// Judges a call: rules that meet it by rank, highest first, until one decides. `enforces`: rules in enforce mode are
/// carried out by the kernel half, so that here only the others count; one in monitor mode never takes a rule in enforce
/// mode's place.
pub fn judge(set: &RuleSet, seen: &Seen<'_>, buckets: &mut Buckets, now: u64, enforces: bool) -> Judged {
    let mut out = Judged::default();
    let mut unclear = None;
    let mut met: Vec<&Arc<Rule>> = set
        .around(seen.client)
        .filter(|rule| {
            let unclear = match unclear {
                Some(known) => known,
                None if rule.strict => *unclear.insert(seen.unclear()),
                None => 0,
            };
            !rule.is_over(now) && rule.meets(seen, unclear) == Meets::Yes
        })
        .collect();
    met.sort_by(|a, b| b.rank().cmp(&a.rank()).then_with(|| a.id.cmp(&b.id)));
    met.dedup_by(|a, b| a.id == b.id);
    for rule in met {
        match rule.action {
            Action::Deny | Action::Limit(_) if enforces && rule.mode == Mode::Enforce => {}
            Action::Allow => return out,
            Action::Watch => out.watched.push(Arc::clone(rule)),
            Action::Limit(limit) if buckets.passes(&rule.id, limit, seen.client, now) => {}
            Action::Deny | Action::Limit(_) => {
                out.refused = Some(Arc::clone(rule));
                return out;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::{Method, sample};
    use crate::policy::check::{Arrival, Nowhere, check};
    use crate::policy::rule::{Per, Source};

    fn rules(written: &[serde_json::Value]) -> RuleSet {
        let mut set = RuleSet::new().unwrap();
        let rules = written.iter().map(|rule| {
            let arrival = Arrival {
                source: Source::Control,
                author: "t".into(),
                monotonic_ns: 1_000,
                unix_ns: 1_000,
                id: "made".into(),
            };
            check(&serde_json::from_value(rule.clone()).unwrap(), &arrival, &Nowhere).unwrap()
        });
        let rules = rules.collect();
        set.change(&[], rules).unwrap();
        set
    }

    fn call(client: &str, target: &str) -> Exchange {
        let mut exchange = sample::exchange(Kind::Server);
        let connection = Arc::make_mut(&mut exchange.connection);
        connection.remote = SocketAddr::new(client.parse().unwrap(), 40_000);
        connection.local = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 1).into(), 80);
        let Operation::Http(http) = &mut exchange.call.operation;
        http.method = Method::Known("GET");
        http.target = target.into();
        exchange
    }

    fn who(set: &RuleSet, exchange: &Exchange, now: u64) -> Option<String> {
        let judged = judge(set, &Seen::of(exchange), &mut Buckets::default(), now, false);
        judged.refused.map(|rule| rule.id.to_string())
    }

    #[test]
    fn the_rule_of_highest_rank_decides() {
        let set = rules(&[
            serde_json::json!({"id": "net", "client": {"address": "203.0.113.0/24"}}),
            serde_json::json!({"id": "path", "client": {"address": "203.0.113.0/25"}, "path": "/login"}),
            serde_json::json!({"id": "friend", "action": "allow", "client": {"address": "203.0.113.7"}}),
            serde_json::json!({"id": "stern", "priority": 1, "client": {"address": "203.0.113.8/29"}, "path": "/x"}),
            serde_json::json!({"id": "brief", "ttl": "5s", "client": {"address": "192.0.2.0/24"}}),
        ]);
        for (client, target, winner) in [
            ("203.0.113.200", "/login", Some("net")),
            ("203.0.113.9", "/login", Some("path")),
            ("203.0.113.9", "/other", Some("net")),
            ("203.0.113.9", "/x/y", Some("stern")),
            ("203.0.113.7", "/login", None),
            ("::ffff:203.0.113.200", "/", Some("net")),
            ("198.51.100.9", "/login", None),
            ("192.0.2.1", "/", Some("brief")),
        ] {
            assert_eq!(who(&set, &call(client, target), 2_000).as_deref(), winner, "{client} {target}");
        }
        assert_eq!(who(&set, &call("192.0.2.1", "/"), 5_000_001_000), None, "its time is over");
    }

    #[test]
    fn strict_rules_meet_ambiguous_heads_and_unkept_targets_are_unknown() {
        let set = rules(&[
            serde_json::json!({"id": "lax", "path": "/admin"}),
            serde_json::json!({"id": "strict", "strict": true, "path": "/admin/x"}),
        ]);
        assert_eq!(who(&set, &call("192.0.2.1", "/public%2Fx"), 0).as_deref(), Some("strict"));
        assert_eq!(who(&set, &call("192.0.2.1", "/public"), 0), None);
        assert_eq!(who(&set, &call("192.0.2.1", "//admin/%78"), 0).as_deref(), Some("lax"));
        let kept = call("192.0.2.1", "");
        assert_eq!(set.get("lax").unwrap().meets(&Seen::of(&kept), 0), Meets::Unknown);
        assert_eq!(who(&set, &kept, 0), None);
    }

    #[test]
    fn what_is_ambiguous_beside_its_target_meets_strict_rules_whatever_they_ask_for() {
        let set = rules(&[
            serde_json::json!({"id": "lax", "path": "/admin"}),
            serde_json::json!({"id": "strict", "strict": true, "path": "/x", "method": "PUT", "server": {"host": "h"}}),
        ]);
        let with = |target: &str, head: &str| {
            let mut call = call("192.0.2.1", target);
            let Operation::Http(http) = &mut call.call.operation;
            http.unclear = ambiguous(head.as_bytes());
            call
        };
        let twice = "GET /y HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        assert_eq!(who(&set, &with("/y", twice), 0).as_deref(), Some("strict"));
        assert_eq!(who(&set, &with("/y", "GET /y HTTP/1.1\r\nHost: a\r\n\r\n"), 0), None);
        // Of its target alone: method and host are what they seem.
        assert_eq!(who(&set, &call("192.0.2.1", "/y%2Fx"), 0), None);
        // A host that was not kept may be any.
        let mut kept = call("192.0.2.1", "");
        let Operation::Http(http) = &mut kept.call.operation;
        (http.method, http.host) = (Method::Known("PUT"), None);
        assert_eq!(set.get("strict").unwrap().meets(&Seen::of(&kept), 0), Meets::Unknown);
    }

    #[test]
    fn all_keys_of_an_end_hold_together() {
        let set = rules(&[serde_json::json!({
            "id": "r", "client": {"service": ["a", "b"], "unit": "u", "container": "0123456789ab"}, "path": "/x",
        })]);
        let rule = set.get("r").unwrap();
        assert_eq!(rule.client_who.len(), 2, "{:?}", rule.client_who);
        let shown = "service a and unit u.service and container 0123456789ab";
        assert_eq!(rule.client_who[0].to_string(), shown);
        assert_eq!(set.groups().count(), 2, "one number for each combination");
        assert_eq!(rule.conditions(), 4);
        let service = |name: &str, unit: Option<&str>, container: Option<&str>| Service {
            name: name.into(),
            unit: unit.map(Arc::from),
            container_id: container.map(Arc::from),
            ..Service::unknown()
        };
        let id = Some("0123456789abcdef");
        for (service, met) in [
            (service("a", Some("u.service"), id), true),
            (service("b", Some("u.service"), id), true),
            (service("c", Some("u.service"), id), false),
            (service("a", Some("v.service"), id), false),
            (service("a", None, id), false),
            (service("a", Some("u.service"), None), false),
        ] {
            assert_eq!(rule.client_who.iter().any(|who| who.is(&service)), met, "{service:?}");
            let mut call = call("192.0.2.1", "/x");
            call.kind = Kind::Client;
            call.service = Arc::new(service);
            let got = rule.meets(&Seen::of(&call), 0);
            assert_eq!(got, if met { Meets::Yes } else { Meets::No });
        }
        // As many combinations as there are numbers, and not one more.
        let many = |n: usize| (0..n).map(|n| format!("s{n}")).collect::<Vec<_>>();
        let written = |units: usize| {
            let end = serde_json::json!({"service": many(8), "unit": many(units)});
            let rule = serde_json::from_value(serde_json::json!({"client": end, "path": "/"})).unwrap();
            let (source, author) = (Source::Control, "t".into());
            let arrival = Arrival { source, author, monotonic_ns: 1, unix_ns: 1, id: "made".into() };
            check(&rule, &arrival, &Nowhere).map(|rule| rule.client_who.len()).map_err(|error| error.to_string())
        };
        assert_eq!(written(8), Ok(64));
        assert!(written(9).unwrap_err().starts_with("client: more than 64 combinations"));
    }

    #[test]
    fn limits_count_each_client_and_forget_only_what_is_full() {
        let limit = Limit { requests: 10, per_ns: 1_000_000_000, burst: 3, per: Per::Client };
        let rule: Arc<str> = "l".into();
        let mut buckets = Buckets::default();
        let client = |n: u32| IpAddr::from(Ipv4Addr::from(n));
        let mut at = |n, now| buckets.passes(&rule, limit, client(n), now);
        assert_eq!((0..5).map(|_| at(1, 1)).filter(|passed| *passed).count(), 3);
        assert!(at(2, 1), "another client has its own");
        let mut networks = Buckets::default();
        let limit = Limit { per: Per::Network, ..limit };
        let mut passes = |client: &str| networks.passes(&rule, limit, client.parse().unwrap(), 1);
        assert_eq!((1..9).filter(|n| passes(&format!("2001:db8::{n}:1"))).count(), 3);
        assert_eq!((1..9).filter(|n| passes(&format!("2001:db8:0:1::{n}"))).count(), 3);
        assert_eq!((1..9).filter(|n| passes(&format!("::ffff:192.0.2.{n}"))).count(), 8);
        assert!(!at(1, 90_000_000));
        assert!(at(1, 100_000_001));
        let mut many = Buckets::default();
        let count = u32::try_from(BUCKETS).unwrap();
        for n in 0..2 * count {
            assert!(many.passes(&rule, limit, client(n), 1));
            assert!(many.len() <= BUCKETS);
        }
        // The full ones go: every other client's tokens are as they were.
        assert!(many.passes(&rule, limit, client(0), 10_000_000_000));
        assert!(many.len() <= BUCKETS);
    }
}
