//! Calls and services in the words of OpenTelemetry's semantic conventions, version 1.44 (`model/http/spans.yaml`,
//! `model/http/metrics.yaml`): the one place where an attribute gets its name.
//!
//! Attributes are handed to a visitor, borrowed, so that naming them allocates nothing.

use std::fmt;
use std::net::IpAddr;

use super::{End, Evidence, Exchange, Http, Kind, Method, Operation, Service, Verdict};

/// The schema that these names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// An attribute's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A string.
    Str(&'a str),
    /// Two words with a space between.
    Words(&'a str, &'a str),
    /// An absolute URL without credentials.
    Url(Url<'a>),
    /// An integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// An IP address, told as a string.
    Ip(IpAddr),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            Self::Words(first, second) => write!(f, "{first} {second}"),
            Self::Url(url) => url.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// semconv `url.full` by its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Url<'a> {
    scheme: &'static str,
    server: Server<'a>,
    path: &'a str,
    query: &'a str,
}

impl fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match self.server.address {
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Host::Ip(address) => address.fmt(f)?,
        }
        if self.server.port != default_port(self.scheme) {
            write!(f, ":{}", self.server.port)?;
        }
        f.write_str(self.path)?;
        if self.query.is_empty() { Ok(()) } else { write!(f, "?{}", self.query) }
    }
}

/// semconv `server.address`: as the client named it, else the socket's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Host<'a> {
    /// From `Host` or the request target; without user information, port and brackets.
    Name(&'a str),
    /// The server socket's.
    Ip(IpAddr),
}

/// semconv `server.address` and `server.port`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Server<'a> {
    /// Name or address.
    pub address: Host<'a>,
    /// The port named beside it, else the scheme's default beside a name, else the socket's.
    pub port: u16,
}

/// Tells every attribute of a call's span, required ones first.
pub fn span<'a>(exchange: &'a Exchange, emit: &mut impl FnMut(&'static str, Value<'a>)) {
    let Operation::Http(http) = &exchange.call.operation;
    request(exchange, http, emit);
    response(exchange, http, emit);
    network(exchange, http, emit);
    // What is outside is no service: `server.address` and `network.peer.address` tell it.
    if let Some(peer) = exchange.peer.as_ref().filter(|peer| peer.evidence != Evidence::External) {
        emit("service.peer.name", Value::Str(&peer.name));
        if let Some(namespace) = &peer.namespace {
            emit("service.peer.namespace", Value::Str(namespace));
        }
    }
    if let Some(via) = &exchange.via {
        emit("weir.via.name", Value::Str(&via.name));
        if let Some(namespace) = &via.namespace {
            emit("weir.via.namespace", Value::Str(namespace));
        }
    }
    own(exchange, emit);
}

fn request<'a>(exchange: &'a Exchange, http: &'a Http, emit: &mut impl FnMut(&'static str, Value<'a>)) {
    emit("http.request.method", Value::Str(method(&http.method)));
    if let Method::Other(original) = &http.method {
        emit("http.request.method_original", Value::Str(original));
    }
    let scheme = scheme(exchange);
    emit("url.scheme", Value::Str(scheme));
    if let Some(route) = &http.route {
        emit("http.route", Value::Str(route));
        if exchange.kind == Kind::Client {
            emit("url.template", Value::Str(route));
        }
    }
    let server = server(exchange);
    match server.address {
        Host::Name(name) => emit("server.address", Value::Str(name)),
        Host::Ip(address) => emit("server.address", Value::Ip(address)),
    }
    emit("server.port", Value::Int(i64::from(server.port)));
    if let Some((path, query)) = path_and_query(&http.target) {
        emit("url.path", Value::Str(path));
        if !query.is_empty() {
            emit("url.query", Value::Str(query));
        }
        if exchange.kind == Kind::Client {
            emit("url.full", Value::Url(Url { scheme, server, path, query }));
        }
    }
    if let Some(agent) = http.user_agent.as_deref().filter(|agent| !agent.is_empty()) {
        emit("user_agent.original", Value::Str(agent));
    }
    let request = exchange.call.request;
    match request.content {
        Some(content) => emit("http.request.body.size", Value::Int(content.cast_signed())),
        None => emit("weir.request.wire.size", Value::Int(request.wire.cast_signed())),
    }
}

fn response<'a>(exchange: &'a Exchange, http: &'a Http, emit: &mut impl FnMut(&'static str, Value<'a>)) {
    if let Some(status) = http.status {
        emit("http.response.status_code", Value::Int(i64::from(status)));
    }
    match exchange.call.response.map(|response| (response.content, response.wire)) {
        Some((Some(content), _)) => emit("http.response.body.size", Value::Int(content.cast_signed())),
        Some((None, wire)) => emit("weir.response.wire.size", Value::Int(wire.cast_signed())),
        None => {}
    }
    if let Some(error) = error_type(exchange) {
        emit("error.type", Value::Str(error));
    }
}

fn network<'a>(exchange: &'a Exchange, http: &'a Http, emit: &mut impl FnMut(&'static str, Value<'a>)) {
    let remote = exchange.connection.remote;
    if let Some(client) = exchange.client {
        emit("client.address", Value::Ip(client));
    }
    emit("network.peer.address", Value::Ip(remote.ip()));
    emit("network.peer.port", Value::Int(i64::from(remote.port())));
    emit("network.protocol.name", Value::Str("http"));
    emit("network.protocol.version", Value::Str(http.version.as_str()));
}

