//! From facts to a service: the precedence of names.
//!
//! 1. a rule of the configuration
//! 2. `OTEL_SERVICE_NAME`
//! 3. `service.name` of `OTEL_RESOURCE_ATTRIBUTES`
//! 4. the systemd unit
//! 5. what an interpreter runs
//! 6. the executable's file name
//! 7. comm
//!
//! [`Evidence`] says which one it was.

use std::sync::Arc;

use super::cgroup::{Place, unit_name};
use super::environ::Environ;
use super::rules::{Rule, Subject};
use crate::model::{Evidence, Process, Service};

/// Everything that is known about an image of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) pid: u32,
    pub(super) ppid: u32,
    pub(super) uid: Option<u32>,
    pub(super) comm: Option<Arc<str>>,
    pub(super) executable_path: Option<Arc<str>>,
    /// File name of the executable, where it is certain.
    pub(super) executable_name: Option<Arc<str>>,
    /// What the interpreter runs.
    pub(super) script: Option<Arc<str>>,
    pub(super) command_line: Option<Arc<str>>,
    /// Absent where the environment could not be read.
    pub(super) environ: Option<Environ>,
    pub(super) place: Place,
    pub(super) cgroup: Option<Arc<str>>,
}

impl Facts {
    fn subject(&self, port: Option<u16>) -> Subject<'_> {
        Subject {
            executable_path: self.executable_path.as_deref(),
            executable_name: self.executable_name.as_deref(),
            command_line: self.command_line.as_deref(),
            unit: self.place.unit.as_deref(),
            container: self.place.container.as_deref(),
            port,
        }
    }

    /// The service that these facts make, for connections that are accepted on `port`.
    pub(super) fn service(&self, rules: &[Rule], port: Option<u16>) -> Service {
        let subject = self.subject(port);
        let rule = rules.iter().find(|rule| rule.when.fits(&subject));
        let (name, evidence) = match rule.and_then(|rule| rule.name.clone()) {
            Some(name) => (name, Evidence::Rule),
            None => self.name(),
        };
        let environ = self.environ.as_ref();
        let namespace =
            rule.and_then(|rule| rule.namespace.clone()).or_else(|| environ?.attribute("service.namespace").cloned());
        Service {
            name,
            namespace,
            evidence,
            process: (self.pid != 0).then(|| Process {
                pid: self.pid,
                ppid: self.ppid,
                uid: self.uid,
                executable_name: self.executable_name.clone(),
                executable_path: self.executable_path.clone(),
                command_line: self.command_line.clone(),
                cgroup: self.cgroup.clone(),
            }),
            container_id: self.place.container.clone(),
            unit: self.place.unit.clone(),
            attributes: self.attributes(),
        }
    }

    fn name(&self) -> (Arc<str>, Evidence) {
        let environ = self.environ.as_ref();
        let unit = || self.place.unit.as_deref().and_then(unit_name);
        None.or_else(|| Some((environ?.service_name.clone()?, Evidence::OtelServiceName)))
            .or_else(|| Some((environ?.attribute("service.name").cloned()?, Evidence::OtelResourceAttributes)))
            .or_else(|| Some((unit()?, Evidence::Unit)))
            .or_else(|| Some((self.script.clone()?, Evidence::Script)))
            .or_else(|| Some((self.executable_name.clone()?, Evidence::Executable)))
            .or_else(|| Some((self.comm.clone()?, Evidence::Comm)))
            .unwrap_or_else(|| (Arc::from("unknown"), Evidence::Unknown))
    }

    /// What its place proves, then what the process says of itself, but for what [`Service`] has a field for.
    fn attributes(&self) -> Vec<(Arc<str>, Arc<str>)> {
        const FIELDS: &[&str] = &["service.name", "service.namespace", "container.id"];
        let place =
            [("container.runtime.name", self.place.runtime.map(Arc::from)), ("k8s.pod.uid", self.place.pod.clone())];
        let place = place.into_iter().filter_map(|(key, value)| Some((Arc::from(key), value?)));
        let said = self.environ.iter().flat_map(|environ| environ.attributes.iter().rev().cloned());
        let mut list: Vec<(Arc<str>, Arc<str>)> = place.chain(said).collect();
        list.retain(|(key, _)| !FIELDS.contains(&&**key) && !key.starts_with("process."));
        // Stable: of equal keys the first stays: the place's, else the one that was said last.
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list.dedup_by(|(later, _), (kept, _)| later == kept);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::super::environ;
    use super::super::rules::When;
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "the fields are optional")]
    fn text(text: &str) -> Option<Arc<str>> {
        Some(Arc::from(text))
    }

    #[test]
    fn the_strongest_fact_names_the_service() {
        let mut facts = Facts {
            pid: 7,
            comm: text("comm"),
            executable_name: text("python3"),
            script: text("script"),
            environ: Some(environ::scan(&b"OTEL_SERVICE_NAME=env\0OTEL_RESOURCE_ATTRIBUTES=service.name=attr\0"[..])),
            place: Place { unit: text("unit@1.service"), ..Place::default() },
            ..Facts::default()
        };
        let rules = [Rule { when: When { port: Some(80), ..When::default() }, name: text("rule"), namespace: None }];
        let named = |facts: &Facts, port| {
            let service = facts.service(&rules, port);
            (service.name.to_string(), service.evidence)
        };
        assert_eq!(named(&facts, Some(80)), ("rule".into(), Evidence::Rule));
        assert_eq!(named(&facts, Some(81)), ("env".into(), Evidence::OtelServiceName));
        facts.environ = Some(environ::scan(&b"OTEL_RESOURCE_ATTRIBUTES=service.name=attr\0"[..]));
        assert_eq!(named(&facts, None), ("attr".into(), Evidence::OtelResourceAttributes));
        facts.environ = None;
        assert_eq!(named(&facts, None), ("unit".into(), Evidence::Unit));
        facts.place = Place::default();
        assert_eq!(named(&facts, None), ("script".into(), Evidence::Script));
        facts.script = None;
        assert_eq!(named(&facts, None), ("python3".into(), Evidence::Executable));
        facts.executable_name = None;
        assert_eq!(named(&facts, None), ("comm".into(), Evidence::Comm));
        facts.comm = None;
        assert_eq!(named(&facts, None), ("unknown".into(), Evidence::Unknown));
    }

    #[test]
    fn attributes_are_sorted_and_said_once() {
        let facts = Facts {
            environ: Some(environ::scan(
                &b"OTEL_RESOURCE_ATTRIBUTES=z=1,service.version=1,service.namespace=shop,z=2,process.pid=9,k8s.pod.uid=mine\0"[..],
            )),
            place: Place { pod: text("p"), runtime: Some("docker"), container: text("c"), unit: None },
            ..Facts::default()
        };
        let service = facts.service(&[], None);
        let attributes: Vec<_> = service.attributes.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            attributes,
            [("container.runtime.name", "docker"), ("k8s.pod.uid", "p"), ("service.version", "1"), ("z", "2")]
        );
        assert_eq!(service.namespace.as_deref(), Some("shop"));
        assert_eq!(service.container_id.as_deref(), Some("c"));
        assert_eq!(service.process, None);
    }
}
