//! Both ends of connections: who each is.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use weir_common::conn::{Known, Owner, Role};
use weir_common::record::{FLAG_MIDWAY, Opened};

use super::super::lineage::Lineage;
use super::super::names::Named;
use super::super::sockets::{self, Sockets};
use super::Resolver;
use crate::model::{self, Connection, Evidence, Exchange, Kind, Service, Thread};

/// What is known of a socket beside its announcement.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    /// Who held it, and which end it was, when a look saw it.
    /// Few connections are older than the agent, and there is one of these for each that there is.
    found: Option<Box<(Owner, model::Role)>>,
    /// Thread that was last seen to send on it.
    by: Thread,
    /// What DNS called its far end when it was opened from here; absent where it called it nothing.
    pub(super) outside: Option<Named>,
}

impl Resolver {
    /// Begins to look at the sockets that are there already; to be done once, when the kernel half is attached. What it
    /// finds goes to [`Self::found`]. Not needed for what is opened later.
    ///
    /// # Errors
    /// As [`begin`](super::super::begin).
    pub fn look(&self) -> io::Result<Receiver<io::Result<Sockets>>> {
        sockets::begin(&self.settings.proc)
    }

    /// Takes what a look found. Connections that were announced before have an owner now, where that is certain:
    /// [`Self::older`].
    pub fn found(&mut self, found: &Sockets) {
        self.listeners.clear();
        for socket in &found.sockets {
            if socket.listens() {
                let at = (socket.netns, socket.local.port());
                self.listeners.entry(at).or_default().push((socket.local.ip(), socket.owner));
            } else {
                self.ends.get_or(socket.cookie, End::default).found = Some(Box::new((socket.owner, socket.role)));
            }
        }
    }

    /// Who holds a connection and which end it is, as far as the kernel half does not know and a look found it. Its
    /// process is read while it is there.
    pub fn older(&mut self, connection: &Connection) -> Option<(Owner, model::Role)> {
        let found = self.ends.get(connection.cookie).and_then(|end| end.found.as_deref().copied());
        let (mut owner, mut role) = found.unwrap_or((Owner::default(), model::Role::Unknown));
        if connection.owner.known != Known::NO.0 {
            owner = connection.owner;
        }
        if connection.role != model::Role::Unknown {
            role = connection.role;
        }
        if owner.known == Known::NO.0
            && role == model::Role::Server
            && let Some(listening) = self.listener(connection.netns, connection.local)
        {
            owner = listening;
            self.ends.get_or(connection.cookie, End::default).found = Some(Box::new((owner, role)));
        }
        let news = owner.known != connection.owner.known || role != connection.role;
        if owner.known != connection.owner.known {
            self.resolve(&owner, Thread::default(), connection.opened_at, None);
        }
        news.then_some((owner, role))
    }

    /// A connection was announced. Gives the announcement back with what was found of it by a look, where the kernel half
    /// did not know: its role and its holder.
    pub fn opened(&mut self, opened: &Opened) -> Opened {
        let mut told = *opened;
        if let Some((owner, role)) = self.ends.get(opened.head.conn).and_then(|end| end.found.as_deref().copied()) {
            if told.owner.known == Known::NO.0 {
                told.owner = owner;
            }
            if told.role == Role::UNKNOWN.0 {
                told.role = match role {
                    model::Role::Server => Role::SERVER.0,
                    model::Role::Client => Role::CLIENT.0,
                    model::Role::Unknown => Role::UNKNOWN.0,
                };
            }
        }
        if told.role == Role::CLIENT.0 && told.head.flags & FLAG_MIDWAY == 0 {
            let address = Ipv6Addr::from(told.ends.remote).to_canonical();
            self.calls(told.head.conn, told.netns, address, told.owner.tgid, told.head.at);
        }
        if told.owner.known == Known::NO.0
            && told.role == Role::SERVER.0
            && let Some(owner) = self.listener(
                told.netns,
                SocketAddr::new(Ipv6Addr::from(told.ends.local).to_canonical(), told.ends.local_port),
            )
        {
            told.owner = owner;
            self.ends.get_or(opened.head.conn, End::default).found = Some(Box::new((owner, model::Role::Server)));
        }
        // Asked now, while the process is there to be read.
        self.resolve(&told.owner, Thread::default(), told.head.at, None);
        told
    }

