//! The graph at a moment, as documents and as metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::edge::{Buckets, Edge};
use super::edges::Graph;
use super::node::{Key, Node};

/// CONTRACT "An edge": the whole document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Since when it counts (RFC 3339).
    pub since: String,
    /// Everybody at an end of an edge, by name.
    pub nodes: Vec<NodeRow>,
    /// Who calls whom, most calls first.
    pub edges: Vec<EdgeRow>,
    /// Edges that were too many, as one; absent where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<OtherRow>,
    /// Calls that were counted on one end's word although both ends are observed.
    pub unpaired: u64,
}

/// A name as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ServiceName {
    /// semconv `service.name`; `external:ADDRESS` or `external:HOST` for others, `unknown` where nothing is known.
    #[serde(rename = "service.name")]
    pub name: Arc<str>,
    /// semconv `service.namespace`.
    #[serde(rename = "service.namespace")]
    pub namespace: Option<Arc<str>>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NodeRow {
    /// Its name.
    #[serde(flatten)]
    pub service: ServiceName,
    /// `service`, `external` or `unknown`.
    pub kind: &'static str,
}

/// Quantiles of a latency, seconds, each within 1 % of the true one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyRow {
    /// Median.
    pub p50: f64,
    /// 90 % are faster.
    pub p90: f64,
    /// 99 % are faster.
    pub p99: f64,
}

/// An edge.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EdgeRow {
    /// Who calls.
    pub client: ServiceName,
    /// Who answers.
    pub server: ServiceName,
    /// `http`, `tls`, `h2c`; `tcp` where it is not known.
    pub protocol: &'static str,
    /// The server's port: its own where the server's end is observed, else the one that the client named.
    pub server_port: u16,
    /// The client is on another host that has an agent: that one tells this edge too, with its client's name. Whoever
    /// puts the graphs of several hosts together leaves this one out.
    pub elsewhere: bool,
    /// Counts.
    #[serde(flatten)]
    pub counts: Counts,
}

/// By what name a server was called: a Service of the cluster, `external:NAME`, or `other` for those that were too many.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ViaRow {
    /// The name.
    #[serde(flatten)]
    pub service: ServiceName,
    /// Calls of the edge that came so.
    pub calls: u64,
}

/// What is counted of an edge.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counts {
    /// Calls, each once.
    pub calls: u64,
    /// Of them, those answered with a status of 500 or more, or wrongly.
    pub errors: u64,
    /// Of them, those that were reset or given up by one end.
    pub aborted: u64,
    /// Of them, those that enforcement dropped.
    pub dropped: u64,
    /// How often each class of error was met, status 4xx too.
    pub errors_by_class: BTreeMap<&'static str, u64>,
    /// Connections that ended without a call that could be read.
    pub connections: u64,
    /// Of them, those that were never established.
    pub failed_connections: u64,
    /// Connections that are open now and carry no call that could be read.
    pub open_connections: u64,
    /// Content of requests, and payload sent by the client on connections without calls.
    pub request_bytes: u64,
    /// Content of responses, and payload sent by the server on connections without calls.
    pub response_bytes: u64,
    /// Names by which the server was called where its address was translated, with how many calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<ViaRow>,
    /// TLS was seen.
    pub tls: bool,
    /// Calls a second in the last minute.
    pub calls_per_second: f64,
    /// As the client sees it, where it is observed, else as the server does; absent without a whole call.
    pub latency_seconds: Option<LatencyRow>,
    /// `client`, `server`: ends that told of it.
    pub observed_by: Vec<&'static str>,
    /// First start (RFC 3339).
    pub first_seen: Option<String>,
    /// Last end (RFC 3339).
    pub last_seen: Option<String>,
}

/// Edges that were too many.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtherRow {
    /// How many were folded.
    pub edges: u64,
    /// Counts of all of them.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What service-graph metrics (`traces_service_graph_*`) say of two services.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    /// Label `client`.
    pub client: Arc<str>,
    /// Label `server`.
    pub server: Arc<str>,
    /// First call, nanoseconds since the Unix epoch.
    pub since: u64,
    /// `traces_service_graph_request_total`.
    pub calls: u64,
    /// `traces_service_graph_request_failed_total`: errors and aborted calls.
    pub failed: u64,
    /// `traces_service_graph_request_server_seconds`: calls whose server's end is observed.
    pub server_seconds: Buckets,
    /// `traces_service_graph_request_client_seconds`: calls whose client's end is observed.
    pub client_seconds: Buckets,
}

impl Graph {
    /// The graph as it stands; with `since`, only edges that were used after it (nanoseconds since the Unix epoch).
    #[must_use]
    pub fn snapshot(&self, since: Option<u64>) -> Snapshot {
        let mut nodes = BTreeSet::new();
        let mut edges = Vec::new();
        for (key, edge) in &self.edges {
            if since.is_some_and(|since| edge.unix.is_none_or(|unix| unix[1] < since)) {
                continue;
            }
            nodes.insert(node_row(&key.client));
            nodes.insert(node_row(&key.server));
            edges.push(self.edge_row(key, edge));
        }
        edges.sort_by(|a, b| {
            let by_name = |row: &EdgeRow| (row.client.clone(), row.server.clone(), row.protocol, row.server_port);
            b.counts.calls.cmp(&a.counts.calls).then_with(|| by_name(a).cmp(&by_name(b)))
        });
        Snapshot {
            since: time(self.since),
            nodes: nodes.into_iter().collect(),
            edges,
            other: (self.folded > 0).then(|| OtherRow { edges: self.folded, counts: self.counts(&self.other) }),
            unpaired: self.unpaired,
        }
    }

