//! A namespace's own rules: they are about servers of that namespace and nothing else, and stand below what the node's
//! administrator wrote.

use std::hash::Hasher as _;
use std::sync::Arc;

use super::check::{Arrival, CheckError, World, check};
use super::rule::{Rule, Who};
use super::written::{OneOrMore, WrittenRule};

/// Longest id of a rule.
const ID: usize = 64;

/// Checks a rule of a namespace of Kubernetes. Its server is a pod of that namespace on this node, whatever else the rule
/// says of it; its client is anybody. It may not be forced, and has no priority above 0: `allow` is not to overrule what
/// the administrator denies at a priority of 1 or more.
pub fn check_within(
    namespace: &str,
    written: &WrittenRule,
    arrival: &Arrival,
    world: &dyn World,
) -> Result<Rule, CheckError> {
    if written.force {
        return Err(CheckError::Key { key: "force", why: "a namespace's policy can't overrule the allow-list" });
    }
    if written.priority.is_some_and(|priority| priority > 0) {
        return Err(CheckError::Key { key: "priority", why: "a namespace's policy has one of -100 to 0" });
    }
    let mut written = written.clone();
    let pods = written.server.pod.as_slice().iter().map(|pod| match pod.split_once('/') {
        None => Ok(format!("{namespace}/{pod}")),
        Some((of, _)) if of == namespace => Ok(pod.clone()),
        Some(_) => Err(CheckError::Key {
            key: "server.pod",
            why: "it is of another namespace: a policy may only name pods of its own",
        }),
    });
    written.server.pod = OneOrMore::Many(pods.collect::<Result<_, _>>()?);
    let elsewhere = |text: &String| text.strip_prefix("k8s.namespace.name=").is_some_and(|other| other != namespace);
    if written.server.attribute.as_slice().iter().any(elsewhere) {
        return Err(CheckError::Key {
            key: "server.attribute",
            why: "it is of another namespace: a policy may only name servers of its own",
        });
    }
    let mut rule = check(&written, arrival, world)?;
    let within = |who: Option<Who>| Who::Within(namespace.into(), who.map(Box::new));
    rule.server_who = if rule.server_who.is_empty() {
        vec![within(None)]
    } else {
        rule.server_who.into_iter().map(|who| within(Some(who))).collect()
    };
    Ok(rule)
}

/// The id of a policy's rule among all rules of a node: no namespace can take another's. One that would be too long ends
/// in a number that is made of the whole.
#[must_use]
pub fn id_within(namespace: &str, policy: &str, id: &str) -> Arc<str> {
    let whole = format!("{namespace}:{policy}:{id}");
    if whole.len() <= ID {
        return whole.into();
    }
    let mut hash = siphasher::sip::SipHasher13::new();
    hash.write(whole.as_bytes());
    let end = format!("~{:016x}", hash.finish());
    let start: String = whole.chars().take(ID - end.len()).collect();
    format!("{start}{end}").into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::check::Nowhere;
    use super::*;
    use crate::model::{Evidence, Service};
    use crate::policy::rule::Source;

    fn within(rule: Value) -> Result<Rule, String> {
        let source = Source::Cluster("shop/a".into());
        let arrival = Arrival { source, author: "t".into(), monotonic_ns: 1, unix_ns: 1, id: "made".into() };
        let written = serde_json::from_value(rule).unwrap();
        check_within("shop", &written, &arrival, &Nowhere).map_err(|error| error.to_string())
    }

    fn service(namespace: &str, pod: &str) -> Service {
        let attributes = vec![("k8s.namespace.name".into(), namespace.into()), ("k8s.pod.name".into(), pod.into())];
        Service { name: "web".into(), evidence: Evidence::PodLabel, attributes, ..Service::unknown() }
    }

    #[test]
    fn servers_are_of_the_namespace() {
        for (server, met) in [
            (json!({}), [true, true, false]),
            (json!({ "pod": "web-1" }), [true, false, false]),
            (json!({ "pod": "shop/web-1" }), [true, false, false]),
            (json!({ "service": "web" }), [true, true, false]),
            (json!({ "service": "other" }), [false, false, false]),
            (json!({ "attribute": "k8s.namespace.name=shop", "pod": ["web-2"] }), [false, true, false]),
        ] {
            let rule = within(json!({ "client": { "address": "192.0.2.0/24" }, "server": server })).unwrap();
            let is = |service: Service| rule.server_who.iter().any(|who| who.is(&service));
            let found = [is(service("shop", "web-1")), is(service("shop", "web-2")), is(service("bank", "web-1"))];
            assert_eq!(found, met, "{server}");
            assert!(!rule.at_client(), "{server}");
        }
        // An address alone would be about whoever has it.
        let rule = within(json!({ "server": { "address": "192.0.2.1" } })).unwrap();
        assert!(!rule.server_who.is_empty() && !rule.at_client());
    }

    #[test]
    fn what_is_beyond_a_namespace_is_refused() {
        for (rule, said) in [
            (json!({ "path": "/x", "server": { "pod": "bank/web" } }), "server.pod: it is of another namespace"),
            (json!({ "path": "/x", "server": { "pod": "a/b/c" } }), "server.pod: it is of another namespace"),
            (json!({ "path": "/x", "server": { "attribute": "k8s.namespace.name=bank" } }), "server.attribute: it is"),
            (json!({ "path": "/x", "force": true }), "force: "),
            (json!({ "path": "/x", "action": "allow", "priority": 1 }), "priority: "),
            (json!({}), "no condition"),
            (json!({ "client": { "address": "0.0.0.0/0" } }), "more addresses"),
        ] {
            let error = within(rule.clone()).unwrap_err();
            assert!(error.contains(said), "{rule}: {error}");
        }
    }

    #[test]
    fn ids_are_apart_and_short() {
        assert_eq!(&*id_within("shop", "scan", "a"), "shop:scan:a");
        let long = "x".repeat(253);
        let ids = [id_within("shop", &long, "a"), id_within("shop", &long, "b"), id_within("shop2", &long, "a")];
        assert!(ids.iter().all(|id| id.len() == ID), "{ids:?}");
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
    }
}
