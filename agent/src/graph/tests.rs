//! Graphs against what was told.

use std::sync::Arc;

use super::{Format, Graph, LatencyRow, Open, Relation, Settings};
use crate::model::{
    Connection, End, EndedConnection, Evidence, Exchange, Hosts, Kind, OpenConnection, Role, Service, Verdict,
    Visibility, sample,
};

const SECOND: u64 = 1_000_000_000;

fn service(name: &str) -> Arc<Service> {
    Arc::new(Service { name: name.into(), evidence: Evidence::Unit, ..Service::unknown() })
}

/// A call from `client` to `server` with port 8080, seen by one end; `n` makes its ids and its time.
fn call(kind: Kind, client: &str, server: &str, n: u64, ms: u64) -> Exchange {
    let mut exchange = sample::exchange(kind);
    let (own, peer) = if kind == Kind::Client { (client, server) } else { (server, client) };
    exchange.service = service(own);
    exchange.peer = Some(service(peer));
    let (client_span, server_span) = (n.to_be_bytes(), (n + (1 << 40)).to_be_bytes());
    (exchange.ids.span, exchange.ids.parent) = match kind {
        Kind::Client => (client_span, None),
        Kind::Server => (server_span, Some(client_span)),
    };
    exchange.call.request.first.at = n * SECOND;
    exchange.call.request.last_at = n * SECOND;
    if let Some(response) = &mut exchange.call.response {
        response.first.at = n * SECOND + ms * 500_000;
        response.last_at = n * SECOND + ms * 1_000_000;
    }
    exchange.start_unix_ns = 1_000 * SECOND + n * SECOND;
    exchange
}

/// The same, with its other end observed here.
fn mirrored(kind: Kind, client: &str, server: &str, n: u64, ms: u64) -> Exchange {
    let exchange = call(kind, client, server, n, ms);
    Exchange { mirror: Some(Arc::clone(&exchange.connection)), ..exchange }
}

fn graph() -> Graph {
    Graph::new(Settings::default(), 0)
}

/// `client>server:port calls/errors/aborted` of every edge.
fn edges(graph: &Graph) -> Vec<String> {
    let row = |edge: &super::EdgeRow| {
        let counts = &edge.counts;
        format!(
            "{}>{}:{} {}/{}/{}",
            edge.client.name, edge.server.name, edge.server_port, counts.calls, counts.errors, counts.aborted
        )
    };
    graph.snapshot(None).edges.iter().map(row).collect()
}

#[test]
fn one_end_is_enough() {
    let mut graph = graph();
    for n in 0..10 {
        graph.call(&call(Kind::Server, "curl", "shop", n, 4));
    }
    assert_eq!(edges(&graph), ["curl>shop:8080 10/0/0"]);
    let snapshot = graph.snapshot(None);
    let counts = &snapshot.edges[0].counts;
    assert_eq!((counts.request_bytes, counts.response_bytes, counts.tls), (0, 3450, false));
    assert_eq!(counts.observed_by, ["server"]);
    assert_eq!(counts.first_seen.as_deref(), Some("1970-01-01T00:16:40.000000000Z"));
    assert_eq!(counts.last_seen.as_deref(), Some("1970-01-01T00:16:49.004000000Z"));
    let nodes: Vec<_> = snapshot.nodes.iter().map(|node| (&*node.service.name, node.kind)).collect();
    assert_eq!(nodes, [("curl", "service"), ("shop", "service")]);
}

