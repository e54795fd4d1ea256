//! Receivers that speak OTLP for real, and answer by script.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the next request is answered with; when the script is over: taken.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Partial success: so many rejected.
    Partial(i64),
    /// A gRPC failure, with `RetryInfo`.
    Grpc(Code, Option<Duration>),
    /// An HTTP status, with `Retry-After`.
    Http(u16, Option<&'static str>),
    /// Taken, after a while.
    Slow(Duration),
}

/// What a receiver has got and will say.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Answer>,
    /// Requests that came, taken or not, with their headers.
    attempts: Vec<HeaderMap>,
    taken: Vec<ExportTraceServiceRequest>,
    readings: Vec<ExportMetricsServiceRequest>,
}

impl Desk {
    pub(super) fn new(script: impl IntoIterator<Item = Answer>) -> Self {
        let desk = Self::default();
        desk.0.lock().unwrap().script.extend(script);
        desk
    }

    fn next(&self, headers: HeaderMap) -> Option<Answer> {
        let mut state = self.0.lock().unwrap();
        state.attempts.push(headers);
        state.script.pop_front()
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        self.0.lock().unwrap().taken.push(request);
    }

    pub(super) fn attempts(&self) -> Vec<HeaderMap> {
        self.0.lock().unwrap().attempts.clone()
    }

    pub(super) fn taken(&self) -> Vec<ExportTraceServiceRequest> {
        self.0.lock().unwrap().taken.clone()
    }

    /// Everything that was told of metrics.
    pub(super) fn metrics(&self) -> Vec<ResourceMetrics> {
        self.0.lock().unwrap().readings.iter().flat_map(|request| request.resource_metrics.clone()).collect()
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let taken = self.taken();
        taken.into_iter().flat_map(|r| r.resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
    }
}

/// A receiver that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Debug)]
struct Grpc(Desk);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut partial_success = None;
        match self.0.next(request.metadata().clone().into_headers()) {
            None | Some(Answer::Http(..)) => {}
            Some(Answer::Partial(rejected)) => partial_success = Some(partial(rejected)),
            Some(Answer::Slow(wait)) => tokio::time::sleep(wait).await,
            Some(Answer::Grpc(code, None)) => return Err(Status::new(code, "by script")),
            Some(Answer::Grpc(code, after)) => {
                return Err(Status::with_error_details(code, "by script", ErrorDetails::with_retry_info(after)));
            }
        }
        self.0.take(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Grpc {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        if let Some(Answer::Grpc(code, _)) = self.0.next(request.metadata().clone().into_headers()) {
            return Err(Status::new(code, "by script"));
        }
        self.0.0.lock().unwrap().readings.push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn partial(rejected: i64) -> ExportTracePartialSuccess {
    ExportTracePartialSuccess { rejected_spans: rejected, error_message: "by script".to_owned() }
}

/// An OTLP/gRPC receiver; `tls` is its certificate, key and the authority of client certificates, in PEM.
pub(super) async fn grpc(desk: &Desk, address: &str, tls: Option<(&str, &str, &str)>) -> Receiver {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = TraceServiceServer::new(Grpc(desk.clone())).accept_compressed(CompressionEncoding::Gzip);
    let metrics = MetricsServiceServer::new(Grpc(desk.clone())).accept_compressed(CompressionEncoding::Gzip);
    let mut server = Server::builder();
    if let Some((certificate, key, authority)) = tls {
        let identity = Identity::from_pem(certificate, key);
        let config = ServerTlsConfig::new()
            .identity(identity)
            .client_ca_root(tonic::transport::Certificate::from_pem(authority));
        server = server.tls_config(config).unwrap();
    }
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let task = tokio::spawn(async move {
        server.add_service(service).add_service(metrics).serve_with_incoming(incoming).await.unwrap();
    });
    Receiver { address, task }
}

/// An OTLP/HTTP receiver at `/v1/traces` and `/v1/metrics`.
pub(super) async fn http(desk: &Desk, address: &str, tls: Option<Arc<rustls::ServerConfig>>) -> Receiver {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let desk = desk.clone();
    let task = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (desk, tls) = (desk.clone(), tls.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| answer(desk.clone(), request));
                let http = hyper::server::conn::http1::Builder::new();
                // A client that does not trust the certificate, or leaves: what the test looks at is on its side.
                match tls {
                    None => drop(http.serve_connection(TokioIo::new(socket), service).await),
                    Some(tls) => {
                        if let Ok(socket) = tokio_rustls::TlsAcceptor::from(tls).accept(socket).await {
                            drop(http.serve_connection(TokioIo::new(socket), service).await);
                        }
                    }
                }
            });
        }
    });
    Receiver { address, task }
}

async fn answer(
    desk: Desk,
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!(head.method.as_str(), "POST");
    let mut body = body.collect().await.unwrap().to_bytes().to_vec();
    if head.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        body = plain;
    }
    let mut partial_success = None;
    match desk.next(head.headers) {
        None | Some(Answer::Grpc(..)) => {}
        Some(Answer::Partial(rejected)) => partial_success = Some(partial(rejected)),
        Some(Answer::Slow(wait)) => tokio::time::sleep(wait).await,
        Some(Answer::Http(status, after)) => {
            let mut response = hyper::Response::builder().status(status);
            if let Some(after) = after {
                response = response.header("retry-after", after);
            }
            return Ok(response.body(Full::default()).unwrap());
        }
    }
    match head.uri.path() {
        "/v1/traces" => desk.take(ExportTraceServiceRequest::decode(&body[..]).unwrap()),
        "/v1/metrics" => desk.0.lock().unwrap().readings.push(ExportMetricsServiceRequest::decode(&body[..]).unwrap()),
        other => panic!("{other}"),
    }
    let response = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    Ok(hyper::Response::new(Full::from(response)))
}
