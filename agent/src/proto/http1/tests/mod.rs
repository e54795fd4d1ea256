//! Conversations, told piece by piece, and the exact calls that they are.

mod ends;
mod gaps;
mod heads;
mod messages;
mod midway;
mod properties;

use crate::model::{Call, End, Operation, Thread};
use crate::proto::{Begun, Chunk, Close, Gap, Parser, Side, Step};

use super::Http1;
use super::machine::QUIET;

/// One connection, told in order. Every event is a microsecond after the one before.
pub(super) struct Talk {
    pub(super) http: Http1,
    pub(super) calls: Vec<Call>,
    pub(super) begun: Vec<Begun>,
    pub(super) step: Step,
    at: u64,
    seq: [u32; 2],
}

impl Talk {
    pub(super) fn new() -> Self {
        Self::with(Http1::new(false))
    }

    pub(super) fn midway() -> Self {
        Self::with(Http1::new(true))
    }

    fn with(http: Http1) -> Self {
        // The client's sequence numbers wrap soon.
        Self { http, calls: Vec::new(), begun: Vec::new(), step: Step::Continue, at: 0, seq: [u32::MAX - 20, 1] }
    }

    fn next(&mut self, side: Side, len: u64) -> (u64, u32) {
        self.at += 1000;
        let seq = &mut self.seq[side as usize];
        let first = *seq;
        *seq = seq.wrapping_add(len as u32);
        (self.at, first)
    }

    pub(super) fn send(&mut self, side: Side, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        let (at, seq) = self.next(side, bytes.len() as u64);
        if self.step == Step::Continue {
            let by = Thread { tgid: 1 + side as u32, tid: 7, ..Thread::default() };
            self.step = self.http.feed(Chunk { side, at, seq, bytes, by }, &mut self.calls);
            self.begun.extend(self.http.begun());
        }
        self
    }

    /// The client sends.
    pub(super) fn c(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.send(Side::Client, bytes)
    }

    /// The server sends.
    pub(super) fn s(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.send(Side::Server, bytes)
    }

    pub(super) fn miss(&mut self, side: Side, len: u64, lost: Option<&'static str>) -> &mut Self {
        let (at, seq) = self.next(side, len);
        if self.step == Step::Continue {
            self.step = self.http.gap(Gap { side, at, seq, len, lost }, &mut self.calls);
            self.begun.extend(self.http.begun());
        }
        self
    }

    pub(super) fn end(&mut self, close: Close) -> &mut Self {
        self.at += 1000;
        self.http.close(close, self.at, &mut self.calls);
        self
    }

    pub(super) fn fin(&mut self, side: Side) -> &mut Self {
        self.end(Close::Fin(side))
    }

    pub(super) fn quiet(&mut self) -> &mut Self {
        self.at += QUIET;
        self.http.tick(self.at, &mut self.calls);
        self
    }

    /// The calls so far, one a line: method, target, status, request and response as wire/content bytes, end, marks.
    pub(super) fn told(&self) -> Vec<String> {
        self.calls.iter().map(line).collect()
    }

    #[track_caller]
    pub(super) fn is(&self, calls: &[&str]) {
        assert_eq!(self.told(), calls);
    }
}

pub(super) fn line(call: &Call) -> String {
    let Operation::Http(http) = &call.operation;
    let size = |size: Option<u64>| size.map_or("?".into(), |size| size.to_string());
    let target = match http.target.len() {
        0..60 => http.target.to_string(),
        long => format!("{}...{long}", &http.target[..8]),
    };
    let status = http.status.map_or("-".into(), |status| status.to_string());
    let request = format!("{}/{}", call.request.wire, size(call.request.content));
    let response = call.response.map_or("-".into(), |message| format!("{}/{}", message.wire, size(message.content)));
    let end = match call.end {
        End::Lost(why) => format!("lost({why})"),
        end => end.as_str().into(),
    };
    let mut parts = vec![http.method.as_str(), &target, &status, &request, &response, &end];
    parts.extend(call.truncated.then_some("truncated"));
    parts.extend(call.error);
    parts.join(" ")
}