#[test]
fn a_call_that_both_ends_tell_is_one() {
    for order in [[Kind::Client, Kind::Server], [Kind::Server, Kind::Client]] {
        let mut graph = graph();
        for n in 0..100 {
            for kind in order {
                let ms = if kind == Kind::Client { 20 } else { 10 };
                let mut exchange = mirrored(kind, "curl", "shop", n, ms);
                // Neither needs to know the other.
                exchange.peer = None;
                graph.call(&exchange);
            }
        }
        assert_eq!(edges(&graph), ["curl>shop:8080 100/0/0"]);
        let snapshot = graph.snapshot(None);
        let counts = &snapshot.edges[0].counts;
        assert_eq!((counts.observed_by.as_slice(), snapshot.unpaired), (["client", "server"].as_slice(), 0));
        assert_eq!(counts.response_bytes, 34_500);
        let latency = counts.latency_seconds.unwrap();
        for quantile in [latency.p50, latency.p90, latency.p99] {
            assert!((quantile - 0.02).abs() <= 0.02 * 0.0101, "{quantile}");
        }
        let [relation] = &graph.relations()[..] else { panic!("one relation") };
        assert_eq!((relation.calls, relation.client_seconds.count(), relation.server_seconds.count()), (100, 100, 100));
        assert_eq!(relation.client_seconds.sum_ns, 100 * 20_000_000);
        assert_eq!(relation.server_seconds.sum_ns, 100 * 10_000_000);
        assert_eq!((relation.client_seconds.counts[2], relation.server_seconds.counts[1]), (100, 100));
    }
}

#[test]
fn a_half_that_stays_alone_is_counted_once_whatever_comes() {
    let mut graph = graph();
    graph.call(&mirrored(Kind::Client, "curl", "shop", 1, 10));
    assert_eq!(edges(&graph), Vec::<String>::new());
    graph.tick(6 * SECOND);
    assert_eq!((edges(&graph), graph.snapshot(None).unpaired), (vec![], 0));
    graph.tick(7 * SECOND);
    assert_eq!((edges(&graph), graph.snapshot(None).unpaired), (vec!["curl>shop:8080 1/0/0".to_owned()], 1));
    // The server's word comes late.
    graph.call(&mirrored(Kind::Server, "curl", "shop", 1, 9_000));
    assert_eq!(edges(&graph), ["curl>shop:8080 1/0/0"]);
    assert_eq!(graph.snapshot(None).edges[0].counts.observed_by, ["client", "server"]);
}

#[test]
fn halves_are_bounded() {
    let mut graph = Graph::new(Settings { halves: 10, ..Settings::default() }, 0);
    for n in 0..1_000u64 {
        let mut exchange = mirrored(Kind::Client, "curl", "shop", 1, 1);
        exchange.ids.span = n.to_be_bytes();
        graph.call(&exchange);
    }
    assert_eq!((edges(&graph), graph.snapshot(None).unpaired), (vec!["curl>shop:8080 990/0/0".to_owned()], 990));
}

#[test]
fn what_went_wrong_has_a_class() {
    let mut graph = graph();
    let with = |n, change: fn(&mut Exchange)| {
        let mut exchange = call(Kind::Server, "curl", "shop", n, 1);
        change(&mut exchange);
        exchange
    };
    graph.call(&with(1, |exchange| sample::http(exchange).status = Some(404)));
    graph.call(&with(2, |exchange| sample::http(exchange).status = Some(503)));
    graph.call(&with(3, |exchange| exchange.call.end = End::Reset));
    graph.call(&with(4, |exchange| {
        (exchange.call.end, exchange.call.response) = (End::ClientAborted, None);
        sample::http(exchange).status = None;
    }));
    graph.call(&with(5, |exchange| exchange.call.error = Some("malformed_response")));
    graph.call(&with(6, |exchange| {
        exchange.verdict = Verdict::Dropped { rule: "r".into(), reason: "because".into() };
    }));
    graph.call(&with(7, |exchange| exchange.call.end = End::Lost("ring_full")));
    assert_eq!(edges(&graph), ["curl>shop:8080 7/2/2"]);
    let snapshot = graph.snapshot(None);
    let counts = &snapshot.edges[0].counts;
    let classes: Vec<_> = counts.errors_by_class.iter().map(|(class, n)| (*class, *n)).collect();
    assert_eq!(classes, [("4xx", 1), ("5xx", 1), ("client_aborted", 1), ("malformed_response", 1), ("reset", 1)]);
    assert_eq!(counts.dropped, 1);
    assert_eq!(graph.relations()[0].failed, 4);
}

