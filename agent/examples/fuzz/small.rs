//! The small readers: trace context, PROXY prefix, first bytes, route templates.

use std::sync::Arc;

use weir::model::{
    Call, Connection, End, Exchange, HOPS, Hops, Http, Ids, Kind, Message, Method, Operation, Role, Service, Stamp,
    Thread, Verdict, Version,
};
use weir::proto::proxy::{self, Prefix};
use weir::proto::{Guess, PROTOCOLS, forwarded, traceparent};
use weir::redact::{Level, Patterns, Redactor, Settings};

use crate::random::Random;
use crate::talk::WORDS;
use crate::{Outcome, Target};

/// W3C trace context.
pub(crate) struct Traceparent;

impl Target for Traceparent {
    fn name(&self) -> &'static str {
        "traceparent"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut value = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec();
        random.mutate(&mut value, &[b"-", b"0", b"ff", b"A", b"-00", b"00000000000000000000000000000000"]);
        match traceparent::parse(&value) {
            Some(context) if context.trace == [0; 16] || context.span == [0; 8] || value.len() < 55 => {
                Err("an invalid context was taken".into())
            }
            _ => Ok(0),
        }
    }
}

/// `X-Forwarded-For` and `Forwarded`.
pub(crate) struct Hopping;

impl Target for Hopping {
    fn name(&self) -> &'static str {
        "forwarded"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut hops = Hops::default();
        forwarded::x_forwarded_for(b"192.0.2.1, [2001:db8::1]:80", false, &mut hops);
        forwarded::forwarded(b"by=_a;for=192.0.2.1, for=\"[2001:db8::1]:80\"", false, &mut hops);
        if hops.last.iter().flatten().count() != 4 {
            return Err("a valid list was not understood".into());
        }
        let mut value = b"for=192.0.2.1;proto=http, for=\"[2001:db8::1]:80\", 10.0.0.1:8, ::1".to_vec();
        random.mutate(&mut value, &[b",", b";", b"\"", b"\\", b"for=", b"[", b"]", b":", b" ", b"10.0.0.1"]);
        for _ in 0..=random.below(20) {
            forwarded::x_forwarded_for(&value, random.one_in(2), &mut hops);
            forwarded::forwarded(&value, random.one_in(2), &mut hops);
        }
        if hops.last.len() > HOPS { Err(format!("{} hops kept", hops.last.len())) } else { Ok(hops.last.len()) }
    }
}

/// PROXY protocol and the first bytes of a connection.
pub(crate) struct FirstBytes;

impl Target for FirstBytes {
    fn name(&self) -> &'static str {
        "first_bytes"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut bytes: Vec<u8> = random
            .pick(&[
                &b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n"[..],
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c............GET / HTTP/1.0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ])
            .into();
        random.mutate(&mut bytes, WORDS);
        if proxy::prefix(&bytes) == Prefix::Unsure && bytes.len() > 107 {
            return Err("unsure beyond the longest prefix".into());
        }
        // Asked once there is a prefix, which names an address of a process somewhere.
        if proxy::prefix(&bytes) != Prefix::Absent {
            std::hint::black_box(proxy::source(&bytes));
        }
        let other = if random.one_in(2) { &b"HTTP/1.1 200 OK\r\n"[..] } else { b"" };
        for protocol in PROTOCOLS {
            for (client, server) in [(&bytes[..], &b""[..]), (b"", &bytes[..]), (&bytes[..], other)] {
                if (protocol.guess)(client, server) == Guess::More && client.len().max(server.len()) >= 64 {
                    return Err("not sure after 64 bytes".into());
                }
            }
        }
        Ok(0)
    }
}

/// Route templates and redaction.
pub(crate) struct Routes {
    name: &'static str,
    redactor: Redactor,
    exchange: Exchange,
}

impl Routes {
    pub(crate) fn new(level: Level) -> Option<Self> {
        let settings = Settings {
            level,
            user_agent: true,
            query: vec!["page".into()],
            templates: vec!["/orders/{id}".into(), "/files/{path*}".into()],
            limit: 100,
        };
        let name = if level == Level::Strict { "routes_strict" } else { "routes" };
        Some(Self { name, redactor: Redactor::new(&settings).ok()?, exchange: exchange()? })
    }
}

impl Target for Routes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn weight(&self) -> u32 {
        2
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut target: Vec<u8> = random
            .pick(&[
                "/orders/17/lines/2?page=1&q=x#f",
                "http://user:pass@host.test:80/a;p=q/b",
                "/api/v1/users/550e8400-e29b-41d4-a716-446655440000/photo.jpg",
                "/files/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p",
                "*",
                "db.test:443",
            ])
            .into();
        random.mutate(
            &mut target,
            &[b"/", b"{id}", b"?", b"#", b"=", b"&", b";", b"://", b"@", b"%2f", b"17", b"word", b"..", b"\xc3\xa4"],
        );
        let target = String::from_utf8_lossy(&target);
        if random.one_in(64) && Patterns::new(&[&*target]).is_ok() && !target.starts_with('/') {
            return Err("a template that is no path was taken".into());
        }
        let Operation::Http(http) = &mut self.exchange.call.operation;
        http.target = (&*target).into();
        http.host = Some("user:pass@host.test".into());
        self.redactor.apply(&mut self.exchange);
        let Operation::Http(http) = &self.exchange.call.operation;
        let absolute = http.target.split_once("://").filter(|_| !http.target.starts_with('/'));
        let authority = absolute.and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
        if authority.contains('@') || http.host.as_deref().is_some_and(|host| host.contains("pass")) {
            return Err("user information stayed".into());
        }
        match &http.route {
            Some(route) if !route.starts_with('/') || route.contains(['?', '#']) => Err(format!("route {route}")),
            _ => Ok(0),
        }
    }
}

fn exchange() -> Option<Exchange> {
    let first = Stamp::default();
    Some(Exchange {
        ids: Ids::default(),
        kind: Kind::Server,
        call: Call {
            operation: Operation::Http(Http {
                method: Method::Known("GET"),
                target: "".into(),
                route: None,
                host: None,
                version: Version::Http11,
                status: Some(200),
                context: None,
                forwarded: None,
                way: None,
                user_agent: None,
                request_id: None,
                sent: None,
                unclear: 0,
            }),
            request: Message { first, ..Message::default() },
            response: None,
            end: End::Complete,
            error: None,
            pipelined: false,
            truncated: false,
        },
        connection: Arc::new(Connection {
            cookie: 1,
            local: "10.1.0.2:8080".parse().ok()?,
            remote: "10.1.0.7:51234".parse().ok()?,
            role: Role::Server,
            owner: weir_common::conn::Owner::default(),
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
        client: None,
        start_unix_ns: 0,
        verdict: Verdict::Allowed,
    })
}
