//! Rules of a cluster's `WeirPolicy` objects. A policy of a namespace is about that namespace's pods, so a node takes
//! the policies of the namespaces that have a pod on it, and no others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::board::Good;
use super::report::{Page, Pages, Verdict};
use super::{Desk, Trouble, report};
use crate::app::blocks::sources::Taken;
use crate::config::POLICIES;
use crate::identity::kube::{Kind, Policy, PolicyEvent, PolicyName, Watch};
use crate::policy::written::WrittenRules;

/// Longest `spec` of a policy, bytes.
const SPEC: usize = 256 << 10;
/// Rules of one policy.
const RULES: usize = 64;
/// Policies that are known, of this node or not, and bytes of all of them together.
const KNOWN: usize = 4096;
const TEXTS: usize = 16 << 20;
/// Longest reason that is told.
const TOLD: usize = 512;
/// How often it is noted that they are still told.
const LOOK: Duration = Duration::from_secs(1);

/// A policy, and what became of it.
struct Known {
    policy: Policy,
    taken: Taken,
    /// The generation whose rules hold.
    good: Option<i64>,
    verdict: Verdict,
}

struct Work {
    desk: Desk,
    wide: Vec<String>,
    local: Arc<BTreeSet<Arc<str>>>,
    known: BTreeMap<PolicyName, Known>,
    /// What the list that is running has told.
    fresh: Option<HashSet<PolicyName>>,
    pages: Pages,
    /// What was in the way when it was last looked; at first, that nothing was told yet.
    trouble: Option<String>,
}

/// Follows the policies until it is aborted.
pub(super) async fn run(cluster: Arc<Watch>, wide: Vec<String>, desk: Desk) {
    let mut policies = cluster.policies();
    let mut local = cluster.state.local();
    let pages = Pages::default();
    let scribe = report::run(cluster.state.node.clone(), policies.pen.clone(), desk.clone(), Arc::clone(&pages));
    // Ends with this task.
    let mut scribe = std::pin::pin!(scribe);
    let at_first = Arc::clone(&local.borrow_and_update());
    let mut work =
        Work { desk, wide, local: at_first, known: BTreeMap::new(), fresh: None, pages, trouble: Some(String::new()) };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = policies.events.recv() => match event {
                Some(event) => {
                    work.take(event).await;
                    cluster.state.holds(Kind::Policies, work.known.len());
                }
                None => return,
            },
            Ok(()) = local.changed() => {
                let now = Arc::clone(&local.borrow_and_update());
                work.moved(now).await;
            }
            _ = looks.tick() => work.look(&cluster),
            () = &mut scribe => return,
        }
    }
}

impl Work {
    async fn take(&mut self, event: PolicyEvent) {
        match event {
            PolicyEvent::Begin => self.fresh = Some(HashSet::new()),
            PolicyEvent::Here(policy) => {
                if let Some(fresh) = self.fresh.as_mut().filter(|fresh| fresh.len() < KNOWN) {
                    fresh.insert(policy.name.clone());
                }
                self.here(policy).await;
            }
            PolicyEvent::Gone(name) => self.gone(&name).await,
            PolicyEvent::End => {
                let fresh = self.fresh.take().unwrap_or_default();
                let gone: Vec<_> = self.known.keys().filter(|name| !fresh.contains(*name)).cloned().collect();
                for name in gone {
                    self.gone(&name).await;
                }
            }
        }
        self.tell();
    }

