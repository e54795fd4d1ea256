//! Both ends of connections: who each is.

use std::io;
use std::sync::Arc;

use weir_common::conn::{Known, Role};
use weir_common::record::{Closed, Opened};

use super::super::sockets;
use super::Resolver;
use crate::model::{Connection, Evidence, Exchange, Kind, Service, Thread};

impl Resolver {
    /// Looks at the sockets that are there already; to be done once, when the kernel half is attached. Blocks as
    /// [`look`](super::super::look) does, and is not needed for what is opened later.
    pub fn look(&mut self) -> io::Result<sockets::Sockets> {
        let found = sockets::look(&self.settings.proc)?;
        for socket in &found.sockets {
            self.peers.found(socket);
        }
        Ok(found)
    }

    /// A connection was announced. Gives the announcement back with what was found of it by [`Self::look`], where the
    /// kernel half did not know: its role and its holder.
    pub fn opened(&mut self, opened: &Opened) -> Opened {
        let mut told = *opened;
        if let Some((owner, server)) = self.peers.known(opened.head.conn) {
            if told.owner.known == Known::NO.0 {
                told.owner = owner;
            }
            if told.role == Role::UNKNOWN.0 {
                told.role = match server {
                    Some(true) => Role::SERVER.0,
                    Some(false) => Role::CLIENT.0,
                    None => Role::UNKNOWN.0,
                };
            }
        }
        self.peers.opened(&told);
        // Asked now, while the process is there to be read.
        self.resolve(&told.owner, Thread::default(), told.head.at, None);
        told
    }

    /// A connection ended.
    pub fn closed(&mut self, closed: &Closed) {
        self.peers.closed(closed.head.conn, closed.head.at);
    }

    /// Time passes; to be told once in a while. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub fn tick(&mut self, now: u64) {
        let grace = u64::try_from(self.settings.grace.as_nanos()).unwrap_or(u64::MAX);
        self.peers.forget_before(now.saturating_sub(grace));
    }

    /// Fills in who made a call, and who is at its other end where that is proven to be on this node.
    pub fn name(&mut self, exchange: &mut Exchange) {
        let connection = Arc::clone(&exchange.connection);
        let (request, response) = (exchange.call.request.first.at, exchange.call.response.map(|it| it.first.at));
        // When `by` did what it did: a server's child may be younger than the request.
        let at = if exchange.kind == Kind::Server { response.unwrap_or(request) } else { request };
        self.peers.used(connection.cookie, exchange.by);
        exchange.service = self.end(&connection, exchange.by, exchange.kind == Kind::Server, at);
        exchange.peer = self.other(&connection, response.unwrap_or(request));
    }

    /// The service of a connection's own end at `at`, `CLOCK_MONOTONIC` nanoseconds.
    pub fn end(&mut self, connection: &Connection, by: Thread, server: bool, at: u64) -> Arc<Service> {
        let port = server.then(|| connection.local.port());
        self.resolve(&connection.owner, by, at, port)
    }

    /// The service at the other end of a connection, where it is proven to be on this node.
    pub fn other(&mut self, connection: &Connection, at: u64) -> Option<Arc<Service>> {
        let peer = self.peers.other(connection.cookie)?;
        let port = peer.server.then(|| peer.local.port());
        let service = self.resolve(&peer.owner, peer.by, at, port);
        (service.evidence != Evidence::Unknown).then_some(service)
    }
}
