//! A rule without its clients' addresses: what takes a slot.

use weir_common::verdict::{
    Act, SLOT_ANY_CLIENT, SLOT_AT_CLIENT, SLOT_AT_SERVER, SLOT_ENFORCE, SLOT_FORCE, SLOT_HOST, SLOT_OUTLIVES,
    SLOT_PATH, SLOT_PER_CLIENT, SLOT_PER_NETWORK, SLOT_REQUEST, SLOT_RESET, SLOT_STRICT, SLOT_USED, Slot,
};

use super::machine::Conditions;
use super::prefix::Prefix;
use super::rule::{Action, Ending, Limit, Mode, Per, Rule};
use super::set::GroupBits;

/// What rules that share a slot have in common.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own in the slot")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    action: Action,
    mode: Mode,
    ending: Ending,
    strict: bool,
    force: bool,
    rank: u32,
    at_client: bool,
    client_groups: u64,
    server_groups: u64,
    server: Option<Prefix>,
    port: u16,
    outlives: bool,
    /// Only where the clients are not chosen by address; else the address rows say it.
    until: u64,
    /// Clients are not chosen by address.
    pub(super) any_client: bool,
    /// Heads are read for it.
    pub(super) reads_requests: bool,
    /// What it asks of the request.
    pub(super) request: Conditions,
    /// Rules that count or are told apart alone: a limit for all clients together has its own bucket.
    alone: Option<std::sync::Arc<str>>,
}

/// The shapes of a rule: one for each combination of port and server address.
pub(super) fn shapes(rule: &Rule, groups: &GroupBits) -> Vec<Shape> {
    let servers: Vec<Option<Prefix>> =
        if rule.servers.is_empty() { vec![None] } else { rule.servers.iter().copied().map(Some).collect() };
    let ports: &[u16] = if rule.ports.is_empty() { &[0] } else { &rule.ports };
    let any_client = rule.clients.is_empty();
    let mut out = Vec::with_capacity(servers.len() * ports.len());
    for server in &servers {
        for &port in ports {
            out.push(Shape {
                action: rule.action,
                mode: rule.mode,
                ending: rule.ending,
                strict: rule.strict,
                force: rule.force,
                rank: rule.rank(),
                at_client: rule.at_client(),
                client_groups: groups.client,
                server_groups: groups.server,
                server: *server,
                port,
                outlives: rule.until.is_some(),
                until: if any_client { rule.until.map_or(0, |until| until.monotonic_ns) } else { 0 },
                any_client,
                reads_requests: rule.reads_requests(),
                request: rule.request.clone(),
                alone: (any_client || matches!(rule.action, Action::Limit(_))).then(|| rule.id.clone()),
            });
        }
    }
    out.dedup();
    out
}

impl Shape {
    /// The rule has this shape, whatever its groups' numbers are.
    pub(super) fn is_of(&self, rule: &Rule) -> bool {
        let groups = GroupBits { client: self.client_groups, server: self.server_groups };
        rule.client_who.is_empty() == (groups.client == 0)
            && rule.server_who.is_empty() == (groups.server == 0)
            && shapes(rule, &groups).contains(self)
    }

    /// The slot.
    pub(super) fn slot(&self) -> Slot {
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let (cost, slack, per) = match self.action {
            Action::Limit(limit) => (cost(limit), slack(limit), limit.per),
            _ => (0, 0, Per::Rule),
        };
        Slot {
            until: self.until,
            client_groups: self.client_groups,
            server_groups: self.server_groups,
            server: self.server.map_or([0; 16], |prefix| prefix.bytes),
            cost,
            slack,
            rank: self.rank,
            flags: SLOT_USED
                | flag(self.mode == Mode::Enforce || self.action == Action::Allow, SLOT_ENFORCE)
                | flag(self.strict, SLOT_STRICT)
                | flag(self.ending == Ending::Reset, SLOT_RESET)
                | flag(self.any_client, SLOT_ANY_CLIENT)
                | flag(!self.request.paths.is_empty(), SLOT_PATH)
                | flag(!self.request.hosts.is_empty(), SLOT_HOST)
                | if self.at_client { SLOT_AT_CLIENT } else { SLOT_AT_SERVER }
                | flag(self.force, SLOT_FORCE)
                | flag(self.reads_requests, SLOT_REQUEST)
                | flag(per != Per::Rule, SLOT_PER_CLIENT)
                | flag(per == Per::Network, SLOT_PER_NETWORK)
                | flag(self.outlives, SLOT_OUTLIVES),
            port: self.port,
            server_len: self.server.map_or(0, |prefix| prefix.len),
            act: match self.action {
                Action::Allow => Act::ALLOW,
                Action::Deny => Act::DENY,
                Action::Limit(_) => Act::LIMIT,
                Action::Watch => Act::WATCH,
            }
            .0,
            reserved: 0,
        }
    }
}

/// Nanoseconds that one request costs.
pub(super) fn cost(limit: Limit) -> u64 {
    (limit.per_ns / u64::from(limit.requests)).max(1)
}

/// Nanoseconds of cost that may be used at once beside the request's own.
pub(super) fn slack(limit: Limit) -> u64 {
    cost(limit).saturating_mul(u64::from(limit.burst) - 1)
}
