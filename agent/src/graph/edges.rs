//! The graph: edges by who calls whom.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;

use super::edge::{Edge, Facts};
use super::halves::{Found, HalfRef, Halves};
use super::node::{Key, KeyRef, Node, NodeRef};
use crate::model::{EndedConnection, Exchange, Hosts, Kind, Operation, Role, Service};

/// Bounds of a [`Graph`].
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Edges that are kept apart; the smallest tenth is folded into `other` when there are more.
    pub edges: usize,
    /// Calls of which only one end has told yet.
    pub halves: usize,
    /// How long a call waits for its other end's word, nanoseconds.
    pub wait_ns: u64,
    /// How long a call that was counted on one end's word is remembered, nanoseconds.
    pub remember_ns: u64,
    /// An edge that was not used for so long leaves, nanoseconds.
    pub forget_ns: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            edges: 2_000,
            halves: 32_768,
            wait_ns: 5_000_000_000,
            remember_ns: 600_000_000_000,
            forget_ns: 3_600_000_000_000,
        }
    }
}

/// Who calls whom. Memory is bounded by [`Settings`]; a call costs two look-ups by name.
#[derive(Debug)]
pub struct Graph {
    settings: Settings,
    pub(super) edges: HashMap<Key, Edge, RandomState>,
    /// Edges that were too many, as one.
    pub(super) other: Edge,
    /// How many edges were folded into `other`.
    pub(super) folded: u64,
    /// Calls that were counted on one end's word although both ends are observed.
    pub(super) unpaired: u64,
    halves: Halves,
    /// Other hosts with an agent.
    hosts: Arc<Hosts>,
    /// Latest time seen, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) now: u64,
    /// Since when it counts, nanoseconds since the Unix epoch.
    pub(super) since: u64,
}

