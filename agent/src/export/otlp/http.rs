//! OTLP/HTTP with protobuf bodies.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message as _;

use super::{EndpointError, Reply, Signal, chain, headers, tls, uri};
use crate::export::settings::Endpoint;

/// Longest answer that is read: a partial success or a status with its message.
const ANSWER: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub(in crate::export) struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    gzip: bool,
    timeout: Duration,
}

impl Sender {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        let uri = uri(endpoint)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(endpoint.timeout));
        let secure = uri.scheme_str() == Some("https");
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::http(endpoint, secure)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let mut headers = headers(endpoint)?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION"))));
        if endpoint.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_mins(1))
            .build(connector);
        Ok(Self { client, uri, headers, gzip: endpoint.gzip, timeout: endpoint.timeout })
    }

    pub(super) async fn attempt(&self, signal: Signal, body: Bytes) -> Reply {
        match tokio::time::timeout(self.timeout, self.call(signal, body)).await {
            Ok(reply) => reply,
            Err(_) => Reply::Again { after: None, why: format!("no answer within {:?}", self.timeout) },
        }
    }

    async fn call(&self, signal: Signal, body: Bytes) -> Reply {
        let body = match self.gzip.then(|| gzip(&body)) {
            None => body,
            Some(Ok(squeezed)) => squeezed,
            Some(Err(error)) => return Reply::Refused(format!("gzip: {error}")),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return Reply::Again { after: None, why: chain(&error) },
        };
        let status = response.status();
        let after = retry_after(&response);
        let answer = match Limited::new(response.into_body(), ANSWER).collect().await {
            Ok(answer) => answer.to_bytes(),
            Err(error) if status.is_success() => {
                return Reply::Again { after: None, why: format!("answer cut short: {error}") };
            }
            Err(_) => Bytes::new(),
        };
        if status.is_success() {
            return signal.partial(&answer);
        }
        let why = format!("{status} {}", message(&answer));
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Reply::Again { after, why },
            _ => Reply::Refused(why),
        }
    }
}

/// The message of the `google.rpc.Status` that a failure's body is.
fn message(answer: &[u8]) -> String {
    tonic_types::Status::decode(answer).map(|status| status.message).unwrap_or_default()
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date: SystemTime = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().into();
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}
