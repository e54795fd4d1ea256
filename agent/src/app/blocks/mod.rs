//! Drop decisions: the rules in force, what they met, who may be met at all, and the record of every change.

mod allow;
mod attempts;
mod book;
mod breaker;
mod crowd;
mod document;
mod ends;
mod failures;
mod gate;
pub(super) mod groups;
mod health;
mod hits;
mod log;
mod radius;
mod refused;
mod said;
mod session;
pub(super) mod sources;
mod verdict;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use weir_common::verdict::GateSlot;

use crate::clock;
use crate::config::{self, Settings};
use crate::identity::kube::State;
use crate::kernel::destroy::Destroyer;
use crate::kernel::load::Half;
use crate::model::{Exchange, Kind, Verdict};
use crate::policy::check::{Arrival, check};
use crate::policy::meet::{Buckets, Seen, judge};
use crate::policy::rule::{Mode, Rule, Source};
use crate::policy::set::{RuleSet, SetError};
use crate::policy::written::WrittenRule;
use crate::recent::Recent;

use allow::Allowed;
use book::Book;
use breaker::{Breaker, Threshold, Tripped};
use crowd::{Crowd, Near};
use document::document;
use failures::{Failures, Rise};
use gate::Kernel;
use log::Log;
pub(super) use refused::Refused;
use sources::replace;

/// How long a rule holds that came by the control socket without a time.
const TTL: &str = "1h";
/// Alarms that may wait to be exported; more are in the log, the audit log and the metric only.
const ALARMS: usize = 256;
/// The gate's counters, as they are told.
const COUNTS: [(&str, GateSlot); 10] = [
    ("connections_saved", GateSlot::ALLOWED),
    ("connections_refused", GateSlot::REFUSED),
    ("requests_ambiguous", GateSlot::AMBIGUOUS),
    ("segments_early", GateSlot::EARLY),
    ("segments_busy", GateSlot::BUSY),
    ("segments_unread", GateSlot::UNREAD),
    ("segments_damaged", GateSlot::DAMAGED),
    ("connections_unjudged", GateSlot::NO_STORAGE),
    ("verdicts_lost", GateSlot::LOST),
    ("limit_keys", GateSlot::KEYS),
];

/// Drop decisions of this node.
pub(super) struct Blocks {
    book: Mutex<Book>,
    /// Some rule is in force.
    any: AtomicBool,
    /// Counts up whenever the identities that rules name may have changed.
    identities: AtomicU64,
    /// Up to which of these the capturing thread told them to the kernel half.
    told: AtomicU64,
    destroyer: Option<Destroyer>,
    /// Who is behind which address.
    crowd: Mutex<Crowd>,
    /// Which services fail.
    failures: Mutex<Failures>,
    /// The configuration, as far as the allow-list follows from it.
    settings: Mutex<Settings>,
}

