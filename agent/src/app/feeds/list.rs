//! A list that is published whole: by HTTP, or as a file.

use std::path::Path;
use std::time::{Duration, Instant};

use super::board::Good;
use super::fetch::{Got, Http, Mark, file};
use super::kept::Kept;
use super::watch::Watch;
use super::{Desk, Trouble};
use crate::config::{Feed, Origin};
use crate::policy::list;

/// Until the first good list, it is asked for as often as this.
const EAGER: Duration = Duration::from_secs(10);

/// The last good list.
struct Held {
    entries: usize,
    good: Good,
    at: Instant,
    /// How old it was then.
    aged: Duration,
    mark: Mark,
}

/// Follows the feed until it is aborted.
pub(super) async fn run(feed: Feed, desk: Desk) {
    let watch = Watch::new();
    let keep = feed.rule.ttl.as_deref().and_then(|ttl| humantime::parse_duration(ttl).ok()).unwrap_or(Duration::MAX);
    let mut http = None;
    let recalled = desk.recall(&feed, keep).await;
    let mut held =
        recalled.map(|(entries, good, aged)| Held { entries, good, at: Instant::now(), aged, mark: Mark::None });
    loop {
        if held.as_ref().is_some_and(|held| held.at.elapsed() + held.aged >= keep) {
            // Its rule has ended by itself. A list that shrank for good is taken from here on.
            held = None;
            desk.board.over(&feed.name);
        }
        if let Origin::File(path) = &feed.origin {
            watch.on(path.parent().unwrap_or(Path::new("/")));
        }
        match look(&feed, &desk, &mut http, held.as_ref()).await {
            Ok(next) => {
                desk.board.good(&feed.name, &next.good);
                held = Some(next);
            }
            Err(trouble) => desk.board.failed(&feed.name, &trouble),
        }
        let wait = if held.is_some() { feed.refresh } else { feed.refresh.min(EAGER) };
        match feed.origin {
            Origin::File(_) => watch.changed(wait).await,
            Origin::Url(_) | Origin::CrowdSec { .. } => tokio::time::sleep(wait).await,
        }
    }
}

async fn look(feed: &Feed, desk: &Desk, http: &mut Option<Http>, held: Option<&Held>) -> Result<Held, Trouble> {
    let known = held.map_or(Mark::None, |held| held.mark.clone());
    let got = match &feed.origin {
        Origin::File(path) => {
            let path = path.clone();
            desk.aside(move |_, _| file(&path, &known)).await?
        }
        Origin::Url(url) | Origin::CrowdSec { url, .. } => {
            let client = match http {
                Some(client) => client,
                none => none.insert(Http::new(url)?),
            };
            client.get(url, &known, None).await?
        }
    };
    let before = held.map(|held| held.entries);
    let (work, kept) = (feed.clone(), held.map(|held| (held.entries, held.good.clone(), held.mark.clone())));
    let shelf = desk.shelf.clone();
    desk.aside(move |blocks, alive| {
        let (bytes, mark) = match (got, kept) {
            (Got::List(bytes, mark), _) => (bytes, mark),
            (Got::Same, Some((entries, good, mark))) => {
                blocks.renew_feed(&work, alive)?;
                shelf.still(&work);
                return Ok(Held { entries, good, at: Instant::now(), aged: Duration::ZERO, mark });
            }
            (Got::Same, None) => return Err(Trouble::new("status", "it says that it is unchanged, and was not asked")),
        };
        let read = list::read(&bytes, work.format, work.max)?;
        let (bad, first) = (read.bad, read.first.clone());
        let saves = blocks.saves(work.rule.force);
        let list = read.judge(before, |prefix| saves.of(prefix))?;
        let note = match (&list.first, first) {
            (Some((prefix, what)), _) => Some(format!("{prefix} would hit {what}")),
            (None, first) => first.map(Into::into),
        };
        blocks.take_feed(&work, list.prefixes.clone(), Vec::new(), alive)?;
        let (entries, left_out) = (list.entries, list.saved);
        shelf.keep(&work, &Kept { clients: list.prefixes, ends: Vec::new(), entries, left_out });
        let good = Good { rules: 1, entries: entries - left_out, left_out: bad + left_out, note };
        Ok(Held { entries, good, at: Instant::now(), aged: Duration::ZERO, mark })
    })
    .await
}