    async fn here(&mut self, policy: Policy) {
        let name = policy.name.clone();
        if let Some(known) = self.known.get_mut(&name)
            && (&known.policy.uid, known.policy.generation) == (&policy.uid, policy.generation)
        {
            // Its status changed: somebody's hits.
            known.policy.nodes = policy.nodes;
            return self.page(&name);
        }
        let others: usize = self.known.iter().filter(|(of, _)| **of != name).map(|(_, it)| it.policy.spec.len()).sum();
        let full = self.known.len() >= KNOWN && !self.known.contains_key(&name);
        if full {
            self.refused(&name, "TooMany", &format!("more than {KNOWN} policies: it is not looked at"));
            return;
        }
        let mut policy = policy;
        let length = policy.spec.len();
        let too_long = length > SPEC || others + length > TEXTS;
        if too_long {
            policy.spec = Arc::from("null");
        }
        let known = self.known.entry(name.clone()).or_insert_with(|| Known {
            policy: policy.clone(),
            taken: Taken::new(),
            good: None,
            verdict: Verdict::Elsewhere,
        });
        known.policy = policy;
        if too_long && self.is_here(&name) {
            let text = format!("its spec has {length} bytes: at most {SPEC}, and {TEXTS} of all policies together");
            self.set(&name, Verdict::Refused("TooLarge", text));
        } else {
            self.judge(&name).await;
        }
    }

    fn is_wide(&self, name: &PolicyName) -> bool {
        self.wide.iter().any(|wide| **wide == *name.namespace)
    }

    fn is_here(&self, name: &PolicyName) -> bool {
        self.is_wide(name) || self.local.contains(&name.namespace)
    }

    /// Takes what a policy asks for, or says why not; then what it asked for before stays.
    async fn judge(&mut self, name: &PolicyName) {
        let (wide, here) = (self.is_wide(name), self.is_here(name));
        let Some(known) = self.known.get_mut(name) else { return };
        let (spec, generation) = (Arc::clone(&known.policy.spec), known.policy.generation);
        let taken = Arc::new(Mutex::new(std::mem::take(&mut known.taken)));
        let (into, of) = (Arc::clone(&taken), name.clone());
        let done = self.desk.aside(move |blocks, alive| {
            let mut taken = into.lock().unwrap_or_else(PoisonError::into_inner);
            let rules = if here { parse(&spec) } else { Ok(WrittenRules::default()) };
            let judged = rules.and_then(|rules| {
                let of = (&*of.namespace, &*of.name);
                let taken = blocks.take_policy(of, wide, &rules.rules, &mut taken, alive);
                taken.map_err(|error| (error.reason(), error.to_string()))
            });
            Ok(judged)
        });
        let done = done.await;
        let verdict = match done {
            Ok(Ok(())) if here => Verdict::Accepted,
            Ok(Ok(())) => Verdict::Elsewhere,
            Ok(Err((reason, text))) => Verdict::Refused(reason, short(&text)),
            Err(trouble) => Verdict::Refused("Internal", short(&trouble.text)),
        };
        let Some(known) = self.known.get_mut(name) else { return };
        known.taken = std::mem::take(&mut taken.lock().unwrap_or_else(PoisonError::into_inner));
        match verdict {
            Verdict::Accepted => known.good = Some(generation),
            Verdict::Elsewhere => known.good = None,
            Verdict::Refused(..) => {}
        }
        self.set(name, verdict);
    }

    /// Notes what became of a policy.
    fn set(&mut self, name: &PolicyName, verdict: Verdict) {
        if let Verdict::Refused(reason, text) = &verdict {
            self.refused(name, reason, text);
        }
        if let Some(known) = self.known.get_mut(name) {
            known.verdict = verdict;
        }
        self.page(name);
    }

    fn refused(&self, name: &PolicyName, reason: &str, text: &str) {
        self.desk.board.failed(POLICIES, &Trouble::new("refused", format!("{name}: {reason}: {text}")));
    }

