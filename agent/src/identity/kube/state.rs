//! How the watch stands: what is known, and since when nothing new is heard, and why.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::addresses::Source;
use super::book::End;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pods of this node.
    Pods,
    /// Services of the cluster.
    Services,
    /// `EndpointSlice`s of the cluster.
    EndpointSlices,
    /// `WeirPolicy` objects of the cluster.
    Policies,
    /// Nodes of the cluster.
    Nodes,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pods, Self::Services, Self::EndpointSlices, Self::Policies, Self::Nodes];

    /// As the API calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Policies => "weirpolicies",
            Self::Nodes => "nodes",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one of them stands.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// All of them were listed once.
    pub listed: bool,
    /// How many are known.
    pub objects: u64,
    /// What is in the way, and what to do about it; absent where it is up to date.
    pub trouble: Option<Trouble>,
    /// How old what is known is, where something is in the way.
    pub age: Duration,
}

/// Why nothing new is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened.
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// The server has no such kind: nothing is wrong.
    pub absent: bool,
}

#[derive(Debug, Default)]
struct One {
    /// It is asked for.
    watched: bool,
    listed: bool,
    objects: u64,
    trouble: Option<(Trouble, Instant)>,
}

/// The state of the watch, shared.
#[derive(Debug, Default)]
pub struct State {
    /// The node whose pods are watched.
    pub node: String,
    all: Mutex<[One; 5]>,
    /// Namespaces that have a pod on this node.
    local: watch::Sender<Arc<BTreeSet<Arc<str>>>>,
    /// Why the status of policies can't be written.
    unwritten: Mutex<Option<Trouble>>,
    /// Addresses that stand for many, by the Service or node whose they are.
    shared: Mutex<HashMap<Source, Vec<IpAddr>>>,
}

impl State {
    pub(super) fn of(node: &str) -> Self {
        let state = Self { node: node.to_owned(), ..Self::default() };
        for kind in [Kind::Pods, Kind::Services, Kind::EndpointSlices] {
            state.watched(kind, true);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, [One; 5]> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, kind: Kind, act: impl FnOnce(&mut One) -> T) -> Option<T> {
        self.lock().get_mut(kind as usize).map(act)
    }

    /// How each kind that is watched stands.
    #[must_use]
    pub fn kinds(&self) -> Vec<(Kind, Kinds)> {
        let all = self.lock();
        let rows = Kind::ALL.into_iter().zip(all.iter()).filter(|(_, one)| one.watched).map(|(kind, one)| {
            let age = one.trouble.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
            let trouble = one.trouble.as_ref().map(|(trouble, _)| trouble.clone());
            (kind, Kinds { listed: one.listed, objects: one.objects, trouble, age })
        });
        rows.collect()
    }

    /// Whose an address is that stands for many: a Service, or a node. `None`: a pod's, or nobody's that is known.
    #[must_use]
    pub fn shared(&self, address: IpAddr) -> Option<Box<str>> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of = shared.iter().filter(|(_, all)| all.contains(&address)).map(|(source, _)| source);
        match of.next()? {
            Source::Node(name) => Some(format!("an address of the node {name}").into()),
            Source::Service(name) => Some(format!("an address of the Service {name}").into()),
            Source::Pod(_) | Source::Slice(_) => None,
        }
    }

    /// These are the addresses of a Service or node, and no others.
    pub(super) fn shares(&self, source: &Source, ends: &[End]) {
        if !matches!(source, Source::Service(_) | Source::Node(_)) {
            return;
        }
        let mut all: Vec<IpAddr> = ends.iter().map(|end| end.ip).collect();
        all.dedup();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            shared.remove(source);
        } else {
            shared.insert(source.clone(), all);
        }
    }

    /// Namespaces that have a pod on this node, now and as they change.
    #[must_use]
    pub fn local(&self) -> watch::Receiver<Arc<BTreeSet<Arc<str>>>> {
        self.local.subscribe()
    }

    pub(super) fn set_local(&self, namespaces: BTreeSet<Arc<str>>) {
        self.local.send_if_modified(|known| {
            let differs = **known != namespaces;
            if differs {
                *known = Arc::new(namespaces);
            }
            differs
        });
    }

    /// Why the status of policies can't be written, where it can't.
    #[must_use]
    pub fn unwritten(&self) -> Option<Trouble> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the status of a policy could be written; said once.
    pub(super) fn wrote(&self, trouble: Option<Trouble>) {
        let mut known = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trouble) = trouble.as_ref().filter(|now| known.as_ref().is_none_or(|old| old.remedy != now.remedy))
        {
            tracing::warn!(why = trouble.why, remedy = trouble.remedy, "the status of policies can't be written");
        }
        *known = trouble;
    }

    pub(super) fn watched(&self, kind: Kind, watched: bool) {
        self.with(kind, |one| *one = One { watched, ..One::default() });
    }

    /// Something is in the way; said in the log once, until it is another thing or it is gone.
    pub(super) fn trouble(&self, kind: Kind, trouble: &Trouble) {
        let new = self.with(kind, |one| {
            let since = one.trouble.as_ref().map_or_else(Instant::now, |(_, since)| *since);
            let old = one.trouble.replace((trouble.clone(), since));
            old.is_none_or(|(old, _)| old.remedy != trouble.remedy)
        });
        if new == Some(true) && trouble.absent {
            tracing::info!(%kind, remedy = trouble.remedy, "Kubernetes has no such kind; it is asked again");
        } else if new == Some(true) {
            let known = "what was known before holds; it is tried again";
            tracing::warn!(%kind, why = trouble.why, remedy = trouble.remedy, "Kubernetes does not tell: {known}");
        }
    }

    /// It is up to date.
    pub(super) fn fine(&self, kind: Kind) {
        if self.with(kind, |one| one.trouble.take()).flatten().is_some() {
            tracing::info!(%kind, "Kubernetes tells again");
        }
    }

    pub(super) fn listed(&self, kind: Kind) {
        self.with(kind, |one| one.listed = true);
    }

    /// So many objects of a kind are known.
    pub fn holds(&self, kind: Kind, objects: usize) {
        self.with(kind, |one| one.objects = objects as u64);
    }
}
