//! A rule as usable: everything about it was checked.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::machine::Conditions;
use super::prefix::{self, Prefix};

/// What a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let it pass, whatever rules of lower rank say.
    Allow,
    /// Refuse it.
    Deny,
    /// Refuse what exceeds a rate.
    Limit(Limit),
    /// Count it and say so.
    Watch,
}

impl Action {
    /// CONTRACT's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Limit(_) => "limit",
            Self::Watch => "watch",
        }
    }
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Requests…
    pub requests: u32,
    /// … in so many nanoseconds.
    pub per_ns: u64,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
    /// Whose requests come from one bucket.
    pub per: Per,
}

/// Who shares a bucket of a [`Limit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Per {
    /// Nobody: each client address has its own.
    #[default]
    Client,
    /// Clients of one network: the first 64 bits of an IPv6 address, of which whoever has one has all that are below
    /// (RFC 6177); each IPv4 address has its own.
    Network,
    /// All clients.
    Rule,
}

impl Per {
    /// CONTRACT's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Network => "network",
            Self::Rule => "rule",
        }
    }

    /// Whose bucket a client's requests come from; absent: everyone's. As the kernel half has it (`gate::decide`).
    #[must_use]
    pub fn of(self, client: IpAddr) -> Option<IpAddr> {
        match (self, client) {
            (Self::Rule, _) => None,
            (Self::Network, IpAddr::V6(address)) if address.to_ipv4_mapped().is_none() => {
                Some(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into())
            }
            _ => Some(client),
        }
    }
}

/// Whether a rule may drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Counted and shown, nothing dropped.
    #[default]
    Monitor,
    /// Carried out.
    Enforce,
}

impl Mode {
    /// CONTRACT's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Enforce => "enforce",
        }
    }
}

/// How a refused connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Both ends hear of it at once.
    #[default]
    Reset,
    /// In silence: cheapest under a flood.
    Drop,
}

impl Ending {
    /// CONTRACT's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Drop => "drop",
        }
    }
}

/// An identity on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// Name of the executable, as `task_comm` shows it (15 bytes).
    Process(Box<str>),
    /// `service.name`.
    Service(Box<str>),
    /// systemd unit.
    Unit(Box<str>),
    /// Container id, or at least 12 characters of its start.
    Container(Box<str>),
    /// `namespace/name` of a pod.
    Pod(Box<str>),
    /// A Resource attribute, `key=value`.
    Attribute(Box<str>, Box<str>),
    /// A pod of this namespace of Kubernetes, any or one that is also this.
    Within(Box<str>, Option<Box<Who>>),
    /// All of these at once, at least two.
    All(Box<[Who]>),
}

impl Who {
    /// How many conditions it is made of.
    fn conditions(&self) -> u32 {
        match self {
            Self::Within(_, who) => 1 + who.as_ref().map_or(0, |who| who.conditions()),
            Self::All(all) => all.iter().map(Self::conditions).sum(),
            _ => 1,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(name) => write!(out, "process {name}"),
            Self::Service(name) => write!(out, "service {name}"),
            Self::Unit(name) => write!(out, "unit {name}"),
            Self::Container(id) => write!(out, "container {id}"),
            Self::Pod(name) => write!(out, "pod {name}"),
            Self::Attribute(key, value) => write!(out, "{key}={value}"),
            Self::Within(namespace, None) => write!(out, "namespace {namespace}"),
            Self::Within(namespace, Some(who)) => write!(out, "{who} in namespace {namespace}"),
            Self::All(all) => all.iter().enumerate().try_for_each(|(at, who)| {
                let and = if at == 0 { "" } else { " and " };
                write!(out, "{and}{who}")
            }),
        }
    }
}

/// Who made a rule, and through which door.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The config file.
    Config,
    /// A file of the watched directory.
    File(Arc<str>),
    /// CLI or control API.
    Control,
    /// A feed.
    Feed(Arc<str>),
    /// A detector of this agent.
    Detector(Arc<str>),
    /// A `WeirPolicy`, `namespace/name`.
    Cluster(Arc<str>),
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => out.write_str("config"),
            Self::File(path) => write!(out, "file {path}"),
            Self::Control => out.write_str("control"),
            Self::Feed(name) => write!(out, "feed {name}"),
            Self::Detector(name) => write!(out, "detector {name}"),
            Self::Cluster(name) => write!(out, "policy {name}"),
        }
    }
}

