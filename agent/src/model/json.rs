//! A call as JSON (CONTRACT "A call").

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeStruct},
};

use super::{
    Connection, End, Exchange, Link, Service,
    semconv::{self, Value},
};

/// A call, to be serialized.
#[derive(Clone, Copy, Debug)]
pub struct CallJson<'a>(pub &'a Exchange);

impl Serialize for CallJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let exchange = self.0;
        let lost = match exchange.call.end {
            End::Lost(reason) => Some(reason),
            _ => None,
        };
        let mut call = serializer.serialize_struct("Call", 16)?;
        call.serialize_field("trace_id", &hex(&exchange.ids.trace))?;
        call.serialize_field("span_id", &hex(&exchange.ids.span))?;
        call.serialize_field("parent_span_id", &exchange.ids.parent.map(|parent| hex(&parent)))?;
        match exchange.ids.link {
            Some(Link { trace, span }) => {
                let link = serde_json::json!({ "trace_id": hex(&trace), "span_id": hex(&span) });
                call.serialize_field("links", &[link])?;
            }
            None => call.skip_field("links")?,
        }
        call.serialize_field("kind", exchange.kind.as_str())?;
        call.serialize_field("start", &time(exchange.start_unix_ns))?;
        call.serialize_field("duration_ns", &exchange.duration_ns())?;
        call.serialize_field("time_to_first_byte_ns", &exchange.time_to_first_byte_ns())?;
        call.serialize_field("service", &ServiceJson(&exchange.service))?;
        call.serialize_field("peer", &PeerJson(exchange.peer.as_deref(), &exchange.connection))?;
        call.serialize_field("connection", &ConnectionJson(&exchange.connection))?;
        call.serialize_field("attributes", &Attributes(exchange))?;
        call.serialize_field("end", exchange.call.end.as_str())?;
        match lost {
            Some(reason) => call.serialize_field("lost_reason", reason)?,
            None => call.skip_field("lost_reason")?,
        }
        call.serialize_field("verdict", exchange.verdict.as_str())?;
        call.serialize_field("truncated", &exchange.call.truncated)?;
        call.end()
    }
}

/// RFC 3339 with nanoseconds.
#[must_use]
pub fn time(unix_ns: u64) -> String {
    humantime::format_rfc3339_nanos(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(unix_ns)).to_string()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// An attribute's value: numbers and truth as such, everything else as text.
struct ValueJson<'a>(Value<'a>);

impl Serialize for ValueJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Int(number) => serializer.serialize_i64(number),
            Value::Bool(truth) => serializer.serialize_bool(truth),
            Value::Str(text) => serializer.serialize_str(text),
            other => serializer.collect_str(&other),
        }
    }
}

struct Attributes<'a>(&'a Exchange);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut result = Ok(());
        semconv::span(self.0, &mut |key, value| {
            // What stands beside the attributes is not told twice.
            let beside = matches!(key, "weir.end" | "weir.lost_reason" | "weir.verdict" | "weir.truncated");
            if !beside && result.is_ok() {
                result = map.serialize_entry(key, &ValueJson(value));
            }
        });
        result?;
        map.end()
    }
}

/// A service with its process: what CONTRACT names is always there, `null` where it is not known.
#[derive(Clone, Copy, Debug)]
pub struct ServiceJson<'a>(pub &'a Service);

impl Serialize for ServiceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let service = self.0;
        let mut map = serializer.serialize_map(None)?;
        let mut result = Ok(());
        let mut named = [
            ("service.namespace", false),
            ("process.pid", false),
            ("process.executable.name", false),
            ("container.id", false),
            ("k8s.pod.name", false),
        ];
        semconv::resource(service, true, &mut |key, value| {
            if let Some((_, told)) = named.iter_mut().find(|(name, _)| *name == key) {
                *told = true;
            }
            if result.is_ok() {
                result = map.serialize_entry(key, &ValueJson(value));
            }
        });
        result?;
        for (name, _) in named.iter().filter(|(_, told)| !told) {
            map.serialize_entry(name, &None::<&str>)?;
        }
        let process = service.process.as_ref();
        if let Some(command) = process.and_then(|process| process.command_line.as_deref()) {
            map.serialize_entry("process.command_line", command)?;
        }
        if let Some(uid) = process.and_then(|process| process.uid) {
            map.serialize_entry("process.user.id", &uid)?;
        }
        map.end()
    }
}

