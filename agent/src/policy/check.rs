//! Written rule → usable rule. Every refusal names the key, what is wrong and what to do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::machine::Conditions;
use super::pattern::{HostPattern, PathPattern, PatternError};
use super::prefix::{Prefix, PrefixError, disjoint};
use super::rule::{Action, Ending, Limit, Mode, Per, Rule, Source, Until, Who};
use super::set::GROUPS_MAX;
use super::written::{OneOrMore, WrittenEnd, WrittenLimit, WrittenRule};

/// Longest TTL: 10 years, so that deadlines stay far from their type's end.
pub const TTL_MAX: Duration = Duration::from_hours(10 * 366 * 24);
/// Values of one key.
pub const VALUES_MAX: usize = 256;
/// Combinations of port and server address in one rule: each takes a slot.
pub const COMBINATIONS_MAX: usize = 16;

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A value that its key doesn't take.
    #[error("{key}: {value:?} is not {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was written.
        value: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// A key that has no place here.
    #[error("{key}: {why}")]
    Key {
        /// The key.
        key: &'static str,
        /// Why, and what to do.
        why: &'static str,
    },
    /// A path or host.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// An address.
    #[error("{key}: {cause}")]
    Prefix {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        cause: PrefixError,
    },
    /// Nothing chooses what it is about.
    #[error("the rule has no condition and would meet every call: name a client, a server, a method or a path")]
    Everything,
    /// A very wide prefix.
    #[error(
        "client.address: {0} holds more addresses than a list of clients can mean: use longer prefixes (from /8, /16 for IPv6) or --force"
    )]
    Wide(Prefix),
    /// An address that many clients share.
    #[error(
        "client.address: {address} is {what}; a rule for it would hit everyone behind it: use --force if that is meant"
    )]
    Shared {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: Box<str>,
    },
    /// Weir's own door, or an address without which the node can't be reached.
    #[error("{key}: {what} is on the allow-list and no rule can meet it")]
    Own {
        /// The key.
        key: &'static str,
        /// What it is.
        what: Box<str>,
    },
}

impl CheckError {
    /// The key at fault, where it is one.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Value { key, .. } | Self::Key { key, .. } | Self::Prefix { key, .. } | Self::Own { key, .. } => {
                Some(key)
            }
            Self::Wide(_) | Self::Shared { .. } => Some("client.address"),
            Self::Pattern(error) => Some(error.key),
            Self::Everything => None,
        }
    }
}

/// What the node knows that a rule must not touch.
pub trait World {
    /// Why an address stands for many clients (load balancer, gateway, NAT, node); `None` where it doesn't.
    fn shared(&self, address: IpAddr) -> Option<Box<str>>;
    /// What of Weir's own listens at or is called at this port, alone or at this address.
    fn own(&self, address: Option<IpAddr>, port: u16) -> Option<Box<str>>;
}

/// A node on which no address is special: what can be judged of a rule before its addresses are there.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl World for Nowhere {
    fn shared(&self, _: IpAddr) -> Option<Box<str>> {
        None
    }

    fn own(&self, _: Option<IpAddr>, _: u16) -> Option<Box<str>> {
        None
    }
}

/// Where a rule comes from and when.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its door.
    pub source: Source,
    /// Who stands behind the door, for rules that name no author.
    pub author: Arc<str>,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub monotonic_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Id for a rule that has none.
    pub id: Arc<str>,
}

/// Checks a rule.
pub fn check(written: &WrittenRule, arrival: &Arrival, world: &dyn World) -> Result<Rule, CheckError> {
    checked(written, prefixes("client.address", &written.client.address)?, arrival, world)
}

/// Checks a rule whose clients come from a list, however long.
pub fn check_list(
    written: &WrittenRule,
    clients: Vec<Prefix>,
    arrival: &Arrival,
    world: &dyn World,
) -> Result<Rule, CheckError> {
    if clients.is_empty() {
        // Without clients it would be about all.
        return Err(CheckError::Key { key: "client.address", why: "the list has no address" });
    }
    checked(written, clients, arrival, world)
}

