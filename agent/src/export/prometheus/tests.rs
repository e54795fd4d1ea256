use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::text::{Format, Labels, name};
use super::*;
use crate::export::{Bound, Ledger, Metrics, Node, Outcome, Relation, Seconds, Signal};
use crate::model::semconv::Value;
use crate::model::{Exchange, Kind, Operation, Service, example};

fn call(ms: u64) -> Arc<Exchange> {
    let mut call = example::exchange(Kind::Server);
    call.service = Arc::new(Service {
        name: "sh\"op\\\n".into(),
        namespace: Some("prod".into()),
        container_id: Some("c1".into()),
        attributes: vec![("k8s.pod.name".into(), "shop-1".into())],
        ..Service::unknown()
    });
    let Operation::Http(http) = &mut call.call.operation;
    http.route = Some("/é".into());
    call.call.request.content = None;
    let response = call.call.response.as_mut().unwrap();
    response.content = None;
    response.last_at = call.call.request.first.at + ms * 1_000_000;
    Arc::new(call)
}

fn content(metrics: Arc<Metrics>) -> Page {
    let ledger = Arc::new(Ledger::default());
    ledger.add(Signal::Traces, Outcome::Ok, 7);
    let snapshot = || Snapshot {
        messages: vec![("seen", "", 10), ("lost", "ring_full", 1)],
        chains: Vec::new(),
        connections: vec![("plaintext", "", 2), ("opaque", "rustls", 1)],
        programs: vec![Program { name: "weir_sock_ops".to_owned(), runs: 5, seconds: 0.25 }],
        blocked: vec![(Arc::from("7"), "monitor", 3)],
        trips: vec![("errors", 2)],
        feeds: vec![
            FeedState { name: "bad".into(), errors: vec![("empty", 2)], ..FeedState::default() },
            FeedState { name: "scan".into(), entries: 9, age: Some(1.5), errors: Vec::new() },
        ],
        relations: vec![Relation {
            client: "curl".into(),
            server: "shop".into(),
            since: 1,
            calls: 3,
            failed: 1,
            seconds: [Seconds::default(), Seconds { buckets: vec![(0.1, 2), (f64::INFINITY, 3)], sum: 0.5 }],
        }],
        map_bytes: Some(4096),
        cpu_seconds: Some(1.5),
        resident_bytes: Some(1 << 20),
        started: Some(1_700_000_000.5),
    };
    let ready = Box::new(|| Err("not attached yet".to_owned()));
    let node = Node { name: Some("node-1".to_owned()), ..Node::default() };
    Page { metrics, ledger, snapshot: Box::new(snapshot), ready, node }
}

fn page(format: Format) -> String {
    let metrics = Arc::new(Metrics::new(Bound::default()));
    metrics.record(&[call(1), call(30)]);
    let page = content(metrics);
    let written = page::write(Vec::new(), format, &page.metrics, &page.ledger, &(page.snapshot)(), &page.node);
    String::from_utf8(written.unwrap()).unwrap()
}

