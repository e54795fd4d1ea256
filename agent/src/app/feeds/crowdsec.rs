//! A local API of CrowdSec, asked as its bouncers ask: everything once, then what changed. After any failure everything
//! again, as an answer that was lost is not told twice.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::board::Good;
use super::fetch::{Got, Http, Mark, file};
use super::kept::Kept;
use super::{Desk, Trouble};
use crate::clock;
use crate::config::Feed;
use crate::policy::list::decisions::Decisions;

/// Bytes of a file with a key.
const KEY: usize = 4096;
/// Shortest wait.
const LEAST: Duration = Duration::from_millis(500);

/// Follows the API until it is aborted.
pub(super) async fn run(feed: Feed, url: String, key: PathBuf, desk: Desk) {
    let keep = feed.rule.ttl.as_deref().and_then(|ttl| humantime::parse_duration(ttl).ok()).unwrap_or(Duration::MAX);
    let decisions = Arc::new(Mutex::new(Decisions::default()));
    let (mut http, mut whole) = (None, true);
    // What was kept holds until all is told anew, each ban until its end.
    let mut good: Option<Instant> =
        desk.recall(&feed, keep).await.map(|(_, _, age)| Instant::now().checked_sub(age).unwrap_or_else(Instant::now));
    let mut ask_at = Instant::now();
    loop {
        let mut next = None;
        if ask_at <= Instant::now() {
            ask_at = Instant::now() + feed.refresh;
            let answer = ask(&url, &key, whole, &mut http, &desk).await;
            let taken = match answer {
                Ok(bytes) => take(&feed, &desk, &decisions, Some((bytes.to_vec(), whole))).await,
                Err(trouble) => Err(trouble),
            };
            whole = taken.is_err();
            match taken {
                Ok((told, end)) => {
                    (good, next) = (Some(Instant::now()), end);
                    desk.board.good(&feed.name, &told);
                }
                Err(trouble) => {
                    desk.board.failed(&feed.name, &trouble);
                    if good.is_some_and(|good| good.elapsed() >= keep) {
                        good = None;
                        *decisions.lock().unwrap_or_else(PoisonError::into_inner) = Decisions::default();
                        desk.board.over(&feed.name);
                    }
                }
            }
        }
        if next.is_none() && good.is_some() && !decisions.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            // Bans end by themselves, whether the API answers or not; the kernel half knows their ends too.
            match take(&feed, &desk, &decisions, None).await {
                Ok((_, end)) => next = end,
                Err(trouble) => desk.board.failed(&feed.name, &trouble),
            }
        }
        let wait = ask_at.saturating_duration_since(Instant::now());
        let end = next.map_or(wait, |end| Duration::from_nanos(end.saturating_sub(clock::monotonic_ns())));
        tokio::time::sleep(wait.min(end).max(LEAST)).await;
    }
}

async fn ask(url: &str, key: &Path, whole: bool, http: &mut Option<Http>, desk: &Desk) -> Result<Bytes, Trouble> {
    // Read each time: a key that was changed needs no restart.
    let path = key.to_owned();
    let read = desk
        .aside(move |_, _| file(&path, &Mark::None))
        .await
        .map_err(|Trouble { text, .. }| Trouble::new("key", text))?;
    let secret = match &read {
        Got::List(bytes, _) if bytes.len() <= KEY => String::from_utf8_lossy(bytes).trim().to_owned(),
        Got::List(..) | Got::Same => return Err(Trouble::new("key", format!("{}: longer than a key", key.display()))),
    };
    let client = match http {
        Some(client) => client,
        none => none.insert(Http::new(url)?),
    };
    let url = format!("{url}/v1/decisions/stream?startup={whole}");
    match client.get(&url, &Mark::None, Some(("x-api-key", &secret))).await? {
        Got::List(bytes, _) => Ok(bytes),
        Got::Same => Err(Trouble::new("status", "it says that it is unchanged, and was not asked")),
    }
}

/// Takes an answer, ends bans whose time is over, and puts what is left in force. Gives the end of the next one.
async fn take(
    feed: &Feed,
    desk: &Desk,
    decisions: &Arc<Mutex<Decisions>>,
    answer: Option<(Vec<u8>, bool)>,
) -> Result<(Good, Option<u64>), Trouble> {
    let (feed, decisions, shelf) = (feed.clone(), Arc::clone(decisions), desk.shelf.clone());
    desk.aside(move |blocks, alive| {
        let mut kept = decisions.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic_ns();
        let mut next = kept.clone();
        let mut good = Good::default();
        if let Some((bytes, whole)) = &answer {
            let saves = blocks.saves(feed.rule.force);
            let told = next.take(bytes, *whole, now, feed.max, |prefix| saves.of(prefix))?;
            (good.left_out, good.note) = (told.left_out, told.first);
        }
        let end = next.expire(now);
        if answer.is_none() && next.len() == kept.len() {
            return Ok((good, end));
        }
        let (clients, ends) = next.clients();
        blocks.take_feed(&feed, clients.clone(), ends.clone(), alive)?;
        let entries = clients.len();
        shelf.keep(&feed, &Kept { clients, ends, entries, left_out: 0 });
        (good.entries, good.rules) = (next.len(), usize::from(!next.is_empty()));
        *kept = next;
        Ok((good, end))
    })
    .await
}