/// The other end of a connection; its name is `null` where it is not proven.
#[derive(Clone, Copy, Debug)]
pub struct PeerJson<'a>(pub Option<&'a Service>, pub &'a Connection);

impl Serialize for PeerJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(service, connection) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("service.name", &service.map(|service| &*service.name))?;
        if let Some(namespace) = service.and_then(|service| service.namespace.as_deref()) {
            map.serialize_entry("service.namespace", namespace)?;
        }
        map.serialize_entry("address", &connection.remote.ip())?;
        map.serialize_entry("port", &connection.remote.port())?;
        map.end()
    }
}

struct ConnectionJson<'a>(&'a Connection);

impl Serialize for ConnectionJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut connection = serializer.serialize_struct("Connection", 5)?;
        connection.serialize_field("cookie", &self.0.cookie)?;
        connection.serialize_field("local", &self.0.local)?;
        connection.serialize_field("remote", &self.0.remote)?;
        // A call is only ever read in the clear until TLS is.
        connection.serialize_field("tls", &None::<()>)?;
        connection.serialize_field("visibility", "plaintext")?;
        connection.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::model::{
        Kind, Verdict,
        sample::{exchange, http},
    };

    fn told(exchange: &Exchange) -> Json {
        serde_json::to_value(CallJson(exchange)).unwrap()
    }

    #[test]
    fn a_call_is_told_as_the_contract_says() {
        let call = told(&exchange(Kind::Server));
        assert_eq!(
            call,
            json!({
                "trace_id": "01010101010101010101010101010101",
                "span_id": "0202020202020202",
                "parent_span_id": null,
                "kind": "server",
                "start": "2026-11-23T10:00:00.000000000Z",
                "duration_ns": 8000,
                "time_to_first_byte_ns": 4000,
                "service": {
                    "service.name": "shop", "service.namespace": null, "process.pid": 712,
                    "process.executable.name": "nginx", "container.id": null, "k8s.pod.name": null,
                },
                "peer": {"service.name": "curl", "address": "10.1.0.7", "port": 51234},
                "connection": {
                    "cookie": 81, "local": "10.1.0.2:8080", "remote": "10.1.0.7:51234", "tls": null,
                    "visibility": "plaintext",
                },
                "attributes": call["attributes"].clone(),
                "end": "complete",
                "verdict": "allowed",
                "truncated": false,
            })
        );
        for (key, value) in [
            ("http.request.method", json!("GET")),
            ("http.route", json!("/orders/{id}")),
            ("url.path", json!("/orders/17")),
            ("http.response.status_code", json!(200)),
            ("network.protocol.name", json!("http")),
            ("network.protocol.version", json!("1.1")),
            ("http.request.body.size", json!(0)),
            ("http.response.body.size", json!(345)),
        ] {
            assert_eq!(call["attributes"][key], value, "{key}");
        }
    }

    #[test]
    fn what_is_not_known_is_absent_or_null() {
        let mut call = exchange(Kind::Client);
        call.peer = None;
        call.ids.parent = Some([0xfe; 8]);
        call.call.response = None;
        call.call.end = End::Lost("ring_full");
        call.verdict = Verdict::Dropped { rule: "b1".into(), reason: "test".into() };
        http(&mut call).target = "".into();
        http(&mut call).status = None;
        let told = told(&call);
        assert_eq!(told["parent_span_id"], "fefefefefefefefe");
        assert_eq!(told["time_to_first_byte_ns"], Json::Null);
        assert_eq!(told["peer"], json!({"service.name": null, "address": "10.1.0.2", "port": 8080}));
        assert_eq!((&told["end"], &told["lost_reason"]), (&json!("lost"), &json!("ring_full")));
        assert_eq!((&told["verdict"], &told["attributes"]["weir.block.id"]), (&json!("dropped"), &json!("b1")));
        for absent in ["url.path", "http.response.status_code", "weir.end", "weir.verdict"] {
            assert_eq!(told["attributes"].get(absent), None, "{absent}");
        }
    }
}