    /// Every pair of services between which there were calls, by name; what was folded is from `other` to `other`.
    /// Edges that another host's agent tells are left out.
    #[must_use]
    pub fn relations(&self) -> Vec<Relation> {
        let mut by_name: BTreeMap<(Arc<str>, Arc<str>), Relation> = BTreeMap::new();
        let other: Arc<str> = Arc::from("other");
        let told = self.edges.iter().filter(|(key, _)| !self.is_told_elsewhere(key));
        let named = told.map(|(key, edge)| (name(&key.client), name(&key.server), edge));
        for (client, server, edge) in named.chain([(Arc::clone(&other), other, &self.other)]) {
            if edge.calls == 0 {
                continue;
            }
            let relation = by_name.entry((Arc::clone(&client), Arc::clone(&server))).or_insert_with(|| Relation {
                client,
                server,
                since: u64::MAX,
                calls: 0,
                failed: 0,
                server_seconds: Buckets::default(),
                client_seconds: Buckets::default(),
            });
            relation.since = relation.since.min(edge.unix.map_or(self.since, |unix| unix[0]));
            relation.calls += edge.calls;
            relation.failed += edge.errors + edge.aborted;
            let [client, server] = &edge.latency;
            for (to, from) in [(&mut relation.client_seconds, client), (&mut relation.server_seconds, server)] {
                if let Some(latency) = from {
                    to.merge(latency.buckets());
                }
            }
        }
        by_name.into_values().collect()
    }

    pub(super) fn edge_row(&self, key: &Key, edge: &Edge) -> EdgeRow {
        EdgeRow {
            client: node_row(&key.client).service,
            server: node_row(&key.server).service,
            protocol: key.protocol,
            server_port: key.port,
            elsewhere: self.is_told_elsewhere(key),
            counts: self.counts(edge),
        }
    }

    pub(super) fn counts(&self, edge: &Edge) -> Counts {
        let latency = edge.latency.iter().flatten().next();
        let observed = ["client", "server"].into_iter().zip(edge.observed);
        Counts {
            calls: edge.calls,
            errors: edge.errors,
            aborted: edge.aborted,
            dropped: edge.dropped,
            errors_by_class: edge.classes.iter().copied().collect(),
            connections: edge.connections,
            failed_connections: edge.failed_connections,
            open_connections: 0,
            request_bytes: edge.bytes[0],
            response_bytes: edge.bytes[1],
            via: vias(edge),
            tls: edge.tls,
            calls_per_second: edge.rate_at(self.now),
            latency_seconds: latency.and_then(|latency| {
                let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| latency.quantile(q));
                Some(LatencyRow { p50: p50?, p90: p90?, p99: p99? })
            }),
            observed_by: observed.filter_map(|(end, is)| is.then_some(end)).collect(),
            first_seen: edge.unix.map(|unix| time(unix[0])),
            last_seen: edge.unix.map(|unix| time(unix[1])),
        }
    }
}

impl Snapshot {
    /// Adds an edge of which only connections are known that are open now.
    pub(super) fn add(&mut self, key: &Key, mut row: EdgeRow, open: u64) {
        row.counts.open_connections = open;
        self.edges.push(row);
        for node in [node_row(&key.client), node_row(&key.server)] {
            if let Err(place) = self.nodes.binary_search(&node) {
                self.nodes.insert(place, node);
            }
        }
    }
}

fn vias(edge: &Edge) -> Vec<ViaRow> {
    let kept = edge.via.iter().map(|(node, calls)| ViaRow { service: node_row(node).service, calls: *calls });
    let other = ServiceName { name: "other".into(), namespace: None };
    let rest = (edge.via_other > 0).then_some(ViaRow { service: other, calls: edge.via_other });
    let mut rows: Vec<_> = kept.collect();
    rows.sort();
    rows.extend(rest);
    rows
}

fn name(node: &Node) -> Arc<str> {
    match node {
        Node::Service(name, _) => Arc::clone(name),
        Node::Address(address) => format!("external:{address}").into(),
        Node::Host(host) => format!("external:{host}").into(),
        Node::Unknown => "unknown".into(),
    }
}

fn node_row(node: &Node) -> NodeRow {
    let (namespace, kind) = match node {
        Node::Service(_, namespace) => (namespace.clone(), "service"),
        Node::Address(_) | Node::Host(_) => (None, "external"),
        Node::Unknown => (None, "unknown"),
    };
    NodeRow { service: ServiceName { name: name(node), namespace }, kind }
}

/// RFC 3339 with nanoseconds.
fn time(unix_ns: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(unix_ns)).to_string()
}
