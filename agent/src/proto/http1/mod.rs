//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112).
//!
//! A [`Http1`] gives a call for each request that it is certain of, in the order of requests, when both its messages
//! are whole or when the connection ends. What it decides where the standard leaves room:
//!
//! - **Not HTTP.** A connection whose first bytes are no request line ending in `HTTP/1.x` is not HTTP: no call,
//!   `Done("not_http")`. That takes in HTTP/0.9 (`GET /` alone), HTTP/2 with prior knowledge (`Done("http2")`), TLS, and
//!   protocols in which the server speaks first. A PROXY protocol prefix is stepped over.
//! - **HTTP/1.2 to HTTP/1.9** are read as 1.1. **Methods** are case-sensitive: `get` is a call with an unknown method.
//! - **Lenient** where servers are: bare LF, empty lines before a request, spaces around the parts of a request line,
//!   obs-fold (read as a space), spaces before a field's colon, lines that are no fields (left out). A server that
//!   refuses such a request answers, and that is the call's status.
//! - **Framing** is RFC 9112 §6.3: `Transfer-Encoding` wins over `Content-Length`. A request whose framing contradicts
//!   itself, and broken chunks, end a call with error `malformed_request` or `malformed_response`; what follows is
//!   resynchronised.
//! - **Interim responses** (1xx but 101) are no part of the response message: its first byte is the final one's.
//! - **`Expect: 100-continue`** answered before the body: if the client's next bytes are a request line the body was
//!   withheld, else they are the body. Bytes that are too few to tell wait for a line's end.
//! - **An early answer**, to a request whose head has not ended, ends that head: the call is `truncated`.
//! - **Gaps**: inside a body of known length, or inside a chunk, they cost nothing. In a head they cut it
//!   (`truncated`). Elsewhere the direction is resynchronised at the next chunk that certainly starts a message: a whole
//!   request line, or a status line. A response whose head was in a gap ends its call as `lost`.
//! - **Chunked bodies of which only windows were seen** end where their last bytes look like a last chunk; the next
//!   message, a close or 200 ms of silence confirm it, further bytes of the body revoke it.
//! - **Pairing** is by order. After unseen request bytes, requests on a connection that pipelines are left out until
//!   nothing waits and both sides were silent for 200 ms; on others the next request is certain. A response without a
//!   known request is no call; `skipped` counts it, unless every byte of the connection was seen (a server that gives
//!   up an idle connection with 408).
//! - **Bounds**: 1024 waiting requests, together 256 KiB of text; requests beyond that are left out, and so counted by
//!   their responses. A head holds two lines of 9 KiB at most, of any number; a target is kept up to 8 KiB.
//! - **Ends**: FIN of the server before the response is whole is `server_aborted`, or `client_aborted` if the client's
//!   FIN came first; a reset is `reset`; a connection that is gone without FIN or reset is `lost` (`unseen_close`).

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod body;
mod doubt;
mod ending;
mod fields;
mod head;
mod line;
mod machine;
mod message;
mod queue;
#[cfg(test)]
mod tests;
mod withheld;

use super::Protocol;

/// HTTP/1 in the table of protocols.
pub const PROTOCOL: Protocol =
    Protocol { name: "http", guess: line::guess, starts: line::starts_usually, open: || Box::new(Http1::new(false)) };

pub use machine::{HTTP2, Http1, NOT_HTTP, UPGRADED};