    /// Hands on what is to be said of a policy.
    fn page(&self, name: &PolicyName) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = self.known.get(name) else {
            pages.remove(name);
            return;
        };
        let page = pages.entry(name.clone()).or_insert_with(|| Page::new(&known.policy.uid));
        page.now(&known.policy, known.taken.keys().cloned().collect(), known.good, known.verdict.clone());
    }

    async fn gone(&mut self, name: &PolicyName) {
        let Some(mut known) = self.known.remove(name) else { return };
        self.page(name);
        let of = name.clone();
        let removed = self.desk.aside(move |blocks, alive| {
            let removed = blocks.take_policy((&of.namespace, &of.name), true, &[], &mut known.taken, alive);
            removed.map_err(|error| Trouble::new("refused", error.to_string()))
        });
        if let Err(trouble) = removed.await {
            tracing::error!(policy = %name, "rules of a policy that is gone stay: {}", trouble.text);
        }
    }

    /// Other namespaces have pods here.
    async fn moved(&mut self, local: Arc<BTreeSet<Arc<str>>>) {
        let before = std::mem::replace(&mut self.local, local);
        let differs = |name: &PolicyName| before.contains(&name.namespace) != self.local.contains(&name.namespace);
        let names: Vec<_> = self.known.keys().filter(|name| differs(name)).cloned().collect();
        for name in names {
            self.judge(&name).await;
        }
        self.tell();
    }

    /// Notes whether policies are still told.
    fn look(&mut self, cluster: &Watch) {
        let kinds = cluster.state.kinds();
        let Some((_, known)) = kinds.into_iter().find(|(kind, _)| *kind == Kind::Policies) else { return };
        match known.trouble {
            Some(trouble) if trouble.absent => {
                let text = format!("WeirPolicy is no kind of this cluster: {}", trouble.remedy);
                self.desk.board.partly(POLICIES, &self.good(), Some(&text), false);
                self.trouble = Some(text);
            }
            Some(trouble) => {
                if self.trouble.as_ref() != Some(&trouble.why) {
                    self.desk.board.failed(POLICIES, &Trouble::new("unreachable", trouble.why.clone()));
                }
                self.trouble = Some(trouble.why);
            }
            None if known.listed => {
                self.trouble = None;
                self.tell();
            }
            None => {}
        }
    }

    fn good(&self) -> Good {
        let of = |wanted: fn(&Verdict) -> bool| self.known.values().filter(|known| wanted(&known.verdict)).count();
        Good {
            rules: self.known.values().map(|known| known.taken.len()).sum(),
            entries: of(|verdict| matches!(verdict, Verdict::Accepted)),
            left_out: of(|verdict| matches!(verdict, Verdict::Refused(..))),
            note: None,
        }
    }

    /// Tells how they are: the first one that is refused stands for all.
    fn tell(&self) {
        if self.trouble.is_some() {
            return;
        }
        let refused = self.known.iter().find_map(|(name, known)| match &known.verdict {
            Verdict::Refused(reason, text) => Some(format!("{name}: {reason}: {text}")),
            Verdict::Accepted | Verdict::Elsewhere => None,
        });
        self.desk.board.partly(POLICIES, &self.good(), refused.as_deref(), true);
    }
}

/// The rules of a policy's `spec`.
fn parse(spec: &str) -> Result<WrittenRules, (&'static str, String)> {
    let rules: WrittenRules =
        serde_json::from_str(spec).map_err(|error| ("InvalidRule", format!("not a policy: {error}")))?;
    match rules.rules.len() {
        0 => Err(("InvalidRule", "it has no rules".to_owned())),
        1..=RULES => Ok(rules),
        more => Err(("TooLarge", format!("it has {more} rules: at most {RULES}"))),
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_no_policy_is_said() {
        for (spec, said) in [
            ("null", "not a policy"),
            ("{}", "no rules"),
            (r#"{"rules":[]}"#, "no rules"),
            (r#"{"rules":[{"clint":{}}]}"#, "unknown field `clint`"),
            (r#"{"rules":[{}],"more":1}"#, "unknown field `more`"),
            (r#"{"rules":{}}"#, "not a policy"),
            (&format!(r#"{{"rules":[{}]}}"#, vec!["{}"; 65].join(",")), "65 rules"),
            (&format!(r#"{{"rules":{}"#, "[".repeat(100_000)), "not a policy"),
        ] {
            let (_, text) = parse(spec).unwrap_err();
            assert!(text.contains(said), "{text}");
        }
        assert_eq!(parse(r#"{"rules":[{"path":"/x","server":{"port":[80,"81"]}}]}"#).unwrap().rules.len(), 1);
    }
}
