//! What the rules say of a call that the kernel half let pass.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Blocks;
use crate::clock;
use crate::model::{Exchange, Kind, Verdict};
use crate::policy::meet::{Seen, judge};
use crate::policy::rule::Mode;

impl Blocks {
    /// A call ended, whatever became of it. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub(in crate::app) fn saw(&self, exchange: &Exchange, now: u64) {
        self.crowd().came(exchange, now);
        self.failures().came(exchange, now);
    }

    /// What the rules say of a call.
    pub(in crate::app) fn judge(&self, exchange: &Exchange) -> Option<Verdict> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let seen = Seen::of(exchange);
        let (enforces, now) = (self.in_force.enforces(), clock::monotonic_ns());
        let (set, allowed) = (self.in_force.set(), self.in_force.allowed());
        let mut held = self.in_force.tally();
        let tally = &mut *held;
        if enforces && seen.kind == Kind::Server {
            tally.breaker.came(seen.server.port(), seen.client);
        }
        let judged = judge(&set, &seen, &mut tally.buckets, now, enforces);
        if enforces && allowed.holds(seen.remote()) {
            // The kernel half let it pass for this; here it is counted, by call.
            let carried = judge(&set, &seen, &mut tally.buckets, now, false).refused;
            if let Some(rule) = carried.filter(|rule| rule.mode == Mode::Enforce) {
                allowed.saves(seen.remote(), rule.force);
            }
        }
        for rule in judged.watched {
            tally.hits.entry(Arc::clone(&rule.id)).or_default().add(seen.client, exchange.start_unix_ns);
        }
        let rule = judged.refused?;
        if allowed.saves(seen.remote(), rule.force) {
            return None;
        }
        tally.hits.entry(Arc::clone(&rule.id)).or_default().add(seen.client, exchange.start_unix_ns);
        Some(Verdict::WouldDrop { rule: Arc::clone(&rule.id), reason: Arc::clone(&rule.reason) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::config;
    use crate::model::sample;

    #[test]
    fn calls_are_judged_while_rules_change() {
        let sources = config::Sources { sets: vec!["enforce.audit=".to_owned()], ..config::Sources::default() };
        let blocks = Arc::new(Blocks::new(&sources.load().unwrap().settings).unwrap());
        blocks.add("test", serde_json::json!({ "path": "/", "force": true })).unwrap();
        // Whoever changes rules holds this for as long as it takes.
        let book = blocks.book();
        let (judged, told) = channel();
        let judging = Arc::clone(&blocks);
        std::thread::spawn(move || {
            let call = sample::exchange(Kind::Server);
            judging.saw(&call, 0);
            judged.send((judging.judge(&call).is_some(), judging.alarms().len())).unwrap();
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok((true, 0)));
        drop(book);
    }
}
