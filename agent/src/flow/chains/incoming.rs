//! Requests that processes have taken and may pass on the ids of.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use super::memory::Memory;
use super::{AFTERWARDS, DOUBT, PATIENCE, Span, Trace};
use crate::model::{Call, TraceContext};
use crate::proto::Begun;

/// Requests that are remembered. For a new one the one that ended first is forgotten.
const MOST: usize = 32_768;
/// Ids that are known to have come from outside, so that nobody takes them for the application's own.
const SEEN: usize = 65_536;
/// For how long, nanoseconds.
const SEEN_FOR: u64 = 600_000_000_000;

/// What a request carries, as one number: a hash under a key of this process.
pub(super) fn key(context: Option<TraceContext>, request_id: Option<u64>) -> Option<u64> {
    static KEY: std::sync::LazyLock<std::hash::RandomState> = std::sync::LazyLock::new(std::hash::RandomState::new);
    context.map(|context| KEY.hash_one((context.trace, context.span))).or(request_id)
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// One request; its trace id, once it is final.
    One(Span, Option<Trace>),
    Several,
    /// Requests that were answered too long before.
    Ended,
    /// Something was lost: there may be others.
    Doubt,
}

#[derive(Debug)]
struct Request {
    tgid: u32,
    key: u64,
    at: u64,
    /// When it was answered; 0: it is under way.
    ended: u64,
    trace: Option<Trace>,
}

/// Requests under way, and those that ended a short while ago.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    requests: HashMap<Span, Request, RandomState>,
    carriers: HashMap<(u32, u64), Vec<Span>, RandomState>,
    ended: VecDeque<(u64, Span)>,
    /// Until when carried ids prove nothing, by process.
    doubt: HashMap<u32, u64, RandomState>,
    /// When the last one ended of those that are forgotten: who called before may miss it.
    horizon: Option<u64>,
    seen: Memory<(u32, u64), (), SEEN>,
}

impl Incoming {
    /// A process took a request.
    pub(super) fn begun(&mut self, span: Span, tgid: u32, begun: &Begun) {
        let Some(key) = key(begun.context, begun.request_id) else { return };
        if self.requests.len() >= MOST && !self.forget_first() {
            self.doubt(tgid, begun.first.at);
            return;
        }
        let trace = begun.context.map(|context| context.trace);
        let request = Request { tgid, key, at: begun.first.at, ended: 0, trace };
        if self.requests.insert(span, request).is_none() {
            self.carriers.entry((tgid, key)).or_default().push(span);
        }
    }

    /// It was answered, or ended without an answer.
    pub(super) fn ended(&mut self, span: Span, at: u64) {
        if let Some(request) = self.requests.get_mut(&span)
            && request.ended == 0
        {
            request.ended = at.max(1);
            self.ended.push_back((at, span));
        }
    }

    /// Its trace id is final.
    pub(super) fn settle(&mut self, span: Span, trace: Trace) {
        if let Some(request) = self.requests.get_mut(&span) {
            request.trace = Some(trace);
        }
    }

    /// This process may have requests under way of which nothing is known.
    pub(super) fn doubt(&mut self, tgid: u32, now: u64) {
        self.doubt.insert(tgid, now.saturating_add(DOUBT));
    }

    /// The request of this process that a call passes the ids of.
    pub(super) fn find(&self, tgid: u32, key: u64, call: &Call) -> Found {
        let Some(spans) = self.carriers.get(&(tgid, key)) else {
            return if self.seen.get(&(tgid, key)).is_some() { Found::Ended } else { Found::Nothing };
        };
        let sent = call.request.first.at;
        let doubt = self.doubt.get(&tgid).copied().unwrap_or(0);
        let missed = self.horizon.is_some_and(|horizon| sent <= horizon.saturating_add(AFTERWARDS));
        if sent < doubt || missed {
            return Found::Doubt;
        }
        let mut found = Found::Ended;
        for span in spans {
            let Some(request) = self.requests.get(span) else { continue };
            if request.at > sent || (request.ended != 0 && request.ended.saturating_add(AFTERWARDS) < sent) {
                continue;
            }
            if found != Found::Ended {
                return Found::Several;
            }
            found = Found::One(*span, request.trace);
        }
        found
    }

    /// Forgets what ended so long ago that no call asks for it any more.
    pub(super) fn forget(&mut self, now: u64) {
        if !self.doubt.is_empty() {
            self.doubt.retain(|_, until| *until > now.saturating_sub(2 * PATIENCE));
        }
        let before = now.saturating_sub(AFTERWARDS + PATIENCE);
        while self.ended.front().is_some_and(|(at, _)| *at < before) {
            self.forget_first();
        }
        self.seen.forget(now.saturating_sub(SEEN_FOR));
    }

    /// Forgets the one that ended first; false: none has ended.
    fn forget_first(&mut self) -> bool {
        let Some((at, span)) = self.ended.pop_front() else { return false };
        self.horizon = self.horizon.max(Some(at));
        if let Some(Request { tgid, key, .. }) = self.requests.remove(&span) {
            if let Some(spans) = self.carriers.get_mut(&(tgid, key)) {
                spans.retain(|other| *other != span);
                if spans.is_empty() {
                    self.carriers.remove(&(tgid, key));
                }
            }
            self.seen.insert((tgid, key), (), at);
        }
        true
    }
}