fn checked(
    written: &WrittenRule,
    clients: Vec<Prefix>,
    arrival: &Arrival,
    world: &dyn World,
) -> Result<Rule, CheckError> {
    let id = written.id.as_deref().map_or_else(|| Ok(Arc::clone(&arrival.id)), id)?;
    let action = action(written)?;
    let (client_who, server_who) = (who(&written.client, "client")?, who(&written.server, "server")?);
    if !written.client.port.as_slice().is_empty() {
        return Err(CheckError::Key {
            key: "client.port",
            why: "clients have no fixed port; did you mean server.port?",
        });
    }
    if !written.client.host.as_slice().is_empty() {
        return Err(CheckError::Key {
            key: "client.host",
            why: "a host is what the request names; did you mean server.host?",
        });
    }
    let rule = Rule {
        id,
        action,
        mode: word(
            "mode",
            written.mode.as_deref(),
            &[("monitor", Mode::Monitor), ("enforce", Mode::Enforce)],
            "monitor or enforce",
        )?,
        ending: word(
            "end",
            written.end.as_deref(),
            &[("reset", Ending::Reset), ("drop", Ending::Drop)],
            "reset or drop",
        )?,
        strict: written.strict,
        force: written.force,
        priority: priority(written.priority)?,
        clients: disjoint(clients),
        ends: Vec::new(),
        client_who,
        server_who,
        servers: prefixes("server.address", &written.server.address)?,
        ports: bounded("server.port", &written.server.port)?.to_vec(),
        request: request(written)?,
        until: until(written.ttl.as_deref(), arrival)?,
        author: text("author", written.author.as_deref())?.unwrap_or_else(|| Arc::clone(&arrival.author)),
        reason: text("reason", written.reason.as_deref())?.unwrap_or_default(),
        source: arrival.source.clone(),
        created_unix_ns: arrival.unix_ns,
    };
    if rule.ports.contains(&0) {
        return Err(CheckError::Value { key: "server.port", value: "0".into(), wanted: "a port from 1 to 65535" });
    }
    if rule.ports.len().max(1) * rule.servers.len().max(1) > COMBINATIONS_MAX {
        return Err(CheckError::Key {
            key: "server",
            why: "more than 16 combinations of port and address: split the rule",
        });
    }
    safe(&rule, world)?;
    Ok(rule)
}

/// Refuses what would cut off too many, or Weir itself.
fn safe(rule: &Rule, world: &dyn World) -> Result<(), CheckError> {
    let harmless = matches!(rule.action, Action::Allow | Action::Watch);
    if rule.conditions() == 0 && !harmless {
        return Err(CheckError::Everything);
    }
    for &port in &rule.ports {
        let addresses = rule.servers.iter().map(Prefix::single).chain([None]);
        for address in addresses {
            if let Some(what) = world.own(address, port).filter(|_| !harmless) {
                return Err(CheckError::Own { key: "server.port", what });
            }
        }
    }
    if rule.force || harmless {
        return Ok(());
    }
    if let Some(prefix) = rule.clients.iter().find(|prefix| prefix.is_too_wide()) {
        return Err(CheckError::Wide(*prefix));
    }
    for address in rule.clients.iter().filter_map(Prefix::single) {
        if let Some(what) = world.shared(address) {
            return Err(CheckError::Shared { address, what });
        }
    }
    Ok(())
}

