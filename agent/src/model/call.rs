//! One request with its response, as the wire shows it: no identity, no addresses.

use weir_common::errand::Errand;

use super::Forwarded;

/// Who did something, as far as the kernel could tell exactly; zeros where it could not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Process id in the initial pid namespace; 0: unknown.
    pub tgid: u32,
    /// Thread id in the initial pid namespace; 0: unknown.
    pub tid: u32,
    /// What the thread was about when it sent the first bytes of a message. Kept for as long as it takes to join calls.
    pub errand: Errand,
}

/// A place in a byte stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// TCP sequence number of the byte.
    pub seq: u32,
    /// Thread that sent it, where this node's process is the sender.
    pub by: Thread,
}

/// One direction of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// First byte.
    pub first: Stamp,
    /// When the last byte passed, or when an unanswered request was given up, `CLOCK_MONOTONIC` nanoseconds.
    pub last_at: u64,
    /// All bytes on the wire: start line, header section, body with its framing.
    pub wire: u64,
    /// Bytes of content as sent, without transfer framing (RFC 9110 §6.4); absent where Weir can't know.
    pub content: Option<u64>,
}

/// Request methods by name (RFC 9110 §9, RFC 5789, `WebDAV` RFC 4918, RFC 3253, RFC 3648, RFC 3744, RFC 5323, RFC 4791).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// A method of the known set, spelled exactly so.
    Known(&'static str),
    /// Any other token (RFC 9110 §5.6.2), cut at 32 bytes; semconv `_OTHER` with `http.request.method_original`.
    Other(Box<str>),
}

impl Method {
    /// The method as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(name) => name,
            Self::Other(name) => name,
        }
    }
}

/// Protocol version as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1 (and any other 1.x, which RFC 9112 §2.3 has treated as 1.1).
    Http11,
}

impl Version {
    /// semconv `network.protocol.version`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
        }
    }
}

/// An incoming trace context (W3C `traceparent`, B3 or `X-Amzn-Trace-Id`), valid ids only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// 16 bytes, not all zero; an id of 8 bytes (B3) is the right half.
    pub trace: [u8; 16],
    /// 8 bytes, not all zero: the sender's span.
    pub span: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

/// What an HTTP call says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Request method.
    pub method: Method,
    /// Request target as sent, cut at 8 KiB; emptied by `redact` below privacy level `standard`.
    pub target: Box<str>,
    /// Route template; set by `redact`.
    pub route: Option<std::sync::Arc<str>>,
    /// `Host` or the authority of an absolute-form target, cut at 255 bytes.
    pub host: Option<Box<str>>,
    /// Version of the request line.
    pub version: Version,
    /// Final status code, 200..=999 or 101; absent when none was seen.
    pub status: Option<u16>,
    /// Trace context of the request's headers.
    pub context: Option<TraceContext>,
    /// Hash of what the sender says of the client for whom it forwards the request (`Forwarded`, `X-Forwarded-For`,
    /// `X-Real-IP`; the first field), to be compared and not told; emptied by `redact`.
    pub forwarded: Option<u64>,
    /// What hops said of its way; taken out when calls are judged.
    pub way: Option<Box<Forwarded>>,
    /// `User-Agent` product, cut at 256 bytes; emptied by `redact` below `standard`.
    pub user_agent: Option<Box<str>>,
    /// Keyed hash of a header that names the request itself (`X-Request-Id` and the like). Kept for as long as it takes
    /// to join calls.
    pub request_id: Option<u64>,
    /// The head as it was sent, up to 16 KiB, where more of it than its target may be read differently by different
    /// servers; taken out when calls are judged.
    pub sent: Option<Box<[u8]>>,
    /// How, bits of `weir_common::judge::unclear`; set when calls are judged.
    pub unclear: u16,
}

/// What was called, by protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// HTTP/1.0 and HTTP/1.1.
    Http(Http),
}

/// How a call ended (CONTRACT `end`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Request and response are whole.
    Complete,
    /// The client closed before the response was whole.
    ClientAborted,
    /// The server closed before the response was whole.
    ServerAborted,
    /// A reset before the response was whole.
    Reset,
    /// The connection changed its protocol (101, or 2xx to CONNECT).
    Upgraded,
    /// Part of it was not seen; the text is CONTRACT `lost_reason`.
    Lost(&'static str),
    /// Still running when the agent stopped.
    InFlight,
}

impl End {
    /// CONTRACT's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientAborted => "client_aborted",
            Self::ServerAborted => "server_aborted",
            Self::Reset => "reset",
            Self::Upgraded => "upgraded",
            Self::Lost(_) => "lost",
            Self::InFlight => "in_flight",
        }
    }
}

/// A request with its response, or with what ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub operation: Operation,
    /// The request.
    pub request: Message,
    /// The response; absent when no byte of it was seen.
    pub response: Option<Message>,
    /// How it ended.
    pub end: End,
    /// semconv `error.type`, where there is one: a status code ≥ 400 is not repeated here (the exporter derives it by
    /// span kind), this is for what has no status: `connection_reset`, `timeout`, `malformed_request`, …
    pub error: Option<&'static str>,
    /// Another request of the connection was under way at the same time.
    pub pipelined: bool,
    /// A head was longer than what was kept of it: method, target prefix and status are right, headers may be missing.
    pub truncated: bool,
}
