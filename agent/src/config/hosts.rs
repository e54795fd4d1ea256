//! Other hosts with an agent of their own: `hosts`.

use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::written::Written;
use crate::model::{Evidence, Hosts, Service};
use crate::policy::prefix::Prefix;

/// Most addresses of all hosts together.
const ADDRESSES: usize = 10_000;

/// Other hosts that have an agent of their own. What they tell joins with what this one tells: a call from there has its
/// client's span as parent, and the edge of the graph is told there, with its client's name. That needs addresses that
/// are the same on both sides: not behind address translation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenHost {
    /// Its addresses, as `10.0.0.7`, or prefixes of several such hosts, as `10.0.0.0/24`.
    pub addresses: Vec<String>,
    /// Who answers there: names for the other end of calls to it, where nothing else tells.
    pub services: Vec<HostService>,
}

/// A service of another host.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostService {
    /// TCP port that it answers on.
    pub port: u16,
    /// Its `service.name`.
    pub name: String,
    /// Its `service.namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Check<'_> {
    /// The hosts, as usable.
    pub(super) fn hosts(&mut self, written: &Written) -> Hosts {
        let mut hosts = Hosts::default();
        let mut room = ADDRESSES;
        for (n, host) in written.hosts.iter().enumerate() {
            if host.addresses.is_empty() {
                self.wrong_host(n, "addresses", "a host has one address at least");
            }
            let mut services = Vec::with_capacity(host.services.len());
            for service in &host.services {
                if services.iter().any(|(port, _)| *port == service.port) {
                    self.wrong_host(n, "services", &format!("port {} is named twice", service.port));
                }
                for name in [Some(&service.name), service.namespace.as_ref()].into_iter().flatten() {
                    if !(1..=255).contains(&name.len()) || name.chars().any(char::is_control) {
                        let text = format!("{name:?} is no usable name: 1 to 255 bytes without control characters");
                        self.wrong_host(n, "services", &text);
                    }
                }
                services.push((service.port, Arc::new(named(service))));
            }
            for text in &host.addresses {
                match text.parse::<Prefix>() {
                    Ok(prefix) if !is_shared(prefix) => {
                        if room == 0 {
                            return self.too_many(n, hosts);
                        }
                        room -= 1;
                        hosts.add(IpAddr::from(prefix.bytes), prefix.len, &services);
                    }
                    Ok(_) => {
                        let text = format!("`{text}` holds addresses that every host has; write its own");
                        self.wrong_host(n, "addresses", &text);
                    }
                    Err(error) => self.wrong_host(n, "addresses", &error.to_string()),
                }
            }
        }
        hosts
    }

    fn too_many(&mut self, n: usize, hosts: Hosts) -> Hosts {
        self.wrong_host(n, "addresses", &format!("more than {ADDRESSES} addresses of hosts; write prefixes"));
        hosts
    }

    fn wrong_host(&mut self, n: usize, key: &str, text: &str) {
        let path = format!("hosts.{n}");
        let at = format!("{path}.{key}");
        let place = if self.tree.get(at.split('.')).is_some() { at } else { path };
        self.wrong_at(&place, &format!("`hosts[{n}].{key}`: {text}"));
    }
}

/// It holds loopback addresses, or so many others that no hosts can be meant.
fn is_shared(prefix: Prefix) -> bool {
    let meets = |address: &str| {
        address.parse::<Prefix>().is_ok_and(|loopback| prefix.covers(&loopback) || loopback.covers(&prefix))
    };
    prefix.is_too_wide() || meets("127.0.0.0/8") || meets("::1")
}

fn named(service: &HostService) -> Service {
    Service {
        name: service.name.as_str().into(),
        namespace: service.namespace.as_deref().map(Into::into),
        evidence: Evidence::Rule,
        ..Service::unknown()
    }
}
