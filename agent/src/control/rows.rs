//! Rows of `weir connections` and `weir services` as JSON.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::model::{
    Endpoint, OpenConnection, Role, Service,
    json::{PeerJson, ServiceJson, time},
};

/// A live connection with who holds it.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// The connection.
    pub connection: OpenConnection,
    /// The service of its owner.
    pub service: Arc<Service>,
    /// The other end's service, where it is proven.
    pub peer: Option<Arc<Service>>,
    /// It has none because DNS has several names for its address, and any could be meant.
    pub ambiguous: bool,
    /// When it was established or first seen, nanoseconds since the Unix epoch.
    pub opened_unix_ns: u64,
    /// Last byte seen, nanoseconds since the Unix epoch.
    pub last_unix_ns: u64,
}

impl ConnectionRow {
    /// A document: who, ends, protocol, bytes, how it is seen.
    #[must_use]
    pub fn json(&self) -> Value {
        let open = &self.connection;
        let connection = &open.connection;
        json!({
            "service": ServiceJson(&self.service),
            "peer": PeerJson(self.peer.as_deref(), connection),
            "peer_unknown_reason": self.ambiguous.then_some("several_names"),
            "cookie": connection.cookie,
            "role": match connection.role {
                Role::Client => "client",
                Role::Server => "server",
                Role::Unknown => "unknown",
            },
            "local": connection.local,
            "remote": connection.remote,
            "protocol": open.protocol,
            "visibility": open.visibility.as_str(),
            "weir.opaque.reason": open.visibility.reason(),
            "tls": open.server_name.as_deref().map(|name| json!({ "server_name": name })),
            "bytes_received": open.bytes[0],
            "bytes_sent": open.bytes[1],
            "calls": open.calls,
            "in_flight": open.in_flight,
            "opened": time(self.opened_unix_ns),
            "last": time(self.last_unix_ns),
            "older_than_agent": connection.midway,
        })
    }
}

/// A service that was seen.
#[derive(Clone, Debug)]
pub struct ServiceRow {
    /// The service, as its process that was seen last shows it.
    pub service: Arc<Service>,
    /// Processes seen so far.
    pub processes: u64,
    /// Some of their ids, in order.
    pub pids: Vec<u32>,
    /// When it was first seen, nanoseconds since the Unix epoch.
    pub first_unix_ns: u64,
    /// When it was last seen, nanoseconds since the Unix epoch.
    pub last_unix_ns: u64,
}

impl ServiceRow {
    /// A document: identity, and how it was found.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "service": ServiceJson(&self.service),
            "evidence": self.service.evidence.as_str(),
            "unit": self.service.unit,
            "cgroup": self.service.process.as_ref().and_then(|process| process.cgroup.as_deref()),
            "processes": self.processes,
            "pids": self.pids,
            "first": time(self.first_unix_ns),
            "last": time(self.last_unix_ns),
        })
    }
}

/// An endpoint as a document; `protocol` is what its calls are made of.
#[must_use]
pub fn endpoint(endpoint: &Endpoint) -> Value {
    let seconds = |ns: u128| ns as f64 / 1e9;
    let bytes = |bytes: u128| u64::try_from(bytes).unwrap_or(u64::MAX);
    json!({
        "service": { "service.name": endpoint.service, "service.namespace": endpoint.namespace },
        "kind": endpoint.kind.as_str(),
        "protocol": "http",
        "method": endpoint.method,
        "route": endpoint.route,
        "calls": endpoint.calls,
        "errors": endpoint.errors,
        "request_bytes": bytes(endpoint.request_bytes),
        "response_bytes": bytes(endpoint.response_bytes),
        "seconds": seconds(endpoint.duration_ns),
        "p99_at_most_seconds": endpoint.p99_bound_ns.map(|ns| seconds(ns.into())),
    })
}
