//! What a rule would have met of the calls that are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock;
use crate::model::{Exchange, Filter};
use crate::policy::meet::{Meets, Seen};
use crate::policy::rule::{Action, Rule};
use crate::recent::Recent;

/// Kept calls that are looked at, newest first.
const CALLS: usize = 100_000;
/// How far back.
const BACK_NS: u64 = 3_600_000_000_000;
/// Clients and services that are shown.
const SHOWN: usize = 20;

fn kept(recent: &Recent) -> Vec<Arc<Exchange>> {
    let since = clock::unix_ns().saturating_sub(BACK_NS);
    recent.newest(&Filter { since_unix_ns: Some(since), ..Filter::default() }, CALLS)
}

fn meets(rule: &Rule, call: &Exchange) -> Meets {
    let seen = Seen::of(call);
    let unclear = if rule.strict { seen.unclear() } else { 0 };
    rule.meets(&seen, unclear)
}

/// Calls, clients, services, rate and share; with proxies, whose connections a refused request would reset. A limit is told
/// as if it let nothing pass.
pub(super) fn of(rule: &Rule, recent: &Recent, behind: impl Fn(IpAddr) -> Option<Box<str>>) -> Value {
    let calls = kept(recent);
    let (mut met, mut unknown, mut same) = (0_u64, 0_u64, 0_u64);
    let (mut clients, mut services) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
    // Also of calls that may be met: paths are not kept by default.
    let mut senders = BTreeSet::new();
    let (mut first, mut last) = (u64::MAX, 0);
    for call in &calls {
        first = first.min(call.start_unix_ns);
        last = last.max(call.start_unix_ns);
        same += u64::from(rule.at_client() == (call.kind == crate::model::Kind::Client));
        match meets(rule, call) {
            Meets::No => {}
            Meets::Unknown => {
                unknown += 1;
                senders.insert(Seen::of(call).client);
            }
            Meets::Yes => {
                met += 1;
                senders.insert(Seen::of(call).client);
                let server = if rule.at_client() { call.peer.as_ref() } else { Some(&call.service) };
                *clients.entry(Seen::of(call).client).or_default() += 1;
                *services
                    .entry(server.map_or_else(|| "unknown".to_owned(), |service| service.name.to_string()))
                    .or_default() += 1;
            }
        }
    }
    let seconds = last.saturating_sub(first.min(last)) as f64 / 1e9;
    let refuses = matches!(rule.action, Action::Deny | Action::Limit(_));
    let proxies = senders
        .iter()
        .filter(|_| refuses)
        .filter_map(|client| Some(json!({ "client": client.to_string(), "why": behind(*client)? })));
    let proxies: Vec<_> = proxies.take(SHOWN).collect();
    json!({
        "calls_met": met,
        "calls_undecided": unknown,
        "calls_kept": same,
        "share": if same == 0 { Value::Null } else { (met as f64 / same as f64).into() },
        "per_second": if seconds > 0.0 { (met as f64 / seconds).into() } else { Value::Null },
        "over_seconds": seconds,
        "clients": clients.len(),
        "top_clients": top(&clients, "client"),
        "proxies": proxies,
        "services": top(&services, "service.name"),
    })
}

/// Rules of higher rank that decide calls which the rule meets too.
pub(super) fn winners(rule: &Rule, above: &[Arc<Rule>], recent: &Recent) -> Value {
    let mut won = BTreeMap::<String, u64>::new();
    for call in kept(recent) {
        if meets(rule, &call) == Meets::Yes
            && let Some(winner) = above.iter().find(|other| meets(other, &call) == Meets::Yes)
        {
            *won.entry(winner.id.to_string()).or_default() += 1;
        }
    }
    top(&won, "rule")
}

fn top<N: Ord + ToString>(counts: &BTreeMap<N, u64>, key: &str) -> Value {
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    rows.iter().take(SHOWN).map(|(name, calls)| json!({ key: name.to_string(), "calls": calls })).collect()
}
