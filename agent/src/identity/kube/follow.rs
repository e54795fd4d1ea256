//! One kind of object, followed: listed in pages, then watched from there; begun anew when the server has forgotten
//! that point, and tried again with growing pauses when it fails.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Error, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::reach::{absent, late, trouble};
use super::state::{Kind, State, Trouble};
use crate::clock;

/// Until a page must have come.
const PAGE: Duration = Duration::from_secs(30);
/// How long one watch lasts, seconds: the server ends it then.
const WATCH: u32 = 240;
/// Beyond its length, until a watch counts as cut.
const MORE: Duration = Duration::from_secs(20);
/// How often a kind must be found to be none of the server's until its objects count as gone, some minutes: one that
/// starts says so too.
const ABSENT: u32 = 10;
/// First and longest pause after a failure.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// What happened to an object.
#[derive(Debug)]
pub(super) enum Event<K> {
    /// A new list begins.
    Begin,
    /// It is there.
    Here(K),
    /// It is gone.
    Gone(K),
    /// The list is complete: what was not in it is gone.
    End,
}

/// What to follow.
pub(super) struct Follow<K> {
    pub(super) kind: Kind,
    pub(super) api: Api<K>,
    pub(super) fields: Option<String>,
    /// Objects of a page: what is held at once is bounded by that.
    pub(super) page: u32,
    pub(super) state: Arc<State>,
}

/// Nobody listens any more.
pub(super) struct Closed;

enum Failed {
    Trouble(Trouble),
    /// The server does not remember the version that was asked for.
    Forgotten,
    /// The server has no such kind.
    Absent(Trouble),
    Closed,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match &error {
            Error::Api(status) if forgotten(status) => Self::Forgotten,
            Error::Api(status) if status.code == 404 => Self::Absent(trouble(&error)),
            _ => Self::Trouble(trouble(&error)),
        }
    }
}

/// HTTP 410.
fn forgotten(status: &Status) -> bool {
    status.code == 410
}

