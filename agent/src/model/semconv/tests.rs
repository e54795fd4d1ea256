use std::sync::Arc;

use super::super::Process;
use super::super::example::exchange;
use super::*;

fn http(exchange: &mut Exchange) -> &mut Http {
    let Operation::Http(http) = &mut exchange.call.operation;
    http
}

fn told(exchange: &Exchange) -> Vec<String> {
    let mut told = Vec::new();
    span(exchange, &mut |key, value| told.push(format!("{key}={value}")));
    told
}

#[test]
fn a_server_call() {
    assert_eq!(
        told(&exchange(Kind::Server)),
        [
            "http.request.method=GET",
            "url.scheme=http",
            "http.route=/orders/{id}",
            "server.address=shop.test",
            "server.port=8080",
            "url.path=/orders/17",
            "url.query=page=2",
            "user_agent.original=curl/8.5.0",
            "http.request.body.size=0",
            "http.response.status_code=200",
            "http.response.body.size=345",
            "client.address=10.1.0.7",
            "network.peer.address=10.1.0.7",
            "network.peer.port=51234",
            "network.protocol.name=http",
            "network.protocol.version=1.1",
            "weir.end=complete",
            "weir.verdict=allowed",
        ]
    );
    assert_eq!(span_name(&exchange(Kind::Server)).to_string(), "GET /orders/{id}");
}

#[test]
fn a_client_call_that_privacy_and_the_wire_left_little_of() {
    let mut call = exchange(Kind::Client);
    let said = http(&mut call);
    said.method = Method::Other("BREW".into());
    said.target = "".into();
    said.route = None;
    said.host = None;
    said.user_agent = None;
    said.status = None;
    call.call.request.content = None;
    call.call.response = None;
    call.call.end = End::Reset;
    call.call.error = Some("connection_reset");
    call.call.truncated = true;
    call.verdict = Verdict::WouldDrop { rule: Arc::from("7"), reason: Arc::from("scan") };
    call.peer =
        Some(Arc::new(Service { name: Arc::from("pot"), namespace: Some(Arc::from("kitchen")), ..Service::unknown() }));
    assert_eq!(
        told(&call),
        [
            "http.request.method=_OTHER",
            "http.request.method_original=BREW",
            "url.scheme=http",
            "server.address=10.1.0.2",
            "server.port=8080",
            "weir.request.wire.size=80",
            "error.type=connection_reset",
            "network.peer.address=10.1.0.2",
            "network.peer.port=8080",
            "network.protocol.name=http",
            "network.protocol.version=1.1",
            "service.peer.name=pot",
            "service.peer.namespace=kitchen",
            "weir.end=reset",
            "weir.truncated=true",
            "weir.verdict=would_drop",
            "weir.block.id=7",
            "weir.block.reason=scan",
        ]
    );
    assert_eq!(span_name(&call).to_string(), "HTTP");
}

#[test]
fn errors_by_side() {
    let with = |kind, status: Option<u16>, error, end| {
        let mut call = exchange(kind);
        http(&mut call).status = status;
        call.call.error = error;
        call.call.end = end;
        error_type(&call)
    };
    let done = End::Complete;
    assert_eq!(with(Kind::Server, Some(404), None, done), None);
    assert_eq!(with(Kind::Client, Some(404), None, done), Some("404"));
    assert_eq!(with(Kind::Client, Some(399), None, done), None);
    assert_eq!(with(Kind::Server, Some(499), None, done), None);
    assert_eq!(with(Kind::Server, Some(500), None, done), Some("500"));
    assert_eq!(with(Kind::Server, Some(999), None, done), Some("999"));
    assert_eq!(with(Kind::Server, Some(200), None, End::ClientAborted), Some("client_aborted"));
    assert_eq!(with(Kind::Server, None, Some("timeout"), End::ServerAborted), Some("timeout"));
    assert_eq!(with(Kind::Client, None, None, End::Reset), Some("reset"));
    assert_eq!(with(Kind::Client, None, None, End::Lost("gap")), None);
    assert_eq!(with(Kind::Client, None, None, End::InFlight), None);
    assert_eq!(with(Kind::Client, Some(101), None, End::Upgraded), None);
}

