//! The graph: edges by who calls whom.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::edge::{Edge, Facts};
use super::halves::{Found, Half, Halves};
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
        let facts = Facts::of(exchange);
        let own = NodeRef::own(&exchange.service);
        let peer = NodeRef::peer(exchange);
        let via = NodeRef::via(exchange);
        let Operation::Http(_) = &exchange.call.operation;
        let protocol = "http";
        let (port, span) = match exchange.kind {
            Kind::Client => (exchange.connection.remote.port(), Some(exchange.ids.span)),
            Kind::Server => (exchange.connection.local.port(), exchange.ids.parent),
        };
        self.now = self.now.max(facts.ended_at);
        match span.filter(|_| exchange.mirror.is_some()) {
            None => self.count(key(&facts, own, peer, protocol, port), via, &facts, &[facts]),
            Some(span) => {
                let half = || Half {
                    own: own.owned(),
                    other: peer.owned(),
                    via: via.map(NodeRef::owned),
                    protocol,
                    port,
                    facts,
                };
                match self.halves.take(span, half) {
                    Found::Nothing => {}
                    Found::Waiting(first) if first.facts.kind == exchange.kind => {
                        self.count(first.key(), first.via(), &first.facts, &[first.facts]);
                        self.count(key(&facts, own, peer, protocol, port), via, &facts, &[facts]);
                    }
                    Found::Waiting(first) => self.count_both(&first, &half()),
                    Found::Counted(first) => {
                        if let Some(edge) = self.edges.get_mut(&first.key()) {
                            edge.observe(&facts);
                        }
                    }
                }
            }
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
            self.count(half.key(), half.via(), &half.facts, &[half.facts]);
        }
    }

    fn count_both(&mut self, first: &Half, second: &Half) {
        let (client, server) = if first.facts.kind == Kind::Client { (first, second) } else { (second, first) };
        // Each end knows itself best; where it does not, the other one may.
        let known = |own: &Half, told: &Half| {
            if !own.own.borrow().is_service() && told.other.borrow().is_service() {
                told.other.clone()
            } else {
                own.own.clone()
            }
        };
        let (from, to): (Node, Node) = (known(client, server), known(server, client));
        let key = KeyRef { client: from.borrow(), server: to.borrow(), protocol: server.protocol, port: server.port };
        let joined = Facts::joined(&client.facts, &server.facts);
        let via = client.via().or_else(|| server.via());
        self.count(key, via, &joined, &[client.facts, server.facts]);
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
        if !self.edges.contains_key(&key) {
            if self.edges.len() >= self.most() {
                self.fold();
            }
            self.edges.insert(key.owned(), Edge::default());
        }
        // It is there; if it were not, it would be one of the others.
        self.edges.get_mut(&key).unwrap_or(&mut self.other)
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

impl Half {
    /// The edge that this half alone would be counted on.
    pub(super) fn key(&self) -> KeyRef<'_> {
        key(&self.facts, self.own.borrow(), self.other.borrow(), self.protocol, self.port)
    }

    fn via(&self) -> Option<NodeRef<'_>> {
        self.via.as_ref().map(Node::borrow)
    }
}

fn key<'a>(facts: &Facts, own: NodeRef<'a>, peer: NodeRef<'a>, protocol: &'static str, port: u16) -> KeyRef<'a> {
    let (client, server) = match facts.kind {
        Kind::Client => (own, peer),
        Kind::Server => (peer, own),
    };
    KeyRef { client, server, protocol, port }
}