impl<K: Resource + Clone + DeserializeOwned + Debug + Send + 'static> Follow<K> {
    /// Follows until nobody listens.
    pub(super) async fn run<T>(self, to: Sender<T>, wrap: fn(Event<K>) -> T) -> Closed {
        let (mut pause, mut missed) = (Pause::default(), 0);
        loop {
            let listed = self.list(&to, wrap).await;
            let mut version = match listed {
                Ok(version) => version,
                // All other kinds are every server's own.
                Err(Failed::Absent(trouble)) if self.kind == Kind::Policies => {
                    self.state.trouble(self.kind, &absent(&trouble));
                    missed += 1;
                    if missed == ABSENT && self.none(&to, wrap).await.is_err() {
                        return Closed;
                    }
                    pause.wait().await;
                    continue;
                }
                Err(Failed::Closed) => return Closed,
                Err(Failed::Forgotten) => {
                    pause.wait().await;
                    continue;
                }
                Err(Failed::Trouble(trouble) | Failed::Absent(trouble)) => {
                    self.state.trouble(self.kind, &trouble);
                    pause.wait().await;
                    continue;
                }
            };
            self.state.listed(self.kind);
            missed = 0;
            loop {
                let mut since = None;
                let ended = self.watch(&mut version, &mut since, &to, wrap).await;
                let lasted = since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
                pause.after(lasted);
                match ended {
                    Ok(()) if lasted > Duration::from_secs(1) => pause = Pause::default(),
                    // A server that ends each watch at once is not asked without pause.
                    Ok(()) => pause.wait().await,
                    Err(Failed::Closed) => return Closed,
                    // A kind that is gone may be another one when it comes again.
                    Err(Failed::Forgotten | Failed::Absent(_)) => {
                        pause.wait().await;
                        break;
                    }
                    Err(Failed::Trouble(trouble)) => {
                        self.state.trouble(self.kind, &trouble);
                        pause.wait().await;
                    }
                }
            }
        }
    }

    /// An empty list.
    async fn none<T>(&self, to: &Sender<T>, wrap: fn(Event<K>) -> T) -> Result<(), Failed> {
        send(to, wrap(Event::Begin)).await?;
        send(to, wrap(Event::End)).await
    }

    /// All of them, in pages; gives the version that the list is of.
    async fn list<T>(&self, to: &Sender<T>, wrap: fn(Event<K>) -> T) -> Result<String, Failed> {
        let mut asked = ListParams { field_selector: self.fields.clone(), ..ListParams::default() }.limit(self.page);
        let mut begun = false;
        loop {
            let page = timeout(PAGE, self.api.list(&asked)).await;
            let page = page.map_err(|_| Failed::Trouble(late("listing")))??;
            if !begun {
                begun = true;
                self.state.fine(self.kind);
                send(to, wrap(Event::Begin)).await?;
            }
            for item in page.items {
                send(to, wrap(Event::Here(item))).await?;
            }
            asked.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if asked.continue_token.is_none() {
                send(to, wrap(Event::End)).await?;
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }

    /// What changes from `version` on, until the server ends it; `since`: when it was accepted.
    async fn watch<T>(
        &self,
        version: &mut String,
        since: &mut Option<Instant>,
        to: &Sender<T>,
        wrap: fn(Event<K>) -> T,
    ) -> Result<(), Failed> {
        let asked = WatchParams { field_selector: self.fields.clone(), ..WatchParams::default() }.timeout(WATCH);
        let stream = timeout(PAGE, self.api.watch(&asked, version)).await;
        let mut stream = pin!(stream.map_err(|_| Failed::Trouble(late("watching")))??);
        *since = Some(Instant::now());
        self.state.fine(self.kind);
        loop {
            let next = timeout(Duration::from_secs(u64::from(WATCH)) + MORE, stream.try_next()).await;
            let Some(event) = next.map_err(|_| Failed::Trouble(late("watching")))?? else { return Ok(()) };
            let event = match event {
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) if forgotten(&status) => return Err(Failed::Forgotten),
                WatchEvent::Error(status) => return Err(Failed::Trouble(trouble(&Error::Api(status)))),
                WatchEvent::Added(item) | WatchEvent::Modified(item) => Event::Here(item),
                WatchEvent::Deleted(item) => Event::Gone(item),
            };
            if let Event::Here(item) | Event::Gone(item) = &event
                && let Some(now) = &item.meta().resource_version
            {
                version.clone_from(now);
            }
            send(to, wrap(event)).await?;
        }
    }
}

async fn send<T>(to: &Sender<T>, what: T) -> Result<(), Failed> {
    to.send(what).await.map_err(|_| Failed::Closed)
}

/// Pauses that grow, each a little another one, so that not all nodes of a cluster come back at once.
#[derive(Debug, Default)]
pub(super) struct Pause(u32);

impl Pause {
    pub(super) async fn wait(&mut self) {
        sleep(self.next()).await;
    }

    /// A watch ended that lasted this long. Whatever failed before it is over where that is long: a balancer that cuts what
    /// is idle is no failing server.
    fn after(&mut self, lasted: Duration) {
        if lasted > PAUSES[1] {
            *self = Self::default();
        }
    }

    fn next(&mut self) -> Duration {
        let [first, longest] = PAUSES;
        let pause = first.saturating_mul(1 << self.0.min(10)).min(longest);
        self.0 += 1;
        // From three quarters of it to the whole.
        let shorter = pause.mul_f64(0.25 * (clock::monotonic_ns() % 1000) as f64 / 1000.0);
        pause.saturating_sub(shorter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let mut pause = Pause::default();
        let all: Vec<Duration> = (0..40).map(|_| pause.next()).collect();
        assert!(all[0] >= Duration::from_millis(375) && all[0] <= Duration::from_millis(500), "{:?}", all[0]);
        assert!(all[1] >= Duration::from_millis(750), "{:?}", all[1]);
        assert!(all.iter().skip(6).all(|it| *it <= Duration::from_secs(30) && *it >= Duration::from_secs(22)));
        pause.after(Duration::from_secs(30));
        assert!(pause.next() >= Duration::from_secs(22), "a watch that was cut soon is one more failure");
        pause.after(Duration::from_mins(1));
        assert!(pause.next() <= Duration::from_millis(500), "one that lasted is none");
    }
}
