//! A call as `weir calls --json` shows it.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Which end saw it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The process that asked.
    Client,
    /// The process that answered.
    Server,
}

/// One line of `weir calls --json`; names and units are those of the documented schema.
#[derive(Clone, Debug, Deserialize)]
pub struct Call {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits.
    pub parent_span_id: Option<String>,
    /// Spans of other traces that belong to it.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Side of the observer.
    pub kind: Kind,
    /// RFC 3339 with nanoseconds, UTC.
    pub start: String,
    /// Nanoseconds.
    pub duration_ns: u64,
    /// Nanoseconds.
    pub time_to_first_byte_ns: Option<u64>,
    /// The observed process.
    pub service: Service,
    /// The other end.
    pub peer: Option<Peer>,
    /// Over what.
    pub connection: Connection,
    /// Semantic conventions.
    pub attributes: Attributes,
    /// How it ended.
    pub end: String,
    /// Why a part of it was not seen.
    pub lost_reason: Option<String>,
    /// What enforcement said.
    pub verdict: String,
    /// A head was longer than what was kept of it.
    pub truncated: bool,
}

/// A span of another trace.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Link {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
}

/// Resource attributes of the observed process.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Service {
    /// Service name.
    #[serde(rename = "service.name")]
    pub name: Option<String>,
    /// Process id.
    #[serde(rename = "process.pid")]
    pub pid: Option<u32>,
    /// File name of the executable.
    #[serde(rename = "process.executable.name")]
    pub executable: Option<String>,
    /// Arguments; from privacy level `standard` on.
    #[serde(rename = "process.command_line")]
    pub command_line: Option<String>,
}

/// The other end.
#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    /// Service name, where it is proven.
    #[serde(rename = "service.name")]
    pub name: Option<String>,
    /// Address.
    pub address: Option<String>,
    /// Port.
    pub port: Option<u16>,
}

/// The connection of a call.
#[derive(Clone, Debug, Deserialize)]
pub struct Connection {
    /// Socket cookie.
    pub cookie: u64,
    /// The observed end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// `plaintext`, `tls`, `opaque`.
    pub visibility: String,
}

/// HTTP and error attributes of a call.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Attributes {
    /// Method, `_OTHER` for unknown ones.
    #[serde(rename = "http.request.method")]
    pub method: Option<String>,
    /// Method as sent where it is not a known one.
    #[serde(rename = "http.request.method_original")]
    pub method_original: Option<String>,
    /// Route template.
    #[serde(rename = "http.route")]
    pub route: Option<String>,
    /// Path; from privacy level `standard` on.
    #[serde(rename = "url.path")]
    pub path: Option<String>,
    /// Final status.
    #[serde(rename = "http.response.status_code")]
    pub status: Option<u16>,
    /// `http`.
    #[serde(rename = "network.protocol.name")]
    pub protocol: Option<String>,
    /// `1.0` or `1.1`.
    #[serde(rename = "network.protocol.version")]
    pub version: Option<String>,
    /// Content bytes of the request.
    #[serde(rename = "http.request.body.size")]
    pub request_body: Option<u64>,
    /// Content bytes of the response.
    #[serde(rename = "http.response.body.size")]
    pub response_body: Option<u64>,
    /// Wire bytes of the request.
    #[serde(rename = "weir.request.wire.size")]
    pub request_wire: Option<u64>,
    /// Wire bytes of the response.
    #[serde(rename = "weir.response.wire.size")]
    pub response_wire: Option<u64>,
    /// The drop rule that met it.
    #[serde(rename = "weir.block.id")]
    pub rule: Option<String>,
    /// What went wrong.
    #[serde(rename = "error.type")]
    pub error: Option<String>,
}

impl Call {
    /// Address of the client's end.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        match self.kind {
            Kind::Client => self.connection.local,
            Kind::Server => self.connection.remote,
        }
    }

    /// Address of the server's end.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        match self.kind {
            Kind::Client => self.connection.remote,
            Kind::Server => self.connection.local,
        }
    }

    /// Start, nanoseconds since the Unix epoch.
    pub fn start_ns(&self) -> Result<u64> {
        let digits = |from: usize, to: usize| -> Result<u64> {
            let text = self.start.get(from..to).with_context(|| format!("the time {:?}", self.start))?;
            text.parse().with_context(|| format!("the time {:?}", self.start))
        };
        let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
        // Years that begin in March put the leap day last (proleptic Gregorian calendar).
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
        let seconds = ((days * 24 + digits(11, 13)?) * 60 + digits(14, 16)?) * 60 + digits(17, 19)?;
        Ok(seconds * 1_000_000_000 + digits(20, 29)?)
    }

    /// Method as sent.
    #[must_use]
    pub fn method(&self) -> &str {
        let original = self.attributes.method_original.as_deref();
        original.or(self.attributes.method.as_deref()).unwrap_or_default()
    }
}
