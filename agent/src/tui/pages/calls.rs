//! Calls of an edge or of an endpoint, the newest first.

use serde_json::Value;

use super::super::page::{Calls, Name};
use super::super::table::{Cell, Column, Row, Table, Tone, left, right};
use super::super::wire::{self, Answer};
use crate::model::shown::{duration, time_of_day};

const COLUMNS: &[Column] = &[
    left("TIME"),
    left("METHOD"),
    left("ROUTE"),
    right("STATUS"),
    right("TOOK"),
    right("REQ"),
    right("RESP"),
    left("CLIENT"),
    left("SERVER"),
    left("END"),
];

/// Of `/v1/calls`.
pub(in super::super) fn table(calls: &Answer, which: &Calls) -> Table {
    let mut rows: Vec<Row> = calls.rows.iter().filter(|call| which.has(call)).map(row).collect();
    rows.reverse();
    Table { title: "Calls", columns: COLUMNS, rows }
}

fn row(call: &Value) -> Row {
    let attribute = |key: &str| call.get("attributes").and_then(|attributes| attributes.get(key));
    let text = |key: &str| attribute(key).and_then(Value::as_str);
    let count = |key: &str| attribute(key).and_then(Value::as_u64);
    let status = count("http.response.status_code");
    let own = wire::text(call, "/service/service.name");
    let peer = wire::text(call, "/peer/service.name").or_else(|| wire::text(call, "/peer/address"));
    let (client, server) = if wire::text(call, "/kind") == Some("server") { (peer, own) } else { (own, peer) };
    let cell = |text: Option<&str>| text.map_or_else(wire::dash, Cell::text);
    let start = wire::time(call, "/start");
    let took = wire::count(call, "/duration_ns");
    let cells = vec![
        start.map_or_else(wire::dash, |start| Cell::text(&time_of_day(start))),
        cell(text("http.request.method_original").or_else(|| text("http.request.method"))),
        cell(text("http.route").or_else(|| text("url.template")).or_else(|| text("url.path"))),
        status.map_or_else(Cell::none, |status| Cell::count(status).tone(tone(status))),
        took.map_or_else(Cell::none, |took| Cell::number(took as f64, duration(took))),
        wire::bytes_cell(count("http.request.body.size").or_else(|| count("weir.request.wire.size"))),
        wire::bytes_cell(count("http.response.body.size").or_else(|| count("weir.response.wire.size"))),
        cell(client),
        cell(server),
        end(call, text("error.type")),
    ];
    Row { key: wire::text(call, "/span_id").unwrap_or_default().to_owned(), cells, opens: None }
}

fn tone(status: u64) -> Tone {
    match status {
        500.. => Tone::Bad,
        400.. => Tone::Warn,
        _ => Tone::Good,
    }
}

/// How it ended and what was judged of it, as `weir calls` tells it.
fn end(call: &Value, error: Option<&str>) -> Cell {
    let (end, verdict) = (wire::text(call, "/end").unwrap_or("-"), wire::text(call, "/verdict"));
    let error = error.filter(|error| error.parse::<u16>().is_err() && *error != end);
    let words: Vec<&str> =
        [Some(end), verdict.filter(|verdict| *verdict != "allowed"), error].into_iter().flatten().collect();
    Cell::text(&words.join(" ")).tone(if words == ["complete"] { Tone::Dim } else { Tone::Warn })
}

impl Calls {
    /// Whether a call is one of these.
    fn has(&self, call: &Value) -> bool {
        let attribute = |key: &str| call.get("attributes").and_then(|all| all.get(key)).and_then(Value::as_str);
        let own = Name::at(call, "/service");
        let port = |end: &str| -> Option<u64> { wire::text(call, end)?.rsplit_once(':')?.1.parse().ok() };
        match self {
            Self::Edge { client, server, port: wanted, by_server } => {
                let (here, there, end) = if *by_server {
                    (server, client, "/connection/local")
                } else {
                    (client, server, "/connection/remote")
                };
                own.as_ref() == Some(here) && port(end) == Some(*wanted) && is_peer(there, call)
            }
            Self::Endpoint { service, method, route, .. } => {
                let told = attribute("http.route").or_else(|| attribute("url.template"));
                own.as_ref() == Some(service)
                    && route.as_deref() == told
                    && method.as_deref().is_none_or(|method| attribute("http.request.method") == Some(method))
            }
        }
    }
}

/// Whether a call's other end is the one that the graph names so.
fn is_peer(name: &Name, call: &Value) -> bool {
    let peer = wire::text(call, "/peer/service.name");
    match name.name.strip_prefix("external:") {
        // By its address; a name that the client used is not told with a call in every case, the port has to do.
        Some(address) => {
            let is_address = address.parse::<std::net::IpAddr>().is_ok();
            !is_address && peer.is_none_or(|peer| peer == name.name)
                || wire::text(call, "/peer/address") == Some(address)
        }
        None if name.is_service() => peer == Some(&name.name),
        None => true,
    }
}
