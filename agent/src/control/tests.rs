//! A real server on a real socket.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::PathBuf,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{client::Client, *};
use crate::model::{Kind, Visibility, sample};

/// Calls on a shelf, none of which ever leaves, and what can be told without a kernel.
#[derive(Default)]
struct Shelf {
    calls: Mutex<Vec<Arc<Exchange>>>,
    bad_config: bool,
}

impl Shelf {
    fn put(&self, cookie: u64) {
        let mut exchange = sample::exchange(if cookie.is_multiple_of(2) { Kind::Server } else { Kind::Client });
        Arc::make_mut(&mut exchange.connection).cookie = cookie;
        self.calls.lock().unwrap().push(Arc::new(exchange));
    }
}

impl Backend for Shelf {
    fn before(&self, place: u64, filter: &Filter, last: usize) -> Vec<Arc<Exchange>> {
        let calls = self.calls.lock().unwrap();
        let fitting = calls.iter().take(place as usize).rev().filter(|call| filter.takes(call));
        fitting.take(last).cloned().collect()
    }

    fn end(&self) -> u64 {
        self.calls.lock().unwrap().len() as u64
    }

    fn since(&self, place: u64, filter: &Filter) -> News {
        let calls = self.calls.lock().unwrap();
        let new = calls.iter().skip(place as usize).filter(|call| filter.takes(call)).cloned().collect();
        News { calls: new, next: calls.len() as u64, missed: 0 }
    }

    fn connections(&self) -> Result<Vec<ConnectionRow>, Unavailable> {
        let exchange = sample::exchange(Kind::Server);
        let connection = crate::model::OpenConnection {
            connection: exchange.connection.clone(),
            protocol: Some("http"),
            visibility: Visibility::Opaque("rustls"),
            server_name: Some("shop.test".into()),
            bytes: [80, 500],
            calls: 1,
            mirror: None,
            in_flight: false,
            own: false,
            last_at: 9_000,
        };
        let (opened_unix_ns, last_unix_ns) = (sample::START_UNIX_NS, sample::START_UNIX_NS + 9_000);
        let (service, peer) = (exchange.service, exchange.peer);
        Ok(vec![ConnectionRow { connection, service, peer, ambiguous: false, opened_unix_ns, last_unix_ns }; 3])
    }

    fn services(&self) -> Result<Vec<ServiceRow>, Unavailable> {
        Err(Unavailable("the capturing thread does not answer".into()))
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let (service, route) = ("shop".into(), Some("/orders/{id}".into()));
        vec![Endpoint {
            service,
            namespace: None,
            kind: Kind::Server,
            method: Some("GET"),
            route,
            calls: 3,
            errors: 1,
            request_bytes: 0,
            response_bytes: 1035,
            duration_ns: 24_000,
            p99_bound_ns: Some(5_000_000),
        }]
    }

    fn graph(&self, form: Form, since: Option<u64>, width: Option<usize>) -> Result<String, Unavailable> {
        Ok(format!("{form:?} {}{}\n", since.is_some(), width.map(|width| format!(" {width}")).unwrap_or_default()))
    }

    fn stats(&self) -> Result<Value, Unavailable> {
        Ok(json!({"uptime_seconds": 1.5}))
    }

    fn doctor(&self) -> Result<Value, Unavailable> {
        Ok(json!({"kernel": "6.1"}))
    }

    fn blocks(&self) -> Vec<Value> {
        vec![json!({"id": "b1", "hits": 3})]
    }

    fn explain(&self, id: &str) -> Result<Value, NotMade> {
        Err(NotMade { unknown: true, why: format!("there is no rule {id}"), field: None })
    }

    fn mode(&self) -> Value {
        json!({"mode": "monitor"})
    }

    fn change(&self, who: &str, _: Option<u32>, change: Change) -> Result<Value, NotMade> {
        Ok(json!({"who": who, "change": format!("{change:?}")}))
    }

