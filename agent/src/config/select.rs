//! Which calls are watched.

use crate::model::{self, Service};

use super::written::SelectRule;

/// The rules of `select`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Select {
    include: Vec<SelectRule>,
    exclude: Vec<SelectRule>,
}

impl Select {
    pub(super) fn new(rules: Vec<SelectRule>) -> Self {
        let (exclude, include) = rules.into_iter().partition(|rule| rule.exclude);
        Self { include, exclude }
    }

    /// Every call is watched: nothing needs to be asked.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether a call is watched: by the observed process's service and the TCP port of the server's end.
    #[must_use]
    pub fn takes(&self, service: &Service, server_port: u16) -> bool {
        let meets = |rule: &SelectRule| meets(rule, service, server_port);
        (self.include.is_empty() || self.include.iter().any(meets)) && !self.exclude.iter().any(meets)
    }
}

fn meets(rule: &SelectRule, service: &Service, server_port: u16) -> bool {
    let cgroup = service.process.as_ref().and_then(|process| process.cgroup.as_deref());
    fits(rule.service.as_deref(), Some(&service.name))
        && fits(rule.namespace.as_deref(), service.namespace.as_deref())
        && fits(rule.unit.as_deref(), service.unit.as_deref())
        && fits(rule.cgroup.as_deref(), cgroup)
        && rule.port.is_none_or(|port| port == server_port)
}

/// A pattern that is not given is true of everything; one that is given is false of what is unknown.
fn fits(pattern: Option<&str>, text: Option<&str>) -> bool {
    match (pattern, text) {
        (None, _) => true,
        (Some(pattern), Some(text)) => model::fits(pattern, text),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn rules_include_and_exclude() {
        let shop = Service { name: Arc::from("shop"), unit: Some(Arc::from("shop.service")), ..Service::unknown() };
        let rule = SelectRule::default();
        let by_service = SelectRule { service: Some("sh*".into()), ..rule.clone() };
        let by_port = SelectRule { port: Some(80), ..rule.clone() };
        let not_unit = SelectRule { unit: Some("shop.*".into()), exclude: true, ..rule.clone() };
        let other_namespace = SelectRule { namespace: Some("*".into()), ..rule };
        for (rules, port, takes) in [
            (vec![], 1, true),
            (vec![by_service.clone()], 1, true),
            (vec![by_port.clone()], 1, false),
            (vec![by_port.clone()], 80, true),
            (vec![by_port, by_service.clone()], 1, true),
            (vec![by_service, not_unit.clone()], 1, false),
            (vec![not_unit], 1, false),
            (vec![other_namespace], 1, false),
        ] {
            assert_eq!(Select::new(rules.clone()).takes(&shop, port), takes, "{rules:?}");
        }
    }
}