impl Graph {
    /// An empty graph that counts from `since`, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn new(settings: Settings, since: u64) -> Self {
        Self {
            settings,
            edges: HashMap::default(),
            other: Edge::default(),
            folded: 0,
            unpaired: 0,
            halves: Halves::new(settings.halves, settings.wait_ns, settings.remember_ns),
            hosts: Arc::default(),
            now: 0,
            since,
        }
    }

    /// Edges whose client is on one of these hosts are told by that host's agent.
    #[must_use]
    pub fn beside(mut self, hosts: Arc<Hosts>) -> Self {
        self.hosts = hosts;
        self
    }

    /// Most edges that are kept apart.
    pub(super) fn most(&self) -> usize {
        self.settings.edges.max(1)
    }

    /// Whether another host's agent tells an edge, with its client's name.
    pub(super) fn is_told_elsewhere(&self, key: &Key) -> bool {
        matches!(key.client, Node::Address(address) if self.hosts.has(address))
    }

    /// Takes a call. One that its other end tells too waits for that, at most `wait_ns`.
    pub fn call(&mut self, exchange: &Exchange) {
        let Operation::Http(_) = &exchange.call.operation;
        let (port, span) = match exchange.kind {
            Kind::Client => (exchange.connection.remote.port(), Some(exchange.ids.span)),
            Kind::Server => (exchange.connection.local.port(), exchange.ids.parent),
        };
        let half = HalfRef {
            own: NodeRef::own(&exchange.service),
            other: NodeRef::peer(exchange),
            via: NodeRef::via(exchange),
            protocol: "http",
            port,
            facts: Facts::of(exchange),
        };
        self.now = self.now.max(half.facts.ended_at);
        match span.filter(|_| exchange.mirror.is_some()) {
            None => self.count_one(half),
            Some(span) => match self.halves.take(span, half) {
                Found::Nothing => {}
                Found::Waiting(first) if first.facts.kind == exchange.kind => {
                    self.count_one(first.borrow());
                    self.count_one(half);
                }
                Found::Waiting(first) => self.count_both(first.borrow(), half),
                Found::Counted(first) => {
                    if let Some(edge) = self.edges.get_mut(&first.borrow().key()) {
                        edge.observe(&half.facts);
                    }
                }
            },
        }
        self.count_overdue();
    }

    /// Takes a connection that ended without a call: one that failed, or whose protocol can't be read. `service`: of
    /// its owner; `peer`: of its other end, where it is proven; `unix_ns`: when it ended, since the Unix epoch.
    pub fn ended(&mut self, ended: &EndedConnection, service: &Service, peer: Option<&Service>, unix_ns: u64) {
        let connection = &ended.connection;
        let (own, end) = (NodeRef::own(service), NodeRef::end(peer, connection, ended.server_name.as_deref()));
        let (client, server, port) = match connection.role {
            Role::Client => (own, end, connection.remote.port()),
            // Its client's end tells it too.
            Role::Server if ended.mirror.is_some() => return,
            Role::Server => (end, own, connection.local.port()),
            Role::Unknown => return,
        };
        let key = KeyRef { client, server, protocol: ended.protocol.unwrap_or("tcp"), port };
        self.now = self.now.max(ended.ended_at);
        let edge = self.edge(key);
        edge.connections += 1;
        edge.failed_connections += u64::from(!ended.established);
        edge.tls |= ended.protocol == Some("tls");
        if let Some(error) = ended.error {
            edge.class(error, 1);
        }
        let (requests, responses) = if connection.role == Role::Client { (1, 0) } else { (0, 1) };
        edge.bytes[0] += ended.bytes[requests];
        edge.bytes[1] += ended.bytes[responses];
        edge.observed[usize::from(connection.role == Role::Server)] = true;
        let age = if ended.established { ended.ended_at.saturating_sub(connection.opened_at) } else { 0 };
        edge.used(ended.ended_at, [unix_ns.saturating_sub(age), unix_ns]);
    }

    /// Time passes; once a second is enough. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.count_overdue();
        let oldest = self.now.saturating_sub(self.settings.forget_ns);
        self.edges.retain(|_, edge| edge.used_at >= oldest);
    }

    fn count_overdue(&mut self) {
        while let Some(half) = self.halves.overdue(self.now) {
            self.unpaired += 1;
            self.count_one(half.borrow());
        }
    }

    fn count_one(&mut self, half: HalfRef<'_>) {
        self.count(half.key(), half.via, &half.facts, &[half.facts]);
    }

    fn count_both(&mut self, first: HalfRef<'_>, second: HalfRef<'_>) {
        let (client, server) = if first.facts.kind == Kind::Client { (first, second) } else { (second, first) };
        // Each end knows itself best; where it does not, the other one may.
        let (mut from, mut to) = (client.own, server.own);
        if !from.is_service() && server.other.is_service() {
            from = server.other;
        }
        if !to.is_service() && client.other.is_service() {
            to = client.other;
        }
        let key = KeyRef { client: from, server: to, protocol: server.protocol, port: server.port };
        let joined = Facts::joined(&client.facts, &server.facts);
        self.count(key, client.via.or(server.via), &joined, &[client.facts, server.facts]);
    }

    fn count(&mut self, key: KeyRef<'_>, via: Option<NodeRef<'_>>, facts: &Facts, told: &[Facts]) {
        let edge = self.edge(key);
        edge.count(facts);
        if let Some(via) = via {
            edge.came_via(via, 1);
        }
        for facts in told {
            edge.observe(facts);
        }
    }

    fn edge(&mut self, key: KeyRef<'_>) -> &mut Edge {
        if self.edges.len() >= self.most() && !self.edges.contains_key(&key) {
            self.fold();
        }
        match self.edges.entry_ref(&key) {
            EntryRef::Occupied(known) => known.into_mut(),
            EntryRef::Vacant(new) => new.insert_with_key(key.owned(), Edge::default()),
        }
    }

    /// Folds the smallest tenth into `other`.
    fn fold(&mut self) {
        let mut sizes: Vec<_> = self.edges.values().map(|edge| (edge.calls + edge.connections, edge.used_at)).collect();
        let tenth = (sizes.len() / 10).min(sizes.len().saturating_sub(1));
        if sizes.is_empty() {
            return;
        }
        let (_, bound, _) = sizes.select_nth_unstable(tenth);
        let bound = *bound;
        let Self { edges, other, folded, .. } = self;
        edges.retain(|_, edge| {
            let stays = (edge.calls + edge.connections, edge.used_at) > bound;
            if !stays {
                other.merge(edge);
                *folded += 1;
            }
            stays
        });
    }
}

impl<'a> HalfRef<'a> {
    /// The edge that this half alone would be counted on.
    fn key(&self) -> KeyRef<'a> {
        let (client, server) = match self.facts.kind {
            Kind::Client => (self.own, self.other),
            Kind::Server => (self.other, self.own),
        };
        KeyRef { client, server, protocol: self.protocol, port: self.port }
    }
}
