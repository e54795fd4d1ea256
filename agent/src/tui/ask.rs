//! Asking the agent: once a second what the page in view needs, on a thread of its own, so that a slow agent never holds
//! up the keys.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::page::{Look, Page};
use super::rates::Rates;
use super::state::{Event, Header, News};
use super::wire::{self, Answer};
use crate::clock;
use crate::control::client::{Client, Error};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Looks until nobody wants to know any more. What comes in on `pages` is looked at at once.
pub(super) fn run(client: &Client, pages: &Receiver<Page>, events: &SyncSender<Event>) {
    let begin = Instant::now();
    let mut rates = Rates::default();
    let Ok(mut page) = pages.recv() else { return };
    loop {
        // Only the last one wanted counts.
        while let Ok(next) = pages.try_recv() {
            page = next;
        }
        let looked = Instant::now();
        rates.look(looked.duration_since(begin).as_secs_f64());
        let event = match look(client, &page, &mut rates) {
            Ok(news) => Event::News(Box::new(news)),
            Err(error) => Event::Away(said(&error)),
        };
        if events.send(event).is_err() {
            return;
        }
        match pages.recv_timeout(EVERY.saturating_sub(looked.elapsed())) {
            Ok(next) => page = next,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn look(client: &Client, page: &Page, rates: &mut Rates) -> Result<News, Error> {
    let ask = |target: &str| client.text(target).map(|text| Answer::read(&text));
    let stats = ask("/v1/stats")?;
    let answers = page.targets().iter().map(|target| ask(target)).collect::<Result<Vec<_>, _>>()?;
    let header = header(stats.document(), rates);
    let mut look = Look { now_unix_ns: clock::unix_ns(), rates };
    let tables = page.tables(&answers, &stats, &mut look);
    let unreadable = answers.iter().chain([&stats]).map(|answer| answer.unreadable).sum();
    Ok(News { page: page.clone(), header, tables, unreadable })
}

/// What the agent says of itself.
pub(super) fn header(stats: &Value, rates: &mut Rates) -> Header {
    let sum = |section: &str, stages: &[&str]| {
        let rows = wire::list(stats, section).iter();
        let rows = rows.filter(|row| wire::text(row, "/stage").is_some_and(|stage| stages.contains(&stage)));
        rows.filter_map(|row| wire::count(row, "/count")).fold(0, u64::saturating_add)
    };
    let calls = sum("/calls", &["kept"]);
    let cpu = wire::float(stats, "/cpu_seconds");
    Header {
        version: wire::text(stats, "/version").unwrap_or("?").to_owned(),
        uptime_seconds: wire::float(stats, "/uptime_seconds"),
        calls,
        calls_rate: rates.of("agent calls", calls as f64),
        lost: sum("/messages", &["lost"]).saturating_add(sum("/calls", &["lost"])),
        processor: cpu.and_then(|cpu| rates.of("agent cpu", cpu)),
        memory: wire::count(stats, "/resident_bytes"),
    }
}

/// Why there is no answer, the socket first: the line may be cut.
fn said(error: &Error) -> String {
    match error {
        Error::Unreachable { path, source } => {
            format!("no agent at {}; trying again every second ({source})", path.display())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_header_sums_the_ledger() {
        let mut rates = Rates::default();
        let mut at = |now: f64, kept: u64, cpu: f64| {
            rates.look(now);
            let stats = json!({
                "version": "1.2", "uptime_seconds": 90.0, "cpu_seconds": cpu, "resident_bytes": 4096,
                "messages": [{"stage": "seen", "count": 9}, {"stage": "lost", "reason": "ring_full", "count": 2}, 7],
                "calls": [{"stage": "kept", "count": kept}, {"stage": "lost", "count": 1}, {"stage": "evicted", "count": 5}],
            });
            header(&stats, &mut rates)
        };
        let first = at(0.0, 10, 1.0);
        assert_eq!((first.calls, first.lost, first.calls_rate, first.processor), (10, 3, None, None));
        let second = at(2.0, 20, 1.5);
        assert_eq!((second.calls_rate, second.processor), (Some(5.0), Some(0.25)));
        let nothing = header(&json!("odd"), &mut Rates::default());
        assert_eq!((nothing.version.as_str(), nothing.calls, nothing.memory), ("?", 0, None));
    }

    #[test]
    fn who_is_away_is_named_first() {
        let path = std::path::PathBuf::from("/run/weir/control.sock");
        let error = Error::Unreachable { path, source: std::io::ErrorKind::NotFound.into() };
        assert!(said(&error).starts_with("no agent at /run/weir/control.sock; trying again"), "{}", said(&error));
    }
}
