//! Requests that processes have taken and may pass on the ids of.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use super::{AFTERWARDS, DOUBT, PATIENCE, Span, Trace};
use crate::model::{Call, TraceContext};
use crate::proto::Begun;

/// Requests that are remembered. One that does not fit makes all carried ids doubtful for a while.
const MOST: usize = 16_384;

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
}

impl Incoming {
    /// A process took a request.
    pub(super) fn begun(&mut self, span: Span, tgid: u32, begun: &Begun) {
        let Some(key) = key(begun.context, begun.request_id) else { return };
        if self.requests.len() >= MOST {
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
    pub(super) fn ended(&mut self, span: &Span, at: u64) {
        if let Some(request) = self.requests.get_mut(span)
            && request.ended == 0
        {
            request.ended = at.max(1);
            self.ended.push_back((at, *span));
        }
    }

    /// Its trace id is final.
    pub(super) fn settle(&mut self, span: &Span, trace: Trace) {
        if let Some(request) = self.requests.get_mut(span) {
            request.trace = Some(trace);
        }
    }

    /// This process may have requests under way of which nothing is known.
    pub(super) fn doubt(&mut self, tgid: u32, now: u64) {
        self.doubt.insert(tgid, now.saturating_add(DOUBT));
    }

    /// The request of this process that a call passes the ids of.
    pub(super) fn find(&self, tgid: u32, key: u64, call: &Call) -> Found {
        let Some(spans) = self.carriers.get(&(tgid, key)) else { return Found::Nothing };
        let sent = call.request.first.at;
        let last = call.response.map_or(call.request.last_at, |response| response.last_at);
        let doubt = self.doubt.get(&tgid).copied().unwrap_or(0);
        if sent < doubt || last.saturating_sub(sent) > PATIENCE {
            return Found::Doubt;
        }
        let mut found = Found::Nothing;
        for span in spans {
            let Some(request) = self.requests.get(span) else { continue };
            if request.at > sent || (request.ended != 0 && request.ended.saturating_add(AFTERWARDS) < sent) {
                continue;
            }
            if found != Found::Nothing {
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
        let before = now.saturating_sub(AFTERWARDS + 2 * PATIENCE);
        while let Some((at, span)) = self.ended.front().copied() {
            if at >= before {
                break;
            }
            self.ended.pop_front();
            let Some(request) = self.requests.remove(&span) else { continue };
            let place = (request.tgid, request.key);
            if let Some(spans) = self.carriers.get_mut(&place) {
                spans.retain(|other| *other != span);
                if spans.is_empty() {
                    self.carriers.remove(&place);
                }
            }
        }
    }
}