#[test]
fn who_is_not_proven_is_external() {
    let mut graph = graph();
    let mut incoming = call(Kind::Server, "?", "shop", 1, 1);
    incoming.peer = None;
    let mut outgoing = call(Kind::Client, "shop", "?", 2, 1);
    outgoing.peer = None;
    let mut by_address = outgoing.clone();
    sample::http(&mut by_address).host = Some("10.1.0.2:8080".into());
    let mut unknown = call(Kind::Client, "?", "bank", 3, 1);
    unknown.service = Arc::new(Service::unknown());
    for exchange in [&incoming, &outgoing, &by_address, &unknown] {
        graph.call(exchange);
    }
    assert_eq!(
        edges(&graph),
        [
            "external:10.1.0.7>shop:8080 1/0/0",
            "shop>external:10.1.0.2:8080 1/0/0",
            "shop>external:shop.test:8080 1/0/0",
            "unknown>bank:8080 1/0/0",
        ]
    );
    let kinds: Vec<_> = graph.snapshot(None).nodes.iter().map(|node| node.kind).collect();
    assert_eq!(kinds, ["service", "external", "external", "external", "service", "unknown"]);
}

fn ended(role: Role, error: Option<&'static str>, protocol: Option<&'static str>) -> EndedConnection {
    let exchange = sample::exchange(Kind::Client);
    EndedConnection {
        connection: Arc::new(Connection { role, ..(*exchange.connection).clone() }),
        established: error.is_none(),
        mirror: None,
        protocol,
        visibility: Visibility::Opaque("tls"),
        server_name: None,
        bytes: [30, 5],
        ended_at: 9 * SECOND,
        error,
    }
}

#[test]
fn connections_without_calls_are_edges_too() {
    let mut graph = graph();
    let (curl, bank) = (service("curl"), service("bank"));
    graph.ended(&ended(Role::Client, Some("connection_refused"), None), &curl, None, 99 * SECOND);
    graph.ended(&ended(Role::Client, None, Some("tls")), &curl, Some(&bank), 99 * SECOND);
    graph.ended(
        &EndedConnection {
            mirror: Some(ended(Role::Client, None, None).connection),
            ..ended(Role::Server, None, Some("tls"))
        },
        &bank,
        None,
        1,
    );
    graph.ended(&ended(Role::Unknown, None, None), &bank, None, 1);
    // What a client asks for by SNI names the other end, where nobody knows better.
    let named = |role| EndedConnection { server_name: Some("api.test".into()), ..ended(role, None, Some("tls")) };
    graph.ended(&named(Role::Client), &curl, None, 99 * SECOND);
    graph.ended(&named(Role::Client), &curl, Some(&bank), 99 * SECOND);
    graph.ended(&named(Role::Server), &bank, None, 99 * SECOND);
    let snapshot = graph.snapshot(None);
    let rows: Vec<_> = snapshot
        .edges
        .iter()
        .map(|edge| {
            let counts = &edge.counts;
            (&*edge.server.name, edge.protocol, counts.connections, counts.failed_connections, counts.tls)
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("bank", "tls", 2, 0, true),
            ("external:10.1.0.2", "tcp", 1, 1, false),
            ("external:api.test", "tls", 1, 0, true),
            ("bank", "tls", 1, 0, true),
        ]
    );
    assert_eq!((snapshot.edges[0].counts.request_bytes, snapshot.edges[0].counts.response_bytes), (10, 60));
    assert_eq!(graph.relations(), []);
}

fn open(role: Role, visibility: Visibility) -> OpenConnection {
    let ended = ended(role, None, None);
    OpenConnection {
        connection: ended.connection,
        protocol: None,
        visibility,
        server_name: None,
        bytes: [5, 5],
        calls: 0,
        mirror: None,
        in_flight: false,
        own: false,
        last_at: 0,
    }
}

