//! How the sources are: for `weir mode` and for metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Trouble;

/// A source.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct Row {
    /// Its name.
    pub(in crate::app) name: Arc<str>,
    /// Its rules in force.
    pub(in crate::app) rules: usize,
    /// Addresses in force that it told of; of the folder, rules.
    pub(in crate::app) entries: usize,
    /// Entries that were left out, of the last good list.
    left_out: usize,
    good: Option<Instant>,
    error: Option<String>,
    /// What went wrong so far, by reason.
    pub(in crate::app) errors: BTreeMap<&'static str, u64>,
}

impl Row {
    /// Seconds since it was last in order.
    pub(in crate::app) fn age_seconds(&self) -> Option<f64> {
        self.good.map(|good| good.elapsed().as_secs_f64())
    }

    /// As it is told.
    pub(in crate::app) fn document(&self) -> Value {
        json!({
            "name": &*self.name, "rules": self.rules, "entries": self.entries, "left_out": self.left_out,
            "age_seconds": self.age_seconds(), "last_error": self.error, "errors": self.errors,
        })
    }
}

/// What was taken of a source.
#[derive(Clone, Debug, Default)]
pub(super) struct Good {
    pub(super) rules: usize,
    pub(super) entries: usize,
    pub(super) left_out: usize,
    /// Why entries were left out.
    pub(super) note: Option<String>,
}

/// All sources by name.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<BTreeMap<Arc<str>, Row>>);

impl Board {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at<T>(&self, name: &str, change: impl FnOnce(&mut Row) -> T) -> T {
        let mut all = self.all();
        let row = all.entry(name.into()).or_insert_with(|| Row { name: name.into(), ..Row::default() });
        change(row)
    }

    /// It is in order; said where it was not, or where other entries are left out.
    pub(super) fn good(&self, name: &str, good: &Good) {
        self.at(name, |row| {
            if row.good.is_none() || row.error.is_some() || row.entries != good.entries {
                let Good { rules, entries, left_out, .. } = good;
                tracing::info!(source = name, rules, entries, left_out, "rules of a source are in force");
            }
            if let Some(note) = good.note.as_deref().filter(|_| row.left_out != good.left_out) {
                tracing::warn!(source = name, left_out = good.left_out, first = note, "entries are left out");
            }
            (row.rules, row.entries, row.left_out) = (good.rules, good.entries, good.left_out);
            (row.good, row.error) = (Some(Instant::now()), None);
        });
    }

    /// Its last good list is that of before the agent's start, so old.
    pub(super) fn recalled(&self, name: &str, good: &Good, age: Duration) {
        self.at(name, |row| {
            let Good { rules, entries, left_out, .. } = good;
            tracing::info!(source = name, rules, entries, left_out, ?age, "the last good list of a feed is in force");
            (row.rules, row.entries, row.left_out) = (good.rules, good.entries, good.left_out);
            row.good = Instant::now().checked_sub(age);
        });
    }

    /// It is partly in order, or there is nothing to have: `error` says what is not, and is not counted. With `now`, it
    /// was heard of just now.
    pub(super) fn partly(&self, name: &str, good: &Good, error: Option<&str>, now: bool) {
        self.at(name, |row| {
            (row.rules, row.entries, row.left_out) = (good.rules, good.entries, good.left_out);
            if row.error.as_deref() != error {
                row.error = error.map(str::to_owned);
            }
            if now {
                row.good = Some(Instant::now());
            }
        });
    }

    /// It gave nothing that can be used; said once for as long as the reason is the same.
    pub(super) fn failed(&self, name: &str, trouble: &Trouble) {
        self.at(name, |row| {
            *row.errors.entry(trouble.reason).or_default() += 1;
            if row.error.as_deref() != Some(&trouble.text) {
                tracing::warn!(
                    source = name,
                    reason = trouble.reason,
                    age_seconds = row.age_seconds(),
                    "rules of a source are refused, those of before stay: {}",
                    trouble.text
                );
                row.error = Some(trouble.text.clone());
            }
        });
    }

    /// Its last good list was kept for as long as it may be.
    pub(super) fn over(&self, name: &str) {
        self.at(name, |row| {
            tracing::warn!(source = name, "no good list for too long: the last one holds no more");
            (row.rules, row.entries) = (0, 0);
        });
    }

    /// Forgets sources that are no more.
    pub(super) fn keep(&self, is_wanted: impl Fn(&str) -> bool) {
        self.all().retain(|name, _| is_wanted(name));
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        self.all().values().cloned().collect()
    }
}