impl Blocks {
    /// Takes the configuration's rules, all of them or none.
    pub(super) fn new(settings: &Settings) -> Result<Self, Refused> {
        let set = RuleSet::new()?;
        let allowed = Allowed::gather(settings);
        let (buckets, hits, log) = (Buckets::default(), BTreeMap::new(), Log::new(settings.audit.clone()));
        let (kernel, configured) = (None, Mode::Monitor);
        let (breaker, tripped) = (Breaker::new(threshold(settings)), BTreeMap::new());
        let book = Book {
            set,
            buckets,
            hits,
            allowed,
            log,
            made: 0,
            kernel,
            breaker,
            tripped,
            configured,
            beaten: false,
            trips: BTreeMap::new(),
            attempts: attempts::Attempts::default(),
            alarms: Vec::new(),
            refused: None,
            ends: ends::Ends::of(settings.state.as_deref()),
            said: said::Said::default(),
        };
        let destroyer = Destroyer::start();
        if let Err(error) = &destroyer {
            tracing::warn!(%error, "refused connections are not ended; what they send is dropped");
        }
        let blocks = Self {
            book: Mutex::new(book),
            any: false.into(),
            identities: 0.into(),
            told: 0.into(),
            destroyer: destroyer.ok(),
            crowd: Mutex::default(),
            failures: Mutex::new(Failures::new(rise(settings))),
            settings: Mutex::new(settings.clone()),
        };
        blocks.configure("config", settings)?;
        Ok(blocks)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a configuration's rules, mode and circuit breaker in the name of `who`, all of it or nothing.
    pub(super) fn configure(&self, who: &str, settings: &Settings) -> Result<(), Refused> {
        let fresh = Allowed::gather(settings);
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
        let old: Vec<Arc<Rule>> = book.set.rules().filter(|rule| rule.source == Source::Config).cloned().collect();
        let new: Vec<Arc<Rule>> = rules.iter().cloned().map(Arc::new).collect();
        let changed = !(old.is_empty() && rules.is_empty());
        if changed {
            replace(&mut book, who, &old, rules)?;
        }
        // A reload that does not change the configured mode leaves what was set by hand.
        let mode = Mode::from(settings.mode);
        if book.kernel.is_some()
            && mode != book.configured
            && let Err(refused) = self.turn(&mut book, who, mode)
        {
            if changed {
                replace(&mut book, "weir", &new, old.iter().map(|rule| Rule::clone(rule)).collect())?;
            }
            return Err(refused);
        }
        book.configured = if book.kernel.is_some() { mode } else { book.configured };
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
        book.breaker.set(threshold(settings));
        self.failures().set(rise(settings));
        book.tripped.clear();
        book.allowed.warn();
        if book.allowed.renew(fresh) {
            allow(&book);
        }
        self.note(&book);
        Ok(())
    }

    /// Addresses of the cluster's Services and nodes are known from here on.
    pub(super) fn know(&self, cluster: Arc<State>) {
        self.book().allowed.know(cluster);
    }

    /// Gathers the allow-list anew: to be called every now and then, where it may wait for names to be resolved.
    pub(super) fn look_around(&self) {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = Allowed::gather(&settings);
        let mut book = self.book();
        if book.allowed.renew(fresh) {
            allow(&book);
        }
    }

    /// A process asks for a change: the ssh client that it works for is not to be met.
    pub(super) fn admin(&self, pid: Option<u32>) {
        let mut book = self.book();
        if pid.is_some_and(|pid| book.allowed.admin(pid)) {
            allow(&book);
        }
    }

    /// Takes the kernel half, and enforces where the configuration asks for it. A gate that is refused is said: the
    /// agent watches on.
    pub(super) fn take(&self, half: Arc<Mutex<Half>>, mode: config::Mode) {
        let mode = Mode::from(mode);
        let mut book = self.book();
        book.configured = mode;
        book.kernel = Some(Kernel(half));
        if let Err(error) = self.turn(&mut book, "config", mode) {
            tracing::error!(%error, "enforce.mode: the node stays in monitor mode, nothing is dropped");
        }
        self.note(&book);
    }

    /// The agent lives: to be called once a second at least. Rules whose time is over end.
    pub(super) fn beat(&self) {
        let mut book = self.book();
        self.expire(&mut book);
        let Some(kernel) = book.kernel.clone().filter(|_| book.enforces()) else { return };
        self.trip(&mut book);
        let result = kernel.beat();
        if let (Err(error), false) = (&result, book.beaten) {
            tracing::error!(%error, "the kernel half will take the agent for dead: only rules with an end are enforced");
        }
        book.beaten = result.is_err();
    }

    fn note(&self, book: &Book) {
        self.any.store(book.set.rules().len() > 0, Ordering::Release);
        self.identities.fetch_add(1, Ordering::AcqRel);
    }

    /// A call ended, whatever became of it. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn saw(&self, exchange: &Exchange, now: u64) {
        self.crowd().came(exchange, now);
        self.failures().came(exchange, now);
    }

    /// Rules that the circuit breaker put back to monitor mode and that were not told of yet: rule and reason.
    pub(super) fn alarms(&self) -> Vec<(Arc<str>, String)> {
        std::mem::take(&mut self.book().alarms)
    }

