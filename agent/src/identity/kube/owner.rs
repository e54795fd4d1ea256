//! Pod → the workload that made it.
//!
//! A pod names its owner; a `ReplicaSet` or Job may have one of its own. That one is told by the owner's metadata, or, of
//! a Deployment, by the name: its controller calls a `ReplicaSet` `<deployment>-<hash>` and labels each pod with that
//! hash (`pod-template-hash`), so that no further question is needed for most pods.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::super::environ::clean;

/// Most owners that are remembered.
const OWNERS: usize = 4096;

/// A kind of workload that OpenTelemetry has attributes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    CronJob,
    Job,
}

impl Kind {
    fn of(reference: &OwnerReference) -> Option<Self> {
        let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
        Some(match (group, reference.kind.as_str()) {
            ("apps", "Deployment") => Self::Deployment,
            ("apps", "ReplicaSet") => Self::ReplicaSet,
            ("apps", "StatefulSet") => Self::StatefulSet,
            ("apps", "DaemonSet") => Self::DaemonSet,
            ("batch", "CronJob") => Self::CronJob,
            ("batch", "Job") => Self::Job,
            _ => return None,
        })
    }

    /// Semantic conventions: name and uid.
    fn keys(self) -> [&'static str; 2] {
        match self {
            Self::Deployment => ["k8s.deployment.name", "k8s.deployment.uid"],
            Self::ReplicaSet => ["k8s.replicaset.name", "k8s.replicaset.uid"],
            Self::StatefulSet => ["k8s.statefulset.name", "k8s.statefulset.uid"],
            Self::DaemonSet => ["k8s.daemonset.name", "k8s.daemonset.uid"],
            Self::CronJob => ["k8s.cronjob.name", "k8s.cronjob.uid"],
            Self::Job => ["k8s.job.name", "k8s.job.uid"],
        }
    }
}

/// One owner of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: Kind,
    pub(super) name: Arc<str>,
    /// Absent where only the name is proven.
    pub(super) uid: Option<Arc<str>>,
}

impl Owner {
    /// The owner that controls an object.
    pub(super) fn controlling(meta: &ObjectMeta) -> Option<Self> {
        let all = meta.owner_references.as_ref()?;
        let reference = all.iter().find(|reference| reference.controller == Some(true))?;
        Some(Self { kind: Kind::of(reference)?, name: clean(&reference.name)?, uid: clean(&reference.uid) })
    }
}

/// The owners of a pod, nearest first; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    nearest: Owner,
    farthest: Option<Owner>,
}

impl Workload {
    /// The name that its user gave: of the farthest owner.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.farthest.as_ref().unwrap_or(&self.nearest).name
    }

    /// Resource attributes.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> + '_ {
        std::iter::once(&self.nearest).chain(&self.farthest).flat_map(|owner| {
            let [name, uid] = owner.kind.keys();
            let name = (Arc::from(name), owner.name.clone());
            std::iter::once(name).chain(owner.uid.clone().map(|value| (Arc::from(uid), value)))
        })
    }
}

/// What is known of owners that have owners.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By uid of a `ReplicaSet` or Job: who controls it.
    known: HashMap<Arc<str>, Option<Owner>>,
}

impl Owners {
    /// What made the pod.
    pub(super) fn workload(&self, pod: &ObjectMeta) -> Option<Workload> {
        let nearest = Owner::controlling(pod)?;
        let known = nearest.uid.as_ref().and_then(|uid| self.known.get(uid)).cloned().flatten();
        let farthest = known.or_else(|| by_name(pod, &nearest));
        Some(Workload { nearest, farthest })
    }

    /// The owner of a pod whose own owner must be asked for.
    pub(super) fn unknown(&self, pod: &ObjectMeta) -> Option<Owner> {
        let owner = Owner::controlling(pod)?;
        let may_have = matches!(owner.kind, Kind::ReplicaSet | Kind::Job);
        let known = by_name(pod, &owner).is_some() || self.known.contains_key(owner.uid.as_ref()?);
        (may_have && !known).then_some(owner)
    }

    /// Notes who controls the owner with this uid.
    pub(super) fn learn(&mut self, uid: Arc<str>, of: Option<Owner>) {
        if self.known.len() >= OWNERS {
            self.known.clear();
        }
        self.known.insert(uid, of);
    }
}

/// The Deployment of a `ReplicaSet` that carries the pod's own hash at the end of its name.
fn by_name(pod: &ObjectMeta, owner: &Owner) -> Option<Owner> {
    if owner.kind != Kind::ReplicaSet {
        return None;
    }
    let hash = pod.labels.as_ref()?.get("pod-template-hash")?;
    let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-').filter(|name| !name.is_empty())?;
    Some(Owner { kind: Kind::Deployment, name: Arc::from(name), uid: None })
}