fn own<'a>(exchange: &'a Exchange, emit: &mut impl FnMut(&'static str, Value<'a>)) {
    emit("weir.end", Value::Str(exchange.call.end.as_str()));
    if let End::Lost(reason) = exchange.call.end {
        emit("weir.lost_reason", Value::Str(reason));
    }
    if exchange.call.truncated {
        emit("weir.truncated", Value::Bool(true));
    }
    emit("weir.verdict", Value::Str(exchange.verdict.as_str()));
    if let Verdict::WouldDrop { rule, reason } | Verdict::Dropped { rule, reason } = &exchange.verdict {
        emit("weir.block.id", Value::Str(rule));
        emit("weir.block.reason", Value::Str(reason));
    }
}

/// The span's name: `{method} {route}`, or `{method}` where no route is known; an unknown method is `HTTP`.
#[must_use]
pub fn span_name(exchange: &Exchange) -> Value<'_> {
    let Operation::Http(http) = &exchange.call.operation;
    let method = match &http.method {
        Method::Known(name) => name,
        Method::Other(_) => "HTTP",
    };
    match &http.route {
        Some(route) => Value::Words(method, route),
        None => Value::Str(method),
    }
}

/// semconv `http.request.method`.
#[must_use]
pub fn method(method: &Method) -> &'static str {
    match method {
        Method::Known(name) => name,
        Method::Other(_) => "_OTHER",
    }
}

/// semconv `url.scheme`. Only plaintext calls are read so far.
#[must_use]
pub fn scheme(_exchange: &Exchange) -> &'static str {
    "http"
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// semconv `server.address` and `server.port`: what the client named (`Host`, or the authority of an absolute-form
/// target), else the server's socket.
#[must_use]
pub fn server(exchange: &Exchange) -> Server<'_> {
    let Operation::Http(http) = &exchange.call.operation;
    let socket = match exchange.kind {
        Kind::Client => exchange.connection.remote,
        Kind::Server => exchange.connection.local,
    };
    let named = http.host.as_deref().map_or("", |host| host.rsplit('@').next().unwrap_or(host));
    let (name, port) = match named.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, rest)) => (name, rest.strip_prefix(':')),
        None => match named.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (named, None),
        },
    };
    if name.is_empty() {
        return Server { address: Host::Ip(socket.ip()), port: socket.port() };
    }
    let port = match port.filter(|port| !port.is_empty()) {
        // A port that is none says nothing; the socket's is a fact.
        Some(port) => port.parse().unwrap_or(socket.port()),
        None => default_port(scheme(exchange)),
    };
    Server { address: Host::Name(name), port }
}

/// semconv `url.path` and `url.query` of a request target (RFC 9112 §3.2); none in `*` and in an authority.
fn path_and_query(target: &str) -> Option<(&str, &str)> {
    let path = if target.starts_with('/') {
        target
    } else {
        let (_, rest) = target.split_once("://")?;
        rest.find(['/', '?']).map_or("/", |at| rest.get(at..).unwrap_or_default())
    };
    let path = path.split('#').next().unwrap_or_default();
    Some(path.split_once('?').unwrap_or((path, "")))
}

/// semconv `error.type`: a status that is an error for this side (client ≥ 400, server ≥ 500) as a number, else what
/// the call ended with. A call that Weir has not seen whole is no error of the call.
#[must_use]
pub fn error_type(exchange: &Exchange) -> Option<&'static str> {
    let Operation::Http(http) = &exchange.call.operation;
    let least = match exchange.kind {
        Kind::Client => 400,
        Kind::Server => 500,
    };
    http.status.filter(|status| *status >= least).and_then(status_text).or(exchange.call.error).or(
        match exchange.call.end {
            End::ClientAborted | End::ServerAborted | End::Reset => Some(exchange.call.end.as_str()),
            End::Complete | End::Upgraded | End::Lost(_) | End::InFlight => None,
        },
    )
}

/// Whether the span's status is `ERROR`.
#[must_use]
pub fn is_error(exchange: &Exchange) -> bool {
    error_type(exchange).is_some()
}

/// A status code's three digits.
#[must_use]
pub fn status_text(status: u16) -> Option<&'static str> {
    let at = usize::from(status.checked_sub(100)?) * 3;
    DIGITS.get(at..at + 3).and_then(|digits| std::str::from_utf8(digits).ok())
}

/// `100` to `999`, so that a status is a string without being written.
static DIGITS: [u8; 2700] = {
    let mut digits = [0; 2700];
    let mut number = 0;
    while number < 900 {
        digits[number * 3] = b'1' + (number / 100) as u8;
        digits[number * 3 + 1] = b'0' + (number / 10 % 10) as u8;
        digits[number * 3 + 2] = b'0' + (number % 10) as u8;
        number += 1;
    }
    digits
};

/// Tells the Resource attributes of a service: who it is, and with `process` which process of it.
pub fn resource<'a>(service: &'a Service, process: bool, emit: &mut impl FnMut(&'a str, Value<'a>)) {
    emit("service.name", Value::Str(&service.name));
    if let Some(namespace) = &service.namespace {
        emit("service.namespace", Value::Str(namespace));
    }
    if let Some(container) = &service.container_id {
        emit("container.id", Value::Str(container));
    }
    for (key, value) in &service.attributes {
        emit(key, Value::Str(value));
    }
    let Some(process) = service.process.as_ref().filter(|_| process) else { return };
    if process.pid != 0 {
        emit("process.pid", Value::Int(i64::from(process.pid)));
    }
    if let Some(name) = &process.executable_name {
        emit("process.executable.name", Value::Str(name));
    }
    if let Some(path) = &process.executable_path {
        emit("process.executable.path", Value::Str(path));
    }
}

#[cfg(test)]
mod tests;
