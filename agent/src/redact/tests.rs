use std::sync::Arc;

use weir_common::conn::Owner;

use crate::model::{
    Call, Connection, End, Exchange, Http, Ids, Kind, Message, Method, Operation, Process, Role, Service, Stamp,
    Thread, Verdict, Version,
};

use super::{Level, Redactor, Settings};

fn exchange(kind: Kind, target: &str) -> Exchange {
    let first = Stamp { at: 1, seq: 1, by: Thread::default() };
    let process =
        Process { pid: 7, command_line: Some(Arc::from("serve --password hunter2cmd")), ..Process::default() };
    Exchange {
        ids: Ids::default(),
        kind,
        call: Call {
            operation: Operation::Http(Http {
                method: Method::Known("GET"),
                target: target.into(),
                route: None,
                host: Some("shop.test:8080".into()),
                version: Version::Http11,
                status: Some(200),
                context: None,
                forwarded: Some(7),
                way: None,
                user_agent: Some("curl/8 agent-s3cr3t".into()),
                request_id: None,
                sent: None,
                unclear: 0,
            }),
            request: Message { first, last_at: 1, wire: 80, content: Some(0) },
            response: None,
            end: End::Complete,
            error: None,
            pipelined: false,
            truncated: false,
        },
        connection: Arc::new(Connection {
            cookie: 81,
            local: "10.1.0.2:8080".parse().unwrap(),
            remote: "10.1.0.7:51234".parse().unwrap(),
            role: Role::Server,
            owner: Owner::default(),
            netns: 0,
            opened_at: 0,
            midway: false,
        }),
        by: Thread::default(),
        service: Arc::new(Service { name: Arc::from("shop"), process: Some(process), ..Service::unknown() }),
        mirror: None,
        elsewhere: false,
        peer: None,
        via: None,
        client: None,
        start_unix_ns: 1,
        verdict: Verdict::Allowed,
    }
}

fn http(exchange: &mut Exchange) -> &mut Http {
    let Operation::Http(http) = &mut exchange.call.operation;
    http
}

fn redactor(level: Level) -> Redactor {
    let templates = vec!["/known/{thing}".into()];
    let settings = Settings { level, query: vec!["page".into()], user_agent: true, templates, limit: 200 };
    Redactor::new(&settings).unwrap()
}

fn applied(redactor: &Redactor, mut exchange: Exchange) -> Exchange {
    redactor.apply(&mut exchange);
    exchange
}

#[test]
fn strict_leaves_the_template_only() {
    let strict = redactor(Level::Strict);
    let mut call = applied(&strict, exchange(Kind::Server, "/orders/17?page=2"));
    assert_eq!(call.service.process.as_ref().unwrap().command_line, None);
    let said = http(&mut call);
    assert_eq!(said.route.as_deref(), Some("/orders/{id}"));
    assert_eq!((&*said.target, &said.host, &said.user_agent), ("", &None, &None));
    let mut call = applied(&strict, exchange(Kind::Client, "/known/anything at all"));
    let said = http(&mut call);
    assert_eq!((said.route.as_deref(), said.host.as_deref()), (Some("/known/{thing}"), Some("shop.test:8080")));
    for target in ["*", "db.test:443"] {
        assert_eq!(http(&mut applied(&strict, exchange(Kind::Server, target))).route, None);
    }
}

#[test]
fn standard_keeps_path_and_allowed_keys() {
    let standard = redactor(Level::Standard);
    let mut call = applied(&standard, exchange(Kind::Server, "/orders/17?page=2&user=bob#x"));
    assert!(call.service.process.as_ref().unwrap().command_line.is_some());
    let said = http(&mut call);
    assert_eq!(said.route.as_deref(), Some("/orders/{id}"));
    assert_eq!(&*said.target, "/orders/17?page=2&user=REDACTED");
    assert_eq!(said.user_agent.as_deref(), Some("curl/8 agent-s3cr3t"));
    let mut call = exchange(Kind::Server, "/");
    http(&mut call).host = Some("me:pass@shop.test".into());
    assert_eq!(http(&mut applied(&standard, call)).host.as_deref(), Some("shop.test"));
}

#[test]
fn a_canary_is_nowhere() {
    let strict = redactor(Level::Strict);
    for canary in
        ["s3cr3t-p4th-9x", "hunter2Hunter2", "4111111111111111", "bob@example.test", "0f1e2d3c4b5a", "aGVsbG8gd29ybGQh"]
    {
        for target in [
            format!("/reset/{canary}"),
            format!("/reset/{canary}/x"),
            format!("/reset;key={canary}/x"),
            format!("/a?q={canary}"),
            format!("/a?{canary}"),
            format!("/a#{canary}"),
            format!("http://{canary}:{canary}@shop.test/a/{canary}?{canary}#{canary}"),
            format!("/a%20{canary}"),
            format!("/{}", canary.repeat(1000)),
        ] {
            for kind in [Kind::Client, Kind::Server] {
                let mut call = exchange(kind, &target);
                let said = http(&mut call);
                said.user_agent = Some(canary.into());
                said.host = Some(format!("{canary}@shop.test").into());
                let told = format!("{:?}", applied(&strict, call));
                assert!(!told.contains(canary), "{target}: {told}");
                assert!(!told.contains("hunter2cmd"), "{told}");
            }
        }
    }
}

#[test]
fn routes_and_services_are_shared() {
    let strict = redactor(Level::Strict);
    let first = exchange(Kind::Server, "/orders/1");
    let mut second = exchange(Kind::Server, "/orders/2");
    second.service = Arc::clone(&first.service);
    let (mut first, mut second) = (applied(&strict, first), applied(&strict, second));
    assert!(Arc::ptr_eq(&first.service, &second.service));
    let (first, second) = (http(&mut first).route.clone().unwrap(), http(&mut second).route.clone().unwrap());
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn what_collapses_is_told_so_from_then_on() {
    let strict = redactor(Level::Strict);
    let route =
        |path: String| http(&mut applied(&strict, exchange(Kind::Server, &path))).route.clone().unwrap().to_string();
    let word = |i: u8| char::from(b'a' + i % 26).to_string().repeat(1 + usize::from(i / 26));
    for i in 0..64 {
        assert_eq!(route(format!("/tags/{}", word(i))), format!("/tags/{}", word(i)));
    }
    assert_eq!(route("/tags/more".into()), "/tags/{*}");
    assert_eq!(route("/tags/a".into()), "/tags/{*}");
}

#[test]
fn a_bad_template_is_refused() {
    let settings = Settings { templates: vec!["/a".into(), "b".into()], ..Settings::default() };
    assert_eq!(Redactor::new(&settings).unwrap_err().to_string(), "route template `b`: begin it with /");
}