#[test]
fn every_status_has_its_digits() {
    for status in 100..=999 {
        assert_eq!(status_text(status), Some(status.to_string().as_str()));
    }
    assert_eq!(status_text(99), None);
    assert_eq!(status_text(1000), None);
}

#[test]
fn the_server_as_the_client_named_it() {
    let named = |host: Option<&str>| {
        let mut call = exchange(Kind::Server);
        http(&mut call).host = host.map(Into::into);
        match server(&call) {
            Server { address: Host::Name(name), port } => format!("name {name} {port}"),
            Server { address: Host::Ip(address), port } => format!("ip {address} {port}"),
        }
    };
    assert_eq!(named(Some("shop.test")), "name shop.test 80");
    assert_eq!(named(Some("shop.test:81")), "name shop.test 81");
    assert_eq!(named(Some("shop.test:")), "name shop.test 80");
    assert_eq!(named(Some("shop.test:99999")), "name shop.test 8080");
    assert_eq!(named(Some("[::1]:81")), "name ::1 81");
    assert_eq!(named(Some("[::1]")), "name ::1 80");
    assert_eq!(named(Some("me:secret@shop.test:81")), "name shop.test 81");
    assert_eq!(named(Some("")), "ip 10.1.0.2 8080");
    assert_eq!(named(Some(":9")), "ip 10.1.0.2 8080");
    assert_eq!(named(None), "ip 10.1.0.2 8080");
}

#[test]
fn targets() {
    assert_eq!(path_and_query("/a?b=c?d#e"), Some(("/a", "b=c?d")));
    assert_eq!(path_and_query("http://u:p@h/a?b"), Some(("/a", "b")));
    assert_eq!(path_and_query("http://h"), Some(("/", "")));
    assert_eq!(path_and_query("http://h?q"), Some(("", "q")));
    assert_eq!(path_and_query("*"), None);
    assert_eq!(path_and_query("h:443"), None);
    assert_eq!(path_and_query(""), None);
}

#[test]
fn the_full_url_of_a_client() {
    let full = |target: &str, host: Option<&str>| {
        let mut call = exchange(Kind::Client);
        http(&mut call).target = target.into();
        http(&mut call).host = host.map(Into::into);
        told(&call).into_iter().find(|line| line.starts_with("url.full=")).unwrap()
    };
    assert_eq!(full("/a?b=c", Some("h")), "url.full=http://h/a?b=c");
    assert_eq!(full("http://u:p@h:81/a", Some("u:p@h:81")), "url.full=http://h:81/a");
    assert_eq!(full("/", Some("[::1]:8080")), "url.full=http://[::1]:8080/");
    assert_eq!(full("/", None), "url.full=http://10.1.0.2:8080/");
}

#[test]
fn a_service_with_and_without_its_process() {
    let service = Service {
        name: Arc::from("shop"),
        namespace: Some(Arc::from("prod")),
        container_id: Some(Arc::from("c1")),
        attributes: vec![(Arc::from("k8s.pod.name"), Arc::from("shop-1"))],
        process: Some(Process {
            pid: 7,
            executable_name: Some(Arc::from("nginx")),
            executable_path: Some(Arc::from("/usr/sbin/nginx")),
            command_line: Some(Arc::from("nginx -g secret")),
            ..Process::default()
        }),
        ..Service::unknown()
    };
    let told = |process| {
        let mut told = Vec::new();
        resource(&service, process, &mut |key, value| told.push(format!("{key}={value}")));
        told
    };
    let who = ["service.name=shop", "service.namespace=prod", "container.id=c1", "k8s.pod.name=shop-1"];
    assert_eq!(told(false), who);
    let process = ["process.pid=7", "process.executable.name=nginx", "process.executable.path=/usr/sbin/nginx"];
    assert_eq!(told(true), [&who[..], &process[..]].concat());
}
