//! A call for tests: `GET /orders/17?page=2` of `shop.test:8080`, answered with 200, as either side sees it.

use std::sync::Arc;

use weir_common::conn::Owner;

use super::{
    Call, Connection, End, Exchange, Http, Ids, Kind, Message, Method, Operation, Role, Service, Stamp, Thread,
    Verdict, Version,
};

pub(crate) fn exchange(kind: Kind) -> Exchange {
    let (role, local, remote) = match kind {
        Kind::Server => (Role::Server, "10.1.0.2:8080", "10.1.0.7:51234"),
        Kind::Client => (Role::Client, "10.1.0.7:51234", "10.1.0.2:8080"),
    };
    Exchange {
        ids: Ids { trace: [1; 16], span: [2; 8], parent: None, link: None },
        kind,
        call: Call {
            operation: Operation::Http(Http {
                method: Method::Known("GET"),
                target: "/orders/17?page=2".into(),
                route: Some(Arc::from("/orders/{id}")),
                host: Some("shop.test:8080".into()),
                version: Version::Http11,
                status: Some(200),
                context: None,
                forwarded: None,
                way: None,
                user_agent: Some("curl/8.5.0".into()),
                request_id: None,
                sent: None,
                unclear: 0,
            }),
            request: Message {
                first: Stamp { at: 1_000, seq: 1, by: Thread::default() },
                last_at: 1_000,
                wire: 80,
                content: Some(0),
            },
            response: Some(Message {
                first: Stamp { at: 5_000, seq: 1, by: Thread::default() },
                last_at: 9_000,
                wire: 500,
                content: Some(345),
            }),
            end: End::Complete,
            error: None,
            pipelined: false,
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
        service: Arc::new(Service::unknown()),
        mirror: None,
        elsewhere: false,
        peer: None,
        via: None,
        client: (kind == Kind::Server).then(|| remote.parse::<std::net::SocketAddr>().unwrap().ip()),
        start_unix_ns: 1_700_000_000_000_000_000,
        verdict: Verdict::Allowed,
    }
}
