//! Rules as they are told.

use serde_json::{Value, json};

use crate::model::json::time;
use crate::policy::check::VALUES_MAX;
use crate::policy::rule::{Action, Rule};

/// Clients of a long list that are shown.
const SHOWN: usize = 10;

/// A rule as it is told.
pub(super) fn document(rule: &Rule) -> Value {
    // Of a long list the first ones and their number.
    let shown = if rule.clients.len() > VALUES_MAX { SHOWN } else { VALUES_MAX };
    let texts = |list: Vec<String>| Value::from(list);
    let mut told = json!({
        "id": &*rule.id,
        "action": rule.action.as_str(),
        "mode": rule.mode.as_str(),
        "end": rule.ending.as_str(),
        "strict": rule.strict,
        "force": rule.force,
        "priority": rule.priority,
        "reason": &*rule.reason,
        "author": &*rule.author,
        "source": rule.source.to_string(),
        "created": time(rule.created_unix_ns),
        "until": rule.until.map(|until| time(until.unix_ns)),
    });
    for (key, list) in [
        ("client.address", rule.clients.iter().take(shown).map(ToString::to_string).collect::<Vec<_>>()),
        ("client.who", rule.client_who.iter().map(ToString::to_string).collect()),
        ("server.who", rule.server_who.iter().map(ToString::to_string).collect()),
        ("server.address", rule.servers.iter().map(ToString::to_string).collect()),
        ("method", rule.request.methods.iter().map(ToString::to_string).collect()),
        ("path", rule.request.paths.iter().map(ToString::to_string).collect()),
        ("host", rule.request.hosts.iter().map(ToString::to_string).collect()),
    ] {
        if !list.is_empty() {
            told[key] = texts(list);
        }
    }
    if rule.clients.len() > shown {
        told["client.addresses"] = rule.clients.len().into();
    }
    if !rule.ports.is_empty() {
        told["server.port"] = rule.ports.clone().into();
    }
    if let Action::Limit(limit) = rule.action {
        told["limit"] = json!({
            "requests": limit.requests, "seconds": limit.per_ns as f64 / 1e9, "burst": limit.burst,
            "per": limit.per.as_str(),
        });
    }
    told
}
