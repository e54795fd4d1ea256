//! Calls as an `ExportTraceServiceRequest`: a `ResourceSpans` for every service of the batch.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use prost::Message as _;

use super::settings::Node;
use super::{resource, wire};
use crate::model::{Exchange, Kind, Service, semconv};

/// Span flags (opentelemetry.proto.trace.v1 `SpanFlags`): sampled, and whether it is known that the parent is remote.
const SAMPLED: u32 = 0x01;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Encodes a batch. `trace_state` is the sampler's.
pub(super) fn encode(batch: &[Arc<Exchange>], node: &Node, trace_state: &str) -> Bytes {
    let mut groups: Vec<(&Service, Vec<u8>)> = Vec::new();
    let mut places: HashMap<*const Service, usize> = HashMap::new();
    let mut span = Vec::with_capacity(1024);
    let mut scratch = String::new();
    for exchange in batch {
        let place = *places.entry(Arc::as_ptr(&exchange.service)).or_insert_with(|| {
            groups.push((&exchange.service, Vec::new()));
            groups.len() - 1
        });
        span.clear();
        write(exchange, trace_state, &mut span, &mut scratch);
        if let Some((_, spans)) = groups.get_mut(place) {
            wire::bytes(spans, 2, &span);
        }
    }
    let scope = resource::scope().encode_to_vec();
    let schema = semconv::SCHEMA_URL.as_bytes();
    let mut out = Vec::with_capacity(groups.iter().map(|(_, spans)| spans.len() + 512).sum());
    for (service, spans) in groups {
        let resource = resource::of(service, true, node).encode_to_vec();
        let scoped = wire::field_len(scope.len()) + spans.len() + wire::field_len(schema.len());
        let whole = wire::field_len(resource.len()) + wire::field_len(scoped) + wire::field_len(schema.len());
        wire::head(&mut out, 1, whole);
        wire::bytes(&mut out, 1, &resource);
        wire::head(&mut out, 2, scoped);
        wire::bytes(&mut out, 1, &scope);
        out.extend_from_slice(&spans);
        wire::bytes(&mut out, 3, schema);
        wire::bytes(&mut out, 3, schema);
    }
    Bytes::from(out)
}

/// Writes one `Span` (field numbers of opentelemetry.proto.trace.v1).
fn write(exchange: &Exchange, trace_state: &str, out: &mut Vec<u8>, scratch: &mut String) {
    wire::bytes(out, 1, &exchange.ids.trace);
    wire::bytes(out, 2, &exchange.ids.span);
    if !trace_state.is_empty() {
        wire::bytes(out, 3, trace_state.as_bytes());
    }
    if let Some(parent) = &exchange.ids.parent {
        wire::bytes(out, 4, parent);
    }
    wire::bytes(out, 5, wire::written(semconv::span_name(exchange), scratch).as_bytes());
    let (kind, remote) = match exchange.kind {
        Kind::Client => (SpanKind::Client, 0),
        Kind::Server if exchange.ids.parent.is_some() => (SpanKind::Server, IS_REMOTE),
        Kind::Server => (SpanKind::Server, 0),
    };
    wire::varint(out, 6, kind as u64);
    wire::fixed64(out, 7, exchange.start_unix_ns);
    wire::fixed64(out, 8, exchange.start_unix_ns.saturating_add(exchange.duration_ns()));
    semconv::span(exchange, &mut |name, value| wire::attribute(out, 9, name, value, scratch));
    if let Some(link) = &exchange.ids.link {
        let whole = wire::field_len(link.trace.len()) + wire::field_len(link.span.len());
        wire::head(out, 13, whole);
        wire::bytes(out, 1, &link.trace);
        wire::bytes(out, 2, &link.span);
    }
    if semconv::is_error(exchange) {
        wire::head(out, 15, 2);
        wire::varint(out, 3, StatusCode::Error as u64);
    }
    wire::fixed32(out, 16, SAMPLED | HAS_IS_REMOTE | remote);
}
