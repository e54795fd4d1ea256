//! A time series: which calls belong to it, and what was measured of them.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::histogram::{BUCKETS, DURATION, Histogram, SIZE};
use crate::model::semconv::{self, Host, Server, Value};
use crate::model::{Exchange, Kind, Operation, Version};

/// What all calls of a series share, borrowed from a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    kind: Kind,
    method: &'static str,
    route: Option<&'a Arc<str>>,
    status: Option<u16>,
    error: Option<&'static str>,
    version: Version,
    scheme: &'static str,
    server: Option<Server<'a>>,
}

impl<'a> Seen<'a> {
    pub(super) fn of(exchange: &'a Exchange) -> Self {
        let Operation::Http(http) = &exchange.call.operation;
        Self {
            kind: exchange.kind,
            method: semconv::method(&http.method),
            route: http.route.as_ref(),
            status: http.status,
            error: semconv::error_type(exchange),
            version: http.version,
            scheme: semconv::scheme(exchange),
            // On the server's side it would be whatever strangers write into `Host`: semantic conventions warn of it.
            server: (exchange.kind == Kind::Client).then(|| semconv::server(exchange)),
        }
    }

    pub(super) fn is(&self, key: &Key) -> bool {
        self.kind == key.kind
            && self.status == key.status
            && self.version == key.version
            && self.method == key.method
            && self.error == key.error
            && self.scheme == key.scheme
            && match (self.route, &key.route) {
                (Some(seen), Some(kept)) => Arc::ptr_eq(seen, kept) || seen == kept,
                (seen, kept) => seen.is_none() && kept.is_none(),
            }
            && match (self.server, &key.server) {
                (Some(seen), Some((address, port))) => seen.port == *port && address.is(seen.address),
                (seen, kept) => seen.is_none() && kept.is_none(),
            }
    }

    pub(super) fn key(&self) -> Key {
        Key {
            kind: self.kind,
            method: self.method,
            route: self.route.cloned(),
            status: self.status,
            error: self.error,
            version: self.version,
            scheme: self.scheme,
            server: self.server.map(|server| (Address::from(server.address), server.port)),
        }
    }
}

/// Must stay in step with [`Seen::is`]: what is equal hashes the same.
impl Hash for Seen<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let numbers = [
            self.kind as u64,
            u64::from(self.status.unwrap_or(0)),
            self.version as u64,
            self.server.map_or(0, |server| u64::from(server.port) + 1),
            self.error.map_or(0, |error| error.len() as u64),
            self.method.len() as u64,
        ];
        state.write_u64(numbers.iter().fold(0, |sum, number| sum << 10 ^ number));
        state.write(self.method.as_bytes());
        if let Some(route) = self.route {
            state.write(route.as_bytes());
        }
        match self.server.map(|server| server.address) {
            Some(Host::Name(name)) => state.write(name.as_bytes()),
            Some(Host::Ip(address)) => address.hash(state),
            None => {}
        }
    }
}

/// What all calls of a series share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::export) struct Key {
    kind: Kind,
    method: &'static str,
    route: Option<Arc<str>>,
    status: Option<u16>,
    error: Option<&'static str>,
    version: Version,
    scheme: &'static str,
    server: Option<(Address, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Name(Box<str>),
    Ip(IpAddr),
}

impl Address {
    fn is(&self, seen: Host<'_>) -> bool {
        match (self, seen) {
            (Self::Name(kept), Host::Name(seen)) => **kept == *seen,
            (Self::Ip(kept), Host::Ip(seen)) => *kept == seen,
            _ => false,
        }
    }
}

impl From<Host<'_>> for Address {
    fn from(host: Host<'_>) -> Self {
        match host {
            Host::Name(name) => Self::Name(name.into()),
            Host::Ip(address) => Self::Ip(address),
        }
    }
}

/// Whose series it is: of calls alike, or of all calls of one side that found no place of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::export) enum Label {
    Alike(Key),
    Overflow(Kind),
}