/// Until when a rule holds. Both are taken at the same moment, so that a step of the wall clock moves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Until {
    /// `CLOCK_MONOTONIC` nanoseconds: what the kernel half compares.
    pub monotonic_ns: u64,
    /// Nanoseconds since the Unix epoch: what people read.
    pub unix_ns: u64,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `weir.block.id`: unique, 1 to 64 characters.
    pub id: Arc<str>,
    /// What it asks for.
    pub action: Action,
    /// Whether it may drop.
    pub mode: Mode,
    /// How what it refuses ends.
    pub ending: Ending,
    /// Ambiguous heads are met too.
    pub strict: bool,
    /// It overrules the soft part of the allow-list, and was taken in spite of a warning.
    pub force: bool,
    /// −100..=100; higher wins.
    pub priority: i8,
    /// Client addresses, disjoint and sorted; empty: any.
    pub clients: Vec<Prefix>,
    /// Ends of single ones of `clients`, in their order, `CLOCK_MONOTONIC` nanoseconds; 0, or empty: the rule's own.
    pub ends: Vec<u64>,
    /// Client identities on this node, alternatives of each other; empty: any.
    pub client_who: Vec<Who>,
    /// Server identities on this node, alternatives of each other; empty: any.
    pub server_who: Vec<Who>,
    /// Server addresses; empty: any.
    pub servers: Vec<Prefix>,
    /// Server ports; empty: any.
    pub ports: Vec<u16>,
    /// What it asks of the request.
    pub request: Conditions,
    /// Until when it holds.
    pub until: Option<Until>,
    /// Who wants it.
    pub author: Arc<str>,
    /// `weir.block.reason`.
    pub reason: Arc<str>,
    /// Through which door it came.
    pub source: Source,
    /// When it came, nanoseconds since the Unix epoch.
    pub created_unix_ns: u64,
}

impl Rule {
    /// It is judged by request, not by connection.
    #[must_use]
    pub fn reads_requests(&self) -> bool {
        let Conditions { methods, paths, hosts } = &self.request;
        matches!(self.action, Action::Limit(_)) || !(methods.is_empty() && paths.is_empty() && hosts.is_empty())
    }

    /// A client has an address that it is about.
    #[must_use]
    pub fn is_about(&self, client: IpAddr) -> bool {
        self.clients.is_empty() || prefix::position(&self.clients, client).is_some()
    }

    /// When it ends for one of `clients`, `CLOCK_MONOTONIC` nanoseconds; 0: never.
    #[must_use]
    pub fn end_of(&self, client: &Prefix) -> u64 {
        let until = self.until.map_or(0, |until| until.monotonic_ns);
        if self.ends.is_empty() {
            return until;
        }
        let at = self.clients.binary_search(client).ok();
        match at.and_then(|at| self.ends.get(at)).copied().unwrap_or_default() {
            0 => until,
            end if until == 0 => end,
            end => end.min(until),
        }
    }

    /// It holds where the client is on this node; else where the server is. One that names both ends holds where the
    /// server is, which hears from the client's end who calls.
    #[must_use]
    pub fn at_client(&self) -> bool {
        self.server_who.is_empty() && !(self.client_who.is_empty() && self.servers.is_empty())
    }

    /// Conditions it has, one for each key that it names, 0..=19: rules with more of them win over rules with fewer.
    #[must_use]
    pub fn conditions(&self) -> u32 {
        let Conditions { methods, paths, hosts } = &self.request;
        let keys = [
            !self.clients.is_empty(),
            !self.servers.is_empty(),
            !self.ports.is_empty(),
            !methods.is_empty(),
            !paths.is_empty(),
            !hosts.is_empty(),
        ];
        // The alternatives of an end name the same keys.
        let who = |who: &[Who]| who.first().map_or(0, Who::conditions);
        keys.into_iter().map(u32::from).sum::<u32>() + who(&self.client_who) + who(&self.server_who)
    }

    /// The order of rules: priority, then allow over deny over limit over watch, then more conditions over fewer.
    /// Prefix lengths don't count: an exception is an `allow`, or a higher priority. What is equal in all of these asks
    /// for the same.
    #[must_use]
    pub fn rank(&self) -> u32 {
        let action = match self.action {
            Action::Allow => 3,
            Action::Deny => 2,
            Action::Limit(_) => 1,
            Action::Watch => 0,
        };
        (i32::from(self.priority) + 128).unsigned_abs() << 16 | action << 8 | self.conditions()
    }
}
