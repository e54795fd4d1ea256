//! Where rules come from beside configuration, CLI and control API: a watched folder, feeds of addresses, and policies of
//! a cluster. Each has a task of its own; what fails keeps the rules of before, is said once, and counted.

mod board;
mod crowdsec;
mod directory;
mod fetch;
mod kept;
mod list;
mod policies;
mod report;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::blocks::{Blocks, Refused};
use crate::config::{DIRECTORY, Feed, Origin, POLICIES, Settings};
use crate::identity::kube::Watch as Cluster;
use crate::policy::list::ListError;
use crate::policy::rule::Source;

pub(super) use board::Row;
use board::{Board, Good};
use kept::Shelf;

/// Why a source gave nothing new.
#[derive(Debug)]
pub(super) struct Trouble {
    /// One word for a metric.
    reason: &'static str,
    /// For people; without URLs, which may hold secrets.
    text: String,
}

impl Trouble {
    fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl From<ListError> for Trouble {
    fn from(error: ListError) -> Self {
        Self::new(error.reason(), error.to_string())
    }
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        Self::new("refused", refused.to_string())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Directory(PathBuf),
    Feed(Box<Feed>),
    /// Policies, and the namespaces whose ones may name any server.
    Policies(Vec<String>),
}

impl What {
    fn name(&self) -> &str {
        match self {
            Self::Directory(_) => DIRECTORY,
            Self::Feed(feed) => &feed.name,
            Self::Policies(_) => POLICIES,
        }
    }
}

/// What a source's task works with.
#[derive(Clone)]
struct Desk {
    blocks: Arc<Blocks>,
    board: Arc<Board>,
    shelf: Shelf,
    /// Cleared, under the rules' lock or before it is taken, once the source is not wanted any more.
    alive: Arc<AtomicBool>,
}

impl Desk {
    /// Does what takes the rules' lock, where the runtime need not wait for it.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blocks, &AtomicBool) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let desk = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&desk.blocks, &desk.alive)).await;
        done.unwrap_or_else(|error| Err(Trouble::new("internal", error.to_string())))
    }
}

impl Desk {
    /// Puts the list in force that is kept of a feed, unless it is older than `keep`; gives its entries, and how old it
    /// is.
    async fn recall(&self, feed: &Feed, keep: Duration) -> Option<(usize, Good, Duration)> {
        let (mut work, shelf) = (feed.clone(), self.shelf.clone());
        let recalled = self.aside(move |blocks, alive| {
            let found = shelf.find(&work).map_err(|why| Trouble::new("state", why))?;
            let Some((mut kept, age)) = found.filter(|(_, age)| *age < keep) else { return Ok(None) };
            // Whom it must not meet may have changed meanwhile.
            let saves = blocks.saves(work.rule.force);
            let stays: Vec<bool> = kept.clients.iter().map(|client| saves.of(client).is_none()).collect();
            let mut stay = stays.iter();
            kept.clients.retain(|_| stay.next().is_some_and(|stays| *stays));
            let mut stay = stays.iter();
            kept.ends.retain(|_| stay.next().is_some_and(|stays| *stays));
            if work.rule.ttl.is_some() {
                work.rule.ttl = Some(format!("{}ns", keep.saturating_sub(age).as_nanos()));
            }
            let rules = usize::from(!kept.clients.is_empty());
            blocks.take_feed(&work, kept.clients, kept.ends, alive)?;
            let good = Good { rules, entries: kept.entries - kept.left_out, left_out: kept.left_out, note: None };
            Ok(Some((kept.entries, good, age)))
        });
        match recalled.await {
            Ok(Some((entries, good, age))) => {
                self.board.recalled(&feed.name, &good, age);
                Some((entries, good, age))
            }
            Ok(None) => None,
            Err(trouble) => {
                self.board.failed(&feed.name, &trouble);
                None
            }
        }
    }
}

struct Running {
    what: What,
    alive: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Release);
        self.task.abort();
    }
}

/// The sources of this node.
pub(super) struct Feeds {
    blocks: Arc<Blocks>,
    board: Arc<Board>,
    running: Mutex<Vec<Running>>,
    cluster: Option<Arc<Cluster>>,
}

impl Feeds {
    /// None runs yet. `cluster`: where Kubernetes is asked.
    pub(super) fn new(blocks: Arc<Blocks>, cluster: Option<Arc<Cluster>>) -> Self {
        Self { blocks, board: Arc::default(), running: Mutex::default(), cluster }
    }

    /// Starts what the settings ask for and does not run, ends what they don't ask for. Within a tokio runtime.
    pub(super) fn configure(&self, settings: &Settings) {
        let directory = settings.directory.clone().map(What::Directory);
        let feeds = settings.feeds.iter().cloned().map(Box::new).map(What::Feed);
        let cluster = self.cluster.as_ref().filter(|_| settings.policies.taken);
        let policies = cluster.map(|_| What::Policies(settings.policies.wide.clone()));
        let wanted: Vec<What> = directory.into_iter().chain(feeds).chain(policies).collect();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|old| wanted.contains(&old.what));
        let has = |name: &str| wanted.iter().any(|what| what.name() == name);
        self.blocks.forget(|source| match source {
            Source::File(_) => !has(DIRECTORY),
            Source::Feed(name) => !has(name),
            Source::Cluster(_) => !has(POLICIES),
            Source::Config | Source::Control | Source::Detector(_) => false,
        });
        self.board.keep(has);
        for what in wanted {
            if running.iter().any(|old| old.what == what) {
                continue;
            }
            let alive = Arc::new(AtomicBool::new(true));
            let (blocks, board) = (Arc::clone(&self.blocks), Arc::clone(&self.board));
            let shelf = Shelf::of(settings.state.as_deref());
            let desk = Desk { blocks, board, shelf, alive: Arc::clone(&alive) };
            let task = match what.clone() {
                What::Policies(wide) => match &self.cluster {
                    Some(cluster) => tokio::spawn(policies::run(Arc::clone(cluster), wide, desk)),
                    None => continue,
                },
                What::Directory(path) => tokio::spawn(directory::run(path, desk)),
                What::Feed(feed) => match feed.origin.clone() {
                    Origin::CrowdSec { url, key } => tokio::spawn(crowdsec::run(*feed, url, key, desk)),
                    Origin::File(_) | Origin::Url(_) => tokio::spawn(list::run(*feed, desk)),
                },
            };
            running.push(Running { what, alive, task });
        }
    }

    /// Ends all of them; their rules stay.
    pub(super) fn stop(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How each of them is.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.board.rows()
    }
}

#[cfg(test)]
mod tests;