    /// How often the circuit breaker tripped, by reason.
    pub(super) fn trips(&self) -> Vec<(&'static str, u64)> {
        self.book().trips.iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    /// What the rules say of a call.
    pub(super) fn judge(&self, exchange: &Exchange) -> Option<Verdict> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let seen = Seen::of(exchange);
        let mut book = self.book();
        let book = &mut *book;
        let (enforces, now) = (book.enforces(), clock::monotonic_ns());
        if enforces && seen.kind == Kind::Server {
            book.breaker.came(seen.server.port(), seen.client);
        }
        let judged = judge(&book.set, &seen, &mut book.buckets, now, enforces);
        if enforces && book.allowed.holds(seen.remote()) {
            // The kernel half let it pass for this; here it is counted, by call.
            let carried = judge(&book.set, &seen, &mut book.buckets, now, false).refused;
            if let Some(rule) = carried.filter(|rule| rule.mode == Mode::Enforce) {
                book.allowed.saves(seen.remote(), rule.force);
            }
        }
        for rule in judged.watched {
            book.hits.entry(Arc::clone(&rule.id)).or_default().add(seen.client, exchange.start_unix_ns);
        }
        let rule = judged.refused?;
        if book.allowed.saves(seen.remote(), rule.force) {
            return None;
        }
        book.hits.entry(Arc::clone(&rule.id)).or_default().add(seen.client, exchange.start_unix_ns);
        Some(Verdict::WouldDrop { rule: Arc::clone(&rule.id), reason: Arc::clone(&rule.reason) })
    }

    /// Adds a rule in the name of `who`.
    pub(super) fn add(&self, who: &str, written: Value) -> Result<Value, Refused> {
        let mut book = self.book();
        let rule = match checked(&mut book, &self.crowd(), who, written) {
            Ok(rule) => rule,
            Err(refused) => {
                // Nothing changes, so that why it was refused matters more than whether that could be recorded.
                if let Err(error) = book.log.write(who, "refuse", None, &refused.to_string(), Value::Null, Value::Null)
                {
                    tracing::warn!(%error, "a refusal is not in the audit log");
                }
                return Err(refused);
            }
        };
        if book.set.get(&rule.id).is_some() {
            return Err(SetError::Exists(rule.id).into());
        }
        let (id, told, why) = (Arc::clone(&rule.id), document(&rule), rule.reason.to_string());
        book.change(&[], vec![rule])?;
        if let Err(error) = book.log.write(who, "add", Some(&id), &why, Value::Null, told.clone()) {
            // What can't be recorded does not happen.
            book.change(&[id], Vec::new())?;
            return Err(error.into());
        }
        self.note(&book);
        Ok(told)
    }

    /// What a rule would have met of the last hour's kept calls. Nothing is changed.
    pub(super) fn rehearse(&self, who: &str, written: Value, recent: &Recent) -> Result<Value, Refused> {
        let rule = checked(&mut self.book(), &self.crowd(), who, written)?;
        let mut told = radius::of(&rule, recent);
        told["rule"] = document(&rule);
        Ok(told)
    }

    /// A rule, what it would have met of the last hour's kept calls, and which rules win over it.
    pub(super) fn explain(&self, id: &str, recent: &Recent) -> Result<Value, Refused> {
        let (rule, above) = {
            let book = self.book();
            let rule = Arc::clone(book.set.get(id).ok_or_else(|| SetError::Unknown(id.into()))?);
            let mut above: Vec<_> = book.set.rules().filter(|other| other.rank() > rule.rank()).cloned().collect();
            above.sort_by_key(|other| std::cmp::Reverse(other.rank()));
            (rule, above)
        };
        let mut told = radius::of(&rule, recent);
        told["won_by"] = radius::winners(&rule, &above, recent);
        told["rule"] = document(&rule);
        Ok(told)
    }

    /// Removes a rule in the name of `who`.
    pub(super) fn remove(&self, who: &str, id: &str) -> Result<Value, Refused> {
        let mut book = self.book();
        let rule = Arc::clone(book.set.get(id).ok_or_else(|| SetError::Unknown(id.into()))?);
        match &rule.source {
            Source::Config => return Err(Refused::Configured(id.to_owned())),
            Source::File(_) | Source::Feed(_) | Source::Cluster(_) => {
                return Err(Refused::Elsewhere(id.to_owned(), rule.source.clone()));
            }
            Source::Control | Source::Detector(_) => {}
        }
        let told = document(&rule);
        book.log.write(who, "remove", Some(id), "", told.clone(), Value::Null)?;
        book.change(&[Arc::clone(&rule.id)], Vec::new())?;
        book.hits.remove(id);
        book.tripped.remove(id);
        self.note(&book);
        Ok(told)
    }