#[test]
fn what_is_open_is_an_edge_already() {
    let mut graph = Graph::new(Settings { edges: 2, ..Settings::default() }, 0);
    let (shop, bank) = (service("shop"), service("bank"));
    let opaque = Visibility::Opaque("unknown_protocol");
    let pool = open(Role::Client, opaque);
    let silent = open(Role::Client, Visibility::Opaque("no_bytes_yet"));
    let called = OpenConnection { calls: 1, ..open(Role::Client, Visibility::Plaintext) };
    let mirrored = OpenConnection { mirror: Some(Arc::clone(&pool.connection)), ..open(Role::Server, opaque) };
    let own = OpenConnection { own: true, ..open(Role::Client, opaque) };
    let (unknown, tls) = (open(Role::Unknown, opaque), OpenConnection { protocol: Some("tls"), ..pool.clone() });
    let told = |connection| Open { connection, service: &shop, peer: Some(&bank) };
    let all = [&pool, &pool, &silent, &called, &mirrored, &own, &unknown].map(told);
    let mut snapshot = graph.snapshot(None);
    graph.add_open(&mut snapshot, all.into_iter());
    let rows = |snapshot: &super::Snapshot| -> Vec<_> {
        let of = |row: &super::EdgeRow| {
            format!("{}>{} {} {}", row.client.name, row.server.name, row.protocol, row.counts.open_connections)
        };
        snapshot.edges.iter().map(of).collect()
    };
    assert_eq!(rows(&snapshot), ["shop>bank tcp 2"]);
    assert_eq!(snapshot.nodes.len(), 2);
    // Beside what was counted, in the same row; what finds no place is counted in one.
    graph.ended(&ended(Role::Client, None, None), &shop, Some(&bank), 9);
    graph.call(&call(Kind::Client, "curl", "shop", 1, 1));
    let mut snapshot = graph.snapshot(None);
    graph.add_open(&mut snapshot, [&pool, &tls].map(told).into_iter());
    assert_eq!(rows(&snapshot), ["curl>shop http 0", "shop>bank tcp 1"]);
    assert_eq!(snapshot.other.map(|other| (other.edges, other.counts.open_connections)), Some((1, 1)));
}

#[test]
fn the_largest_edges_stay_exact_and_the_rest_is_counted() {
    let mut graph = Graph::new(Settings { edges: 50, ..Settings::default() }, 0);
    for n in 0..2_000u64 {
        let mut exchange = call(Kind::Client, "shop", "?", n, 1);
        exchange.peer = None;
        exchange.call.request.first.at = n * 1_000;
        sample::http(&mut exchange).host = Some(format!("h{n}.test").into());
        graph.call(&exchange);
        if n % 10 == 0 {
            let mut exchange = call(Kind::Server, "curl", "shop", n + (1 << 30), 1);
            exchange.call.request.first.at = n * 1_000;
            graph.call(&exchange);
        }
    }
    let snapshot = graph.snapshot(None);
    assert_eq!(edges(&graph)[0], "curl>shop:8080 200/0/0");
    assert!(snapshot.edges.len() <= 50);
    let other = snapshot.other.unwrap();
    assert_eq!(other.edges + snapshot.edges.len() as u64, 2_001);
    assert_eq!(snapshot.edges.iter().map(|edge| edge.counts.calls).sum::<u64>() + other.counts.calls, 2_200);
    assert_eq!(graph.relations().iter().map(|relation| relation.calls).sum::<u64>(), 2_200);
}

#[test]
fn edges_decay() {
    let mut graph = graph();
    graph.call(&call(Kind::Server, "curl", "shop", 1, 1));
    graph.call(&call(Kind::Server, "wget", "shop", 2_000, 1));
    graph.tick(3_601 * SECOND);
    assert_eq!(edges(&graph).len(), 2);
    graph.tick(3_602 * SECOND);
    assert_eq!(edges(&graph), ["wget>shop:8080 1/0/0"]);
    assert_eq!(graph.snapshot(Some(2_999 * SECOND)).edges.len(), 1);
    assert_eq!(graph.snapshot(Some(3_001 * SECOND)).edges.len(), 0);
}

#[test]
fn the_rate_is_of_the_last_minute() {
    let mut graph = graph();
    for n in 0..600u64 {
        for i in 0..10 {
            graph.call(&call(Kind::Server, "curl", "shop", n, i));
        }
    }
    let rate = graph.snapshot(None).edges[0].counts.calls_per_second;
    assert!((rate - 10.0).abs() < 0.2, "{rate}");
    graph.tick(600 * SECOND + 60 * SECOND);
    let later = graph.snapshot(None).edges[0].counts.calls_per_second;
    assert!((later / rate - (-1.0f64).exp()).abs() < 0.02, "{later}");
}

