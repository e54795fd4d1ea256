//! Calls that drop rules met, as an `ExportLogsServiceRequest`: a record for each, tied to its span.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use prost::Message as _;

use super::resource;
use super::settings::Node;
use crate::clock;
use crate::model::{Exchange, Service, Verdict, semconv};

/// The records' event names (`LogRecord.event_name`).
const DROPPED: &str = "weir.dropped";
const WOULD_DROP: &str = "weir.would_drop";
const BREAKER: &str = "weir.breaker";
/// Log record flags: the trace flag "sampled" of W3C Trace Context.
const SAMPLED: u32 = 1;

/// A rule met it, and so there is a record of it.
pub(super) fn is_told(exchange: &Exchange) -> bool {
    exchange.verdict != Verdict::Allowed
}

/// Encodes a batch.
pub(super) fn encode(batch: &[Arc<Exchange>], node: &Node, _: &str) -> Bytes {
    let now = clock::unix_ns();
    let mut groups: Vec<(&Service, Vec<LogRecord>)> = Vec::new();
    let mut places: HashMap<*const Service, usize> = HashMap::new();
    for exchange in batch {
        let place = *places.entry(Arc::as_ptr(&exchange.service)).or_insert_with(|| {
            groups.push((&exchange.service, Vec::new()));
            groups.len() - 1
        });
        if let (Some((_, records)), Some(record)) = (groups.get_mut(place), record(exchange, now)) {
            records.push(record);
        }
    }
    let resource_logs = groups.into_iter().map(|(service, log_records)| ResourceLogs {
        resource: Some(resource::of(service, true, node)),
        scope_logs: vec![ScopeLogs {
            scope: Some(resource::scope()),
            log_records,
            schema_url: semconv::SCHEMA_URL.to_owned(),
        }],
        schema_url: semconv::SCHEMA_URL.to_owned(),
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }.encode_to_vec().into()
}

/// Encodes what the circuit breaker did: Weir itself is the service.
pub(super) fn alarm(rule: &str, why: &str, node: &Node) -> Bytes {
    let now = clock::unix_ns();
    let text = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let record = LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: SeverityNumber::Error.into(),
        severity_text: "ERROR".to_owned(),
        body: text(&format!("circuit breaker: rule {rule} is in monitor mode now: {why}")),
        attributes: vec![
            KeyValue { key: "weir.block.id".to_owned(), value: text(rule), ..KeyValue::default() },
            KeyValue { key: "weir.block.reason".to_owned(), value: text(why), ..KeyValue::default() },
        ],
        event_name: BREAKER.to_owned(),
        ..LogRecord::default()
    };
    let service = Service { name: "weir".into(), ..Service::unknown() };
    let resource_logs = ResourceLogs {
        resource: Some(resource::of(&service, true, node)),
        scope_logs: vec![ScopeLogs {
            scope: Some(resource::scope()),
            log_records: vec![record],
            schema_url: semconv::SCHEMA_URL.to_owned(),
        }],
        schema_url: semconv::SCHEMA_URL.to_owned(),
    };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }.encode_to_vec().into()
}

fn record(exchange: &Exchange, now: u64) -> Option<LogRecord> {
    let (event, severity, text, rule, reason) = match &exchange.verdict {
        Verdict::Allowed => return None,
        Verdict::WouldDrop { rule, reason } => (WOULD_DROP, SeverityNumber::Info, "would be dropped", rule, reason),
        Verdict::Dropped { rule, reason } => (DROPPED, SeverityNumber::Warn, "dropped", rule, reason),
    };
    let body = format!("{} {text} by rule {rule}: {reason}", semconv::span_name(exchange));
    let mut attributes = Vec::with_capacity(16);
    semconv::span(exchange, &mut |name, value| attributes.push(resource::attribute(name, value)));
    Some(LogRecord {
        time_unix_nano: exchange.start_unix_ns,
        observed_time_unix_nano: now,
        severity_number: severity.into(),
        severity_text: if event == DROPPED { "WARN" } else { "INFO" }.to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(body)) }),
        attributes,
        flags: SAMPLED,
        trace_id: exchange.ids.trace.to_vec(),
        span_id: exchange.ids.span.to_vec(),
        event_name: event.to_owned(),
        ..LogRecord::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, sample};

    #[test]
    fn a_met_call_is_a_record_tied_to_its_span() {
        let mut dropped = sample::exchange(Kind::Server);
        dropped.verdict = Verdict::Dropped { rule: "r1".into(), reason: "scan".into() };
        let mut would = dropped.clone();
        would.verdict = Verdict::WouldDrop { rule: "r2".into(), reason: "try".into() };
        assert!(!is_told(&sample::exchange(Kind::Server)) && is_told(&dropped) && is_told(&would));
        let bytes = encode(&[Arc::new(dropped.clone()), Arc::new(would)], &Node::default(), "");
        let request = ExportLogsServiceRequest::decode(bytes).unwrap();
        let records = &request.resource_logs[0].scope_logs[0].log_records;
        assert_eq!((request.resource_logs.len(), records.len()), (1, 2));
        assert_eq!(records[0].event_name, "weir.dropped");
        assert_eq!(records[0].severity_number(), SeverityNumber::Warn);
        assert_eq!(records[0].trace_id, dropped.ids.trace);
        assert_eq!(records[0].span_id, dropped.ids.span);
        assert!(records[0].attributes.iter().any(|attribute| attribute.key == "weir.block.id"));
        assert_eq!(records[1].event_name, "weir.would_drop");
    }
}