    fn reload(&self, _: &str) -> Result<Vec<String>, String> {
        if self.bad_config { Err("weir.yaml:1:1: unknown key `x`".into()) } else { Ok(vec!["x".into()]) }
    }
}

/// A server in a folder of its own.
struct Room {
    folder: PathBuf,
    shelf: Arc<Shelf>,
    server: Option<Server>,
}

impl Room {
    fn new(name: &str, shelf: Shelf) -> Self {
        let folder = std::env::temp_dir().join(format!("weir-control-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let shelf = Arc::new(shelf);
        let holder = Holder::take(&folder.join("deep/control.sock")).unwrap();
        let server = Some(Server::start(holder, shelf.clone()).unwrap());
        Self { folder, shelf, server }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("deep/control.sock")
    }

    fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    /// The status line's code for bytes sent as they are, and everything that was answered.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(bytes);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn document(&self, target: &str) -> Value {
        self.client().document("GET", target).unwrap()
    }

    fn lines(&self, target: &str) -> Vec<Value> {
        self.client().lines(target).unwrap().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.server = None;
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn cookies(calls: &[Value]) -> Vec<u64> {
    calls.iter().map(|call| call["connection"]["cookie"].as_u64().unwrap()).collect()
}

#[test]
fn calls_are_told_oldest_first_and_filtered() {
    let room = Room::new("calls", Shelf::default());
    (0..250).for_each(|n| room.shelf.put(n));
    assert_eq!(cookies(&room.lines("/v1/calls")), (150..250).collect::<Vec<_>>());
    assert_eq!(cookies(&room.lines("/v1/calls?last=3&kind=server")), [244, 246, 248]);
    assert_eq!(cookies(&room.lines("/v1/calls?last=1000000")).len(), 250);
    assert_eq!(room.lines("/v1/calls?status=5xx"), Vec::<Value>::new());
    let call = &room.lines("/v1/calls?last=1")[0];
    assert_eq!(
        *call,
        serde_json::to_value(crate::model::json::CallJson(room.shelf.calls.lock().unwrap().last().unwrap())).unwrap()
    );
}

#[test]
fn documents_are_told() {
    let room = Room::new("documents", Shelf::default());
    assert_eq!(room.document("/v1/stats"), json!({"uptime_seconds": 1.5}));
    assert_eq!(room.document("/v1/doctor"), json!({"kernel": "6.1"}));
    let connections = room.lines("/v1/connections");
    assert_eq!(connections.len(), 3);
    assert_eq!(
        connections[0],
        json!({
            "service": {
                "service.name": "shop", "service.namespace": null, "process.pid": 712,
                "process.executable.name": "nginx", "container.id": null, "k8s.pod.name": null,
            },
            "peer": {"service.name": "curl", "address": "10.1.0.7", "port": 51234},
            "peer_unknown_reason": null,
            "cookie": 81, "role": "server", "local": "10.1.0.2:8080", "remote": "10.1.0.7:51234",
            "protocol": "http", "visibility": "opaque", "weir.opaque.reason": "rustls",
            "tls": {"server_name": "shop.test"},
            "bytes_received": 80, "bytes_sent": 500, "calls": 1, "in_flight": false,
            "opened": "2026-11-23T10:00:00.000000000Z", "last": "2026-11-23T10:00:00.000009000Z",
            "older_than_agent": false,
        })
    );
    assert_eq!(
        room.lines("/v1/endpoints"),
        [json!({
            "service": {"service.name": "shop", "service.namespace": null}, "kind": "server", "protocol": "http",
            "method": "GET", "route": "/orders/{id}", "calls": 3, "errors": 1, "request_bytes": 0,
            "response_bytes": 1035, "seconds": 0.000_024, "p99_at_most_seconds": 0.005,
        })]
    );
    let refused = room.client().lines("/v1/services").err().unwrap();
    assert_eq!(refused.to_string(), "the capturing thread does not answer");
}

#[test]
fn reload_says_what_changed_or_why_not() {
    let good = Room::new("reload", Shelf::default());
    let answer: Value = good.client().document("POST", "/v1/reload").unwrap();
    assert_eq!(answer, json!({"warnings": ["x"]}));
    let bad = Room::new("reload-bad", Shelf { bad_config: true, ..Shelf::default() });
    let error = bad.client().document::<Value>("POST", "/v1/reload").unwrap_err();
    assert_eq!(error.to_string(), "weir.yaml:1:1: unknown key `x`");
}

#[test]
fn followers_get_the_past_and_then_each_call_once() {
    let room = Room::new("follow", Shelf::default());
    (0..10).for_each(|n| room.shelf.put(n));
    let mut lines = room.client().lines("/v1/calls?follow=1&last=2").unwrap();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let mut told = vec![next(), next()];
    (10..1_010).for_each(|n| room.shelf.put(n));
    told.extend((10..1_010).map(|_| next()));
    assert_eq!(cookies(&told), (8..1_010).collect::<Vec<_>>());
}

#[test]
fn followers_end_when_the_agent_stops() {
    let mut room = Room::new("stop", Shelf::default());
    room.shelf.put(0);
    let mut lines = room.client().lines("/v1/calls?follow=1&last=1").unwrap();
    assert!(lines.next().is_some());
    let idle = UnixStream::connect(room.socket()).unwrap();
    let started = Instant::now();
    room.server = None;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(lines.next().is_none_or(|line| line.is_err()));
    assert!(!room.socket().exists(), "the socket is gone with its server");
    drop(idle);
}

#[test]
fn curl_can_ask() {
    let room = Room::new("curl", Shelf::default());
    room.shelf.put(7);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--unix-socket"])
        .arg(room.socket())
        .arg("http://weir/v1/calls?last=1")
        .output()
        .unwrap();
    let call: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(cookies(&[call]), [7]);
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let room = Room::new("wrong", Shelf::default());
    for (request, status, said) in [
        (
            "GET /v2/calls",
            404,
            "there is no /v2/calls; there is /v1/calls, connections, services, endpoints, graph, stats, doctor, blocks, blocks/{id}, mode and reload",
        ),
        ("POST /v1/calls", 405, "/v1/calls does not take POST; it takes GET, HEAD"),
        ("GET /v1/reload", 405, "/v1/reload does not take GET; it takes POST"),
        ("GET /v1/calls?lst=1", 400, "there is no parameter `lst`"),
        ("GET /v1/calls?status=abc", 400, "status: write 404, 5xx or 4xx,5xx"),
        ("GET /v1/stats?x=1", 400, "/v1/stats takes no parameters"),
    ] {
        let answer = room.raw(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.ends_with(&format!("{}\n", json!({ "error": said }))), "{request}: {answer}");
        let allow = said.split_once("; it takes ").map(|(_, methods)| format!("\r\nallow: {methods}\r\n"));
        assert_eq!(allow.as_ref().is_some_and(|allow| answer.contains(allow)), status == 405, "{answer}");
    }
    let post = |body: &str| {
        let length = body.len();
        let head =
            format!("POST /v1/blocks HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        room.raw((head + body).as_bytes())
    };
    assert!(post("{").starts_with("HTTP/1.1 400 "));
    assert!(post("[]").contains("the body is JSON, but no object"));
    assert!(post(&format!("{{}}{}", " ".repeat(1 << 20))).starts_with("HTTP/1.1 413 "));
    assert!(post(r#"{"id":"x"}"#).starts_with("HTTP/1.1 200 "));
}

#[test]
fn hostile_bytes_harm_nobody() {
    let room = Room::new("hostile", Shelf::default());
    let long = format!("GET /v1/calls?service={} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20));
    let fields = format!("GET /v1/stats HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100_000));
    let body = format!("POST /v1/reload HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n{}", "x".repeat(1 << 16));
    for bytes in [long.as_bytes(), fields.as_bytes(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", &[0; 4096]] {
        let answer = room.raw(bytes);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // A body is not read: the answer comes without it.
    let mut stream = UnixStream::connect(room.socket()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    // Who never ends a head does not keep his place.
    let started = Instant::now();
    let answer = room.raw(b"GET /v1/stats HTTP/1.1\r\n");
    assert!(!answer.starts_with("HTTP/1.1 200") && started.elapsed() < Duration::from_secs(15));
    // More connections than places: all the others wait their turn, nobody is lost.
    let idle: Vec<_> = (0..100).map(|_| UnixStream::connect(room.socket()).unwrap()).collect();
    drop(idle);
    assert_eq!(room.document("/v1/stats"), json!({"uptime_seconds": 1.5}));
}

#[test]
fn the_socket_is_for_root_and_its_group() {
    let room = Room::new("mode", Shelf::default());
    let metadata = fs::metadata(room.socket()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    // SAFETY: no arguments, always succeed.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let expected = socket::group("/etc/group", GROUP).filter(|_| user == 0).unwrap_or(group);
    assert_eq!((metadata.uid(), metadata.gid()), (user, expected));
}

/// Needs root, to become somebody else.
#[test]
fn others_may_read_at_most() {
    // SAFETY: no arguments, always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let room = Room::new("others", Shelf::default());
    let ask = |method: &str, path: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .args(["curl", "--silent", "--show-error", "--request", method, "--unix-socket"])
            .arg(room.socket())
            .arg(format!("http://weir{path}"))
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    // 7: curl could not connect.
    assert_eq!(ask("GET", "/v1/stats"), (7, String::new()));
    // As a member of the socket's group would be let in.
    fs::set_permissions(room.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let (code, text) = ask("GET", "/v1/stats");
    assert!(code == 0 && text.contains("uptime_seconds"), "{code} {text}");
    let refused = json!({"error": "only root may change things; reading needs no more than the group"});
    assert_eq!(ask("POST", "/v1/reload"), (0, format!("{refused}\n")));
}

#[test]
fn a_second_agent_is_refused_and_a_dead_ones_socket_replaced() {
    let mut room = Room::new("second", Shelf::default());
    let error = Holder::take(&room.socket()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is held by another agent (pid {}); stop that one first, or give this one another control.socket",
            room.socket().display(),
            std::process::id()
        )
    );
    room.server = None;
    // What a killed agent leaves: a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(room.socket()).unwrap());
    let unreachable = room.client().document::<Value>("GET", "/v1/stats").unwrap_err();
    assert!(matches!(unreachable, client::Error::Unreachable { .. }));
    assert!(unreachable.to_string().ends_with("Connection refused (os error 111); start one with: weir run"));
    let holder = Holder::take(&room.socket()).unwrap();
    room.server = Some(Server::start(holder, room.shelf.clone()).unwrap());
    assert!(room.client().document::<Value>("GET", "/v1/stats").is_ok());
}

/// Who can open the lock's file can lock it, and who can put a link in its place chooses which file is emptied.
#[test]
fn the_lock_is_its_owners_and_no_link() {
    let room = Room::new("lock", Shelf::default());
    let lock = room.folder.join("deep/control.sock.lock");
    assert_eq!(fs::metadata(&lock).unwrap().permissions().mode() & 0o7777, 0o600);
    let (file, path) = (room.folder.join("precious"), room.folder.join("other.sock"));
    fs::write(&file, "mine").unwrap();
    std::os::unix::fs::symlink(&file, room.folder.join("other.sock.lock")).unwrap();
    let error = Holder::take(&path).unwrap_err().to_string();
    assert!(error.contains("opening its lock"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    let (old, path) = (room.folder.join("old.sock.lock"), room.folder.join("old.sock"));
    fs::write(&old, "").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Holder::take(&path).unwrap());
    assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_file_of_that_name_is_left_alone() {
    let room = Room::new("file", Shelf::default());
    let path = room.folder.join("notes");
    fs::write(&path, "mine").unwrap();
    let error = Holder::take(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} is not a socket; remove it, or choose another control.socket", path.display())
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}
