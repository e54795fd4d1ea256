//! Answers: a document, or lines that are made while they are read.

use std::{
    convert::Infallible,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    Response, StatusCode,
    body::{Body, Bytes, Frame, SizeHint},
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Serialize;
use tokio::sync::mpsc;

/// Chunks that wait for a slow reader; then who makes them waits.
const CHUNKS: usize = 4;
/// Bytes of a chunk before it is handed over.
const CHUNK: usize = 64 << 10;

/// A body: bytes that are there, or chunks that come.
#[derive(Debug)]
pub(super) enum Reply {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Stream(chunks) => match chunks.poll_recv(context) {
                Poll::Ready(chunk) => chunk,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A JSON document with a line end.
pub(super) fn document(status: StatusCode, value: &impl Serialize) -> Response<Reply> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(Reply::Whole(Some(bytes.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A text that was made elsewhere.
pub(super) fn text(kind: &'static str, text: String) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Some(text.into())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An answer that says what is wrong: `{"error": …}`.
pub(super) fn error(status: StatusCode, text: &str) -> Response<Reply> {
    document(status, &serde_json::json!({ "error": text }))
}

/// A change that was refused, with the key at fault where it is one.
pub(super) fn refused(error: &super::NotMade) -> Response<Reply> {
    let mut told = serde_json::json!({ "error": error.why });
    if let Some(field) = &error.field {
        told["field"] = field.as_str().into();
    }
    document(StatusCode::UNPROCESSABLE_ENTITY, &told)
}

/// An NDJSON answer and where its lines go.
pub(super) fn lines() -> (Lines, Response<Reply>) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let mut response = Response::new(Reply::Stream(receiver));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    (Lines { sender, chunk: Vec::new() }, response)
}

/// Lines on their way to a reader. Used on a thread that may wait.
#[derive(Debug)]
pub(super) struct Lines {
    sender: mpsc::Sender<Bytes>,
    chunk: Vec<u8>,
}

impl Lines {
    /// Adds a line; `false`: the reader is gone.
    pub(super) fn add(&mut self, value: &impl Serialize) -> bool {
        if serde_json::to_writer(&mut self.chunk, value).is_ok() {
            let _ = self.chunk.write_all(b"\n");
        }
        self.chunk.len() < CHUNK || self.flush()
    }

    /// Hands over what is there; `false`: the reader is gone.
    pub(super) fn flush(&mut self) -> bool {
        if self.chunk.is_empty() {
            return !self.sender.is_closed();
        }
        self.sender.blocking_send(std::mem::take(&mut self.chunk).into()).is_ok()
    }
}