const OWN: &str = r#"# HELP weir_build_info The agent's version.
# TYPE weir_build_info gauge
weir_build_info{version="VERSION"} 1
# HELP weir_messages_total Segments (kernel stages) and calls (agent stages), by what became of them.
# TYPE weir_messages_total counter
weir_messages_total{stage="seen",reason=""} 10
weir_messages_total{stage="lost",reason="ring_full"} 1
# HELP weir_calls_total Calls, by side, protocol and how they ended.
# TYPE weir_calls_total counter
weir_calls_total{kind="server",protocol="http",end="complete"} 2
# HELP weir_exported_total Spans and data points offered to the OTLP receiver, by what became of them.
# TYPE weir_exported_total counter
weir_exported_total{signal="traces",result="ok"} 7
weir_exported_total{signal="traces",result="rejected"} 0
weir_exported_total{signal="traces",result="refused"} 0
weir_exported_total{signal="traces",result="expired"} 0
weir_exported_total{signal="traces",result="queue_full"} 0
weir_exported_total{signal="traces",result="stopped"} 0
weir_exported_total{signal="traces",result="unsampled"} 0
weir_exported_total{signal="metrics",result="ok"} 0
weir_exported_total{signal="metrics",result="rejected"} 0
weir_exported_total{signal="metrics",result="refused"} 0
weir_exported_total{signal="metrics",result="expired"} 0
weir_exported_total{signal="metrics",result="queue_full"} 0
weir_exported_total{signal="metrics",result="stopped"} 0
weir_exported_total{signal="metrics",result="unsampled"} 0
weir_exported_total{signal="logs",result="ok"} 0
weir_exported_total{signal="logs",result="rejected"} 0
weir_exported_total{signal="logs",result="refused"} 0
weir_exported_total{signal="logs",result="expired"} 0
weir_exported_total{signal="logs",result="queue_full"} 0
weir_exported_total{signal="logs",result="stopped"} 0
weir_exported_total{signal="logs",result="unsampled"} 0
# HELP weir_connections Live connections, by how they are seen.
# TYPE weir_connections gauge
weir_connections{visibility="plaintext",reason=""} 2
weir_connections{visibility="opaque",reason="rustls"} 1
# HELP weir_program_runs_total Runs of a kernel program.
# TYPE weir_program_runs_total counter
weir_program_runs_total{program="weir_sock_ops"} 5
# HELP weir_program_seconds_total Time spent in a kernel program.
# TYPE weir_program_seconds_total counter
weir_program_seconds_total{program="weir_sock_ops"} 0.25
# HELP weir_blocked_total Calls that a drop rule met, and attempts to connect that it refused unanswered.
# TYPE weir_blocked_total counter
weir_blocked_total{rule="7",mode="monitor"} 3
# HELP weir_breaker_trips_total Drop rules that the circuit breaker put back to monitor mode.
# TYPE weir_breaker_trips_total counter
weir_breaker_trips_total{reason="errors"} 2
# HELP weir_feed_entries Entries of a feed of drop rules that are in force.
# TYPE weir_feed_entries gauge
weir_feed_entries{feed="bad"} 0
weir_feed_entries{feed="scan"} 9
# HELP weir_feed_age_seconds Time since a feed of drop rules was last in order.
# TYPE weir_feed_age_seconds gauge
weir_feed_age_seconds{feed="scan"} 1.5
# HELP weir_feed_errors_total Updates of a feed of drop rules that were refused.
# TYPE weir_feed_errors_total counter
weir_feed_errors_total{feed="bad",reason="empty"} 2
# HELP traces_service_graph_request_total Calls between two services, each once.
# TYPE traces_service_graph_request_total counter
traces_service_graph_request_total{client="curl",server="shop",connection_type=""} 3
# HELP traces_service_graph_request_failed_total Of them, those that failed.
# TYPE traces_service_graph_request_failed_total counter
traces_service_graph_request_failed_total{client="curl",server="shop",connection_type=""} 1
# HELP traces_service_graph_request_server_seconds Duration of calls as their servers saw them.
# TYPE traces_service_graph_request_server_seconds histogram
traces_service_graph_request_server_seconds_bucket{client="curl",server="shop",connection_type="",le="0.1"} 2
traces_service_graph_request_server_seconds_bucket{client="curl",server="shop",connection_type="",le="+Inf"} 3
traces_service_graph_request_server_seconds_sum{client="curl",server="shop",connection_type=""} 0.5
traces_service_graph_request_server_seconds_count{client="curl",server="shop",connection_type=""} 3
# HELP weir_metric_overflow_calls_total Calls counted in a series with otel_metric_overflow, because there were too many series.
# TYPE weir_metric_overflow_calls_total counter
weir_metric_overflow_calls_total 0
# HELP weir_metric_series Series of calls that are kept.
# TYPE weir_metric_series gauge
weir_metric_series 1
# HELP weir_map_memory_bytes Locked memory of kernel maps.
# TYPE weir_map_memory_bytes gauge
weir_map_memory_bytes 4096
# HELP process_cpu_seconds_total CPU time of the agent.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.5
# HELP process_resident_memory_bytes Resident memory of the agent.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1048576
# HELP process_start_time_seconds Start of the agent since the Unix epoch.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1700000000.5
"#;

const CALLS: &str = r#"# HELP target_info Resource attributes of an observed service.
# TYPE target_info gauge
target_info{service_name="sh\"op\\\n",service_namespace="prod",container_id="c1",k8s_pod_name="shop-1",host_name="node-1"} 1
# HELP http_server_request_duration_seconds Duration of HTTP server requests.
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{LABELS,le="0.005"} 1
http_server_request_duration_seconds_bucket{LABELS,le="0.01"} 1
http_server_request_duration_seconds_bucket{LABELS,le="0.025"} 1
http_server_request_duration_seconds_bucket{LABELS,le="0.05"} 2
http_server_request_duration_seconds_bucket{LABELS,le="0.075"} 2
http_server_request_duration_seconds_bucket{LABELS,le="0.1"} 2
http_server_request_duration_seconds_bucket{LABELS,le="0.25"} 2
http_server_request_duration_seconds_bucket{LABELS,le="0.5"} 2
http_server_request_duration_seconds_bucket{LABELS,le="0.75"} 2
http_server_request_duration_seconds_bucket{LABELS,le="1"} 2
http_server_request_duration_seconds_bucket{LABELS,le="2.5"} 2
http_server_request_duration_seconds_bucket{LABELS,le="5"} 2
http_server_request_duration_seconds_bucket{LABELS,le="7.5"} 2
http_server_request_duration_seconds_bucket{LABELS,le="10"} 2
http_server_request_duration_seconds_bucket{LABELS,le="+Inf"} 2
http_server_request_duration_seconds_sum{LABELS} 0.031
http_server_request_duration_seconds_count{LABELS} 2
"#;

