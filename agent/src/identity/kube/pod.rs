//! A pod as it names what runs in it: bounded, harmless, and no longer than that.
//!
//! Names by OpenTelemetry's "Specify resource attributes using Kubernetes annotations" and "Service attributes".

use std::net::IpAddr;
use std::sync::Arc;

use super::super::environ::clean;
use super::addresses::address;
use super::documents::PodDocument;
use super::owner::Owners;
use crate::model::{Evidence, Service};

/// What an annotation that sets a Resource attribute begins with.
const ANNOTATION: &str = "resource.opentelemetry.io/";
/// Longest attribute's key or value that an annotation may set, bytes; a longer one is left out.
const VALUE: usize = 255;
/// Most attributes that annotations may set on one pod.
const ATTRIBUTES: usize = 32;
/// Most containers of one pod, those included that have ended.
const CONTAINERS: usize = 64;
/// Most addresses of one pod (one of each family, by the API).
const ADDRESSES: usize = 4;

/// What the API server calls a static pod's number of its own, which is the one that its cgroup carries.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its uid as the API server has it.
    pub(crate) uid: Arc<str>,
    /// What its cgroup calls it: the uid, or of a static pod the hash of its file.
    pub(crate) place: Arc<str>,
    /// `service.name`, and where it was found.
    pub(crate) name: Arc<str>,
    pub(crate) evidence: Evidence,
    /// `service.namespace`.
    pub(crate) namespace: Arc<str>,
    /// `k8s.*`: proven.
    pub(crate) attributes: Vec<(Arc<str>, Arc<str>)>,
    /// What annotations and labels say: behind what its processes say themselves.
    pub(crate) said: Vec<(Arc<str>, Arc<str>)>,
    /// Container id → name.
    pub(crate) containers: Vec<(Arc<str>, Arc<str>)>,
    /// Its own addresses; none where it shares those of its node.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Pod {
    /// Its namespace.
    pub(super) fn k8s_namespace(&self) -> Option<&Arc<str>> {
        self.attributes.iter().find(|(key, _)| &**key == "k8s.namespace.name").map(|(_, value)| value)
    }

    /// Reads a document; `None` if it is not one of a pod. `refused` counts values that can't be used.
    pub(super) fn of(document: &PodDocument, owners: &Owners, refused: &mut u64) -> Option<Self> {
        let meta = &document.metadata;
        let uid = clean(meta.uid.as_deref()?)?;
        let (k8s_namespace, pod_name) = (clean(meta.namespace.as_deref()?)?, clean(meta.name.as_deref()?)?);
        let annotations = meta.annotations.iter().flatten();
        let mut said: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (key, value) in annotations.filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION)?, value))) {
            if key.is_empty() || key.len() > VALUE || value.len() > VALUE || said.len() >= ATTRIBUTES {
                *refused += 1;
                continue;
            }
            match (clean(key), clean(value)) {
                (Some(key), Some(value)) => said.push((key, value)),
                _ => *refused += 1,
            }
        }
        let mut take = |key: &str| said.iter().position(|(name, _)| &**name == key).map(|at| said.remove(at).1);
        let (annotated, annotated_namespace) = (take("service.name"), take("service.namespace"));
        let label = |key: &str| meta.labels.as_ref()?.get(key).and_then(|value| clean(value));
        if let Some(version) = label("app.kubernetes.io/version")
            && !said.iter().any(|(key, _)| &**key == "service.version")
        {
            said.push((Arc::from("service.version"), version));
        }

        let mut attributes: Vec<(Arc<str>, Arc<str>)> = vec![
            (Arc::from("k8s.namespace.name"), k8s_namespace.clone()),
            (Arc::from("k8s.pod.name"), pod_name.clone()),
            (Arc::from("k8s.pod.uid"), uid.clone()),
        ];
        if let Some(node) = document.spec.node_name.as_deref().and_then(clean) {
            attributes.push((Arc::from("k8s.node.name"), node));
        }
        let workload = owners.workload(meta);
        if let Some(workload) = &workload {
            attributes.extend(workload.attributes());
        }
        let named = None
            .or_else(|| Some((annotated?, Evidence::PodAnnotation)))
            .or_else(|| Some((label("app.kubernetes.io/instance")?, Evidence::PodLabel)))
            .or_else(|| Some((label("app.kubernetes.io/name")?, Evidence::PodLabel)));
        let (name, evidence) = named.unwrap_or_else(|| {
            (workload.map_or_else(|| pod_name.clone(), |workload| workload.name().clone()), Evidence::Workload)
        });
        Some(Self {
            place: mirrored(document).unwrap_or_else(|| uid.clone()),
            uid,
            name,
            evidence,
            namespace: annotated_namespace.unwrap_or(k8s_namespace),
            attributes,
            said,
            containers: containers(document),
            addresses: addresses(document),
        })
    }

    /// The name of the container with this id.
    pub(crate) fn container(&self, id: &str) -> Option<&Arc<str>> {
        self.containers.iter().find(|(known, _)| &**known == id).map(|(_, name)| name)
    }

    /// The pod as a service that is only known by its address.
    pub(super) fn service(&self) -> Service {
        let mut attributes: Vec<_> = self.attributes.iter().chain(&self.said).cloned().collect();
        attributes.sort_by(|(a, _), (b, _)| a.cmp(b));
        attributes.dedup_by(|(later, _), (kept, _)| later == kept);
        Service {
            name: self.name.clone(),
            namespace: Some(self.namespace.clone()),
            evidence: self.evidence,
            attributes,
            ..Service::unknown()
        }
    }
}

fn mirrored(document: &PodDocument) -> Option<Arc<str>> {
    clean(document.metadata.annotations.as_ref()?.get(MIRROR)?)
}

fn containers(document: &PodDocument) -> Vec<(Arc<str>, Arc<str>)> {
    let status = &document.status;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.chain(&status.ephemeral_container_statuses)
        .filter_map(|it| {
            let (_, id) = it.container_id.as_deref()?.split_once("://")?;
            Some((clean(id)?, clean(&it.name)?))
        })
        .take(CONTAINERS)
        .collect()
}

/// The pod's own addresses. A pod that has ended has none: they may be another's by now.
fn addresses(document: &PodDocument) -> Vec<IpAddr> {
    let status = &document.status;
    if document.spec.host_network || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let all = status.pod_ips.iter().map(|it| &it.ip).chain(&status.pod_ip);
    let mut list: Vec<IpAddr> = all.filter_map(|text| address(text)).take(ADDRESSES).collect();
    list.sort_unstable();
    list.dedup();
    list
}