#[test]
fn quantiles_are_within_a_hundredth() {
    let mut graph = graph();
    for n in 0..1_000 {
        let mut exchange = call(Kind::Server, "curl", "shop", 1, 0);
        exchange.call.response.as_mut().unwrap().last_at = SECOND + (n + 1) * 50_000;
        graph.call(&exchange);
    }
    let LatencyRow { p50, p90, p99 } = graph.snapshot(None).edges[0].counts.latency_seconds.unwrap();
    for (got, truth) in [(p50, 0.025), (p90, 0.045), (p99, 0.0495)] {
        assert!((got / truth - 1.0).abs() < 0.011, "{got} {truth}");
    }
}

#[test]
fn a_quantile_of_few_calls_is_one_that_its_share_did_not_exceed() {
    for (calls, expected) in [(1, [1, 1, 1]), (2, [1, 2, 2]), (3, [2, 3, 3]), (10, [5, 9, 10]), (101, [51, 91, 100])] {
        let mut graph = graph();
        for n in 1..=calls {
            let mut exchange = call(Kind::Server, "curl", "shop", 1, 0);
            exchange.call.response.as_mut().unwrap().last_at = SECOND + n * 1_000_000;
            graph.call(&exchange);
        }
        let LatencyRow { p50, p90, p99 } = graph.snapshot(None).edges[0].counts.latency_seconds.unwrap();
        for (got, truth) in [p50, p90, p99].into_iter().zip(expected) {
            let truth = f64::from(truth) / 1_000.0;
            assert!((got / truth - 1.0).abs() < 0.0101, "{calls} calls: {got}, not {truth}");
        }
    }
}

#[test]
fn the_document_is_the_contracts() {
    let mut graph = Graph::new(Settings::default(), 1_000 * SECOND);
    graph.call(&call(Kind::Client, "curl", "shop", 1, 0));
    let json: serde_json::Value = serde_json::from_str(&graph.snapshot(None).render(Format::Json).unwrap()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "since": "1970-01-01T00:16:40.000000000Z",
            "nodes": [
                {"service.name": "curl", "service.namespace": null, "kind": "service"},
                {"service.name": "shop", "service.namespace": null, "kind": "service"},
            ],
            "edges": [{
                "client": {"service.name": "curl", "service.namespace": null},
                "server": {"service.name": "shop", "service.namespace": null},
                "protocol": "http", "server_port": 8080, "elsewhere": false,
                "calls": 1, "errors": 0, "aborted": 0, "dropped": 0, "errors_by_class": {},
                "connections": 0, "failed_connections": 0, "open_connections": 0,
                "request_bytes": 0, "response_bytes": 345, "tls": false,
                "calls_per_second": 1.0 / 60.0,
                "latency_seconds": {"p50": 0.0, "p90": 0.0, "p99": 0.0},
                "observed_by": ["client"],
                "first_seen": "1970-01-01T00:16:41.000000000Z", "last_seen": "1970-01-01T00:16:41.000000000Z",
            }],
            "unpaired": 0,
        })
    );
}

