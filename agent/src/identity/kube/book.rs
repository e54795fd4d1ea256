//! What was heard, as the one who names processes keeps it. It takes what has come and never waits.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::pod::Pod;
use super::watch::Change;
use crate::model::Service;

/// Most changes that are taken at once, so that records are not kept waiting.
const AT_ONCE: usize = 256;
/// How long a pod that is gone is remembered, nanoseconds: its last records come late.
const GRACE: u64 = 60_000_000_000;

/// Where somebody may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// Address, IPv4-mapped ones as IPv4.
    pub(crate) ip: IpAddr,
    /// TCP port; absent: the whole address.
    pub(crate) port: Option<u16>,
}

/// Pods and addresses.
#[derive(Debug, Default)]
pub(crate) struct Book {
    news: Option<Receiver<Change>>,
    /// By what a pod's cgroup calls it.
    pods: HashMap<Arc<str>, Arc<Pod>>,
    /// Pods that are gone, with the time of it.
    gone: VecDeque<(u64, Arc<Pod>)>,
    ends: HashMap<End, Arc<Service>>,
}

impl Book {
    /// A book that is kept up to date from `news`.
    pub(crate) fn of(news: Receiver<Change>) -> Self {
        Self { news: Some(news), ..Self::default() }
    }

    /// Takes what has come since; gives the pods whose processes are named otherwise now, by what their cgroups call
    /// them. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub(crate) fn hear(&mut self, now: u64) -> Vec<Arc<str>> {
        let mut renamed = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(Ok(change)) = self.news.as_mut().map(Receiver::try_recv) else { break };
            match change {
                Change::Pod(pod) => {
                    renamed.push(pod.place.clone());
                    self.pods.insert(pod.place.clone(), pod);
                }
                Change::Gone(pod) => self.gone.push_back((now, pod)),
                Change::End(end, Some(service)) => {
                    self.ends.insert(end, service);
                }
                Change::End(end, None) => {
                    self.ends.remove(&end);
                }
            }
        }
        while let Some((at, _)) = self.gone.front()
            && at.saturating_add(GRACE) < now
            && let Some((_, pod)) = self.gone.pop_front()
        {
            // A static pod that was written anew keeps its place under another uid.
            if self.pods.get(&pod.place).is_some_and(|known| known.uid == pod.uid) {
                self.pods.remove(&pod.place);
            }
        }
        renamed
    }

    /// The pod that a cgroup names.
    pub(crate) fn pod(&self, place: &str) -> Option<&Arc<Pod>> {
        self.pods.get(place)
    }

    /// Who is at the other end of a connection; where `answers`, it is the end that was connected to.
    pub(crate) fn at(&self, remote: SocketAddr, answers: bool) -> Option<&Arc<Service>> {
        let ip = remote.ip().to_canonical();
        let port = Some(remote.port()).filter(|_| answers);
        self.ends.get(&End { ip, port: None }).or_else(|| self.ends.get(&End { ip, port: Some(port?) }))
    }
}
