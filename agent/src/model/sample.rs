//! A call for tests: `curl` asks `shop` for `/orders/17` and gets 200 within 8 µs.

use std::sync::Arc;

use weir_common::conn::Owner;

use super::{
    Call, Connection, End, Evidence, Exchange, Http, Ids, Kind, Message, Method, Operation, Process, Role, Service,
    Stamp, Thread, Verdict, Version,
};

/// 2026-11-23T10:00:00Z.
pub(crate) const START_UNIX_NS: u64 = 1_795_428_000_000_000_000;

/// The call as one of its ends sees it.
pub(crate) fn exchange(kind: Kind) -> Exchange {
    let (role, local, remote) = match kind {
        Kind::Server => (Role::Server, "10.1.0.2:8080", "10.1.0.7:51234"),
        Kind::Client => (Role::Client, "10.1.0.7:51234", "10.1.0.2:8080"),
    };
    let (shop, curl) = (service("shop", "nginx", 712), service("curl", "curl", 901));
    let (service, peer) = match kind {
        Kind::Server => (shop, curl),
        Kind::Client => (curl, shop),
    };
    Exchange {
        ids: Ids { trace: [0xab; 16], span: [0xcd; 8], parent: None },
        kind,
        call: Call {
            operation: Operation::Http(Http {
                method: Method::Known("GET"),
                target: "/orders/17?page=2".into(),
                route: Some("/orders/{id}".into()),
                host: Some("shop.test:8080".into()),
                version: Version::Http11,
                status: Some(200),
                context: None,
                user_agent: Some("curl/8.5.0".into()),
            }),
            request: Message { first: stamp(1_000), last_at: 1_000, wire: 80, content: Some(0) },
            response: Some(Message { first: stamp(5_000), last_at: 9_000, wire: 500, content: Some(345) }),
            end: End::Complete,
            error: None,
            truncated: false,
        },
        connection: Arc::new(Connection {
            cookie: 81,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            role,
            owner: Owner::default(),
            netns: 0,
            opened_at: 0,
            midway: false,
        }),
        by: Thread::default(),
        service: Arc::new(service),
        mirrored: false,
        peer: Some(Arc::new(peer)),
        start_unix_ns: START_UNIX_NS,
        verdict: Verdict::Allowed,
    }
}

/// The HTTP part, to be changed.
pub(crate) fn http(exchange: &mut Exchange) -> &mut Http {
    let Operation::Http(http) = &mut exchange.call.operation;
    http
}

fn stamp(at: u64) -> Stamp {
    Stamp { at, seq: 1, by: Thread::default() }
}

fn service(name: &str, executable: &str, pid: u32) -> Service {
    Service {
        name: name.into(),
        evidence: Evidence::Executable,
        process: Some(Process { pid, executable_name: Some(executable.into()), ..Process::default() }),
        ..Service::unknown()
    }
}
