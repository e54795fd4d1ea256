//! What a configuration asks for, and the allow-list that follows from it and from the node.

use std::sync::{Arc, PoisonError};

use serde_json::json;

use super::allow::Allowed;
use super::breaker::Threshold;
use super::failures::Rise;
use super::sources::replace;
use super::{Blocks, Book, LATE, Refused, SOON, arrival};
use crate::clock;
use crate::config::Settings;
use crate::identity::kube::State;
use crate::policy::check::check;
use crate::policy::rule::{Mode, Rule, Source};

impl Blocks {
    /// Takes over a configuration's rules, mode and circuit breaker in the name of `who`, all of it or nothing.
    pub(in crate::app) fn configure(&self, who: &str, settings: &Settings) -> Result<(), Refused> {
        let fresh = Allowed::gather(settings, &self.names, SOON);
        // What it takes to enforce is made ready before anybody has to wait for it.
        let ready = self.ready(Mode::from(settings.mode));
        let mut book = self.book();
        let mut rules = Vec::with_capacity(settings.rules.len());
        for (n, written) in settings.rules.iter().enumerate() {
            let arrival = arrival(Source::Config, "config".into(), format!("config-{n}").into());
            let mut rule = check(written, &arrival, &fresh).map_err(|error| Refused::Config(n, error))?;
            book.ends.settle(&mut rule, written);
            rules.push(rule);
        }
        let ids: Vec<Arc<str>> = rules.iter().map(|rule| Arc::clone(&rule.id)).collect();
        rules.retain(|rule| !rule.is_over(clock::monotonic_ns()));
        let old: Vec<Arc<Rule>> = book.set().rules().filter(|rule| rule.source == Source::Config).cloned().collect();
        let new: Vec<Arc<Rule>> = rules.iter().cloned().map(Arc::new).collect();
        let changed = !(old.is_empty() && rules.is_empty());
        if changed {
            replace(&mut book, who, &old, rules)?;
        }
        // A reload that does not change the configured mode leaves what was set by hand.
        let mode = Mode::from(settings.mode);
        if book.kernel().is_some()
            && mode != book.configured
            && let Err(refused) = self.turn(&mut book, who, mode, ready)
        {
            if changed {
                replace(&mut book, "weir", &new, old.iter().map(|rule| Rule::clone(rule)).collect())?;
            }
            return Err(refused);
        }
        book.configured = if book.kernel().is_some() { mode } else { book.configured };
        // Nothing of what follows can be refused.
        let before =
            std::mem::replace(&mut *self.settings.lock().unwrap_or_else(PoisonError::into_inner), settings.clone());
        if before.breaker != settings.breaker {
            let told = |settings: &Settings| json!({ "breaker": settings.breaker });
            let written = book.log.write(who, "breaker", None, "thresholds", told(&before), told(settings));
            if let Err(error) = written {
                tracing::warn!(%error, "a change of the circuit breaker is not in the audit log");
            }
        }
        book.ends.only(&Source::Config, ids.iter().map(|id| &**id));
        book.ends.save();
        book.tally().breaker.set(threshold(settings));
        self.failures().set(rise(settings));
        book.tripped.clear();
        book.allowed().warn();
        if self.in_force.renew(fresh) {
            allow(&book);
        }
        self.note(&book);
        Ok(())
    }

    /// Addresses of the cluster's Services and nodes are known from here on.
    pub(in crate::app) fn know(&self, cluster: Arc<State>) {
        let _one = self.book();
        self.in_force.know(cluster);
    }

    /// Gathers the allow-list anew: to be called every now and then, where it may wait for names to be resolved.
    pub(in crate::app) fn look_around(&self) {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = Allowed::gather(&settings, &self.names, LATE);
        let book = self.book();
        if self.in_force.renew(fresh) {
            allow(&book);
        }
    }

    /// A process asks for a change: the ssh client that it works for is not to be met.
    pub(in crate::app) fn admin(&self, pid: Option<u32>) {
        let mut asker = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = pid.and_then(|pid| asker.session(pid, clock::monotonic_ns())) else { return };
        drop(asker);
        let book = self.book();
        if self.in_force.admin(session) {
            allow(&book);
        }
    }
}

/// Tells the kernel half the allow-list, where it asks for it.
fn allow(book: &Book) {
    let kernel = book.kernel().filter(|_| book.enforces());
    if let Some(Err(error)) = kernel.map(|kernel| kernel.allow(&book.allowed())) {
        tracing::error!(%error, "the kernel half has another allow-list than the agent");
    }
}

pub(super) fn threshold(settings: &Settings) -> Threshold {
    Threshold { clients: settings.breaker.clients as usize, share: settings.breaker.share }
}

pub(super) fn rise(settings: &Settings) -> Rise {
    let breaker = settings.breaker;
    Rise { errors: breaker.errors, more: breaker.rise, seconds: breaker.window.0.as_secs() as u32 }
}
