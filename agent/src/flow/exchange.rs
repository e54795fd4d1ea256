//! A call becomes an [`Exchange`]: ids, side, thread.

use std::sync::Arc;

use weir_common::conn::Known;

use super::ids::Wire;
use crate::model::{Call, Connection, Exchange, Kind, Operation, Role, Service, Thread, TraceContext, Verdict};

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
        let (kind, client, server, sent) = match connection.role {
            Role::Client => (Kind::Client, connection.local, connection.remote, call.request.first.by),
            Role::Server => {
                let answered = call.response.map(|response| response.first.by).unwrap_or_default();
                (Kind::Server, connection.remote, connection.local, answered)
            }
            Role::Unknown => return None,
        };
        // Where addresses were translated on the way, both ends go by the client's.
        let (client, server) = match self.mirror {
            Some(mirror) if kind == Kind::Server => (mirror.local, mirror.remote),
            _ => (client, server),
        };
        let mirrored = self.mirror.is_some() || self.elsewhere;
        let ids = Wire::new(client, server, call.request.first.seq).ids(kind, context(&call), mirrored);
        Some(Exchange {
            ids,
            kind,
            by: if sent.tgid == 0 { owner(connection) } else { sent },
            call,
            connection: Arc::clone(connection),
            service: Arc::clone(self.service),
            mirror: self.mirror.clone(),
            peer: None,
            start_unix_ns: self.start_unix_ns,
            verdict: Verdict::Allowed,
        })
    }
}

/// The connection's holder; its thread only where that thread is the one that sends.
fn owner(connection: &Connection) -> Thread {
    let owner = &connection.owner;
    Thread { tgid: owner.tgid, tid: if owner.known == Known::SENDER.0 { owner.tid } else { 0 } }
}

fn context(call: &Call) -> Option<TraceContext> {
    match &call.operation {
        Operation::Http(http) => http.context,
    }
}