    /// The process that holds a socket, where the kernel half does not know it and a look found it.
    #[must_use]
    pub fn holds(&self, cookie: u64) -> Option<u32> {
        self.ends.peek(cookie)?.found.as_ref().map(|found| found.0.tgid)
    }

    /// Who held the listener of a socket accepted at `local` when a look saw it. A listener that is younger than that was
    /// seen by the kernel half, and its owner comes with the announcement.
    fn listener(&self, netns: u64, local: SocketAddr) -> Option<Owner> {
        let all = self.listeners.get(&(netns, local.port()))?;
        let mut fitting = all.iter().filter(|(bound, _)| bound.is_unspecified() || bound.to_canonical() == local.ip());
        let (_, first) = fitting.next()?;
        let certain = first.known != Known::NO.0 && fitting.all(|(_, other)| other.tgid == first.tgid);
        certain.then_some(Owner { known: Known::LISTENER.0, ..*first })
    }

    /// Fills in who made a call, and who is at its other end where that is proven to be on this node.
    pub fn name(&mut self, exchange: &mut Exchange) {
        let (connection, mirror) = (&*exchange.connection, exchange.mirror.as_deref());
        let (request, response) = (exchange.call.request.first.at, exchange.call.response.map(|it| it.first.at));
        let answered = response.unwrap_or(request);
        let server = exchange.kind == Kind::Server;
        // When `by` did what it did: a server's child may be younger than the request.
        let (here, there) = if server { (answered, request) } else { (request, answered) };
        self.sent(connection.cookie, exchange.by);
        let service = self.end(connection, exchange.by, server, here);
        let proven = mirror.and_then(|mirror| {
            let by = self.ends.get(mirror.cookie).map(|end| end.by).unwrap_or_default();
            let service = self.end(mirror, by, !server, there);
            (service.evidence != Evidence::Unknown).then_some(service)
        });
        let peer = proven.or_else(|| self.far(connection, !server));
        let via = mirror.and_then(|mirror| {
            let (client, answering) = if server { (mirror, connection) } else { (connection, mirror) };
            (client.remote != answering.local).then(|| self.called(client))
        });
        (exchange.service, exchange.peer, exchange.via) = (service, peer, via);
    }

    /// By what name the client of a connection whose address was translated called its server.
    fn called(&mut self, client: &Connection) -> Arc<Service> {
        let known = self.far(client, true);
        known.unwrap_or_else(|| self.external(&client.remote.ip().to_string()))
    }

    /// A thread was seen to send on a connection.
    pub fn sent(&mut self, cookie: u64, by: Thread) {
        if by.tid != 0 {
            self.ends.get_or(cookie, End::default).by = by;
        }
    }

    /// The service that uses a connection: of who was last seen to send on it, else of who held it at first.
    pub fn at_end_of(&mut self, connection: &Connection, at: u64) -> Arc<Service> {
        let by = self.ends.get(connection.cookie).map(|end| end.by).unwrap_or_default();
        let pid = if by.tid == 0 { connection.owner.tgid } else { by.tgid };
        // A connection may outlive who held it, in `FIN_WAIT` and its like.
        let ended = self.processes.peek(pid).and_then(Lineage::ended).filter(|&ended| ended >= connection.opened_at);
        self.end(connection, by, connection.role == model::Role::Server, ended.map_or(at, |ended| ended.min(at)))
    }

