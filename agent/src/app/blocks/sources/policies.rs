//! Rules of a cluster's policies. Each policy is taken whole or refused whole; then what it asked for before stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{Blocks, Refused, arrival};
use super::replace;
use crate::clock;
use crate::policy::check::{CheckError, check};
use crate::policy::confine::{check_within, id_within};
use crate::policy::rule::{Mode, Rule, Source};
use crate::policy::set::SetError;
use crate::policy::written::WrittenRule;

/// Rules of one policy that were taken, by id.
pub(in crate::app) type Taken = BTreeMap<Arc<str>, WrittenRule>;

/// Why a policy is refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::app) enum PolicyError {
    /// One of its rules, counted from 0.
    #[error("rules[{0}].{1}")]
    Rule(usize, #[source] CheckError),
    /// Two of its rules have an id.
    #[error("rules[{0}].id: {1} is another rule's of this policy")]
    Twice(usize, Arc<str>),
    /// All rules together.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl PolicyError {
    /// One word for a condition.
    pub(in crate::app) fn reason(&self) -> &'static str {
        match self {
            Self::Rule(..) | Self::Twice(..) => "InvalidRule",
            Self::Refused(Refused::Set(_) | Refused::Machine(_)) => "NoRoom",
            Self::Refused(_) => "Refused",
        }
    }
}

/// How a policy's rules stand on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::app) struct Standing {
    /// Rules in force, and of these in enforce mode.
    pub(in crate::app) rules: usize,
    pub(in crate::app) enforced: usize,
    /// The node carries out rules in enforce mode.
    pub(in crate::app) node_enforces: bool,
    /// Rules that name a client's identity: they are about clients on this node.
    pub(in crate::app) both_ends: usize,
    /// Why the circuit breaker put one back.
    pub(in crate::app) tripped: Option<String>,
    /// Calls that they met, and when the last one was, nanoseconds since the Unix epoch.
    pub(in crate::app) hits: u64,
    pub(in crate::app) last_unix_ns: u64,
}

impl Blocks {
    /// Puts a policy's rules in the place of those that it had `before`, all of them or none. A rule that is written as it
    /// was stays as it is, and one whose time is over stays away. `wide`: it may name any server.
    pub(in crate::app) fn take_policy(
        &self,
        (namespace, name): (&str, &str),
        wide: bool,
        rules: &[WrittenRule],
        before: &mut Taken,
        alive: &AtomicBool,
    ) -> Result<(), PolicyError> {
        let mut book = self.book();
        if !alive.load(Ordering::Acquire) {
            return Ok(());
        }
        let source = Source::Cluster(format!("{namespace}/{name}").into());
        let author: Arc<str> = source.to_string().into();
        let (mut wanted, mut add) = (Taken::new(), Vec::new());
        for (n, written) in rules.iter().enumerate() {
            let short = written.id.clone().unwrap_or_else(|| n.to_string());
            let arrival = arrival(source.clone(), Arc::clone(&author), short.as_str().into());
            let checked = if wide {
                check(written, &arrival, &*book.allowed())
            } else {
                check_within(namespace, written, &arrival, &*book.allowed())
            };
            let mut rule = checked.map_err(|error| PolicyError::Rule(n, error))?;
            rule.id = id_within(namespace, name, &short);
            book.ends.settle(&mut rule, written);
            let over = rule.is_over(clock::monotonic_ns());
            if wanted.contains_key(&rule.id) {
                return Err(PolicyError::Twice(n, short.into()));
            }
            if book.set().get(&rule.id).is_some_and(|other| other.source != source) {
                return Err(PolicyError::Refused(SetError::Exists(rule.id).into()));
            }
            // The circuit breaker's doing holds until a reload, or until the rule is written anew.
            let held = book.tripped.contains_key(&rule.id);
            let back = !held && book.set().get(&rule.id).is_some_and(|old| old.mode != rule.mode);
            let id = Arc::clone(&rule.id);
            if !over && (back || before.get(&id) != Some(written)) {
                add.push(rule);
            }
            wanted.insert(id, written.clone());
        }
        let anew: BTreeSet<Arc<str>> = add.iter().map(|rule| Arc::clone(&rule.id)).collect();
        let gone = before.keys().chain(&anew).filter(|id| anew.contains(*id) || !wanted.contains_key(*id));
        let gone: BTreeSet<&Arc<str>> = gone.collect();
        let gone: Vec<Arc<Rule>> = gone.into_iter().filter_map(|id| book.set().get(id).cloned()).collect();
        if !(gone.is_empty() && add.is_empty()) {
            replace(&mut book, &author, &gone, add)?;
            for id in &anew {
                book.tripped.remove(id);
            }
            self.note(&book);
        }
        book.ends.only(&source, wanted.keys().map(|id| &**id));
        book.ends.save();
        *before = wanted;
        Ok(())
    }

    /// How rules stand, by their ids.
    pub(in crate::app) fn standing<'a>(&self, ids: impl Iterator<Item = &'a Arc<str>>) -> Standing {
        let book = self.book();
        let (set, tally) = (book.set(), book.tally());
        let mut out = Standing { node_enforces: book.enforces(), ..Standing::default() };
        for id in ids {
            let Some(rule) = set.get(id) else { continue };
            out.rules += 1;
            out.enforced += usize::from(rule.mode == Mode::Enforce);
            out.both_ends += usize::from(!rule.client_who.is_empty());
            out.tripped = out.tripped.or_else(|| book.tripped.get(id).cloned());
            if let Some(hits) = tally.hits.get(id) {
                out.hits += hits.calls;
                out.last_unix_ns = out.last_unix_ns.max(hits.last_unix_ns);
            }
        }
        out
    }
}
