//! A call becomes an [`Exchange`]: ids, side, thread.

use std::sync::Arc;

use weir_common::conn::Known;

use super::ids::Wire;
use crate::model::{
    Call, Connection, Exchange, Ids, Kind, Link, Operation, Role, Service, Thread, TraceContext, Verdict,
};

/// What a call needs to know of its connection.
pub(super) struct Seen<'a> {
    /// Over what.
    pub connection: &'a Arc<Connection>,
    /// The other end, where it is observed on this node too.
    pub mirror: &'a Option<Arc<Connection>>,
    /// The other end is observed by the agent of another host.
    pub elsewhere: bool,
    /// The service of which nothing is known: who it is, is told later.
    pub service: &'a Arc<Service>,
    /// Wall time of the call's first byte.
    pub start_unix_ns: u64,
}

impl Seen<'_> {
    /// Makes the exchange; `None` where it is not known which end this is.
    pub(super) fn exchange(&self, call: Call) -> Option<Exchange> {
        let connection = self.connection;
        let (mirror, seq) = (self.mirror.as_deref(), call.request.first.seq);
        let (kind, ids) = ids(connection, mirror, self.elsewhere, seq, context(&call))?;
        let sent = match kind {
            Kind::Client => call.request.first.by,
            Kind::Server => call.response.map(|response| response.first.by).unwrap_or_default(),
        };
        Some(Exchange {
            ids,
            kind,
            by: if sent.tgid == 0 { owner(connection) } else { sent },
            call,
            connection: Arc::clone(connection),
            service: Arc::clone(self.service),
            mirror: self.mirror.clone(),
            elsewhere: self.elsewhere,
            peer: None,
            via: None,
            client: (kind == Kind::Server).then(|| connection.remote.ip()),
            start_unix_ns: self.start_unix_ns,
            verdict: Verdict::Allowed,
        })
    }
}

/// Which end's call a request is that starts at `seq`, and its ids; `None` where it is not known which end this is.
/// `elsewhere`: the other end is observed by the agent of another host.
pub(super) fn ids(
    connection: &Connection,
    mirror: Option<&Connection>,
    elsewhere: bool,
    seq: u32,
    context: Option<TraceContext>,
) -> Option<(Kind, Ids)> {
    let (kind, client, server) = match (connection.role, mirror) {
        (Role::Client, _) => (Kind::Client, connection.local, connection.remote),
        // Where addresses were translated on the way, both ends go by the client's.
        (Role::Server, Some(mirror)) => (Kind::Server, mirror.local, mirror.remote),
        (Role::Server, None) => (Kind::Server, connection.remote, connection.local),
        (Role::Unknown, _) => return None,
    };
    Some((kind, Wire::new(client, server, seq).ids(kind, context, mirror.is_some() || elsewhere)))
}

/// The span at the other end of a client's call without a trace context, as another node computes it.
pub(super) fn far(call: &Exchange) -> Link {
    let (client, server) = (call.connection.local, call.connection.remote);
    let ids = Wire::new(client, server, call.call.request.first.seq).ids(Kind::Server, None, false);
    Link { trace: ids.trace, span: ids.span }
}

/// The connection's holder; its thread only where that thread is the one that sends.
fn owner(connection: &Connection) -> Thread {
    let owner = &connection.owner;
    let tid = if owner.known == Known::SENDER.0 { owner.tid } else { 0 };
    Thread { tgid: owner.tgid, tid, ..Thread::default() }
}

fn context(call: &Call) -> Option<TraceContext> {
    match &call.operation {
        Operation::Http(http) => http.context,
    }
}
