//! Joins verdicts of the kernel half with the calls that they met.

use std::collections::HashMap;
use std::sync::Arc;

use weir_common::verdict::{VERDICT_CONNECTION, Verdict as Told};

use crate::flow::Output;
use crate::model::{Exchange, Verdict};

/// Connections whose verdicts are kept; each goes with its connection. More than a node refuses at once: what does not
/// fit is counted by its rule, and its call is told as `allowed` that was reset.
const CONNECTIONS: usize = 16_384;
/// Verdicts kept of one connection. It ends with the first, but for rules that end in silence.
const EACH: usize = 16;

/// Verdicts whose calls have not ended yet.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<u64, Vec<(u32, bool, Verdict)>>);

impl Refusals {
    /// Keeps what was refused of a connection.
    pub(super) fn add(&mut self, told: &Told, verdict: Verdict) {
        if self.0.len() >= CONNECTIONS && !self.0.contains_key(&told.head.conn) {
            return;
        }
        let kept = self.0.entry(told.head.conn).or_default();
        if kept.len() < EACH {
            kept.push((told.request, told.flags & VERDICT_CONNECTION != 0, verdict));
        }
    }

    /// A connection ended, and so did its calls: they are marked and its verdicts forgotten.
    pub(super) fn end(&mut self, connection: u64, out: &mut Output) {
        if self.0.is_empty() || !self.0.contains_key(&connection) {
            return;
        }
        for exchange in out.calls.iter_mut().filter(|call| call.connection.cookie == connection) {
            self.mark(Arc::make_mut(exchange));
        }
        self.0.remove(&connection);
    }

    /// A call ended: it is told what met it. A refused connection's verdict is that of the call that was under way.
    pub(super) fn mark(&self, exchange: &mut Exchange) {
        if self.0.is_empty() || exchange.verdict != Verdict::Allowed {
            return;
        }
        let Some(kept) = self.0.get(&exchange.connection.cookie) else { return };
        let first = exchange.call.request.first.seq;
        let under_way = exchange.call.response.is_none();
        let met = kept.iter().find(|(seq, whole, _)| {
            if *whole { under_way && seq.wrapping_sub(first).cast_signed() >= 0 } else { *seq == first }
        });
        if let Some((_, _, verdict)) = met {
            exchange.verdict = verdict.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::verdict::VERDICT_DROPPED;

    use super::*;
    use crate::model::{Kind, sample};

    fn told(request: u32, flags: u8) -> Told {
        // SAFETY: integers only: zeros are a valid value.
        let mut told: Told = unsafe { std::mem::zeroed() };
        told.head.conn = sample::exchange(Kind::Server).connection.cookie;
        told.request = request;
        told.flags = flags | VERDICT_DROPPED;
        told
    }

    fn dropped() -> Verdict {
        Verdict::Dropped { rule: "r".into(), reason: "why".into() }
    }

    #[test]
    fn the_refused_request_is_marked_and_no_other() {
        let mut refusals = Refusals::default();
        refusals.add(&told(500, 0), dropped());
        let mut exchange = sample::exchange(Kind::Server);
        exchange.call.request.first.seq = 400;
        refusals.mark(&mut exchange);
        assert_eq!(exchange.verdict, Verdict::Allowed);
        exchange.call.request.first.seq = 500;
        refusals.mark(&mut exchange);
        assert_eq!(exchange.verdict, dropped());
    }

    #[test]
    fn a_refused_connection_marks_the_call_under_way() {
        let mut refusals = Refusals::default();
        refusals.add(&told(500, VERDICT_CONNECTION), dropped());
        let mut answered = sample::exchange(Kind::Server);
        answered.call.request.first.seq = 400;
        assert!(answered.call.response.is_some());
        refusals.mark(&mut answered);
        assert_eq!(answered.verdict, Verdict::Allowed);
        let mut running = answered.clone();
        running.call.response = None;
        refusals.mark(&mut running);
        assert_eq!(running.verdict, dropped());
    }
}