#[test]
fn what_people_read() {
    let mut graph = graph();
    for n in 0..12 {
        let mut exchange = call(Kind::Server, "curl", "shop", n, 4);
        if n == 3 {
            sample::http(&mut exchange).status = Some(500);
        }
        graph.call(&exchange);
    }
    graph.ended(&ended(Role::Client, Some("connection_refused"), None), &service("shop"), None, 99 * SECOND);
    let snapshot = graph.snapshot(None);
    let text = snapshot.render(Format::Text).unwrap();
    assert_eq!(
        text,
        "CLIENT  SERVER             OVER       CALLS  CONNS  FAILED    P50    P99  NOTE\n\
         curl    shop               http:8080     12      -       1  4.0ms  4.0ms\n\
         shop    external:10.1.0.2  tcp:8080       -      1       1      -      -\n"
    );
    assert_eq!(
        snapshot.text(Some(70)),
        "CLIENT  SERVER      OVER       CALLS  CONNS  FAILED    P50    P99  NOTE\n\
         curl    shop        http:8080     12      -       1  4.0ms  4.0ms\n\
         shop    external:…  tcp:8080       -      1       1      -      -\n"
    );
    let dot = snapshot.render(Format::Dot).unwrap();
    assert!(dot.contains("n0 -> n2 [label=\"http :8080 12 calls, 1 failed\", color=red];"), "{dot}");
    let mermaid = snapshot.render(Format::Mermaid).unwrap();
    assert!(mermaid.contains("n1([\"external:10.1.0.2\"])\n"), "{mermaid}");
    assert!(mermaid.contains("n0 -->|\"http :8080 12 calls, 1 failed\"| n2\n"), "{mermaid}");
}

#[test]
fn hostile_names_are_only_names() {
    let mut graph = graph();
    graph.call(&call(Kind::Server, "a\"];x[label=\"", "b\u{1b}[31m\n\"]|\u{202e}", 1, 1));
    let snapshot = graph.snapshot(None);
    let text = snapshot.render(Format::Text).unwrap();
    assert_eq!((text.lines().count(), text.contains('\u{1b}'), text.contains('\u{202e}')), (2, false, false));
    let dot = snapshot.render(Format::Dot).unwrap();
    assert!(dot.contains("n0 [label=\"a\\\"];x[label=\\\"\"];"), "{dot}");
    let mermaid = snapshot.render(Format::Mermaid).unwrap();
    assert!(mermaid.contains("n0[\"a#34;#93;#59;x#91;label#61;#34;\"]"), "{mermaid}");
    assert!("png".parse::<Format>().is_err());
}

#[test]
fn relations_add_up_over_ports() {
    let mut graph = graph();
    graph.call(&call(Kind::Server, "curl", "shop", 1, 1));
    let mut other = call(Kind::Server, "curl", "shop", 2, 1);
    let mut connection = (*other.connection).clone();
    connection.local.set_port(9090);
    other.connection = Arc::new(connection);
    graph.call(&other);
    assert_eq!(edges(&graph).len(), 2);
    let [Relation { client, server, since, calls: 2, failed: 0, server_seconds, client_seconds }] =
        &graph.relations()[..]
    else {
        panic!("{:?}", graph.relations())
    };
    assert_eq!((&**client, &**server, server_seconds.count(), client_seconds.count()), ("curl", "shop", 2, 0));
    assert_eq!(*since, 1_001 * SECOND);
}

/// Two hosts with an agent each: the client's tells the edge with both names, the server's leaves it to that one.
#[test]
fn an_edge_from_another_host_is_told_there() {
    let mut hosts = Hosts::default();
    hosts.add("10.1.0.7".parse().unwrap(), 128, &[]);
    let mut graph = Graph::new(Settings::default(), 0).beside(Arc::new(hosts));
    let alone = |n, from: &str| {
        let mut exchange = call(Kind::Server, "?", "shop", n, 1);
        exchange.peer = None;
        let mut connection = (*exchange.connection).clone();
        connection.remote.set_ip(from.parse().unwrap());
        exchange.connection = Arc::new(connection);
        exchange
    };
    graph.call(&alone(1, "10.1.0.7"));
    graph.call(&alone(2, "203.0.113.9"));
    graph.call(&call(Kind::Client, "shop", "bank", 3, 1));
    assert_eq!(
        edges(&graph),
        ["external:10.1.0.7>shop:8080 1/0/0", "external:203.0.113.9>shop:8080 1/0/0", "shop>bank:8080 1/0/0"]
    );
    let elsewhere: Vec<_> = graph.snapshot(None).edges.iter().map(|edge| edge.elsewhere).collect();
    assert_eq!(elsewhere, [true, false, false]);
    let told: Vec<_> =
        graph.relations().iter().map(|told| format!("{}>{} {}", told.client, told.server, told.calls)).collect();
    assert_eq!(told, ["external:203.0.113.9>shop 1", "shop>bank 1"]);
}