fn id(text: &str) -> Result<Arc<str>, CheckError> {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(ok) {
        return Ok(text.into());
    }
    Err(CheckError::Value { key: "id", value: shown(text), wanted: "1 to 64 characters of A-Z a-z 0-9 . _ -" })
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn action(written: &WrittenRule) -> Result<Action, CheckError> {
    let limit = written.limit.as_ref();
    match (written.action.as_deref(), limit) {
        (None | Some("limit"), Some(limit)) => Ok(Action::Limit(rate(limit)?)),
        (Some("limit"), None) => Err(CheckError::Key { key: "limit", why: "a limit needs a rate, such as 100/s" }),
        (_, Some(_)) => Err(CheckError::Key { key: "limit", why: "only the action limit has a rate" }),
        (None | Some("deny"), None) => Ok(Action::Deny),
        (Some("watch"), None) => Ok(Action::Watch),
        (Some("allow"), None) => Ok(Action::Allow),
        (Some(other), None) => {
            Err(CheckError::Value { key: "action", value: shown(other), wanted: "deny, limit, watch or allow" })
        }
    }
}

fn rate(written: &WrittenLimit) -> Result<Limit, CheckError> {
    let wrong = || CheckError::Value {
        key: "limit.rate",
        value: shown(&written.rate),
        wanted: "requests in a time, such as 100/s, 600/m or 5/10s",
    };
    let (requests, per) = written.rate.split_once('/').ok_or_else(wrong)?;
    let requests: u32 = requests.trim().parse().map_err(|_| wrong())?;
    let per = per.trim();
    let per = if per.starts_with(|first: char| first.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
    let per = humantime::parse_duration(&per).map_err(|_| wrong())?;
    let per_ns = u64::try_from(per.as_nanos()).map_err(|_| wrong())?;
    if requests == 0
        || requests > 1_000_000
        || !(1_000_000..=86_400_000_000_000).contains(&per_ns)
        || per_ns < u64::from(requests)
    {
        return Err(wrong());
    }
    let burst = written.burst.unwrap_or(requests);
    if burst == 0 || burst > 1_000_000 {
        return Err(CheckError::Value { key: "limit.burst", value: burst.to_string(), wanted: "1 to 1000000" });
    }
    let words = [Per::Client, Per::Network, Per::Rule].map(|per| (per.as_str(), per));
    let per = word("limit.per", written.per.as_deref(), &words, "client, network or rule")?;
    Ok(Limit { requests, per_ns, burst, per })
}

fn word<T: Copy + Default>(
    key: &'static str,
    text: Option<&str>,
    words: &[(&str, T)],
    wanted: &'static str,
) -> Result<T, CheckError> {
    let Some(text) = text else { return Ok(T::default()) };
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| CheckError::Value {
        key,
        value: shown(text),
        wanted,
    })
}

fn priority(written: Option<i32>) -> Result<i8, CheckError> {
    let priority = written.unwrap_or(0);
    match i8::try_from(priority) {
        Ok(fits @ -100..=100) => Ok(fits),
        _ => Err(CheckError::Value { key: "priority", value: priority.to_string(), wanted: "−100 to 100" }),
    }
}

fn bounded<'a, T>(key: &'static str, values: &'a OneOrMore<T>) -> Result<&'a [T], CheckError> {
    let values = values.as_slice();
    if values.len() > VALUES_MAX {
        return Err(CheckError::Key { key, why: "more than 256 values: use prefixes, several rules, or a feed" });
    }
    Ok(values)
}

fn prefixes(key: &'static str, values: &OneOrMore<String>) -> Result<Vec<Prefix>, CheckError> {
    bounded(key, values)?.iter().map(|text| text.parse().map_err(|cause| CheckError::Prefix { key, cause })).collect()
}

/// The identities of one end: alternatives of each other, each with a value of every key that is given.
fn who(end: &WrittenEnd, at: &'static str) -> Result<Vec<Who>, CheckError> {
    let keys = identities(end)?;
    let mut out: Vec<Vec<Who>> = Vec::new();
    for (values, first) in keys.into_iter().filter(|values| !values.is_empty()).zip((0..).map(|n| n == 0)) {
        let with = |who: &Vec<Who>| {
            let who = who.clone();
            values.iter().map(move |value| [&who[..], std::slice::from_ref(value)].concat()).collect::<Vec<_>>()
        };
        out = if first { with(&Vec::new()) } else { out.iter().flat_map(with).collect() };
        if out.len() > GROUPS_MAX {
            let why = "more than 64 combinations of identities: split the rule";
            return Err(CheckError::Key { key: at, why });
        }
    }
    let joined = |mut who: Vec<Who>| if who.len() == 1 { who.swap_remove(0) } else { Who::All(who.into()) };
    Ok(out.into_iter().map(joined).collect())
}

/// The values of each key.
fn identities(end: &WrittenEnd) -> Result<[Vec<Who>; 6], CheckError> {
    let take =
        |key, values: &OneOrMore<String>, make: &dyn Fn(&str) -> Option<Who>, wanted| -> Result<Vec<Who>, CheckError> {
            let mut out = Vec::new();
            for value in bounded(key, values)? {
                let named = !value.is_empty() && value.len() <= 253;
                let who = if named { make(value) } else { None };
                let who = who.ok_or_else(|| CheckError::Value { key, value: shown(value), wanted })?;
                if !out.contains(&who) {
                    out.push(who);
                }
            }
            Ok(out)
        };
    // `task_comm` has 15 bytes; a longer name is cut as the kernel cuts it.
    let comm =
        |name: &str| name.is_char_boundary(name.len().min(15)).then(|| Who::Process(name[..name.len().min(15)].into()));
    let processes = take(
        "process",
        &end.process,
        &|name| (!name.contains('/')).then(|| comm(name)).flatten(),
        "an executable's name without its path",
    )?;
    let services = take("service", &end.service, &|name| Some(Who::Service(name.into())), "a service name")?;
    let unit =
        |name: &str| Some(Who::Unit(if name.contains('.') { name.into() } else { format!("{name}.service").into() }));
    let units = take("unit", &end.unit, &unit, "a systemd unit")?;
    let hex = |id: &str| id.len() >= 12 && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let containers = take(
        "container",
        &end.container,
        &|id| hex(id).then(|| Who::Container(id.to_ascii_lowercase().into())),
        "at least 12 hexadecimal digits of a container id",
    )?;
    let pods = take(
        "pod",
        &end.pod,
        &|name| (name.split('/').filter(|part| !part.is_empty()).count() == 2).then(|| Who::Pod(name.into())),
        "namespace/name",
    )?;
    let attribute = |text: &str| text.split_once('=').map(|(key, value)| Who::Attribute(key.into(), value.into()));
    let attributes = take("attribute", &end.attribute, &attribute, "key=value")?;
    Ok([processes, services, units, containers, pods, attributes])
}

fn request(written: &WrittenRule) -> Result<Conditions, CheckError> {
    let methods = bounded("method", &written.method)?;
    let token = |text: &String| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    if let Some(wrong) = methods.iter().find(|method| !token(method)) {
        return Err(CheckError::Value {
            key: "method",
            value: shown(wrong),
            wanted: "a token of up to 32 characters (RFC 9110 §5.6.2)",
        });
    }
    Ok(Conditions {
        methods: methods.iter().map(|method| method.as_str().into()).collect(),
        paths: bounded("path", &written.path)?.iter().map(|text| PathPattern::parse(text)).collect::<Result<_, _>>()?,
        hosts: bounded("server.host", &written.server.host)?
            .iter()
            .map(|text| HostPattern::parse(text))
            .collect::<Result<_, _>>()?,
    })
}

fn until(ttl: Option<&str>, arrival: &Arrival) -> Result<Option<Until>, CheckError> {
    let Some(text) = ttl else { return Ok(None) };
    let wrong =
        || CheckError::Value { key: "ttl", value: shown(text), wanted: "a time such as 90s, 1h or 7d, up to 10 years" };
    let ttl = humantime::parse_duration(text).map_err(|_| wrong())?;
    if ttl.is_zero() || ttl > TTL_MAX {
        return Err(wrong());
    }
    let ns = ttl.as_nanos() as u64;
    Ok(Some(Until { monotonic_ns: arrival.monotonic_ns + ns, unix_ns: arrival.unix_ns + ns }))
}

fn text(key: &'static str, written: Option<&str>) -> Result<Option<Arc<str>>, CheckError> {
    let Some(text) = written else { return Ok(None) };
    if text.len() > 512 || text.chars().any(char::is_control) {
        return Err(CheckError::Value {
            key,
            value: shown(text),
            wanted: "text of up to 512 bytes without control characters",
        });
    }
    Ok(Some(text.into()))
}
