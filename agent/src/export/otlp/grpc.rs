//! OTLP/gRPC.

use std::error::Error as _;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use hyper::http::uri::PathAndQuery;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint as Target};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::{EndpointError, Reply, Signal, chain, headers, tls, uri};
use crate::export::settings::Endpoint;

#[derive(Clone, Debug)]
pub(in crate::export) struct Sender {
    channel: Channel,
    headers: MetadataMap,
    gzip: bool,
    timeout: Duration,
}

impl Sender {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        let uri = uri(endpoint)?;
        let secure = uri.scheme_str() == Some("https");
        let fail =
            |error: tonic::transport::Error| EndpointError::Tls { url: endpoint.url.clone(), why: chain(&error) };
        let mut target = Target::from(uri)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .map_err(fail)?
            .connect_timeout(endpoint.timeout)
            // A peer that vanished without a word is noticed, so that the next attempt connects anew.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        if secure {
            target = target.tls_config(tls::grpc(endpoint)?).map_err(fail)?;
        }
        Ok(Self {
            channel: target.connect_lazy(),
            headers: MetadataMap::from_headers(headers(endpoint)?),
            gzip: endpoint.gzip,
            timeout: endpoint.timeout,
        })
    }

    pub(super) async fn attempt(&self, signal: Signal, body: Bytes) -> Reply {
        match tokio::time::timeout(self.timeout, self.call(signal, body)).await {
            Ok(Ok(answer)) => signal.partial(&answer),
            Ok(Err(status)) => judge(&status),
            Err(_) => Reply::Again { after: None, why: format!("no answer within {:?}", self.timeout) },
        }
    }

    async fn call(&self, signal: Signal, body: Bytes) -> Result<Bytes, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client = client.accept_compressed(CompressionEncoding::Gzip);
        client.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
        let mut request = Request::new(body);
        *request.metadata_mut() = self.headers.clone();
        request.set_timeout(self.timeout);
        let path = PathAndQuery::from_static(signal.grpc_path());
        client.unary(request, path, Encoded).await.map(tonic::Response::into_inner)
    }
}

/// Which failures may pass (OTLP specification, "Failures" of OTLP/gRPC).
fn judge(status: &Status) -> Reply {
    let why = match status.source() {
        Some(cause) => format!("{}: {}", status.code(), chain(cause)),
        None => format!("{}: {}", status.code(), status.message()),
    };
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Reply::Again { after, why },
        // Only a receiver that says when it will have room again means that it will.
        Code::ResourceExhausted if after.is_some() => Reply::Again { after, why },
        // The transport's own words: the connection broke, the receiver has said nothing.
        Code::Unknown | Code::Internal if status.source().is_some() => Reply::Again { after, why },
        _ => Reply::Refused(why),
    }
}

/// Requests are encoded once, before the first attempt.
#[derive(Clone, Copy, Debug, Default)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