    /// Puts rules that refuse most clients of a service back to monitor mode.
    fn trip(&self, book: &mut Book) {
        let now = clock::monotonic_ns();
        let mut tripped = book.breaker.look(now);
        tripped.extend(self.failures().look(now));
        for Tripped { rule, why, reason } in tripped {
            let Some(before) = book.set.get(&rule).cloned().filter(|rule| rule.mode == Mode::Enforce) else { continue };
            let after = Rule { mode: Mode::Monitor, ..Rule::clone(&before) };
            let told = document(&after);
            if let Err(error) = book.change(&[Arc::clone(&rule)], vec![after]) {
                tracing::error!(%error, %rule, why, "a rule that refuses too many can't be put back to monitor mode");
                continue;
            }
            tracing::warn!(%rule, why, "circuit breaker: the rule is in monitor mode now");
            if let Err(error) = book.log.write("weir", "breaker", Some(&rule), &why, document(&before), told) {
                tracing::warn!(%error, %rule, "what the circuit breaker did is not in the audit log");
            }
            *book.trips.entry(reason).or_default() += 1;
            if book.alarms.len() < ALARMS {
                book.alarms.push((Arc::clone(&rule), why.clone()));
            }
            book.tripped.insert(rule, why);
            self.note(book);
        }
    }

    /// Every rule with what it met.
    pub(super) fn list(&self) -> Vec<Value> {
        let mut book = self.book();
        self.expire(&mut book);
        let attempts = book.kernel.as_ref().map(|kernel| book.attempts.all(&book.set, kernel)).unwrap_or_default();
        let rows = book.set.rules().map(|rule| {
            let mut told = document(rule);
            told["effective_mode"] = effective(book.set.mode(), rule).into();
            told["hits"] = 0.into();
            if let Some(why) = book.tripped.get(&rule.id) {
                told["tripped"] = why.clone().into();
            }
            if let Some(hits) = book.hits.get(&rule.id) {
                hits.tell(&mut told);
            }
            if let Some(of) = attempts.get(&rule.id) {
                told["attempts"] = of.count.into();
                if of.rules > 1 {
                    told["attempts_of_rules"] = of.rules.into();
                }
            }
            told
        });
        rows.collect()
    }

    /// Removes rules whose time is over.
    fn expire(&self, book: &mut Book) {
        let over = book.set.expired(clock::monotonic_ns());
        if over.is_empty() {
            return;
        }
        for id in over {
            let told = book.set.get(&id).map_or(Value::Null, |rule| document(rule));
            if let Err(error) = book.log.write("weir", "expire", Some(&id), "its time is over", told, Value::Null) {
                tracing::warn!(%error, rule = %id, "a rule's end is not in the audit log");
            }
            if let Err(error) = book.change(std::slice::from_ref(&id), Vec::new()) {
                tracing::warn!(%error, rule = %id, "a rule whose time is over stays listed; it meets nothing");
            }
            book.hits.remove(&id);
        }
        self.note(book);
    }

    /// The node's mode, and calls that the allow-list saved.
    pub(super) fn mode(&self) -> Value {
        let book = self.book();
        let kernel = book.kernel.as_ref();
        let allowed = match kernel {
            Some(kernel) => kernel.look(|gate| book.allowed.rows(|prefix| gate.saved(prefix.bytes, prefix.len))),
            None => book.allowed.rows(|_| 0),
        };
        let mut told = json!({
            "mode": book.set.mode().as_str(), "rules": book.set.rules().len(), "allow_list": allowed,
        });
        if let Some(kernel) = kernel {
            let counts =
                kernel.look(|gate| COUNTS.map(|(name, slot)| (name.to_owned(), Value::from(gate.count(slot)))));
            told["gate"] = Value::Object(counts.into_iter().collect());
        }
        told
    }