    /// Who is at the other end of a connection: the service that uses `mirror`, where that is known, else who has its
    /// address in the cluster or answers there on another host, else the one name that DNS gave for its address.
    pub fn peer(&mut self, connection: &Connection, mirror: Option<&Connection>, at: u64) -> Option<Arc<Service>> {
        let proven = mirror.and_then(|mirror| self.proven(mirror, at));
        proven.or_else(|| self.far(connection, connection.role == model::Role::Client))
    }

    /// Who has the address at the other end; where `answers`, it is the end that was connected to.
    fn far(&mut self, connection: &Connection, answers: bool) -> Option<Arc<Service>> {
        let known = self.known(connection.remote, answers);
        known.or_else(|| self.outside(connection).filter(|_| answers))
    }

    /// Who is known to be at an address, in the cluster or on another host; where `answers`, it was connected to.
    fn known(&self, remote: SocketAddr, answers: bool) -> Option<Arc<Service>> {
        let elsewhere = || self.settings.hosts.at(remote).filter(|_| answers);
        self.book.at(remote, answers).or_else(elsewhere).cloned()
    }

    /// As [`Self::at_end_of`], where it is known.
    pub fn proven(&mut self, connection: &Connection, at: u64) -> Option<Arc<Service>> {
        let service = self.at_end_of(connection, at);
        (service.evidence != Evidence::Unknown).then_some(service)
    }

    /// The service of a connection's own end at `at`, `CLOCK_MONOTONIC` nanoseconds.
    pub fn end(&mut self, connection: &Connection, by: Thread, server: bool, at: u64) -> Arc<Service> {
        let port = server.then(|| connection.local.port());
        let mut owner = connection.owner;
        if owner.known == Known::NO.0
            && let Some(found) = self.ends.peek(connection.cookie).and_then(|end| end.found.as_deref())
        {
            // It was announced before a look found its holder.
            owner = found.0;
        }
        self.resolve(&owner, by, at, port)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener};
    use std::process::{Command, Stdio};

    use weir_common::conn::Ends;
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
        let found = resolver.look().unwrap().recv().unwrap().unwrap();
        resolver.found(&found);
        let row = |local, remote| *found.sockets.iter().find(|it| it.local == local && it.remote == remote).unwrap();
        let (server_end, client_end) = (accepted.local_addr().unwrap(), accepted.peer_addr().unwrap());
        let (server, client) = (row(server_end, client_end), row(client_end, server_end));

        let told = resolver.opened(&midway(&client));
        assert_eq!((told.role, told.owner.tgid), (Role::CLIENT.0, child.id()));
        let at = monotonic_ns();
        let mut call = example::exchange(Kind::Server);
        call.call.request.first.at = at;
        call.call.response = None;
        let connection = |socket: &Socket, told: &Opened| {
            let Connection { role, netns, opened_at, midway, .. } = *call.connection;
            let Socket { cookie, local, remote, .. } = *socket;
            Arc::new(Connection { cookie, local, remote, owner: told.owner, role, netns, opened_at, midway })
        };
        let mirror = connection(&client, &told);
        let told = resolver.opened(&midway(&server));
        assert_eq!((told.role, told.owner.tgid), (Role::SERVER.0, std::process::id()));
        let here = connection(&server, &told);
        call.connection = here;

        resolver.name(&mut call);
        assert_eq!(call.service.process.as_ref().map(|process| process.pid), Some(std::process::id()));
        assert_eq!(call.peer, None);
        call.mirror = Some(mirror.clone());
        resolver.name(&mut call);
        assert_eq!(call.peer.as_ref().map(|peer| &*peer.name), Some("caller"));

        // A connection that was handed on belongs to who uses it.
        let by = Thread { tgid: std::process::id(), tid: std::process::id(), ..Thread::default() };
        let mut sent = Exchange { kind: Kind::Client, connection: mirror, by, mirror: None, ..call.clone() };
        resolver.name(&mut sent);
        resolver.name(&mut call);
        assert_eq!(call.peer, Some(call.service.clone()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
