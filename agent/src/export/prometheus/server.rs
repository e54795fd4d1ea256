//! `/metrics`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::own::Snapshot;
use super::page;
use super::text::Format;
use crate::export::ledger::Ledger;
use crate::export::metrics::Metrics;
use crate::export::settings::Node;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 32;

/// Pages written at a time; one that waits for its scraper to read does not count. Further ones wait for their turn.
const PAGES: usize = 2;

/// Longest wait for a turn; then a scrape is told to come again.
const TURN: Duration = Duration::from_secs(5);

/// Bytes of a piece of the page, and pieces that may wait for a slow scraper.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 2;

/// Longest time that a scraper may take for a piece, or for its request's head.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time that a connection may last: one whose other end does not read the rest of a page gives its place back.
const LIFE: Duration = Duration::from_mins(1);

/// Where the page's content comes from.
pub struct Page {
    /// Calls, counted.
    pub metrics: Arc<Metrics>,
    /// What became of exported data.
    pub ledger: Arc<Ledger>,
    /// What other layers count; asked once a scrape.
    pub snapshot: Box<dyn Fn() -> Snapshot + Send + Sync>,
    /// Whether the agent does its work; why not, if not. May wait: it is asked on a thread where that is allowed.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// The node, as it stands in `target_info`.
    pub node: Node,
}

/// The page can't be offered.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} for Prometheus; choose another address with prometheus.listen")]
pub struct ListenError {
    /// Address that was asked for.
    pub address: SocketAddr,
    /// What the kernel says.
    #[source]
    pub cause: io::Error,
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens and starts to answer.
    pub async fn start(address: SocketAddr, page: Page) -> Result<Self, ListenError> {
        let fail = |cause| ListenError { address, cause };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let desk = Desk { page: Arc::new(page), pages: Arc::new(Semaphore::new(PAGES)) };
        Ok(Self { address, task: tokio::spawn(accept(listener, desk)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Desk {
    page: Arc<Page>,
    pages: Arc<Semaphore>,
}

async fn accept(listener: TcpListener, desk: Desk) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(serve(socket, desk.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "Prometheus page: can't accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(socket: TcpStream, desk: Desk, permit: OwnedSemaphorePermit) {
    let service = service_fn(|request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(desk.answer(&request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    match tokio::time::timeout(LIFE, http.serve_connection(TokioIo::new(socket), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "Prometheus page: a connection ended early"),
        Err(_) => tracing::debug!("Prometheus page: a connection lasted too long"),
    }
    drop(permit);
}

impl Desk {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Stream> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(request).await,
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.ready().await {
                Ok(()) => text(StatusCode::OK, "ok\n"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz, /readyz\n"),
        }
    }

    async fn ready(&self) -> Result<(), String> {
        let page = Arc::clone(&self.page);
        let asked = tokio::task::spawn_blocking(move || (page.ready)()).await;
        asked.unwrap_or_else(|_| Err("it could not be asked".to_owned()))
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Response<Stream> {
        let said = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let format = Format::negotiate(said(header::ACCEPT));
        let gzip = accepts_gzip(said(header::ACCEPT_ENCODING));
        let mut response = Response::new(Stream::Whole(None));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if request.method() == Method::GET {
            let turn = tokio::time::timeout(TURN, Arc::clone(&self.pages).acquire_owned()).await;
            let Ok(Ok(turn)) = turn else {
                return text(StatusCode::SERVICE_UNAVAILABLE, "other scrapes are being answered\n");
            };
            // Before anything is answered: the answer's own messages would be on their way in every page.
            let page = Arc::clone(&self.page);
            let Ok(now) = tokio::task::spawn_blocking(move || (page.snapshot)()).await else {
                return text(StatusCode::SERVICE_UNAVAILABLE, "it could not be asked\n");
            };
            let (to, stream) = mpsc::channel(PIECES);
            let page = Arc::clone(&self.page);
            let (turn, pages) = (Some(turn), Arc::clone(&self.pages));
            let out = Pieces { to, open: Vec::with_capacity(PIECE), runtime: Handle::current(), turn, pages };
            tokio::task::spawn_blocking(move || {
                if let Err(error) = page.write(format, gzip, &now, out) {
                    tracing::debug!(%error, "Prometheus page: a scraper left early");
                }
            });
            *response.body_mut() = Stream::Pieces(stream);
        }
        response
    }
}

impl Page {
    fn write(&self, format: Format, gzip: bool, now: &Snapshot, out: Pieces) -> io::Result<()> {
        let out = if gzip {
            let out = GzEncoder::new(out, Compression::fast());
            page::write(out, format, &self.metrics, &self.ledger, now, &self.node)?.finish()?
        } else {
            page::write(out, format, &self.metrics, &self.ledger, now, &self.node)?
        };
        out.finish()
    }
}

fn accepts_gzip(accept: &str) -> bool {
    accept.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && !parts.any(refused)
    })
}

fn text(status: StatusCode, body: &str) -> Response<Stream> {
    let mut response = Response::new(Stream::Whole(Some(Bytes::copy_from_slice(body.as_bytes()))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Hands what is written to the connection, piece by piece.
struct Pieces {
    to: mpsc::Sender<Piece>,
    open: Vec<u8>,
    runtime: Handle,
    /// Held while the page is being written, and by nobody whose scraper does not read.
    turn: Option<OwnedSemaphorePermit>,
    pages: Arc<Semaphore>,
}

impl Pieces {
    fn send(&mut self, piece: Piece) -> io::Result<()> {
        let piece = match self.to.try_send(piece) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(piece)) => piece,
            Err(TrySendError::Closed(_)) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        self.turn = None;
        let sent = self.runtime.block_on(self.to.send_timeout(piece, PATIENCE));
        sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        // Whoever has a turn ends, or gives it back here.
        self.turn = self.runtime.block_on(Arc::clone(&self.pages).acquire_owned()).ok();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.open);
        self.send(Piece::Part(Bytes::from(rest)))?;
        self.send(Piece::End)
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open.extend_from_slice(bytes);
        if self.open.len() >= PIECE {
            let part = std::mem::replace(&mut self.open, Vec::with_capacity(PIECE));
            self.send(Piece::Part(Bytes::from(part)))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A piece of the page. Only a page that says so is at its end: one that was given up must not look like a whole one.
enum Piece {
    Part(Bytes),
    End,
}

/// The body of an answer.
enum Stream {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Piece>),
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let stream = self.get_mut();
        let pieces = match stream {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(pieces) => pieces,
        };
        match std::task::ready!(pieces.poll_recv(context)) {
            Some(Piece::Part(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Piece::End) => {
                *stream = Self::Whole(None);
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}