const LABELS: &str = r#"service_name="sh\"op\\\n",service_namespace="prod",container_id="c1",http_request_method="GET",http_route="/é",http_response_status_code="200",network_protocol_version="1.1",url_scheme="http""#;

#[test]
fn the_page_of_prometheus() {
    let expected = [OWN, CALLS].concat().replace("LABELS", LABELS).replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert_eq!(page(Format::Prometheus), expected);
}

#[test]
fn the_page_of_openmetrics() {
    let exemplar = |value: &str, at: &str| {
        format!(" # {{trace_id=\"{}\",span_id=\"{}\"}} {value} {at}", "01".repeat(16), "02".repeat(8))
    };
    let mut expected = [OWN, CALLS].concat();
    let graph = ["traces_service_graph_request", "traces_service_graph_request_failed"];
    let own = [
        "weir_messages",
        "weir_calls",
        "weir_exported",
        "weir_program_runs",
        "weir_blocked",
        "weir_breaker_trips",
        "weir_feed_errors",
    ];
    for family in own.into_iter().chain(graph) {
        expected = expected.replace(&format!("# HELP {family}_total"), &format!("# HELP {family}"));
        expected = expected.replace(&format!("# TYPE {family}_total"), &format!("# TYPE {family}"));
    }
    expected = expected.replace("HELP weir_metric_overflow_calls_total", "HELP weir_metric_overflow_calls");
    expected = expected.replace("TYPE weir_metric_overflow_calls_total", "TYPE weir_metric_overflow_calls");
    for info in ["weir_build", "target"] {
        expected = expected.replace(&format!("# HELP {info}_info"), &format!("# HELP {info}"));
        expected = expected.replace(&format!("# TYPE {info}_info gauge"), &format!("# TYPE {info} info"));
    }
    for (family, kind, unit) in [
        ("weir_program_seconds", "counter", "seconds"),
        ("weir_feed_age_seconds", "gauge", "seconds"),
        ("weir_map_memory_bytes", "gauge", "bytes"),
        ("process_cpu_seconds", "counter", "seconds"),
        ("process_resident_memory_bytes", "gauge", "bytes"),
        ("process_start_time_seconds", "gauge", "seconds"),
        ("http_server_request_duration_seconds", "histogram", "seconds"),
        ("traces_service_graph_request_server_seconds", "histogram", "seconds"),
    ] {
        expected = expected.replace(&format!("# HELP {family}_total"), &format!("# HELP {family}"));
        expected = expected.replace(&format!("# TYPE {family}_total"), &format!("# TYPE {family}"));
        let kind = format!("# TYPE {family} {kind}\n");
        expected = expected.replace(&kind, &format!("{kind}# UNIT {family} {unit}\n"));
    }
    for whole in ["1", "5", "10"] {
        expected = expected.replace(&format!("le=\"{whole}\""), &format!("le=\"{whole}.0\""));
    }
    expected = expected.replace("le=\"0.005\"} 1", &format!("le=\"0.005\"}} 1{}", exemplar("0.001", "1700000000.001")));
    expected = expected.replace("le=\"0.05\"} 2", &format!("le=\"0.05\"}} 2{}", exemplar("0.03", "1700000000.030")));
    let expected = expected.replace("LABELS", LABELS).replace("VERSION", env!("CARGO_PKG_VERSION")) + "# EOF\n";
    assert_eq!(page(Format::OpenMetrics), expected);
}

#[test]
fn negotiation() {
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;\
                      version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;\
                      q=0.3,*/*;q=0.2";
    assert_eq!(Format::negotiate(prometheus), Format::OpenMetrics);
    assert_eq!(Format::negotiate("application/openmetrics-text"), Format::OpenMetrics);
    assert_eq!(Format::negotiate("application/openmetrics-text;q=0.2,text/plain;q=0.9"), Format::Prometheus);
    assert_eq!(Format::negotiate("application/openmetrics-text;version=2.0.0"), Format::Prometheus);
    assert_eq!(Format::negotiate("application/openmetrics-text;q=0"), Format::Prometheus);
    assert_eq!(Format::negotiate("*/*"), Format::Prometheus);
    assert_eq!(Format::negotiate(""), Format::Prometheus);
}

