//! Rules that come by themselves: from files of a folder, from feeds, from policies of a cluster, from detectors.

mod policies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Blocks, Book, Refused, TTL, arrival, document};
use crate::clock;
use crate::config::{Feed, Problem, Problems, RulesFile};
use crate::identity::kube::State;
use crate::policy::check::{check, check_list};
use crate::policy::prefix::Prefix;
use crate::policy::rule::{Mode, Rule, Source};
use crate::policy::set::SetError;
use crate::policy::written::WrittenRule;

pub(in crate::app) use policies::{Standing, Taken};

/// Rules that a detector may have at once.
const DETECTED: usize = 1024;

/// Rules of the folder that were taken, by id: file and rule as written.
pub(in crate::app) type Files = BTreeMap<Arc<str>, (Arc<str>, WrittenRule)>;

/// Whom of the allow-list a prefix would hit.
pub(in crate::app) struct Saves(Vec<(Prefix, &'static str)>, Option<Arc<State>>);

impl Saves {
    /// What it is, where it would hit one.
    pub(in crate::app) fn of(&self, prefix: &Prefix) -> Option<Box<str>> {
        let hit = |entry: &Prefix| entry.covers(prefix) || prefix.covers(entry);
        let own = self.0.iter().find(|(entry, _)| hit(entry)).map(|(_, what)| (*what).into());
        own.or_else(|| self.1.as_ref()?.shared(prefix.single()?))
    }
}

impl Blocks {
    /// The allow-list, as far as a list of addresses has to respect it.
    pub(in crate::app) fn saves(&self, force: bool) -> Saves {
        let allowed = self.in_force.allowed();
        let told = allowed.told().filter(|(_, soft, _)| !(force && *soft));
        Saves(told.map(|(prefix, _, what)| (prefix, what)).collect(), allowed.cluster().filter(|_| !force))
    }

    /// Puts the rules of these files in the place of those that came from files before, all of them or none. A rule that
    /// is written as it was stays as it is, and one whose time is over stays away. Gives the rules in force.
    pub(in crate::app) fn take_files(
        &self,
        files: &[RulesFile],
        before: &mut Files,
        alive: &AtomicBool,
    ) -> Result<usize, Refused> {
        let mut book = self.book();
        if !alive.load(Ordering::Acquire) {
            return Ok(0);
        }
        let (mut wanted, mut add, mut problems) = (Files::new(), Vec::new(), Vec::new());
        for file in files {
            let path: Arc<str> = file.path.display().to_string().into();
            for (n, written) in file.rules.iter().enumerate() {
                let source = Source::File(Arc::clone(&path));
                let author = format!("file {path}").into();
                let mut rule = match check(written, &arrival(source, author, made(file, n)), &*book.allowed()) {
                    Ok(rule) => rule,
                    Err(error) => {
                        problems.push(file.problem(n, error.key(), &error.to_string()));
                        continue;
                    }
                };
                let taken = book.set().get(&rule.id).is_some_and(|other| !matches!(other.source, Source::File(_)));
                if taken || wanted.contains_key(&rule.id) {
                    let text = SetError::Exists(Arc::clone(&rule.id)).to_string();
                    problems.push(file.problem(n, Some("id"), &text));
                    continue;
                }
                book.ends.settle(&mut rule, written);
                let over = rule.is_over(clock::monotonic_ns());
                let kept = (Arc::clone(&path), written.clone());
                // The circuit breaker's doing holds until a reload, or until the rule is written anew.
                let held = book.tripped.contains_key(&rule.id);
                let back = !held && book.set().get(&rule.id).is_some_and(|old| old.mode != rule.mode);
                if !over && (back || before.get(&rule.id) != Some(&kept)) {
                    add.push((file, n, rule.clone()));
                }
                wanted.insert(rule.id, kept);
            }
        }
        if !problems.is_empty() {
            return Err(Refused::Files(Problems(problems)));
        }
        let anew: BTreeSet<&str> = add.iter().map(|(.., rule)| &*rule.id).collect();
        let gone: Vec<Arc<Rule>> = {
            let set = book.set();
            let of_files = set.rules().filter(|rule| matches!(rule.source, Source::File(_)));
            of_files.filter(|rule| anew.contains(&*rule.id) || !wanted.contains_key(&rule.id)).cloned().collect()
        };
        if !(gone.is_empty() && add.is_empty()) {
            let place = |error: &SetError| {
                let (SetError::Exists(id) | SetError::Slots(id) | SetError::Groups(id)) = error else { return None };
                let (file, n, _) = add.iter().find(|(.., rule)| rule.id == *id)?;
                Some(file.problem(*n, Some("id"), &error.to_string()))
            };
            let rules = add.iter().map(|(.., rule)| rule.clone()).collect();
            let who = "files";
            replace(&mut book, who, &gone, rules).map_err(|refused| match &refused {
                Refused::Set(error) => {
                    place(error).map_or(refused, |problem: Problem| Refused::Files(Problems(vec![problem])))
                }
                _ => refused,
            })?;
            for (.., rule) in &add {
                book.tripped.remove(&rule.id);
            }
            self.note(&book);
        }
        book.ends.only(&Source::File("".into()), wanted.keys().map(|id| &**id));
        book.ends.save();
        *before = wanted;
        Ok(book.set().rules().filter(|rule| matches!(rule.source, Source::File(_))).count())
    }

    /// Puts a feed's list in the place of the one before; without an address the rule goes. The rule's time begins anew,
    /// at most once in an eighth of it. `ends`: of single addresses, or empty.
    pub(in crate::app) fn take_feed(
        &self,
        feed: &Feed,
        clients: Vec<Prefix>,
        ends: Vec<u64>,
        alive: &AtomicBool,
    ) -> Result<(), Refused> {
        let mut book = self.book();
        if !alive.load(Ordering::Acquire) {
            return Ok(());
        }
        let source = Source::Feed(feed.name.as_str().into());
        let who = format!("feed {}", feed.name);
        let old = feed.rule.id.as_deref().and_then(|id| book.set().get(id).cloned()).filter(|old| old.source == source);
        if clients.is_empty() {
            return match old {
                Some(old) => replace(&mut book, &who, &[old], Vec::new()).map(|()| self.note(&book)),
                None => Ok(()),
            };
        }
        let arrival = arrival(source, "config".into(), "feed".into());
        let now = arrival.monotonic_ns;
        let mut rule = check_list(&feed.rule, clients, &arrival, &*book.allowed())?;
        rule.ends = ends;
        stay_tripped(&book, &mut rule);
        let mut same = false;
        if let Some(old) = &old {
            rule.created_unix_ns = old.created_unix_ns;
            let (fresh, until) = (rule.until, old.until);
            let left = until.map_or(0, |until| until.monotonic_ns.saturating_sub(now));
            let whole = fresh.map_or(0, |until| until.monotonic_ns.saturating_sub(now));
            rule.until = until;
            same = rule == **old;
            if left < whole / 8 * 7 {
                rule.until = fresh;
            } else if same {
                return Ok(());
            }
        }
        let (id, named) = (Arc::clone(&rule.id), !(rule.client_who.is_empty() && rule.server_who.is_empty()));
        if same {
            // Only its time begins anew: no change of what is decided, and no line in the audit log.
            book.change(&[id], vec![rule])?;
        } else {
            replace(&mut book, &who, old.as_slice(), vec![rule])?;
        }
        if named || old.is_none() {
            self.note(&book);
        } else {
            self.any.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// A feed's list is as it was: its rule's time begins anew.
    pub(in crate::app) fn renew_feed(&self, feed: &Feed, alive: &AtomicBool) -> Result<(), Refused> {
        let old = feed.rule.id.as_deref().and_then(|id| self.in_force.set().get(id).cloned());
        match old.filter(|old| matches!(&old.source, Source::Feed(name) if **name == *feed.name)) {
            Some(old) => self.take_feed(feed, old.clients.clone(), old.ends.clone(), alive),
            None => Ok(()),
        }
    }

    /// Removes the rules of sources that are no more.
    pub(in crate::app) fn forget(&self, is_gone: impl Fn(&Source) -> bool) {
        let mut book = self.book();
        let gone: Vec<_> = book.set().rules().filter(|rule| is_gone(&rule.source)).cloned().collect();
        if gone.is_empty() {
            return;
        }
        if let Err(error) = replace(&mut book, "config", &gone, Vec::new()) {
            tracing::warn!(%error, "rules of a source that is no longer configured stay");
        }
        self.note(&book);
    }

    /// Takes a rule of a detector of this agent, in the place of its own one with the same id. It holds for an hour where
    /// it does not say otherwise, and only counts unless it says `enforce`. Gives its id.
    pub(in crate::app) fn detected(&self, detector: &str, written: &WrittenRule) -> Result<Arc<str>, Refused> {
        let mut book = self.book();
        let (source, who) = (Source::Detector(detector.into()), format!("detector {detector}"));
        let mut written = written.clone();
        written.ttl.get_or_insert_with(|| TTL.to_owned());
        book.made += 1;
        let id = format!("{detector}-{:x}-{}", clock::unix_ns() / 1_000_000_000, book.made);
        let arrival = arrival(source.clone(), who.as_str().into(), id.into());
        let mut rule = check(&written, &arrival, &*book.allowed())?;
        stay_tripped(&book, &mut rule);
        let old = book.set().get(&rule.id).filter(|old| old.source == source).cloned();
        if old.is_none() && book.set().rules().filter(|rule| rule.source == source).count() >= DETECTED {
            return Err(Refused::Detector(detector.to_owned(), DETECTED));
        }
        let id = Arc::clone(&rule.id);
        replace(&mut book, &who, old.as_slice(), vec![rule])?;
        self.note(&book);
        Ok(id)
    }
}

/// A rule that the circuit breaker put back stays in monitor mode when it comes anew by itself.
fn stay_tripped(book: &Book, rule: &mut Rule) {
    if book.tripped.contains_key(&rule.id) {
        rule.mode = Mode::Monitor;
    }
}

/// Changes rules and records it in one line, or does neither.
pub(super) fn replace(book: &mut Book, who: &str, gone: &[Arc<Rule>], come: Vec<Rule>) -> Result<(), Refused> {
    let ids: Vec<Arc<str>> = gone.iter().map(|rule| Arc::clone(&rule.id)).collect();
    let told = |rules: Vec<Value>| if rules.is_empty() { Value::Null } else { Value::from(rules) };
    let before = told(gone.iter().map(|rule| document(rule)).collect());
    let after = told(come.iter().map(document).collect());
    let stay: BTreeSet<Arc<str>> = come.iter().map(|rule| Arc::clone(&rule.id)).collect();
    let count = |rules: &mut dyn Iterator<Item = usize>| rules.sum::<usize>();
    let why = json!({
        "rules_before": gone.len(), "rules_after": come.len(),
        "addresses_before": count(&mut gone.iter().map(|rule| rule.clients.len())),
        "addresses_after": count(&mut come.iter().map(|rule| rule.clients.len())),
    });
    let one = match (gone, come.as_slice()) {
        (_, [one]) => Some(Arc::clone(&one.id)),
        ([one], []) => Some(Arc::clone(&one.id)),
        _ => None,
    };
    book.log.write(who, "replace", one.as_deref(), &why.to_string(), before.clone(), after)?;
    if let Err(refused) = book.change(&ids, come) {
        book.log.write("weir", "refuse", one.as_deref(), &refused.to_string(), Value::Null, before)?;
        return Err(refused);
    }
    for id in ids.iter().filter(|id| !stay.contains(*id)) {
        book.tally().hits.remove(id);
        book.tripped.remove(id);
    }
    Ok(())
}

/// The id of a file's rule that has none: the file's name and the rule's number.
fn made(file: &RulesFile, n: usize) -> Arc<str> {
    let stem = file.path.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let stem: String = stem.chars().map(plain).take(40).collect();
    format!("file-{stem}-{n}").into()
}

#[cfg(test)]
mod tests;
