//! One OpenTelemetry Resource per observed service.

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::settings::Node;
use crate::model::Service;
use crate::model::semconv::{self, Value};

/// The Resource of a service on this node; with `process`, of one process of it.
pub(super) fn of(service: &Service, process: bool, node: &Node) -> Resource {
    let mut attributes: Vec<KeyValue> = Vec::with_capacity(16);
    let mut add = |key: &str, value: Value<'_>| {
        // The first to tell a key wins: what the service says of itself comes before what holds for the whole node.
        if !attributes.iter().any(|told| told.key == key) {
            attributes.push(attribute(key, value));
        }
    };
    semconv::resource(service, process, &mut |key, value| add(key, value));
    if let Some(name) = &node.name {
        add("host.name", Value::Str(name));
    }
    if let Some(id) = &node.id {
        add("host.id", Value::Str(id));
    }
    for (key, value) in &node.attributes {
        add(key, Value::Str(value));
    }
    add("telemetry.distro.name", Value::Str("weir"));
    add("telemetry.distro.version", Value::Str(env!("CARGO_PKG_VERSION")));
    Resource { attributes, dropped_attributes_count: 0, entity_refs: Vec::new() }
}

/// An attribute in protobuf's types.
pub(super) fn attribute(key: &str, value: Value<'_>) -> KeyValue {
    let value = match value {
        Value::Int(number) => any_value::Value::IntValue(number),
        Value::Bool(truth) => any_value::Value::BoolValue(truth),
        Value::Str(_) | Value::Words(..) | Value::Url(_) | Value::Ip(_) => {
            any_value::Value::StringValue(value.to_string())
        }
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}

/// Who speaks: Weir and its version.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "weir".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
    }
}