impl Label {
    pub(in crate::export) fn kind(&self) -> Kind {
        match self {
            Self::Alike(key) => key.kind,
            Self::Overflow(kind) => *kind,
        }
    }

    /// Method and route; neither where calls found no place of their own.
    pub(super) fn endpoint(&self) -> (Option<&'static str>, Option<&Arc<str>>) {
        match self {
            Self::Alike(key) => (Some(key.method), key.route.as_ref()),
            Self::Overflow(_) => (None, None),
        }
    }

    /// Whether its calls are errors for their side; of those without a place of their own it is not known.
    pub(super) fn is_error(&self) -> bool {
        matches!(self, Self::Alike(Key { error: Some(_), .. }))
    }

    /// Tells the attributes of the series.
    pub(in crate::export) fn tell<'a>(&'a self, emit: &mut impl FnMut(&'static str, Value<'a>)) {
        let key = match self {
            Self::Alike(key) => key,
            Self::Overflow(_) => return emit("otel.metric.overflow", Value::Bool(true)),
        };
        emit("http.request.method", Value::Str(key.method));
        if let Some(route) = &key.route {
            emit(if key.kind == Kind::Server { "http.route" } else { "url.template" }, Value::Str(route));
        }
        if let Some(status) = key.status {
            emit("http.response.status_code", Value::Int(i64::from(status)));
        }
        if let Some(error) = key.error {
            emit("error.type", Value::Str(error));
        }
        emit("network.protocol.version", Value::Str(key.version.as_str()));
        emit("url.scheme", Value::Str(key.scheme));
        if let Some((address, port)) = &key.server {
            match address {
                Address::Name(name) => emit("server.address", Value::Str(name)),
                Address::Ip(address) => emit("server.address", Value::Ip(*address)),
            }
            emit("server.port", Value::Int(i64::from(*port)));
        }
    }
}

/// A call that stands for those of its bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::export) struct Exemplar {
    pub(in crate::export) trace: [u8; 16],
    pub(in crate::export) span: [u8; 8],
    /// Nanoseconds.
    pub(in crate::export) duration: u64,
    /// Nanoseconds since the Unix epoch; 0: there is none.
    pub(in crate::export) at: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::export) struct Measures {
    /// Nanoseconds.
    pub(in crate::export) duration: Histogram,
    /// Bytes of content, of calls where it is known.
    pub(in crate::export) request: Histogram,
    /// Bytes of content, of calls where it is known.
    pub(in crate::export) response: Histogram,
}

/// A time series.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) label: Label,
    /// Where in its table it belongs.
    pub(super) hash: u64,
    pub(super) measures: Measures,
    pub(super) exemplars: [Exemplar; BUCKETS],
    /// Counts from here, nanoseconds since the Unix epoch.
    pub(super) since: u64,
    /// Last call, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) used: u64,
    /// What delta temporality has told already, and up to when.
    pub(super) told: Option<Box<(Measures, u64)>>,
}

impl Series {
    pub(super) fn new(label: Label, hash: u64, since: u64) -> Self {
        let exemplars = [Exemplar::default(); BUCKETS];
        Self { label, hash, measures: Measures::default(), exemplars, since, used: 0, told: None }
    }

    pub(super) fn add(&mut self, exchange: &Exchange, exemplar: bool, now: u64) {
        self.used = now;
        let duration = exchange.duration_ns();
        let bucket = self.measures.duration.observe(&DURATION, duration);
        if let Some(content) = exchange.call.request.content {
            self.measures.request.observe(&SIZE, content);
        }
        if let Some(content) = exchange.call.response.and_then(|response| response.content) {
            self.measures.response.observe(&SIZE, content);
        }
        if exemplar && let Some(place) = self.exemplars.get_mut(bucket) {
            let at = exchange.start_unix_ns.saturating_add(duration);
            *place = Exemplar { trace: exchange.ids.trace, span: exchange.ids.span, duration, at };
        }
    }
}
