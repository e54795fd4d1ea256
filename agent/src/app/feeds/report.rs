//! What this node says of each policy in its status. Hits are told now and then, not as they come: every writing of
//! every node is told to every other node.
//!
//! | nodes that say something of a policy | hits of a node are told every | a change is told within | writings a second |
//! |---|---|---|---|
//! | 1 to 5 | 10 s | 0.25 s | at most 0.5 |
//! | 50 | 100 s | 2.5 s | 0.5 |
//! | 500 | 1000 s | 25 s | 0.5 |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use siphasher::sip::SipHasher13;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Desk;
use crate::app::blocks::sources::Standing;
use crate::clock;
use crate::identity::kube::{Pen, Policy, PolicyName};
use crate::model::json::time;

/// How often it is looked whether there is something to say.
const LOOK: Duration = Duration::from_millis(500);
/// Least time between two writings of hits, and for each node that writes.
const HITS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(2)];
/// Changes of all nodes are spread over this for each of them.
const SPREAD: Duration = Duration::from_millis(50);
/// Pauses after a failure: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_mins(5)];
/// What did not change is written again after this, so that a node that is gone can be told by its age.
const ALIVE: Duration = Duration::from_hours(8);
/// The entry of a node that did not write for so long, seconds, is removed by whoever sees it.
const DEAD: i64 = 24 * 3600;
/// Entries of such nodes that are removed at once.
const BURIALS: usize = 4;

/// What became of a policy on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not about this node.
    Elsewhere,
    /// Its rules are in force.
    Accepted,
    /// It is refused: a word, and the reason for people.
    Refused(&'static str, String),
}

/// One of the two conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    is: bool,
    reason: &'static str,
    message: String,
}

/// What was said of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    generation: i64,
    accepted: Condition,
    enforced: Condition,
    rules: usize,
    hits: u64,
    last_unix_ns: u64,
}

/// What is to be said of a policy, and what was.
#[derive(Debug)]
pub(super) struct Page {
    uid: Arc<str>,
    generation: i64,
    good: Option<i64>,
    verdict: Option<Verdict>,
    ids: Vec<Arc<str>>,
    nodes: Vec<(Arc<str>, Option<String>)>,
    said: Option<Said>,
    /// When the conditions became what they are, nanoseconds since the Unix epoch.
    since: [u64; 2],
    written: Option<Instant>,
    /// Since when there is a change to be told.
    changed: Option<Instant>,
    not_before: Option<Instant>,
    failures: u32,
}

/// Of all policies.
pub(super) type Pages = Arc<Mutex<BTreeMap<PolicyName, Page>>>;

impl Page {
    pub(super) fn new(uid: &Arc<str>) -> Self {
        Self {
            uid: Arc::clone(uid),
            generation: 0,
            good: None,
            verdict: None,
            ids: Vec::new(),
            nodes: Vec::new(),
            said: None,
            since: [0; 2],
            written: None,
            changed: None,
            not_before: None,
            failures: 0,
        }
    }

    /// What became of the policy. `good`: the generation whose rules hold.
    pub(super) fn now(&mut self, policy: &Policy, ids: Vec<Arc<str>>, good: Option<i64>, verdict: Verdict) {
        if self.uid != policy.uid {
            *self = Self::new(&policy.uid);
        }
        (self.generation, self.good, self.ids) = (policy.generation, good, ids);
        self.verdict = Some(verdict);
        self.nodes.clone_from(&policy.nodes);
    }

