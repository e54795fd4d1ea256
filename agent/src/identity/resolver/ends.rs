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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, TcpListener};
    use std::process::{Command, Stdio};

    use weir_common::conn::{Ends, Owner};
    use weir_common::record::{FLAG_MIDWAY, Head};

    use super::super::super::{Settings, Socket};
    use super::*;
    use crate::clock::monotonic_ns;
    use crate::model::example;

    fn midway(socket: &Socket) -> Opened {
        let address = |end: SocketAddr| match end.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Opened {
            head: Head { kind: 1, flags: FLAG_MIDWAY, lost: 0, conn: socket.cookie, at: monotonic_ns() },
            ends: Ends {
                local: address(socket.local),
                remote: address(socket.remote),
                local_port: socket.local.port(),
                remote_port: socket.remote.port(),
                family: 2,
                reserved: 0,
            },
            owner: Owner::default(),
            netns: socket.netns,
            cgroup: 0,
            role: Role::UNKNOWN.0,
            framing: 0,
            known: 0,
            reserved: [0; 5],
            next: [0; 2],
        }
    }

    #[test]
    fn both_ends_of_an_older_connection_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let code = format!("import socket,sys\ns=socket.create_connection(('127.0.0.1',{port}))\nsys.stdin.read()");
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", &code])
            .env("OTEL_SERVICE_NAME", "caller")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut resolver = Resolver::new(Settings::default()).unwrap();
        let found = resolver.look().unwrap();
        let row = |local, remote| *found.sockets.iter().find(|it| it.local == local && it.remote == remote).unwrap();
        let (server_end, client_end) = (accepted.local_addr().unwrap(), accepted.peer_addr().unwrap());
        let (server, client) = (row(server_end, client_end), row(client_end, server_end));

        let told = resolver.opened(&midway(&client));
        assert_eq!((told.role, told.owner.tgid), (Role::CLIENT.0, child.id()));
        let told = resolver.opened(&midway(&server));
        assert_eq!((told.role, told.owner.tgid), (Role::SERVER.0, std::process::id()));

        let mut call = example::exchange(Kind::Server);
        let at = monotonic_ns();
        call.call.request.first.at = at;
        call.connection = Arc::new(Connection {
            cookie: server.cookie,
            local: server_end,
            remote: client_end,
            owner: told.owner,
            ..Connection::clone(&call.connection)
        });
        resolver.name(&mut call);
        assert_eq!(call.service.process.as_ref().map(|process| process.pid), Some(std::process::id()));
        assert_eq!(call.peer.as_ref().map(|peer| &*peer.name), Some("caller"));

        resolver.closed(&Closed {
            head: Head { kind: 4, flags: 0, lost: 0, conn: client.cookie, at },
            ends: Ends::default(),
            owner: Owner::default(),
            bytes: [0; 2],
            srtt_us: 0,
            from_state: 0,
            ended: 0,
            role: 0,
            reset_by: 0,
        });
        resolver.name(&mut call);
        assert!(call.peer.is_some(), "the other end is remembered for a while");
        resolver.tick(at + 31_000_000_000);
        resolver.name(&mut call);
        assert_eq!(call.peer, None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
