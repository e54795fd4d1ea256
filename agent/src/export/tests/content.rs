//! What is in a request, read with protobuf's own types.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::export::{Node, spans};
use crate::model::{Exchange, Kind, Operation, Process, Service, example, semconv};

fn string(key: &str, value: &str) -> KeyValue {
    any(key, Value::StringValue(value.to_owned()))
}

fn int(key: &str, value: i64) -> KeyValue {
    any(key, Value::IntValue(value))
}

fn any(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}

fn sent(batch: &[Arc<Exchange>], node: &Node) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(spans::encode(batch, node, "")).unwrap()
}

fn span(call: Exchange) -> Span {
    let mut request = sent(&[Arc::new(call)], &Node::default());
    request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

#[test]
fn a_server_span() {
    let mut call = example::exchange(Kind::Server);
    call.ids.parent = Some([3; 8]);
    let span = span(call);
    assert_eq!(
        span,
        Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            parent_span_id: vec![3; 8],
            flags: 0x301,
            name: "GET /orders/{id}".to_owned(),
            kind: 2,
            start_time_unix_nano: 1_700_000_000_000_000_000,
            end_time_unix_nano: 1_700_000_000_000_008_000,
            attributes: vec![
                string("http.request.method", "GET"),
                string("url.scheme", "http"),
                string("http.route", "/orders/{id}"),
                string("server.address", "shop.test"),
                int("server.port", 8080),
                string("url.path", "/orders/17"),
                string("url.query", "page=2"),
                string("user_agent.original", "curl/8.5.0"),
                int("http.request.body.size", 0),
                int("http.response.status_code", 200),
                int("http.response.body.size", 345),
                string("client.address", "10.1.0.7"),
                string("network.peer.address", "10.1.0.7"),
                int("network.peer.port", 51234),
                string("network.protocol.name", "http"),
                string("network.protocol.version", "1.1"),
                string("weir.end", "complete"),
                string("weir.verdict", "allowed"),
            ],
            ..Span::default()
        }
    );
}

#[test]
fn a_client_span_that_failed() {
    let mut call = example::exchange(Kind::Client);
    let Operation::Http(http) = &mut call.call.operation;
    http.status = Some(404);
    http.route = None;
    call.call.truncated = true;
    let span = span(call);
    assert_eq!((span.kind, span.flags, span.name.as_str()), (3, 0x101, "GET"));
    assert_eq!(span.status.map(|status| status.code), Some(2));
    assert_eq!(span.parent_span_id, Vec::<u8>::new());
    assert!(span.attributes.contains(&string("error.type", "404")));
    assert!(span.attributes.contains(&string("url.full", "http://shop.test:8080/orders/17?page=2")));
    assert!(span.attributes.contains(&any("weir.truncated", Value::BoolValue(true))));
}

#[test]
fn long_values_are_whole() {
    for len in [0, 1, 113, 114, 115, 127, 128, 129, 16_383, 16_384] {
        let mut call = example::exchange(Kind::Server);
        let path = format!("/{}", "p".repeat(len));
        let Operation::Http(http) = &mut call.call.operation;
        http.target = path.as_str().into();
        call.call.request.content = Some(u64::MAX >> 1);
        let span = span(call);
        assert!(span.attributes.contains(&string("url.path", &path)));
        assert!(span.attributes.contains(&int("http.request.body.size", i64::MAX)));
    }
}

#[test]
fn one_resource_for_each_service() {
    let service = |pid: u32| {
        let process =
            Process { pid, executable_name: Some("nginx".into()), ppid: 1, uid: Some(0), ..Process::default() };
        Arc::new(Service {
            name: "shop".into(),
            attributes: vec![("host.name".into(), "told by the service".into())],
            process: Some(process),
            ..Service::unknown()
        })
    };
    let services: Vec<_> = (1..=300).map(service).collect();
    let call = |i: usize| {
        let mut call = example::exchange(Kind::Server);
        call.service = Arc::clone(&services[i % 300]);
        Arc::new(call)
    };
    let node = Node {
        name: Some("node-1".to_owned()),
        id: Some("4711".to_owned()),
        attributes: vec![("k8s.cluster.name".to_owned(), "c".to_owned())],
    };
    let sent = sent(&(0..600).map(call).collect::<Vec<_>>(), &node).resource_spans;
    assert_eq!(sent.len(), 300);
    for (pid, spans) in (1..).zip(sent) {
        assert_eq!(spans.schema_url, semconv::SCHEMA_URL);
        let [scope] = &spans.scope_spans[..] else { panic!("one scope") };
        assert_eq!((scope.schema_url.as_str(), scope.spans.len()), (semconv::SCHEMA_URL, 2));
        let speaker = scope.scope.as_ref().unwrap();
        assert_eq!((speaker.name.as_str(), speaker.version.as_str()), ("weir", env!("CARGO_PKG_VERSION")));
        assert_eq!(
            spans.resource.unwrap().attributes,
            [
                string("service.name", "shop"),
                string("host.name", "told by the service"),
                int("process.pid", pid),
                string("process.executable.name", "nginx"),
                string("host.id", "4711"),
                string("k8s.cluster.name", "c"),
                string("telemetry.distro.name", "weir"),
                string("telemetry.distro.version", env!("CARGO_PKG_VERSION")),
            ]
        );
    }
}
