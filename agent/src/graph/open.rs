//! Connections that are open now and carry no call that can be read: a pool of connections to a database may live for
//! days, and is an edge all that time.

use std::collections::HashMap;

use super::edge::Edge;
use super::edges::Graph;
use super::node::{Key, KeyRef, NodeRef};
use super::snapshot::{OtherRow, Snapshot};
use crate::model::{OpenConnection, Role, Service, Visibility};

/// Of a connection on which nothing was said yet it is not known whether it carries calls.
const SILENT: &str = "no_bytes_yet";

/// An open connection with who is at its ends, the other one where it is proven.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// The connection.
    pub connection: &'a OpenConnection,
    /// Who uses it.
    pub service: &'a Service,
    /// Who is at its other end.
    pub peer: Option<&'a Service>,
}

impl<'a> Open<'a> {
    /// The edge that it is; `None` where it is none of its own: it carries calls, or its other end tells it, or it is the
    /// agent's.
    fn key(self) -> Option<KeyRef<'a>> {
        let row = self.connection;
        let (ends, unread) = (&row.connection, matches!(row.visibility, Visibility::Opaque(why) if why != SILENT));
        if row.own || row.calls > 0 || row.in_flight || !unread {
            return None;
        }
        let (own, end) = (NodeRef::own(self.service), NodeRef::end(self.peer, ends, row.server_name.as_deref()));
        let (client, server, port) = match ends.role {
            Role::Client => (own, end, ends.remote.port()),
            Role::Server if row.mirror.is_none() => (end, own, ends.local.port()),
            Role::Server | Role::Unknown => return None,
        };
        Some(KeyRef { client, server, protocol: row.protocol.unwrap_or("tcp"), port })
    }
}

impl Graph {
    /// Adds what is open to a snapshot of this graph. There are no more rows then than the graph has edges at most; further
    /// ones are counted in `other`.
    pub fn add_open<'a>(&self, snapshot: &mut Snapshot, open: impl Iterator<Item = Open<'a>>) {
        let mut counts: HashMap<Key, (u64, [bool; 2])> = HashMap::new();
        for open in open {
            let Some(key) = open.key() else { continue };
            let by_server = open.connection.connection.role == Role::Server;
            let (count, [client, server]) = counts.entry(key.owned()).or_default();
            *count += 1;
            *client |= !by_server;
            *server |= by_server;
        }
        let mut rows: Vec<_> = counts.into_iter().collect();
        rows.sort_by(|(a_key, (a, _)), (b_key, (b, _))| {
            b.cmp(a).then_with(|| format!("{a_key:?}").cmp(&format!("{b_key:?}")))
        });
        for (key, (count, observed)) in rows {
            let mut edge = Edge::default();
            edge.observed = observed;
            let new = self.edge_row(&key, &edge);
            let same = |row: &&mut super::EdgeRow| {
                (&row.client, &row.server, row.protocol, row.server_port)
                    == (&new.client, &new.server, new.protocol, new.server_port)
            };
            if let Some(row) = snapshot.edges.iter_mut().find(same) {
                row.counts.open_connections = count;
            } else if snapshot.edges.len() < self.most() {
                snapshot.add(&key, new, count);
            } else {
                let counts = || self.counts(&Edge::default());
                let other = snapshot.other.get_or_insert_with(|| OtherRow { edges: 0, counts: counts() });
                other.edges += 1;
                other.counts.open_connections += count;
            }
        }
    }
}