    fn nodes(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX).max(1)
    }

    fn has(&self, node: &str) -> bool {
        self.nodes.iter().any(|(name, _)| **name == *node)
    }

    /// What is true now.
    fn say(&self, standing: &Standing) -> Option<Said> {
        let accepted = match self.verdict.as_ref()? {
            Verdict::Elsewhere => return None,
            Verdict::Accepted => Condition { is: true, reason: "Accepted", message: String::new() },
            Verdict::Refused(reason, text) => {
                let before = self.good.map(|good| format!("; the rules of generation {good} hold"));
                Condition { is: false, reason, message: format!("{text}{}", before.unwrap_or_default()) }
            }
        };
        let Standing { rules, enforced, node_enforces, both_ends, .. } = *standing;
        let no = |reason, message: String| Condition { is: false, reason, message };
        let enforced = if rules == 0 {
            no("NoRules", "no rule of it is in force".to_owned())
        } else if !node_enforces {
            no("NodeInMonitorMode", "the node drops nothing: see `weir mode`".to_owned())
        } else if let Some(why) = &standing.tripped {
            no("CircuitBreaker", why.clone())
        } else if enforced < rules {
            no("RuleInMonitorMode", format!("{} of {rules} rules are in monitor mode", rules - enforced))
        } else {
            let why = "rules name a client's identity: they are about clients on the server's own node";
            let message = if both_ends > 0 { format!("{both_ends} of {rules} {why}") } else { String::new() };
            Condition { is: true, reason: "Enforced", message }
        };
        let (hits, last_unix_ns) = (standing.hits, standing.last_unix_ns);
        Some(Said { generation: self.generation, accepted, enforced, rules, hits, last_unix_ns })
    }

    /// When this is to be written, if at all; `node`'s place among the others spreads what all of them say at once.
    fn due(&mut self, said: Option<&Said>, node: &str, now: Instant) -> Option<Instant> {
        let due = match (said, &self.said) {
            (None, None) => self.has(node).then_some(now),
            (None, Some(_)) => Some(now),
            (Some(said), before) => {
                let told = before.as_ref().map(|before| (before.generation, &before.accepted, &before.enforced));
                if told == Some((said.generation, &said.accepted, &said.enforced)) {
                    self.changed = None;
                    let written = self.written?;
                    let [least, each] = HITS;
                    let wait = if before.as_ref() == Some(said) { ALIVE } else { least.max(each * self.nodes()) };
                    Some(written + wait)
                } else {
                    let share = SipHasher13::new().hash(node.as_bytes()) as f64 / u64::MAX as f64;
                    let spread = (SPREAD * self.nodes()).mul_f64(share);
                    Some(*self.changed.get_or_insert(now) + spread)
                }
            }
        };
        due.map(|due| self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// The entry as the API server has it.
    fn entry(&mut self, node: &str, said: &Said, unix_ns: u64) -> Value {
        let before = self.said.as_ref();
        for (since, (now, old)) in self.since.iter_mut().zip([
            (said.accepted.is, before.map(|before| before.accepted.is)),
            (said.enforced.is, before.map(|before| before.enforced.is)),
        ]) {
            if old != Some(now) {
                *since = unix_ns;
            }
        }
        let condition = |kind: &str, it: &Condition, since: u64| {
            json!({
                "type": kind, "status": if it.is { "True" } else { "False" }, "reason": it.reason,
                "message": it.message, "lastTransitionTime": time(since), "observedGeneration": said.generation,
            })
        };
        let [accepted, enforced] = self.since;
        let mut entry = json!({
            "name": node, "observedGeneration": said.generation, "rules": said.rules, "hits": said.hits,
            "updated": time(unix_ns),
            "conditions": [
                condition("Accepted", &said.accepted, accepted), condition("Enforced", &said.enforced, enforced),
            ],
        });
        if said.last_unix_ns != 0 {
            entry["lastHit"] = time(said.last_unix_ns).into();
        }
        entry
    }

    /// Nodes that have not written for too long.
    fn dead(&self, node: &str) -> Vec<Arc<str>> {
        let now = Timestamp::now().as_second();
        let is_dead = |updated: &Option<String>| {
            let at: Option<Timestamp> = updated.as_ref().and_then(|text| text.parse().ok());
            at.is_some_and(|at| now - at.as_second() > DEAD)
        };
        let dead = self.nodes.iter().filter(|(name, updated)| **name != *node && is_dead(updated));
        dead.map(|(name, _)| Arc::clone(name)).take(BURIALS).collect()
    }
}

/// A page that is to be written.
struct Task {
    name: PolicyName,
    uid: Arc<str>,
    said: Option<Said>,
    entry: Option<Value>,
    dead: Vec<Arc<str>>,
}

/// Writes what is to be said, one after the other, until it is dropped.
pub(super) async fn run(node: String, pen: Pen, desk: Desk, pages: Pages) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let (of, own) = (Arc::clone(&pages), node.clone());
        let tasks = desk.aside(move |blocks, _| {
            let mut pages = of.lock().unwrap_or_else(PoisonError::into_inner);
            let (now, unix_ns) = (Instant::now(), clock::unix_ns());
            let tasks = pages.iter_mut().filter_map(|(name, page)| {
                let said = page.say(&blocks.standing(page.ids.iter()));
                if page.due(said.as_ref(), &own, now)? > now {
                    return None;
                }
                let entry = said.as_ref().map(|said| page.entry(&own, said, unix_ns));
                let dead = page.dead(&own);
                Some(Task { name: name.clone(), uid: Arc::clone(&page.uid), said, entry, dead })
            });
            Ok(tasks.collect::<Vec<_>>())
        });
        for task in tasks.await.unwrap_or_default() {
            let Task { name, uid, said, entry, dead } = task;
            let done = pen.write(&name, &uid, &node, entry).await;
            for other in dead {
                // Whoever wrote it is gone; if not, it writes it again.
                let _ = pen.write(&name, &uid, &other, None).await;
            }
            let mut pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(page) = pages.get_mut(&name).filter(|page| page.uid == uid) else { continue };
            let now = Instant::now();
            if done.is_ok() {
                if said.is_none() {
                    page.nodes.retain(|(name, _)| **name != *node);
                }
                (page.said, page.written, page.changed) = (said, Some(now), None);
                (page.not_before, page.failures) = (None, 0);
            } else {
                let [first, longest] = PAUSES;
                page.not_before = Some(now + first.saturating_mul(1 << page.failures.min(10)).min(longest));
                page.failures += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(nodes: usize) -> Policy {
        let name = PolicyName { namespace: "shop".into(), name: "a".into() };
        let nodes = (0..nodes).map(|n| (format!("n{n}").into(), None)).collect();
        Policy { name, uid: "u".into(), generation: 2, spec: "{}".into(), nodes }
    }

    fn enforced(hits: u64) -> Standing {
        Standing { rules: 1, enforced: 1, node_enforces: true, hits, ..Standing::default() }
    }

    #[test]
    fn hits_are_told_seldom_and_changes_soon() {
        let (mut page, now) = (Page::new(&"u".into()), Instant::now());
        page.now(&policy(1), vec!["a".into()], Some(2), Verdict::Accepted);
        let said = page.say(&enforced(0)).unwrap();
        assert!(page.due(Some(&said), "n0", now).unwrap() <= now + SPREAD);
        (page.said, page.written) = (Some(said.clone()), Some(now));
        assert_eq!(page.due(Some(&said), "n0", now), Some(now + ALIVE));
        let more = page.say(&enforced(7)).unwrap();
        assert_eq!(page.due(Some(&more), "n0", now), Some(now + Duration::from_secs(10)));
        page.now(&policy(500), vec!["a".into()], Some(2), Verdict::Accepted);
        assert_eq!(page.due(Some(&more), "n0", now), Some(now + Duration::from_secs(1000)));
        page.now(&policy(500), Vec::new(), Some(2), Verdict::Refused("InvalidRule", "x".into()));
        let refused = page.say(&Standing::default()).unwrap();
        assert_eq!(refused.accepted.message, "x; the rules of generation 2 hold");
        let due = page.due(Some(&refused), "n0", now).unwrap();
        assert!(due >= now && due <= now + Duration::from_secs(25));
        // It stays due at that time, and a failure puts it off.
        assert_eq!(page.due(Some(&refused), "n0", now + LOOK), Some(due));
        page.not_before = Some(now + Duration::from_mins(1));
        assert_eq!(page.due(Some(&refused), "n0", now), Some(now + Duration::from_mins(1)));
    }

    #[test]
    fn what_is_of_no_node_is_taken_back() {
        let (mut page, now) = (Page::new(&"u".into()), Instant::now());
        page.now(&policy(1), Vec::new(), None, Verdict::Elsewhere);
        assert!(page.say(&Standing::default()).is_none());
        // An entry of an earlier run.
        assert_eq!(page.due(None, "n0", now), Some(now));
        assert_eq!(page.due(None, "n7", now), None);
    }

    #[test]
    fn why_nothing_is_dropped_is_said() {
        let mut page = Page::new(&"u".into());
        page.now(&policy(1), Vec::new(), Some(2), Verdict::Accepted);
        let reason = |standing: Standing| page.say(&standing).unwrap().enforced.reason;
        let base = || Standing { rules: 2, enforced: 2, node_enforces: true, ..Standing::default() };
        assert_eq!(reason(base()), "Enforced");
        assert_eq!(reason(Standing::default()), "NoRules");
        assert_eq!(reason(Standing { node_enforces: false, ..base() }), "NodeInMonitorMode");
        assert_eq!(reason(Standing { enforced: 1, ..base() }), "RuleInMonitorMode");
        assert_eq!(reason(Standing { both_ends: 1, ..base() }), "Enforced");
        assert_eq!(reason(Standing { tripped: Some("x".into()), ..base() }), "CircuitBreaker");
    }

    #[test]
    fn nodes_that_are_gone_are_told_by_their_age() {
        let mut page = Page::new(&"u".into());
        let mut policy = policy(3);
        policy.nodes[0].1 = Some("2020-01-01T00:00:00Z".to_owned());
        policy.nodes[1].1 = Some(Timestamp::now().to_string());
        page.now(&policy, Vec::new(), None, Verdict::Accepted);
        assert_eq!(page.dead("n9"), ["n0".into()]);
        assert!(page.dead("n0").is_empty());
    }
}
