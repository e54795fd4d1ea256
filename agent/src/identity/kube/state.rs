//! How the watch stands: what is known, and since when nothing new is heard, and why.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pods of this node.
    Pods,
    /// Services of the cluster.
    Services,
    /// `EndpointSlice`s of the cluster.
    EndpointSlices,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pods, Self::Services, Self::EndpointSlices];

    /// As the API calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
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
}

#[derive(Debug, Default)]
struct One {
    listed: bool,
    objects: u64,
    trouble: Option<(Trouble, Instant)>,
}

/// The state of the watch, shared.
#[derive(Debug, Default)]
pub struct State {
    /// The node whose pods are watched.
    pub node: String,
    all: Mutex<[One; 3]>,
}

impl State {
    pub(super) fn of(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, [One; 3]> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, kind: Kind, act: impl FnOnce(&mut One) -> T) -> Option<T> {
        self.lock().get_mut(kind as usize).map(act)
    }

    /// How each kind stands.
    #[must_use]
    pub fn kinds(&self) -> Vec<(Kind, Kinds)> {
        let all = self.lock();
        let rows = Kind::ALL.into_iter().zip(all.iter()).map(|(kind, one)| {
            let age = one.trouble.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
            let trouble = one.trouble.as_ref().map(|(trouble, _)| trouble.clone());
            (kind, Kinds { listed: one.listed, objects: one.objects, trouble, age })
        });
        rows.collect()
    }

    /// Something is in the way; said in the log once, until it is another thing or it is gone.
    pub(super) fn trouble(&self, kind: Kind, trouble: &Trouble) {
        let new = self.with(kind, |one| {
            let since = one.trouble.as_ref().map_or_else(Instant::now, |(_, since)| *since);
            let old = one.trouble.replace((trouble.clone(), since));
            old.is_none_or(|(old, _)| old.remedy != trouble.remedy)
        });
        if new == Some(true) {
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

    pub(super) fn holds(&self, kind: Kind, objects: usize) {
        self.with(kind, |one| one.objects = objects as u64);
    }
}