    /// Sets the node's mode in the name of `who`.
    pub(super) fn set_mode(&self, who: &str, word: &str) -> Result<Value, Refused> {
        let mode = match word {
            "monitor" => Mode::Monitor,
            "enforce" => Mode::Enforce,
            other => return Err(Refused::Mode(other.chars().take(40).collect())),
        };
        {
            let mut book = self.book();
            self.turn(&mut book, who, mode)?;
            self.note(&book);
        }
        Ok(self.mode())
    }

    /// Sets the mode and records it, or does neither.
    fn turn(&self, book: &mut Book, who: &str, mode: Mode) -> Result<(), Refused> {
        let before = book.set.mode();
        if mode == before {
            return Ok(());
        }
        if let Err(error) = book.log.write(who, "mode", None, "", before.as_str().into(), mode.as_str().into()) {
            // The way out is open also where the disk is full: it is said where it can be.
            if mode == Mode::Enforce {
                return Err(error.into());
            }
            tracing::warn!(%error, who, "the node goes back to monitor mode all the same");
        }
        if let Err(refused) = book.set_mode(mode) {
            let now = book.set.mode().as_str();
            book.log.write("weir", "mode", None, &refused.to_string(), mode.as_str().into(), now.into())?;
            return Err(refused);
        }
        self.note(book);
        Ok(())
    }

    /// Rule, mode, and calls met and attempts to connect that were refused unanswered, for `weir_blocked_total`.
    pub(super) fn counts(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let book = self.book();
        let mut counts: BTreeMap<&Arc<str>, u64> = book.hits.iter().map(|(id, hits)| (id, hits.calls)).collect();
        let attempts = book.kernel.as_ref().map(|kernel| book.attempts.all(&book.set, kernel)).unwrap_or_default();
        for (id, of) in attempts.iter().filter(|(_, of)| of.first) {
            *counts.entry(id).or_default() += of.count;
        }
        let told = counts.into_iter().filter_map(|(id, count)| {
            let rule = book.set.get(id)?;
            Some((Arc::clone(id), effective(book.set.mode(), rule), count))
        });
        told.collect()
    }
}

impl From<config::Mode> for Mode {
    fn from(mode: config::Mode) -> Self {
        match mode {
            config::Mode::Monitor => Self::Monitor,
            config::Mode::Enforce => Self::Enforce,
        }
    }
}

/// Tells the kernel half the allow-list, where it asks for it.
fn allow(book: &Book) {
    if let Some(Err(error)) = book.kernel.as_ref().filter(|_| book.enforces()).map(|kernel| kernel.allow(&book.allowed))
    {
        tracing::error!(%error, "the kernel half has another allow-list than the agent");
    }
}

fn threshold(settings: &Settings) -> Threshold {
    Threshold { clients: settings.breaker.clients as usize, share: settings.breaker.share }
}

fn rise(settings: &Settings) -> Rise {
    let breaker = settings.breaker;
    Rise { errors: breaker.errors, more: breaker.rise, seconds: breaker.window.0.as_secs() as u32 }
}

fn effective(node: Mode, rule: &Rule) -> &'static str {
    if node == Mode::Enforce { rule.mode.as_str() } else { Mode::Monitor.as_str() }
}

fn arrival(source: Source, author: Arc<str>, id: Arc<str>) -> Arrival {
    Arrival { source, author, monotonic_ns: clock::monotonic_ns(), unix_ns: clock::unix_ns(), id }
}

/// A rule that came by the control socket.
fn checked(book: &mut Book, crowd: &Crowd, who: &str, written: Value) -> Result<Rule, Refused> {
    let mut written: WrittenRule = serde_json::from_value(written)?;
    // Who it is, says the kernel.
    written.author = None;
    match written.ttl.as_deref() {
        None => written.ttl = Some(TTL.to_owned()),
        Some("never") => written.ttl = None,
        Some(_) => {}
    }
    book.made += 1;
    let id = format!("b{:x}-{}", clock::unix_ns() / 1_000_000_000, book.made);
    let near = Near { allowed: &book.allowed, crowd };
    Ok(check(&written, &arrival(Source::Control, who.into(), id.into()), &near)?)
}
