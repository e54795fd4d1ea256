//! From facts to a service: the precedence of names.
//!
//! 1. a rule of the configuration
//! 2. `OTEL_SERVICE_NAME`
//! 3. `service.name` of `OTEL_RESOURCE_ATTRIBUTES`
//! 4. its pod's annotation `resource.opentelemetry.io/service.name`
//! 5. its pod's label `app.kubernetes.io/instance`, else `app.kubernetes.io/name`
//! 6. the workload that owns its pod, else the pod
//! 7. the systemd unit
//! 8. what an interpreter runs
//! 9. the executable's file name
//! 10. comm
//!
//! [`Evidence`] says which one it was.

use std::sync::Arc;

use super::cgroup::{Place, unit_name};
use super::environ::Environ;
use super::kube::Pod;
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

    /// The service that these facts make in `pod`, where that is known, for connections that are accepted on `port`.
    pub(super) fn service(&self, rules: &[Rule], port: Option<u16>, pod: Option<&Pod>) -> Service {
        let subject = self.subject(port);
        let rule = rules.iter().find(|rule| rule.when.fits(&subject));
        let (name, evidence) = match rule.and_then(|rule| rule.name.clone()) {
            Some(name) => (name, Evidence::Rule),
            None => self.name(pod),
        };
        let environ = self.environ.as_ref();
        let namespace = rule
            .and_then(|rule| rule.namespace.clone())
            .or_else(|| environ?.attribute("service.namespace").cloned())
            .or_else(|| Some(pod?.namespace.clone()));
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
            attributes: self.attributes(pod),
        }
    }

    fn name(&self, pod: Option<&Pod>) -> (Arc<str>, Evidence) {
        let environ = self.environ.as_ref();
        let unit = || self.place.unit.as_deref().and_then(unit_name);
        None.or_else(|| Some((environ?.service_name.clone()?, Evidence::OtelServiceName)))
            .or_else(|| Some((environ?.attribute("service.name").cloned()?, Evidence::OtelResourceAttributes)))
            .or_else(|| pod.map(|pod| (pod.name.clone(), pod.evidence)))
            .or_else(|| Some((unit()?, Evidence::Unit)))
            .or_else(|| Some((self.script.clone()?, Evidence::Script)))
            .or_else(|| Some((self.executable_name.clone()?, Evidence::Executable)))
            .or_else(|| Some((self.comm.clone()?, Evidence::Comm)))
            .unwrap_or_else(|| (Arc::from("unknown"), Evidence::Unknown))
    }

    /// What its place proves, then what the process says of itself, then what is said of its pod, but for what
    /// [`Service`] has a field for.
    fn attributes(&self, pod: Option<&Pod>) -> Vec<(Arc<str>, Arc<str>)> {
        const FIELDS: &[&str] = &["service.name", "service.namespace", "container.id"];
        let container = self.place.container.as_deref().and_then(|id| pod?.container(id).cloned());
        let place = [
            ("container.runtime.name", self.place.runtime.map(Arc::from)),
            ("k8s.container.name", container),
            // Of a static pod, the group carries another number than the pod has.
            ("k8s.pod.uid", pod.map(|pod| pod.uid.clone()).or_else(|| self.place.pod.clone())),
        ];
        let place = place.into_iter().filter_map(|(key, value)| Some((Arc::from(key), value?)));
        let place = place.chain(pod.into_iter().flat_map(|pod| pod.attributes.iter().cloned()));
        let said = self.environ.iter().flat_map(|environ| environ.attributes.iter().rev().cloned());
        let said = said.chain(pod.into_iter().flat_map(|pod| pod.said.iter().cloned()));
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
            let service = facts.service(&rules, port, None);
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
        let service = facts.service(&[], None, None);
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