#[test]
fn names_and_labels() {
    assert_eq!(name("k8s.pod-name/é"), "k8s_pod_name__");
    assert_eq!(name("9x"), "_9x");
    let mut labels = Labels::new().with("a", "b");
    labels.add("c", Value::Bool(true));
    assert_eq!(format!("{labels:?}"), r#"Labels("a=\"b\",c=\"true\"")"#);
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> (Response<()>, Vec<u8>) {
    let socket = TcpStream::connect(server.address()).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", "weir");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    (Response::from_parts(head, ()), body.collect().await.unwrap().to_bytes().to_vec())
}

async fn server(page: Page) -> Server {
    Server::start("127.0.0.1:0".parse().unwrap(), page).await.unwrap()
}

#[tokio::test]
async fn a_page_larger_than_any_buffer_arrives_whole() {
    let metrics = Arc::new(Metrics::new(Bound::default()));
    let calls: Vec<_> = (0..1000)
        .map(|i| {
            let mut call = (*call(1)).clone();
            call.service = Arc::new(Service { name: format!("s{i}").into(), ..Service::unknown() });
            Arc::new(call)
        })
        .collect();
    metrics.record(&calls);
    let server = server(content(metrics)).await;
    let (head, plain) = get(&server, "/metrics", &[]).await;
    assert_eq!(head.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(plain.clone()).unwrap();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count{")).count(),
        1000
    );
    assert_eq!(text.lines().filter(|line| line.starts_with("target_info{")).count(), 1000);
    let (head, packed) = get(&server, "/metrics", &[("accept-encoding", "deflate, gzip;q=0.5")]).await;
    assert_eq!(head.headers()["content-encoding"], "gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    let (head, open) = get(&server, "/metrics", &[("accept", "application/openmetrics-text; version=1.0.0")]).await;
    assert_eq!(head.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.ends_with(b"\n# EOF\n"));
}

#[tokio::test]
async fn health() {
    let server = server(content(Arc::new(Metrics::new(Bound::default())))).await;
    let (head, body) = get(&server, "/healthz", &[]).await;
    assert_eq!((head.status(), &body[..]), (StatusCode::OK, &b"ok\n"[..]));
    let (head, body) = get(&server, "/readyz", &[]).await;
    assert_eq!((head.status(), &body[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"not attached yet\n"[..]));
    assert_eq!(get(&server, "/", &[]).await.0.status(), StatusCode::NOT_FOUND);
}

/// On a runtime of one thread: an agent that does not answer must not stop what else runs there, as the beat of the
/// drop rules does.
#[tokio::test]
async fn waiting_for_readiness_holds_up_nobody() {
    let mut page = content(Arc::new(Metrics::new(Bound::default())));
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    page.ready = Box::new(move || held.lock().unwrap().recv().map_err(|error| error.to_string()));
    let server = server(page).await;
    let waiting = TcpStream::connect(server.address()).await.unwrap();
    waiting.writable().await.unwrap();
    waiting.try_write(b"GET /readyz HTTP/1.1\r\nhost: weir\r\n\r\n").unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(get(&server, "/healthz", &[]).await.0.status(), StatusCode::OK);
    let_go.send(()).unwrap();
    waiting.readable().await.unwrap();
    let mut start = [0; 12];
    assert_eq!(waiting.try_read(&mut start).unwrap(), 12);
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[tokio::test]
async fn scrapers_that_do_not_read_hold_up_nobody() {
    let metrics = Arc::new(Metrics::new(Bound::default()));
    let calls: Vec<_> = (0..10_000)
        .map(|i| {
            let mut call = (*call(1)).clone();
            call.service = Arc::new(Service { name: format!("s{}", i % 100).into(), ..Service::unknown() });
            let Operation::Http(http) = &mut call.call.operation;
            http.route = Some(format!("/{i}").into());
            Arc::new(call)
        })
        .collect();
    metrics.record(&calls);
    let server = server(content(Arc::clone(&metrics))).await;
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let socket = TcpStream::connect(server.address()).await.unwrap();
        socket.writable().await.unwrap();
        socket.try_write(b"GET /metrics HTTP/1.1\r\nhost: weir\r\n\r\n").unwrap();
        socket.readable().await.unwrap();
        stuck.push(socket);
    }
    let (head, body) = get(&server, "/metrics", &[]).await;
    assert_eq!(head.status(), StatusCode::OK);
    let text = String::from_utf8(body).unwrap();
    let counts = text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count{"));
    assert!(counts.count() > 1000, "the page is whole");
    assert_eq!(get(&server, "/healthz", &[]).await.0.status(), StatusCode::OK);
    // What waits for them holds nothing that counting needs.
    metrics.record(&calls);
    drop(stuck);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let metrics = Arc::new(Metrics::new(Bound::default()));
    let first = server(content(Arc::clone(&metrics))).await;
    let error = Server::start(first.address(), content(metrics)).await.unwrap_err();
    let expected =
        format!("can't listen on {} for Prometheus; choose another address with prometheus.listen", first.address());
    assert_eq!(error.to_string(), expected);
    // The cause is told once, by who shows the chain.
    assert_eq!(error.cause.kind(), std::io::ErrorKind::AddrInUse);
}
